use gantry_jobs::maintenance::ForgetAnswers;
use gantry_schema::idempotency;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Rows deleted per statement.
const BATCH: i64 = 5_000;

impl Run for ForgetAnswers {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        loop {
            let batch = idempotency::forget(cx.ledger(), cx.now(), BATCH).await?;
            forgotten += batch;
            if batch < BATCH.unsigned_abs() || cx.is_stopped() {
                return Ok(Done::With(json!({ "answers_forgotten": forgotten })));
            }
        }
    }
}
