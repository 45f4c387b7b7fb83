//! Running one attempt of one job, whatever it does: succeed, fail, panic, hang, ignore that it should stop.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use gantry_jobs::signals;
use gantry_providers::Providers;
use gantry_schema::jobs::Failure as History;
use gantry_schema::jobs::claim::Claimed;
use gantry_schema::jobs::settle::{Next, Setback, Success};
use gantry_schema::licenses::{PublicKey, Trust};
use gantry_schema::seal::SealingKeys;
use gantry_schema::{Db, EngineDb, JobId, WorkerId};
use rand::RngExt as _;
use redis::aio::ConnectionManager;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};

use crate::registry::Handler;
use crate::shared::Shared;
use crate::{Context, Done, Failure, Registry, licenses};

/// What every handler of a process runs on. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Who runs them.
    pub worker: WorkerId,
    /// The database, scoped to organizations.
    pub db: Db,
    /// The ledger of jobs.
    pub ledger: EngineDb,
    /// Which kinds can be done.
    pub registry: Arc<Registry>,
    /// The outside world.
    pub providers: Arc<Providers>,
    /// What opens sealed secrets.
    pub sealing_keys: Arc<SealingKeys>,
    /// Keys of others whose licenses are believed.
    pub license_issuers: Arc<[PublicKey]>,
    /// Where news of running jobs are told, if anybody could listen.
    pub news: Option<News>,
    /// What handlers of this process have in common.
    pub shared: Shared,
}

/// Where news of running jobs are told.
#[derive(Clone)]
pub struct News {
    /// The connection.
    pub redis: ConnectionManager,
    /// The channel.
    pub channel: Arc<str>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Whose licenses are believed.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust { keys: Arc::clone(&self.sealing_keys), pinned: self.license_issuers.to_vec() }
    }

    /// Tells whoever follows the job to look again.
    pub(crate) fn news(&self, job: JobId) {
        let Some(News { mut redis, channel }) = self.news.clone() else { return };
        tokio::spawn(async move { signals::publish(&mut redis, &channel, &[job]).await });
    }
}

/// What became of an attempt, to be written down.
#[derive(Debug, Clone)]
pub(crate) enum Settlement {
    Succeeded(Success),
    SetBack(Setback),
    /// The handler's own transaction ended the job with this attempt.
    Committed(JobId, i32),
    /// The attempt no longer counts: the job is somebody else's by now, or may be.
    Lost(JobId, i32),
}

/// Why a handler was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// The job is no longer this worker's.
    Lost,
    /// The worker leaves.
    Leaving,
}

/// Tells a handler to stop, and why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopper {
    token: CancellationToken,
    why: Arc<std::sync::OnceLock<Stop>>,
}

impl Stopper {
    pub(crate) fn stop(&self, why: Stop) {
        // The first reason counts.
        let _already = self.why.set(why);
        self.token.cancel();
    }
}

enum Ended {
    Returned(Result<Done, Failure>),
    Panicked(String),
    TimedOut(Duration),
    /// It was told to stop, and did or was dropped.
    Stopped(Stop),
}

/// Runs the attempt to whatever end.
pub(crate) async fn execute(runtime: &Runtime, job: Claimed, stopper: Stopper) -> Settlement {
    let now = runtime.db.now();
    if job.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return set_back(runtime, &job, Next::Cancel, "expired", "its time to start was over".to_owned());
    }
    let Some(handler) = runtime.registry.get(&job.kind) else {
        return unknown_kind(runtime, &job);
    };
    let job = Arc::new(job);
    let span = info_span!(
        "job",
        job.id = %job.id,
        job.kind = handler.kind,
        job.attempt = job.attempt,
        trace.id = tracing::field::Empty
    );
    gantry_jobs::process::continue_trace(&span, job.traceparent.as_deref());
    async {
        match licenses::allow::refused(runtime, &handler.policy, job.organization).await {
            Ok(None) => {}
            Ok(Some(why)) => return set_back(runtime, &job, Next::Discard, "unlicensed", why),
            Err(trouble) => return settle(runtime, handler, &job, Ended::Returned(Err(trouble.into()))),
        }
        let started = Instant::now();
        let ended = run(runtime, handler, Arc::clone(&job), &stopper).await;
        handler.seconds.record(started.elapsed().as_secs_f64());
        settle(runtime, handler, &job, ended)
    }
    .instrument(span)
    .await
}

/// A worker of another release may know the kind, so the job waits; but not for ever.
fn unknown_kind(runtime: &Runtime, job: &Claimed) -> Settlement {
    const PATIENCE: i32 = 100;
    warn!(job.id = %job.id, job.kind = job.kind, "This worker does not know the kind {}", job.kind);
    let next = if job.uncounted < PATIENCE {
        Next::Snooze(runtime.db.now() + chrono::Duration::seconds(30))
    } else {
        Next::Discard
    };
    set_back(runtime, job, next, "unknown_kind", format!("no worker knows the kind {}", job.kind))
}

async fn run(runtime: &Runtime, handler: &Handler, job: Arc<Claimed>, stopper: &Stopper) -> Ended {
    let cx = Context::new(Arc::clone(&job), runtime.clone(), stopper.token.clone());
    let future = match handler.run(&job.payload, cx) {
        Ok(future) => future,
        Err(error) => {
            let error = format!("the payload is not as {} expects: {error}", handler.kind);
            return Ended::Returned(Err(Failure::cancel(error)));
        }
    };
    let mut future = std::pin::pin!(AssertUnwindSafe(future).catch_unwind());
    let stop = tokio::select! {
        biased;
        ended = &mut future => return returned(ended),
        () = stopper.token.cancelled() => Some(*stopper.why.get().unwrap_or(&Stop::Cancelled)),
        () = tokio::time::sleep(handler.policy.timeout) => None,
    };
    // Told to stop, it may clean up; then it is dropped wherever it waits.
    stopper.token.cancel();
    let cleaned_up = timeout(handler.policy.grace, &mut future).await;
    match (cleaned_up, stop) {
        // It finished all the same.
        (Ok(Ok(Ok(done))), _) => Ended::Returned(Ok(done)),
        (_, Some(why)) => Ended::Stopped(why),
        (_, None) => Ended::TimedOut(handler.policy.timeout),
    }
}

fn returned(ended: Result<Result<Done, Failure>, Box<dyn std::any::Any + Send>>) -> Ended {
    match ended {
        Ok(result) => Ended::Returned(result),
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned());
            Ended::Panicked(message)
        }
    }
}

fn settle(runtime: &Runtime, handler: &Handler, job: &Claimed, ended: Ended) -> Settlement {
    let now = runtime.db.now();
    let after = |wait: Duration| now + chrono::Duration::from_std(wait).unwrap_or(chrono::Duration::days(366));
    let by_policy = || {
        if job.is_last_attempt() {
            return Next::Discard;
        }
        let random = rand::rng().random::<f64>();
        Next::Retry(after(handler.policy.retry.wait(job.counted_attempt(), random)))
    };
    match ended {
        Ended::Returned(Ok(Done::Committed)) => {
            handler.succeeded.increment(1);
            Settlement::Committed(job.id, job.attempt)
        }
        Ended::Returned(Ok(done)) => {
            handler.succeeded.increment(1);
            let result = match done {
                Done::With(result) => Some(storable(result).to_string()),
                Done::Quietly | Done::Committed => None,
            };
            Settlement::Succeeded(Success { id: job.id, attempt: job.attempt, result, keyed: job.keyed })
        }
        Ended::Returned(Err(failure)) => {
            let error = failure.describe();
            let (next, outcome) = match failure {
                Failure::Lost => return Settlement::Lost(job.id, job.attempt),
                Failure::Cancel(_) => (Next::Discard, "failed_for_good"),
                Failure::Snooze(wait, _) => (Next::Snooze(after(wait)), "snoozed"),
                Failure::RetryAfter(wait, _) if !job.is_last_attempt() => (Next::Retry(after(wait)), "failed"),
                Failure::RetryAfter(..) | Failure::Retry(_) => (by_policy(), "failed"),
            };
            set_back(runtime, job, next, outcome, error)
        }
        Ended::Panicked(message) => {
            warn!("The handler panicked: {message}");
            set_back(runtime, job, by_policy(), "panicked", format!("the handler panicked: {message}"))
        }
        Ended::TimedOut(limit) => {
            set_back(runtime, job, by_policy(), "timed_out", format!("not done within {} s", limit.as_secs_f64()))
        }
        Ended::Stopped(Stop::Cancelled) => {
            set_back(runtime, job, Next::Cancel, "cancelled", "cancelled while it ran".to_owned())
        }
        Ended::Stopped(Stop::Leaving) => {
            set_back(runtime, job, Next::Snooze(now), "returned", "its worker was stopped".to_owned())
        }
        Ended::Stopped(Stop::Lost) => Settlement::Lost(job.id, job.attempt),
    }
}

/// What PostgreSQL can keep: its texts have no place for a zero byte, and one outcome that cannot be written down
/// would hold up all the others.
pub(crate) fn storable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_zeros(text)),
        Value::Array(values) => values.into_iter().map(storable).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (without_zeros(name), storable(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

pub(crate) fn without_zeros(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Bytes of an error that are kept with the job.
const MAX_ERROR_BYTES: usize = 4_096;

pub(crate) fn set_back(runtime: &Runtime, job: &Claimed, next: Next, outcome: &str, error: String) -> Settlement {
    let mut error = without_zeros(error);
    error.truncate(error.floor_char_boundary(MAX_ERROR_BYTES));
    metrics::counter!("gantry_jobs_finished_total", "kind" => job.kind.clone(), "outcome" => outcome.to_owned())
        .increment(1);
    info!(job.id = %job.id, outcome, "{} did not succeed: {error}", job.kind);
    Settlement::SetBack(Setback {
        id: job.id,
        attempt: job.attempt,
        next,
        failure: History {
            attempt: job.attempt,
            worker: Some(runtime.worker),
            started_at: None,
            ended_at: runtime.db.now(),
            outcome: outcome.to_owned(),
            error,
        },
    })
}
