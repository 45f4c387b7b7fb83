use std::sync::Arc;

use gantry_jobs::audit::CheckpointRecord;
use gantry_schema::OrganizationId;
use gantry_schema::audit::checkpoints::{self, Checkpoint};
use gantry_schema::audit::keys::KeyError;
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{partitions, sealing};
use serde_json::json;
use tracing::info;

use super::seal::everything;
use crate::{Context, Done, Failure, Run};

/// Checkpoints made in one transaction, and heads that are vouched for again in one.
const BATCH: i64 = 500;

/// Months of which the parts are ready ahead.
const MONTHS_AHEAD: u32 = 2;

impl Run for CheckpointRecord {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        everything(cx).await?;
        let made = match self.organization {
            Some(organization) => signed(cx, Some(organization)).await?.len(),
            None => of_everybody(cx).await?,
        };
        Ok(Done::With(json!({ "made": made })))
    }
}

async fn of_everybody(cx: &Context) -> Result<usize, Failure> {
    partitions::prepare(cx.ledger(), MONTHS_AHEAD).await?;
    let vouching = Arc::new(Vouching::with(cx.keys()));
    while sealing::vouch_again(cx.ledger(), &vouching, BATCH).await? > 0 && !cx.is_stopped() {}
    let mut count = 0;
    loop {
        let made = signed(cx, None).await?;
        if made.is_empty() {
            break;
        }
        count += made.len();
        checkpoints::witness(cx.db(), &made).await?;
        if cx.is_stopped() {
            return Err(Failure::retry("stopped in between; what is signed is signed"));
        }
    }
    // Last the platform's, which by now says what the others' are.
    everything(cx).await?;
    for platform in signed(cx, Some(OrganizationId::PLATFORM)).await? {
        count += 1;
        // Logs are kept elsewhere: whoever rewrites the platform's record would have to rewrite them too.
        info!(audit.statement = platform.statement(), "The platform's record ends at number {}", platform.sequence);
    }
    Ok(count)
}

async fn signed(cx: &Context, only: Option<OrganizationId>) -> Result<Vec<Checkpoint>, Failure> {
    let vouching = Arc::new(Vouching::with(cx.keys()));
    checkpoints::make(cx.ledger(), &vouching, only, BATCH).await.map_err(|error| match error {
        KeyError::Database(error) => Failure::from(error),
        error @ KeyError::Seal(_) => Failure::cancel(error),
    })
}
