//! Workers say that they live; jobs of a worker that fell silent are taken back.
//!
//! Leases are measured by the database's clock alone, so the clocks of the machines may differ.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::settle::{self, Next, Setback};
use super::{Failure, keys};
use crate::{ClaimId, EngineDb, JobId, JobTx, WorkerId};

/// A worker process as others see it.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its id, new with every start.
    pub id: WorkerId,
    /// The machine.
    pub host: String,
    /// Its process there.
    pub pid: i32,
    /// The release it runs.
    pub version: String,
    /// Slots per queue: `{"webhooks": 50}`.
    pub queues: Value,
    /// `running` or `draining`.
    pub state: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub heartbeat_at: DateTime<Utc>,
}

/// What a worker still holds: those jobs of a claim that have a lease of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    /// The claim.
    pub claim: ClaimId,
    /// The length, in seconds.
    pub lease_seconds: i32,
}

/// Says that the worker lives and renews the leases of the claims it knows. Answers those it still holds: one
/// that is missing was taken away, and its handlers should stop. A claim the worker never heard the answer of
/// is not renewed, so its jobs are rescued.
///
/// # Errors
/// When the database refuses or went away.
pub async fn heartbeat(db: &EngineDb, worker: &Worker, claims: &[ClaimId]) -> Result<Vec<Held>, sqlx::Error> {
    let claims: Vec<uuid::Uuid> = claims.iter().map(|claim| claim.uuid()).collect();
    sqlx::query_as!(
        Held,
        r#"with alive as (
               insert into job_workers (id, host, pid, version, queues, state, started_at, heartbeat_at)
               values ($1, $2, $3, $4, $5, $6, now(), now())
                   on conflict (id) do update set heartbeat_at = now(), state = excluded.state, queues = excluded.queues)
           update job_leases set expires_at = now() + make_interval(secs => seconds)
            where claim_id = any($7) and worker_id = $1
        returning claim_id as "claim: ClaimId", seconds as lease_seconds"#,
        worker.id.uuid(),
        worker.host,
        worker.pid,
        worker.version,
        worker.queues,
        worker.state,
        &claims
    )
    .fetch_all(db.pool())
    .await
}

/// Takes the worker off the list when it leaves in good order. Leases it could not end run out at once, so that
/// what is left of their jobs is rescued.
///
/// # Errors
/// When the database refuses or went away.
pub async fn leave(db: &EngineDb, worker: WorkerId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with left_over as (update job_leases set expires_at = now() where worker_id = $1)
         delete from job_workers where id = $1",
        worker.uuid()
    )
    .execute(db.pool())
    .await
    .map(drop)
}

/// Forgets workers that were silent for an hour.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget_silent(db: &EngineDb) -> Result<u64, sqlx::Error> {
    sqlx::query!("delete from job_workers where heartbeat_at < now() - interval '1 hour'")
        .execute(db.pool())
        .await
        .map(|done| done.rows_affected())
}

/// The workers that are known.
///
/// # Errors
/// When the database refuses or went away.
pub async fn workers(db: &EngineDb) -> Result<Vec<Worker>, sqlx::Error> {
    sqlx::query_as!(
        Worker,
        r#"select id as "id: WorkerId", host, pid, version, queues, state, started_at, heartbeat_at
             from job_workers order by started_at, id limit 1000"#
    )
    .fetch_all(db.pool())
    .await
}

/// What a rescue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that went back to their queue.
    pub returned: usize,
    /// Jobs that had no attempt left, or kept killing their workers.
    pub discarded: usize,
}

/// Takes back the jobs of up to `limit` leases that ran out. A job that was rescued as often as `poison` says of
/// its kind is discarded: it seems to kill its workers.
///
/// # Errors
/// When the database refuses or went away.
pub async fn rescue(db: &EngineDb, limit: i64, poison: &(dyn Fn(&str) -> i32 + Sync)) -> Result<Rescued, sqlx::Error> {
    let mut tx = db.begin().await?;
    let expired = sqlx::query!(
        r#"select claim_id, seconds, worker_id as "worker: WorkerId", job_ids, attempts from job_leases
            where expires_at < now() order by expires_at limit $1 for update skip locked"#,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    if expired.is_empty() {
        return Ok(Rescued::default());
    }
    let (mut setbacks, now) = (Vec::new(), tx.now());
    for lease in &expired {
        let lost = sqlx::query!(
            r#"select j.id as "id: JobId", j.kind, j.attempt, j.attempt - j.uncounted >= j.max_attempts as "last!", j.rescues,
                      j.cancel_requested_at is not null as "cancel!", j.started_at
                 from jobs j join unnest($1::uuid[], $2::int[]) as l (id, attempt)
                   on j.id = l.id and j.attempt = l.attempt
                where j.state = 'running'"#,
            &lease.job_ids,
            &lease.attempts
        )
        .fetch_all(tx.connection())
        .await?;
        for job in lost {
            let (next, outcome, error) = if job.cancel {
                (Next::Cancel, "cancelled", "its worker fell silent after a cancellation was asked for")
            } else if job.rescues + 1 >= poison(&job.kind) {
                (Next::Discard, "discarded", "poison: the job's worker fell silent too often while it ran")
            } else if job.last {
                (Next::Discard, "discarded", "its worker fell silent during the last attempt")
            } else {
                (Next::Retry(now), "rescued", "its worker fell silent")
            };
            setbacks.push(Setback {
                id: job.id,
                attempt: job.attempt,
                next,
                failure: Failure {
                    attempt: job.attempt,
                    worker: Some(lease.worker),
                    started_at: job.started_at,
                    ended_at: now,
                    outcome: outcome.to_owned(),
                    error: error.to_owned(),
                },
            });
        }
    }
    let claims: Vec<uuid::Uuid> = expired.iter().map(|lease| lease.claim_id).collect();
    let seconds: Vec<i32> = expired.iter().map(|lease| lease.seconds).collect();
    let ids: Vec<uuid::Uuid> = setbacks.iter().map(|setback| setback.id.uuid()).collect();
    // Keys before rows, as everywhere: a worker that comes back settles the same jobs in this moment.
    keys::lock(tx.connection(), &ids).await?;
    sqlx::query!("update jobs set rescues = rescues + 1 where id = any($1) and state = 'running'", &ids)
        .execute(tx.connection())
        .await?;
    settle::set_back_in(&mut tx, &setbacks).await?;
    // A claim has a lease per length; those that have not run out still hold jobs.
    sqlx::query!(
        "delete from job_leases l using unnest($1::uuid[], $2::int[]) as e (claim_id, seconds)
          where l.claim_id = e.claim_id and l.seconds = e.seconds",
        &claims,
        &seconds
    )
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    let returned = setbacks.iter().filter(|setback| matches!(setback.next, Next::Retry(_))).count();
    Ok(Rescued { returned, discarded: setbacks.len() - returned })
}

/// Those of the jobs that somebody asked to stop: what a lost notification is made good with.
///
/// # Errors
/// When the database refuses or went away.
pub async fn cancelled(db: &EngineDb, running: &[JobId]) -> Result<Vec<JobId>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = running.iter().map(|job| job.uuid()).collect();
    sqlx::query_scalar!(
        r#"select j.id as "id: JobId" from jobs j join unnest($1::uuid[]) as u (id) on j.id = u.id
            where j.cancel_requested_at is not null and j.state = 'running'"#,
        &ids
    )
    .fetch_all(db.pool())
    .await
}
