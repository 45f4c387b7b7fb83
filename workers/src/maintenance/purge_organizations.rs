use gantry_jobs::maintenance::PurgeOrganizations;
use gantry_schema::OrganizationId;
use gantry_schema::organizations::lifecycle;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Organizations looked up at once.
const ORGANIZATIONS: i64 = 100;

/// Rows removed of each table in one transaction.
const BATCH: i64 = 1_000;

impl Run for PurgeOrganizations {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut purged = 0;
        loop {
            let mut tx = cx.begin().await?;
            let organizations = lifecycle::to_purge(&mut tx, ORGANIZATIONS).await?;
            tx.commit().await?;
            if organizations.is_empty() {
                return Ok(Done::With(json!({ "organizations_purged": purged })));
            }
            let mut failed = None;
            for organization in organizations {
                match purge(cx, organization).await {
                    Ok(()) => purged += 1,
                    // It keeps nobody else from going.
                    Err(failure) => failed = Some(failure),
                }
                cx.progress(&json!({ "organizations_purged": purged })).await?;
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
    }
}

async fn purge(cx: &Context, organization: OrganizationId) -> Result<(), Failure> {
    everything_of(cx, organization).await?;
    // The platform sees it still; it was the last that did.
    let mut tx = cx.begin().await?;
    lifecycle::remove(&mut tx, organization).await?;
    Ok(tx.commit().await?)
}

/// Removes what an organization has, batch by batch: whatever ends this, what is done is done.
async fn everything_of(cx: &Context, organization: OrganizationId) -> Result<(), Failure> {
    loop {
        if cx.is_stopped() {
            return Err(Failure::retry("stopped in between; what is done is done"));
        }
        let mut tx = cx.db().tenant(organization).await?;
        let rows = lifecycle::purge_some(&mut tx, BATCH).await?;
        tx.commit().await?;
        let jobs = lifecycle::purge_some_jobs(cx.ledger(), organization, BATCH).await?;
        if rows + jobs == 0 {
            return Ok(());
        }
    }
}
