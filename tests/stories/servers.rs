//! Servers are made and removed, whatever happens on the way. With the real Terraform, and OpenSSH servers as machines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gantry_jobs::servers::{DestroyServer, FindOrphans, ProvisionServer, WatchOrphans, WatchServers};
use gantry_jobs::{Job as _, Queue};
use gantry_providers::clouds::sandbox;
use gantry_providers::ssh;
use gantry_schema::credentials::{Credential, orphans, queries as credentials};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::servers::change::Wanted;
use gantry_schema::servers::queries::{self as servers, NewServer, Server};
use gantry_schema::servers::runs::{self, Run};
use gantry_schema::servers::state::Refused;
use gantry_schema::servers::states::{self, StateError, Writer};
use gantry_schema::servers::watch;
use gantry_schema::servers::{OnFailure, Options, Problem, RunKind, RunState, ServerState, keys, plans};
use gantry_schema::{JobId, Order, RunId, ServerId, Window};
use gantry_tests::live::{Engine, eventually};
use gantry_tests::{Actor, Live, Platform};
use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::PgPool;

const TOKEN: &str = "sandbox-a-token-nobody-may-see";

/// What is asked for.
pub(crate) struct Asked {
    pub server: ServerId,
    pub run: RunId,
    pub job: JobId,
}

pub(crate) async fn asked(live: &Live, actor: &Actor, name: &str) -> Asked {
    let credential = Credential::Sandbox { token: TOKEN.to_owned() };
    asked_at(live, actor, name, &credential, ["sandbox-1", "small", "debian-12"]).await
}

/// Asks for a server of a region, a size and an image.
pub(crate) async fn asked_at(
    live: &Live,
    actor: &Actor,
    name: &str,
    credential: &Credential,
    [region, size, image]: [&str; 3],
) -> Asked {
    let cloud = credential.cloud();
    let mut tx = actor.begin().await;
    let known = credentials::list(&mut tx, Window::new(Order::Ascending, 1)).await.unwrap();
    let credential = match known.first() {
        Some(known) => known.id,
        None => credentials::insert(&mut tx, live.sealing_keys(), cloud.as_str(), credential).await.unwrap(),
    };
    let ssh_key = keys::ensure(&mut tx, live.sealing_keys()).await.unwrap();
    let (labels, options) = (BTreeMap::new(), Options::default());
    let new = NewServer { name, cloud, credential, region, size, image, labels: &labels, options: &options };
    let server = servers::insert(&mut tx, &new, ssh_key).await.unwrap();
    let stack = servers::find(&mut tx, server).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Provision, "story").await.unwrap();
    let job = ProvisionServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap().id;
    runs::set_job(&mut tx, run, job).await.unwrap();
    tx.commit().await.unwrap();
    Asked { server, run, job }
}

pub(crate) async fn destroyed(actor: &Actor, id: ServerId) -> JobId {
    let mut tx = actor.begin().await;
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Destroy, "story").await.unwrap();
    let job = DestroyServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap().id;
    tx.commit().await.unwrap();
    job
}

pub(crate) async fn found(actor: &Actor, id: ServerId) -> Server {
    let mut tx = actor.begin().await;
    let server = servers::find(&mut tx, id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    server
}

pub(crate) async fn in_state(actor: &Actor, id: ServerId, state: ServerState) -> Server {
    eventually(&format!("the server is {state}"), async || {
        let server = found(actor, id).await;
        let given_up = server.state == ServerState::Failed && state == ServerState::Ready;
        assert!(!given_up, "{:?}", server.problem);
        (server.state == state).then_some(server)
    })
    .await
}

pub(crate) async fn engine(live: &Live) -> Engine {
    live.engine_with(vec![(Queue::Provisioning, 8), (Queue::Default, 2), (Queue::Maintenance, 1)], |_| {}).await
}

/// Whoever looks after all servers does so now, as if all of them were due.
async fn watched(live: &Live) {
    let due = "update servers set watch_at = now() where watch_at is not null";
    sqlx::query(due).execute(&live.owner).await.unwrap();
    live.operator().enqueue(WatchServers::default()).await;
    live.settled().await;
}

/// Somebody compares a server with what is to be there.
async fn compared(live: &Live, actor: &Actor, id: ServerId) -> Run {
    let mut tx = actor.begin().await;
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Mend, "story").await.unwrap();
    ProvisionServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    let mut tx = actor.begin().await;
    runs::find(&mut tx, run).await.unwrap().unwrap()
}

/// What was told of a server, in order.
async fn told(live: &Live) -> Vec<String> {
    let told = sqlx::query_scalar("select type from events where type like 'server.%' order by id");
    told.fetch_all(&live.owner).await.unwrap()
}

/// The worker of an engine is not waited for any longer.
async fn silence(live: &Live, engine: Engine) {
    let worker = engine.worker;
    engine.kill();
    sqlx::query("update job_leases set expires_at = now() - interval '1 second' where worker_id = $1")
        .bind(worker.uuid())
        .execute(&live.owner)
        .await
        .unwrap();
}

pub(crate) fn is_there() -> bool {
    let there = ["terraform", "tofu"].iter().any(|name| gantry_providers::terraform::process::find(name).is_some());
    if !there {
        println!("this story needs terraform or tofu in PATH, and is left out without");
    }
    there
}

/// Runs and machines that lie where Terraform works.
pub(crate) fn left_behind(live: &Live) -> Vec<String> {
    let folders = ["runs", "machines"].map(|name| live.terraform.directory().join(name));
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_made_looked_at_and_removed_and_nothing_is_left(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let asked = asked(&live, &acme, "web-1").await;
    let server = in_state(&acme, asked.server, ServerState::Ready).await;
    assert!(server.checks.len() >= 4 && server.checks.iter().all(|check| check.passed), "{:?}", server.checks);
    assert_eq!((server.monthly_cost, server.currency.as_deref()), (Some(500), Some("USD")));
    let lines: Vec<String> = sqlx::query_scalar("select message from job_logs where job_id = $1 order by line")
        .bind(asked.job.uuid())
        .fetch_all(&live.owner)
        .await
        .unwrap();
    assert!(lines.iter().any(|line| line.starts_with("terraform_data.machine: create done")), "{lines:?}");

    // A command is run there, by whoever has the organization's key, and only where the right one answers.
    let at = server.place.clone().unwrap();
    let mut tx = acme.begin().await;
    let key = keys::open(&mut tx, live.sealing_keys(), server.ssh_key.unwrap()).await.unwrap().unwrap();
    let run = runs::find(&mut tx, asked.run).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    assert_eq!((run.state, run.plan.map(|plan| plan.add)), (RunState::Succeeded, Some(3)));
    let place = ssh::Place { address: &at.address, port: at.port, username: &at.username, host_key: &at.host_key };
    let session = ssh::connect(place, key.seed.expose_secret(), Duration::from_secs(10)).await.unwrap();
    let said = session.run("echo $((6 * 7)); env; exit 3", 64 * 1024, Duration::from_secs(10)).await.unwrap();
    assert_eq!((said.status, said.text.lines().next()), (Some(3), Some("42")));
    assert!(!said.text.contains(TOKEN) && !said.text.contains("TF_"), "{}", said.text);
    session.leave().await;
    let stranger = ssh::connect(place, &[7; 32], Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(stranger, ssh::SshError::Refused(_)), "{stranger}");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
    let elsewhere = ssh::Place { host_key: other, ..place };
    let mismatch = ssh::connect(elsewhere, key.seed.expose_secret(), Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(mismatch, ssh::SshError::HostKey { .. }), "{mismatch}");

    // What opens the account is nowhere to be read.
    for table in
        ["jobs", "job_logs", "servers", "stacks", "runs", "terraform_states", "cloud_credentials", "audit_entries"]
    {
        let statement = format!("select count(*) from {table} t where t::text like '%{TOKEN}%'");
        let told: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&live.owner).await.unwrap();
        assert_eq!(told, 0, "{table}");
    }

    destroyed(&acme, asked.server).await;
    let gone = in_state(&acme, asked.server, ServerState::Destroyed).await;
    assert_eq!((gone.credential, gone.ssh_key, gone.destroyed_at.is_some()), (None, None, true));
    let refused = ssh::connect(place, key.seed.expose_secret(), Duration::from_secs(10)).await.unwrap_err();
    assert!(matches!(refused, ssh::SshError::Unreachable { .. }), "{refused}");
    live.settled().await;
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
    let locked: i64 = sqlx::query_scalar("select count(*) from stacks where lock_id is not null")
        .fetch_one(&live.owner)
        .await
        .unwrap();
    assert_eq!(locked, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_goes_wrong_has_a_word_and_leaves_nothing_half_made(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let names = [
        ("fail-quota", Problem::CloudQuotaExceeded),
        ("fail-plan", Problem::PlanFailed),
        ("fail-apply", Problem::ApplyFailed),
        ("fail-ssh", Problem::SshUnreachable),
        ("fail-login", Problem::SshRefused),
        ("fail-host-key", Problem::HostKeyMismatch),
    ];
    let mut all = Vec::new();
    for (name, problem) in names {
        all.push((name, problem, asked(&live, &acme, name).await));
    }
    for (name, problem, asked) in &all {
        let server = in_state(&acme, asked.server, ServerState::Failed).await;
        let (found, said) = server.problem.unwrap();
        assert_eq!(found, *problem, "{name}: {said}");
        assert!(!said.is_empty());
    }
    live.settled().await;
    // Those that were made and cannot be entered are there to be looked at; half of one is not.
    let machines = std::fs::read_dir(live.terraform.directory().join("machines")).unwrap().count();
    assert_eq!(machines, 3);
    for (_, _, asked) in &all {
        destroyed(&acme, asked.server).await;
    }
    for (_, _, asked) in &all {
        in_state(&acme, asked.server, ServerState::Destroyed).await;
    }
    live.settled().await;
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_that_dies_in_the_middle_loses_nothing_and_another_goes_on(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let mut serial = 0;
    for round in 0..3 {
        let asked = asked(&live, &acme, &format!("web-{round}")).await;
        let stack = found(&acme, asked.server).await.stack;
        // At another moment each time: before it begins, while it plans or makes, and while it looks.
        for wanted in [RunState::Planning, RunState::Applying, RunState::Verifying].iter().take(round + 1) {
            let doomed = engine(&live).await;
            eventually("the run has come so far", async || {
                let mut tx = acme.begin().await;
                let run = runs::find(&mut tx, asked.run).await.unwrap().unwrap();
                tx.rollback().await.unwrap();
                (run.state >= *wanted).then_some(())
            })
            .await;
            silence(&live, doomed).await;
        }
        let heir = engine(&live).await;
        let server = in_state(&acme, asked.server, ServerState::Ready).await;
        assert!(server.place.is_some());
        let mut tx = acme.begin().await;
        let versions = states::versions(&mut tx, stack, Window::new(Order::Descending, 100)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(versions.windows(2).all(|pair| pair[0].serial > pair[1].serial), "{versions:?}");
        serial += versions[0].serial;
        destroyed(&acme, asked.server).await;
        eventually("it is being removed", async || {
            (found(&acme, asked.server).await.state == ServerState::Destroying).then_some(())
        })
        .await;
        silence(&live, heir).await;
        let last = engine(&live).await;
        in_state(&acme, asked.server, ServerState::Destroyed).await;
        live.settled().await;
        last.stop().await;
    }
    assert!(serial >= 3);
    assert_eq!(left_behind(&live), Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_costs_more_waits_until_exactly_that_is_approved(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let mut tx = acme.begin().await;
    settings::set(&mut tx, Setting::ServersUnapprovedCost, &json!(499), false).await.unwrap();
    tx.commit().await.unwrap();
    let engine = engine(&live).await;
    let asked = asked(&live, &acme, "web-1").await;
    in_state(&acme, asked.server, ServerState::AwaitingApproval).await;
    let mut tx = acme.begin().await;
    let run = runs::find(&mut tx, asked.run).await.unwrap().unwrap();
    let planned = run.plan_sha256.clone().unwrap();
    assert_eq!(run.monthly_cost, Some(500));
    assert!(!runs::approve(&mut tx, run.id, "story", &[0; 32], 500).await.unwrap(), "something else");
    assert!(!runs::approve(&mut tx, run.id, "story", &planned, 499).await.unwrap(), "at another cost");
    assert!(runs::approve(&mut tx, run.id, "story", &planned, 500).await.unwrap());
    assert!(!runs::approve(&mut tx, run.id, "story", &planned, 500).await.unwrap(), "it does not wait any more");
    ProvisionServer { run: run.id, stack: run.stack }.request().enqueue(&mut tx, &acme.by()).await.unwrap();
    tx.commit().await.unwrap();
    in_state(&acme, asked.server, ServerState::Ready).await;
    destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn that_nobody_gets_in_is_told_once_and_so_is_that_somebody_does_again(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let asked = asked(&live, &acme, "web-1").await;
    let server = in_state(&acme, asked.server, ServerState::Ready).await;
    watched(&live).await;
    let port = i32::from(server.place.unwrap().port);
    let moved = async |to: i32| {
        sqlx::query("update servers set port = $1").bind(to).execute(&live.owner).await.unwrap();
    };
    // Nobody listens there.
    moved(1).await;
    for misses in 1..=4 {
        watched(&live).await;
        let silent = found(&acme, asked.server).await;
        assert_eq!((silent.state, silent.unreachable_since.is_some()), (ServerState::Ready, misses >= 3));
    }
    assert_eq!(told(&live).await, ["server.ready", "server.unreachable"]);
    assert!(acme.notices().await.iter().any(|notice| notice.message().contains("web-1")));
    moved(port).await;
    watched(&live).await;
    let back = found(&acme, asked.server).await;
    assert!(back.unreachable_since.is_none() && back.reached_at.is_some());
    assert_eq!(told(&live).await, ["server.ready", "server.unreachable", "server.recovered"]);

    // Of what is worked on nobody is told.
    let mut tx = acme.begin().await;
    watch::set_maintenance(&mut tx, asked.server, true).await.unwrap();
    tx.commit().await.unwrap();
    moved(1).await;
    for _ in 0..4 {
        watched(&live).await;
    }
    assert_eq!(told(&live).await.len(), 3);
    destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_somebody_else_changed_is_noticed_and_put_right_when_that_is_approved(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let asked = asked(&live, &acme, "drift-1").await;
    in_state(&acme, asked.server, ServerState::Ready).await;
    let run = compared(&live, &acme, asked.server).await;
    let plan = run.plan.clone().unwrap();
    assert_eq!((run.state, plan.changes[0].address.as_str()), (RunState::AwaitingApproval, "terraform_data.machine"));
    let drifted = found(&acme, asked.server).await;
    assert_eq!((drifted.state, drifted.drift), (ServerState::Ready, Some(plan)));

    let mut tx = acme.begin().await;
    assert!(runs::approve(&mut tx, run.id, "story", &run.plan_sha256.unwrap(), 500).await.unwrap());
    ProvisionServer { run: run.id, stack: run.stack }.request().enqueue(&mut tx, &acme.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    let mended = found(&acme, asked.server).await;
    assert_eq!((mended.state, mended.drift), (ServerState::Ready, None), "{:?}", mended.problem);
    assert_eq!(told(&live).await, ["server.ready", "server.drifted", "server.ready"]);
    assert_eq!(compared(&live, &acme, asked.server).await.state, RunState::Succeeded);

    // What cannot be compared stays what it is.
    sqlx::query("update servers set size = 'gone'").execute(&live.owner).await.unwrap();
    assert_eq!(compared(&live, &acme, asked.server).await.state, RunState::Failed);
    assert_eq!(found(&acme, asked.server).await.state, ServerState::Ready);
    destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_run_whose_job_ended_without_it_is_ended_as_well(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let asked = asked(&live, &acme, "web-1").await;
    acme.cancel(asked.job).await;
    let engine = live.engine_with(vec![(Queue::Maintenance, 1)], |_| {}).await;
    live.operator().enqueue(WatchServers::default()).await;
    live.settled().await;
    engine.stop().await;
    let server = found(&acme, asked.server).await;
    assert_eq!(
        (server.state, server.problem.map(|(problem, _)| problem)),
        (ServerState::Failed, Some(Problem::GaveUp))
    );
    assert_eq!(told(&live).await, ["server.failed"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn as_many_are_made_at_once_as_the_license_allows_and_the_others_wait(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    crate::licenses::give_live(&live, &acme, &[("concurrent_provisioning", 1), ("servers", 3)]).await;
    let engine = engine(&live).await;
    let mut all = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        all.push(asked(&live, &acme, name).await.server);
    }
    let most = AtomicI64::new(0);
    eventually("all of them are ready", async || {
        let count = "select count(*) filter (where r.state in ('planning', 'applying', 'verifying')),
                            count(*) filter (where r.state = 'succeeded') from runs r";
        let (working, done): (i64, i64) = sqlx::query_as(count).fetch_one(&live.owner).await.unwrap();
        most.fetch_max(working, Ordering::Relaxed);
        (done == 3).then_some(())
    })
    .await;
    assert_eq!(most.into_inner(), 1);
    for server in all {
        destroyed(&acme, server).await;
        in_state(&acme, server, ServerState::Destroyed).await;
    }
    live.settled().await;
    engine.stop().await;
}

/// Somebody wants a server to be otherwise; the run when everything has come to rest.
async fn changed(live: &Live, actor: &Actor, id: ServerId, wanted: Wanted) -> Run {
    let mut tx = actor.begin().await;
    let stack = servers::find(&mut tx, id).await.unwrap().unwrap().stack;
    let run = runs::insert(&mut tx, stack, RunKind::Update, "story").await.unwrap();
    runs::set_wanted(&mut tx, run, &wanted).await.unwrap();
    ProvisionServer { run, stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    run_of(actor, run).await
}

async fn run_of(actor: &Actor, run: RunId) -> Run {
    let mut tx = actor.begin().await;
    let run = runs::find(&mut tx, run).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    run
}

async fn approved(live: &Live, actor: &Actor, run: &Run) -> Run {
    let mut tx = actor.begin().await;
    let (planned, cost) = (run.plan_sha256.clone().unwrap(), run.monthly_cost.unwrap());
    assert!(runs::approve(&mut tx, run.id, "story", &planned, cost).await.unwrap());
    ProvisionServer { run: run.id, stack: run.stack }.request().enqueue(&mut tx, &actor.by()).await.unwrap();
    tx.commit().await.unwrap();
    live.settled().await;
    run_of(actor, run.id).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_changed_in_place_and_replaced_only_when_that_is_approved(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let asked = asked(&live, &acme, "web-1").await;
    sqlx::query("update servers set size = 'medium'").execute(&live.owner).await.unwrap();
    let engine = engine(&live).await;
    let before = in_state(&acme, asked.server, ServerState::Ready).await;
    let wanted = |size: &str, team: &str| Wanted {
        size: size.to_owned(),
        labels: BTreeMap::from([("team".to_owned(), team.to_owned())]),
        options: Options { volume_gib: Some(10), ..Options::default() },
    };
    let larger = changed(&live, &acme, asked.server, wanted("large", "shop")).await;
    let plan = larger.plan.clone().unwrap();
    assert_eq!((larger.state, plan.add, plan.remove), (RunState::Succeeded, 1, 0), "{:?} {plan:?}", larger.problem);
    let after = found(&acme, asked.server).await;
    assert_eq!((after.state, after.size.as_str(), after.monthly_cost), (ServerState::Ready, "large", Some(9_600)));
    assert_eq!((after.place.as_ref(), after.labels["team"].as_str()), (before.place.as_ref(), "shop"));
    // What Terraform said of it is kept, and nothing of what opens the account is in it.
    let mut tx = acme.begin().await;
    let text = plans::text(&mut tx, live.sealing_keys(), larger.id).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    assert!(text.contains("terraform_data.machine will be updated in-place") && !text.contains(TOKEN), "{text}");

    // A disk does not shrink: another machine would take its place.
    let smaller = changed(&live, &acme, asked.server, wanted("small", "shop")).await;
    assert_eq!(
        (smaller.state, smaller.plan.as_ref().map(|plan| plan.loses_machine)),
        (RunState::AwaitingApproval, Some(true))
    );
    let still = found(&acme, asked.server).await;
    assert_eq!((still.state, still.size.as_str(), still.monthly_cost), (ServerState::Ready, "large", Some(9_600)));
    let smaller = approved(&live, &acme, &smaller).await;
    assert_eq!(smaller.state, RunState::Succeeded, "{:?}", smaller.problem);
    let replaced = found(&acme, asked.server).await;
    assert_eq!(
        (replaced.state, replaced.size.as_str(), replaced.monthly_cost),
        (ServerState::Ready, "small", Some(500))
    );
    assert_ne!(replaced.place.map(|at| at.host_key), before.place.map(|at| at.host_key));
    assert_eq!(compared(&live, &acme, asked.server).await.state, RunState::Succeeded, "nothing differs");

    // What cannot be is not done, and the server goes on.
    let wrong = changed(&live, &acme, asked.server, wanted("smalls", "shop")).await;
    let (problem, said) = wrong.problem.unwrap();
    assert_eq!((wrong.state, problem), (RunState::Failed, Problem::UnknownSize));
    assert!(said.contains("did you mean small"), "{said}");
    let same = changed(&live, &acme, asked.server, wanted("small", "shop")).await;
    assert_eq!((same.state, same.plan.map(|plan| plan.changes.len())), (RunState::Succeeded, Some(0)));
    assert_eq!(found(&acme, asked.server).await.state, ServerState::Ready);
    destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_half_made_is_kept_when_that_is_wanted_and_accounted_for(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let asked = asked(&live, &acme, "fail-apply").await;
    let mut tx = acme.begin().await;
    servers::set_on_failure(&mut tx, asked.server, OnFailure::Keep).await.unwrap();
    tx.commit().await.unwrap();
    let engine = engine(&live).await;
    let failed = in_state(&acme, asked.server, ServerState::Failed).await;
    let (problem, said) = failed.problem.unwrap();
    assert_eq!(problem, Problem::ApplyFailed);
    assert!(said.contains("is kept: terraform_data.firewall, terraform_data.machine"), "{said}");
    live.settled().await;
    assert_eq!(left_behind(&live).len(), 1, "its machine is there");
    destroyed(&acme, asked.server).await;
    in_state(&acme, asked.server, ServerState::Destroyed).await;
    live.settled().await;
    engine.stop().await;
    assert_eq!(left_behind(&live), Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_left_behind_is_found_and_removed_and_nothing_that_may_be_somebody_elses(pool: PgPool) {
    if !is_there() {
        return;
    }
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = engine(&live).await;
    let mut all = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        all.push(asked(&live, &acme, name).await.server);
    }
    for server in &all {
        in_state(&acme, *server, ServerState::Ready).await;
    }
    let machine = |server: &ServerId| live.terraform.directory().join("machines").join(server.to_string());
    let counted = async || {
        let mut tx = acme.begin().await;
        let credential = credentials::list(&mut tx, Window::new(Order::Ascending, 1)).await.unwrap()[0].id;
        let (looked_at, orphans) = orphans::list(&mut tx, credential).await.unwrap();
        tx.rollback().await.unwrap();
        (credential, looked_at.is_some(), orphans.into_iter().map(|it| it.server).collect::<Vec<_>>())
    };
    let (credential, looked, _) = counted().await;
    assert!(!looked);
    let valid = "update cloud_credentials set state = 'valid', check_at = now() + interval '1 day'";
    sqlx::query(valid).execute(&live.owner).await.unwrap();
    // Of the first nobody knows any more, of the second another installation knows, and the third is there.
    let gone = "update servers set state = 'destroyed', destroyed_at = now() - interval '2 hours' where name in ('web-1', 'web-2')";
    sqlx::query(gone).execute(&live.owner).await.unwrap();
    let other = format!("another-installation {}\n", acme.id);
    std::fs::write(machine(&all[1]).join("owner"), other).unwrap();
    live.operator().enqueue(WatchOrphans::default()).await;
    live.settled().await;
    assert_eq!(counted().await, (credential, true, vec![all[0].to_string()]));
    assert!(machine(&all[0]).exists(), "nothing is removed before somebody says so");
    let told = "select count(*) from events where type = 'cloud_credential.orphans_found'";
    let count = async || sqlx::query_scalar::<_, i64>(told).fetch_one(&live.owner).await.unwrap();
    assert_eq!(count().await, 1);
    assert!(acme.notices().await.iter().any(|notice| notice.message().contains("1 things of ours")));
    acme.enqueue(FindOrphans { credential, remove: true }).await;
    live.settled().await;
    assert_eq!(counted().await.2, Vec::<String>::new());
    assert!(!machine(&all[0]).exists() && machine(&all[1]).exists() && machine(&all[2]).exists());
    assert_eq!(count().await, 1, "it is told once");
    // By itself, where that is wanted.
    let gone = "update servers set state = 'destroyed', destroyed_at = now() - interval '2 hours' where name = 'web-3'";
    sqlx::query(gone).execute(&live.owner).await.unwrap();
    let mut tx = acme.begin().await;
    settings::set(&mut tx, Setting::ServersRemoveOrphans, &json!(true), false).await.unwrap();
    tx.commit().await.unwrap();
    acme.enqueue(FindOrphans { credential, remove: false }).await;
    live.settled().await;
    assert!(!machine(&all[2]).exists() && count().await == 2);
    engine.stop().await;
    sandbox::clear_away(&live.terraform, &all[1].to_string()).unwrap();
}

fn state(serial: i64, lineage: &str) -> Vec<u8> {
    json!({ "version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": lineage, "outputs": {},
            "resources": [{ "name": "x".repeat(1_000) }] })
    .to_string()
    .into_bytes()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_state_goes_forward_under_its_lock_and_whoever_was_overtaken_writes_no_more(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = crate::tenancy::furnished(&platform, "acme").await;
    let sealing = platform.sealing_keys();
    let mut tx = acme.begin().await;
    let server =
        servers::list(&mut tx, &servers::Filter::default(), Window::new(Order::Ascending, 1)).await.unwrap().remove(0);
    let (stack, run) =
        (server.stack, runs::list(&mut tx, server.stack, Window::new(Order::Ascending, 1)).await.unwrap()[0].id);
    let first = states::take_over(&mut tx, stack).await.unwrap();
    let by = |fence, lock| Writer { stack, fence, run, lock };

    let info = json!({ "ID": "one", "Who": "ada" });
    states::lock(&mut tx, stack, first, "one", &info).await.unwrap();
    states::lock(&mut tx, stack, first, "one", &info).await.unwrap();
    let held = states::lock(&mut tx, stack, first, "two", &json!({ "ID": "two" })).await.unwrap_err();
    assert!(matches!(held, StateError::Locked(holder) if holder["Who"] == "ada"));
    let unlocked = states::write(&mut tx, &sealing, by(first, None), &state(2, "a")).await.unwrap_err();
    assert!(matches!(unlocked, StateError::Locked(_)));
    states::write(&mut tx, &sealing, by(first, Some("one")), &state(2, "a")).await.unwrap();
    states::write(&mut tx, &sealing, by(first, Some("one")), &state(2, "a")).await.unwrap();
    assert_eq!(states::current(&mut tx, &sealing, stack).await.unwrap(), Some(state(2, "a")));
    let refused = states::write(&mut tx, &sealing, by(first, Some("one")), &state(1, "a")).await.unwrap_err();
    assert!(matches!(refused, StateError::Refused(Refused::Serial { ours: 2, theirs: 1 })));
    let refused = states::write(&mut tx, &sealing, by(first, Some("one")), &state(3, "b")).await.unwrap_err();
    assert!(matches!(refused, StateError::Refused(Refused::Lineage { .. })));

    // Another takes over: the lock is broken, and the first one is heard no more.
    let second = states::take_over(&mut tx, stack).await.unwrap();
    let late = states::write(&mut tx, &sealing, by(first, Some("one")), &state(3, "a")).await.unwrap_err();
    assert!(matches!(late, StateError::Overtaken));
    assert!(matches!(states::lock(&mut tx, stack, first, "one", &info).await, Err(StateError::Overtaken)));
    states::lock(&mut tx, stack, second, "two", &json!({ "ID": "two" })).await.unwrap();
    for serial in 3..=70 {
        states::write(&mut tx, &sealing, by(second, Some("two")), &state(serial, "a")).await.unwrap();
    }
    states::unlock(&mut tx, stack, second, Some("two")).await.unwrap();
    let versions = states::versions(&mut tx, stack, Window::new(Order::Descending, 100)).await.unwrap();
    assert_eq!((versions.len(), versions[0].serial, versions[49].serial), (50, 70, 21));

    // Somebody goes back: what it says is there again, under a serial above all before, and whoever worked on it is overtaken.
    assert!(!states::restore(&mut tx, &sealing, stack, 1).await.unwrap(), "it is not kept any more");
    assert!(states::restore(&mut tx, &sealing, stack, 30).await.unwrap());
    let newest = states::versions(&mut tx, stack, Window::new(Order::Descending, 1)).await.unwrap().remove(0);
    assert_eq!((newest.version, newest.serial, newest.restored_from, newest.run), (71, 71, Some(30), None));
    let back = states::current(&mut tx, &sealing, stack).await.unwrap().unwrap();
    let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
    assert_eq!((&back["serial"], &back["resources"][0]["name"]), (&json!(71), &json!("x".repeat(1_000))));
    let late = states::write(&mut tx, &sealing, by(second, None), &state(72, "a")).await.unwrap_err();
    assert!(matches!(late, StateError::Overtaken));
    // A lock counts as long as its holder does, and is broken by its id.
    let third = states::take_over(&mut tx, stack).await.unwrap();
    states::lock(&mut tx, stack, third, "three", &json!({ "ID": "three", "Who": "ada" })).await.unwrap();
    assert_eq!(states::held(&mut tx, stack).await.unwrap().unwrap().info["Who"], "ada");
    assert!(!states::force_unlock(&mut tx, stack, "two").await.unwrap());
    assert!(states::force_unlock(&mut tx, stack, "three").await.unwrap());
    assert_eq!(states::held(&mut tx, stack).await.unwrap(), None);
    let late = states::write(&mut tx, &sealing, by(third, Some("three")), &state(72, "a")).await.unwrap_err();
    assert!(matches!(late, StateError::Overtaken));
    // Fewer are kept where somebody says so.
    settings::set(&mut tx, Setting::ServersStateVersions, &json!(3), false).await.unwrap();
    let fence = states::take_over(&mut tx, stack).await.unwrap();
    states::write(&mut tx, &sealing, by(fence, None), &state(72, "a")).await.unwrap();
    let kept = states::versions(&mut tx, stack, Window::new(Order::Descending, 100)).await.unwrap();
    assert_eq!(kept.iter().map(|it| it.serial).collect::<Vec<_>>(), [72, 71, 70]);
    tx.commit().await.unwrap();

    let damaged = "update terraform_states set sha256 = sha256('x') where serial = 72";
    sqlx::query(damaged).execute(&platform.owner).await.unwrap();
    let mut tx = acme.begin().await;
    assert!(matches!(states::current(&mut tx, &sealing, stack).await, Err(StateError::Damaged)));
    platform.leaves_jobs();
}
