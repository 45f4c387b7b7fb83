//! Modules that organizations bring: taken or refused, and servers made of them. With the real Terraform, and an OpenSSH server
//! that the story started itself: a module runs no programs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_jobs::modules::CheckModule;
use gantry_jobs::servers::{DestroyServer, ProvisionServer};
use gantry_jobs::{Job as _, Queue};
use gantry_providers::modules::{self as provided, Tree};
use gantry_providers::terraform::process;
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::modules::queries::{self as modules, Module, NewModule, Taken};
use gantry_schema::modules::{ModuleProblem, ModuleState, Source, fit};
use gantry_schema::seal::SealingKeys;
use gantry_schema::servers::queries::{self as servers, NewServer, Server};
use gantry_schema::servers::runs::{self, Run};
use gantry_schema::servers::{Options, Problem, RunKind, RunState, ServerState, keys, state};
use gantry_schema::{JobId, ModuleId, ModuleVersionId, RunId, ServerId};
use gantry_tests::live::{Engine, eventually};
use gantry_tests::{Actor, Live, Platform};
use serde_json::{Value, json};
use sqlx::PgPool;

const SECRET: &str = "a-password-nobody-may-see";

/// What answers the server that the story has started.
const MAIN: &str = r#"
variable "gantry_name" { type = string }
variable "gantry_ssh_public_key" { type = string }
variable "region" { type = string }
variable "gantry_labels" { type = map(string) }
variable "place" {
  type        = object({ address = string, port = number, user = string })
  description = "Where it is."
}
variable "host_key" { type = string }
variable "password" {
  type      = string
  sensitive = true
}
variable "tags" {
  type    = list(string)
  default = ["web"]
}
resource "terraform_data" "machine" {
  input = { name = var.gantry_name, region = var.region, key = var.gantry_ssh_public_key, labels = var.gantry_labels,
            welcome = file("${path.module}/welcome.txt"), password = var.password }
}
module "network" {
  source = "./network"
  name   = terraform_data.machine.output.name
}
"#;

const OUTPUTS: &str = r#"
output "address" { value = var.place.address }
output "port" { value = var.place.port }
output "user" { value = var.place.user }
output "host_key" { value = var.host_key }
"#;

fn web() -> Vec<(&'static str, String)> {
    vec![
        ("web-1.0.0/main.tf", MAIN.to_owned()),
        ("web-1.0.0/outputs.tf", OUTPUTS.to_owned()),
        ("web-1.0.0/welcome.txt", "welcome".to_owned()),
        (
            "web-1.0.0/network/main.tf.json",
            json!({ "variable": { "name": {} },
                    "resource": { "terraform_data": { "network": { "input": "${var.name}" } } } })
            .to_string(),
        ),
    ]
}

fn archive(files: &[(&str, String)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

async fn brought(actor: &Actor, module: Option<ModuleId>, archive: &[u8]) -> (ModuleId, ModuleVersionId) {
    let mut tx = actor.begin().await;
    let module = if let Some(module) = module {
        module
    } else {
        let new = NewModule { name: "web", cloud: Cloud::Sandbox, description: "" };
        modules::insert(&mut tx, new).await.unwrap()
    };
    let version = modules::add_version(&mut tx, module, &Source::Archive, Some(archive)).await.unwrap();
    CheckModule { version }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
    (module, version)
}

async fn found(actor: &Actor, id: ModuleId) -> Module {
    let mut tx = actor.begin().await;
    let module = modules::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    module
}

/// An OpenSSH server on a port of loopback, as long as the story needs it.
struct Machine {
    sshd: Child,
    port: u16,
    host_key: String,
    user: String,
    _folder: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.sshd.kill());
        drop(self.sshd.wait());
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "a story's own machine")]
    let mut command = std::process::Command::new(program);
    let done = command.args(arguments).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

impl Machine {
    fn start(authorized: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        said("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &at("host_key")]);
        std::fs::write(at("authorized_keys"), format!("{authorized}\n")).unwrap();
        if Path::new("/run").exists() && said("id", &["-u"]) == "0" {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\n\
             AuthenticationMethods publickey\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\n",
            at("host_key"),
            at("pid"),
            at("authorized_keys")
        );
        std::fs::write(at("config"), config).unwrap();
        let sshd = process::find("sshd").unwrap();
        #[expect(clippy::disallowed_methods, reason = "a story's own machine")]
        let mut command = std::process::Command::new(sshd);
        let sshd = command.args(["-D", "-f", &at("config")]).stderr(Stdio::null()).spawn().unwrap();
        let host_key = std::fs::read_to_string(at("host_key.pub")).unwrap().trim().to_owned();
        Self { sshd, port, host_key, user: said("id", &["-un"]), _folder: folder }
    }

    fn inputs(&self) -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("place".to_owned(), json!({ "address": "127.0.0.1", "port": self.port, "user": self.user })),
            ("host_key".to_owned(), json!(self.host_key)),
            ("password".to_owned(), json!(SECRET)),
        ])
    }
}

struct Asked {
    server: ServerId,
    run: RunId,
    job: JobId,
}

async fn asked(
    actor: &Actor,
    sealing: &SealingKeys,
    name: &str,
    module: ModuleId,
    inputs: BTreeMap<String, Value>,
) -> Asked {
    let mut tx = actor.begin().await;
    let credential = Credential::Sandbox { token: "sandbox-of-a-story".to_owned() };
    let credential = credentials::insert(&mut tx, sealing, name, &credential).await.unwrap();
    let ssh_key = keys::ensure(&mut tx, sealing).await.unwrap();
    let new = NewServer {
        name,
        cloud: Cloud::Sandbox,
        credential,
        region: "anywhere",
        size: "",
        image: "",
        labels: &BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
        options: &Options::default(),
    };
    let server = servers::insert(&mut tx, &new, ssh_key).await.unwrap();
    let stack = servers::find(&mut tx, server).await.unwrap().unwrap().stack;
    let version = modules::ready(&mut tx, module, None).await.unwrap().unwrap();
    let given = fit(&version.inputs, inputs).unwrap();
    modules::give(&mut tx, sealing, stack, version.id, &given).await.unwrap();
    let run = runs::insert(&mut tx, stack, RunKind::Provision, "story").await.unwrap();
    let job = ProvisionServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap().id;
    runs::set_job(&mut tx, run, job).await.unwrap();
    tx.commit().await.unwrap();
    Asked { server, run, job }
}

async fn server(actor: &Actor, id: ServerId) -> Server {
    let mut tx = actor.begin().await;
    let server = servers::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    server
}

async fn run(actor: &Actor, id: RunId) -> Run {
    let mut tx = actor.begin().await;
    let run = runs::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    run
}

async fn in_state(actor: &Actor, id: ServerId, state: ServerState) -> Server {
    eventually(&format!("the server is {state}"), async || {
        let server = server(actor, id).await;
        let given_up = server.state == ServerState::Failed && state != ServerState::Failed;
        assert!(!given_up, "{:?}", server.problem);
        (server.state == state).then_some(server)
    })
    .await
}

/// Somebody says that what is planned may be made.
async fn approved(actor: &Actor, asked: &Asked) {
    in_state(actor, asked.server, ServerState::AwaitingApproval).await;
    let planned = run(actor, asked.run).await;
    assert_eq!((planned.monthly_cost, planned.currency), (None, None), "nobody knows");
    let sha256 = planned.plan_sha256.unwrap();
    let mut tx = actor.begin().await;
    assert!(
        !runs::approve(&mut tx, asked.run, "story", &sha256, 0).await.unwrap(),
        "a cost that nobody knows is not 0"
    );
    assert!(runs::approve(&mut tx, asked.run, "story", &sha256, None).await.unwrap());
    ProvisionServer { run: asked.run, stack: planned.stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn destroyed(actor: &Actor, id: ServerId) {
    let mut tx = actor.begin().await;
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Destroy, "story").await.unwrap();
    DestroyServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
    in_state(actor, id, ServerState::Destroyed).await;
}

async fn engine(live: &Live) -> Engine {
    live.engine_with(vec![(Queue::Provisioning, 4), (Queue::Default, 2)], |_| {}).await
}

fn is_there() -> bool {
    let has = |name: &str| process::find(name).is_some();
    let there = (has("terraform") || has("tofu")) && has("sshd") && has("bwrap");
    if !there {
        println!("this story needs terraform or tofu, sshd and bwrap in PATH, and is left out without");
    }
    there
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_made_of_what_an_organization_wrote_and_removed_again(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let (module, _) = brought(&acme, None, &archive(&web())).await;
    live.settled().await;
    let ready = found(&acme, module).await;
    assert_eq!((ready.newest.state, ready.ready, &ready.newest.problem), (ModuleState::Ready, Some(1), &None));
    assert_eq!((ready.newest.directory.as_str(), ready.newest.files), ("web-1.0.0", Some(4)));
    let asks: Vec<String> = ready.newest.inputs.iter().map(|it| format!("{}: {}", it.name, it.kind)).collect();
    assert!(asks.contains(&"tags: list(string)".to_owned()), "{asks:?}");

    let mut tx = acme.begin().await;
    let key = keys::ensure(&mut tx, live.sealing_keys()).await.unwrap();
    let key = keys::open(&mut tx, live.sealing_keys(), key).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let machine = Machine::start(&key.public);
    let asked = asked(&acme, live.sealing_keys(), "web-1", module, machine.inputs()).await;
    approved(&acme, &asked).await;
    let made = in_state(&acme, asked.server, ServerState::Ready).await;
    let at = made.place.unwrap();
    assert_eq!((at.address.as_str(), at.port), ("127.0.0.1", machine.port));
    assert!(made.checks.iter().all(|check| check.passed), "{:?}", made.checks);
    assert_eq!(run(&acme, asked.run).await.plan.unwrap().add, 2);
    let used = made.module.unwrap();
    assert_eq!((used.module, used.number), (module, 1));
    assert!(!used.inputs.contains_key("password"));

    let lines: Vec<String> = sqlx::query_scalar("select message from job_logs where job_id = $1 order by line")
        .bind(asked.job.uuid())
        .fetch_all(&live.owner)
        .await
        .unwrap();
    assert!(lines.iter().any(|line| line.contains("confined by bubblewrap")), "{lines:?}");

    // What nobody may see is nowhere to be read.
    for table in ["jobs", "job_logs", "servers", "stacks", "runs", "terraform_states", "audit_entries", "events"] {
        let statement = format!("select count(*) from {table} t where t::text like '%{SECRET}%'");
        let told: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&live.owner).await.unwrap();
        assert_eq!(told, 0, "{table}");
    }

    // Another version comes: the server stays what it is, and nothing about it differs.
    let mut second = web();
    second[2].1 = "welcome again".to_owned();
    brought(&acme, Some(module), &archive(&second)).await;
    live.settled().await;
    let updated = found(&acme, module).await;
    assert_eq!((updated.ready, updated.servers), (Some(2), 1));
    assert_ne!(updated.newest.sha256, ready.newest.sha256);
    assert_eq!(server(&acme, asked.server).await.module.unwrap().number, 1);
    let mut tx = acme.begin().await;
    let stack = server(&acme, asked.server).await.stack;
    let mend = runs::insert(&mut tx, stack, RunKind::Mend, "story").await.unwrap();
    ProvisionServer { run: mend, stack }.request().enqueue(&mut tx, &acme.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    assert_eq!(run(&acme, mend).await.state, RunState::Succeeded);

    let mut tx = acme.begin().await;
    let in_use = modules::remove(&mut tx, module).await.unwrap_err();
    assert!(in_use.to_string().contains("stacks_module_version_fkey"), "{in_use}");
    drop(tx);
    destroyed(&acme, asked.server).await;
    let mut tx = acme.begin().await;
    assert!(modules::remove(&mut tx, module).await.unwrap());
    tx.commit().await.unwrap();
    live.settled().await;
    engine.stop().await;
    let runs = live.terraform.directory().join("runs");
    assert_eq!(std::fs::read_dir(runs).unwrap().count(), 0, "nothing is left behind");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_modules_may_not_do_or_say_is_known_by_a_word(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let (module, version) = brought(&acme, None, &archive(&web())).await;
    live.settled().await;
    let ready = found(&acme, module).await;
    assert_eq!(ready.newest.state, ModuleState::Ready);

    // Where it says that a server is, and nobody of it may be.
    let elsewhere = |address: &str| {
        BTreeMap::from([
            ("place".to_owned(), json!({ "address": address, "port": 22, "user": "deploy" })),
            (
                "host_key".to_owned(),
                json!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"),
            ),
            ("password".to_owned(), json!(SECRET)),
        ])
    };
    for (name, address) in [("metadata", "169.254.169.254"), ("named", "localhost")] {
        let asked = asked(&acme, live.sealing_keys(), name, module, elsewhere(address)).await;
        approved(&acme, &asked).await;
        let failed = in_state(&acme, asked.server, ServerState::Failed).await;
        let (problem, said) = failed.problem.unwrap();
        assert_eq!(problem, Problem::ModuleOutputs, "{said}");
    }

    // Whatever got past us, Terraform reads as well.
    let mut tree = Tree::default();
    let run_by =
        "resource \"terraform_data\" \"a\" {\n  provisioner \"local-exec\" {\n    command = \"touch ran\"\n  }\n}\n";
    tree.add("main.tf", format!("{MAIN}{run_by}").into_bytes()).unwrap();
    tree.add("outputs.tf", OUTPUTS.into()).unwrap();
    tree.add("welcome.txt", Vec::new()).unwrap();
    tree.add("network/main.tf", b"variable \"name\" {}".to_vec()).unwrap();
    let taken = Taken {
        content: &state::packed(&provided::packed(&tree)),
        directory: "",
        files: 4,
        size: 1,
        sha256: [7; 32],
        commit: None,
        inputs: &ready.newest.inputs,
        outputs: &ready.newest.outputs,
        providers: &[],
    };
    let unread = "update module_versions set state = 'checking' where id = $1";
    sqlx::query(unread).bind(version.uuid()).execute(&live.owner).await.unwrap();
    let mut tx = acme.begin().await;
    assert!(modules::taken(&mut tx, version, &taken).await.unwrap());
    tx.commit().await.unwrap();
    let asked = asked(&acme, live.sealing_keys(), "smuggled", module, elsewhere("127.0.0.1")).await;
    let failed = in_state(&acme, asked.server, ServerState::Failed).await;
    let (problem, said) = failed.problem.unwrap();
    assert_eq!(problem, Problem::ModulePolicy, "{said}");
    assert!(said.contains("module.server.terraform_data.a"), "{said}");
    live.settled().await;
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_module_that_is_not_taken_says_why_and_leaves_the_one_before(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (module, _) = brought(&acme, None, &archive(&web())).await;
    platform.run_jobs().await;
    assert_eq!(found(&acme, module).await.ready, Some(1));
    let of = |path: &'static str, contents: &str| {
        archive(&[(path, contents.to_owned()), ("outputs.tf", OUTPUTS.to_owned())])
    };
    let linked = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "main.tf", "/etc/passwd").unwrap();
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&builder.into_inner().unwrap()).unwrap();
        packer.finish().unwrap()
    };
    for (archive, problem) in [
        (b"main.tf".to_vec(), ModuleProblem::ArchiveMalformed),
        (linked, ModuleProblem::ArchiveUnsafe),
        (of("README.md", "")[..20].to_vec(), ModuleProblem::ArchiveMalformed),
        (archive(&[("README.md", String::new())]), ModuleProblem::Empty),
        (of("main.tf", "resource {"), ModuleProblem::Malformed),
        (of("main.tf", "data \"external\" \"a\" {}"), ModuleProblem::Policy),
        (of("main.tf", "variable \"gantry_thing\" {}"), ModuleProblem::Inputs),
        (archive(&[("main.tf", "locals {}".to_owned())]), ModuleProblem::Outputs),
    ] {
        brought(&acme, Some(module), &archive).await;
        platform.run_jobs().await;
        let refused = found(&acme, module).await;
        let (found, said) = refused.newest.problem.unwrap();
        assert_eq!((found, refused.newest.state), (problem, ModuleState::Refused), "{said}");
        assert_eq!(refused.ready, Some(1), "servers are made of the one before");
    }
    let kept = "module_versions where archive is not null or (state = 'refused' and content is not null)";
    assert_eq!(platform.count(&format!("select count(*) from {kept}")).await, 0);
    // Old ones are forgotten, those that servers are made of are not.
    for _ in 0..12 {
        brought(&acme, Some(module), &archive(&web())).await;
        platform.run_jobs().await;
    }
    let numbers = platform.count("select count(*) from module_versions").await;
    assert!((10..=11).contains(&numbers), "{numbers}");
    platform.leaves_jobs();
}
