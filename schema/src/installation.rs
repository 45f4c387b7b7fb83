//! Which installation this is: what it makes elsewhere says so, because others may work in the same place.

use uuid::Uuid;

use crate::{JobTx as _, TenantTx};

/// The id of this installation: made with its database, and the same as long as that is. A copy of the database is the same
/// installation.
///
/// # Errors
/// When the database refuses or went away.
pub async fn id(tx: &mut TenantTx) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar!("select id from installation").fetch_one(tx.connection()).await
}
