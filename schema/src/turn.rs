//! Taking turns at what may not be there yet: a row that is not there cannot be locked.

use crate::{JobTx as _, OrganizationId, TenantTx};

/// Waits until nobody else changes the organization's thing of this name, and holds it until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, what: &str) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    take_of(tx, organization, what).await
}

/// The same of another organization, into which the transaction will step. Whoever takes several takes them in the order of
/// the organizations' ids.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take_of(tx: &mut TenantTx, organization: OrganizationId, what: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1::text || ' ' || $2::text, 21))",
        organization.uuid().to_string(),
        what
    )
    .fetch_one(tx.connection())
    .await
    .map(drop)
}

/// Waits until nobody has taken the turn of it, and lets others do the same meanwhile, but nobody take it, until the transaction
/// ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn share_of(tx: &mut TenantTx, organization: OrganizationId, what: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock_shared(hashtextextended($1::text || ' ' || $2::text, 21))",
        organization.uuid().to_string(),
        what
    )
    .fetch_one(tx.connection())
    .await
    .map(drop)
}
