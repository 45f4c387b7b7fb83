//! Pausing queues, kinds and organizations. Workers hear of it through [`CHANNEL`] at once.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{EngineDb, JobId, JobTx, OrganizationId, TenantTx};

/// Where PostgreSQL tells workers what changed: `settings`, or `cancel job_…`.
pub const CHANNEL: &str = "gantry_control";

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A queue, on every worker.
    Queue,
    /// A kind of job.
    Kind,
    /// An organization's jobs.
    Organization,
}

impl Subject {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Kind => "kind",
            Self::Organization => "organization",
        }
    }
}

/// A pause in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// `queue`, `kind` or `organization`.
    pub subject: String,
    /// Its name, or the organization's id as a uuid.
    pub name: String,
    /// Whose it is: the organization itself, or one above it.
    pub organization: OrganizationId,
    /// Since when.
    pub paused_at: DateTime<Utc>,
    /// Who did it.
    pub paused_by: String,
}

/// Pauses; pausing again changes nothing.
///
/// # Errors
/// When the database refuses or went away.
pub async fn pause(tx: &mut TenantTx, subject: Subject, name: &str, by: &str) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into job_pauses (subject, name, organization_id, paused_at, paused_by) values ($1, $2, $3, $4, $5)
             on conflict do nothing",
        subject.as_str(),
        name,
        organization.uuid(),
        now,
        by
    )
    .execute(tx.connection())
    .await?;
    notify(tx.connection()).await
}

/// The pause that the transaction's organization has made.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, subject: Subject, name: &str) -> Result<Option<Pause>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Pause,
        r#"select subject, name, organization_id as "organization: OrganizationId", paused_at, paused_by from job_pauses
            where subject = $1 and name = $2 and organization_id = $3"#,
        subject.as_str(),
        name,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Lifts the pause that the transaction's organization has made; `false`: it had made none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn resume(tx: &mut TenantTx, subject: Subject, name: &str) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    let resumed = sqlx::query!(
        "delete from job_pauses where subject = $1 and name = $2 and organization_id = $3",
        subject.as_str(),
        name,
        organization.uuid()
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    notify(tx.connection()).await?;
    Ok(resumed == 1)
}

/// The pauses the transaction's organization has made, and those of itself that were made above it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Pause>, sqlx::Error> {
    sqlx::query_as!(
        Pause,
        r#"select subject, name, organization_id as "organization: OrganizationId", paused_at, paused_by from job_pauses
            order by subject, name, organization_id limit 1000"#
    )
    .fetch_all(tx.connection())
    .await
}

/// Every pause in force.
///
/// # Errors
/// When the database refuses or went away.
pub async fn all(db: &EngineDb) -> Result<Vec<Pause>, sqlx::Error> {
    sqlx::query_as!(
        Pause,
        r#"select subject, name, organization_id as "organization: OrganizationId", paused_at, paused_by from job_pauses"#
    )
    .fetch_all(db.pool())
    .await
}

/// Tells the workers that pauses, limits or shares changed.
pub(crate) async fn notify(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_notify('gantry_control', 'settings')").fetch_one(connection).await.map(drop)
}

/// Tells the workers to stop a running job.
pub(super) async fn notify_cancel(connection: &mut PgConnection, job: JobId) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_notify('gantry_control', $1)", format!("cancel {job}"))
        .fetch_one(connection)
        .await
        .map(drop)
}
