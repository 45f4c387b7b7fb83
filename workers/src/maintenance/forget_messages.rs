use gantry_jobs::maintenance::ForgetMessages;
use gantry_schema::messages::queries;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Rows deleted per statement.
const BATCH: i64 = 5_000;

impl Run for ForgetMessages {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        loop {
            let batch = queries::forget(cx.ledger(), cx.now(), BATCH).await?;
            forgotten += batch;
            if batch < BATCH.unsigned_abs() || cx.is_stopped() {
                return Ok(Done::With(json!({ "messages_forgotten": forgotten })));
            }
        }
    }
}
