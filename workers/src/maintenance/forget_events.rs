use chrono::Duration;
use gantry_jobs::maintenance::ForgetEvents;
use gantry_schema::webhooks::events;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// How long events and attempts are kept.
const KEPT: Duration = Duration::days(30);

/// Rows deleted per statement and table.
const BATCH: i64 = 10_000;

impl Run for ForgetEvents {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        while !cx.is_stopped() {
            let batch = events::forget(cx.ledger(), cx.now() - KEPT, BATCH).await?;
            forgotten += batch;
            if batch == 0 {
                break;
            }
        }
        Ok(Done::With(json!({ "forgotten": forgotten })))
    }
}
