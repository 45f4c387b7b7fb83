use gantry_jobs::webhooks::DeliverWebhook;
use gantry_schema::webhooks::backlog::Parked;
use serde_json::json;

use super::desk::{self, Desk};
use super::outcome::Verdict;
use crate::{Context, Done, Failure, Run};

impl Run for DeliverWebhook {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let desk = cx.shared::<Desk>();
        let (receiver, event) = desk.load(cx, self.endpoint, self.event).await?;
        let (Some(receiver), Some(event)) = (receiver, event) else {
            return Ok(Done::With(json!({ "skipped": "the endpoint or the event is gone" })));
        };
        // A key may be configured again, a secret be replaced.
        let receiver = receiver.map_err(Failure::retry)?;
        if !receiver.endpoint.enabled {
            return Ok(Done::With(json!({ "skipped": "the endpoint is disabled" })));
        }
        let tries = cx.counted_attempt() - 1;
        let wait = |due_at| Parked { endpoint: self.endpoint, event: self.event, tries, due_at };
        if let Some(until) = receiver.endpoint.open_until.filter(|until| *until > cx.now()) {
            desk.park(cx, wait(until)).await?;
            return Ok(Done::With(json!({ "parked": "the endpoint does not answer; it is delivered when it does" })));
        }
        let Some(turn) = desk.turn(self.endpoint).await else {
            desk.park(cx, wait(cx.now())).await?;
            return Ok(Done::With(json!({ "parked": "the endpoint does not keep up; it is delivered in its turn" })));
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
