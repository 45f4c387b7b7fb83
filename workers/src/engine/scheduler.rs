//! Ticking schedules: each due tick is claimed by its row, and asks for its job in the same transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_jobs::request::{Asked, RequestError};
use gantry_jobs::{By, catalogue};
use gantry_schema::jobs::enqueue::{self, EnqueueError};
use gantry_schema::jobs::{Concurrency, NewJob};
use gantry_schema::schedules::cron::{CronSchedule, MAX_TICKS, MissedRuns, Overlap, jittered};
use gantry_schema::schedules::{Schedule, queries};
use gantry_schema::{EngineTx, JobTx as _};
use serde_json::value::RawValue;
use tracing::{error, warn};

use crate::Runtime;

/// Schedules dealt with in one transaction.
const BATCH: i64 = 100;

/// Ticks every schedule that is due; repeating it, or doing it twice at once, asks for nothing twice.
///
/// # Errors
/// When the database refuses or went away.
pub async fn tick(runtime: &Runtime) -> Result<(), sqlx::Error> {
    loop {
        let mut tx = runtime.ledger.begin().await?;
        let due = queries::due(&mut tx, BATCH).await?;
        for schedule in &due {
            tick_one(&mut tx, schedule).await?;
        }
        tx.commit().await?;
        if due.len() < usize::try_from(BATCH).unwrap_or(usize::MAX) {
            return Ok(());
        }
    }
}

async fn tick_one(tx: &mut EngineTx, schedule: &Schedule) -> Result<(), sqlx::Error> {
    let now = tx.now();
    let cron = match CronSchedule::parse(&schedule.cron, &schedule.time_zone) {
        Ok(cron) => cron,
        Err(problem) => {
            // It was checked when it was made; zone data may have lost its zone since.
            error!(schedule.id = %schedule.id, "The schedule {} cannot tick any more: {problem}", schedule.name);
            return queries::ticked(tx, schedule.id, schedule.last_tick_at, None).await;
        }
    };
    let missed = MissedRuns::parse(&schedule.missed_runs).unwrap_or(MissedRuns::Once);
    let due = missed.due(&cron, schedule.last_tick_at, now, MAX_TICKS);
    if due.dropped > 0 {
        warn!(schedule.id = %schedule.id, "{} missed ticks of {} are left out", due.dropped, schedule.name);
    }
    for tick_at in due.ticks {
        if queries::claim_tick(tx, schedule, tick_at).await? {
            ask(tx, schedule, tick_at).await?;
        }
    }
    queries::ticked(tx, schedule.id, due.last_tick, due.next).await
}

/// Asks for the job of a tick, unless the overlap policy says no.
async fn ask(tx: &mut EngineTx, schedule: &Schedule, tick_at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let overlap = Overlap::parse(&schedule.overlap).unwrap_or(Overlap::Skip);
    if overlap == Overlap::Skip && queries::living_job(tx, schedule.id).await?.is_some() {
        return Ok(());
    }
    let Some(mut job) = new_job(tx, schedule, tick_at) else { return Ok(()) };
    if overlap == Overlap::Queue {
        job.concurrency = Some(Concurrency { key: format!("schedule:{}", schedule.id), limit: 1 });
    }
    let asked = enqueue::enqueue(tx, schedule.organization, vec![job]).await.map_err(|error| match error {
        EnqueueError::Database(error) => error,
        other @ EnqueueError::UnknownPredecessor(_) => sqlx::Error::Protocol(other.to_string()),
    })?;
    match asked.first() {
        Some(asked) => queries::set_tick_job(tx, schedule.id, tick_at, asked.id).await,
        None => Ok(()),
    }
}

fn new_job(tx: &EngineTx, schedule: &Schedule, tick_at: DateTime<Utc>) -> Option<NewJob> {
    let now = tx.now();
    let spread = Duration::from_secs(schedule.jitter_seconds.unsigned_abs().into());
    let (seed, _) = schedule.id.uuid().as_u64_pair();
    let run_at = jittered(tick_at, seed, spread);
    let asked = Asked { run_at: (run_at > now).then_some(run_at), ..Asked::default() };
    let payload = RawValue::from_string(schedule.payload.to_string()).map_err(RequestError::Payload);
    let job = payload.map_err(Into::into).and_then(|payload| {
        catalogue::find(&schedule.kind)?.new_job(&payload, &asked, &By::schedule(schedule.id), now)
    });
    job.inspect_err(|problem| {
        // Kinds stay for ever; a worker older than the schedule may not know it yet.
        error!(schedule.id = %schedule.id, "A tick of {} asks for no job: {problem}", schedule.name);
    })
    .ok()
}
