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

#[cfg(test)]
mod tests {
    use gantry_jobs::request::RequestError;
    use gantry_schema::jobs::enqueue::EnqueueError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("asking the vendor")]
    struct Asking(#[source] std::io::Error);

    #[test]
    fn a_failure_is_told_with_its_causes_each_once() {
        let refused = || std::io::Error::other("connection refused");
        assert_eq!(Failure::retry(Asking(refused())).describe(), "asking the vendor: connection refused");
        assert_eq!(Failure::cancel("no such domain").describe(), "no such domain");
        assert_eq!(
            Failure::RetryAfter(Duration::ZERO, Asking(refused()).into()).describe(),
            "asking the vendor: connection refused"
        );
        assert_eq!(Failure::Snooze(Duration::ZERO, "too early".to_owned()).describe(), "not yet: too early");
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_cannot_is_not() {
        let timeout = gantry_providers::Error::Timeout(Duration::from_secs(1));
        assert!(matches!(Failure::from(timeout), Failure::Retry(_)));
        let refused = gantry_providers::Error::RefusedAddress { host: "internal".to_owned() };
        assert!(matches!(Failure::from(refused), Failure::Cancel(_)));
        let gone = RequestError::Enqueue(EnqueueError::Database(sqlx::Error::PoolTimedOut));
        assert!(matches!(Failure::from(gone), Failure::Retry(_)));
        assert!(matches!(Failure::from(RequestError::Priority(10)), Failure::Cancel(_)));
        assert!(matches!(Failure::from(sqlx::Error::PoolTimedOut), Failure::Retry(_)));
    }
}
