//! What a server is to be like from now on, and that it is: in the table.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Options;
use super::plans::Cost;
use crate::{JobTx as _, ServerId, TenantTx};

/// What of a server can be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// How large it is.
    pub size: String,
    /// The organization's own words for it.
    pub labels: BTreeMap<String, String>,
    /// What else is wanted of it.
    pub options: Options,
}

/// From now on a server of the transaction's organization is to be like this, and costs as much in a month; `None`: nobody
/// knows.
///
/// # Errors
/// When the database refuses or went away.
pub async fn change(
    tx: &mut TenantTx,
    id: ServerId,
    wanted: &Wanted,
    cost: Option<Cost<'_>>,
) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set size = $3, labels = $4, options = $5, monthly_cost = $6, currency = $7
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        wanted.size,
        serde_json::to_value(&wanted.labels).unwrap_or_default(),
        serde_json::to_value(&wanted.options).unwrap_or_default(),
        cost.map(|cost| cost.monthly),
        cost.map(|cost| cost.currency)
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
