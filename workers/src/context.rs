//! What a handler has at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use chrono::{DateTime, Utc};
use gantry_jobs::By;
use gantry_providers::Providers;
use gantry_schema::audit::Author;
use gantry_schema::jobs::claim::Claimed;
use gantry_schema::jobs::{log, settle, workflow};
use gantry_schema::{JobId, OrganizationId, TenantTx};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::execute::{storable, without_zeros};
use crate::{Done, Failure, Runtime};

/// Log lines an attempt may keep; what comes after is dropped.
const MAX_LINES: i32 = 10_000;

/// Bytes of a log line that are kept.
const MAX_LINE_BYTES: usize = 4_096;

/// What a handler has at hand while it runs one attempt of one job. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    job: Arc<Claimed>,
    runtime: Runtime,
    stop: CancellationToken,
    lines: Arc<AtomicI32>,
}

impl Context {
    pub(crate) fn new(job: Arc<Claimed>, runtime: Runtime, stop: CancellationToken) -> Self {
        Self { job, runtime, stop, lines: Arc::new(AtomicI32::new(0)) }
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.job.id
    }

    /// The number of this attempt.
    #[must_use]
    pub fn attempt(&self) -> i32 {
        self.job.attempt
    }

    /// Which counted attempt this is, from 1.
    #[must_use]
    pub fn counted_attempt(&self) -> i32 {
        self.job.counted_attempt()
    }

    /// On whose behalf.
    #[must_use]
    pub fn organization(&self) -> OrganizationId {
        self.job.organization
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.runtime.db.now()
    }

    /// The outside world.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.runtime.providers
    }

    /// The keys that open sealed secrets.
    #[must_use]
    pub fn sealing_keys(&self) -> &gantry_schema::seal::SealingKeys {
        &self.runtime.sealing_keys
    }

    /// Whose licenses are believed.
    #[must_use]
    pub(crate) fn trust(&self) -> gantry_schema::licenses::Trust {
        self.runtime.trust()
    }

    /// The keys that open sealed secrets, to be kept.
    #[must_use]
    pub(crate) fn keys(&self) -> Arc<gantry_schema::seal::SealingKeys> {
        Arc::clone(&self.runtime.sealing_keys)
    }

    /// The job ledger, for the platform's own housekeeping.
    #[must_use]
    pub fn ledger(&self) -> &gantry_schema::EngineDb {
        &self.runtime.ledger
    }

    /// Something of which this process has one, for all handlers; made when it is first asked for.
    pub fn shared<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.runtime.shared.get(make)
    }

    /// The database, for what is done for several jobs of several organizations together.
    #[must_use]
    pub(crate) const fn db(&self) -> &gantry_schema::Db {
        &self.runtime.db
    }

    /// No further attempt follows this one if it fails.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.job.is_last_attempt()
    }

    /// The same in every attempt: with it a vendor does a step once, however often it is asked.
    #[must_use]
    pub fn idempotency_key(&self, step: &str) -> String {
        format!("{}:{step}", self.job.id)
    }

    /// As whom jobs are asked for: they continue this job's trace.
    #[must_use]
    pub fn by(&self) -> By {
        By::job(self.job.id).traced(self.job.traceparent.clone())
    }

    /// Begins a transaction that sees the job's organization. What a handler changes that people look after, it says in the
    /// record: `tx.record("webhook_endpoint.disable").on(&endpoint)`; the job is who did it, for whoever asked for it.
    ///
    /// # Errors
    /// When the database went away.
    pub async fn begin(&self) -> Result<TenantTx, Failure> {
        let author = Author::job(self.job.id, self.job.traceparent.as_deref());
        Ok(self.runtime.db.tenant(self.job.organization).await?.by(Arc::new(author)))
    }

    /// Commits the transaction and the job's end together: both happen, or neither.
    ///
    /// # Errors
    /// When the job was taken from this worker, or the database went away.
    pub async fn complete(&self, tx: TenantTx) -> Result<Done, Failure> {
        self.finish(tx, None).await
    }

    /// As [`Self::complete`], with a result.
    ///
    /// # Errors
    /// When the job was taken from this worker, or the database went away.
    pub async fn complete_with(&self, tx: TenantTx, result: &Value) -> Result<Done, Failure> {
        self.finish(tx, Some(result)).await
    }

    async fn finish(&self, mut tx: TenantTx, result: Option<&Value>) -> Result<Done, Failure> {
        let job = &self.job;
        let result = result.map(|result| storable(result.clone()));
        if !settle::succeed_within(&mut tx, job.id, job.attempt, result.as_ref(), job.keyed).await? {
            tx.rollback().await?;
            return Err(Failure::Lost);
        }
        tx.commit().await?;
        Ok(Done::Committed)
    }

    /// Says how far it is. Whoever follows the job sees it at once.
    ///
    /// # Errors
    /// When the job was taken from this worker, or the database went away.
    pub async fn progress(&self, progress: &Value) -> Result<(), Failure> {
        let mut tx = self.begin().await?;
        let progress = storable(progress.clone());
        let mine = log::set_progress(&mut tx, self.job.id, self.job.attempt, &progress).await?;
        tx.commit().await?;
        self.runtime.news(self.job.id);
        if mine { Ok(()) } else { Err(Failure::Lost) }
    }

    /// Keeps a line with the job. Whoever follows the job sees it at once. Never write secrets.
    ///
    /// # Errors
    /// When the database went away.
    pub async fn log(&self, message: impl Into<String>) -> Result<(), Failure> {
        let line = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
        if line > MAX_LINES {
            return Ok(());
        }
        let mut message = without_zeros(message.into());
        message.truncate(message.floor_char_boundary(MAX_LINE_BYTES));
        let mut tx = self.begin().await?;
        let line = log::Line { attempt: self.job.attempt, line, at: self.now(), message };
        log::append(&mut tx, self.job.id, &[line]).await?;
        tx.commit().await?;
        self.runtime.news(self.job.id);
        Ok(())
    }

    /// Resolves when the handler should stop: cancelled, timed out, or the worker leaves. It then has its
    /// kind's grace to clean up.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Should the handler stop?
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The result of a step this job waited for.
    ///
    /// # Errors
    /// When the database went away.
    pub async fn result_of(&self, step: &str) -> Result<Option<Value>, Failure> {
        let mut tx = self.begin().await?;
        let results = workflow::results(&mut tx, self.job.id).await?;
        Ok(results.into_iter().find(|(name, _)| name == step).and_then(|(_, result)| result))
    }
}
