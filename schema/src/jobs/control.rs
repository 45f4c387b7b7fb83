//! Looking at jobs and changing their course: what people and programs do with the ledger.

use chrono::{DateTime, Utc};

use super::row::Row;
use super::{Job, Ready, State, pause, workflow};
use crate::{JobId, JobTx, OrganizationId, TenantTx};

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this queue.
    pub queue: Option<String>,
    /// Asked for before this moment.
    pub before: Option<DateTime<Utc>>,
}

/// One job.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: JobId) -> Result<Option<Job>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Row,
        r#"select id as "id: JobId", organization_id as "organization_id: OrganizationId", kind, queue, priority, state as "state: State",
                  attempt, max_attempts, uncounted, rescues, run_at, expires_at, unique_key, concurrency_key,
                  payload, traceparent, requested_by, created_at, worker_id as "worker_id: crate::WorkerId",
                  started_at, finished_at, cancel_requested_at, progress, result, failures
             from jobs where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?
    .map(|row| row.into_job(now))
    .transpose()
}

/// A page of jobs, newest first, of those older than `after`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    after: Option<JobId>,
    limit: i64,
) -> Result<Vec<Job>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    // The dead letters are few among many, so they have a table to be found by.
    let unsuccessful = matches!(filter.state, Some(State::Discarded | State::Cancelled));
    let rows = if unsuccessful {
        sqlx::query_as!(
            Row,
            r#"select j.id as "id: JobId", j.organization_id as "organization_id: OrganizationId", j.kind, j.queue, j.priority,
                      j.state as "state: State", attempt, max_attempts, uncounted, rescues, run_at, expires_at, unique_key, concurrency_key,
                      payload, traceparent, requested_by, created_at, worker_id as "worker_id: crate::WorkerId",
                      started_at, j.finished_at, cancel_requested_at, progress, result, failures
                 from job_unsuccessful u join jobs j on j.id = u.id
                where u.organization_id = $1 and u.state = $2
                  and ($3::uuid is null or u.id < $3) and ($4::text is null or u.kind = $4)
                  and ($5::text is null or u.queue = $5) and ($6::timestamptz is null or u.id < id_at($6))
                order by u.id desc limit $7"#,
            organization.uuid(),
            filter.state as _,
            after.map(JobId::uuid),
            filter.kind,
            filter.queue,
            filter.before,
            limit
        )
        .fetch_all(tx.connection())
        .await?
    } else {
        sqlx::query_as!(
            Row,
            r#"select id as "id: JobId", organization_id as "organization_id: OrganizationId", kind, queue, priority, state as "state: State",
                      attempt, max_attempts, uncounted, rescues, run_at, expires_at, unique_key, concurrency_key,
                      payload, traceparent, requested_by, created_at, worker_id as "worker_id: crate::WorkerId",
                      started_at, finished_at, cancel_requested_at, progress, result, failures
                 from jobs
                where organization_id = $1
                  and ($2::job_state is null or case when state = 'scheduled' and run_at <= $8 then 'available' else state end = $2)
                  and ($3::uuid is null or id < $3) and ($4::text is null or kind = $4)
                  and ($5::text is null or queue = $5) and ($6::timestamptz is null or id < id_at($6))
                order by id desc limit $7"#,
            organization.uuid(),
            filter.state as _,
            after.map(JobId::uuid),
            filter.kind,
            filter.queue,
            filter.before,
            limit,
            now
        )
        .fetch_all(tx.connection())
        .await?
    };
    rows.into_iter().map(|row| row.into_job(now)).collect()
}

/// What asking for something to happen to a job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is done.
    Done,
    /// A worker has it; it was told.
    Asked,
    /// The job is in a state in which this cannot happen.
    Impossible(State),
    /// There is no such job.
    Unknown,
}

/// Stops a job: at once if it waits; if it runs, its worker is told.
///
/// # Errors
/// When the database refuses or went away.
pub async fn cancel(tx: &mut TenantTx, id: JobId, by: &str) -> Result<Change, sqlx::Error> {
    // Whoever deletes the dispatch row has the job: a claim, or this.
    let taken = sqlx::query!("delete from job_dispatch where id = $1", id.uuid())
        .execute(tx.connection())
        .await?
        .rows_affected();
    let state = sqlx::query_scalar!(r#"select state as "state: State" from jobs where id = $1 for update"#, id.uuid())
        .fetch_optional(tx.connection())
        .await?;
    let Some(state) = state else { return Ok(Change::Unknown) };
    if taken == 1 || state == State::Waiting || (!state.is_final() && take_returned(tx, id).await?) {
        end_pending(tx, &[id.uuid()], State::Cancelled, by).await?;
        return Ok(Change::Done);
    }
    if state.is_final() {
        return Ok(Change::Impossible(state));
    }
    // It runs, or is being claimed at this moment.
    let now = tx.now();
    sqlx::query!(
        "update jobs set cancel_requested_at = coalesce(cancel_requested_at, $2) where id = $1",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    pause::notify_cancel(tx.connection(), id).await?;
    Ok(Change::Asked)
}

/// Takes the dispatch row of a job that was given back to its queue while its row was waited for. Whoever is
/// claiming it has locked that row, waits for this transaction and must not be waited for.
async fn take_returned(tx: &mut TenantTx, id: JobId) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "delete from job_dispatch where id in (select id from job_dispatch where id = $1 for update skip locked)",
        id.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Ends jobs that were waiting, whose dispatch rows are gone, and with them what waits for them.
async fn end_pending(tx: &mut TenantTx, ids: &[uuid::Uuid], state: State, by: &str) -> Result<(), sqlx::Error> {
    let now = tx.now();
    let followed: Vec<JobId> = sqlx::query_scalar!(
        r#"with ended as (
             update jobs set state = $2, finished_at = $3,
                    failures = failures || jsonb_build_object('attempt', attempt, 'ended_at', $3::timestamptz,
                        'outcome', ($2::job_state)::text, 'error', 'stopped before it ran, by ' || $4::text)
              where id = any($1)
          returning id, organization_id, kind, queue, state, has_dependents),
         keys as (delete from job_unique where job_id = any($1)),
         woken as (update job_dependencies set resolved = true where job_id = any($1)),
         dead as (
             insert into job_unsuccessful (id, organization_id, kind, queue, state, finished_at)
             select id, organization_id, kind, queue, state, $3 from ended
                 on conflict (id) do update set state = excluded.state, finished_at = excluded.finished_at)
         select id as "id!: JobId" from ended where has_dependents"#,
        ids,
        state as _,
        now,
        by
    )
    .fetch_all(tx.connection())
    .await?;
    workflow::advance_in(tx, &followed).await
}

/// Runs a job again that ended badly, or one now that is scheduled, with all its attempts before it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn retry(tx: &mut TenantTx, id: JobId) -> Result<Change, sqlx::Error> {
    if revive(tx, &[id.uuid()]).await? == 1 || hurry(tx, id).await? {
        return Ok(Change::Done);
    }
    let state = sqlx::query_scalar!(r#"select state as "state: State" from jobs where id = $1"#, id.uuid())
        .fetch_optional(tx.connection())
        .await?;
    Ok(state.map_or(Change::Unknown, Change::Impossible))
}

/// Puts dead letters back, each with its unique key, unless another job has that by now.
async fn revive(tx: &mut TenantTx, ids: &[uuid::Uuid]) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    let revived = sqlx::query_as!(
        Ready,
        r#"with dead as (
               select id, organization_id, kind, unique_key from jobs
                where id = any($1) and state in ('discarded', 'cancelled') order by id for update),
           held as (
               insert into job_unique as u (organization_id, kind, unique_key, job_id, held)
               select organization_id, kind, unique_key, id, 'alive' from dead where unique_key is not null
                order by kind, unique_key, id
                   on conflict (organization_id, kind, unique_key) do update
                  set job_id = excluded.job_id, held = excluded.held, until = null where u.until <= $2
            returning job_id),
           revived as (
               update jobs set state = 'available', run_at = $2, uncounted = attempt, rescues = 0, finished_at = null,
                      cancel_requested_at = null, expires_at = null
                where id in (select id from dead where unique_key is null union all select job_id from held)
            returning *, (concurrency_key is not null or rate_key is not null or unique_key is not null) as careful),
           forgotten as (delete from job_unsuccessful u using revived r where u.id = r.id),
           dispatch as (
               insert into job_dispatch (id, organization_id, kind, queue, priority, careful, concurrency_key)
               select id, organization_id, kind, queue, priority, careful, concurrency_key from revived)
           select id as "id!: JobId", organization_id as "organization!: OrganizationId", queue as "queue!",
                  priority as "priority!", careful as "careful!" from revived"#,
        ids,
        now
    )
    .fetch_all(tx.connection())
    .await?;
    let count = revived.len() as u64;
    for ready in revived {
        tx.announce(ready);
    }
    Ok(count)
}

/// Brings a scheduled job forward to now.
async fn hurry(tx: &mut TenantTx, id: JobId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let ready = sqlx::query_as!(
        Ready,
        r#"update job_dispatch set due_at = null where id = $1 and due_at is not null
        returning id as "id: JobId", organization_id as "organization: OrganizationId", queue, priority, careful"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(ready) = ready else { return Ok(false) };
    sqlx::query!("update jobs set state = 'available', run_at = $2 where id = $1", id.uuid(), now)
        .execute(tx.connection())
        .await?;
    tx.announce(ready);
    Ok(true)
}

/// Puts up to `limit` dead letters back that the filter selects, oldest first. Answers how many; repeat
/// while that is `limit`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn retry_all(tx: &mut TenantTx, filter: &Filter, limit: i64) -> Result<u64, sqlx::Error> {
    let organization = tx.organization();
    let ids = sqlx::query_scalar!(
        "select id from job_unsuccessful
          where organization_id = $1 and state = $2 and ($3::text is null or kind = $3)
            and ($4::text is null or queue = $4) and ($5::timestamptz is null or id < id_at($5))
          order by id limit $6 for update skip locked",
        organization.uuid(),
        filter.state.unwrap_or(State::Discarded) as _,
        filter.kind,
        filter.queue,
        filter.before,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    revive(tx, &ids).await
}

/// Discards up to `limit` jobs that wait for a worker or their time and that the filter selects, oldest
/// first. Answers how many; repeat while that is `limit`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn discard_all(tx: &mut TenantTx, filter: &Filter, by: &str, limit: i64) -> Result<u64, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let ids = sqlx::query_scalar!(
        "delete from job_dispatch where id in (
             select id from job_dispatch
              where organization_id = $1 and ($2::text is null or kind = $2) and ($3::text is null or queue = $3)
                and ($4::timestamptz is null or id < id_at($4))
                and ($5::job_state is null or $5 = (case when due_at > $6 then 'scheduled' else 'available' end)::job_state)
              order by id limit $7 for update skip locked)
         returning id",
        organization.uuid(),
        filter.kind,
        filter.queue,
        filter.before,
        filter.state as _,
        now,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    end_pending(tx, &ids, State::Discarded, by).await?;
    Ok(ids.len() as u64)
}
