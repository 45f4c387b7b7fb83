//! Fetching: wait for a free slot, pop ids, claim them, hand the jobs on. What cannot be begun soon is left
//! to others.

use std::sync::Arc;
use std::time::Duration;

use gantry_jobs::Queue;
use gantry_schema::ClaimId;
use gantry_schema::jobs::claim::{self, Claimed};
use gantry_schema::jobs::settle::Next;
use redis::aio::MultiplexedConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{info, warn};

use super::backend::Work;
use super::pool::HandBack;
use super::pop::{Popped, Popper};
use super::rate;
use super::{Parts, in_time};
use crate::execute::{self, Settlement};

/// Jobs in one claim.
const MAX_BATCH: usize = 500;

/// How long one blocking command waits for the bell.
const BELL_SECONDS: u64 = 5;

/// Fetches jobs of a queue until the worker stops.
pub(super) async fn fetch(
    parts: Parts,
    queue: Queue,
    free: Arc<Semaphore>,
    to: mpsc::Sender<Work>,
    hand_back: HandBack,
) {
    let popper = Popper::new(parts.redis.clone(), &parts.config.namespace, queue);
    let stop = parts.stop.clone();
    let mut fetcher = Fetcher { parts, queue, popper, blocking: None, failures: 0, to, hand_back };
    // Waiting may be given up at any moment; what was popped is dealt with first.
    while let Some(slots) = stop.run_until_cancelled(some_slots(&free)).await {
        match fetcher.pop(slots.num_permits()).await {
            Ok(popped) if popped.is_empty() => {
                drop(slots);
                stop.run_until_cancelled(fetcher.wait_for_bell()).await;
            }
            Ok(popped) => fetcher.begin(popped, slots).await,
            Err(error) => {
                drop(slots);
                stop.run_until_cancelled(fetcher.wait_out(&error)).await;
            }
        }
    }
}

/// At least one slot, and what else is free, up to a batch.
async fn some_slots(free: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let mut slots = Arc::clone(free).acquire_owned().await.expect("nobody closes the slots");
    let more = u32::try_from(free.available_permits().min(MAX_BATCH - 1)).unwrap_or(0);
    if let Ok(more) = Arc::clone(free).try_acquire_many_owned(more) {
        slots.merge(more);
    }
    slots
}

struct Fetcher {
    parts: Parts,
    queue: Queue,
    popper: Popper,
    /// A connection of its own: a blocking command makes whoever shares it wait.
    blocking: Option<MultiplexedConnection>,
    /// How often in a row Redis did not answer.
    failures: u32,
    to: mpsc::Sender<Work>,
    hand_back: HandBack,
}

impl Fetcher {
    async fn pop(&mut self, want: usize) -> redis::RedisResult<Vec<Popped>> {
        if self.parts.controls.now().is_paused(self.queue) {
            return Ok(Vec::new());
        }
        let now = self.parts.runtime.ledger.now().timestamp_millis();
        let popped = self.popper.pop(want, now).await?;
        if self.failures > 0 {
            info!("Redis answers again");
            self.failures = 0;
            self.parts.health.send_if_modified(|health| !std::mem::replace(&mut health.redis, true));
        }
        Ok(popped)
    }

    /// Blocks until somebody rings, for some seconds at most. Any error is seen again by the next pop.
    async fn wait_for_bell(&mut self) {
        let patience = Duration::from_secs(BELL_SECONDS);
        let rung = async {
            if self.blocking.is_none() {
                let client = redis::Client::open(self.parts.config.redis_url.as_str())?;
                let config = redis::AsyncConnectionConfig::new()
                    .set_response_timeout(Some(patience + Duration::from_secs(5)))
                    .set_connection_timeout(Some(patience));
                self.blocking = Some(client.get_multiplexed_async_connection_with_config(&config).await?);
            }
            let Some(connection) = &mut self.blocking else { return Ok(()) };
            let mut wait = redis::cmd("BLPOP");
            wait.arg(self.popper.bell()).arg(BELL_SECONDS);
            wait.query_async::<redis::Value>(connection).await.map(drop)
        };
        let rung: redis::RedisResult<()> = rung.await;
        if rung.is_err() {
            self.blocking = None;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Redis went away: the jobs are safe, so wait, longer each time.
    async fn wait_out(&mut self, error: &redis::RedisError) {
        if self.failures == 0 {
            warn!(queue = %self.queue, "Redis does not answer, jobs wait in the ledger until it does: {error}");
            self.parts.health.send_if_modified(|health| std::mem::replace(&mut health.redis, false));
        }
        let wait = Duration::from_millis(100 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(wait).await;
    }

    /// Claims what was popped and hands it on, each job with its slot.
    async fn begin(&mut self, popped: Vec<Popped>, mut slots: OwnedSemaphorePermit) {
        let (plain, careful): (Vec<Popped>, Vec<Popped>) = popped.into_iter().partition(|popped| !popped.careful);
        let mut begun = 0;
        for batch in [plain, careful] {
            if batch.is_empty() {
                continue;
            }
            let (claim, asked, claimed) = self.claim(&batch).await;
            let lost = batch.len() - claimed.len();
            if lost > 0 {
                metrics::counter!("gantry_claims_lost_total", "queue" => self.queue.as_str()).increment(lost as u64);
                self.give_places_back(&batch, &claimed).await;
            }
            begun += claimed.len();
            self.hand_on(claim, claimed, &mut slots, asked).await;
        }
        metrics::counter!("gantry_jobs_claimed_total", "queue" => self.queue.as_str()).increment(begun as u64);
    }

    /// Claims. While PostgreSQL does not answer, the ids are kept and no more are popped: a worker that is cut off
    /// would otherwise eat what others can do. The sweep offers the ids to the others meanwhile. Also answers
    /// when the claim was asked for, and its id: another one each time, for the one before may have happened.
    async fn claim(&self, batch: &[Popped]) -> (ClaimId, Instant, Vec<Claimed>) {
        let Parts { runtime, controls, stop, .. } = &self.parts;
        let mut ids: Vec<uuid::Uuid> = batch.iter().map(|popped| popped.id).collect();
        let mut failures = 0_u32;
        loop {
            let (claim, asked) = (runtime.ledger.ids().mint(), Instant::now());
            let settings = controls.now();
            let claimed = if batch[0].careful {
                in_time(claim::claim_careful(
                    &runtime.ledger,
                    runtime.worker,
                    claim,
                    &ids,
                    settings.paused_in(self.queue),
                ))
                .await
            } else {
                in_time(claim::claim(&runtime.ledger, runtime.worker, claim, &mut ids, settings.paused_in(self.queue)))
                    .await
            };
            drop(settings);
            let error = match claimed {
                Ok(claimed) => return (claim, asked, claimed),
                Err(error) => error,
            };
            if failures == 0 {
                warn!(queue = %self.queue, "Could not claim {} jobs yet, others may: {error}", batch.len());
            }
            let wait = Duration::from_millis(10 << failures.min(6));
            failures = failures.saturating_add(1);
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return (claim, asked, Vec::new());
            }
        }
    }

    /// Places under a limit that were taken for ids that could not be claimed.
    async fn give_places_back(&self, batch: &[Popped], claimed: &[Claimed]) {
        let settings = self.parts.controls.now();
        if !settings.limits_queue(self.queue) && !settings.limits_organizations() {
            return;
        }
        let unclaimed: Vec<Popped> =
            batch.iter().filter(|popped| claimed.iter().all(|job| job.id.uuid() != popped.id)).copied().collect();
        self.parts.settler.free_places(self.queue, &unclaimed).await;
    }

    async fn hand_on(
        &mut self,
        claim: ClaimId,
        claimed: Vec<Claimed>,
        slots: &mut OwnedSemaphorePermit,
        asked: Instant,
    ) {
        let running = self.parts.running.clone();
        running.claimed(claim, claimed.len());
        // A worker that slept through its lease (a suspended machine) must not begin what others have by now.
        let late = claimed.iter().any(|job| asked.elapsed() >= job.lease());
        for job in claimed {
            let stopper = running.begin(&job, claim, self.queue);
            if late {
                self.parts.settler.settle(Settlement::Lost(job.id, job.attempt)).await;
                continue;
            }
            let Some(slot) = slots.split(1) else { unreachable!("no more is popped than there are slots") };
            if let Some(settlement) = self.over_rate(&job).await {
                self.parts.settler.settle(settlement).await;
                continue;
            }
            let wait = (self.parts.runtime.ledger.now() - job.run_at).to_std().unwrap_or_default();
            self.parts.waits.record(wait.as_secs_f64());
            if let Err(mpsc::error::SendError(work)) = self.to.send(Work { job, stopper, slot }).await {
                self.hand_back.take(work);
            }
        }
    }

    /// A job over its rate goes back until its place comes.
    async fn over_rate(&mut self, job: &Claimed) -> Option<Settlement> {
        let key = job.rate_key.as_deref()?;
        let rate = self.parts.controls.now().rate(key)?;
        let Parts { runtime, config, redis, .. } = &mut self.parts;
        let now = runtime.ledger.now();
        match rate::reserve(redis, &config.namespace, key, rate, job.id, now.timestamp_millis()).await {
            Ok(None) => None,
            Ok(Some(wait)) => Some(execute::set_back(
                runtime,
                job,
                Next::Snooze(now + wait),
                "snoozed",
                format!("the rate {key} allows it later"),
            )),
            Err(error) => Some(execute::set_back(
                runtime,
                job,
                Next::Snooze(now + Duration::from_secs(1)),
                "snoozed",
                format!("the rate {key} cannot be told: {error}"),
            )),
        }
    }
}
