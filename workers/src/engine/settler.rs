//! Writing outcomes down, many in one statement: whatever ended while the last statement ran goes with the
//! next one. No outcome is dropped while the process lives; it is repeated until the database takes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_jobs::doorbell::base_key;
use gantry_jobs::{Queue, signals};
use gantry_schema::jobs::settle::{self, Setback, Success};
use gantry_schema::jobs::workflow;
use gantry_schema::{ClaimId, JobId, OrganizationId};
use redis::aio::ConnectionManager;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::in_time;
use super::pop::Popped;
use super::running::Running;
use crate::Runtime;
use crate::execute::Settlement;

/// Outcomes in one statement.
const MAX_BATCH: usize = 500;

/// Outcomes that wait to be written; then finished handlers wait, and with them their slots.
const MAX_WAITING: usize = 10_000;

/// Where outcomes are reported. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    sender: mpsc::WeakSender<Settlement>,
    keep: Arc<std::sync::Mutex<Option<mpsc::Sender<Settlement>>>>,
    redis: RedisHandle,
    namespace: Arc<str>,
}

#[derive(Clone)]
struct RedisHandle(ConnectionManager);

impl std::fmt::Debug for RedisHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Settler {
    /// A settler, and the future that does the writing until the settler is closed.
    pub(super) fn new(
        runtime: &Runtime,
        redis: ConnectionManager,
        namespace: &str,
        running: Running,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let settler = Self {
            sender: sender.downgrade(),
            keep: Arc::new(std::sync::Mutex::new(Some(sender))),
            redis: RedisHandle(redis.clone()),
            namespace: namespace.into(),
        };
        let writer = Writer {
            runtime: runtime.clone(),
            running,
            redis,
            ended_channel: signals::ended_channel(namespace),
            namespace: namespace.into(),
        };
        (settler, writer.write(waiting))
    }

    /// Reports an outcome; waits while too many wait.
    pub(super) async fn settle(&self, settlement: Settlement) {
        if let Some(sender) = self.sender.upgrade() {
            // The writer only ends after the settler was closed; then the lease runs out and the job runs again.
            drop(sender.send(settlement).await);
        }
    }

    /// Reports an outcome from where nothing can be waited for.
    pub(super) fn settle_later(&self, settlement: Settlement) {
        let settler = self.clone();
        tokio::spawn(async move { settler.settle(settlement).await });
    }

    /// Nothing more will be reported; the writer ends when everything is written.
    pub(super) fn close(&self) {
        drop(self.keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }

    /// Frees places under limits that were taken in vain.
    pub(super) async fn free_places(&self, queue: Queue, unclaimed: &[Popped]) {
        let base = base_key(&self.namespace, queue.as_str());
        let places: Vec<_> = unclaimed
            .iter()
            .map(|popped| (popped.id, popped.limited.unwrap_or_default(), Some(popped.until)))
            .collect();
        // Places not freed here are freed by their time.
        drop(free_places(&mut self.redis.0.clone(), &base, &places).await);
    }
}

struct Writer {
    runtime: Runtime,
    running: Running,
    redis: ConnectionManager,
    ended_channel: String,
    namespace: String,
}

#[derive(Default)]
struct Batch {
    successes: Vec<Success>,
    setbacks: Vec<Setback>,
    committed: Vec<(JobId, i32)>,
    lost: Vec<(JobId, i32)>,
}

impl Batch {
    fn add(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Succeeded(success) => self.successes.push(success),
            Settlement::SetBack(setback) => self.setbacks.push(setback),
            Settlement::Committed(job, attempt) => self.committed.push((job, attempt)),
            Settlement::Lost(job, attempt) => self.lost.push((job, attempt)),
        }
    }

    fn attempts(&self) -> impl Iterator<Item = (JobId, i32)> {
        self.successes
            .iter()
            .map(|success| (success.id, success.attempt))
            .chain(self.setbacks.iter().map(|setback| (setback.id, setback.attempt)))
            .chain(self.committed.iter().copied())
            .chain(self.lost.iter().copied())
    }

    fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.attempts().map(|(job, _)| job)
    }
}

impl Writer {
    async fn write(mut self, mut waiting: mpsc::Receiver<Settlement>) {
        let mut received = Vec::with_capacity(MAX_BATCH);
        while waiting.recv_many(&mut received, MAX_BATCH).await > 0 {
            let mut batch = Batch::default();
            received.drain(..).for_each(|settlement| batch.add(settlement));
            self.settle(batch).await;
        }
    }

    async fn settle(&mut self, batch: Batch) {
        let places: Vec<(JobId, Queue, OrganizationId)> = batch
            .jobs()
            .filter_map(|job| self.running.place(job).map(|(queue, organization)| (job, queue, organization)))
            .collect();
        let ended_claims = self.running.end(batch.attempts(), &batch.lost);
        let mut failures = 0_u32;
        while let Err(error) = in_time(self.write_down(&batch, &ended_claims)).await {
            if failures == 0 {
                warn!("Outcomes of {} jobs cannot be written down yet: {error}", places.len());
            }
            let wait = Duration::from_millis(100 << failures.min(5));
            failures = failures.saturating_add(1);
            tokio::time::sleep(wait).await;
        }
        if failures > 0 {
            info!("Outcomes are written down again");
        }
        self.running.forget(&ended_claims);
        self.tell(&batch, &places).await;
    }

    /// Repeating it is harmless: what was written no longer matches its attempt's state.
    async fn write_down(&self, batch: &Batch, ended_claims: &[ClaimId]) -> Result<(), sqlx::Error> {
        let ledger = &self.runtime.ledger;
        let mut expected = batch.successes.len();
        let mut settled = 0;
        if !batch.setbacks.is_empty() {
            expected += batch.setbacks.len();
            settled += settle::set_back(ledger, &batch.setbacks, &[]).await?.len();
        }
        if !batch.committed.is_empty() {
            let committed: Vec<JobId> = batch.committed.iter().map(|(job, _)| *job).collect();
            workflow::advance(ledger, &committed).await?;
        }
        if !batch.successes.is_empty() || !ended_claims.is_empty() {
            settled += settle::succeed(ledger, &batch.successes, ended_claims).await?.len();
        }
        let fenced = (expected - settled.min(expected)) + batch.lost.len();
        if fenced > 0 {
            metrics::counter!("gantry_outcomes_fenced_total").increment(fenced as u64);
        }
        Ok(())
    }

    /// Wakes whoever waits for the jobs, and frees their places under limits.
    async fn tell(&mut self, batch: &Batch, places: &[(JobId, Queue, OrganizationId)]) {
        let ended: Vec<JobId> = batch.jobs().collect();
        let told = signals::publish(&mut self.redis, &self.ended_channel, &ended).await;
        if told.is_err() {
            // Who waits looks by himself now and then; places are freed by their time.
            return;
        }
        let mut by_queue: HashMap<Queue, Vec<Place>> = HashMap::new();
        for (job, queue, organization) in places {
            by_queue.entry(*queue).or_default().push((job.uuid(), organization.uuid(), None));
        }
        for (queue, jobs) in by_queue {
            drop(free_places(&mut self.redis, &base_key(&self.namespace, queue.as_str()), &jobs).await);
        }
    }
}

/// Frees places, and rings when a limit may have held jobs back.
const FREE: &str = r"
local base = KEYS[1]
if redis.call('EXISTS', base .. ':limits') == 0 then return 0 end
local freed = 0
local function free(key, job, held_until)
    if held_until == '' or tonumber(redis.call('ZSCORE', key, job) or 0) == tonumber(held_until) then
        freed = freed + redis.call('ZREM', key, job)
    end
end
for i = 1, #ARGV, 3 do
    free(base .. ':running', ARGV[i], ARGV[i + 2])
    free(base .. ':running:' .. ARGV[i + 1], ARGV[i], ARGV[i + 2])
end
if freed > 0 and redis.call('EXISTS', base .. ':turns') == 1 and redis.call('LLEN', base .. ':bell') == 0 then
    redis.call('RPUSH', base .. ':bell', 1)
end
return freed
";

/// A job, its organization, and until when its place was held if it is only to be freed if it still is that one:
/// the job may run elsewhere.
type Place = (uuid::Uuid, uuid::Uuid, Option<i64>);

async fn free_places(redis: &mut ConnectionManager, base: &str, places: &[Place]) -> redis::RedisResult<u64> {
    let script = redis::Script::new(FREE);
    let mut call = script.prepare_invoke();
    call.key(base);
    for (job, organization, until) in places {
        call.arg(&job.as_bytes()[..]).arg(&organization.as_bytes()[..]);
        call.arg(until.map(|until| until.to_string()).unwrap_or_default());
    }
    call.invoke_async(redis).await
}
