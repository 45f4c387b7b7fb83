//! Torture of provisioning: a worker is killed at random moments while it plans, makes, looks at and removes servers of the
//! sandbox, with the real Terraform. In the end every server is what was asked for, its state never went back, nothing is
//! left over, and no credential was to be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use gantry_jobs::servers::{DestroyServer, ProvisionServer};
use gantry_jobs::{By, Job as _, Queue};
use gantry_providers::{Config, Providers, terraform};
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::servers::queries::{self as servers, NewServer};
use gantry_schema::servers::{Options, RunKind, keys, runs};
use gantry_schema::{Db, OrganizationId, RunId, ServerId, StackId};
use gantry_tests::process::{Servers, app_db, organization, runtime, sealing_keys};
use gantry_workers::{engine, registry};
use sqlx::PgPool;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;

/// What is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How often the worker is killed.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Chooses the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The directory of the private servers, as `scripts/servers` knows them.
    #[arg(long, default_value = ".gantry/torture")]
    servers: PathBuf,
}

/// Servers that are worked on when the worker is killed.
const AT_ONCE: usize = 3;

/// How long everything may take to come to its end once the worker is let alone.
const PATIENCE: Duration = Duration::from_mins(3);

/// What opens the account. Nobody may see it.
const TOKEN: &str = "sandbox-torture-7d1f0c5e9b";

fn provisioning(directory: &Path) -> Config {
    let terraform = terraform::Config {
        directory: Some(directory.join("provisioning")),
        sandbox: true,
        ..terraform::Config::default()
    };
    Config { terraform, ..Config::default() }
}

/// Runs a worker that provisions, until it is killed or nobody holds its standard input any more.
pub async fn work(directory: &Path) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    crate::pack::end_with_standard_input();
    let mut runtime = runtime(&servers, registry::standard()).await?;
    runtime.providers = Arc::new(Providers::new(&provisioning(directory))?);
    let queues = vec![(Queue::Provisioning, 8), (Queue::Default, 4)];
    let config = engine::Config::new(queues, servers.redis_url.clone(), servers.namespace.clone());
    engine::run(runtime, config, std::future::pending()).await?;
    Ok(())
}

/// One server, and what is wanted of it.
struct Wanted {
    server: ServerId,
    stack: StackId,
}

/// Plays it all, prints what was seen, and answers whether everything held.
pub async fn play(plan: Plan) -> anyhow::Result<bool> {
    anyhow::ensure!(
        ["terraform", "tofu"].iter().any(|name| terraform::process::find(name).is_some()),
        "this needs terraform or tofu in PATH"
    );
    let servers = Servers::from_env()?;
    servers.migrate().await?;
    let owner = PgPool::connect(&servers.owner_url).await?;
    let db = app_db(&servers).await?;
    let organization = organization(&servers, &format!("Torture {}", plan.seed)).await?;
    let directory = std::path::absolute(&plan.servers)?;
    let log = directory.join("provisioner.log");
    let mut dice = Dice::new(plan.seed, 7);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watching = tokio::spawn(watch_command_lines(directory.clone(), Arc::clone(&seen)));

    let mut worker = Some(start(&directory, &log)?);
    let (mut wanted, mut interrupted, mut number) = (Vec::new(), BTreeMap::<String, u32>::new(), 0_u32);
    for round in 0..plan.rounds {
        // In turns they are made and removed.
        let removes = round % 3 == 2;
        if removes {
            for one in &wanted {
                destroy(&db, organization, one).await?;
            }
        } else {
            if wanted.len() >= AT_ONCE * 2 {
                wanted.clear();
            }
            for _ in 0..AT_ONCE {
                number += 1;
                wanted.push(provision(&db, organization, &format!("web-{number}")).await?);
            }
        }
        sleep(dice.milliseconds(100, 6_000)).await;
        for state in states(&owner).await? {
            *interrupted.entry(state).or_default() += 1;
        }
        if let Some(mut child) = worker.take() {
            child.kill().await?;
        }
        // What a lease is for has torture of its own: here nobody waits until it runs out.
        sqlx::query("update job_leases set expires_at = now() - interval '1 second'").execute(&owner).await?;
        worker = Some(start(&directory, &log)?);
        if removes {
            let settled = settle(&owner, &wanted, "destroyed").await?;
            println!("round {round:>2}: removed in {settled:.1} s");
            wanted.clear();
        } else {
            let settled = settle(&owner, &wanted, "ready").await?;
            println!("round {round:>2}: ready in {settled:.1} s");
        }
    }
    for one in &wanted {
        destroy(&db, organization, one).await?;
    }
    settle(&owner, &wanted, "destroyed").await?;
    if let Some(mut child) = worker.take() {
        child.kill().await?;
    }
    watching.abort();
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    judge(&plan, &owner, &servers, &directory, &log, &interrupted, seen).await
}

#[expect(clippy::disallowed_methods, reason = "the torture starts its own workers")]
fn start(directory: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    Command::new(std::env::current_exe()?)
        .args(["provisioner", "--servers"])
        .arg(directory)
        .env("RUST_LOG", "info")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting a worker")
}

async fn provision(db: &Db, organization: OrganizationId, name: &str) -> anyhow::Result<Wanted> {
    let keys = sealing_keys()?;
    let mut tx = db.tenant(organization).await?;
    let known = credentials::list(&mut tx, gantry_schema::Window::new(gantry_schema::Order::Ascending, 1)).await?;
    let credential = if let Some(known) = known.first() {
        known.id
    } else {
        let credential = Credential::Sandbox { token: TOKEN.to_owned() };
        credentials::insert(&mut tx, &keys, "sandbox", &credential).await?
    };
    let ssh_key = keys::ensure(&mut tx, &keys).await?;
    let new = NewServer {
        name,
        cloud: Cloud::Sandbox,
        credential,
        region: "sandbox-1",
        size: "small",
        image: "debian-12",
        labels: &BTreeMap::new(),
        options: &Options::default(),
    };
    let server = servers::insert(&mut tx, &new, ssh_key).await?;
    let stack = servers::find(&mut tx, server).await?.context("it was just made")?.stack;
    let run = runs::insert(&mut tx, stack, RunKind::Provision, "torture").await?;
    let job = ProvisionServer { run, stack }.request().enqueue(&mut tx, &By::platform("torture")).await?;
    runs::set_job(&mut tx, run, job.id).await?;
    tx.commit().await?;
    Ok(Wanted { server, stack })
}

async fn destroy(db: &Db, organization: OrganizationId, one: &Wanted) -> anyhow::Result<RunId> {
    let mut tx = db.tenant(organization).await?;
    let run = runs::insert(&mut tx, one.stack, RunKind::Destroy, "torture").await?;
    let job = DestroyServer { run, stack: one.stack }.request().enqueue(&mut tx, &By::platform("torture")).await?;
    runs::set_job(&mut tx, run, job.id).await?;
    tx.commit().await?;
    Ok(run)
}

/// In what the kill comes.
async fn states(owner: &PgPool) -> anyhow::Result<Vec<String>> {
    let states = sqlx::query_scalar("select kind || ' ' || state from runs where finished_at is null");
    Ok(states.fetch_all(owner).await?)
}

/// Waits until all are in a state. Answers how many seconds that took.
async fn settle(owner: &PgPool, wanted: &[Wanted], state: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let ids: Vec<uuid::Uuid> = wanted.iter().map(|one| one.server.uuid()).collect();
    let waiting = async {
        loop {
            let others: Vec<(String, String, Option<String>)> = sqlx::query_as(
                "select name, state, problem from servers where id = any($1) and state <> $2 order by id",
            )
            .bind(&ids)
            .bind(state)
            .fetch_all(owner)
            .await?;
            if let Some((name, _, Some(problem))) = others.iter().find(|(_, now, _)| now == "failed") {
                anyhow::bail!("{name} failed: {problem}");
            }
            if others.is_empty() {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waiting).await.with_context(|| format!("not everything is {state}"))??;
    Ok(begun.elapsed().as_secs_f64())
}

/// What was seen in command lines.
#[derive(Debug, Default)]
struct Seen {
    samples: u64,
    terraform: u64,
    secrets: BTreeSet<String>,
}

/// Looks at the command lines of all processes, again and again.
async fn watch_command_lines(directory: PathBuf, seen: Arc<Mutex<Seen>>) {
    let directory = directory.display().to_string();
    loop {
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.samples += 1;
            for line in command_lines() {
                seen.terraform += u64::from(line.contains("terraform") || line.contains(&directory));
                if line.contains(TOKEN) {
                    seen.secrets.insert(line);
                }
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn command_lines() -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let lines = processes.flatten().filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| !line.is_empty()).collect()
}

/// What must hold in the end.
async fn judge(
    plan: &Plan,
    owner: &PgPool,
    servers: &Servers,
    directory: &Path,
    log: &Path,
    interrupted: &BTreeMap<String, u32>,
    seen: Seen,
) -> anyhow::Result<bool> {
    let count = async |question: &'static str| -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(question).fetch_one(owner).await?)
    };
    let made = count("select count(*) from servers").await?;
    let versions = count("select count(*) from terraform_states").await?;
    let provisioning = directory.join("provisioning");
    let left: Vec<PathBuf> = ["runs", "machines"]
        .iter()
        .filter_map(|name| std::fs::read_dir(provisioning.join(name)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .collect();
    let inside = provisioning.display().to_string();
    let processes: Vec<String> = command_lines().into_iter().filter(|line| line.contains(&inside)).collect();
    let dump = dump(servers).await?;
    let wrong: &[(&str, i64)] = &[
        ("servers that are not gone", count("select count(*) from servers where state <> 'destroyed'").await?),
        ("runs without an end", count("select count(*) from runs where finished_at is null").await?),
        (
            "states that went back",
            count(
                "select count(*) from (select serial <= lag(serial) over (partition by stack_id order by version) as back
                                         from terraform_states) s where back",
            )
            .await?,
        ),
        (
            "stacks of more than one lineage",
            count(
                "select count(*) from (select from terraform_states group by stack_id having count(distinct lineage) > 1) s",
            )
            .await?,
        ),
        ("locks that are held", count("select count(*) from stacks where lock_id is not null").await?),
        ("directories left over", i64::try_from(left.len())?),
        ("processes left over", i64::try_from(processes.len())?),
        ("command lines with the credential", i64::try_from(seen.secrets.len())?),
        ("credentials in the database", i64::from(shows(&dump))),
        ("credentials in the log", i64::from(shows(&std::fs::read(log)?))),
    ];
    println!("killed {} times, with these runs under way:", plan.rounds);
    for (state, times) in interrupted {
        println!("  {state:<28} {times:>5}");
    }
    println!("servers made and removed       {made:>5}");
    println!("versions of states             {versions:>5}");
    println!(
        "looks at all command lines     {:>5}, {} of them of Terraform and machines",
        seen.samples, seen.terraform
    );
    for (what, number) in wrong {
        println!("{what:<38} {number:>5}");
    }
    for path in &left {
        println!("left over: {}", path.display());
    }
    for line in processes.iter().chain(&seen.secrets) {
        println!("process: {line}");
    }
    Ok(wrong.iter().all(|(_, number)| *number == 0) && made > 0 && seen.terraform > 0)
}

/// Everything in the database, as text.
#[expect(clippy::disallowed_methods, reason = "the torture looks at what its servers keep")]
async fn dump(servers: &Servers) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("pg_dump").arg(&servers.owner_url).output().await.context("starting pg_dump")?;
    anyhow::ensure!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Whether the credential is there: as it is, in hexadecimal digits or in base64.
fn shows(bytes: &[u8]) -> bool {
    let hex = gantry_schema::digest::hex(TOKEN.as_bytes());
    // The middle of it in base64, wherever it begins.
    let in_base64 =
        ["ZGJveC10b3J0dXJlLTdkMWYwYzVl", "bmRib3gtdG9ydHVyZS03ZDFmMGM1", "YW5kYm94LXRvcnR1cmUtN2QxZjBjNWU5"];
    let texts = [TOKEN, &hex].into_iter().chain(in_base64);
    texts.into_iter().any(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}
