//! A job as people read it: the whole row.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::State;
use crate::{JobId, OrganizationId, WorkerId};

/// A job with its whole history.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What is to be done.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// 0 first, 9 last.
    pub priority: i16,
    /// Where it is in its life.
    pub state: State,
    /// The attempt that runs or ran last; 0 before the first.
    pub attempt: i32,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// Attempts that did not count: snoozed or handed back.
    pub uncounted: i32,
    /// How often its worker fell silent.
    pub rescues: i32,
    /// Not before this moment.
    pub run_at: DateTime<Utc>,
    /// Not started after this moment.
    pub expires_at: Option<DateTime<Utc>>,
    /// No two live jobs of its kind have the same.
    pub unique_key: Option<String>,
    /// Jobs with the same run a limited number at a time.
    pub concurrency_key: Option<String>,
    /// What is to be done it to.
    pub payload: Value,
    /// The W3C trace it belongs to.
    pub traceparent: Option<String>,
    /// Who asked: `api_key:key_…`, `schedule:sch_…`, `job:job_…`.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Who runs or ran it last.
    pub worker: Option<WorkerId>,
    /// When the last attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended for good.
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody asked to stop it while it ran.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What the handler last said about how far it is.
    pub progress: Option<Value>,
    /// What the handler answered.
    pub result: Option<Value>,
    /// The attempts that did not succeed, oldest first.
    pub failures: Vec<Failure>,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number.
    pub attempt: i32,
    /// Who ran it.
    #[serde(default)]
    pub worker: Option<WorkerId>,
    /// When it began.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// `retry`, `snoozed`, `timed_out`, `panicked`, `cancelled`, `discarded`, `rescued`, `returned`, `expired`.
    pub outcome: String,
    /// What went wrong, with its causes.
    pub error: String,
}

/// The columns as the macros read them.
pub(super) struct Row {
    pub id: JobId,
    pub organization_id: OrganizationId,
    pub kind: String,
    pub queue: String,
    pub priority: i16,
    pub state: State,
    pub attempt: i32,
    pub max_attempts: i32,
    pub uncounted: i32,
    pub rescues: i32,
    pub run_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub unique_key: Option<String>,
    pub concurrency_key: Option<String>,
    pub payload: Value,
    pub traceparent: Option<String>,
    pub requested_by: String,
    pub created_at: DateTime<Utc>,
    pub worker_id: Option<WorkerId>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    pub progress: Option<Value>,
    pub result: Option<Value>,
    pub failures: Value,
}

impl Row {
    /// # Errors
    /// When the row was written by a newer release.
    pub fn into_job(self, now: DateTime<Utc>) -> Result<Job, sqlx::Error> {
        let state = self.state;
        Ok(Job {
            id: self.id,
            organization: self.organization_id,
            kind: self.kind,
            queue: self.queue,
            priority: self.priority,
            // The claim takes a job whose time has come in either state; people see the one that is true.
            state: if state == State::Scheduled && self.run_at <= now { State::Available } else { state },
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            uncounted: self.uncounted,
            rescues: self.rescues,
            run_at: self.run_at,
            expires_at: self.expires_at,
            unique_key: self.unique_key,
            concurrency_key: self.concurrency_key,
            payload: self.payload,
            traceparent: self.traceparent,
            requested_by: self.requested_by,
            created_at: self.created_at,
            worker: self.worker_id,
            started_at: self.started_at,
            finished_at: self.finished_at,
            cancel_requested_at: self.cancel_requested_at,
            progress: self.progress,
            result: self.result,
            failures: serde_json::from_value(self.failures).map_err(|error| sqlx::Error::Decode(error.into()))?,
        })
    }
}
