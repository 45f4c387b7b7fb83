//! Writing down how attempts ended. Every statement names the attempt: a worker that lost its claim
//! changes nothing.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{Ready, State, keys, workflow};
use crate::{ClaimId, EngineDb, JobId, JobTx, OrganizationId, TenantTx};

/// An attempt that succeeded.
#[derive(Debug, Clone)]
pub struct Success {
    /// The job.
    pub id: JobId,
    /// Which attempt.
    pub attempt: i32,
    /// What the handler answered, as JSON text.
    pub result: Option<String>,
    /// The job held keys.
    pub keyed: bool,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone)]
pub struct Setback {
    /// The job.
    pub id: JobId,
    /// Which attempt.
    pub attempt: i32,
    /// What becomes of the job.
    pub next: Next,
    /// The attempt's entry in the job's history.
    pub failure: super::Failure,
}

/// What becomes of a job whose attempt did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt at this moment.
    Retry(DateTime<Utc>),
    /// Another attempt at this moment, and this one did not count.
    Snooze(DateTime<Utc>),
    /// Back to the queue at once, and this one did not count: it was never started.
    Return,
    /// Given up.
    Discard,
    /// Stopped.
    Cancel,
}

/// Marks the jobs succeeded, in one statement, and answers which still were the worker's to settle.
/// Leases whose jobs have all ended go with it.
///
/// # Errors
/// When the database refuses or went away; repeating the call is harmless.
pub async fn succeed(
    db: &EngineDb,
    successes: &[Success],
    ended_claims: &[ClaimId],
) -> Result<Vec<JobId>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = successes.iter().map(|success| success.id.uuid()).collect();
    let attempts: Vec<i32> = successes.iter().map(|success| success.attempt).collect();
    let results: Vec<Option<&str>> = successes.iter().map(|success| success.result.as_deref()).collect();
    let claims: Vec<uuid::Uuid> = ended_claims.iter().map(|claim| claim.uuid()).collect();
    let keyed: Vec<uuid::Uuid> =
        successes.iter().filter(|success| success.keyed).map(|success| success.id.uuid()).collect();

    let settled = if keyed.is_empty() {
        let mut lane = db.lane().await?;
        let settled = mark_succeeded(lane.connection(), &ids, &attempts, &results, &claims, db.now()).await;
        lane.after(settled)?
    } else {
        let mut tx = db.begin().await?;
        keys::lock(tx.connection(), &keyed).await?;
        let settled = mark_succeeded(tx.connection(), &ids, &attempts, &results, &claims, db.now()).await?;
        // Keys of a job that was taken away belong to whoever has it now.
        let mine: Vec<uuid::Uuid> = settled.iter().map(|(id, _)| id.uuid()).filter(|id| keyed.contains(id)).collect();
        for ready in keys::free(tx.connection(), &mine).await? {
            tx.announce(ready);
        }
        keys::ended(tx.connection(), &mine, true).await?;
        tx.commit().await?;
        settled
    };
    let followed: Vec<JobId> = settled.iter().filter(|(_, dependents)| *dependents).map(|(id, _)| *id).collect();
    if !followed.is_empty() {
        workflow::advance(db, &followed).await?;
    }
    Ok(settled.into_iter().map(|(id, _)| id).collect())
}

async fn mark_succeeded(
    connection: &mut PgConnection,
    ids: &[uuid::Uuid],
    attempts: &[i32],
    results: &[Option<&str>],
    ended_claims: &[uuid::Uuid],
    now: DateTime<Utc>,
) -> Result<Vec<(JobId, bool)>, sqlx::Error> {
    let first = ids.iter().min().copied().unwrap_or_default();
    let last = ids.iter().max().copied().unwrap_or_default();
    let rows = sqlx::query!(
        r#"with freed as (delete from job_leases where claim_id = any($4))
           update jobs j set state = 'succeeded', finished_at = $5, result = s.result::jsonb
             from unnest($1::uuid[], $2::int[], $3::text[]) as s (id, attempt, result)
            where j.id = s.id and j.attempt = s.attempt and j.state = 'running' and j.id >= $6 and j.id <= $7
        returning j.id as "id: JobId", j.has_dependents"#,
        ids,
        attempts,
        results as _,
        ended_claims,
        now,
        first,
        last
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.has_dependents)).collect())
}

/// Writes setbacks down and puts the jobs where they go next. Answers which still were the worker's.
///
/// # Errors
/// When the database refuses or went away; repeating the call is harmless.
pub async fn set_back(
    db: &EngineDb,
    setbacks: &[Setback],
    ended_claims: &[ClaimId],
) -> Result<Vec<JobId>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let settled = set_back_in(&mut tx, setbacks).await?;
    let claims: Vec<uuid::Uuid> = ended_claims.iter().map(|claim| claim.uuid()).collect();
    sqlx::query!("delete from job_leases where claim_id = any($1)", &claims).execute(tx.connection()).await?;
    tx.commit().await?;
    Ok(settled)
}

/// As [`set_back`], in a transaction. What waits for a job that is given up hears of it in the same one: unlike a
/// success, which is found again by who waits for it, this would be lost when the worker died in between.
pub(super) async fn set_back_in(tx: &mut impl JobTx, setbacks: &[Setback]) -> Result<Vec<JobId>, sqlx::Error> {
    let now = tx.now();
    let ids: Vec<uuid::Uuid> = setbacks.iter().map(|setback| setback.id.uuid()).collect();
    let attempts: Vec<i32> = setbacks.iter().map(|setback| setback.attempt).collect();
    let failures: Vec<Value> =
        setbacks.iter().map(|setback| serde_json::to_value(&setback.failure).unwrap_or_default()).collect();
    let states: Vec<State> = setbacks
        .iter()
        .map(|setback| match setback.next {
            Next::Retry(at) | Next::Snooze(at) if at > now => State::Scheduled,
            Next::Retry(_) | Next::Snooze(_) | Next::Return => State::Available,
            Next::Discard => State::Discarded,
            Next::Cancel => State::Cancelled,
        })
        .collect();
    let run_ats: Vec<Option<DateTime<Utc>>> = setbacks
        .iter()
        .map(|setback| match setback.next {
            Next::Retry(at) | Next::Snooze(at) => Some(at),
            Next::Return | Next::Discard | Next::Cancel => None,
        })
        .collect();
    let uncounted: Vec<i32> =
        setbacks.iter().map(|setback| i32::from(matches!(setback.next, Next::Snooze(_) | Next::Return))).collect();

    keys::lock(tx.connection(), &ids).await?;
    let rows = sqlx::query_file!(
        "src/jobs/set_back.sql",
        &ids,
        &attempts,
        &states as _,
        &run_ats as _,
        &uncounted,
        &failures,
        now
    )
    .fetch_all(tx.connection())
    .await?;
    let keyed: Vec<uuid::Uuid> = rows.iter().filter(|row| row.keyed).map(|row| row.id).collect();
    if !keyed.is_empty() {
        for ready in keys::free(tx.connection(), &keyed).await? {
            tx.announce(ready);
        }
        let ended: Vec<uuid::Uuid> = rows.iter().filter(|row| row.keyed && row.ended).map(|row| row.id).collect();
        keys::ended(tx.connection(), &ended, false).await?;
    }
    for row in &rows {
        if row.state == State::Available {
            tx.announce(Ready {
                id: JobId::from_uuid(row.id),
                organization: OrganizationId::from_uuid(row.organization_id),
                queue: row.queue.clone(),
                priority: row.priority,
                careful: row.keyed,
            });
        }
    }
    let ended = rows.iter().filter(|row| row.ended && row.has_dependents);
    let ended: Vec<JobId> = ended.map(|row| JobId::from_uuid(row.id)).collect();
    workflow::advance_in(tx, &ended).await?;
    Ok(rows.into_iter().map(|row| JobId::from_uuid(row.id)).collect())
}

/// As [`succeed_within`], for jobs of one organization that a handler ends together. Answers which still were the
/// caller's; nothing may be written for the others. Not for jobs with keys.
///
/// # Errors
/// When the database refuses or went away.
pub async fn succeed_together(
    tx: &mut TenantTx,
    ended: &[(JobId, i32)],
    result: &Value,
) -> Result<HashSet<JobId>, sqlx::Error> {
    let now = tx.now();
    let ids: Vec<uuid::Uuid> = ended.iter().map(|(id, _)| id.uuid()).collect();
    let attempts: Vec<i32> = ended.iter().map(|(_, attempt)| *attempt).collect();
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashSet::new()) };
    let settled = sqlx::query_scalar!(
        r#"update jobs j set state = 'succeeded', finished_at = $3, result = $4
             from unnest($1::uuid[], $2::int[]) as s (id, attempt)
            where j.id = s.id and j.attempt = s.attempt and j.state = 'running' and j.id >= $5 and j.id <= $6
        returning j.id as "id: JobId""#,
        &ids,
        &attempts,
        now,
        result,
        first,
        last
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(settled.into_iter().collect())
}

/// Marks a job succeeded inside a handler's own transaction: its work and its end are one commit.
/// `false`: the attempt is no longer the caller's, and the transaction must not be committed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn succeed_within(
    tx: &mut TenantTx,
    id: JobId,
    attempt: i32,
    result: Option<&Value>,
    keyed: bool,
) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    if keyed {
        keys::lock(tx.connection(), &[id.uuid()]).await?;
    }
    let settled = sqlx::query!(
        "update jobs set state = 'succeeded', finished_at = $3, result = $4
          where id = $1 and attempt = $2 and state = 'running'",
        id.uuid(),
        attempt,
        now,
        result
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    if settled == 1 && keyed {
        for ready in keys::free(tx.connection(), &[id.uuid()]).await? {
            tx.announce(ready);
        }
        keys::ended(tx.connection(), &[id.uuid()], true).await?;
    }
    Ok(settled == 1)
}
