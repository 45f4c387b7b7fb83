//! What handlers say while they run: log lines and progress.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{JobId, JobTx, TenantTx};

/// A line a handler wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// In which attempt.
    pub attempt: i32,
    /// Its number within the attempt, from 1.
    pub line: i32,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub message: String,
}

/// Keeps lines of a job's attempt; a repeated line is kept once.
///
/// # Errors
/// When the database refuses or went away.
pub async fn append(tx: &mut TenantTx, job: JobId, lines: &[Line]) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let attempts: Vec<i32> = lines.iter().map(|line| line.attempt).collect();
    let numbers: Vec<i32> = lines.iter().map(|line| line.line).collect();
    let ats: Vec<DateTime<Utc>> = lines.iter().map(|line| line.at).collect();
    let messages: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
    sqlx::query!(
        "insert into job_logs (job_id, organization_id, attempt, line, at, message)
         select $1, $2, * from unnest($3::int[], $4::int[], $5::timestamptz[], $6::text[])
             on conflict do nothing",
        job.uuid(),
        organization.uuid(),
        &attempts,
        &numbers,
        &ats,
        &messages as _
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The lines after `(attempt, line)`, in order.
///
/// # Errors
/// When the database refuses or went away.
pub async fn after(
    tx: &mut TenantTx,
    job: JobId,
    attempt: i32,
    line: i32,
    limit: i64,
) -> Result<Vec<Line>, sqlx::Error> {
    sqlx::query_as!(
        Line,
        "select attempt, line, at, message from job_logs
          where job_id = $1 and (attempt, line) > ($2, $3) order by attempt, line limit $4",
        job.uuid(),
        attempt,
        line,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Keeps how far a running attempt is; `false`: the attempt is no longer the caller's.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_progress(tx: &mut TenantTx, job: JobId, attempt: i32, progress: &Value) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "update jobs set progress = $3 where id = $1 and attempt = $2 and state = 'running'",
        job.uuid(),
        attempt,
        progress
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
