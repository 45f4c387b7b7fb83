//! Running parts of the platform against real servers, for benchmarks and for tests of whole processes.

use std::sync::Arc;

use anyhow::Context as _;
use gantry_jobs::doorbell::{self, Bell, Ringer};
use gantry_providers::Providers;
use gantry_schema::db::{Doorbell, Silent};
use gantry_schema::organizations::{self, NewOrganization};
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::{Db, EngineDb, IdMint, OrganizationId, SystemClock};
use gantry_workers::{Registry, Runtime, Shared};
use sqlx::postgres::PgConnectOptions;

/// Where the servers are.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The owner of the tables.
    pub owner_url: String,
    /// The role of requests and handlers.
    pub app_url: String,
    /// The role of the engine.
    pub engine_url: String,
    /// Redis.
    pub redis_url: String,
    /// The namespace in Redis.
    pub namespace: String,
}

impl Servers {
    /// As `scripts/servers env` says.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn from_env() -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            owner_url: variable("GANTRY_OWNER_DATABASE_URL")?,
            app_url: variable("GANTRY_DATABASE_URL")?,
            engine_url: variable("GANTRY_ENGINE_DATABASE_URL")?,
            redis_url: variable("GANTRY_REDIS_URL")?,
            namespace: std::env::var("GANTRY_REDIS_NAMESPACE").unwrap_or_else(|_| "gantry".to_owned()),
        })
    }

    /// Applies the migrations.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        let owner = sqlx::PgPool::connect(&self.owner_url).await?;
        gantry_schema::MIGRATOR.run(&owner).await?;
        Ok(())
    }
}

/// The database as requests see it, with a doorbell that rings.
///
/// # Errors
/// When a server does not answer.
pub async fn app_db(servers: &Servers) -> anyhow::Result<Db> {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let db = Db::connect(servers.app_url.parse()?, 16, clock, ids, doorbell(servers).await?).await?;
    Ok(db.recording(Arc::new(sealing_keys()?)))
}

/// As [`app_db`], with a doorbell nobody hears.
///
/// # Errors
/// When the server does not answer.
pub async fn silent_db(servers: &Servers) -> anyhow::Result<Db> {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let db = Db::connect(servers.app_url.parse()?, 16, clock, ids, Arc::new(Silent)).await?;
    Ok(db.recording(Arc::new(sealing_keys()?)))
}

async fn doorbell(servers: &Servers) -> anyhow::Result<Arc<dyn Doorbell>> {
    let redis = doorbell::connect(&servers.redis_url).await?;
    Ok(Arc::new(Ringer::start(Bell::new(redis, &servers.namespace))))
}

/// Makes an organization below the platform.
///
/// # Errors
/// When the database refuses.
pub async fn organization(servers: &Servers, name: &str) -> anyhow::Result<OrganizationId> {
    let db = app_db(servers).await?;
    let mut tx = db.tenant(OrganizationId::PLATFORM).await?;
    let made = organizations::create(&mut tx, &NewOrganization::below(OrganizationId::PLATFORM, name)).await?;
    tx.commit().await?;
    Ok(made.id)
}

/// What handlers run on, against real servers.
///
/// # Errors
/// When a server does not answer.
pub async fn runtime(servers: &Servers, registry: Registry) -> anyhow::Result<Runtime> {
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let doorbell = doorbell(servers).await?;
    let engine: PgConnectOptions = servers.engine_url.parse()?;
    Ok(Runtime {
        worker: ids.mint(),
        db: app_db(servers).await?,
        ledger: EngineDb::connect(engine, 16, clock, ids, doorbell).await?,
        registry: Arc::new(registry),
        providers: Arc::new(Providers::new(&gantry_providers::Config::default())?),
        sealing_keys: Arc::new(sealing_keys()?),
        license_issuers: Arc::default(),
        news: None,
        shared: Shared::default(),
    })
}

/// A key for tests, known to everybody.
///
/// # Errors
/// Never; the key is well-formed.
pub fn sealing_keys() -> anyhow::Result<SealingKeys> {
    Ok(SealingKeys::new(sealing_key()?, Vec::new())?)
}

/// The key of [`sealing_keys`].
///
/// # Errors
/// Never, unless it was mistyped.
pub fn sealing_key() -> anyhow::Result<SealingKey> {
    Ok(SealingKey::from_base64("test", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")?)
}
