//! Schedules and their ticks in the table.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::window::in_order;
use crate::{EngineTx, JobId, JobTx, Order, OrganizationId, ScheduleId, TenantTx, Window};

/// A recurring job.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Its id.
    pub id: ScheduleId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it; unique in the organization.
    pub name: String,
    /// The kind of job it asks for.
    pub kind: String,
    /// With which payload.
    pub payload: Value,
    /// When: five fields, or six with seconds first.
    pub cron: String,
    /// In which IANA time zone.
    pub time_zone: String,
    /// What happens to ticks nobody was there for: `skip`, `once` or `all`.
    pub missed_runs: String,
    /// What happens while the previous job still lives: `allow`, `skip` or `queue`.
    pub overlap: String,
    /// Ticks are spread over so many seconds.
    pub jitter_seconds: i32,
    /// It does not tick.
    pub paused: bool,
    /// Ticks up to here were dealt with.
    pub last_tick_at: DateTime<Utc>,
    /// The next tick; `None`: never again.
    pub next_tick_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Stores a schedule of the transaction's organization. A name that is taken is the constraint
/// `schedules_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, schedule: &Schedule) -> Result<(), sqlx::Error> {
    insert_row(tx, schedule).await
}

async fn insert_row(tx: &mut impl JobTx, schedule: &Schedule) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into schedules (id, organization_id, name, kind, payload, cron, time_zone, missed_runs, overlap,
                                jitter_seconds, paused, last_tick_at, next_tick_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        schedule.id.uuid(),
        schedule.organization.uuid(),
        schedule.name,
        schedule.kind,
        schedule.payload,
        schedule.cron,
        schedule.time_zone,
        schedule.missed_runs,
        schedule.overlap,
        schedule.jitter_seconds,
        schedule.paused,
        schedule.last_tick_at,
        schedule.next_tick_at,
        schedule.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Makes sure that a schedule of the platform exists with this cron expression; one that is there keeps its
/// pause and its ticks.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ensure(tx: &mut EngineTx, schedule: &Schedule) -> Result<(), sqlx::Error> {
    // Workers that start at the same time take turns.
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('schedules', 7))").fetch_one(tx.connection()).await?;
    let changed = sqlx::query!(
        "update schedules set kind = $3, payload = $4, next_tick_at = case when cron = $5 then next_tick_at else $6 end,
                cron = $5
          where organization_id = $1 and name = $2",
        schedule.organization.uuid(),
        schedule.name,
        schedule.kind,
        schedule.payload,
        schedule.cron,
        schedule.next_tick_at
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    if changed == 0 { insert_row(tx, schedule).await } else { Ok(()) }
}

/// A schedule.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: ScheduleId) -> Result<Option<Schedule>, sqlx::Error> {
    sqlx::query_as!(
        Schedule,
        r#"select id as "id: ScheduleId", organization_id as "organization: OrganizationId", name, kind, payload, cron,
                  time_zone, missed_runs, overlap, jitter_seconds, paused, last_tick_at, next_tick_at, created_at
             from schedules where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// A schedule, locked until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: ScheduleId) -> Result<Option<Schedule>, sqlx::Error> {
    sqlx::query_as!(
        Schedule,
        r#"select id as "id: ScheduleId", organization_id as "organization: OrganizationId", name, kind, payload, cron,
                  time_zone, missed_runs, overlap, jitter_seconds, paused, last_tick_at, next_tick_at, created_at
             from schedules where id = $1 for update"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Stores what may be changed about a schedule. A name that is taken is the constraint `schedules_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(tx: &mut TenantTx, schedule: &Schedule) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update schedules set name = $2, kind = $3, payload = $4, cron = $5, time_zone = $6, missed_runs = $7,
                overlap = $8, jitter_seconds = $9, last_tick_at = $10, next_tick_at = $11
          where id = $1",
        schedule.id.uuid(),
        schedule.name,
        schedule.kind,
        schedule.payload,
        schedule.cron,
        schedule.time_zone,
        schedule.missed_runs,
        schedule.overlap,
        schedule.jitter_seconds,
        schedule.last_tick_at,
        schedule.next_tick_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Which schedules a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that are paused, or are not.
    pub paused: Option<bool>,
    /// Only those that ask for this kind of job.
    pub kind: Option<String>,
}

/// A page of the schedules, by age.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: &Filter, window: Window) -> Result<Vec<Schedule>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Schedule,
                r#"select id as "id: ScheduleId", organization_id as "organization: OrganizationId", name, kind, payload,
                          cron, time_zone, missed_runs, overlap, jitter_seconds, paused, last_tick_at, next_tick_at,
                          created_at
                     from schedules
                    where organization_id = $1 and id > $2 and id < $3 and ($4::boolean is null or paused = $4)
                      and ($5::text is null or kind = $5)
                    order by id "#
                    + $order
                    + " limit $6",
                organization.uuid(),
                window.low(),
                window.high(),
                filter.paused,
                filter.kind,
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}

/// A page of the schedules by name, which is unique, behind the one of the name `after`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list_by_name(
    tx: &mut TenantTx,
    filter: &Filter,
    order: Order,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Schedule>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! schedules {
        ($which:literal, $order:literal) => {
            sqlx::query_as!(
                Schedule,
                r#"select id as "id: ScheduleId", organization_id as "organization: OrganizationId", name, kind, payload,
                          cron, time_zone, missed_runs, overlap, jitter_seconds, paused, last_tick_at, next_tick_at,
                          created_at
                     from schedules
                    where organization_id = $1 and ($3::boolean is null or paused = $3)
                      and ($4::text is null or kind = $4)"#
                    + $which
                    + " order by name "
                    + $order
                    + " limit $5",
                organization.uuid(),
                after,
                filter.paused,
                filter.kind,
                limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    // No name is empty, and none is the last there could be.
    match (order, after) {
        (Order::Ascending, _) => schedules!(" and name > coalesce($2, '')", "asc"),
        (Order::Descending, None) => schedules!(" and $2::text is null", "desc"),
        (Order::Descending, Some(_)) => schedules!(" and name < $2", "desc"),
    }
}

/// Pauses or resumes. A resumed schedule continues with `next_tick_at`; what it missed meanwhile stays missed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_paused(
    tx: &mut TenantTx,
    id: ScheduleId,
    paused: bool,
    next_tick_at: Option<DateTime<Utc>>,
) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update schedules set paused = $2, next_tick_at = $3, last_tick_at = greatest(last_tick_at, $4) where id = $1",
        id.uuid(),
        paused,
        next_tick_at,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes a schedule; jobs it asked for stay.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, id: ScheduleId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from schedules where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Locks up to `limit` schedules that are due. Those of suspended organizations stay due until they go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn due(tx: &mut EngineTx, limit: i64) -> Result<Vec<Schedule>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Schedule,
        r#"select id as "id: ScheduleId", organization_id as "organization: OrganizationId", name, kind, payload, cron,
                  time_zone, missed_runs, overlap, jitter_seconds, paused, last_tick_at, next_tick_at, created_at
             from schedules where next_tick_at <= $1 and not paused
              and not exists (select from organizations o where o.id = organization_id and o.held_by is not null)
            order by next_tick_at limit $2 for update skip locked"#,
        now,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Claims a tick: `false` when it was claimed before, by whomever.
///
/// # Errors
/// When the database refuses or went away.
pub async fn claim_tick(tx: &mut EngineTx, schedule: &Schedule, tick_at: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "insert into schedule_ticks (schedule_id, tick_at, organization_id) values ($1, $2, $3) on conflict do nothing",
        schedule.id.uuid(),
        tick_at,
        schedule.organization.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Notes the job a tick asked for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_tick_job(
    tx: &mut EngineTx,
    schedule: ScheduleId,
    tick_at: DateTime<Utc>,
    job: JobId,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update schedule_ticks set job_id = $3 where schedule_id = $1 and tick_at = $2",
        schedule.uuid(),
        tick_at,
        job.uuid()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Sets when the schedule ticks next.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ticked(
    tx: &mut EngineTx,
    schedule: ScheduleId,
    last_tick_at: DateTime<Utc>,
    next_tick_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update schedules set last_tick_at = $2, next_tick_at = $3 where id = $1",
        schedule.uuid(),
        last_tick_at,
        next_tick_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The job of the newest tick that has one and that has not ended.
///
/// # Errors
/// When the database refuses or went away.
pub async fn living_job(tx: &mut EngineTx, schedule: ScheduleId) -> Result<Option<JobId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select j.id as "id: JobId" from (
               select job_id from schedule_ticks where schedule_id = $1 and job_id is not null
                order by tick_at desc limit 1) t
             join jobs j on j.id = t.job_id
            where j.state not in ('succeeded', 'discarded', 'cancelled')"#,
        schedule.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Forgets ticks before a moment, up to `limit`. Those a clock could step back to must stay.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget_ticks(tx: &mut EngineTx, before: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    sqlx::query!(
        "delete from schedule_ticks where (schedule_id, tick_at) in (
             select schedule_id, tick_at from schedule_ticks where tick_at < $1 limit $2)",
        before,
        limit
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}
