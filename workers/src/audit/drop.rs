use std::sync::Arc;

use gantry_jobs::audit::DropRecord;
use gantry_schema::OrganizationId;
use gantry_schema::audit::keys;
use gantry_schema::audit::policies::Keeps;
use gantry_schema::audit::retention::{self, DropError, Dropped};
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{Actor, Author};
use gantry_schema::digest::hex;
use serde_json::json;
use tracing::error;

use crate::{Context, Done, Failure, Run};

/// Organizations looked at with one question, and beginnings vouched for again in one transaction.
const BATCH: i64 = 500;

impl Run for DropRecord {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let vouching = Arc::new(Vouching::with(cx.keys()));
        while retention::vouch_again(cx.ledger(), &vouching, BATCH).await? > 0 && !cx.is_stopped() {}
        let (mut after, mut count) = (None, 0);
        loop {
            let keeping = retention::keeping(cx.ledger(), after, BATCH).await?;
            for keeps in &keeping {
                count += of_organization(cx, &vouching, *keeps).await?;
                if cx.is_stopped() {
                    return Err(Failure::retry("stopped in between; what was dropped is dropped"));
                }
            }
            match keeping.last() {
                Some(last) if i64::try_from(keeping.len()).is_ok_and(|found| found == BATCH) => {
                    after = Some(last.organization);
                }
                _ => break,
            }
        }
        Ok(if count == 0 { Done::Quietly } else { Done::With(json!({ "dropped": count })) })
    }
}

/// Drops of one organization what may be dropped. Answers how many entries that were.
async fn of_organization(cx: &Context, vouching: &Arc<Vouching>, keeps: Keeps) -> Result<i64, Failure> {
    let mut count = 0;
    while let Some(through) = retention::droppable(cx.ledger(), keeps).await? {
        let mut tx = cx.db().tenant(OrganizationId::PLATFORM).await?;
        let public_keys = keys::believed(&mut tx, cx.sealing_keys()).await.map_err(Failure::cancel)?;
        tx.rollback().await?;
        let organization = keeps.organization;
        match retention::drop_through(cx.db(), cx.ledger(), vouching, &public_keys, organization, through).await {
            Ok(Some(dropped)) => {
                count += dropped.checkpoint.sequence - dropped.first + 1;
                record(cx, organization, &dropped).await?;
            }
            Ok(None) => {}
            Err(DropError::Database(trouble)) => return Err(trouble.into()),
            // Of others something can be dropped all the same.
            Err(trouble) => {
                error!(organization.id = %organization, "Nothing is dropped of a record: {trouble}");
                break;
            }
        }
        if cx.is_stopped() {
            break;
        }
    }
    Ok(count)
}

/// What is gone is on record, with what it can be compared with.
async fn record(cx: &Context, organization: OrganizationId, dropped: &Dropped) -> Result<(), Failure> {
    let mut tx = cx.db().tenant(organization).await?.by(Arc::new(Author::new(Actor::system())));
    let draft = tx.record("audit.drop");
    draft.set("first", dropped.first).set("through", dropped.checkpoint.sequence);
    draft.set("hash", hex(&dropped.checkpoint.hash)).set("root", hex(&dropped.checkpoint.root));
    tx.commit().await?;
    Ok(())
}
