//! The whole platform in one test: its own database, a clock that stands still, a sandbox for the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Duration, TimeZone as _, Utc};
use gantry_jobs::Job;
use gantry_providers::Providers;
use gantry_providers::hooks::{HookSender, SandboxHooks};
use gantry_providers::mail::SandboxMail;
use gantry_providers::sms::SandboxSms;
use gantry_providers::ssh::{Config as Machines, Guard};
use gantry_providers::terraform::{self, Terraform};
use gantry_schema::db::Doorbell;
use gantry_schema::jobs::claim::{self, Claimed, Paused};
use gantry_schema::jobs::{Ready, keys, lease, workflow};
use gantry_schema::organizations::{self, NewOrganization};
use gantry_schema::people::{self, Email, NewPerson};
use gantry_schema::seal::SealingKeys;
use gantry_schema::{ClaimId, Clock as _, Db, EngineDb, FixedClock, IdMint, JobId, OrganizationId, PersonId, WorkerId};
use gantry_workers::{Runtime, Shared, drain, engine, registry};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use crate::faults::{self, Fault, Flaky, FlakyMail, When};
use crate::{Actor, kinds, process};

/// Calls of one handler that may be made to fail; a handler that makes more is taken for a loop.
const MAX_CALLS: usize = 100;

/// The whole platform in one test.
#[derive(Debug)]
pub struct Platform {
    /// Its time: Monday, 2 March 2026, nine o'clock UTC, until it is moved.
    pub clock: Arc<FixedClock>,
    /// Where webhooks arrive.
    pub hooks: Arc<SandboxHooks>,
    /// Where mail arrives.
    pub mail: Arc<SandboxMail>,
    /// Where text messages arrive.
    pub sms: Arc<SandboxSms>,
    /// The database as its owner sees it.
    pub owner: PgPool,
    db: Db,
    ids: Arc<IdMint>,
    runtime: Runtime,
    rung: Arc<Rung>,
    ran: Mutex<Vec<String>>,
    leaves_jobs: AtomicBool,
}

/// A doorbell that remembers.
#[derive(Debug, Default)]
struct Rung(Mutex<Vec<Ready>>);

impl Doorbell for Rung {
    fn ring(&self, ready: Vec<Ready>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(ready);
    }
}

/// The options of a database as another role sees it.
#[must_use]
pub fn as_role(options: &PgConnectOptions, role: &str) -> PgConnectOptions {
    options.clone().username(role)
}

/// What takes modules of organizations.
pub(crate) fn modules() -> gantry_providers::modules::Modules {
    let config = gantry_providers::modules::Config { enabled: true, ..Default::default() };
    config.build(&terraform::Config::default()).expect("names can be resolved")
}

impl Platform {
    /// A platform on a database of its own, which `#[sqlx::test]` has made and migrated.
    ///
    /// # Panics
    /// When the database does not answer.
    pub async fn new(owner: PgPool) -> Self {
        let clock = Arc::new(FixedClock::at(Utc.with_ymd_and_hms(2026, 3, 2, 9, 0, 0).single().expect("a moment")));
        let ids = Arc::new(IdMint::seeded(clock.clone(), 7));
        let rung = Arc::new(Rung::default());
        let options = owner.connect_options();
        let sealing_keys = Arc::new(process::sealing_keys().expect("a key"));
        let db = Db::connect(as_role(&options, "gantry_app"), 6, clock.clone(), ids.clone(), rung.clone())
            .await
            .expect("gantry_app may connect")
            .recording(sealing_keys.clone());
        let ledger = EngineDb::connect(as_role(&options, "gantry_engine"), 6, clock.clone(), ids.clone(), rung.clone())
            .await
            .expect("gantry_engine may connect");
        let hooks = Arc::new(SandboxHooks::default());
        let (mail, sms) = (Arc::new(SandboxMail::default()), Arc::new(SandboxSms::default()));
        let runtime = Runtime {
            worker: ids.mint(),
            db: db.clone(),
            ledger,
            registry: Arc::new(kinds::register(registry::standard())),
            providers: Arc::new(Providers {
                hooks: hooks.clone(),
                mail: mail.clone(),
                sms: sms.clone(),
                terraform: Arc::new(Terraform::new(terraform::Config::default())),
                clouds: Arc::default(),
                machines: Arc::new(
                    Guard::new(&Machines { allow: vec!["127.0.0.1".to_owned()] }).expect("the system resolves names"),
                ),
                modules: Arc::new(modules()),
            }),
            sealing_keys,
            license_issuers: Arc::default(),
            news: None,
            shared: Shared::default(),
        };
        Self {
            clock,
            hooks,
            mail,
            sms,
            owner,
            db,
            ids,
            runtime,
            rung,
            ran: Mutex::default(),
            leaves_jobs: AtomicBool::new(false),
        }
    }

    /// An organization directly below the platform.
    pub async fn organization(&self, name: &str) -> Actor {
        self.organization_below(OrganizationId::PLATFORM, name).await
    }

    /// An organization below another.
    pub async fn organization_below(&self, parent: OrganizationId, name: &str) -> Actor {
        let mut tx = self.db.tenant(parent).await.expect("the database answers");
        let made = organizations::create(&mut tx, &NewOrganization::below(parent, name))
            .await
            .expect("the organization can be made");
        tx.commit().await.expect("the database answers");
        self.actor(made.id)
    }

    /// Somebody with an account, who is a member of nothing yet.
    pub async fn person(&self, email: &str) -> PersonId {
        let (id, email): (PersonId, Email) = (self.ids.mint(), email.parse().expect("an address"));
        let mut tx = self.db.person(id).await.expect("the database answers");
        let new = NewPerson { id, email: &email, email_verified: true, name: "Somebody", locale: "en" };
        people::insert(&mut tx, &new).await.expect("nobody has the address");
        tx.commit().await.expect("the database answers");
        id
    }

    /// The organization that owns the platform.
    #[must_use]
    pub fn operator(&self) -> Actor {
        self.actor(OrganizationId::PLATFORM)
    }

    fn actor(&self, id: OrganizationId) -> Actor {
        Actor::new(id, self.db.clone(), self.sealing_keys())
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Where new ids come from.
    #[must_use]
    pub fn ids(&self) -> &IdMint {
        &self.ids
    }

    /// What opens sealed secrets.
    #[must_use]
    pub fn sealing_keys(&self) -> Arc<SealingKeys> {
        self.runtime.sealing_keys.clone()
    }

    /// The workers are started again with other keys.
    pub fn seal_with(&mut self, keys: SealingKeys) {
        self.runtime.sealing_keys = Arc::new(keys);
        self.runtime.shared = Shared::default();
    }

    /// The database as requests see it.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// The ledger as the engine sees it.
    #[must_use]
    pub const fn ledger(&self) -> &EngineDb {
        &self.runtime.ledger
    }

    /// What handlers run on.
    #[must_use]
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Does everything there is to do now. Answers how many attempts that took.
    pub async fn run_jobs(&self) -> usize {
        let ran = drain::drain(&self.runtime).await.expect("the database answers");
        let count = ran.len();
        self.ran.lock().unwrap_or_else(PoisonError::into_inner).extend(ran);
        count
    }

    /// As [`Self::run_jobs`], with this sender of webhooks.
    pub async fn run_jobs_sending(&self, hooks: Arc<dyn HookSender>) {
        let providers = Arc::new(Providers { hooks, ..(*self.runtime.providers).clone() });
        let runtime = Runtime { providers, shared: Shared::default(), ..self.runtime.clone() };
        drain::drain(&runtime).await.expect("the database answers");
    }

    /// Asks for what is due by schedules, and does it.
    pub async fn tick(&self) -> usize {
        engine::tick(&self.runtime).await.expect("the database answers");
        self.run_jobs().await
    }

    /// Moves the clock and does what has become due, as often as jobs wait for their time: until nothing does,
    /// or `within` is over.
    pub async fn run_through(&self, within: Duration) {
        let end = self.now() + within;
        self.run_jobs().await;
        while let Some(next) = self.next_due().await.filter(|next| *next <= end) {
            self.clock.advance((next - self.now()).max(Duration::zero()));
            self.run_jobs().await;
        }
    }

    async fn next_due(&self) -> Option<DateTime<Utc>> {
        sqlx::query_scalar("select min(due_at) from job_dispatch")
            .fetch_one(&self.owner)
            .await
            .expect("the database answers")
    }

    /// Puts right what a crash between two statements would leave behind, as the engine does every few seconds.
    pub async fn mend(&self) {
        let mut tx = self.ledger().begin().await.expect("the database answers");
        keys::mend(&mut tx).await.expect("the database answers");
        tx.commit().await.expect("the database answers");
        workflow::mend(self.ledger()).await.expect("the database answers");
    }

    /// A worker claims these jobs, as far as it can. Nobody runs them.
    pub async fn claim(&self, worker: WorkerId, jobs: &[JobId]) -> Vec<Claimed> {
        self.claim_unless(worker, jobs, &Paused::default()).await
    }

    /// A worker claims those of the jobs that are not paused.
    pub async fn claim_unless(&self, worker: WorkerId, jobs: &[JobId], paused: &Paused) -> Vec<Claimed> {
        let ids: Vec<uuid::Uuid> = jobs.iter().map(|job| job.uuid()).collect();
        let careful: Vec<(uuid::Uuid, bool)> =
            sqlx::query_as("select id, careful from job_dispatch where id = any($1)")
                .bind(&ids)
                .fetch_all(&self.owner)
                .await
                .expect("the database answers");
        let with = |wanted: bool| careful.iter().filter(move |(_, is)| *is == wanted).map(|(id, _)| *id);
        let (mut plain, careful): (Vec<_>, Vec<_>) = (with(false).collect(), with(true).collect());
        let (first, second) = (self.ids.mint::<ClaimId>(), self.ids.mint::<ClaimId>());
        let mut claimed =
            claim::claim(self.ledger(), worker, first, &mut plain, paused).await.expect("the database answers");
        if !careful.is_empty() {
            let more = claim::claim_careful(self.ledger(), worker, second, &careful, paused).await;
            claimed.extend(more.expect("the database answers"));
        }
        claimed
    }

    /// Lets the leases of a worker run out, as if it had been silent for so long.
    pub async fn silence(&self, worker: WorkerId) {
        sqlx::query("update job_leases set expires_at = now() - interval '1 second' where worker_id = $1")
            .bind(worker.uuid())
            .execute(&self.owner)
            .await
            .expect("the database answers");
    }

    /// Takes the jobs of silent workers back.
    pub async fn rescue(&self) -> lease::Rescued {
        lease::rescue(self.ledger(), 100, &|_| 3).await.expect("the database answers")
    }

    /// What was rung for since this was asked last.
    pub fn rung(&self) -> Vec<JobId> {
        let mut rung = self.rung.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung).into_iter().map(|ready| ready.id).collect()
    }

    /// How many rows a statement counts.
    pub async fn count(&self, statement: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(statement.to_owned()))
            .fetch_one(&self.owner)
            .await
            .expect("the statement counts")
    }

    /// Fails unless a job of the kind waits that `wanted` accepts.
    ///
    /// # Panics
    /// Then.
    pub async fn assert_enqueued<J: Job>(&self, wanted: impl Fn(&J) -> bool) {
        let payloads: Vec<Value> = sqlx::query_scalar(
            "select payload from jobs where kind = $1 and state in ('waiting', 'scheduled', 'available')",
        )
        .bind(J::KIND)
        .fetch_all(&self.owner)
        .await
        .expect("the database answers");
        let found = payloads.iter().filter_map(|payload| serde_json::from_value(payload.clone()).ok());
        assert!(found.into_iter().any(|job| wanted(&job)), "no such {} waits, only {payloads:?}", J::KIND);
    }

    /// Fails unless so many attempts at jobs of the kind were made so far.
    ///
    /// # Panics
    /// Then.
    pub fn assert_ran<J: Job>(&self, times: usize) {
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        let count = ran.iter().filter(|kind| *kind == J::KIND).count();
        assert_eq!(count, times, "attempts at {}; what ran: {ran:?}", J::KIND);
    }

    /// Runs the handlers of finished jobs of the kind again, as after a crash between the effect and the end,
    /// and fails when that has any further effect.
    ///
    /// # Panics
    /// Then, and when no job of the kind has finished.
    pub async fn run_twice<J: Job>(&self) {
        let before = self.effects().await;
        let again = sqlx::query(
            "with again as (
                 update jobs set state = 'available', finished_at = null, uncounted = uncounted + 1
                  where kind = $1 and state = 'succeeded' returning *)
             insert into job_dispatch (id, organization_id, kind, queue, priority, careful, concurrency_key)
             select id, organization_id, kind, queue, priority,
                    coalesce(unique_key, concurrency_key, rate_key) is not null, concurrency_key from again",
        )
        .bind(J::KIND)
        .execute(&self.owner)
        .await
        .expect("the database answers")
        .rows_affected();
        assert!(again > 0, "no job of kind {} has succeeded", J::KIND);
        self.run_through(Duration::days(30)).await;
        assert_eq!(self.effects().await, before, "running {} twice is not the same as running it once", J::KIND);
    }

    /// Runs a job that `ask` asks for while one of its calls fails: the first, the second, and so on, each
    /// before it has its effect and after. The job must succeed all the same, and `check` is asked about each.
    ///
    /// # Panics
    /// When it does not.
    pub async fn fail_at_each_call<J: Job>(&self, ask: impl AsyncFn() -> JobId, check: impl AsyncFn(JobId)) {
        for when in [When::Before, When::After] {
            let mut call = 1;
            loop {
                assert!(call < MAX_CALLS, "{} makes call after call", J::KIND);
                let fault = Fault::at(call, when);
                let job = ask().await;
                let faulty = self.faulty(&fault).await;
                drain::drain(&faulty).await.expect("the ledger answers");
                self.mend().await;
                self.run_through(Duration::days(30)).await;
                let state: String = sqlx::query_scalar("select state::text from jobs where id = $1 and kind = $2")
                    .bind(job.uuid())
                    .bind(J::KIND)
                    .fetch_one(&self.owner)
                    .await
                    .expect("the job is of the kind");
                assert_eq!(state, "succeeded", "{} after its call {call} failed ({when:?} its effect)", J::KIND);
                check(job).await;
                if !fault.happened() {
                    break;
                }
                call += 1;
            }
        }
    }

    /// A runtime whose handlers meet the fault, in the outside world or in the database.
    async fn faulty(&self, fault: &Fault) -> Runtime {
        let options = as_role(&self.owner.connect_options(), "gantry_app");
        let port = faults::proxy(&options, fault.clone()).await;
        // Without the statements a new connection makes of itself, which are not the handler's.
        let through = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("gantry_app")
            .database(options.get_database().expect("a database"))
            .ssl_mode(PgSslMode::Disable);
        let db = Db::connect(through, 1, self.clock.clone(), self.ids.clone(), self.rung.clone()).await;
        let hooks = Arc::new(Flaky { hooks: self.hooks.clone(), fault: fault.clone() });
        let mail = Arc::new(FlakyMail { mail: self.mail.clone(), fault: fault.clone() });
        Runtime {
            // The first calls are those of the connection itself; a fault there leaves nothing to test.
            db: db.map_or_else(|_| self.db.clone(), |db| db.recording(self.sealing_keys())),
            providers: Arc::new(Providers { hooks, mail, ..(*self.runtime.providers).clone() }),
            // What handlers have in common works with the database they began with.
            shared: Shared::default(),
            ..self.runtime.clone()
        }
    }

    /// Everything jobs have done: what the tables outside the ledger hold, and what arrived outside, each
    /// delivery counted once by its id. Attempts are kept for people and may be many.
    pub async fn effects(&self) -> BTreeMap<String, BTreeSet<String>> {
        let tables: Vec<String> = sqlx::query_scalar(
            "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
                and relname !~ '^(job|schedule|audit|_sqlx)' and relname <> 'webhook_attempts'",
        )
        .fetch_all(&self.owner)
        .await
        .expect("the database answers");
        let mut effects = BTreeMap::new();
        for table in tables {
            let rows: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(format!("select to_jsonb(t)::text from {table} t")))
                    .fetch_all(&self.owner)
                    .await
                    .expect("the database answers");
            effects.insert(table, rows.into_iter().collect());
        }
        let arrived = self.hooks.deliveries().into_iter().map(|delivery| {
            let id = delivery.request.headers.into_iter().find(|(name, _)| name == "webhook-id");
            format!("{} {}", delivery.request.url, id.map(|(_, id)| id).unwrap_or_default())
        });
        effects.insert("arrived".to_owned(), arrived.collect());
        effects
    }

    /// The story ends with jobs that are ready and were not done; without this, that fails the test.
    pub fn leaves_jobs(&self) {
        self.leaves_jobs.store(true, Ordering::Relaxed);
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let options = (*self.owner.connect_options()).clone();
        let now = self.now();
        // Nothing can be awaited here; a thread can. It also ends the connections, so that the database can be removed.
        let ended = std::thread::spawn(move || {
            let left = left_over(&options, now);
            farewell(&options).and(left)
        });
        let left = ended.join();
        if std::thread::panicking() || self.leaves_jobs.load(Ordering::Relaxed) {
            return;
        }
        match left {
            Ok(Ok(left)) => assert!(left.is_empty(), "ready jobs were left: {left:?}"),
            problem => panic!("cannot see whether jobs were left: {problem:?}"),
        }
    }
}

/// The jobs that are ready.
fn left_over(options: &PgConnectOptions, now: DateTime<Utc>) -> anyhow::Result<Vec<String>> {
    blocking(async {
        let mut connection = PgConnection::connect_with(options).await?;
        let left = sqlx::query_scalar(
            "select kind || ' ' || id from job_dispatch where coalesce(due_at, '-infinity') <= $1 and not parked",
        )
        .bind(now)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        Ok(left)
    })
}

/// Ends the connections of both roles, so that the test's database can be removed.
pub(crate) fn farewell(options: &PgConnectOptions) -> anyhow::Result<()> {
    blocking(async {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::query(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity
              where datname = current_database() and usename in ('gantry_app', 'gantry_engine')",
        )
        .execute(&mut connection)
        .await?;
        connection.close().await?;
        Ok(())
    })
}

fn blocking<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
