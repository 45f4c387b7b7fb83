//! What many requests of one organization want at the same moment, in one statement.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::enqueue::{is_careful, state_of};
use super::row::Row;
use super::{Enqueued, Job, NewJob, Outcome, Ready, State};
use crate::audit::{Author, asking, rows_alone};
use crate::{Db, JobId, OrganizationId};

/// Whether a job can be written down together with others that have nothing to do with it.
#[must_use]
pub const fn may_join(job: &NewJob) -> bool {
    job.unique.is_none() && job.after.is_empty()
}

/// Writes jobs down that each make a transaction of their own otherwise, and into the record that these authors asked for
/// them: all in one statement that commits by itself, or nothing. Only for jobs that [`may_join`].
///
/// # Errors
/// When the database refuses one of them, or went away.
pub async fn enqueue_together(
    db: &Db,
    organization: OrganizationId,
    jobs: &[NewJob],
    authors: &[Arc<Author>],
) -> Result<Vec<Enqueued>, sqlx::Error> {
    debug_assert!(jobs.iter().all(may_join), "a job with a unique key or predecessors needs a transaction");
    let now = db.now();
    let new: Vec<(JobId, State)> = jobs.iter().map(|job| (db.ids().mint(), state_of(job, now))).collect();
    let ids: Vec<uuid::Uuid> = new.iter().map(|(id, _)| id.uuid()).collect();
    let states: Vec<State> = new.iter().map(|(_, state)| *state).collect();
    let kinds: Vec<&str> = jobs.iter().map(|job| job.kind.as_str()).collect();
    let queues: Vec<&str> = jobs.iter().map(|job| job.queue.as_str()).collect();
    let priorities: Vec<i16> = jobs.iter().map(|job| job.priority).collect();
    let max_attempts: Vec<i32> = jobs.iter().map(|job| job.max_attempts).collect();
    let leases: Vec<i32> = jobs.iter().map(|job| job.lease_seconds).collect();
    let run_ats: Vec<DateTime<Utc>> = jobs.iter().map(|job| job.run_at.unwrap_or(now)).collect();
    let expiries: Vec<Option<DateTime<Utc>>> = jobs.iter().map(|job| job.expires_at).collect();
    let concurrency_keys: Vec<Option<&str>> =
        jobs.iter().map(|job| job.concurrency.as_ref().map(|concurrency| concurrency.key.as_str())).collect();
    let concurrency_limits: Vec<Option<i16>> =
        jobs.iter().map(|job| job.concurrency.as_ref().map(|concurrency| concurrency.limit)).collect();
    let rate_keys: Vec<Option<&str>> = jobs.iter().map(|job| job.rate_key.as_deref()).collect();
    let careful: Vec<bool> = jobs.iter().map(is_careful).collect();
    let payloads: Vec<&str> = jobs.iter().map(|job| job.payload.as_str()).collect();
    let traceparents: Vec<Option<&str>> = jobs.iter().map(|job| job.traceparent.as_deref()).collect();
    let requested_by: Vec<&str> = jobs.iter().map(|job| job.requested_by.as_str()).collect();
    let asked: Vec<JobId> = new.iter().map(|(id, _)| *id).collect();
    let entries = rows_alone(db, organization, asking(jobs, &asked, authors)).await?;
    // As in `enqueue_alone`, the statement sets the scope itself: rows take their organization from what was just set.
    let mut lane = db.lane().await?;
    let written = sqlx::query_file!(
        "src/jobs/insert_together.sql",
        organization.uuid().to_string(),
        now,
        &ids,
        &states as _,
        &kinds as _,
        &queues as _,
        &priorities,
        &max_attempts,
        &leases,
        &run_ats,
        &expiries as _,
        &concurrency_keys as _,
        &concurrency_limits as _,
        &rate_keys as _,
        &careful,
        &payloads as _,
        &traceparents as _,
        &requested_by as _,
        &entries.ids,
        &entries.moments,
        &entries.actors,
        &entries.actions,
        &entries.targets as _,
        &entries.records,
        &entries.actor_subjects as _,
        &entries.macs,
        entries.key,
        entries.len(),
        entries.sum.high,
        entries.sum.low
    )
    .execute(lane.connection())
    .await;
    lane.after(written)?;

    let available = new.iter().zip(jobs).filter(|((_, state), _)| *state == State::Available);
    let ready: Vec<Ready> = available
        .map(|((id, _), job)| Ready {
            id: *id,
            organization,
            queue: job.queue.clone(),
            priority: job.priority,
            careful: is_careful(job),
        })
        .collect();
    if !ready.is_empty() {
        db.doorbell().ring(ready);
    }
    Ok(new.into_iter().map(|(id, _)| Enqueued { id, outcome: Outcome::Inserted }).collect())
}

/// Those of an organization's jobs that exist, in any order.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find_together(db: &Db, organization: OrganizationId, ids: &[JobId]) -> Result<Vec<Job>, sqlx::Error> {
    use crate::JobTx as _;

    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
    let mut tx = db.tenant(organization).await?;
    let now = tx.now();
    // Job by job: an id leads to its partition, a list of ids to all of them.
    let rows = sqlx::query_as!(
        Row,
        r#"select job.id as "id: JobId", organization_id as "organization_id: OrganizationId", kind, queue, priority,
                  state as "state: State", attempt, max_attempts, uncounted, rescues, run_at, expires_at, unique_key,
                  concurrency_key, payload, traceparent, requested_by, created_at,
                  worker_id as "worker_id: crate::WorkerId", started_at, finished_at, cancel_requested_at, progress,
                  result, failures
             from unnest($1::uuid[]) as wanted (id)
             cross join lateral (select * from jobs where jobs.id = wanted.id limit 1) as job"#,
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    tx.rollback().await?;
    rows.into_iter().map(|row| row.into_job(now)).collect()
}
