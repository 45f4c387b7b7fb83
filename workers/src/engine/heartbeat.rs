//! Saying that the worker lives, in a task of its own: a busy handler or a slow claim must not cost a lease.

use std::collections::HashMap;
use std::time::Duration;

use gantry_jobs::Queue;
use gantry_jobs::doorbell::base_key;
use gantry_schema::jobs::lease::{self, Worker};
use gantry_schema::{JobId, OrganizationId};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Parts;
use super::pop::HOLD_MILLISECONDS;
use crate::execute::Stop;

/// A heartbeat that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Renews leases until `life` ends.
pub(super) async fn keep(parts: Parts, life: CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        let asked = Instant::now();
        let (myself, claims) = (myself(&parts), parts.running.claims());
        measure_pools(&parts);
        match tokio::time::timeout(PATIENCE, lease::heartbeat(&parts.runtime.ledger, &myself, &claims)).await {
            Ok(Ok(kept)) => {
                renewed = asked;
                if parts.health.send_if_modified(|health| !std::mem::replace(&mut health.postgres, true)) {
                    info!("PostgreSQL answers again");
                }
                let lost = parts.running.keep_only(&kept, asked);
                if lost > 0 {
                    warn!("{lost} jobs were taken from this worker while it was silent; their handlers are stopped");
                }
                cancel_what_was_asked(&parts).await;
                renew_places(&parts).await;
            }
            failed => {
                if parts.health.send_if_modified(|health| std::mem::replace(&mut health.postgres, false)) {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no answer within {PATIENCE:?}"),
                    };
                    warn!("PostgreSQL does not answer, running jobs go on while their leases last: {error}");
                }
                let lost = parts.running.stop_unrenewed(renewed);
                if lost > 0 {
                    warn!("The leases of {lost} jobs ran out; their handlers are stopped");
                }
            }
        }
        let third = parts.running.shortest_lease().map_or(parts.config.heartbeat, |lease| lease / 3);
        let wait = third.min(parts.config.heartbeat).max(Duration::from_millis(200));
        if life.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

fn myself(parts: &Parts) -> Worker {
    let now = parts.runtime.ledger.now();
    let queues: serde_json::Map<String, Value> =
        parts.config.queues.iter().map(|(queue, slots)| (queue.to_string(), Value::from(*slots))).collect();
    Worker {
        id: parts.runtime.worker,
        host: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned()),
        pid: i32::try_from(std::process::id()).unwrap_or(0),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        queues: Value::Object(queues),
        state: if parts.stop.is_cancelled() { "draining" } else { "running" }.to_owned(),
        started_at: now,
        heartbeat_at: now,
    }
}

fn measure_pools(parts: &Parts) {
    for (name, pool) in [("app", parts.runtime.db.pool()), ("engine", parts.runtime.ledger.pool())] {
        let (all, idle) = (f64::from(pool.size()), pool.num_idle() as f64);
        metrics::gauge!("gantry_database_connections", "pool" => name, "state" => "idle").set(idle);
        metrics::gauge!("gantry_database_connections", "pool" => name, "state" => "busy").set((all - idle).max(0.0));
    }
    metrics::gauge!("gantry_jobs_running").set(parts.running.count() as f64);
}

/// What a lost notification would have said.
async fn cancel_what_was_asked(parts: &Parts) {
    let running: Vec<JobId> = parts.running.jobs().into_iter().map(|(job, ..)| job).take(1_000).collect();
    if running.is_empty() {
        return;
    }
    for job in lease::cancelled(&parts.runtime.ledger, &running).await.unwrap_or_default() {
        parts.running.stop(job, Stop::Cancelled);
    }
}

/// Places under limits are held for a while only; a flushed Redis learns here who runs.
async fn renew_places(parts: &Parts) {
    let settings = parts.controls.now();
    if !settings.limits_organizations() && !Queue::ALL.iter().any(|queue| settings.limits_queue(*queue)) {
        return;
    }
    let until = parts.runtime.ledger.now().timestamp_millis() + HOLD_MILLISECONDS;
    let mut by_queue: HashMap<Queue, Vec<(JobId, OrganizationId)>> = HashMap::new();
    for (job, queue, organization) in parts.running.jobs() {
        by_queue.entry(queue).or_default().push((job, organization));
    }
    for (queue, jobs) in by_queue {
        let base = base_key(&parts.config.namespace, queue.as_str());
        let mut renew = redis::pipe();
        for (job, organization) in jobs {
            let (job, organization) = (job.uuid(), organization.uuid());
            let key = [format!("{base}:running:").as_bytes(), organization.as_bytes()].concat();
            renew.zadd(format!("{base}:running"), &job.as_bytes()[..], until).ignore();
            renew.zadd(key, &job.as_bytes()[..], until).ignore();
        }
        drop(renew.exec_async(&mut parts.redis.clone()).await);
    }
}
