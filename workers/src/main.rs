//! `gantry-worker`: carries jobs out.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use gantry_jobs::doorbell::{self, Bell, Ringer};
use gantry_jobs::process::{
    self, Namespace, Program, Receivers, Settings, Slots, Together as _, metrics, shutdown, telemetry,
};
use gantry_jobs::{Retry, schedule};
use gantry_providers::clouds::endpoints::Endpoints;
use gantry_providers::hooks::{self, client};
use gantry_providers::terraform::{Isolation, User};
use gantry_providers::{Providers, mail, modules, sms, ssh, terraform};
use gantry_schema::licenses::PublicKeys;
use gantry_schema::{Db, EngineDb, IdMint, SystemClock};
use gantry_workers::{Registry, Runtime, Shared, engine, registry};
use tracing::info;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Carries Gantry's jobs out; start as many as you need, on as many machines.
#[derive(Debug, Parser)]
#[command(name = "gantry-worker", version, after_help = process::help(Program::Worker))]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Slots per queue, such as webhooks=50,default=10; only these queues are served. Before GANTRY_QUEUES.
    #[arg(long)]
    queues: Option<Slots>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry jobs out until told to stop (the default)
    Run,
    /// Print the kinds of jobs this worker can do, with their policies
    Jobs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match arguments.command {
        Some(Command::Jobs) => {
            print_catalogue(&registry::standard());
            Ok(())
        }
        None | Some(Command::Run) => Box::pin(run(arguments.queues)).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The causes in one line; a stack would help nobody to mend a setting.
            eprintln!("gantry-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(queues: Option<Slots>) -> anyhow::Result<()> {
    let settings = Settings::load(Program::Worker, std::env::vars_os())?;
    let configured = (
        telemetry::Options::of(&settings),
        settings.postgres("DATABASE_URL"),
        settings.postgres("ENGINE_DATABASE_URL"),
        settings.redis("REDIS_URL").and_then(|_| settings.required::<String>("REDIS_URL")),
        settings.required::<Namespace>("REDIS_NAMESPACE"),
        settings.sealing_keys(),
        settings.required::<Slots>("QUEUES"),
        settings.required::<NonZeroU32>("DATABASE_CONNECTIONS").map(NonZeroU32::get),
        settings.seconds("DRAIN_SECONDS"),
        settings.required::<bool>("WEBHOOKS_ALLOW_PRIVATE"),
        settings.optional::<Receivers>("WEBHOOKS_ALLOW"),
        settings.address_unless_off("METRICS_LISTEN"),
    )
        .together()?;
    let (
        logs,
        app,
        engine,
        redis_url,
        namespace,
        sealing_keys,
        slots,
        connections,
        drain,
        allow_private,
        allow,
        listen,
    ) = configured;
    let (mail_url, mail_from, sms_url, sms_from, issuers) = (
        settings.optional::<url::Url>("MAIL_URL"),
        settings.optional::<String>("MAIL_FROM"),
        settings.optional::<url::Url>("SMS_URL"),
        settings.optional::<String>("SMS_FROM"),
        settings.optional::<PublicKeys>("LICENSE_ISSUERS"),
    )
        .together()?;
    let (program, plugins, directory, sandbox, clouds, isolation, user, machines) = (
        settings.optional::<PathBuf>("TERRAFORM"),
        settings.optional::<PathBuf>("TERRAFORM_PLUGINS"),
        settings.optional::<PathBuf>("PROVISIONING_DIRECTORY"),
        settings.required::<bool>("SANDBOX_CLOUD"),
        settings.optional::<Endpoints>("CLOUD_ENDPOINTS"),
        settings.required::<Isolation>("TERRAFORM_ISOLATION"),
        settings.optional::<User>("TERRAFORM_USER"),
        settings.optional::<Receivers>("SERVERS_ALLOW"),
    )
        .together()?;
    let (enabled, plugins_of_modules, hosts) = (
        settings.required::<modules::Switch>("MODULES"),
        settings.optional::<modules::Plugins>("MODULE_PROVIDERS"),
        settings.optional::<Receivers>("MODULE_HOSTS"),
    )
        .together()?;
    let modules = modules::Config {
        enabled: enabled.0,
        providers: plugins_of_modules.unwrap_or_default().0,
        hosts: hosts.unwrap_or_default().entries().to_vec(),
        ..modules::Config::default()
    };
    let user = user.unwrap_or_default();
    let terraform =
        terraform::Config { program, directory, plugins, sandbox, isolation, user, ..terraform::Config::default() };
    let clouds = clouds.unwrap_or_default();
    let mail = mail::Config::of_url(mail_url.as_ref(), mail_from.as_deref())?;
    let sms = sms::Config::of_url(sms_url.as_ref(), sms_from.as_deref())?;
    let sealing_keys = Arc::new(sealing_keys);
    let telemetry = telemetry::init(logs)?;
    metrics::install(listen)?;
    // After the metrics, for each handler keeps handles of its own.
    let registry = registry::standard();
    registry.check()?;
    let asked_to_stop = shutdown::requested()?;

    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdMint::new(clock.clone()));
    let redis = doorbell::connect(&redis_url).await.context("connecting to Redis, see GANTRY_REDIS_URL")?;
    let bell = Arc::new(Ringer::start(Bell::new(redis, namespace.as_str())));
    let db =
        Db::connect(app, connections, clock.clone(), ids.clone(), bell.clone()).await.context("GANTRY_DATABASE_URL")?;
    let db = db.recording(Arc::clone(&sealing_keys));
    let ledger =
        EngineDb::connect(engine, connections, clock, ids.clone(), bell).await.context("GANTRY_ENGINE_DATABASE_URL")?;
    schedule::ensure_standing(&ledger).await.context("preparing the platform's schedules")?;

    let allow = allow.unwrap_or_default().entries().to_vec();
    let hooks = hooks::Config::Http(client::Config { allow_private, allow, ..client::Config::default() });
    let ssh = ssh::Config { allow: machines.unwrap_or_default().entries().to_vec() };
    let runtime = Runtime {
        worker: ids.mint(),
        db,
        ledger,
        registry: Arc::new(registry),
        providers: Arc::new(Providers::new(&gantry_providers::Config {
            hooks,
            mail,
            sms,
            terraform,
            ssh,
            modules,
            clouds,
        })?),
        sealing_keys,
        license_issuers: issuers.unwrap_or_default().0.into(),
        news: None,
        shared: Shared::default(),
    };
    let slots = queues.unwrap_or(slots);
    let served: Vec<_> = slots.iter().map(|(queue, slots)| (queue, slots.get())).collect();
    info!(
        "Worker {} serves {}",
        runtime.worker,
        served.iter().map(|(queue, slots)| format!("{queue}={slots}")).collect::<Vec<_>>().join(", ")
    );
    let mut config = engine::Config::new(served, redis_url, namespace.as_str().to_owned());
    config.drain = drain;
    engine::run(runtime, config, async move {
        let signal = asked_to_stop.await;
        info!("{signal} received");
    })
    .await?;
    telemetry.shutdown().await;
    Ok(())
}

fn print_catalogue(registry: &Registry) {
    println!(
        "{:<26} {:<12} {:>8} {:>8} {:>9} {:>7}  retries",
        "KIND", "QUEUE", "PRIORITY", "ATTEMPTS", "TIME-OUT", "LEASE"
    );
    for handler in registry.all() {
        let policy = handler.policy;
        let retries = match policy.retry {
            Retry::Exponential { base, cap } => format!("exponential from {base:?} to {cap:?}, full jitter"),
            Retry::Ladder(waits) => format!("ladder of {} waits", waits.len()),
        };
        println!(
            "{:<26} {:<12} {:>8} {:>8} {:>8}s {:>6}s  {retries}",
            handler.kind,
            policy.queue.as_str(),
            policy.priority,
            policy.max_attempts,
            policy.timeout.as_secs(),
            policy.lease.as_secs(),
        );
    }
}
