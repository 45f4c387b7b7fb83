use gantry_jobs::webhooks::DeliverWebhook;
use gantry_schema::webhooks::backlog::Parked;
use serde_json::json;

use super::desk::{self, Desk};
use super::outcome::Verdict;
use crate::{Context, Done, Failure, Run};

impl Run for DeliverWebhook {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (desk, tries) = (Desk::of(cx), cx.counted_attempt() - 1);
        let wait = |due_at| Parked { endpoint: self.endpoint, event: self.event, tries, due_at };
        if desk.is_behind(self.endpoint) {
            return desk.park(cx, wait(cx.now()), true).await;
        }
        let (receiver, event) = desk.load(cx, self.endpoint, self.event).await?;
        let (Some(receiver), Some(event)) = (receiver, event) else {
            return Ok(Done::With(json!({ "skipped": "the endpoint or the event is gone" })));
        };
        // A key may be configured again, a secret be replaced.
        let receiver = receiver.map_err(Failure::retry)?;
        if !receiver.endpoint.enabled {
            return Ok(Done::With(json!({ "skipped": "the endpoint is disabled" })));
        }
        if let Some(until) = receiver.endpoint.open_until.filter(|until| *until > cx.now()) {
            return desk.park(cx, wait(until), false).await;
        }
        let Some(turn) = desk.turn(self.endpoint).await else {
            return desk.park(cx, wait(cx.now()), true).await;
        };
        let (made, latency) = desk::send(cx, &receiver, &event, None, tries, cx.is_last_attempt()).await;
        turn.end(latency);
        let (verdict, status) = (made.verdict.clone(), made.attempt.status);
        desk.record(cx, made).await?;
        match verdict {
            Verdict::Taken => Ok(Done::With(json!({ "status": status }))),
            Verdict::Later(why, Some(wait)) => Err(Failure::RetryAfter(wait, why.into())),
            Verdict::Later(why, None) => Err(Failure::retry(why)),
            Verdict::Gone(why) | Verdict::Never(why) => Err(Failure::cancel(why)),
        }
    }
}
