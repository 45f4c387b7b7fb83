//! Writing jobs down, in the transaction of the change that asks for them.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::{Ready, State, workflow};
use crate::{Db, JobId, JobTx, OrganizationId};

/// A job to be written down. The typed way to make one is `gantry_jobs::Job`.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// What is to be done: `webhooks.deliver`.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// 0 first, 9 last.
    pub priority: i16,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// How long a worker may be silent before the job is taken from it.
    pub lease_seconds: i32,
    /// Not before this moment; `None`: at once.
    pub run_at: Option<DateTime<Utc>>,
    /// Not started after this moment.
    pub expires_at: Option<DateTime<Utc>>,
    /// One at a time of those that share the key.
    pub unique: Option<Unique>,
    /// A limited number at a time of those that share the key.
    pub concurrency: Option<Concurrency>,
    /// The rate it uses up: the name of a provider's limit.
    pub rate_key: Option<String>,
    /// The payload as JSON text.
    pub payload: String,
    /// Jobs that must have succeeded before.
    pub after: Vec<Dependency>,
    /// The W3C trace it continues.
    pub traceparent: Option<String>,
    /// Who asked.
    pub requested_by: String,
}

/// At most one job of a kind per organization holds a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub key: String,
    /// How long it is held.
    pub held: Held,
    /// What happens to a job that finds it taken.
    pub on_conflict: OnConflict,
}

/// How long a unique key is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Until the job is claimed: another may wait while one runs.
    Pending,
    /// Until the job ended.
    Alive,
    /// For this long, unless the job fails for good.
    Period(Duration),
}

/// What happens to a job that finds its unique key taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// The caller gets the existing job.
    Existing,
    /// The existing job, if still pending, gets the new payload.
    Replace,
    /// The existing job, if still pending, gets the new payload and the new `run_at`.
    Debounce,
}

/// Jobs of an organization that share the key run `limit` at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// The key.
    pub key: String,
    /// How many.
    pub limit: i16,
}

/// A job that must have succeeded before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The name under which its result is read.
    pub step: String,
    /// The job.
    pub job: JobId,
}

/// What came of asking for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job, or the one that was there.
    pub id: JobId,
    /// Which of the two.
    pub outcome: Outcome,
}

/// What came of asking for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was written down.
    Inserted,
    /// Its unique key was taken, and the holder was left as it was.
    Existing,
    /// Its unique key was taken, and the pending holder was updated.
    Updated,
}

/// The jobs it should wait for cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// A predecessor that does not exist, or belongs to somebody else.
    #[error("the job {0} to wait for does not exist")]
    UnknownPredecessor(JobId),
    /// The database refused or went away.
    #[error("writing the job down")]
    Database(#[from] sqlx::Error),
}

/// Writes jobs of one organization down, in order. The transaction must be allowed to: a tenant's writes
/// for its own organization only.
///
/// # Errors
/// When a predecessor is unknown, or the database refuses; then the transaction can only be rolled back.
pub async fn enqueue(
    tx: &mut impl JobTx,
    organization: OrganizationId,
    jobs: Vec<NewJob>,
) -> Result<Vec<Enqueued>, EnqueueError> {
    let now = tx.now();
    let ids: Vec<JobId> = jobs.iter().map(|_| tx.ids().mint()).collect();
    let mut outcomes: Vec<Enqueued> = ids.iter().map(|&id| Enqueued { id, outcome: Outcome::Inserted }).collect();

    let holders = hold_pending(tx.connection(), organization, &jobs).await?;
    for (enqueued, holder) in outcomes.iter_mut().zip(&holders) {
        if let Some(holder) = holder {
            *enqueued = Enqueued { id: *holder, outcome: Outcome::Existing };
        }
    }
    let asking: Vec<(JobId, &NewJob)> = ids
        .iter()
        .copied()
        .zip(&jobs)
        .zip(&holders)
        .filter(|(_, holder)| holder.is_none())
        .map(|(job, _)| job)
        .collect();
    let losers = claim_unique_keys(tx.connection(), organization, &asking, now).await?;
    let winners: Vec<(JobId, &NewJob)> = asking.into_iter().filter(|(id, _)| !losers.contains(id)).collect();

    for ready in insert(tx.connection(), organization, &winners, now).await? {
        tx.announce(ready);
    }
    for (id, job) in winners.iter().filter(|(_, job)| !job.after.is_empty()) {
        if let Some(ready) = workflow::wait_for(tx.connection(), organization, *id, &job.after, now).await? {
            tx.announce(ready);
        }
    }
    for (enqueued, job) in outcomes.iter_mut().zip(&jobs) {
        if losers.contains(&enqueued.id) {
            *enqueued = yield_to_holder(tx, organization, job, now).await?;
        }
    }
    Ok(outcomes)
}

/// Writes one job down when nothing else belongs in its transaction: in one round trip, where the job has no
/// unique key and waits for nobody.
///
/// # Errors
/// As [`enqueue`].
pub async fn enqueue_alone(db: &Db, organization: OrganizationId, job: NewJob) -> Result<Enqueued, EnqueueError> {
    if job.unique.is_some() || !job.after.is_empty() {
        let mut tx = db.tenant(organization).await?;
        let mut enqueued = enqueue(&mut tx, organization, vec![job]).await?;
        tx.commit().await?;
        return enqueued.pop().ok_or(EnqueueError::Database(sqlx::Error::RowNotFound));
    }
    let (id, now) = (db.ids().mint::<JobId>(), db.now());
    let state = state_of(&job, now);
    // The statement sets the scope itself: a row's organization is read from what was just set, so it is
    // set before the policies check the row.
    let mut lane = db.lane().await?;
    let written = sqlx::query!(
        "with dispatch as (
             insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
             values ($1, (select set_config('gantry.organization', $2, true))::uuid, $3, $4, $5,
                     case when $6::job_state = 'scheduled' then $9::timestamptz end, $10, $11))
         insert into jobs (id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at,
                           concurrency_key, concurrency_limit, rate_key, expires_at, payload, traceparent,
                           requested_by, created_at)
         values ($1, (select set_config('gantry.organization', $2, true))::uuid, $3, $4, $5, $6, $7, $8, $9, $11, $12,
                 $13, $14, $15::text::jsonb, $16, $17, $18)",
        id.uuid(),
        organization.uuid().to_string(),
        job.kind,
        job.queue,
        job.priority,
        state as _,
        job.max_attempts,
        job.lease_seconds,
        job.run_at.unwrap_or(now),
        is_careful(&job),
        job.concurrency.as_ref().map(|concurrency| concurrency.key.as_str()),
        job.concurrency.as_ref().map(|concurrency| concurrency.limit),
        job.rate_key,
        job.expires_at,
        job.payload,
        job.traceparent,
        job.requested_by,
        now
    )
    .execute(lane.connection())
    .await;
    lane.after(written)?;
    if state == State::Available {
        let careful = is_careful(&job);
        db.doorbell().ring(vec![Ready { id, organization, queue: job.queue, priority: job.priority, careful }]);
    }
    Ok(Enqueued { id, outcome: Outcome::Inserted })
}

/// The jobs that wait already for those that are satisfied with one that waits. They are not claimed before the
/// transaction ends: whoever relies on such a job has often written what it is to find.
async fn hold_pending(
    connection: &mut PgConnection,
    organization: OrganizationId,
    jobs: &[NewJob],
) -> Result<Vec<Option<JobId>>, sqlx::Error> {
    let satisfied = |unique: &&Unique| unique.held == Held::Pending && unique.on_conflict == OnConflict::Existing;
    let key = |job: &NewJob| Some((job.kind.clone(), job.unique.as_ref().filter(satisfied)?.key.clone()));
    let wanted: Vec<Option<(String, String)>> = jobs.iter().map(key).collect();
    let (kinds, keys): (Vec<String>, Vec<String>) = wanted.iter().flatten().cloned().unzip();
    if keys.is_empty() {
        return Ok(vec![None; jobs.len()]);
    }
    let rows = sqlx::query!(
        r#"select u.kind, u.unique_key, u.job_id as "job_id: JobId"
             from unnest($2::text[], $3::text[]) as w (kind, unique_key)
             join job_unique u on u.organization_id = $1 and u.kind = w.kind and u.unique_key = w.unique_key
            where u.held = 'pending'
            order by u.kind collate "C", u.unique_key collate "C" for key share of u"#,
        organization.uuid(),
        &kinds,
        &keys
    )
    .fetch_all(connection)
    .await?;
    let holders: HashMap<(String, String), JobId> =
        rows.into_iter().map(|row| ((row.kind, row.unique_key), row.job_id)).collect();
    Ok(wanted.into_iter().map(|key| holders.get(&key?).copied()).collect())
}

/// Takes the unique keys that are free, and answers the jobs that found theirs taken.
async fn claim_unique_keys(
    connection: &mut PgConnection,
    organization: OrganizationId,
    jobs: &[(JobId, &NewJob)],
    now: DateTime<Utc>,
) -> Result<HashSet<JobId>, sqlx::Error> {
    let wanting: Vec<(JobId, &NewJob, &Unique)> =
        jobs.iter().filter_map(|&(id, job)| job.unique.as_ref().map(|unique| (id, job, unique))).collect();
    if wanting.is_empty() {
        return Ok(HashSet::new());
    }
    let job_ids: Vec<uuid::Uuid> = wanting.iter().map(|(id, ..)| id.uuid()).collect();
    let kinds: Vec<&str> = wanting.iter().map(|(_, job, _)| job.kind.as_str()).collect();
    let keys: Vec<&str> = wanting.iter().map(|(.., unique)| unique.key.as_str()).collect();
    let held: Vec<&str> = wanting
        .iter()
        .map(|(.., unique)| match unique.held {
            Held::Pending => "pending",
            Held::Alive => "alive",
            Held::Period(_) => "period",
        })
        .collect();
    let until: Vec<Option<DateTime<Utc>>> = wanting
        .iter()
        .map(|(.., unique)| match unique.held {
            Held::Period(period) => Some(now + period),
            Held::Pending | Held::Alive => None,
        })
        .collect();
    sqlx::query!(
        "delete from job_unique u using unnest($2::text[], $3::text[]) as w (kind, unique_key)
          where u.organization_id = $1 and u.kind = w.kind and u.unique_key = w.unique_key and u.until <= $4",
        organization.uuid(),
        &kinds as _,
        &keys as _,
        now
    )
    .execute(&mut *connection)
    .await?;
    let won = sqlx::query_scalar!(
        r#"insert into job_unique (organization_id, kind, unique_key, job_id, held, until)
           select $1, w.kind, w.unique_key, w.job_id, w.held, w.until
             from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
                  as w (job_id, kind, unique_key, held, until)
            order by w.kind collate "C", w.unique_key collate "C", w.job_id -- two bulks with the same keys must not wait for each other
               on conflict do nothing
           returning job_id as "job_id: JobId""#,
        organization.uuid(),
        &job_ids,
        &kinds as _,
        &keys as _,
        &held as _,
        &until as _
    )
    .fetch_all(connection)
    .await?;
    Ok(wanting.iter().map(|(id, ..)| *id).filter(|id| !won.contains(id)).collect())
}

/// What a job that found its unique key taken comes to.
async fn yield_to_holder(
    tx: &mut impl JobTx,
    organization: OrganizationId,
    job: &NewJob,
    now: DateTime<Utc>,
) -> Result<Enqueued, EnqueueError> {
    let Some(unique) = &job.unique else { unreachable!("only jobs with a unique key can find it taken") };
    let holder = sqlx::query_scalar!(
        r#"select job_id as "id: JobId" from job_unique
            where organization_id = $1 and kind = $2 and unique_key = $3 for key share"#,
        organization.uuid(),
        job.kind,
        unique.key
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(holder) = holder else {
        // Freed between the two statements: ask again as if for the first time. Each round needs another
        // transaction to commit in between, so this ends.
        let mut again = Box::pin(enqueue_dyn(tx, organization, job.clone())).await?;
        return again.pop().ok_or(EnqueueError::Database(sqlx::Error::RowNotFound));
    };
    let run_at = match unique.on_conflict {
        OnConflict::Existing => return Ok(Enqueued { id: holder, outcome: Outcome::Existing }),
        OnConflict::Replace => None,
        OnConflict::Debounce => Some(job.run_at.unwrap_or(now)),
    };
    // The dispatch row is what a claim takes; whoever holds it decides.
    let pending = sqlx::query_scalar!("select id from job_dispatch where id = $1 for update", holder.uuid())
        .fetch_optional(tx.connection())
        .await?;
    if pending.is_none() {
        return Ok(Enqueued { id: holder, outcome: Outcome::Existing });
    }
    sqlx::query!(
        "update jobs set payload = $2::text::jsonb, run_at = coalesce($3, run_at),
                state = case when $3 > $4 then 'scheduled' else state end
          where id = $1",
        holder.uuid(),
        job.payload,
        run_at,
        now
    )
    .execute(tx.connection())
    .await?;
    if let Some(run_at) = run_at {
        sqlx::query!("update job_dispatch set due_at = $2 where id = $1", holder.uuid(), run_at.max(now))
            .execute(tx.connection())
            .await?;
    }
    Ok(Enqueued { id: holder, outcome: Outcome::Updated })
}

async fn enqueue_dyn(
    tx: &mut impl JobTx,
    organization: OrganizationId,
    job: NewJob,
) -> Result<Vec<Enqueued>, EnqueueError> {
    enqueue(tx, organization, vec![job]).await
}

/// Writes the rows, and answers the jobs that can be claimed at once.
async fn insert(
    connection: &mut PgConnection,
    organization: OrganizationId,
    jobs: &[(JobId, &NewJob)],
    now: DateTime<Utc>,
) -> Result<Vec<Ready>, sqlx::Error> {
    match jobs {
        [] => return Ok(Vec::new()),
        [(id, job)] => insert_one(connection, organization, *id, job, now).await?,
        many => insert_many(connection, organization, many, now).await?,
    }
    Ok(jobs
        .iter()
        .filter(|(_, job)| state_of(job, now) == State::Available)
        .map(|(id, job)| Ready {
            id: *id,
            organization,
            queue: job.queue.clone(),
            priority: job.priority,
            careful: is_careful(job),
        })
        .collect())
}

pub(super) fn state_of(job: &NewJob, now: DateTime<Utc>) -> State {
    match job.run_at {
        _ if !job.after.is_empty() => State::Waiting,
        Some(run_at) if run_at > now => State::Scheduled,
        _ => State::Available,
    }
}

pub(super) const fn is_careful(job: &NewJob) -> bool {
    job.unique.is_some() || job.concurrency.is_some() || job.rate_key.is_some()
}

/// One job in one round trip.
async fn insert_one(
    connection: &mut PgConnection,
    organization: OrganizationId,
    id: JobId,
    job: &NewJob,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let state = state_of(job, now);
    let run_at = job.run_at.unwrap_or(now);
    let concurrency_key = job.concurrency.as_ref().map(|concurrency| concurrency.key.as_str());
    sqlx::query!(
        "with dispatch as (
             insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
             select $1::uuid, $2::uuid, $3::text, $4::text, $5::smallint, case when $6::job_state = 'scheduled' then $9::timestamptz end,
                    $10::bool, $11::text
              where $6 <> 'waiting')
         insert into jobs (id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at,
                           unique_key, concurrency_key, concurrency_limit, rate_key, expires_at, payload,
                           traceparent, requested_by, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $12, $11, $13, $14, $15, $16::text::jsonb, $17, $18, $19)",
        id.uuid(),
        organization.uuid(),
        job.kind,
        job.queue,
        job.priority,
        state as _,
        job.max_attempts,
        job.lease_seconds,
        run_at,
        is_careful(job),
        concurrency_key,
        job.unique.as_ref().map(|unique| unique.key.as_str()),
        job.concurrency.as_ref().map(|concurrency| concurrency.limit),
        job.rate_key,
        job.expires_at,
        job.payload,
        job.traceparent,
        job.requested_by,
        now
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Any number of jobs in one statement.
async fn insert_many(
    connection: &mut PgConnection,
    organization: OrganizationId,
    jobs: &[(JobId, &NewJob)],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<uuid::Uuid> = jobs.iter().map(|(id, _)| id.uuid()).collect();
    let states: Vec<State> = jobs.iter().map(|(_, job)| state_of(job, now)).collect();
    let kinds: Vec<&str> = jobs.iter().map(|(_, job)| job.kind.as_str()).collect();
    let queues: Vec<&str> = jobs.iter().map(|(_, job)| job.queue.as_str()).collect();
    let priorities: Vec<i16> = jobs.iter().map(|(_, job)| job.priority).collect();
    let max_attempts: Vec<i32> = jobs.iter().map(|(_, job)| job.max_attempts).collect();
    let leases: Vec<i32> = jobs.iter().map(|(_, job)| job.lease_seconds).collect();
    let run_ats: Vec<DateTime<Utc>> = jobs.iter().map(|(_, job)| job.run_at.unwrap_or(now)).collect();
    let expiries: Vec<Option<DateTime<Utc>>> = jobs.iter().map(|(_, job)| job.expires_at).collect();
    let unique_keys: Vec<Option<&str>> =
        jobs.iter().map(|(_, job)| job.unique.as_ref().map(|unique| unique.key.as_str())).collect();
    let concurrency_keys: Vec<Option<&str>> =
        jobs.iter().map(|(_, job)| job.concurrency.as_ref().map(|concurrency| concurrency.key.as_str())).collect();
    let concurrency_limits: Vec<Option<i16>> =
        jobs.iter().map(|(_, job)| job.concurrency.as_ref().map(|concurrency| concurrency.limit)).collect();
    let rate_keys: Vec<Option<&str>> = jobs.iter().map(|(_, job)| job.rate_key.as_deref()).collect();
    let careful: Vec<bool> = jobs.iter().map(|(_, job)| is_careful(job)).collect();
    let payloads: Vec<&str> = jobs.iter().map(|(_, job)| job.payload.as_str()).collect();
    let traceparents: Vec<Option<&str>> = jobs.iter().map(|(_, job)| job.traceparent.as_deref()).collect();
    let requested_by: Vec<&str> = jobs.iter().map(|(_, job)| job.requested_by.as_str()).collect();
    sqlx::query_file!(
        "src/jobs/insert_many.sql",
        organization.uuid(),
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
        &unique_keys as _,
        &concurrency_keys as _,
        &concurrency_limits as _,
        &rate_keys as _,
        &careful,
        &payloads as _,
        &traceparents as _,
        &requested_by as _
    )
    .execute(connection)
    .await
    .map(drop)
}
