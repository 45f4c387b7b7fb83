use gantry_jobs::maintenance::ForgetUsage;
use gantry_schema::usage::{self, Step};
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Rows deleted per statement.
const BATCH: i64 = 5_000;

impl Run for ForgetUsage {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        for step in Step::ALL {
            loop {
                let batch = usage::forget(cx.ledger(), step, cx.now(), BATCH).await?;
                forgotten += batch;
                if batch < BATCH.unsigned_abs() || cx.is_stopped() {
                    break;
                }
            }
        }
        Ok(Done::With(json!({ "rows_forgotten": forgotten })))
    }
}
