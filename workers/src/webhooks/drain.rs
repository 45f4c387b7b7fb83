use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _};
use gantry_jobs::Job as _;
use gantry_jobs::webhooks::{DeliverWebhook, DrainBacklog, LADDER};
use gantry_schema::webhooks::backlog::{self, Waiting};
use gantry_schema::webhooks::{Event, endpoints, health};
use gantry_schema::{EndpointId, EventId, TenantTx};
use rand::RngExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::desk::{self, Desk};
use super::message::Receiver;
use super::outcome::{Made, Verdict};
use crate::{Context, Done, Failure, Run};

/// How long one job works before it makes room for others and asks for its successor.
const BUDGET: Duration = Duration::from_secs(20);

/// Deliveries that are read, sent at the same time where the order does not matter, and written down together: so many
/// at first and after each failure, and twice as many each time that all arrive. One job holds one slot, whatever it
/// sends at a time.
const FEWEST: usize = 16;
const MOST: usize = 128;

impl Run for DrainBacklog {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (desk, ends) = (Desk::of(cx), Instant::now() + BUDGET);
        let mut shift = Shift { cx, endpoint: self.endpoint, ends, pace: Pace::default(), at_a_time: FEWEST };
        loop {
            let mut tx = cx.begin().await?;
            let endpoint = endpoints::find(&mut tx, self.endpoint).await?;
            let Some(endpoint) = endpoint.filter(|endpoint| endpoint.enabled) else {
                tx.commit().await?;
                return Ok(Done::With(json!({ "skipped": "the endpoint is gone or disabled" })));
            };
            if let Some(until) = endpoint.open_until.filter(|until| *until > cx.now()) {
                return shift.again_at(tx, until).await;
            }
            if shift.is_over() {
                return shift.again_at(tx, cx.now()).await;
            }
            let half_open = endpoint.consecutive_failures >= health::OPENS_AFTER;
            let limit = if half_open { 1 } else { shift.at_a_time };
            let waiting = backlog::oldest(&mut tx, self.endpoint, endpoint.ordered, limit).await?;
            // What comes first in an ordered backlog is waited for; in others whatever is due goes.
            let due = match waiting.first() {
                Some(first) if endpoint.ordered => Some(first.due_at),
                Some(_) => None,
                None => backlog::next_due(&mut tx, self.endpoint).await?,
            };
            match due.filter(|due| *due > cx.now()) {
                Some(due) => return shift.again_at(tx, due).await,
                None if waiting.is_empty() => {
                    if endpoint.behind_until.is_some() {
                        endpoints::caught_up(&mut tx, self.endpoint).await?;
                    }
                    return cx.complete(tx).await;
                }
                None => {}
            }
            let wanted: Vec<(EndpointId, EventId)> =
                waiting.iter().map(|waiting| (self.endpoint, waiting.event)).collect();
            let loaded = desk.load_within(&mut tx, &wanted).await?;
            let Some(Some(receiver)) = loaded.first().map(|(receiver, _)| receiver.clone()) else {
                tx.commit().await?;
                continue;
            };
            let receiver = receiver.map_err(Failure::retry)?;
            // An event that was forgotten meanwhile is no longer waited for.
            let (forgotten, found): (Vec<_>, Vec<_>) =
                waiting.into_iter().zip(loaded).partition(|(_, (_, event))| event.is_none());
            let forgotten: Vec<i64> = forgotten.into_iter().map(|(waiting, _)| waiting.place).collect();
            backlog::remove(&mut tx, self.endpoint, &forgotten).await?;
            tx.commit().await?;
            let found = found.into_iter().filter_map(|(waiting, (_, event))| Some((waiting, event?))).collect();
            shift.pace.set(receiver.endpoint.rate_per_second);
            if receiver.endpoint.ordered {
                shift.in_order(&receiver, found).await?;
            } else {
                shift.side_by_side(&receiver, found).await?;
            }
        }
    }
}

/// One job's work on a backlog.
struct Shift<'a> {
    cx: &'a Context,
    endpoint: EndpointId,
    ends: Instant,
    pace: Pace,
    at_a_time: usize,
}

impl Shift<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends || self.cx.is_stopped()
    }

    /// Ends, and has the rest done then.
    async fn again_at(&self, mut tx: TenantTx, at: DateTime<Utc>) -> Result<Done, Failure> {
        DrainBacklog::when_due(self.endpoint).request().at(at).enqueue(&mut tx, &self.cx.by()).await?;
        self.cx.complete(tx).await
    }

    /// One after the other; the first that fails ends it. Each is written down before the next is sent.
    async fn in_order(&mut self, receiver: &Receiver, deliveries: Vec<(Waiting, Arc<Event>)>) -> Result<(), Failure> {
        for (waiting, event) in deliveries {
            if waiting.due_at > self.cx.now() || self.is_over() {
                return Ok(());
            }
            sleep_until(self.pace.next()).await;
            // Never given up: what follows would arrive with a gap before it.
            let (made, _) = desk::send(self.cx, receiver, &event, waiting.number, waiting.tries, false).await;
            let taken = made.verdict == Verdict::Taken;
            self.write_down(vec![(waiting, made)], true).await?;
            if !taken {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Several at a time.
    async fn side_by_side(
        &mut self,
        receiver: &Receiver,
        deliveries: Vec<(Waiting, Arc<Event>)>,
    ) -> Result<(), Failure> {
        let cx = self.cx;
        let turns: Vec<_> = deliveries.into_iter().map(|delivery| (delivery, self.pace.next())).collect();
        let sending = stream::iter(turns).map(|((waiting, event), turn)| async move {
            sleep_until(turn).await;
            let last = waiting.tries + 1 >= DeliverWebhook::POLICY.max_attempts;
            let (made, _) = desk::send(cx, receiver, &event, None, waiting.tries, last).await;
            (waiting, made)
        });
        let made: Vec<(Waiting, Made)> = sending.buffer_unordered(self.at_a_time).collect().await;
        self.write_down(made, false).await
    }

    /// Writes down what came of deliveries, and takes them out of the backlog or puts them off.
    async fn write_down(&mut self, made: Vec<(Waiting, Made)>, ordered: bool) -> Result<(), Failure> {
        let now = self.cx.now();
        let all_taken = made.iter().all(|(_, made)| made.verdict == Verdict::Taken);
        self.at_a_time = if all_taken { (self.at_a_time * 2).min(MOST) } else { FEWEST };
        let mut tx = self.cx.begin().await?;
        let mut done = Vec::new();
        for (waiting, Made { verdict, last, .. }) in &made {
            let over = match verdict {
                Verdict::Taken => true,
                Verdict::Later(..) => *last,
                Verdict::Never(_) => !ordered,
                // It waits for the day on which the endpoint is enabled again.
                Verdict::Gone(_) => false,
            };
            if over {
                done.push(waiting.place);
                continue;
            }
            let asked = match verdict {
                Verdict::Later(_, wait) => *wait,
                _ => None,
            };
            let wait = asked.unwrap_or_else(|| LADDER.wait(waiting.tries + 1, rand::rng().random()));
            let wait = chrono::Duration::from_std(wait).unwrap_or(chrono::Duration::hours(24));
            backlog::put_off(&mut tx, self.endpoint, waiting.place, now + wait).await?;
        }
        backlog::remove(&mut tx, self.endpoint, &done).await?;
        let made: Vec<Made> = made.into_iter().map(|(_, made)| made).collect();
        desk::write_down(&mut tx, &made).await?;
        Ok(tx.commit().await?)
    }
}

/// When the next delivery may be sent.
#[derive(Debug, Default)]
struct Pace {
    between: Duration,
    next: Option<Instant>,
}

impl Pace {
    fn set(&mut self, per_second: Option<i32>) {
        let per_second = per_second.and_then(|rate| u32::try_from(rate).ok()).filter(|rate| *rate > 0);
        self.between = per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate);
    }

    fn next(&mut self) -> Instant {
        let turn = self.next.map_or_else(Instant::now, |next| next.max(Instant::now()));
        self.next = Some(turn + self.between);
        turn
    }
}
