//! What Terraform planned: what people and rules see of it, and the bytes that are carried out, packed and sealed.

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::state::{self, LARGEST};
use crate::digest::sha256_alone;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{JobTx as _, OrganizationId, RunId, TenantTx};

/// One thing that is to be made, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Its address in the configuration.
    pub address: String,
    /// `create`, `update`, `delete`, `replace`.
    pub action: String,
}

/// What a plan comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Things that are made.
    pub add: u32,
    /// Things that are changed.
    pub change: u32,
    /// Things that are removed.
    pub remove: u32,
    /// Which, by their addresses.
    pub changes: Vec<Change>,
    /// The server itself is removed, or another takes its place: its disk is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_machine: bool,
    /// A volume is removed, or another takes its place: what is on it is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub loses_volume: bool,
}

impl Summary {
    /// Whether everything that it does is among what the other one does: it may be carried out in its place, when that was
    /// begun and did not come to its end.
    #[must_use]
    pub fn is_rest_of(&self, approved: &Self) -> bool {
        // What was half made is removed and made again.
        let allowed = |change: &Change| {
            approved.changes.iter().any(|other| {
                other.address == change.address
                    && (other.action == change.action || (other.action == "create" && change.action == "replace"))
            })
        };
        self.changes.iter().all(allowed)
    }
}

/// A plan cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is not what was once planned.
    #[error("the plan that is kept was changed")]
    Damaged,
    /// It does not open, or could not be sealed.
    #[error("a sealed plan")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("the table of runs")]
    Database(#[from] sqlx::Error),
}

/// The one place where a plan opens.
#[must_use]
pub fn place(organization: OrganizationId, run: RunId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "runs", column: "plan", row: run.uuid() }
}

/// What a plan costs in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost<'a> {
    /// In the smallest unit of the currency.
    pub monthly: i64,
    /// ISO 4217.
    pub currency: &'a str,
}

/// Keeps what Terraform planned for a run of the transaction's organization; without a cost, nobody knows what it is.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn keep(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    run: RunId,
    plan: &[u8],
    summary: &Summary,
    cost: impl Into<Option<Cost<'_>>>,
) -> Result<(), PlanError> {
    let (organization, cost) = (tx.organization(), cost.into());
    let sealed = keys.seal(&place(organization, run), &state::packed(plan))?;
    let summary = serde_json::to_value(summary).unwrap_or_default();
    sqlx::query!(
        "update runs set plan = $3, plan_sha256 = $4, plan_summary = $5, monthly_cost = $6, currency = $7
          where organization_id = $1 and id = $2",
        organization.uuid(),
        run.uuid(),
        sealed,
        &sha256_alone(plan)[..],
        summary,
        cost.map(|cost| cost.monthly),
        cost.map(|cost| cost.currency)
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What Terraform planned for a run of the transaction's organization, byte for byte.
///
/// # Errors
/// When it is not what was once planned, or the database refuses.
pub async fn open(tx: &mut TenantTx, keys: &SealingKeys, run: RunId) -> Result<Option<Vec<u8>>, PlanError> {
    let organization = tx.organization();
    let row = sqlx::query!(
        "select plan, plan_sha256 from runs where organization_id = $1 and id = $2",
        organization.uuid(),
        run.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some((Some(sealed), Some(sha256))) = row.map(|row| (row.plan, row.plan_sha256)) else { return Ok(None) };
    let opened = keys.open(&place(organization, run), &sealed)?;
    let plan = state::unpacked(opened.expose_secret(), LARGEST).ok_or(PlanError::Damaged)?;
    if sha256_alone(&plan)[..] == sha256 { Ok(Some(plan)) } else { Err(PlanError::Damaged) }
}

/// The one place where what Terraform says of a plan opens.
#[must_use]
pub fn place_of_text(organization: OrganizationId, run: RunId) -> SealContext<'static> {
    SealContext { column: "plan_text", ..place(organization, run) }
}

/// Keeps what Terraform says of the plan of a run of the transaction's organization. It stays when the run has ended.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn keep_text(tx: &mut TenantTx, keys: &SealingKeys, run: RunId, text: &str) -> Result<(), PlanError> {
    let organization = tx.organization();
    let sealed = keys.seal(&place_of_text(organization, run), &state::packed(text.as_bytes()))?;
    sqlx::query!(
        "update runs set plan_text = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        run.uuid(),
        sealed
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What Terraform said of the plan of a run of the transaction's organization; `None`: nothing was planned.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn text(tx: &mut TenantTx, keys: &SealingKeys, run: RunId) -> Result<Option<String>, PlanError> {
    let organization = tx.organization();
    let sealed = sqlx::query_scalar!(
        "select plan_text from runs where organization_id = $1 and id = $2",
        organization.uuid(),
        run.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(sealed) = sealed.flatten() else { return Ok(None) };
    let opened = keys.open(&place_of_text(organization, run), &sealed)?;
    let text = state::unpacked(opened.expose_secret(), LARGEST).ok_or(PlanError::Damaged)?;
    String::from_utf8(text).map(Some).map_err(|_| PlanError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(changes: &[(&str, &str)]) -> Summary {
        let change = |(address, action): &(&str, &str)| Change { address: (*address).into(), action: (*action).into() };
        Summary { changes: changes.iter().map(change).collect(), ..Summary::default() }
    }

    #[test]
    fn only_what_was_approved_is_the_rest_of_it() {
        let approved = summary(&[("a", "create"), ("b", "update")]);
        assert!(summary(&[("b", "update")]).is_rest_of(&approved));
        assert!(summary(&[("a", "replace")]).is_rest_of(&approved), "it was half made");
        assert!(summary(&[]).is_rest_of(&approved));
        for more in [[("c", "create")], [("b", "delete")], [("b", "replace")]] {
            assert!(!summary(&more).is_rest_of(&approved), "{more:?}");
        }
    }
}
