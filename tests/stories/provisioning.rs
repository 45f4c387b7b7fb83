//! Making servers with a Terraform that misbehaves, and at a cloud that a server of the story's own stands in for.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use gantry_providers::clouds::endpoints::Endpoints;
use gantry_providers::terraform::{Isolation, Level, Limits};
use gantry_schema::credentials::Credential;
use gantry_schema::servers::{Problem, RunState, ServerState, runs};
use gantry_schema::{JobId, RunId};
use gantry_tests::{Actor, Live};
use sqlx::PgPool;

use crate::servers::{asked, asked_at, destroyed, engine, found, in_state, left_behind};
use crate::stand_in::{Cloud, possible};

fn program(path: &Path, script: &str) {
    // Another file in its place: what runs of the old one goes on.
    let next = path.with_extension("next");
    std::fs::write(&next, script).unwrap();
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&next, path).unwrap();
}

async fn lines(live: &Live, job: JobId) -> Vec<String> {
    let lines = sqlx::query_scalar("select message from job_logs where job_id = $1 order by line").bind(job.uuid());
    lines.fetch_all(&live.owner).await.unwrap()
}

async fn run(actor: &Actor, id: RunId) -> runs::Run {
    let mut tx = actor.begin().await;
    let run = runs::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    run
}

async fn locked(live: &Live) -> i64 {
    let locked = sqlx::query_scalar("select count(*) from stacks where lock_id is not null");
    locked.fetch_one(&live.owner).await.unwrap()
}

/// Command lines of processes with this text in them.
fn running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(text)).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn terraform_that_misbehaves_has_a_word_for_each_way_and_nothing_is_left_of_its_run(pool: PgPool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("terraform");
    let quick = |config: &mut gantry_providers::terraform::Config| {
        config.program = Some(path.clone());
        let second = Duration::from_secs(1);
        let said = 1024 * 1024;
        config.limits = Limits { version: second, plan: second, grace: second, said, ..Limits::default() };
    };
    let live = Live::with(pool, quick, Endpoints::default()).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let version = r#"if [ "$1" = version ]; then echo '{"terraform_version": "1.9.0"}'; exit; fi"#;
    // It has locked the state when it goes wrong.
    let lock = r#"[ "$1" = plan ] && curl -sf -u "$TF_HTTP_USERNAME:$TF_HTTP_PASSWORD" -X LOCK -d '{"ID": "left"}' "$TF_HTTP_LOCK_ADDRESS" && echo locked"#;
    let planned = |script: &str| format!("#!/bin/sh\n{version}\n[ $1 = init ] && exit\n{lock}\n{script}\n");
    let nap = format!("sleep {}.5", 400_000 + std::process::id());
    let cases = [
        ("hangs", planned(&format!("trap '' INT; {nap}")), Problem::TerraformHung, "did not end in time"),
        ("garbage", planned("echo '}{'; exit 0"), Problem::TerraformUnusable, "nothing that can be understood"),
        ("flood", planned("yes"), Problem::TerraformFlooded, "more than anybody reads"),
        ("killed", planned("kill -KILL $$"), Problem::TerraformKilled, "by signal 9"),
        ("memory", planned("echo 'runtime: out of memory' >&2; exit 2"), Problem::TerraformKilled, "more memory"),
        ("vanishes", planned("rm \"$0\"; exit 1"), Problem::TerraformMissing, "is not there"),
        ("older", planned("").replace("1.9.0", "1.4.6"), Problem::TerraformUnusable, "it is version 1.4.6"),
        ("sleepy", format!("#!/bin/sh\n{nap}\n"), Problem::TerraformUnusable, "its version within 1 s"),
        ("mute", "#!/bin/sh\n".to_owned(), Problem::TerraformUnusable, "it says no version"),
    ];
    for (name, script, problem, said) in cases {
        program(&path, &script);
        let asked = asked(&live, &acme, name).await;
        let server = in_state(&acme, asked.server, ServerState::Failed).await;
        let (found, what) = server.problem.unwrap();
        assert!(found == problem && what.contains(said), "{name}: {found:?}: {what}");
        assert!(!problem.remedy().is_empty());
        live.settled().await;
        assert_eq!(run(&acme, asked.run).await.state, RunState::Failed, "{name}");
        let lines = lines(&live, asked.job).await;
        assert!(lines.iter().any(|line| line.starts_with(problem.as_str())), "{name}: {lines:?}");
        if script.contains("LOCK") && problem != Problem::TerraformUnusable {
            assert!(lines.iter().any(|line| line == "locked"), "{name}: {lines:?}");
        }
        assert_eq!(locked(&live).await, 0, "{name}");
        assert_eq!(left_behind(&live), Vec::<String>::new(), "{name}");
        assert_eq!(running(&nap), Vec::<String>::new(), "{name}");
    }
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_made_at_a_cloud_with_quota_host_keys_and_left_overs_in_order(pool: PgPool) {
    if let Err(why) = possible() {
        eprintln!("this story needs machines, and is left out: {why}");
        return;
    }
    let token = format!("dop_v1_{}", "5f2d1c0a".repeat(8));
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(&token, 1, folder.path().join("machines")).await;
    let path = folder.path().join("terraform");
    program(&path, &cloud.terraform());
    let endpoints: Endpoints = format!("digitalocean=http://{}", cloud.address).parse().unwrap();
    let stand_in = |config: &mut gantry_providers::terraform::Config| {
        config.program = Some(path.clone());
        config.isolation = Isolation::Required;
    };
    let live = Live::with(pool, stand_in, endpoints).await;
    if live.terraform.isolation().await != Level::Sandbox {
        eprintln!("this story needs bubblewrap that can make a sandbox, and is left out");
        return;
    }
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let credential = Credential::Digitalocean { token: token.clone() };
    let wanted = ["fra1", "s-1vcpu-2gb", "debian-12-x64"];
    let asked = asked_at(&live, &acme, "web-1", &credential, wanted).await;
    let server = in_state(&acme, asked.server, ServerState::Ready).await;

    // What the account may have was asked before anything was made.
    let questions = cloud.asked();
    let first = |question: &str| questions.iter().position(|it| it == question).unwrap();
    assert!(first("GET account") < first("POST droplets"), "{questions:?}");
    assert!(first("GET droplets") < first("POST droplets"), "{questions:?}");
    assert_eq!((server.monthly_cost, server.currency.as_deref()), (Some(1_200), Some("USD")));
    assert!(server.checks.iter().any(|check| check.name == "docker_socket"));
    assert!(server.checks.iter().all(|check| check.passed), "{:?}", server.checks);
    // The key it was made with is not the one that is believed now: that one never left it.
    let place = server.place.unwrap();
    let (made_with, uses) = cloud.host_keys();
    assert_ne!(made_with, uses);
    assert_eq!((place.host_key.as_str(), place.username.as_str()), (uses.as_str(), "deploy"));
    let made = lines(&live, asked.job).await;
    assert!(made.iter().any(|line| line.contains("confined by bubblewrap")), "{made:?}");
    assert!(made.contains(&"it begins with [REDACTED]".to_owned()), "{made:?}");
    assert!(made.contains(&"digitalocean_droplet.server: create done after 0 s".to_owned()), "{made:?}");

    // The account may have no more: nothing is made of another one.
    let before = cloud.things();
    let refused = asked_at(&live, &acme, "web-2", &credential, wanted).await;
    let refused = in_state(&acme, refused.server, ServerState::Failed).await;
    let (problem, said) = refused.problem.unwrap();
    assert_eq!(problem, Problem::CloudQuotaExceeded, "{said}");
    assert!(said.contains("droplets"), "{said}");
    assert_eq!(cloud.things(), before);

    let job = destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    let removed = lines(&live, job).await;
    assert!(removed.iter().any(|line| line.starts_with("firewall") && line.contains("left over")), "{removed:?}");
    assert_eq!(cloud.things(), Vec::<String>::new());
    assert_eq!(locked(&live).await, 0);
    assert!(found(&acme, asked.server).await.credential.is_none());

    // What opens the account is nowhere to be read.
    for table in ["jobs", "job_logs", "servers", "stacks", "runs", "terraform_states", "events", "audit_entries"] {
        let statement = format!("select count(*) from {table} t where t::text like '%{token}%'");
        let told: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&live.owner).await.unwrap();
        assert_eq!(told, 0, "{table}");
    }
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
}
