//! How many deliveries a process has under way to each endpoint. An endpoint that answers gets more and more; one that
//! does not is left with a few, so that it cannot occupy the slots of the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_schema::EndpointId;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Deliveries an endpoint gets at a time before it has shown how it answers. Each prompt answer lets one more go, so
/// that a good receiver has as many as it takes after a few round trips.
const AT_FIRST: usize = 8;

/// Deliveries an endpoint gets at a time at least, and at most.
const FEWEST: usize = 4;
const MOST: usize = 1_024;

/// How long a delivery waits for its turn before it goes to the backlog.
const PATIENCE: Duration = Duration::from_millis(250);

/// Deliveries that wait for their turn at an endpoint that has not shown yet that it answers. Each holds a slot that
/// others could use.
const MOST_WAITING: usize = 64;

/// An answer that takes longer earns no more deliveries at a time.
const PROMPT: Duration = Duration::from_millis(500);

/// Endpoints that are remembered while nothing is under way to them.
const REMEMBERED: usize = 10_000;

/// The deliveries under way, by endpoint.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<HashMap<EndpointId, Lane>>);

#[derive(Debug)]
struct Lane {
    under_way: usize,
    allowed: usize,
    waiting: usize,
    /// It answered promptly, and nobody waited in vain since.
    proven: bool,
    /// Somebody waited in vain, and nothing has been answered promptly since.
    stalled: bool,
    freed: Arc<Notify>,
}

impl Lane {
    const fn is_full(&self) -> bool {
        self.under_way >= self.allowed
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self { under_way: 0, allowed: AT_FIRST, waiting: 0, proven: false, stalled: false, freed: Arc::default() }
    }
}

/// A delivery's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    gate: Arc<Gate>,
    endpoint: EndpointId,
    /// How it went, if that is known.
    answered: Option<Answered>,
}

/// How a receiver answered, as far as its pace is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Promptly,
    Slowly,
    NotAtAll,
}

/// A delivery's place among those that wait for their turn, given back when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    endpoint: EndpointId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.gate.lock().get_mut(&self.endpoint) {
            lane.waiting = lane.waiting.saturating_sub(1);
        }
    }
}

impl Gate {
    /// Whether a delivery would be sent to the backlog at once.
    pub(super) fn is_behind(&self, endpoint: EndpointId) -> bool {
        self.lock().get(&endpoint).is_some_and(|lane| lane.stalled && lane.is_full())
    }

    /// A place for a delivery; `None`: the endpoint does not keep up, it should wait in the backlog.
    pub(super) async fn turn(self: &Arc<Self>, endpoint: EndpointId) -> Option<Turn> {
        let waited = timeout(PATIENCE, async {
            let mut waits: Option<Waiting<'_>> = None;
            loop {
                let freed = {
                    let mut lanes = self.lock();
                    let lane = lanes.entry(endpoint).or_default();
                    if !lane.is_full() {
                        lane.under_way += 1;
                        return true;
                    }
                    if lane.stalled || (waits.is_none() && !lane.proven && lane.waiting >= MOST_WAITING) {
                        return false;
                    }
                    if waits.is_none() {
                        lane.waiting += 1;
                        waits = Some(Waiting { gate: self, endpoint });
                    }
                    // Within the lock, so that nobody is freed between looking and waiting.
                    let mut freed = Box::pin(Arc::clone(&lane.freed).notified_owned());
                    freed.as_mut().enable();
                    freed
                };
                freed.await;
            }
        });
        match waited.await {
            Ok(true) => Some(Turn { gate: Arc::clone(self), endpoint, answered: None }),
            Ok(false) => None,
            Err(_elapsed) => {
                if let Some(lane) = self.lock().get_mut(&endpoint) {
                    (lane.stalled, lane.proven) = (true, false);
                }
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Ends the turn with the time the answer took, or without an answer.
    pub(super) fn end(mut self, latency: Option<Duration>) {
        self.answered = Some(match latency {
            Some(latency) if latency <= PROMPT => Answered::Promptly,
            Some(_) => Answered::Slowly,
            None => Answered::NotAtAll,
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lanes = self.gate.lock();
        let Some(lane) = lanes.get_mut(&self.endpoint) else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        match self.answered {
            Some(Answered::Promptly) => {
                lane.allowed = (lane.allowed + 1).min(MOST);
                (lane.stalled, lane.proven) = (false, true);
            }
            Some(Answered::NotAtAll) => lane.allowed = (lane.allowed / 2).max(FEWEST),
            Some(Answered::Slowly) | None => {}
        }
        lane.freed.notify_one();
        if lane.under_way == 0 && lane.waiting == 0 && lanes.len() > REMEMBERED {
            lanes.remove(&self.endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(number: u128) -> EndpointId {
        EndpointId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_does_not_answer_occupies_a_few_places_and_no_more() {
        let gate = Arc::new(Gate::default());
        let mut held = Vec::new();
        for _ in 0..AT_FIRST {
            held.push(gate.turn(endpoint(1)).await.unwrap());
        }
        assert!(gate.turn(endpoint(1)).await.is_none(), "it waited for its turn in vain");
        let began = tokio::time::Instant::now();
        assert!(gate.turn(endpoint(1)).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO, "the next one does not wait");
        assert!(gate.turn(endpoint(2)).await.is_some(), "another endpoint is not concerned");
        for turn in held {
            turn.end(None);
        }
        let mut held = Vec::new();
        while let Some(turn) = gate.turn(endpoint(1)).await {
            held.push(turn);
        }
        assert_eq!(held.len(), FEWEST);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_answers_gets_more_and_whoever_waits_goes_on() {
        let gate = Arc::new(Gate::default());
        let mut held = Vec::new();
        for _ in 0..AT_FIRST {
            held.push(gate.turn(endpoint(1)).await.unwrap());
        }
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.turn(endpoint(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        held.pop().unwrap().end(Some(Duration::from_millis(3)));
        assert!(waiting.await.unwrap());
        assert_eq!(gate.lock()[&endpoint(1)].allowed, AT_FIRST + 1);
    }
}
