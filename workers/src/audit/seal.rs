use std::sync::Arc;

use gantry_jobs::Job as _;
use gantry_jobs::audit::{ForwardRecord, SealRecord};
use gantry_schema::audit::policies;
use gantry_schema::audit::sealing;
use gantry_schema::audit::vouching::Vouching;
use serde_json::json;
use tracing::error;

use crate::{Context, Done, Failure, Run};

/// Entries sealed in one transaction.
const BATCH: i64 = 2_000;

impl Run for SealRecord {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let sealed = everything(cx).await?;
        forward(cx).await?;
        Ok(match sealed {
            0 => Done::Quietly,
            sealed => Done::With(json!({ "sealed": sealed })),
        })
    }
}

/// Asks for what is sealed to go on, where it is to.
async fn forward(cx: &Context) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let behind = policies::behind(cx.ledger(), after, BATCH).await?;
        for organization in &behind {
            let mut tx = cx.db().tenant(*organization).await?;
            ForwardRecord::default().request().enqueue(&mut tx, &cx.by()).await?;
            tx.commit().await?;
        }
        match behind.last() {
            Some(last) if i64::try_from(behind.len()).is_ok_and(|found| found == BATCH) => after = Some(*last),
            _ => return Ok(()),
        }
    }
}

/// Seals what there is. Answers how many entries that were.
pub(super) async fn everything(cx: &Context) -> Result<usize, Failure> {
    let vouching = Arc::new(Vouching::with(cx.keys()));
    let mut count = 0;
    loop {
        let sealed = sealing::seal(cx.ledger(), &vouching, BATCH).await?;
        count += sealed.entries;
        metrics::counter!("gantry_audit_sealed_total").increment(sealed.entries as u64);
        // Whoever watches the platform wants to know at once; what exactly was done to the record, verification tells.
        metrics::counter!("gantry_audit_doubtful_total").increment((sealed.forged.len() + sealed.broken.len()) as u64);
        for entry in &sealed.forged {
            error!(entry.id = %entry, "An entry of the record was not written by this installation, or was changed");
        }
        for organization in &sealed.broken {
            error!(organization.id = %organization, "The end of an organization's record was changed by somebody else");
        }
        if !sealed.more || cx.is_stopped() {
            return Ok(count);
        }
    }
}
