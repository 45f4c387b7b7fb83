use gantry_jobs::maintenance::ForgetAuthorizations;
use gantry_schema::oauth::authorizations;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

/// Rows of each table deleted per statement.
const BATCH: i64 = 5_000;

impl Run for ForgetAuthorizations {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        loop {
            let batch = authorizations::forget(cx.ledger(), cx.now(), BATCH).await?;
            forgotten += batch;
            if batch == 0 || cx.is_stopped() {
                return Ok(Done::With(json!({ "authorizations_forgotten": forgotten })));
            }
        }
    }
}
