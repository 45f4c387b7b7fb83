use gantry_jobs::maintenance::Reseal;
use gantry_schema::OrganizationId;
use gantry_schema::organizations;
use gantry_schema::resealing::{self, ResealError};
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Organizations looked up at once.
const ORGANIZATIONS: i64 = 1_000;

/// Values sealed again in one transaction, of each column.
const BATCH: i64 = 100;

impl Run for Reseal {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (mut after, mut resealed) = (None, 0);
        loop {
            let organizations = organizations::ids(cx.ledger(), after, ORGANIZATIONS).await?;
            let Some(last) = organizations.last().copied() else {
                return Ok(Done::With(json!({ "resealed": resealed })));
            };
            for organization in organizations {
                resealed += everything_of(cx, organization).await?;
                if cx.is_stopped() {
                    return Err(Failure::retry("stopped in between; what is done is done"));
                }
            }
            after = Some(last);
            cx.progress(&json!({ "resealed": resealed, "after": last })).await?;
        }
    }
}

/// Seals what an organization has again, batch by batch: whatever ends this, what is done is done.
async fn everything_of(cx: &Context, organization: OrganizationId) -> Result<u64, Failure> {
    let mut resealed = 0;
    loop {
        let mut tx = cx.db().tenant(organization).await?;
        let batch = resealing::reseal(&mut tx, cx.sealing_keys(), BATCH).await.map_err(|error| match error {
            ResealError::Database(error) => Failure::from(error),
            error @ ResealError::Seal { .. } => Failure::cancel(error),
        })?;
        tx.commit().await?;
        resealed += batch;
        if batch == 0 {
            return Ok(resealed);
        }
    }
}
