//! Forgetting finished jobs: whole days are dropped, never deleted row by row.

use chrono::{DateTime, Duration, NaiveDate, Utc};

use crate::EngineDb;

/// How long finished jobs are kept, by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Succeeded.
    pub succeeded: Duration,
    /// Cancelled.
    pub cancelled: Duration,
    /// Discarded: the dead letters.
    pub discarded: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { succeeded: Duration::days(7), cancelled: Duration::days(14), discarded: Duration::days(90) }
    }
}

/// Prepares the partitions of today and `days` days ahead, and those of days on which nobody had.
///
/// # Errors
/// When the database refuses or went away.
pub async fn prepare(db: &EngineDb, days: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select job_partition_add(day) from (
             select ($1::timestamptz at time zone 'UTC')::date + ahead as day from generate_series(0, $2) ahead
              union select (id_moment(id) at time zone 'UTC')::date from jobs_other) days",
        db.now(),
        days
    )
    .fetch_all(db.pool())
    .await
    .map(drop)
}

/// The days that have a partition, oldest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn days(db: &EngineDb) -> Result<Vec<NaiveDate>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select to_date(substr(c.relname, 6), 'YYYYMMDD') as "day!"
             from pg_inherits i join pg_class c on c.oid = i.inhrelid
            where i.inhparent = 'jobs'::regclass and c.relname ~ '^jobs_[0-9]{8}$' order by 1"#
    )
    .fetch_all(db.pool())
    .await
}

/// Keeps of one day only what has not ended or whose time is not over, and drops the rest with the day's
/// partition. Answers how many rows were kept.
///
/// # Errors
/// When the database refuses or went away; then the day is as it was.
pub async fn compact(db: &EngineDb, day: NaiveDate, retention: Retention) -> Result<i64, sqlx::Error> {
    let now = db.now();
    sqlx::query_scalar!(
        r#"select job_partition_compact($1, $2, $3, $4) as "kept!""#,
        day,
        now - retention.succeeded,
        now - retention.cancelled,
        now - retention.discarded
    )
    .fetch_one(db.pool())
    .await
}

/// Forgets what belonged to jobs that are gone, up to `limit` rows of each table.
///
/// # Errors
/// When the database refuses or went away.
pub async fn sweep(db: &EngineDb, before: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    let mut forgotten = sqlx::query!(
        "delete from job_unsuccessful where id in (
             select u.id from job_unsuccessful u
              where u.id < id_at($1) and not exists (select from jobs j where j.id = u.id) limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    forgotten += sqlx::query!(
        "delete from job_dependencies where job_id in (
             select d.job_id from job_dependencies d
              where d.job_id < id_at($1) and not exists (select from jobs j where j.id = d.job_id) limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    forgotten += sqlx::query!(
        "delete from job_steps where job_id in (
             select s.job_id from job_steps s
              where s.job_id < id_at($1) and not exists (select from jobs j where j.id = s.job_id) limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    Ok(forgotten)
}
