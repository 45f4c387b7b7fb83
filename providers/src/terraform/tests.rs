//! With the real program, where there is one: it is none of those that packages of Debian bring.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::mpsc;

use super::backend::{Backend, StateRefusal, StateStore};
use super::*;
use crate::Secret;
use crate::clouds::Vendor;
use crate::clouds::account::Key;

/// A state in memory, which notes who locked it.
#[derive(Default)]
struct InMemory {
    state: Mutex<Option<Vec<u8>>>,
    locks: Mutex<Vec<String>>,
    held_by_another: bool,
}

#[async_trait]
impl StateStore for Arc<InMemory> {
    async fn read(&self) -> Result<Option<Vec<u8>>, StateRefusal> {
        Ok(self.state.lock().unwrap().clone())
    }

    async fn write(&self, state: &[u8], lock: Option<&str>) -> Result<(), StateRefusal> {
        assert_eq!(lock, self.locks.lock().unwrap().last().map(String::as_str));
        *self.state.lock().unwrap() = Some(state.to_vec());
        Ok(())
    }

    async fn lock(&self, id: &str, _: &Value) -> Result<(), StateRefusal> {
        if self.held_by_another {
            let holder = json!({ "ID": "11111111-2222-3333-4444-555555555555", "Operation": "OperationTypeApply",
                                 "Who": "somebody@elsewhere", "Created": "2026-03-02T09:00:00Z" });
            return Err(StateRefusal::Locked(holder));
        }
        self.locks.lock().unwrap().push(id.to_owned());
        Ok(())
    }

    async fn unlock(&self, id: Option<&str>) -> Result<(), StateRefusal> {
        assert_eq!(id, self.locks.lock().unwrap().last().map(String::as_str));
        Ok(())
    }
}

fn is_there() -> bool {
    let there = process::find("terraform").or_else(|| process::find("tofu")).is_some();
    if !there {
        eprintln!("this test needs terraform or tofu in PATH, and is left out without");
    }
    there
}

/// Terraform that confines so far, or `None`: that is not possible here.
async fn confined_by(level: Level, config: Config) -> Option<Terraform> {
    let bubblewrap = process::find("bwrap").filter(|_| level == Level::Sandbox);
    let isolation = if level == Level::Limits { Isolation::Off } else { config.isolation };
    let terraform = Terraform::with_bubblewrap(Config { isolation, ..config }, bubblewrap);
    let found = terraform.isolation().await;
    if found == level {
        return Some(terraform);
    }
    let why = &terraform.confinement().await.why;
    eprintln!("what is confined as {level:?} is left out of a test: {why}");
    None
}

/// All ways in which runs may be confined here.
async fn all(config: &Config) -> Vec<(Level, Terraform)> {
    let mut all = Vec::new();
    for level in [Level::Limits, Level::User, Level::Sandbox] {
        all.extend(confined_by(level, config.clone()).await.map(|terraform| (level, terraform)));
    }
    all
}

fn in_directory(directory: &Path) -> Config {
    Config { directory: Some(directory.to_owned()), ..Config::default() }
}

fn backend_of(store: &Arc<InMemory>) -> Arc<dyn StateStore> {
    Arc::new(Arc::clone(store))
}

const TOKEN: &str = "a-token-of-one-run";

/// A run that is confined.
fn run_of<'a>(
    configuration: &'a Value,
    environment: &'a [(String, String)],
    secrets: &'a [String],
) -> NewWorkspace<'a> {
    NewWorkspace { name: "run_1", configuration, files: &[], environment, secrets, confined: true }
}

/// A directory in which a program has this script.
fn scripted(script: &str) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    // Whoever runs has to get there.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("program");
    rewrite(&program, script);
    let limits = Limits {
        version: Duration::from_secs(1),
        plan: Duration::from_secs(1),
        grace: Duration::from_secs(1),
        said: 1024 * 1024,
        ..Limits::default()
    };
    let directory = Some(folder.path().join("provisioning"));
    (folder, Config { program: Some(program), directory, limits, ..Config::default() })
}

fn rewrite(program: &Path, script: &str) {
    let script = format!("#!/bin/sh\n{script}\n");
    // Another file in its place: what runs of the old one goes on.
    let next = program.with_extension("next");
    std::fs::write(&next, script).unwrap();
    std::fs::set_permissions(&next, Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&next, program).unwrap();
}

/// A program that says it is Terraform.
const VERSION: &str = r#"if [ "$1" = version ]; then echo '{"terraform_version": "1.9.0"}'; exit; fi"#;

fn left_in(config: &Config) -> usize {
    let runs = config.directory.as_ref().unwrap().join("runs");
    std::fs::read_dir(runs).map_or(0, Iterator::count)
}

/// Command lines of processes with this text in them.
fn running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "waited in vain until {what}");
}

async fn lines_of(mut told: mpsc::Receiver<Event>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(event) = told.recv().await {
        lines.push(match event {
            Event::Line(line) => line,
            other => format!("{other:?}"),
        });
    }
    lines
}

#[tokio::test]
async fn what_is_planned_is_made_and_removed_and_the_state_is_ours_to_keep() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (level, terraform) in all(&in_directory(folder.path())).await {
        let store = Arc::new(InMemory::default());
        let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
        let configuration = json!({
            "resource": { "terraform_data": { "thing": {
                "input": { "name": "a thing" },
                "provisioner": [{ "local-exec": { "command": "echo \"the token is $TF_HTTP_PASSWORD\"" } }],
            } } },
            "output": { "name": { "value": "${terraform_data.thing.output.name}" } },
        });
        let (secrets, environment) = ([TOKEN.to_owned()], backend.environment());
        let workspace = terraform.workspace(run_of(&configuration, &environment, &secrets)).await.unwrap();
        assert_eq!(workspace.isolation(), level);
        let (events, told) = mpsc::channel(1_000);
        workspace.init(&events, std::future::pending()).await.unwrap();
        let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap();
        assert_eq!(planned.changes, [("terraform_data.thing".to_owned(), "create".to_owned())].into());
        assert!(!planned.bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()));
        workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap();
        assert_eq!(workspace.outputs().await.unwrap()["name"], "a thing");
        let state = String::from_utf8(store.state.lock().unwrap().clone().unwrap()).unwrap();
        assert!(state.contains("a thing") && !state.contains(TOKEN));

        // What was planned before something else was done is not done.
        let stale = workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap_err();
        assert!(stale.to_string().contains("Saved plan is stale"), "{stale}");
        let planned = workspace.plan(true, &events, std::future::pending()).await.unwrap();
        assert_eq!(planned.changes["terraform_data.thing"], "delete");
        workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap();

        drop(events);
        let lines = lines_of(told).await;
        assert!(lines.iter().any(|line| line.contains("the token is [REDACTED]")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains(TOKEN)), "{lines:?}");
        drop(workspace);
        assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 0, "nothing is left behind");
    }
}

#[tokio::test]
async fn what_another_holds_is_not_worked_on_and_it_is_said_who_holds_it() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(InMemory { held_by_another: true, ..InMemory::default() });
    let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
    let (configuration, environment) = (json!({}), backend.environment());
    let terraform = Terraform::new(in_directory(folder.path()));
    let workspace = terraform.workspace(run_of(&configuration, &environment, &[])).await.unwrap();
    let (events, _told) = mpsc::channel(1_000);
    workspace.init(&events, std::future::pending()).await.unwrap();
    let refused = workspace.plan(false, &events, std::future::pending()).await.unwrap_err().to_string();
    assert!(refused.contains("Error acquiring the state lock"), "{refused}");
    assert!(refused.contains("11111111-2222-3333-4444-555555555555"), "{refused}");
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_saves_what_it_made_and_leaves_nothing_running() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (level, terraform) in all(&in_directory(folder.path())).await {
        let store = Arc::new(InMemory::default());
        let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
        // One that nobody else sleeps as long.
        let nap = format!("{}.{level:?}", 100_000 + std::process::id()).replace("Limits", "1").replace("User", "2");
        let nap = nap.replace("Sandbox", "3");
        let configuration = json!({ "resource": { "terraform_data": {
            "first": { "input": "it was made" },
            "second": {
                "depends_on": ["terraform_data.first"],
                "provisioner": [{ "local-exec": { "command": format!("setsid -f sleep {nap}; sleep {nap}") } }],
            },
        } } });
        let environment = backend.environment();
        let workspace = terraform.workspace(run_of(&configuration, &environment, &[])).await.unwrap();
        let (events, _told) = mpsc::channel(1_000);
        workspace.init(&events, std::future::pending()).await.unwrap();
        let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap();
        let sleeps = format!("sleep {nap}");
        let stop =
            eventually("it sleeps", || running(&sleeps).iter().filter(|it| it.starts_with("sleep")).count() == 2);
        let stopped = workspace.apply(&planned.bytes, &events, stop).await.unwrap_err();
        assert!(matches!(stopped, Trouble::Stopped), "{stopped}");
        let state = String::from_utf8(store.state.lock().unwrap().clone().unwrap()).unwrap();
        assert!(state.contains("it was made"), "{state}");
        drop(workspace);
        if level == Level::Limits {
            // Whoever leaves the group lives on there: machines of the sandbox are to.
            eventually("one is left", || running(&sleeps).len() == 1).await;
            end(&sleeps);
        }
        eventually("nobody sleeps any more", || running(&sleeps).is_empty()).await;
    }
}

/// Ends what a test has started and lives on.
fn end(text: &str) {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).replace('\0', " ").starts_with(text) {
            let pid = process.file_name().to_string_lossy().parse().ok().and_then(rustix::process::Pid::from_raw);
            rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::KILL).unwrap();
        }
    }
}

/// Where the worker that is killed works, how it is confined, and how long it sleeps.
const DOOMED: [&str; 3] = ["DOOMED_DIRECTORY", "DOOMED_LEVEL", "DOOMED_NAP"];

#[tokio::test]
#[ignore = "it is started by the next one, and killed"]
async fn a_worker_that_will_be_killed() {
    let [directory, level, nap] = DOOMED.map(|name| std::env::var(name).unwrap());
    let level = [Level::Limits, Level::User, Level::Sandbox].into_iter().find(|it| format!("{it:?}") == level).unwrap();
    let terraform = confined_by(level, in_directory(Path::new(&directory))).await.unwrap();
    let backend = Backend::start(backend_of(&Arc::default()), Secret::new(TOKEN)).await.unwrap();
    let configuration = json!({ "resource": { "terraform_data": { "one": {
        "provisioner": [{ "local-exec": { "command": format!("sleep {nap} & sleep {nap}") } }],
    } } } });
    let environment = backend.environment();
    let workspace = terraform.workspace(run_of(&configuration, &environment, &[])).await.unwrap();
    let (events, _told) = mpsc::channel(1_000);
    workspace.init(&events, std::future::pending()).await.unwrap();
    let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap();
    drop(workspace.apply(&planned.bytes, &events, std::future::pending()).await);
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_no_process_and_its_directory_is_removed_by_the_next() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (number, (level, terraform)) in all(&in_directory(folder.path())).await.into_iter().enumerate() {
        let nap = format!("{}.{number}", 200_000 + std::process::id());
        #[expect(clippy::disallowed_methods, reason = "a worker of the test's own")]
        let mut worker = tokio::process::Command::new(std::env::current_exe().unwrap());
        let mut worker = worker
            .args(["--exact", "terraform::tests::a_worker_that_will_be_killed", "--ignored"])
            .envs(DOOMED.into_iter().zip([folder.path().display().to_string(), format!("{level:?}"), nap.clone()]))
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let sleeps = format!("sleep {nap}");
        eventually("it sleeps", || running(&sleeps).iter().filter(|it| it.starts_with("sleep")).count() == 2).await;
        worker.kill().await.unwrap();
        eventually("nobody sleeps any more", || running(&nap).is_empty()).await;
        eventually("terraform is gone", || running(&folder.path().display().to_string()).is_empty()).await;
        let (configuration, other) = (json!({}), NewWorkspace { name: "run_2", ..run_of(&Value::Null, &[], &[]) });
        drop(terraform.workspace(NewWorkspace { configuration: &configuration, ..other }).await.unwrap());
        assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 0, "{level:?}");
    }
}

#[tokio::test]
async fn what_is_confined_sees_and_changes_nothing_but_its_own() {
    let script = format!(
        "{VERSION}
        echo user $(id -u) $(sed -n 's/^CapEff:\\s*//p' /proc/self/status) $(sed -n 's/^NoNewPrivs:\\s*//p' /proc/self/status)
        echo limits $(ulimit -c) $(ulimit -d) $(ulimit -f) $(ulimit -n) $(ulimit -p)
        echo settings $(env | grep -c GANTRY_)
        [ -n \"$HARMLESS\" ] && exit
        for file in /etc/shadow \"$SECRET_FILE\" /proc/1/environ; do cat \"$file\" >/dev/null 2>&1 && echo read $file; done
        for file in /etc/x /usr/x /x /dev/x \"$SECRET_FILE\"; do (: >>\"$file\") 2>/dev/null && echo wrote $file; done
        touch \"$HOME/own\" \"$TMPDIR/own\" own && echo own
        [ -r /etc/resolv.conf ] && [ -e /etc/ssl ] && echo resolves
        echo processes $(ls /proc | grep -c '^[0-9]')
        echo homes $(ls -d /home /root /var 2>/dev/null | wc -l)"
    );
    let (folder, config) = scripted(&script);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "of the worker").unwrap();
    std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    for (level, terraform) in all(&config).await {
        let configuration = json!({});
        // As the worker it could do all of it.
        let harmless = if level == Level::Limits { "yes" } else { "" };
        let environment = [("SECRET_FILE", secret.to_str().unwrap()), ("HARMLESS", harmless)]
            .map(|(name, value)| (name.into(), value.into()));
        let workspace = terraform.workspace(run_of(&configuration, &environment, &[])).await.unwrap();
        let (events, told) = mpsc::channel(1_000);
        // What it cannot do is no error.
        drop(workspace.init(&events, std::future::pending()).await);
        drop(events);
        let lines = lines_of(told).await;
        let said = |wanted: &str| lines.iter().any(|line| line.starts_with(wanted));
        assert!(said("limits 0 4194304 4194304 4096 4096"), "{level:?}: {lines:?}");
        assert!(said("settings 0"), "{level:?}: {lines:?}");
        if level == Level::Limits {
            continue;
        }
        assert!(said("own"), "{level:?}: {lines:?}");
        if rustix::process::geteuid().is_root() {
            assert!(said("user 60") && !said("user 0"), "{level:?}: {lines:?}");
            assert!(!said("read") && !said("wrote"), "{level:?}: {lines:?}");
        }
        assert!(lines.iter().any(|line| line.ends_with("0000000000000000 1")), "{level:?}: {lines:?}");
        if level == Level::Sandbox {
            assert!(!said("read") && !said("wrote") && said("resolves"), "{lines:?}");
            let processes: Vec<&String> = lines.iter().filter(|line| line.starts_with("processes")).collect();
            assert!(processes.iter().all(|line| line.len() == "processes 5".len()), "{processes:?}");
            assert!(said("homes 0"), "{lines:?}");
        }
        assert_eq!(std::fs::read(&secret).unwrap(), b"of the worker");
    }
}

#[tokio::test]
async fn what_has_to_be_confined_and_cannot_be_is_not_begun() {
    let (_folder, config) = scripted(VERSION);
    let terraform = Terraform::with_bubblewrap(Config { isolation: Isolation::Required, ..config.clone() }, None);
    let configuration = json!({});
    let refused = terraform.workspace(run_of(&configuration, &[], &[])).await.unwrap_err();
    assert!(matches!(refused, Trouble::Unconfined), "{refused}");
    assert_eq!(left_in(&config), 0);
    // The platform's own is begun all the same.
    let own = NewWorkspace { confined: false, ..run_of(&configuration, &[], &[]) };
    assert_eq!(terraform.workspace(own).await.unwrap().isolation(), Level::Limits);
    assert_eq!(left_in(&config), 0);
}

#[tokio::test]
async fn what_a_run_leaves_in_the_place_of_its_files_leads_nowhere() {
    let script = format!(
        "{VERSION}
        case $1 in
        init) ln -s \"$VICTIM\" plan.bin ;;
        plan) [ -e deep ] || {{ mkdir -p deep/er && : >deep/er/x && chmod 500 deep/er deep; }} ;;
        apply) cat plan.bin; echo; rm plan.bin; mkfifo plan.bin ;;
        esac"
    );
    let (folder, config) = scripted(&script);
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "of somebody else").unwrap();
    let environment = [("VICTIM".to_owned(), victim.display().to_string())];
    for (level, terraform) in all(&config).await {
        let configuration = json!({});
        let workspace = terraform.workspace(run_of(&configuration, &environment, &[])).await.unwrap();
        let (events, told) = mpsc::channel(1_000);
        workspace.init(&events, std::future::pending()).await.unwrap();
        let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap_err();
        assert!(matches!(planned, Trouble::Garbage("plan")), "{level:?}: {planned}");
        workspace.apply(b"what was approved", &events, std::future::pending()).await.unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"of somebody else", "{level:?}");
        let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap_err();
        assert!(matches!(planned, Trouble::Garbage("plan")), "{level:?}: {planned}");
        drop((events, workspace));
        assert!(lines_of(told).await.contains(&"what was approved".to_owned()), "{level:?}");
        assert_eq!(left_in(&config), 0, "{level:?}");
    }
}

#[tokio::test]
async fn a_program_that_misbehaves_is_told_by_what_it_did_and_leaves_nothing() {
    let nap = format!("{}", 300_000 + std::process::id());
    let planned = |script: &str| format!("{VERSION}\n[ $1 = init ] && exit\n{script}");
    let cases = [
        (planned(&format!("trap '' INT; sleep {nap}")), "terraform plan did not end in time"),
        (planned("echo garbage"), "terraform plan says nothing that can be understood"),
        (planned("[ $1 = plan ] && : >plan.bin; echo garbage"), "terraform show says nothing that can be understood"),
        (planned("yes"), "terraform plan said more than anybody reads"),
        (planned("head -c 3000000 /dev/zero"), "terraform plan said more than anybody reads"),
        (planned("kill -SEGV $$"), "terraform plan was ended by signal 11"),
        (planned("echo 'fatal error: runtime: cannot allocate memory' >&2; exit 2"), "needs more memory"),
        (planned("echo 'nothing works' >&2; exit 7"), "nothing works"),
        (planned("exit 7"), "terraform plan ended with status 7"),
    ];
    for (script, said) in cases {
        let (folder, config) = scripted(&script);
        for (level, terraform) in all(&config).await {
            let configuration = json!({});
            let workspace = terraform.workspace(run_of(&configuration, &[], &[])).await.unwrap();
            let (events, _told) = mpsc::channel(1_000);
            workspace.init(&events, std::future::pending()).await.unwrap();
            let trouble = workspace.plan(false, &events, std::future::pending()).await.unwrap_err().to_string();
            assert!(trouble.contains(said), "{level:?}: {trouble}");
            drop(workspace);
            assert_eq!(left_in(&config), 0, "{level:?}: {said}");
            eventually("nothing runs", || running(&folder.path().display().to_string()).is_empty()).await;
            eventually("nobody sleeps", || running(&nap).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_vanishes_or_becomes_another_one_is_noticed() {
    let (folder, config) = scripted(VERSION);
    let program = config.program.clone().unwrap();
    for (_, terraform) in all(&config).await {
        rewrite(&program, VERSION);
        let configuration = json!({});
        let workspace = terraform.workspace(run_of(&configuration, &[], &[])).await.unwrap();
        let (events, _told) = mpsc::channel(1_000);
        workspace.init(&events, std::future::pending()).await.unwrap();
        std::fs::remove_file(&program).unwrap();
        let gone = workspace.plan(false, &events, std::future::pending()).await.unwrap_err();
        assert!(matches!(gone, Trouble::Gone(_)), "{gone}");
        drop(workspace);
        let gone = terraform.workspace(run_of(&configuration, &[], &[])).await.unwrap_err();
        assert!(matches!(gone, Trouble::Gone(_)), "{gone}");
        rewrite(&program, &VERSION.replace("1.9.0", "1.2.9"));
        let older = terraform.workspace(run_of(&configuration, &[], &[])).await.unwrap_err().to_string();
        assert!(older.contains("it is version 1.2.9, and 1.5 or a later 1.x is needed"), "{older}");
        assert_eq!(left_in(&config), 0);
    }
    drop(folder);
}

#[tokio::test]
async fn a_program_that_hangs_lies_or_is_not_there_is_named() {
    for (script, said) in [
        ("sleep 300", "it does not say its version within 1 s"),
        ("echo garbage", "it says no version"),
        ("yes", "it says no version"),
        ("echo '{\"terraform_version\": \"1.2.9\"}'", "it is version 1.2.9, and 1.5 or a later 1.x is needed"),
        ("echo '{\"terraform_version\": \"2.0.0\"}'", "it is version 2.0.0"),
        ("exit 1", "it says no version"),
        ("kill -KILL $$", "it was ended by signal 9"),
    ] {
        let (_folder, config) = scripted(script);
        let program = config.program.clone().unwrap().display().to_string();
        let error = Terraform::new(config).version().await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&program), "{script}: {error}");
    }
    let (folder, config) = scripted(VERSION);
    let nowhere = Terraform::new(Config { program: Some(folder.path().join("nothing")), ..config });
    assert!(matches!(nowhere.version().await, Err(Trouble::Gone(_))));
}

#[tokio::test]
async fn terraform_that_needs_more_memory_than_it_may_have_says_so() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { memory: 32 << 20, ..Limits::default() };
    // It is asked for its version with the same limits.
    let terraform = Terraform::new(Config { limits, ..in_directory(folder.path()) });
    let trouble = terraform.version().await.unwrap_err().to_string();
    assert!(trouble.contains("cannot be used"), "{trouble}");
}

/// What opens an account of each cloud, as customers have it.
fn credentials() -> Vec<(Vendor, Vec<(&'static str, String)>)> {
    let service_account = json!({
        "type": "service_account", "project_id": "acme-prod", "private_key_id": "6f1c0ffee4d2b7a9e8f3",
        "private_key": format!("-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQDq8Xn0S3cr3tL1ne"),
        "client_email": "gantry@acme-prod.iam.gserviceaccount.com", "token_uri": "https://oauth2.googleapis.com/token",
    });
    vec![
        (
            Vendor::Aws,
            vec![
                ("access_key_id", "AKIAQ3EXAMPLEKEYID42".to_owned()),
                ("secret_access_key", "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".to_owned()),
            ],
        ),
        (Vendor::Gcp, vec![("service_account", serde_json::to_string_pretty(&service_account).unwrap())]),
        (
            Vendor::Azure,
            vec![
                ("tenant_id", "5f0a11ce-0000-4000-8000-c0ffee00beef".to_owned()),
                ("client_id", "7d0a11ce-0000-4000-8000-c0ffee00beef".to_owned()),
                ("client_secret", "Q~8S3cr3t.of_an~application&<more>".to_owned()),
                ("subscription_id", "9b0a11ce-0000-4000-8000-c0ffee00beef".to_owned()),
            ],
        ),
        (Vendor::Digitalocean, vec![("token", "dop_v1_5f2d1cafe0ddba11decade5eed".to_owned())]),
        (
            Vendor::Hetzner,
            vec![("token", "hCl0udT0kenThatN0b0dyMaySee42hCl0udT0kenThatN0b0dyMaySee42Abcdef".to_owned())],
        ),
    ]
}

/// What of a credential must be nowhere to be read, as it is and as programs write it otherwise.
fn traces(members: &[(&str, String)]) -> Vec<String> {
    use base64::Engine as _;
    let parts = [
        "wJalr/XUtnFEMI+K7MDEN",
        "MIIEvQIBADANBgkqhkiG9w0",
        "BKcwggSjAgEAAoIBAQDq8Xn0",
        "6f1c0ffee4d2b7a9e8f3",
        "Q~8S3cr3t.of_an~app",
        "dop_v1_5f2d1cafe0ddba11",
        "hCl0udT0kenThatN0b0dyMaySee42",
    ];
    let mut traces = Vec::new();
    for part in parts.iter().filter(|part| members.iter().any(|(_, value)| value.contains(**part))) {
        traces.push((*part).to_owned());
        traces.push(part.bytes().map(|byte| format!("{byte:02x}")).collect());
        for before in 0..3 {
            let whole = base64::engine::general_purpose::STANDARD.encode([&[0; 2][..before], part.as_bytes()].concat());
            traces.push(whole[4..20].to_owned());
        }
    }
    traces
}

#[tokio::test]
async fn credentials_of_every_cloud_are_nowhere_but_in_the_environment() {
    if !is_there() {
        return;
    }
    for (vendor, members) in credentials() {
        let key = Key::of(vendor, members.iter().map(|(name, value)| (*name, value.as_str()))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let terraform = Terraform::new(in_directory(folder.path()));
        let store = Arc::new(InMemory::default());
        let backend = Backend::start(backend_of(&store), Secret::new(TOKEN)).await.unwrap();
        let names: Vec<String> = key.environment("nowhere-1").into_iter().map(|(name, _)| name).collect();
        // Somebody who wants it to be seen.
        let tells = names
            .iter()
            .flat_map(|name| {
                [
                    format!("printf '%s\\n' \"it is ${name}\""),
                    format!("printf '%s' \"${name}\" | base64 -w0; echo"),
                    format!("printf '%s' \"user:${name}:x\" | base64 -w0; echo"),
                    format!("printf '%s' \"${name}\" | od -An -v -tx1 | tr -d ' \\n'; echo"),
                    format!("printf '%s\\n' \"it is ${name}\" >&2"),
                ]
            })
            .collect::<Vec<_>>()
            .join("; ");
        let configuration = json!({
            "resource": { "terraform_data": { "thing": {
                "input": "a thing",
                "provisioner": [{ "local-exec": { "command": format!("sleep 0.3; {tells}; exit 3") } }],
            } } },
            "output": { "thing": { "value": "${terraform_data.thing.output}" } },
        });
        let environment = [key.environment("nowhere-1"), backend.environment()].concat();
        let secrets: Vec<String> = members.iter().map(|(_, value)| value.clone()).chain([TOKEN.to_owned()]).collect();
        let workspace = terraform.workspace(run_of(&configuration, &environment, &secrets)).await.unwrap();
        let (events, told) = mpsc::channel(10_000);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watching = Arc::clone(&seen);
        let watch = tokio::spawn(async move {
            loop {
                let lines = running("terraform");
                watching.lock().unwrap().extend(lines);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        workspace.init(&events, std::future::pending()).await.unwrap();
        let planned = workspace.plan(false, &events, std::future::pending()).await.unwrap();
        let failed = workspace.apply(&planned.bytes, &events, std::future::pending()).await.unwrap_err().to_string();
        let outputs = format!("{:?}", workspace.outputs().await.unwrap());
        watch.abort();
        drop((events, workspace));
        let said = lines_of(told).await.join("\n");
        assert!(said.contains("[REDACTED]") && failed.contains("[REDACTED]"), "{vendor}: {said} {failed}");
        let seen = seen.lock().unwrap().join("\n");
        assert!(seen.contains("terraform apply") || seen.contains("apply -json"), "{vendor}: {seen}");
        let state = String::from_utf8(store.state.lock().unwrap().clone().unwrap()).unwrap();
        let plan = String::from_utf8_lossy(&planned.bytes);
        let told = [
            ("state", state.as_str()),
            ("plan", &plan),
            ("summary", &format!("{:?}", planned.changes)),
            ("log", &said),
            ("problem", &failed),
            ("outputs", &outputs),
            ("command lines", &seen),
        ];
        let traces = traces(&members);
        assert!(traces.len() >= 3, "{vendor}");
        for (place, text) in told {
            for trace in traces.iter().map(String::as_str).chain([TOKEN]) {
                assert!(!text.contains(trace), "{vendor}, {place}: {trace} in {text}");
            }
        }
    }
}
