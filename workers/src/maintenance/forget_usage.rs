use gantry_jobs::maintenance::ForgetUsage;
use gantry_schema::usage::{self, Step};
use serde_json::json;

use crate::{Context, Done, Failure, Run};

impl Run for ForgetUsage {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut forgotten = 0;
        for step in Step::ALL {
            loop {
                let stretch = usage::forget(cx.ledger(), step, cx.now()).await?;
                forgotten += stretch;
                if stretch == 0 || cx.is_stopped() {
                    break;
                }
            }
        }
        Ok(Done::With(json!({ "rows_forgotten": forgotten })))
    }
}
