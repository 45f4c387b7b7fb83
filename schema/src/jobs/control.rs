//! Looking at jobs and changing their course: what people and programs do with the ledger.

use chrono::{DateTime, Utc};

use super::row::Row;
use super::{Job, Ready, State, pause, workflow};
use crate::window::in_order;
use crate::{JobId, JobTx, Order, OrganizationId, TenantTx, Window};

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Of one of these kinds; empty: of any.
    pub kinds: Vec<String>,
    /// In this queue.
    pub queue: Option<String>,
    /// Asked for from this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Asked for before this moment.
    pub until: Option<DateTime<Utc>>,
}

/// A job in a list: without what may be large.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its id.
    pub id: JobId,
    /// What is to be done.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// 0 first, 9 last.
    pub priority: i16,
    /// Where it is in its life.
    pub state: State,
    /// The attempt that runs or ran last; 0 before the first.
    pub attempt: i32,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// Not before this moment.
    pub run_at: DateTime<Utc>,
    /// Who asked.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When the last attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended for good.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the handler last said about how far it is.
    pub progress: Option<serde_json::Value>,
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

/// A page of the jobs. What is live, or ended badly, is little beside what ended well, and is found through the small
/// table that has it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: &Filter, window: Window) -> Result<Vec<Summary>, sqlx::Error> {
    let (organization, now, window) = (tx.organization(), tx.now(), window.within(filter.since, filter.until));
    macro_rules! summaries {
        ($order:literal, $($from:literal)+) => {
            sqlx::query_as!(
                Summary,
                r#"select j.id as "id: JobId", j.kind, j.queue, j.priority,
                          (case when j.state = 'scheduled' and j.run_at <= $1 then 'available' else j.state end)
                              as "state!: State",
                          j.attempt, j.max_attempts, j.run_at, j.requested_by, j.created_at, j.started_at,
                          j.finished_at, j.progress"#
                    $(+ $from)+
                    + " and ($7::text is null or j.queue = $7) order by j.id "
                    + $order
                    + " limit $5",
                now,
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit,
                &filter.kinds,
                filter.queue,
                filter.state as _
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    macro_rules! page {
        ($from:literal) => {{
            macro_rules! from {
                ($order:literal) => {
                    summaries!($order, $from)
                };
            }
            in_order!(window.order, from)
        }};
    }
    // The newest, or oldest, of each kind, and of these the newest or oldest.
    macro_rules! of_kinds {
        ($order:literal) => {
            summaries!(
                $order,
                " from unnest($6::text[]) as k (kind)
                 cross join lateral (
                     select * from jobs
                      where organization_id = $2 and kind = k.kind and id > $3 and id < $4
                        and ($7::text is null or queue = $7) and ($8::job_state is null or state = $8)
                      order by id "
                $order
                " limit $5) j where true"
            )
        };
    }
    match (filter.state, filter.kinds.is_empty()) {
        (Some(State::Discarded | State::Cancelled), _) => page!(
            " from job_unsuccessful u join jobs j on j.id = u.id
              where u.organization_id = $2 and u.id > $3 and u.id < $4 and u.state = $8
                and (cardinality($6::text[]) = 0 or u.kind = any($6))"
        ),
        (Some(State::Available | State::Scheduled), _) => page!(
            " from job_dispatch d join jobs j on j.id = d.id
              where d.organization_id = $2 and d.id > $3 and d.id < $4
                and coalesce(d.due_at > $1, false) = ($8 = 'scheduled'::job_state)
                and (cardinality($6::text[]) = 0 or d.kind = any($6))"
        ),
        (Some(State::Running), _) => page!(
            " from running_jobs() r (id) join jobs j on j.id = r.id
              where j.organization_id = $2 and r.id > $3 and r.id < $4 and j.state = $8
                and (cardinality($6::text[]) = 0 or j.kind = any($6))"
        ),
        (Some(State::Waiting), _) => page!(
            " from (select distinct job_id from job_dependencies
                    where organization_id = $2 and not resolved and job_id > $3 and job_id < $4) w
             join jobs j on j.id = w.job_id
              where j.state = $8 and (cardinality($6::text[]) = 0 or j.kind = any($6))"
        ),
        (Some(State::Succeeded) | None, true) => page!(
            " from jobs j
              where j.organization_id = $2 and j.id > $3 and j.id < $4 and ($8::job_state is null or j.state = $8)
                and cardinality($6::text[]) = 0"
        ),
        (Some(State::Succeeded) | None, false) => in_order!(window.order, of_kinds),
    }
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
    let (organization, oldest) =
        (tx.organization(), Window::new(Order::Ascending, limit).within(filter.since, filter.until));
    let ids = sqlx::query_scalar!(
        "select id from job_unsuccessful
          where organization_id = $1 and id > $2 and id < $3 and state = $4
            and (cardinality($5::text[]) = 0 or kind = any($5)) and ($6::text is null or queue = $6)
          order by id limit $7 for update skip locked",
        organization.uuid(),
        oldest.low(),
        oldest.high(),
        filter.state.unwrap_or(State::Discarded) as _,
        &filter.kinds,
        filter.queue,
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
    let oldest = Window::new(Order::Ascending, limit).within(filter.since, filter.until);
    let ids = sqlx::query_scalar!(
        "delete from job_dispatch where id in (
             select id from job_dispatch
              where organization_id = $1 and id > $2 and id < $3
                and (cardinality($4::text[]) = 0 or kind = any($4)) and ($5::text is null or queue = $5)
                and ($6::job_state is null or $6 = (case when due_at > $7 then 'scheduled' else 'available' end)::job_state)
              order by id limit $8 for update skip locked)
         returning id",
        organization.uuid(),
        oldest.low(),
        oldest.high(),
        &filter.kinds,
        filter.queue,
        filter.state as _,
        now,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    end_pending(tx, &ids, State::Discarded, by).await?;
    Ok(ids.len() as u64)
}
