//! Everything together: servers, workers, load, schedules, faults, and the time in which all must recover.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use gantry_jobs::schedule::{self, NewSchedule};
use gantry_jobs::{By, Job as _};
use gantry_schema::schedules::cron::{MissedRuns, Overlap};
use gantry_schema::{Db, OrganizationId};
use gantry_tests::process::{Servers, app_db, organization};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;
use crate::kinds::{self, Effect};
use crate::load::{self, Book};
use crate::pack::{self, Wolf};
use crate::{Plan, faults, verdict};

/// Organizations that ask for jobs; half of them have a schedule that ticks every second.
const ORGANIZATIONS: usize = 4;

/// How long everything may take to finish once nothing is broken any more.
const RECOVERY: Duration = Duration::from_mins(2);

/// What the faults work on.
pub struct Scene {
    pub directory: PathBuf,
    pub wolves: Vec<Arc<Wolf>>,
    pub owner: PgPool,
    pub recoveries: Arc<Recoveries>,
    /// Workers that did not end when they were asked to.
    pub stubborn: AtomicUsize,
    redis: redis::Client,
    begun: Instant,
}

impl Scene {
    /// The worker that leads, if it can be told.
    pub async fn leader(&self) -> Option<usize> {
        let question = sqlx::query_scalar::<_, i32>(
            "select w.pid from job_leaders l join job_workers w on w.id = l.worker_id where l.duty = 'upkeep'",
        );
        let pid = timeout(Duration::from_secs(2), question.fetch_one(&self.owner)).await.ok()?.ok()?;
        for (number, wolf) in self.wolves.iter().enumerate() {
            if wolf.pid().await == u32::try_from(pid).ok() {
                return Some(number);
            }
        }
        None
    }

    /// Gives Redis a command; a Redis that is away needs none.
    pub async fn redis(&self, command: &redis::Cmd) {
        let given = async {
            let mut connection = self.redis.get_multiplexed_async_connection().await?;
            command.exec_async(&mut connection).await
        };
        drop(timeout(Duration::from_secs(5), given).await);
    }

    /// A line of the diary.
    pub fn say(&self, what: &str) {
        println!("{:>7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

/// After every fault a job is asked for, and timed until it is done.
pub struct Recoveries {
    db: Db,
    organization: OrganizationId,
    owner: PgPool,
    running: AsyncMutex<JoinSet<()>>,
    waiting: Mutex<Vec<(&'static str, Instant)>>,
    seconds: Mutex<Vec<(&'static str, f64)>>,
    book: Arc<Book>,
}

impl Recoveries {
    /// A fault is over just now.
    pub fn expect(&self, fault: &'static str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((fault, Instant::now()));
    }

    /// Times recoveries, for ever.
    async fn watch(self: Arc<Self>) {
        loop {
            sleep(Duration::from_millis(10)).await;
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            for (fault, since) in waiting {
                let this = Arc::clone(&self);
                self.running.lock().await.spawn(async move {
                    let mut found = this.probe().await;
                    while found.is_err() {
                        sleep(Duration::from_millis(50)).await;
                        found = this.probe().await;
                    }
                    let seconds = since.elapsed().as_secs_f64();
                    this.seconds.lock().unwrap_or_else(PoisonError::into_inner).push((fault, seconds));
                });
            }
        }
    }

    /// Asks for a job and waits until it is done.
    async fn probe(&self) -> anyhow::Result<()> {
        let mut tx = self.db.tenant(self.organization).await?;
        let probe = Effect::default();
        let job = probe.request().enqueue(&mut tx, &By::platform("torture")).await?;
        tx.commit().await?;
        self.book.probe(job.id);
        loop {
            let done: Result<bool, _> =
                sqlx::query_scalar("select exists (select from torture.effects where job_id = $1)")
                    .bind(job.id.uuid())
                    .fetch_one(&self.owner)
                    .await;
            if done.unwrap_or(false) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn all(&self) -> Vec<(&'static str, f64)> {
        while !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        // The watch adds what it took before it sleeps.
        sleep(Duration::from_millis(50)).await;
        let mut running = std::mem::take(&mut *self.running.lock().await);
        drop(timeout(RECOVERY, async { while running.join_next().await.is_some() {} }).await);
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What has not recovered by now never did.
        seconds.extend((0..running.len()).map(|_| ("never", RECOVERY.as_secs_f64())));
        seconds
    }
}

/// Plays it all, prints and writes the figures, and answers whether every invariant held.
pub async fn play(plan: Plan) -> anyhow::Result<bool> {
    let servers = Servers::from_env()?;
    servers.migrate().await?;
    // A server that is killed takes its connections along: they are tried before they are used.
    let owner = PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(servers.owner_url.parse()?)
        .await?;
    let password = prepare(&owner).await?;
    let postgres = owner_tcp()?;
    let redis = redis::Client::open(servers.redis_url.as_str())?;
    let redis::ConnectionAddr::Tcp(host, port) = redis.get_connection_info().addr().clone() else {
        anyhow::bail!("Redis is not reached over TCP");
    };
    scene_redis_is_empty(&redis).await?;

    let db = app_db(&servers).await?;
    let mut organizations = Vec::new();
    for number in 0..ORGANIZATIONS {
        organizations.push(organization(&servers, &format!("Torture {} {number}", plan.seed)).await?);
    }
    let begun = Instant::now();
    let schedules = make_schedules(&db, &organizations).await?;

    let logs = plan.servers.clone();
    let redis_at = format!("{host}:{port}").parse()?;
    let mut wolves = Vec::new();
    for number in 0..plan.workers {
        wolves.push(Wolf::start(number, &servers, &password, postgres, redis_at, &logs).await?);
    }
    let book = Arc::new(Book::default());
    let recoveries = Arc::new(Recoveries {
        db: db.clone(),
        organization: organizations[0],
        owner: owner.clone(),
        running: AsyncMutex::default(),
        waiting: Mutex::default(),
        seconds: Mutex::default(),
        book: Arc::clone(&book),
    });
    let scene = Arc::new(Scene {
        directory: plan.servers.clone(),
        wolves,
        owner: owner.clone(),
        recoveries: Arc::clone(&recoveries),
        stubborn: AtomicUsize::new(0),
        redis,
        begun,
    });

    let mut background = JoinSet::new();
    background.spawn(pack::keep(scene.wolves.clone()));
    background.spawn(Arc::clone(&recoveries).watch());
    let over = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for (number, organization) in organizations.iter().enumerate() {
        let dice = Dice::new(plan.seed, 100 + number as u64);
        load.spawn(load::ask(db.clone(), *organization, dice, Arc::clone(&book), Arc::clone(&over)));
    }

    let until = Instant::now() + Duration::from_secs(plan.seconds);
    let count = faults::run(&scene, plan.seed, &plan.only, until).await?;
    over.store(true, Ordering::Relaxed);
    while let Some(done) = load.join_next().await {
        done?;
    }
    scene.say(&format!("the faults are over, {} jobs were asked for", book.count()));
    let calm = Instant::now();
    let all_finished = timeout(RECOVERY, verdict::finished(&owner)).await.is_ok();
    scene.say(&format!(
        "{} after {:.1} s",
        if all_finished { "everything finished" } else { "something has not finished" },
        calm.elapsed().as_secs_f64()
    ));
    let recovery = calm.elapsed();
    let recovered = recoveries.all().await;
    let end = verdict::stop_schedules(&owner).await?;
    drop(timeout(RECOVERY, verdict::finished(&owner)).await);

    let mut figures = verdict::judge(&owner, &book, &schedules, end).await?;
    figures.run(&plan, count, &scene, &recovered, recovery);
    for wolf in &scene.wolves {
        // Also the last one leaves in good order.
        wolf.terminate(Duration::from_secs(30)).await?;
    }
    background.shutdown().await;
    let holds = figures.report();
    if let Some(path) = plan.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures.json())? + "\n")?;
    }
    Ok(holds)
}

/// Makes the tables of the traces, and lets the two roles in over TCP. Answers their password.
async fn prepare(owner: &PgPool) -> anyhow::Result<String> {
    sqlx::raw_sql(kinds::TABLES).execute(owner).await?;
    // What an earlier run left would be judged with this one.
    sqlx::raw_sql(
        "truncate jobs, job_logs, job_dispatch, job_leases, job_unsuccessful, job_unique, job_slots, job_dependencies,
                  job_steps, job_workers, job_leaders, job_pauses, job_limits, schedules, schedule_ticks",
    )
    .execute(owner)
    .await?;
    let password: String = sqlx::query_scalar("select md5(random()::text)").fetch_one(owner).await?;
    for role in ["gantry_app", "gantry_engine"] {
        let change = format!("alter role {role} password '{password}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(change)).execute(owner).await?;
    }
    Ok(password)
}

async fn scene_redis_is_empty(redis: &redis::Client) -> anyhow::Result<()> {
    let mut connection = redis.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("FLUSHALL").exec_async(&mut connection).await?)
}

/// PostgreSQL's address for proxies.
fn owner_tcp() -> anyhow::Result<std::net::SocketAddr> {
    let url = std::env::var("GANTRY_OWNER_TCP_URL").context("GANTRY_OWNER_TCP_URL is not set")?;
    let options: PgConnectOptions = url.parse()?;
    Ok(format!("{}:{}", options.get_host(), options.get_port()).parse()?)
}

/// A schedule per other organization that ticks every second, and misses nothing.
async fn make_schedules(db: &Db, organizations: &[OrganizationId]) -> anyhow::Result<Vec<uuid::Uuid>> {
    let mut made = Vec::new();
    for organization in organizations.iter().step_by(2) {
        let mut tx = db.tenant(*organization).await?;
        let new = NewSchedule {
            name: "every second".to_owned(),
            kind: "diagnostics.probe".to_owned(),
            payload: serde_json::json!({ "message": "tick" }),
            cron: "* * * * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            missed_runs: MissedRuns::All,
            overlap: Overlap::Allow,
            jitter_seconds: 0,
        };
        made.push(schedule::create(&mut tx, new).await?.id.uuid());
        tx.commit().await?;
    }
    Ok(made)
}

/// Recovery times per fault.
pub fn by_fault(recovered: &[(&'static str, f64)]) -> BTreeMap<&'static str, Vec<f64>> {
    let mut by_fault: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for (fault, seconds) in recovered {
        by_fault.entry(fault).or_default().push(*seconds);
    }
    by_fault
}
