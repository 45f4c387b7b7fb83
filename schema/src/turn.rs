//! Taking turns at what may not be there yet: a row that is not there cannot be locked.

use crate::{JobTx as _, TenantTx};

/// Waits until nobody else changes the organization's thing of this name, and holds it until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, what: &str) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended($1::text || ' ' || $2::text, 21))",
        organization.uuid().to_string(),
        what
    )
    .fetch_one(tx.connection())
    .await
    .map(drop)
}
