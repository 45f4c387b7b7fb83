//! The real engine in the test's process: the real clock, Redis, and a database of the test's own.

use std::sync::Arc;
use std::time::Duration;

use gantry_jobs::Queue;
use gantry_jobs::doorbell::{self, Bell, Ringer};
use gantry_providers::Providers;
use gantry_providers::clouds::endpoints::Endpoints;
use gantry_providers::hooks::SandboxHooks;
use gantry_providers::ssh::{Config as Machines, Guard};
use gantry_providers::terraform::{self, Terraform};
use gantry_schema::db::Doorbell;
use gantry_schema::organizations::{self, NewOrganization};
use gantry_schema::seal::SealingKeys;
use gantry_schema::{Db, EngineDb, IdMint, OrganizationId, SystemClock, WorkerId};
use gantry_workers::{Runtime, Shared, engine, registry};
use redis::aio::ConnectionManager;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot;

use crate::platform::{as_role, farewell, modules};
use crate::{Actor, kinds, process};

/// A condition a test waits for is met within this time, on however busy a machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `condition` answers something.
///
/// # Panics
/// When it does not within a minute.
pub async fn eventually<T>(what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(met) = condition().await {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(met) => met,
        Err(elapsed) => panic!("waited in vain until {what}: {elapsed}"),
    }
}

/// The servers of one test.
pub struct Live {
    /// The database as its owner sees it.
    pub owner: PgPool,
    /// The database as requests see it; a commit rings.
    pub db: Db,
    /// Where webhooks arrive.
    pub hooks: Arc<SandboxHooks>,
    /// Redis.
    pub redis: ConnectionManager,
    /// Whose keys are whose: nobody else uses it.
    pub namespace: String,
    /// What makes servers, in a directory of the test's own.
    pub terraform: Arc<Terraform>,
    clouds: Arc<Endpoints>,
    redis_url: String,
    ids: Arc<IdMint>,
    sealing_keys: Arc<SealingKeys>,
}

/// A running engine, with threads and connections of its own.
pub struct Engine {
    /// Its worker.
    pub worker: WorkerId,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), String>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Live {
    /// Servers for one test, on a database which `#[sqlx::test]` has made and migrated.
    ///
    /// # Panics
    /// When a server does not answer.
    pub async fn new(owner: PgPool) -> Self {
        Self::with(owner, |_| {}, Endpoints::default()).await
    }

    /// The same, with another Terraform than there is, and clouds elsewhere than they are.
    ///
    /// # Panics
    /// When a server does not answer.
    pub async fn with(owner: PgPool, adjust: impl FnOnce(&mut terraform::Config), clouds: Endpoints) -> Self {
        let redis_url = std::env::var("GANTRY_TEST_REDIS_URL")
            .or_else(|_| std::env::var("GANTRY_REDIS_URL"))
            .expect("GANTRY_TEST_REDIS_URL says where Redis is; scripts/test sets it");
        let redis = doorbell::connect(&redis_url).await.expect("Redis answers");
        let clock = Arc::new(SystemClock);
        let ids = Arc::new(IdMint::new(clock.clone()));
        let namespace = format!("story-{}", ids.mint::<WorkerId>());
        let doorbell: Arc<dyn Doorbell> = Arc::new(Ringer::start(Bell::new(redis.clone(), &namespace)));
        let options = as_role(&owner.connect_options(), "gantry_app");
        let sealing_keys = Arc::new(process::sealing_keys().expect("a key"));
        let db = Db::connect(options, 10, clock, ids.clone(), doorbell).await.expect("gantry_app may connect");
        let db = db.recording(sealing_keys.clone());
        let directory = Some(std::env::temp_dir().join(&namespace));
        let mut config = terraform::Config { directory, sandbox: true, ..terraform::Config::default() };
        adjust(&mut config);
        let (terraform, clouds, hooks) = (Arc::new(Terraform::new(config)), Arc::new(clouds), Arc::default());
        Self { owner, db, hooks, redis, namespace, terraform, clouds, redis_url, ids, sealing_keys }
    }

    /// What opens sealed secrets.
    #[must_use]
    pub fn sealing_keys(&self) -> &Arc<SealingKeys> {
        &self.sealing_keys
    }

    /// An organization below the platform.
    pub async fn organization(&self, name: &str) -> Actor {
        self.organization_with(name, 1, None).await
    }

    /// An organization with a weight and a limit.
    pub async fn organization_with(&self, name: &str, weight: i16, max_running: Option<i32>) -> Actor {
        let mut tx = self.db.tenant(OrganizationId::PLATFORM).await.expect("the database answers");
        let new = NewOrganization { weight, max_running, ..NewOrganization::below(OrganizationId::PLATFORM, name) };
        let made = organizations::create(&mut tx, &new).await.expect("the organization can be made");
        tx.commit().await.expect("the database answers");
        Actor::new(made.id, self.db.clone(), self.sealing_keys.clone())
    }

    /// The organization that owns the platform.
    #[must_use]
    pub fn operator(&self) -> Actor {
        Actor::new(OrganizationId::PLATFORM, self.db.clone(), self.sealing_keys.clone())
    }

    /// Starts an engine that serves the default queue with so many slots, and webhooks.
    pub async fn engine(&self, slots: usize) -> Engine {
        self.engine_with(vec![(Queue::Default, slots), (Queue::Webhooks, 5)], |_| {}).await
    }

    /// Starts an engine.
    ///
    /// # Panics
    /// When a server does not answer.
    pub async fn engine_with(&self, queues: Vec<(Queue, usize)>, adjust: impl FnOnce(&mut engine::Config)) -> Engine {
        let mut config = engine::Config::new(queues, self.redis_url.clone(), self.namespace.clone());
        config.leadership = Duration::from_secs(2);
        adjust(&mut config);
        let worker = self.ids.mint();
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let own = Own {
            worker,
            options: (*self.owner.connect_options()).clone(),
            hooks: self.hooks.clone(),
            terraform: self.terraform.clone(),
            clouds: self.clouds.clone(),
            sealing_keys: self.sealing_keys.clone(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be had");
        runtime.spawn(async move {
            let ran = async {
                let runtime = own.runtime(&config).await?;
                engine::run(runtime, config, async move { drop(stopped.await) }).await?;
                anyhow::Ok(())
            };
            drop(end.send(ran.await.map_err(|error| format!("{error:#}"))));
        });
        let engine = Engine { worker, stop: Some(stop), ended, runtime: Some(runtime) };
        eventually("the worker is known", async || {
            let known: i64 = sqlx::query_scalar("select count(*) from job_workers where id = $1")
                .bind(worker.uuid())
                .fetch_one(&self.owner)
                .await
                .expect("the database answers");
            (known == 1).then_some(())
        })
        .await;
        engine
    }

    /// Waits until nothing is ready or runs.
    pub async fn settled(&self) {
        eventually("every job has ended", async || {
            let left: i64 = sqlx::query_scalar(
                "select count(*) from jobs where state in ('available', 'scheduled', 'running', 'waiting')",
            )
            .fetch_one(&self.owner)
            .await
            .expect("the database answers");
            (left == 0).then_some(())
        })
        .await;
    }

    /// Forgets everything Redis holds for this test, as a flush would.
    pub async fn flush(&self) {
        for key in self.keys("*").await {
            redis::cmd("DEL").arg(key).exec_async(&mut self.redis.clone()).await.expect("Redis answers");
        }
    }

    /// The keys of this test that match.
    pub async fn keys(&self, pattern: &str) -> Vec<Vec<u8>> {
        let pattern = format!("*{}{pattern}", self.namespace);
        redis::cmd("KEYS").arg(pattern).query_async(&mut self.redis.clone()).await.expect("Redis answers")
    }
}

/// What an engine makes its own connections from.
struct Own {
    worker: WorkerId,
    options: PgConnectOptions,
    hooks: Arc<SandboxHooks>,
    terraform: Arc<Terraform>,
    clouds: Arc<Endpoints>,
    sealing_keys: Arc<SealingKeys>,
}

impl Own {
    async fn runtime(self, config: &engine::Config) -> anyhow::Result<Runtime> {
        let clock = Arc::new(SystemClock);
        let ids = Arc::new(IdMint::new(clock.clone()));
        let redis = doorbell::connect(&config.redis_url).await?;
        let doorbell = Arc::new(Ringer::start(Bell::new(redis, &config.namespace)));
        let (app, engine) = (as_role(&self.options, "gantry_app"), as_role(&self.options, "gantry_engine"));
        Ok(Runtime {
            worker: self.worker,
            db: Db::connect(app, 8, clock.clone(), ids.clone(), doorbell.clone())
                .await?
                .recording(self.sealing_keys.clone()),
            ledger: EngineDb::connect(engine, 8, clock, ids, doorbell).await?,
            registry: Arc::new(kinds::register(registry::standard())),
            providers: Arc::new(Providers {
                hooks: self.hooks,
                mail: Arc::new(gantry_providers::mail::SandboxMail::default()),
                sms: Arc::new(gantry_providers::sms::SandboxSms::default()),
                terraform: self.terraform,
                clouds: self.clouds,
                machines: Arc::new(Guard::new(&Machines { allow: vec!["127.0.0.1".to_owned()] })?),
                modules: Arc::new(modules()),
            }),
            sealing_keys: self.sealing_keys,
            license_issuers: Arc::default(),
            news: None,
            shared: Shared::default(),
        })
    }
}

impl Engine {
    /// Drains it.
    ///
    /// # Panics
    /// When it does not end in good order.
    pub async fn stop(mut self) {
        self.begin_to_stop();
        let ended = tokio::time::timeout(PATIENCE, &mut self.ended).await.expect("the engine ends in time");
        ended.expect("the engine does not panic").expect("the engine ends in good order");
    }

    /// Tells it to drain.
    pub fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An engine that has ended by itself hears nothing more.
            let _ = stop.send(());
        }
    }

    /// It is gone at once and tells nobody, as a machine that burns.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let options = (*self.owner.connect_options()).clone();
        let (redis_url, namespace) = (self.redis_url.clone(), self.namespace.clone());
        // Machines that a test which failed has left.
        let machines = std::fs::read_dir(self.terraform.directory().join("machines")).into_iter().flatten().flatten();
        for machine in machines {
            drop(gantry_providers::clouds::sandbox::clear_away(
                &self.terraform,
                &machine.file_name().to_string_lossy(),
            ));
        }
        drop(std::fs::remove_dir_all(self.terraform.directory()));
        // Nothing can be awaited here; a thread can.
        let ended = std::thread::spawn(move || {
            drop(farewell(&options));
            forget(&redis_url, &namespace)
        });
        drop(ended.join());
    }
}

/// Leaves nothing of a namespace behind.
fn forget(redis_url: &str, namespace: &str) -> redis::RedisResult<()> {
    let mut redis = redis::Client::open(redis_url)?.get_connection()?;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(format!("*{namespace}*")).query(&mut redis)?;
    if keys.is_empty() { Ok(()) } else { redis::cmd("DEL").arg(keys).exec(&mut redis) }
}
