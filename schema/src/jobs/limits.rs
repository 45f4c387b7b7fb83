//! Limits an operator may change while everything runs.

use crate::{EngineDb, JobTx, OrganizationId, TenantTx};

/// How much may happen at a time, or per period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// So many jobs of a queue at the same time, over all workers.
    Queue {
        /// The queue.
        name: String,
        /// Jobs.
        running: i32,
    },
    /// So many jobs per period for a rate key: a provider's limit.
    Rate {
        /// The rate key.
        name: String,
        /// Jobs per period.
        amount: i32,
        /// The period, in seconds.
        period_seconds: i32,
        /// How many may come at once after a pause.
        burst: i32,
    },
}

/// How an organization shares queues with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The organization.
    pub organization: OrganizationId,
    /// Its part, relative to the others' that wait.
    pub weight: i16,
    /// Jobs it may have running at the same time.
    pub max_running: Option<i32>,
}

struct Row {
    name: String,
    amount: i32,
    period_seconds: Option<i32>,
    burst: Option<i32>,
}

impl From<Row> for Limit {
    fn from(row: Row) -> Self {
        let Row { name, amount, period_seconds, burst } = row;
        match period_seconds {
            None => Self::Queue { name, running: amount },
            Some(period_seconds) => Self::Rate { name, amount, period_seconds, burst: burst.unwrap_or(amount) },
        }
    }
}

/// Every limit.
///
/// # Errors
/// When the database refuses or went away.
pub async fn all(db: &EngineDb) -> Result<Vec<Limit>, sqlx::Error> {
    let rows =
        sqlx::query_as!(Row, "select name, amount, period_seconds, burst from job_limits").fetch_all(db.pool()).await?;
    Ok(rows.into_iter().map(Limit::from).collect())
}

/// The limits that the transaction's organization has set; the platform sets all there are.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Limit>, sqlx::Error> {
    let rows =
        sqlx::query_as!(Row, "select name, amount, period_seconds, burst from job_limits order by subject, name")
            .fetch_all(tx.connection())
            .await?;
    Ok(rows.into_iter().map(Limit::from).collect())
}

/// One of them: `queue` or `rate`, and its name.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, subject: &str, name: &str) -> Result<Option<Limit>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "select name, amount, period_seconds, burst from job_limits where subject = $1 and name = $2",
        subject,
        name
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(Limit::from))
}

/// The organizations whose share is not the ordinary one.
///
/// # Errors
/// When the database refuses or went away.
pub async fn shares(db: &EngineDb) -> Result<Vec<Share>, sqlx::Error> {
    sqlx::query_as!(
        Share,
        r#"select id as "organization: OrganizationId", weight, max_running from organizations
            where weight <> 1 or max_running is not null"#
    )
    .fetch_all(db.pool())
    .await
}

/// Sets a limit; the platform's transaction only.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(tx: &mut TenantTx, limit: &Limit) -> Result<(), sqlx::Error> {
    let (subject, name, amount, period, burst) = match limit {
        Limit::Queue { name, running } => ("queue", name, *running, None, None),
        Limit::Rate { name, amount, period_seconds, burst } => {
            ("rate", name, *amount, Some(*period_seconds), Some(*burst))
        }
    };
    let organization = tx.organization();
    sqlx::query!(
        "insert into job_limits (subject, name, organization_id, amount, period_seconds, burst)
         values ($1, $2, $3, $4, $5, $6)
             on conflict (subject, name) do update
            set amount = excluded.amount, period_seconds = excluded.period_seconds, burst = excluded.burst",
        subject,
        name,
        organization.uuid(),
        amount,
        period,
        burst
    )
    .execute(tx.connection())
    .await?;
    super::pause::notify(tx.connection()).await
}

/// Lifts a limit.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lift(tx: &mut TenantTx, subject: &str, name: &str) -> Result<bool, sqlx::Error> {
    let lifted = sqlx::query!("delete from job_limits where subject = $1 and name = $2", subject, name)
        .execute(tx.connection())
        .await?
        .rows_affected();
    super::pause::notify(tx.connection()).await?;
    Ok(lifted == 1)
}
