//! Installs what is missing on a server: Docker, from its distribution.

use std::time::Duration;

use gantry_providers::ssh::{Said, SshError};
use gantry_schema::servers::queries::{Check, Place};
use gantry_schema::servers::{RunState, runs};

use super::checks::plain;
use super::reach;
use super::setback::Setback;
use super::teller::Teller;
use super::work::Work;
use crate::{Context, Failure};

const SCRIPT: &str = include_str!("install.sh");

/// How long it may take.
const WITHIN: Duration = Duration::from_mins(10);

/// Bytes of what is said that are read; the script says no more.
const SAID: usize = 4 * 1024;

/// Whether something is missing that can be installed.
pub(super) fn is_needed(found: &[Check]) -> bool {
    found.iter().any(|check| !check.passed && check.name.starts_with("docker"))
}

/// What a shell does for it, whatever the user's own shell is. It ends by itself a little before nobody waits any longer.
fn command() -> String {
    let script = SCRIPT.replace('\'', r"'\''");
    let seconds = WITHIN.as_secs() - 30;
    format!("$(command -v timeout >/dev/null && echo timeout -k 10 {seconds}) sh -c '{script}'")
}

/// What came of it.
fn judge(said: Result<Said, SshError>) -> Check {
    let (passed, found) = match said {
        Ok(said) if said.status == Some(0) => (true, said.text),
        Ok(Said { status: Some(124 | 137), text }) => (false, format!("it did not end in time; {text}")),
        Ok(said) => (false, said.text),
        Err(error) => (false, error.to_string()),
    };
    Check { name: "install".to_owned(), passed, found: plain(found.trim()) }
}

/// Installs Docker, and asks everything once more. Answers that, with what was said.
pub(super) async fn docker(cx: &Context, work: &Work, teller: &Teller, at: &Place) -> Result<Vec<Check>, Setback> {
    let mut tx = cx.begin().await?;
    let goes_on = runs::advance(&mut tx, work.run.id, RunState::Verifying).await?;
    tx.commit().await?;
    if !goes_on {
        return Err(Failure::cancel("the run was cancelled").into());
    }
    teller.stage("installing Docker");
    let session = reach::enter(cx, &work.server, at, &work.ssh_key).await?;
    let command = command();
    let said = tokio::select! {
        said = session.run(&command, SAID, WITHIN) => said,
        () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
    };
    session.leave().await;
    let check = judge(said);
    teller.say(check.found.clone());
    // Whoever was let to work with it is so from the next time on that he comes.
    let mut found = reach::ask(cx, &work.server, at, &work.ssh_key, true).await?;
    found.push(check);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// Has the command done by a shell that finds these programs and no package manager else. Answers its status, what it said,
    /// and what the programs were told.
    fn installed(programs: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path();
        let link = |name: &str| {
            let from =
                ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
            std::os::unix::fs::symlink(from.unwrap(), directory.join(name)).unwrap();
        };
        for name in ["sh", "tail", "timeout", "env"] {
            link(name);
        }
        for (name, script) in programs {
            let path = directory.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        }
        #[expect(clippy::disallowed_methods, reason = "a test, of a script that ends by itself")]
        let mut shell = std::process::Command::new("/bin/sh");
        let shell =
            shell.arg("-c").arg(command()).env_clear().env("PATH", directory).env("TOLD", directory.join("told"));
        let said = shell.output().unwrap();
        let told = std::fs::read_to_string(directory.join("told")).unwrap_or_default();
        (said.status.code(), String::from_utf8(said.stdout).unwrap(), told)
    }

    const NOTE: &str = r#"echo "${0##*/} $*" >>"$TOLD""#;

    #[test]
    fn docker_is_installed_from_the_distribution_by_whoever_may() {
        let id = "case $1 in -u) echo 1000 ;; -un) echo deploy ;; esac";
        let sudo = r#"[ "$1" = -n ] || exit 9; shift; exec "$@""#;
        let programs =
            [("id", id), ("sudo", sudo), ("true", ""), ("apt-get", NOTE), ("systemctl", NOTE), ("usermod", NOTE)];
        let (status, said, told) = installed(&programs);
        assert_eq!((status, said.as_str()), (Some(0), "done\n"));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].ends_with(" update") && lines[1].ends_with(" install -y docker.io"), "{told}");
        assert_eq!(lines[2..], ["systemctl enable --now docker", "usermod -aG docker deploy"]);
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let refused = installed(&[("id", "echo 1000"), ("sudo", "echo 'a password is required' >&2; exit 1")]);
        assert_eq!(refused.0, Some(1));
        assert!(refused.1.contains("a password is required") && refused.1.contains("allow that"), "{}", refused.1);
        let (status, said, _) = installed(&[("id", "echo 0"), ("true", "")]);
        assert!(status == Some(1) && said.contains("install Docker yourself"), "{said}");
        let long = "i=0; while [ $i -lt 300 ]; do echo 'E: a line of what it says'; i=$((i + 1)); done; echo 'E: the end'; exit 100";
        let (status, said, told) = installed(&[("id", "echo 0"), ("true", ""), ("apt-get", long), ("systemctl", NOTE)]);
        assert!(status == Some(100) && said.ends_with("E: the end\n") && said.len() <= 2_001, "{said}");
        assert_eq!(told, "", "nothing is started that is not there");
        let check = judge(Ok(Said { status: Some(100), text: said }));
        assert!(!check.passed && check.found.ends_with("E: the end"));
        assert!(judge(Ok(Said { status: Some(124), text: String::new() })).found.contains("in time"));
        assert!(!judge(Err(SshError::Command("not within 600 s".to_owned()))).passed);
    }
}
