//! The host names by which organizations are reached.

use chrono::{DateTime, Utc};

use crate::{CredentialTx, JobTx, OrganizationId, TenantTx};

/// A host name of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name, in lower case.
    pub host: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Whose host the transaction presents.
///
/// # Errors
/// When the database refuses or went away.
pub async fn whose(tx: &mut CredentialTx) -> Result<Option<OrganizationId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select organization_id as "organization: OrganizationId" from organization_hosts
            where host = nullif(current_setting('gantry.presented_host', true), '')"#
    )
    .fetch_optional(tx.connection())
    .await
}

/// Whether the transaction's organization is this one, or below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn is_at_or_below(tx: &mut TenantTx, above: OrganizationId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select exists (select from organization_closure where ancestor_id = $1 and descendant_id = $2) as "is!""#,
        above.uuid(),
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// The host names of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Host>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Host,
        "select host, created_at from organization_hosts where organization_id = $1 order by host limit 1000",
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await
}

/// Gives the transaction's organization a host name; one it has already stays as it is. `None`: somebody has it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add(tx: &mut TenantTx, host: &str) -> Result<Option<Host>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into organization_hosts (host, organization_id, created_at) values ($1, $2, $3) on conflict do nothing",
        host,
        organization.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query_as!(
        Host,
        "select host, created_at from organization_hosts where host = $1 and organization_id = $2",
        host,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Takes a host name away; `false`: the organization does not have it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, host: &str) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("delete from organization_hosts where host = $1 and organization_id = $2", host, organization.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}
