//! How a handler fails, and what that means for the job.

use std::error::Error as StdError;
use std::time::Duration;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why an attempt did not succeed, and what should happen next.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It may work later: the next attempt follows by the kind's policy.
    #[error("{0}")]
    Retry(#[source] Cause),
    /// It may work then: the other side said when.
    #[error("{1}")]
    RetryAfter(Duration, #[source] Cause),
    /// Nothing is wrong, it is only too early; the attempt does not count.
    #[error("not yet: {1}")]
    Snooze(Duration, String),
    /// It can never work.
    #[error("{0}")]
    Cancel(#[source] Cause),
    /// The job was taken from this worker; whatever it does no longer counts.
    #[error("the job was taken from this worker")]
    Lost,
}

impl Failure {
    /// It may work later.
    pub fn retry(cause: impl Into<Cause>) -> Self {
        Self::Retry(cause.into())
    }

    /// It can never work.
    pub fn cancel(cause: impl Into<Cause>) -> Self {
        Self::Cancel(cause.into())
    }

    /// The failure and its causes in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = match self {
            Self::Retry(cause) | Self::RetryAfter(_, cause) | Self::Cancel(cause) => cause.source(),
            Self::Snooze(..) | Self::Lost => None,
        };
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

/// The database is expected to come back.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::retry(error)
    }
}

impl From<gantry_providers::Error> for Failure {
    fn from(error: gantry_providers::Error) -> Self {
        if error.is_transient() { Self::retry(error) } else { Self::cancel(error) }
    }
}

impl From<gantry_jobs::request::RequestError> for Failure {
    fn from(error: gantry_jobs::request::RequestError) -> Self {
        use gantry_schema::jobs::enqueue::EnqueueError;
        match error {
            gantry_jobs::request::RequestError::Enqueue(EnqueueError::Database(error)) => error.into(),
            error => Self::cancel(error),
        }
    }
}
