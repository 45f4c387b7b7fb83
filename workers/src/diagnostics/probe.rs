use std::time::Duration;

use gantry_jobs::diagnostics::Probe;
use serde_json::json;

use crate::{Context, Done, Failure, Run};

impl Run for Probe {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let steps = self.steps.min(1_000);
        for step in 1..=steps {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(self.step_milliseconds.min(10_000).into())) => {}
                () = cx.stopped() => return Err(Failure::Snooze(Duration::ZERO, "told to stop".to_owned())),
            }
            cx.log(format!("step {step} of {steps}")).await?;
            cx.progress(&json!({ "done": step, "of": steps })).await?;
        }
        if cx.counted_attempt() <= self.failures.into() {
            return Err(Failure::retry(format!("attempt {} fails, as asked", cx.counted_attempt())));
        }
        Ok(Done::With(json!({ "message": self.message })))
    }
}
