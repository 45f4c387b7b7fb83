//! Machines that are there already are connected, looked after and forgotten; and people get into servers with keys of their
//! own. With OpenSSH servers as machines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gantry_jobs::servers::{ConnectServer, DestroyServer, LookAtServer, ProvisionServer};
use gantry_jobs::{Job as _, Queue};
use gantry_providers::terraform::process::find;
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::servers::connected::{self, NewMachine};
use gantry_schema::servers::queries::{self as servers, NewServer, Place, Server};
use gantry_schema::servers::{Options, Problem, RunKind, RunState, ServerKind, ServerState, keys, runs};
use gantry_schema::{RunId, ServerId};
use gantry_tests::live::{Engine, eventually};
use gantry_tests::{Actor, Live};
use sqlx::PgPool;
use tempfile::TempDir;

#[expect(clippy::disallowed_methods, reason = "a story, with programs of OpenSSH that it ends")]
fn program(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| panic!("{name} is in PATH")))
}

/// A key pair, made by ssh-keygen. Answers its public half.
fn pair(kind: &str, file: &Path) -> String {
    let made = program("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-C", "", "-f"]).arg(file).status().unwrap();
    assert!(made.success());
    fs::read_to_string(file.with_extension("pub")).unwrap().trim().to_owned()
}

/// A machine that is there already. It has programs of its own, and is stopped when it is dropped.
struct Machine {
    folder: TempDir,
    port: u16,
    sshd: Child,
    _docker: UnixListener,
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop((self.sshd.kill(), self.sshd.wait()));
    }
}

impl Machine {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::write(at("authorized_keys"), "").unwrap();
        for kind in ["ed25519", "ecdsa"] {
            pair(kind, &at(kind));
        }
        let docker = UnixListener::bind(at("docker.sock")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let shown = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {shown}/ed25519\nHostKey {shown}/ecdsa\nPidFile none\n\
             AuthorizedKeysFile {shown}/authorized_keys\nAuthenticationMethods publickey\nStrictModes no\nUsePAM no\n\
             SetEnv PATH={shown}/bin:/usr/bin:/bin DOCKER_HOST=unix://{shown}/docker.sock\n"
        );
        fs::write(at("sshd_config"), config).unwrap();
        if is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let sshd = program("sshd").arg("-D").arg("-f").arg(at("sshd_config")).arg("-E").arg(at("log")).spawn().unwrap();
        let machine = Self { port, sshd, _docker: docker, folder };
        for name in ["usermod", "systemctl"] {
            machine.has(name, "exit 0");
        }
        machine.has("sudo", r#"shift; exec "$@""#);
        eventually("the machine answers", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives it a program.
    fn has(&self, name: &str, script: &str) {
        let path = self.at("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn has_docker(&self) {
        self.has("docker", "echo 24.0.7");
    }

    fn lets_in(&self, key: &str) {
        fs::write(self.at("authorized_keys"), format!("{key}\n")).unwrap();
    }

    fn place(&self) -> Place {
        let host_key = fs::read_to_string(self.at("ed25519.pub")).unwrap().trim().to_owned();
        Place { address: "127.0.0.1".to_owned(), port: self.port, username: user(), host_key }
    }

    /// Everything that lies there, and when it was last changed.
    fn contents(&self) -> Vec<(PathBuf, std::time::SystemTime)> {
        let folders = [self.folder.path().to_owned(), self.at("bin")];
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut contents: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "log")
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        contents.sort();
        contents
    }
}

fn user() -> String {
    let said = program("id").arg("-un").output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn is_root() -> bool {
    user() == "root"
}

async fn public_key(live: &Live, actor: &Actor) -> String {
    let mut tx = actor.begin().await;
    let id = keys::ensure(&mut tx, live.sealing_keys()).await.unwrap();
    let key = keys::find(&mut tx, id).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    key.public_key
}

async fn connected(live: &Live, actor: &Actor, name: &str, place: &Place, install: bool) -> ServerId {
    let mut tx = actor.begin().await;
    let key = keys::ensure(&mut tx, live.sealing_keys()).await.unwrap();
    let new = NewMachine { name, place, labels: &BTreeMap::new(), install };
    let id = connected::insert(&mut tx, &new, key).await.unwrap();
    tx.commit().await.unwrap();
    tried(actor, id).await;
    id
}

/// It is tried to connect it, once more perhaps.
async fn tried(actor: &Actor, id: ServerId) -> RunId {
    let mut tx = actor.begin().await;
    servers::set_state(&mut tx, id, ServerState::Provisioning).await.unwrap();
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Connect, "story").await.unwrap();
    let job = ConnectServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap().id;
    runs::set_job(&mut tx, run, job).await.unwrap();
    tx.commit().await.unwrap();
    run
}

async fn removed(actor: &Actor, id: ServerId, kind: RunKind) {
    let mut tx = actor.begin().await;
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, kind, "story").await.unwrap();
    DestroyServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn found(actor: &Actor, id: ServerId) -> Server {
    let mut tx = actor.begin().await;
    let server = servers::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    server
}

async fn engine(live: &Live) -> Engine {
    live.engine_with(vec![(Queue::Provisioning, 4), (Queue::Default, 2)], |_| {}).await
}

async fn failed(live: &Live, actor: &Actor, id: ServerId) -> (Problem, String) {
    live.settled().await;
    let server = found(actor, id).await;
    assert_eq!(server.state, ServerState::Failed, "{:?}", server.problem);
    server.problem.unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_machine_that_is_there_is_connected_looked_after_and_forgotten_as_it_was(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let mut machine = Machine::start().await;
    machine.has_docker();
    machine.lets_in(&public_key(&live, &acme).await);
    let before = machine.contents();
    let engine = engine(&live).await;
    let id = connected(&live, &acme, "db-1", &machine.place(), true).await;
    live.settled().await;
    let server = found(&acme, id).await;
    assert_eq!((server.state, server.kind), (ServerState::Ready, ServerKind::Connected), "{:?}", server.problem);
    let names: Vec<&str> = server.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["system", "disk", "memory", "clock", "docker", "docker_socket"]);
    assert!(server.checks.iter().all(|check| check.passed), "{:?}", server.checks);
    assert_eq!((server.cloud, server.monthly_cost, server.credential), (None, None, None));
    let planned: (bool, bool) = sqlx::query_as("select watch_at is not null, compare_at is not null from servers")
        .fetch_one(&live.owner)
        .await
        .unwrap();
    assert_eq!(planned, (true, false), "it is looked at again, and never compared");

    // It is looked at by the same way in, and missed when it is gone.
    acme.enqueue(LookAtServer { server: id }).await;
    live.settled().await;
    assert!(found(&acme, id).await.reached_at > server.reached_at);
    drop((machine.sshd.kill(), machine.sshd.wait()));
    for _ in 0..3 {
        acme.enqueue(LookAtServer { server: id }).await;
        live.settled().await;
    }
    assert!(found(&acme, id).await.unreachable_since.is_some());

    // Whoever forgets it need not reach it.
    removed(&acme, id, RunKind::Forget).await;
    live.settled().await;
    let gone = found(&acme, id).await;
    assert_eq!((gone.state, gone.ssh_key, gone.unreachable_since.is_some()), (ServerState::Destroyed, None, true));
    assert_eq!(machine.contents(), before, "nothing on it was changed");
    let told: Vec<String> = sqlx::query_scalar("select type from events where type like 'server.%' order by id")
        .fetch_all(&live.owner)
        .await
        .unwrap();
    assert_eq!(told, ["server.ready", "server.unreachable", "server.destroyed"]);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_machine_that_is_not_as_it_has_to_be_says_why_and_is_tried_again(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let machine = Machine::start().await;
    let engine = engine(&live).await;

    // It does not know the platform yet.
    let id = connected(&live, &acme, "db-1", &machine.place(), false).await;
    assert_eq!(failed(&live, &acme, id).await.0, Problem::SshRefused);
    machine.lets_in(&public_key(&live, &acme).await);
    tried(&acme, id).await;
    let (problem, said) = failed(&live, &acme, id).await;
    assert!(problem == Problem::ChecksFailed && said.contains("docker: ") && !said.contains("install"), "{said}");
    machine.has("docker", "echo 19.03.15");
    tried(&acme, id).await;
    assert!(failed(&live, &acme, id).await.1.contains("docker: 19.03.15; 20.10 or later is needed"));
    machine.has_docker();
    let run = tried(&acme, id).await;
    live.settled().await;
    let server = found(&acme, id).await;
    assert_eq!((server.state, server.problem), (ServerState::Ready, None));
    let mut tx = acme.begin().await;
    let run = runs::find(&mut tx, run).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert_eq!((run.kind, run.state), (RunKind::Connect, RunState::Succeeded));

    // Somebody else answers there; and a key of another algorithm is believed just as well.
    let folder = tempfile::tempdir().unwrap();
    let another = Place { host_key: pair("ed25519", &folder.path().join("key")), ..machine.place() };
    let id = connected(&live, &acme, "db-2", &another, true).await;
    assert_eq!(failed(&live, &acme, id).await.0, Problem::HostKeyMismatch);
    let host_key = fs::read_to_string(machine.at("ecdsa.pub")).unwrap().trim().to_owned();
    let id = connected(&live, &acme, "db-3", &Place { host_key, ..machine.place() }, false).await;
    live.settled().await;
    let server = found(&acme, id).await;
    assert_eq!(server.state, ServerState::Ready, "{:?}", server.problem);

    // Nobody answers; and nobody is to look there.
    let id = connected(&live, &acme, "db-4", &Place { port: 1, ..machine.place() }, false).await;
    assert_eq!(failed(&live, &acme, id).await.0, Problem::SshUnreachable);
    for (number, address) in ["10.0.0.1", "169.254.169.254", "::1", "127.0.0.2"].iter().enumerate() {
        let place = Place { address: (*address).to_owned(), ..machine.place() };
        let id = connected(&live, &acme, &format!("inside-{number}"), &place, false).await;
        assert_eq!(failed(&live, &acme, id).await.0, Problem::RefusedAddress, "{address}");
        acme.enqueue(LookAtServer { server: id }).await;
        live.settled().await;
    }
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_missing_is_installed_where_that_was_asked_for(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let machine = Machine::start().await;
    machine.lets_in(&public_key(&live, &acme).await);
    let engine = engine(&live).await;
    machine.has("apt-get", "echo 'E: Unable to locate package docker.io' >&2; exit 100");
    let id = connected(&live, &acme, "db-1", &machine.place(), true).await;
    let (problem, said) = failed(&live, &acme, id).await;
    assert!(problem == Problem::ChecksFailed && said.contains("Unable to locate package docker.io"), "{said}");
    let kept = found(&acme, id).await.checks;
    assert!(kept.iter().any(|check| check.name == "install" && !check.passed), "{kept:?}");

    let docker = machine.at("bin").join("docker");
    let installs = format!(
        "case \"$*\" in *docker.io) printf '#!/bin/sh\\necho 20.10.24\\n' >{0} && chmod 755 {0} ;; esac",
        docker.display()
    );
    machine.has("apt-get", &installs);
    tried(&acme, id).await;
    live.settled().await;
    let server = found(&acme, id).await;
    assert_eq!(server.state, ServerState::Ready, "{:?}", server.problem);
    let installed = server.checks.iter().find(|check| check.name == "install").unwrap();
    assert_eq!((installed.passed, installed.found.as_str()), (true, "done"));
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn people_get_into_a_server_with_keys_of_their_own_and_run_commands_there(pool: PgPool) {
    if find("terraform").or_else(|| find("tofu")).is_none() {
        println!("this story needs terraform or tofu in PATH, and is left out without");
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let all: Vec<String> = ["ed25519", "ecdsa", "rsa"].iter().map(|kind| pair(kind, &at(kind))).collect();
    let options = Options { authorized_keys: all, ..Options::default() };
    let mut tx = acme.begin().await;
    let credential = Credential::Sandbox { token: "sandbox-of-a-story".to_owned() };
    let credential = credentials::insert(&mut tx, live.sealing_keys(), "sandbox", &credential).await.unwrap();
    // With a key that was brought along, and is not the default.
    let other = keys::insert(&mut tx, live.sealing_keys(), "other", Some(&vec![9; 32].into())).await.unwrap();
    let new = NewServer {
        name: "web-1",
        cloud: Cloud::Sandbox,
        credential,
        region: "sandbox-1",
        size: "small",
        image: "debian-12",
        labels: &BTreeMap::new(),
        options: &options,
    };
    let id = servers::insert(&mut tx, &new, other).await.unwrap();
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Provision, "story").await.unwrap();
    ProvisionServer { run, stack }.request().enqueue(&mut tx, &acme.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    let server = found(&acme, id).await;
    assert_eq!(server.state, ServerState::Ready, "{:?}", server.problem);

    let place = server.place.unwrap();
    fs::write(at("known_hosts"), format!("[{}]:{} {}\n", place.address, place.port, place.host_key)).unwrap();
    let ssh = |identity: &str, known: &str| {
        let mut ssh = program("ssh");
        ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]);
        ssh.arg("-o").arg(format!("UserKnownHostsFile={}", at(known).display())).arg("-i").arg(at(identity));
        ssh.arg("-p").arg(place.port.to_string()).arg(format!("{}@{}", place.username, place.address));
        let said = ssh.arg("echo $((6 * 7))").stdin(Stdio::null()).output().unwrap();
        (said.status.code(), String::from_utf8(said.stdout).unwrap())
    };
    for identity in ["ed25519", "ecdsa", "rsa"] {
        assert_eq!(ssh(identity, "known_hosts"), (Some(0), "42\n".to_owned()), "{identity}");
    }
    pair("ed25519", &at("stranger"));
    assert_eq!(ssh("stranger", "known_hosts").0, Some(255));
    assert_eq!(ssh("ed25519", "nobody").0, Some(255), "no other host key is believed");
    removed(&acme, id, RunKind::Destroy).await;
    live.settled().await;
    assert_eq!(found(&acme, id).await.state, ServerState::Destroyed);
    assert_eq!(ssh("ed25519", "known_hosts").0, Some(255));
    engine.stop().await;
}
