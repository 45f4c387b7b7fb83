//! Modules from git repositories: by https alone, from addresses that strangers may have us call, with nothing of what git
//! otherwise does by itself. No file is checked out: what is in the commit is read as an archive is.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::{Host, Url};

use super::{Fault, Refused, Tree, archive};
use crate::hooks::AddressPolicy;
use crate::hooks::client::Lookup;
use crate::terraform::process::{self, Ended, Program};
use crate::terraform::scrub::Scrubber;

/// How long all of it may take.
const WITHIN: Duration = Duration::from_mins(1);

/// Bytes of a file that git may write.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Where what was fetched stands.
const FETCHED: &str = "refs/gantry/fetched";

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Repository<'a> {
    /// Where it is: `https://…`.
    pub url: &'a str,
    /// A branch, a tag or a commit.
    pub reference: &'a str,
}

/// What was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The files of the commit.
    pub tree: Tree,
    /// The commit.
    pub commit: String,
}

/// Where it is fetched, and how.
pub(super) struct Place<'a> {
    pub(super) directory: PathBuf,
    pub(super) policy: &'a AddressPolicy,
    pub(super) lookup: &'a dyn Lookup,
    pub(super) trusted: Option<&'a Path>,
}

/// A directory that is gone when this is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("What was fetched for a module cannot be removed: {}: {error}", self.0.display());
        }
    }
}

fn refused(said: impl Into<String>) -> Refused {
    Refused::new(Fault::Fetch, said.into())
}

pub(super) async fn fetch(
    place: &Place<'_>,
    repository: &Repository<'_>,
    stop: impl Future<Output = ()> + Send,
) -> Result<Fetched, Refused> {
    let url: Url =
        repository.url.parse().map_err(|error| refused(format!("{:?} is no URL: {error}", repository.url)))?;
    if url.scheme() != "https" {
        return Err(refused("repositories are fetched by https; write a URL that begins so"));
    }
    if !is_reference(repository.reference) {
        return Err(refused(format!("{:?} is no branch, tag or commit", repository.reference)));
    }
    place.policy.check_url(&url).map_err(|error| refused(error.explain()))?;
    let pinned = pin(place, &url).await?;
    let git =
        process::find("git").ok_or_else(|| refused("there is no git where workers run; the operator installs it"))?;
    let failed = |error: std::io::Error| refused(format!("git cannot be run: {error}"));
    if place.directory.exists() {
        // A worker that is no more left it.
        std::fs::remove_dir_all(&place.directory).map_err(failed)?;
    }
    std::fs::create_dir_all(&place.directory).map_err(failed)?;
    let scratch = Scratch(place.directory.clone());
    let git = Git { program: &git, directory: &scratch.0, pinned: pinned.as_deref(), trusted: place.trusted };
    let fetching = async {
        git.run(&["init", "--quiet", "--bare", "--template=", "."]).await?;
        let wanted = format!("+{}:{FETCHED}", repository.reference);
        let arguments = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            "--",
            url.as_str(),
            &wanted,
        ];
        git.run(&arguments).await?;
        let commit = git.run(&["rev-parse", "--verify", "--quiet", &format!("{FETCHED}^{{commit}}")]).await?;
        git.run(&["archive", "--format=tar", "--output=out.tar", FETCHED]).await?;
        let written = File::open(scratch.0.join("out.tar")).map_err(failed)?;
        Ok(Fetched { tree: archive::tar(written)?, commit: commit.trim().to_owned() })
    };
    tokio::select! {
        fetched = fetching => fetched,
        () = tokio::time::sleep(WITHIN) => Err(refused(format!("it was not fetched within {} s", WITHIN.as_secs()))),
        () = stop => Err(refused("the worker was told to stop; update the module")),
    }
}

/// What names a commit, and nothing that git would take for something else.
fn is_reference(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte);
    (1..=200).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with(['-', '/', '.', '+'])
        && !text.contains("..")
}

/// The addresses of the host, so that git asks nobody else for them; `None`: it is an address already.
async fn pin(place: &Place<'_>, url: &Url) -> Result<Option<String>, Refused> {
    let Some(Host::Domain(host)) = url.host() else { return Ok(None) };
    let addresses =
        place.lookup.addresses(host).await.map_err(|error| refused(format!("{host} has no address: {error}")))?;
    if addresses.is_empty() {
        return Err(refused(format!("{host} has no address")));
    }
    place.policy.check_resolved(host, &addresses).map_err(|error| refused(error.explain()))?;
    let written = addresses.iter().take(8).map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    });
    let written: Vec<String> = written.collect();
    let port = url.port_or_known_default().unwrap_or(443);
    Ok(Some(format!("http.curloptResolve={host}:{port}:{}", written.join(","))))
}

/// Git, with nothing of its own settings.
struct Git<'a> {
    program: &'a Path,
    directory: &'a Path,
    pinned: Option<&'a str>,
    trusted: Option<&'a Path>,
}

/// What git does by itself otherwise, and is not to.
const SETTINGS: &[&str] = &[
    "protocol.allow=never",
    "protocol.https.allow=always",
    "http.followRedirects=false",
    "http.proxy=",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=20",
    "credential.helper=",
    "core.askPass=",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",
    "transfer.fsckObjects=true",
    "gc.auto=0",
    "maintenance.auto=false",
];

impl Git<'_> {
    async fn run(&self, told: &[&str]) -> Result<String, Refused> {
        let bound = format!("--fsize={LARGEST}");
        let limit =
            process::find("prlimit").map(|limit| [limit.display().to_string(), bound, "--core=0".into(), "--".into()]);
        let ends = process::find("setpriv").map(|setpriv| {
            [setpriv.display().to_string(), "--pdeathsig=KILL".into(), "--no-new-privs".into(), "--".into()]
        });
        let through: Vec<String> = limit.into_iter().flatten().chain(ends.into_iter().flatten()).collect();
        let mut arguments: Vec<&str> = Vec::new();
        for setting in SETTINGS.iter().copied().chain(self.pinned) {
            arguments.extend(["-c", setting]);
        }
        arguments.extend(told);
        let home = self.directory.display().to_string();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let mut environment = vec![
            ("PATH", path),
            ("HOME", home.clone()),
            ("TMPDIR", home),
            ("LC_ALL", "C".to_owned()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_ATTR_NOSYSTEM", "1".to_owned()),
            ("GIT_TERMINAL_PROMPT", "0".to_owned()),
            ("GIT_ALLOW_PROTOCOL", "https".to_owned()),
            ("GIT_LFS_SKIP_SMUDGE", "1".to_owned()),
        ];
        if let Some(trusted) = self.trusted {
            environment.push(("GIT_SSL_CAINFO", trusted.display().to_string()));
        }
        let environment: Vec<(String, String)> =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let program = Program {
            through: &through,
            path: self.program,
            arguments: &arguments,
            directory: self.directory,
            environment: &environment,
            time: WITHIN,
            grace: Duration::from_secs(2),
            said: 1024 * 1024,
            line: process::LINE,
        };
        let mut said = String::new();
        let on_line = |line: &str| {
            if said.len() < 4_096 {
                said.push_str(line);
                said.push('\n');
            }
        };
        let what = told.first().copied().unwrap_or_default();
        let finished = process::run(&program, &Scrubber::default(), on_line, std::future::pending()).await;
        let finished = finished.map_err(|error| refused(format!("git cannot be run: {error}")))?;
        match finished.ended {
            Ended::With(0) => Ok(said),
            Ended::TimedOut | Ended::Stopped | Ended::Flooded => {
                Err(refused(format!("git {what} did not end in time")))
            }
            Ended::With(_) | Ended::By(_) => {
                let plain: String =
                    finished.complaint.chars().filter(|it| !it.is_control() || *it == '\n').take(500).collect();
                Err(refused(format!("git {what}: {}", plain.trim())))
            }
        }
    }
}

#[cfg(test)]
mod tests;
