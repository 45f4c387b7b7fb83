//! Taking ready jobs: from here on exactly one worker may run this attempt.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::keys;
use crate::{ClaimId, EngineDb, JobId, JobTx, OrganizationId, WorkerId};

/// A job a worker has taken, with what the handler needs.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What is to be done.
    pub kind: String,
    /// The number of this attempt; every later write names it.
    pub attempt: i32,
    /// Counted attempts before the job is discarded.
    pub max_attempts: i32,
    /// Attempts that did not count.
    pub uncounted: i32,
    /// How long the worker may be silent.
    pub lease_seconds: i32,
    /// The payload as JSON text.
    pub payload: String,
    /// The W3C trace it continues.
    pub traceparent: Option<String>,
    /// Not to be started after this moment.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was to run.
    pub run_at: DateTime<Utc>,
    /// The rate it uses up.
    pub rate_key: Option<String>,
    /// It holds keys to be freed when it ends.
    pub keyed: bool,
}

/// What may not be claimed now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paused {
    /// Kinds.
    pub kinds: Vec<String>,
    /// Organizations.
    pub organizations: Vec<uuid::Uuid>,
}

/// Takes those of the jobs that are still there to be taken, in one statement: whoever deletes the
/// dispatch row has the job. A duplicate id, a cancelled or paused job, one of a suspended organization, one already
/// taken or being taken: not answered. Jobs with keys are left alone, see [`claim_careful`].
///
/// # Errors
/// When the database refuses or went away. The claim may have happened all the same; then its lease runs out.
pub async fn claim(
    db: &EngineDb,
    worker: WorkerId,
    claim: ClaimId,
    ids: &mut [uuid::Uuid],
    paused: &Paused,
) -> Result<Vec<Claimed>, sqlx::Error> {
    // In the order of the index, which also says where the first and the last are.
    ids.sort_unstable();
    let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(Vec::new()) };
    let mut lane = db.lane().await?;
    let claimed = sqlx::query_as!(
        Claimed,
        // Claims of the same ids may come at them in different orders. None waits for a row that another holds, so they
        // never wait for each other; where that one comes to nothing, the sweep rings again. What is claimed is found by
        // its ids, what is locked by its place, whatever the statistics said when the plan was made: a join would be
        // planned for the number of rows there were then.
        r#"with taken as (
               delete from job_dispatch where ctid = any(array(
                   select d.ctid from job_dispatch d
                    where d.id = any($1) and not d.careful and (d.due_at is null or d.due_at <= $2)
                      and d.kind <> all($3::text[]) and d.organization_id <> all($4::uuid[])
                      and not exists (select from organizations o where o.id = d.organization_id and o.held_by is not null)
                      for update of d skip locked))
            returning id),
           started as (
               update jobs set state = 'running', attempt = attempt + 1, worker_id = $5, started_at = $2
                where id = any(array(select id from taken)) and id >= $6 and id <= $7
            returning *),
           leased as (
               insert into job_leases (claim_id, worker_id, seconds, expires_at, job_ids, attempts)
               select $8, $5, lease_seconds, now() + make_interval(secs => lease_seconds),
                      array_agg(id), array_agg(attempt)
                 from started group by lease_seconds)
           select id as "id!: JobId", organization_id as "organization!: OrganizationId", kind as "kind!",
                  attempt as "attempt!", max_attempts as "max_attempts!", uncounted as "uncounted!",
                  lease_seconds as "lease_seconds!", payload::text as "payload!", traceparent, expires_at,
                  run_at as "run_at!", rate_key, false as "keyed!"
             from started"#,
        &*ids,
        db.now(),
        &paused.kinds,
        &paused.organizations,
        worker.uuid(),
        first,
        last,
        claim.uuid()
    )
    .fetch_all(lane.connection())
    .await;
    lane.after(claimed)
}

/// Takes jobs that have keys: a slot of the concurrency key first, else the job is parked until one is free.
///
/// # Errors
/// As [`claim`].
pub async fn claim_careful(
    db: &EngineDb,
    worker: WorkerId,
    claim: ClaimId,
    ids: &[uuid::Uuid],
    paused: &Paused,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let mut tx = db.begin().await?;
    keys::lock(tx.connection(), ids).await?;
    let now = db.now();
    let allowed = take_slots(tx.connection(), ids, paused, now).await?;
    let claimed = sqlx::query_as!(
        Claimed,
        r#"with taken as (
               delete from job_dispatch d where d.id = any($1) returning d.id),
           started as (
               update jobs j set state = 'running', attempt = j.attempt + 1, worker_id = $2, started_at = $3
                 from taken t where j.id = t.id
            returning j.*),
           leased as (
               insert into job_leases (claim_id, worker_id, seconds, expires_at, job_ids, attempts)
               select $4, $2, lease_seconds, now() + make_interval(secs => lease_seconds),
                      array_agg(id), array_agg(attempt)
                 from started group by lease_seconds)
           select id as "id!: JobId", organization_id as "organization!: OrganizationId", kind as "kind!",
                  attempt as "attempt!", max_attempts as "max_attempts!", uncounted as "uncounted!",
                  lease_seconds as "lease_seconds!", payload::text as "payload!", traceparent, expires_at,
                  run_at as "run_at!", rate_key, true as "keyed!"
             from started"#,
        &allowed,
        worker.uuid(),
        now,
        claim.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    keys::claimed(tx.connection(), &allowed).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Locks the dispatch rows, takes a slot for each that needs one, and parks those that got none.
/// Answers the jobs that may be started.
async fn take_slots(
    connection: &mut PgConnection,
    ids: &[uuid::Uuid],
    paused: &Paused,
    now: DateTime<Utc>,
) -> Result<Vec<uuid::Uuid>, sqlx::Error> {
    let waiting = sqlx::query!(
        "select d.id, d.organization_id, d.concurrency_key, j.concurrency_limit
           from job_dispatch d join jobs j on j.id = d.id
          where d.id = any($1) and (d.due_at is null or d.due_at <= $2)
            and d.kind <> all($3::text[]) and d.organization_id <> all($4::uuid[])
            and not exists (select from organizations o where o.id = d.organization_id and o.held_by is not null)
          order by d.priority, d.id for update of d skip locked",
        ids,
        now,
        &paused.kinds,
        &paused.organizations
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut allowed, mut parked) = (Vec::new(), Vec::new());
    for job in waiting {
        let Some(key) = job.concurrency_key else {
            allowed.push(job.id);
            continue;
        };
        let got = sqlx::query!(
            "insert into job_slots (organization_id, concurrency_key, slot, job_id)
             select $1, $2, free.slot, $3 from generate_series(1, $4::int) as free (slot)
              where not exists (select from job_slots where organization_id = $1 and concurrency_key = $2
                                   and job_slots.slot = free.slot)
              order by free.slot limit 1",
            job.organization_id,
            key,
            job.id,
            i32::from(job.concurrency_limit.unwrap_or(1))
        )
        .execute(&mut *connection)
        .await?
        .rows_affected();
        if got == 0 { parked.push(job.id) } else { allowed.push(job.id) }
    }
    if !parked.is_empty() {
        sqlx::query!("update job_dispatch set parked = true, due_at = null where id = any($1)", &parked)
            .execute(connection)
            .await?;
    }
    Ok(allowed)
}

impl Claimed {
    /// How long the worker may be silent.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.unsigned_abs().into())
    }

    /// Does a failure of this attempt end the job?
    #[must_use]
    pub const fn is_last_attempt(&self) -> bool {
        self.attempt - self.uncounted >= self.max_attempts
    }

    /// Which counted attempt this is, from 1.
    #[must_use]
    pub const fn counted_attempt(&self) -> i32 {
        self.attempt - self.uncounted
    }
}
