//! The engine: moves jobs from the ledger to handlers and their outcomes back.
//!
//! ```text
//!  Redis ids ─► fetch (pop, claim) ─► backend ─► apalis worker ─► execute ─► settler ─► ledger
//!                  ▲ slots                                                      │
//!                  └────────────────────────────────────────────────────────────┘
//! ```
//!
//! Per queue there is a pool with its own slots and its own apalis worker. A job is popped only into a free
//! slot. Beside the pools every worker renews its leases ([`heartbeat`]) and listens for control messages
//! ([`controls`]); one of them leads and does the [`upkeep`] for all.

mod backend;
mod controls;
mod fetch;
mod heartbeat;
mod pool;
mod pop;
mod rate;
mod running;
mod scheduler;
mod settler;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use apalis::prelude::Monitor;
use gantry_jobs::doorbell::Bell;
use gantry_jobs::{Queue, signals};
use gantry_schema::jobs::{leader, lease};
use redis::aio::ConnectionManager;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::Runtime;
use crate::execute::{News, Stop};
use controls::Controls;
use running::Running;
use settler::Settler;

pub use scheduler::tick;

/// What a worker is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Slots per queue it serves.
    pub queues: Vec<(Queue, usize)>,
    /// Where Redis is.
    pub redis_url: String,
    /// The namespace of the keys in Redis.
    pub namespace: String,
    /// How long running jobs may finish after the signal to stop.
    pub drain: Duration,
    /// The longest time between two heartbeats; shorter when leases are short.
    pub heartbeat: Duration,
    /// How long a leader's word holds.
    pub leadership: Duration,
}

impl Config {
    /// The ordinary times.
    #[must_use]
    pub fn new(queues: Vec<(Queue, usize)>, redis_url: String, namespace: String) -> Self {
        Self {
            queues,
            redis_url,
            namespace,
            drain: Duration::from_secs(30),
            heartbeat: Duration::from_secs(5),
            leadership: Duration::from_secs(5),
        }
    }
}

/// The engine did not end in good order.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Redis cannot be used.
    #[error("connecting to Redis")]
    Redis(#[from] redis::RedisError),
    /// apalis gave up.
    #[error("running the workers")]
    Monitor(#[from] apalis::prelude::MonitorError),
}

/// What the parts of the engine share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Parts {
    pub runtime: Runtime,
    pub config: Arc<Config>,
    pub redis: ConnectionManager,
    pub bell: Bell,
    pub running: Running,
    pub controls: Controls,
    pub settler: Settler,
    /// No more jobs are fetched.
    pub stop: CancellationToken,
    pub health: Arc<watch::Sender<Health>>,
    /// Everything that is ready should be rung for again.
    pub resweep: Arc<Notify>,
    /// Seconds jobs were ready before they were begun.
    pub waits: metrics::Histogram,
}

/// What the worker can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Jobs are popped.
    pub redis: bool,
    /// Leases are renewed.
    pub postgres: bool,
}

/// Gives a statement up that takes too long: a connection that swallows bytes must not hang the engine.
pub(crate) async fn in_time<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    const PATIENCE: Duration = Duration::from_secs(20);
    tokio::time::timeout(PATIENCE, statement).await.unwrap_or_else(|_elapsed| {
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 20 s")))
    })
}

/// Runs until `signal`, then drains: running jobs get [`Config::drain`] to finish, what is left goes back.
///
/// # Errors
/// When it cannot start. A connection that is lost later is waited for.
pub async fn run(
    mut runtime: Runtime,
    config: Config,
    signal: impl Future<Output = ()> + Send + 'static,
) -> Result<(), EngineError> {
    let redis = gantry_jobs::doorbell::connect(&config.redis_url).await?;
    let config = Arc::new(config);
    runtime.news = Some(News { redis: redis.clone(), channel: signals::news_channel(&config.namespace).into() });
    let running = Running::default();
    let tasks = TaskTracker::new();
    let (settler, settling) = Settler::new(&runtime, redis.clone(), &config.namespace, running.clone());
    let parts = Parts {
        bell: Bell::new(redis.clone(), &config.namespace),
        controls: Controls::default(),
        stop: CancellationToken::new(),
        health: Arc::new(watch::Sender::new(Health { redis: true, postgres: true })),
        resweep: Arc::new(Notify::new()),
        waits: metrics::histogram!("gantry_job_wait_seconds"),
        runtime,
        config,
        redis,
        running,
        settler,
    };
    parts.controls.reload(&parts).await;
    let life = CancellationToken::new();
    let settled = tasks.spawn(settling);
    for upkeep in [
        tasks.spawn(heartbeat::keep(parts.clone(), life.clone())),
        tasks.spawn(controls::listen(parts.clone(), life.clone())),
        tasks.spawn(upkeep::lead(parts.clone(), life.clone())),
    ] {
        drop(upkeep);
    }

    let mut monitor = Monitor::new();
    for (queue, slots) in parts.config.queues.clone() {
        let parts = parts.clone();
        monitor = monitor.register(move |_restarts| pool::worker(&parts, queue, slots));
    }
    let (stop, drain, leaving) = (parts.stop.clone(), parts.config.drain, parts.running.clone());
    let begin_drain = async move {
        signal.await;
        info!("Draining: no more jobs are fetched, {} running may finish within {drain:?}", leaving.count());
        stop.cancel();
        Ok(())
    };
    let deadline = {
        let (stop, running) = (parts.stop.clone(), parts.running.clone());
        async move {
            stop.cancelled().await;
            if tokio::time::timeout(drain, running.none()).await.is_err() {
                warn!("{} jobs did not finish in time and go back to their queues", running.count());
                running.stop_all(Stop::Leaving);
                let patience = Duration::from_secs(15);
                drop(tokio::time::timeout(patience, running.none()).await);
            }
        }
    };
    monitor.with_terminator(deadline).run_with_signal(begin_drain).await?;

    leave(parts, life, tasks, settled).await;
    Ok(())
}

/// Writes down what is left to write, and signs off.
async fn leave(parts: Parts, life: CancellationToken, tasks: TaskTracker, settled: tokio::task::JoinHandle<()>) {
    let Parts { runtime, settler, running, bell, .. } = parts;
    let patience = Duration::from_secs(10);
    // What is handed back unstarted is still on its way to the settler.
    drop(tokio::time::timeout(patience, running.none()).await);
    settler.close();
    if tokio::time::timeout(patience, settled).await.is_err() {
        warn!("Outcomes could not be written down in time; their jobs will run again");
    }
    life.cancel();
    tasks.close();
    drop(tokio::time::timeout(patience, tasks.wait()).await);
    for farewell in
        [lease::leave(&runtime.ledger, runtime.worker).await, leader::resign(&runtime.ledger, runtime.worker).await]
    {
        if let Err(error) = farewell {
            warn!("Could not sign off, others will notice by the leases: {error}");
        }
    }
    // A token may have gone to a fetcher that had stopped listening; the leader reminds as well.
    drop(bell.remind().await);
    info!("Stopped");
}
