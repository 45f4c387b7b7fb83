//! Serving the API until somebody asks to stop.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gantry_api::accounts::SignUp;
use gantry_api::app::Surface;
use gantry_api::audit::flush_every_minute;
use gantry_api::client::{Hosts, Proxies, ProxyHeader};
use gantry_api::cors::Origins;
use gantry_api::defence::Places;
use gantry_api::load::Limits;
use gantry_api::usage::add_up;
use gantry_api::{App, app};
use gantry_jobs::doorbell::{Bell, Ringer};
use gantry_jobs::process::{Namespace, Receivers, Settings, Together as _, metrics, shutdown, telemetry};
use gantry_jobs::signals::Signals;
use gantry_schema::licenses::PublicKeys;
use gantry_schema::{Db, IdMint, SystemClock, setup};
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tracing::info;

use crate::accept::Prompt;

/// Longer than anybody waits for a job, and than the silence between two events of a stream.
const IDLE: Duration = Duration::from_mins(2);

/// How often the pool's numbers are taken.
const POOL_EVERY: Duration = Duration::from_secs(5);

/// Serves until SIGTERM, then finishes what has begun.
pub async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let (logs, database, connections, redis_url, namespace, sealing, private, listen, metrics_at, drain) = (
        telemetry::Options::of(settings),
        settings.postgres("DATABASE_URL"),
        settings.required::<NonZeroU32>("DATABASE_CONNECTIONS"),
        // Checked as a whole; connections are made from its text.
        settings.redis("REDIS_URL").and_then(|_| settings.secret("REDIS_URL")),
        settings.required::<Namespace>("REDIS_NAMESPACE"),
        settings.sealing_keys(),
        settings.required::<bool>("WEBHOOKS_ALLOW_PRIVATE"),
        settings.required::<std::net::SocketAddr>("LISTEN"),
        settings.address_unless_off("METRICS_LISTEN"),
        settings.seconds("DRAIN_SECONDS"),
    )
        .together()?;
    let (requests, waiting, body_mib, connections_at_once, origins, tls_only_seconds, receivers) = (
        settings.required::<NonZeroU32>("API_REQUESTS"),
        settings.required::<NonZeroU32>("API_WAITING"),
        settings.required::<NonZeroU32>("API_BODY_MIB"),
        settings.required::<NonZeroU32>("API_CONNECTIONS"),
        settings.optional::<Origins>("CORS_ORIGINS"),
        settings.optional::<u64>("HSTS_SECONDS"),
        settings.optional::<Receivers>("WEBHOOKS_ALLOW"),
    )
        .together()?;
    let (public_url, proxies, proxy_header, hosts, base_domain, sign_up, issuers) = (
        settings.optional::<url::Url>("PUBLIC_URL"),
        settings.optional::<Proxies>("TRUSTED_PROXIES"),
        settings.required::<ProxyHeader>("PROXY_HEADER"),
        settings.optional::<Hosts>("ALLOWED_HOSTS"),
        settings.optional::<String>("BASE_DOMAIN"),
        settings.required::<SignUp>("SIGN_UP"),
        settings.optional::<PublicKeys>("LICENSE_ISSUERS"),
    )
        .together()?;
    let geo_database = settings.optional::<std::path::PathBuf>("GEO_DATABASE")?;
    let surface = Surface {
        limits: Limits { requests, waiting, body_mib },
        origins: origins.unwrap_or_default(),
        tls_only_seconds,
        proxies: proxies.unwrap_or_default().writing(proxy_header),
        hosts: hosts.unwrap_or_default(),
    };
    let telemetry = telemetry::init(logs)?;
    let asked_to_stop = shutdown::requested()?;
    metrics::install(metrics_at)?;

    let (clock, redis_url) = (Arc::new(SystemClock), redis_url.expose_secret());
    let redis = app::connect(redis_url).context("GANTRY_REDIS_URL")?;
    let bell = Ringer::start(Bell::new(redis.clone(), namespace.as_str()));
    let ids = Arc::new(IdMint::new(clock.clone()));
    let db =
        Db::connect(database, connections.get(), clock, ids, Arc::new(bell)).await.context("GANTRY_DATABASE_URL")?;
    if !setup::is_migrated(&db).await.unwrap_or(false) {
        anyhow::bail!("the database is not what this release needs: run `gantry-api migrate` first");
    }
    let signals = Signals::subscribe(redis_url, namespace.as_str());
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening at {listen}; choose a free address in GANTRY_LISTEN"))?;
    let public_url = match public_url {
        Some(url) => url.to_string(),
        None => format!("http://{}", listener.local_addr()?),
    };
    let places = match &geo_database {
        Some(path) => Places::open(path).with_context(|| format!("GANTRY_GEO_DATABASE, {}", path.display()))?,
        None => Places::default(),
    };
    let app = App::new(db.clone(), redis, namespace.as_str(), signals, sealing, private)
        .with(surface)
        .locating(places.clone())
        .letting_through(receivers.unwrap_or_default())
        .at(&public_url)
        .under(base_domain.as_deref())
        .letting_in(sign_up)
        .believing(issuers.unwrap_or_default().0);
    info!("Serving http://{0}, documentation at http://{0}/docs", listener.local_addr()?);
    let watching = tokio::spawn(watch_pool(db));
    let listening = {
        let app = app.clone();
        tokio::spawn(async move { app.listen().await })
    };
    let refusals = tokio::spawn(flush_every_minute(app.clone()));
    let locating = tokio::spawn(places.watch());
    let counting = tokio::spawn(add_up(app.clone()));
    let last = app.clone();
    let stop = {
        let app = app.clone();
        async move {
            asked_to_stop.await;
            app.stop();
        }
    };
    poem::Server::new_with_acceptor(Prompt::new(listener, connections_at_once.get() as usize))
        .idle_timeout(IDLE)
        .run_with_graceful_shutdown(gantry_api::app(app), stop, Some(drain))
        .await?;
    watching.abort();
    listening.abort();
    locating.abort();
    // What was counted is written down before the end.
    drop((refusals.await, counting.await));
    last.add_up_usage().await;
    info!("Stopped");
    telemetry.shutdown().await;
    Ok(())
}

/// How the pool of connections is used.
async fn watch_pool(db: Db) {
    let mut every = tokio::time::interval(POOL_EVERY);
    loop {
        every.tick().await;
        let (size, idle) = (db.pool().size(), db.pool().num_idle());
        ::metrics::gauge!("gantry_database_connections", "state" => "idle").set(idle as f64);
        ::metrics::gauge!("gantry_database_connections", "state" => "used").set(f64::from(size) - idle as f64);
    }
}
