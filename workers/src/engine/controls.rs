//! What operators set while everything runs: pauses, limits, shares. Every worker keeps a copy and hears of
//! changes at once; the truth is in the ledger.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gantry_jobs::Queue;
use gantry_jobs::doorbell::base_key;
use gantry_schema::JobId;
use gantry_schema::defence::lockdowns;
use gantry_schema::jobs::claim::Paused;
use gantry_schema::jobs::limits::{self, Limit, Share};
use gantry_schema::jobs::pause;
use redis::aio::ConnectionManager;
use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Parts;
use super::rate::Rate;
use crate::execute::Stop;

/// What is in force.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings {
    pub paused: Paused,
    /// Of queues in which the jobs of some organizations are held: what is paused there.
    held: HashMap<String, Paused>,
    queues: HashSet<String>,
    queue_limits: HashMap<String, i32>,
    rates: HashMap<String, Rate>,
    shares: Vec<Share>,
}

impl Settings {
    pub(super) fn is_paused(&self, queue: Queue) -> bool {
        self.queues.contains(queue.as_str())
    }

    /// What may not be claimed of a queue.
    pub(super) fn paused_in(&self, queue: Queue) -> &Paused {
        self.held.get(queue.as_str()).unwrap_or(&self.paused)
    }

    pub(super) fn rate(&self, key: &str) -> Option<Rate> {
        self.rates.get(key).copied()
    }

    pub(super) fn limits_queue(&self, queue: Queue) -> bool {
        self.queue_limits.contains_key(queue.as_str())
    }

    pub(super) fn limits_organizations(&self) -> bool {
        self.shares.iter().any(|share| share.max_running.is_some())
    }
}

/// The worker's copy of what is in force. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controls(Arc<ArcSwap<Settings>>);

impl Controls {
    pub(super) fn now(&self) -> arc_swap::Guard<Arc<Settings>> {
        self.0.load()
    }

    /// Reads everything anew. `true`: something is different.
    pub(super) async fn reload(&self, parts: &Parts) -> bool {
        match read(parts).await {
            Ok(settings) if settings == **self.0.load() => false,
            Ok(settings) => {
                debug!("Pauses, limits or shares changed: {settings:?}");
                self.0.store(Arc::new(settings));
                if let Err(error) = self.write_limits(parts).await {
                    warn!("The limits could not be written to Redis, the leader will: {error}");
                }
                true
            }
            Err(error) => {
                warn!("Pauses and limits could not be read, the old ones hold: {error}");
                false
            }
        }
    }

    /// Writes what the pop needs to Redis, for every queue.
    pub(super) async fn write_limits(&self, parts: &Parts) -> redis::RedisResult<()> {
        let settings = self.now();
        for queue in Queue::ALL {
            write_limits(
                &mut parts.redis.clone(),
                &base_key(&parts.config.namespace, queue.as_str()),
                queue,
                &settings,
            )
            .await?;
        }
        Ok(())
    }
}

async fn read(parts: &Parts) -> Result<Settings, sqlx::Error> {
    let ledger = &parts.runtime.ledger;
    let mut settings = Settings { shares: limits::shares(ledger).await?, ..Settings::default() };
    for pause in pause::all(ledger).await? {
        match pause.subject.as_str() {
            "queue" => drop(settings.queues.insert(pause.name)),
            "kind" => settings.paused.kinds.push(pause.name),
            _ => settings.paused.organizations.extend(pause.name.parse::<uuid::Uuid>()),
        }
    }
    settings.paused.kinds.sort_unstable();
    settings.paused.organizations.sort_unstable();
    settings.paused.organizations.dedup();
    for (queue, organizations) in lockdowns::holds(ledger).await? {
        let mut paused = settings.paused.clone();
        paused.organizations.extend(organizations);
        settings.held.insert(queue, paused);
    }
    for limit in limits::all(ledger).await? {
        match limit {
            Limit::Queue { name, running } => drop(settings.queue_limits.insert(name, running)),
            Limit::Rate { name, amount, period_seconds, burst } => {
                let period = Duration::from_secs(period_seconds.unsigned_abs().into());
                settings.rates.insert(name, Rate { amount, period, burst });
            }
        }
    }
    Ok(settings)
}

async fn write_limits(
    redis: &mut ConnectionManager,
    base: &str,
    queue: Queue,
    settings: &Settings,
) -> redis::RedisResult<()> {
    let key = format!("{base}:limits");
    let mut write = redis::pipe();
    write.atomic().del(&key).ignore();
    if let Some(limit) = settings.queue_limits.get(queue.as_str()) {
        write.hset(&key, "queue", limit).ignore();
    }
    for share in &settings.shares {
        let field = |name: &[u8]| [name, share.organization.uuid().as_bytes()].concat();
        if share.weight != 1 {
            write.hset(&key, field(b"weight:"), share.weight).ignore();
        }
        if let Some(max) = share.max_running {
            write.hset(&key, field(b"max:"), max).ignore();
        }
    }
    write.exec_async(redis).await
}

/// Listens for changes and cancellations until `life` ends; connects again when the connection is lost.
pub(super) async fn listen(parts: Parts, life: CancellationToken) {
    let mut lost = false;
    loop {
        let listened = life.run_until_cancelled(hear(&parts, &mut lost)).await;
        let Some(Err(error)) = listened else { return };
        if !lost {
            warn!("Control messages cannot be heard, cancellations come with the heartbeat meanwhile: {error}");
            lost = true;
        }
        if life.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_none() {
            return;
        }
    }
}

async fn hear(parts: &Parts, lost: &mut bool) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(parts.runtime.ledger.pool()).await?;
    listener.listen(pause::CHANNEL).await?;
    if std::mem::take(lost) {
        info!("Control messages are heard again");
    }
    // What was said while nobody listened.
    changed(parts).await;
    loop {
        match listener.try_recv().await? {
            Some(message) => obey(parts, message.payload()).await,
            None => changed(parts).await,
        }
    }
}

async fn obey(parts: &Parts, message: &str) {
    match message.split_once(' ') {
        Some(("cancel", job)) => {
            if let Ok(job) = job.parse::<JobId>()
                && parts.running.stop(job, Stop::Cancelled)
            {
                info!(job.id = %job, "Stopping a job, as asked");
            }
        }
        _ => changed(parts).await,
    }
}

async fn changed(parts: &Parts) {
    if !parts.controls.reload(parts).await {
        return;
    }
    parts.resweep.notify_one();
    // Something may be allowed now that was not, and nobody else rings for what is already in Redis.
    // Idle fetchers look by themselves after a while.
    drop(parts.bell.remind().await);
}
