//! Asking for jobs, in the transaction of the change that needs them.

use std::fmt;

use chrono::{DateTime, Utc};
use gantry_schema::jobs::enqueue::{self, EnqueueError};
use gantry_schema::jobs::{Dependency, Enqueued, NewJob};
use gantry_schema::{ApiKeyId, Db, JobId, OauthClientId, OrganizationId, PersonId, ScheduleId, TenantTx};

use crate::Job;

/// Payloads are ids and small facts; what is larger belongs in a table.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// Jobs in one bulk request.
pub const MAX_BULK: usize = 10_000;

/// Jobs may be scheduled this far ahead.
pub const MAX_AHEAD: chrono::Duration = chrono::Duration::days(366);

/// On whose behalf a job is asked for, and the trace it continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    who: String,
    traceparent: Option<String>,
}

impl By {
    /// A program with an API key.
    #[must_use]
    pub fn api_key(key: ApiKeyId) -> Self {
        Self::named(format!("api_key:{key}"))
    }

    /// Somebody who signed in.
    #[must_use]
    pub fn person(person: PersonId) -> Self {
        Self::named(format!("person:{person}"))
    }

    /// An application that acts for itself.
    #[must_use]
    pub fn oauth_client(client: OauthClientId) -> Self {
        Self::named(format!("oauth_client:{client}"))
    }

    /// A handler.
    #[must_use]
    pub fn job(job: JobId) -> Self {
        Self::named(format!("job:{job}"))
    }

    /// A schedule's tick.
    #[must_use]
    pub fn schedule(schedule: ScheduleId) -> Self {
        Self::named(format!("schedule:{schedule}"))
    }

    /// The platform itself, for a reason.
    #[must_use]
    pub fn platform(reason: &str) -> Self {
        Self::named(format!("platform:{reason}"))
    }

    fn named(who: String) -> Self {
        Self { who, traceparent: None }
    }

    /// Continues the W3C trace of this `traceparent` header.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<String>) -> Self {
        self.traceparent = traceparent;
        self
    }

    /// The W3C trace to continue.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.who)
    }
}

/// What cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The payload is too large.
    #[error("the payload has {bytes} bytes, and at most {MAX_PAYLOAD_BYTES} are allowed; store it and pass its id")]
    PayloadTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The payload cannot be written as JSON.
    #[error("the payload cannot be written as JSON")]
    Payload(#[source] serde_json::Error),
    /// More jobs than one request may carry.
    #[error("{count} jobs in one request, and at most {MAX_BULK} are allowed; send several requests")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Too far ahead.
    #[error("run_at is more than 366 days ahead; use a schedule, or ask later")]
    TooFarAhead,
    /// Past when it would start.
    #[error("expires_at is not after run_at, so the job would never run")]
    ExpiresBeforeRun,
    /// A priority that does not exist.
    #[error("the priority is {0}, and priorities are 0 (first) to 9 (last)")]
    Priority(i16),
    /// More deliveries than one request may ask for.
    #[error(
        "these events would make {count} deliveries, and at most 100 000 are made at once; post fewer events in one request"
    )]
    TooManyDeliveries {
        /// How many.
        count: usize,
    },
    /// Writing it down failed.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
}

impl From<sqlx::Error> for RequestError {
    fn from(error: sqlx::Error) -> Self {
        Self::Enqueue(EnqueueError::Database(error))
    }
}

/// The particulars of one job beyond its kind's policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Not before this moment.
    pub run_at: Option<DateTime<Utc>>,
    /// Not started after this moment.
    pub expires_at: Option<DateTime<Utc>>,
    /// Instead of the kind's.
    pub priority: Option<i16>,
    /// Jobs that must have succeeded before.
    pub after: Vec<Dependency>,
}

impl Asked {
    pub(crate) fn check(&self, now: DateTime<Utc>) -> Result<(), RequestError> {
        if self.run_at.is_some_and(|run_at| run_at > now + MAX_AHEAD) {
            return Err(RequestError::TooFarAhead);
        }
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.run_at.unwrap_or(now)) {
            return Err(RequestError::ExpiresBeforeRun);
        }
        match self.priority {
            Some(priority) if !(0..=9).contains(&priority) => Err(RequestError::Priority(priority)),
            _ => Ok(()),
        }
    }
}

/// A job about to be asked for.
#[derive(Debug)]
pub struct Request<'a, J> {
    job: &'a J,
    asked: Asked,
}

impl<'a, J: Job> Request<'a, J> {
    pub(crate) fn new(job: &'a J) -> Self {
        Self { job, asked: Asked::default() }
    }

    /// Not before this moment.
    #[must_use]
    pub fn at(mut self, run_at: DateTime<Utc>) -> Self {
        self.asked.run_at = Some(run_at);
        self
    }

    /// Not started after this moment.
    #[must_use]
    pub fn expires(mut self, expires_at: DateTime<Utc>) -> Self {
        self.asked.expires_at = Some(expires_at);
        self
    }

    /// Instead of the kind's priority: 0 first, 9 last.
    #[must_use]
    pub fn priority(mut self, priority: i16) -> Self {
        self.asked.priority = Some(priority);
        self
    }

    /// Only after `job` has succeeded; its result can be read as `step`.
    #[must_use]
    pub fn after(mut self, step: &str, job: JobId) -> Self {
        self.asked.after.push(Dependency { step: step.to_owned(), job });
        self
    }

    /// Writes the job down.
    ///
    /// # Errors
    /// When it cannot be asked for like this, or the database refuses.
    pub async fn enqueue(self, tx: &mut TenantTx, by: &By) -> Result<Enqueued, RequestError> {
        use gantry_schema::JobTx as _;
        self.asked.check(tx.now())?;
        let organization = tx.organization();
        let new = new_job(self.job, &self.asked, by)?;
        let mut enqueued = enqueue::enqueue(tx, organization, vec![new]).await?;
        enqueued.pop().ok_or_else(|| RequestError::from(sqlx::Error::RowNotFound))
    }

    /// Writes the job down where nothing else belongs in its transaction: one round trip to the database.
    ///
    /// # Errors
    /// When it cannot be asked for like this, or the database refuses.
    pub async fn enqueue_alone(self, db: &Db, organization: OrganizationId, by: &By) -> Result<Enqueued, RequestError> {
        self.asked.check(db.now())?;
        let new = new_job(self.job, &self.asked, by)?;
        Ok(enqueue::enqueue_alone(db, organization, new).await?)
    }

    /// The row it becomes, for callers that enqueue in bulk.
    ///
    /// # Errors
    /// When the payload cannot be stored.
    pub fn into_new_job(self, by: &By) -> Result<NewJob, RequestError> {
        new_job(self.job, &self.asked, by)
    }
}

/// Writes many jobs of one kind down, in one statement.
///
/// # Errors
/// When there are too many, one cannot be asked for, or the database refuses.
pub async fn enqueue_all<J: Job>(tx: &mut TenantTx, jobs: &[J], by: &By) -> Result<Vec<Enqueued>, RequestError> {
    if jobs.len() > MAX_BULK {
        return Err(RequestError::TooMany { count: jobs.len() });
    }
    let organization = tx.organization();
    let new = jobs.iter().map(|job| new_job(job, &Asked::default(), by)).collect::<Result<Vec<_>, _>>()?;
    Ok(enqueue::enqueue(tx, organization, new).await?)
}

/// Writes jobs down that were made from requests of any kinds.
///
/// # Errors
/// When there are too many, or the database refuses.
pub async fn enqueue_new(
    tx: &mut impl gantry_schema::JobTx,
    organization: OrganizationId,
    jobs: Vec<NewJob>,
) -> Result<Vec<Enqueued>, RequestError> {
    if jobs.len() > MAX_BULK {
        return Err(RequestError::TooMany { count: jobs.len() });
    }
    Ok(enqueue::enqueue(tx, organization, jobs).await?)
}

fn new_job<J: Job>(job: &J, asked: &Asked, by: &By) -> Result<NewJob, RequestError> {
    let payload = serde_json::to_string(job).map_err(RequestError::Payload)?;
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(RequestError::PayloadTooLarge { bytes: payload.len() });
    }
    let policy = J::POLICY;
    Ok(NewJob {
        kind: J::KIND.to_owned(),
        queue: policy.queue.as_str().to_owned(),
        priority: asked.priority.unwrap_or(policy.priority),
        max_attempts: policy.max_attempts,
        // Leases are whole seconds, and at least one.
        lease_seconds: i32::try_from(policy.lease.as_secs()).unwrap_or(i32::MAX).max(1),
        run_at: asked.run_at,
        expires_at: asked.expires_at,
        unique: job.unique(),
        concurrency: job.concurrency(),
        rate_key: job.rate(),
        payload,
        after: asked.after.clone(),
        traceparent: by.traceparent.clone(),
        requested_by: by.who.clone(),
    })
}
