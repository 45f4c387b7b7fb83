use gantry_jobs::maintenance::ForgetSignIns;
use gantry_schema::factors;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Rows of each table deleted per statement.
const BATCH: i64 = 5_000;

impl Run for ForgetSignIns {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        loop {
            let batch = factors::forget(cx.ledger(), cx.now(), BATCH).await?;
            forgotten += batch;
            if batch == 0 || cx.is_stopped() {
                return Ok(Done::With(json!({ "sign_ins_forgotten": forgotten })));
            }
        }
    }
}
