//! Jobs as callers see them.

use chrono::{DateTime, Utc};
use gantry_schema::jobs::control::Summary;
use gantry_schema::jobs::log::Line;
use gantry_schema::jobs::{self, State};
use gantry_schema::{JobId, WorkerId};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::Value;

use crate::example::example;
use crate::field::Moment;

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum JobState {
    /// For the end of other jobs.
    Waiting,
    /// For its time: asked for later, retried or snoozed.
    Scheduled,
    /// For a worker.
    Available,
    /// A worker holds it.
    Running,
    /// Done.
    Succeeded,
    /// Given up after its last attempt; kept, and can be retried.
    Discarded,
    /// Stopped on request, or what it waited for failed.
    Cancelled,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Scheduled => Self::Scheduled,
            State::Available => Self::Available,
            State::Running => Self::Running,
            State::Succeeded => Self::Succeeded,
            State::Discarded => Self::Discarded,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl From<JobState> for State {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Waiting => Self::Waiting,
            JobState::Scheduled => Self::Scheduled,
            JobState::Available => Self::Available,
            JobState::Running => Self::Running,
            JobState::Succeeded => Self::Succeeded,
            JobState::Discarded => Self::Discarded,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

/// A job in a list.
#[derive(Debug, Object)]
#[oai(example)]
pub struct JobSummary {
    /// Its id.
    pub id: JobId,
    /// What is to be done.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// 0 first, 9 last, among the organization's jobs.
    pub priority: i16,
    /// Where it is in its life.
    pub state: JobState,
    /// The attempt that runs or ran last; 0 before the first.
    pub attempt: i32,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// Not before this moment.
    pub run_at: Moment,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: Moment,
    /// When its last attempt began.
    #[oai(skip_serializing_if_is_none)]
    pub started_at: Option<Moment>,
    /// When it ended for good.
    #[oai(skip_serializing_if_is_none)]
    pub finished_at: Option<Moment>,
    /// What the handler last said about how far it is.
    #[oai(skip_serializing_if_is_none)]
    pub progress: Option<Any<Value>>,
}

example!(JobSummary, {
    "id": "job_01h455vb4pex5vsknk084sn02q",
    "kind": "diagnostics.probe",
    "queue": "default",
    "priority": 4,
    "state": "succeeded",
    "attempt": 1,
    "max_attempts": 10,
    "run_at": "2026-01-15T12:00:00Z",
    "requested_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:00Z",
    "started_at": "2026-01-15T12:00:01Z",
    "finished_at": "2026-01-15T12:00:02Z",
    "progress": { "steps": 3 },
});

/// A job with its whole history.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What is to be done.
    pub kind: String,
    /// Where it waits.
    pub queue: String,
    /// 0 first, 9 last, among the organization's jobs.
    pub priority: i16,
    /// Where it is in its life.
    pub state: JobState,
    /// The attempt that runs or ran last; 0 before the first.
    pub attempt: i32,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// Attempts that did not count: snoozed, handed back, or before it was retried by hand.
    pub uncounted_attempts: i32,
    /// How often its worker fell silent.
    pub rescues: i32,
    /// Not before this moment.
    pub run_at: Moment,
    /// Not started after this moment.
    #[oai(skip_serializing_if_is_none)]
    pub expires_at: Option<Moment>,
    /// At most one job of its kind has it at a time.
    #[oai(skip_serializing_if_is_none)]
    pub unique_key: Option<String>,
    /// Only so many jobs that share it run at a time.
    #[oai(skip_serializing_if_is_none)]
    pub concurrency_key: Option<String>,
    /// What is to be done it to.
    pub payload: Any<Value>,
    /// The W3C trace it belongs to.
    #[oai(skip_serializing_if_is_none)]
    pub traceparent: Option<String>,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: Moment,
    /// When its last attempt began.
    #[oai(skip_serializing_if_is_none)]
    pub started_at: Option<Moment>,
    /// When it ended for good.
    #[oai(skip_serializing_if_is_none)]
    pub finished_at: Option<Moment>,
    /// When somebody asked to stop it while it ran.
    #[oai(skip_serializing_if_is_none)]
    pub cancel_requested_at: Option<Moment>,
    /// What the handler last said about how far it is.
    #[oai(skip_serializing_if_is_none)]
    pub progress: Option<Any<Value>>,
    /// What the handler answered.
    #[oai(skip_serializing_if_is_none)]
    pub result: Option<Any<Value>>,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// What happened to it, in order.
    pub timeline: Vec<Happening>,
}

example!(Job, {
    "id": "job_01h455vb4pex5vsknk084sn02q",
    "kind": "diagnostics.probe",
    "queue": "default",
    "priority": 4,
    "state": "succeeded",
    "attempt": 1,
    "max_attempts": 10,
    "uncounted_attempts": 0,
    "rescues": 0,
    "run_at": "2026-01-15T12:00:00Z",
    "payload": { "steps": 3, "message": "hello" },
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "requested_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:00Z",
    "started_at": "2026-01-15T12:00:01Z",
    "finished_at": "2026-01-15T12:00:02Z",
    "progress": { "steps": 3 },
    "result": { "message": "hello" },
    "attempts": [{
        "attempt": 1,
        "worker": "wrk_01h455vb4pex5vsknk084sn02q",
        "started_at": "2026-01-15T12:00:01Z",
        "ended_at": "2026-01-15T12:00:02Z",
        "outcome": "succeeded",
    }],
    "timeline": [
        { "at": "2026-01-15T12:00:00Z", "event": "asked_for" },
        { "at": "2026-01-15T12:00:01Z", "event": "started", "attempt": 1 },
        { "at": "2026-01-15T12:00:02Z", "event": "succeeded", "attempt": 1 },
    ],
});

/// One attempt at a job.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename = "JobAttempt")]
pub struct Attempt {
    /// Its number.
    pub attempt: i32,
    /// Who makes or made it.
    #[oai(skip_serializing_if_is_none)]
    pub worker: Option<WorkerId>,
    /// When it began.
    #[oai(skip_serializing_if_is_none)]
    pub started_at: Option<Moment>,
    /// When it ended.
    #[oai(skip_serializing_if_is_none)]
    pub ended_at: Option<Moment>,
    /// `running`, `succeeded`, `failed`, `timed_out`, `panicked`, `snoozed`, `returned` (handed back by a worker that
    /// stopped), `rescued` (its worker fell silent), `cancelled`, `discarded` or `expired`.
    pub outcome: String,
    /// What went wrong.
    #[oai(skip_serializing_if_is_none)]
    pub error: Option<String>,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename = "JobHappening")]
pub struct Happening {
    /// When.
    pub at: Moment,
    /// `asked_for`, `started`, `cancel_requested`, an attempt's outcome, or the state in which the job ended.
    pub event: String,
    /// In which attempt.
    #[oai(skip_serializing_if_is_none)]
    pub attempt: Option<i32>,
}

/// A line a handler wrote.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename = "JobLogLine", example)]
pub struct LogLine {
    /// In which attempt.
    pub attempt: i32,
    /// Its number within the attempt, from 1.
    pub line: i32,
    /// When.
    pub at: Moment,
    /// What.
    pub message: String,
}

example!(LogLine, { "attempt": 1, "line": 17, "at": "2026-01-15T12:00:01Z", "message": "step 2 of 3" });

impl From<Summary> for JobSummary {
    fn from(job: Summary) -> Self {
        Self {
            id: job.id,
            state: job.state.into(),
            kind: job.kind,
            queue: job.queue,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            run_at: job.run_at.into(),
            requested_by: job.requested_by,
            created_at: job.created_at.into(),
            started_at: job.started_at.map(Moment),
            finished_at: job.finished_at.map(Moment),
            progress: job.progress.map(Any),
        }
    }
}

impl From<jobs::Job> for Job {
    fn from(job: jobs::Job) -> Self {
        let attempts = attempts(&job);
        Self {
            timeline: timeline(&job, &attempts),
            attempts,
            id: job.id,
            state: job.state.into(),
            kind: job.kind,
            queue: job.queue,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            uncounted_attempts: job.uncounted,
            rescues: job.rescues,
            run_at: job.run_at.into(),
            expires_at: job.expires_at.map(Moment),
            unique_key: job.unique_key,
            concurrency_key: job.concurrency_key,
            payload: Any(job.payload),
            traceparent: job.traceparent,
            requested_by: job.requested_by,
            created_at: job.created_at.into(),
            started_at: job.started_at.map(Moment),
            finished_at: job.finished_at.map(Moment),
            cancel_requested_at: job.cancel_requested_at.map(Moment),
            progress: job.progress.map(Any),
            result: job.result.map(Any),
        }
    }
}

impl From<Line> for LogLine {
    fn from(line: Line) -> Self {
        Self { attempt: line.attempt, line: line.line, at: line.at.into(), message: line.message }
    }
}

/// Those that failed are kept with the job; the one that runs or succeeded is the job itself.
fn attempts(job: &jobs::Job) -> Vec<Attempt> {
    let failed = job.failures.iter().map(|failure| Attempt {
        attempt: failure.attempt,
        worker: failure.worker,
        started_at: failure.started_at.map(Moment),
        ended_at: Some(failure.ended_at.into()),
        outcome: failure.outcome.clone(),
        error: Some(failure.error.clone()),
    });
    let current = matches!(job.state, State::Running | State::Succeeded).then(|| Attempt {
        attempt: job.attempt,
        worker: job.worker,
        started_at: job.started_at.map(Moment),
        ended_at: job.finished_at.map(Moment),
        outcome: job.state.to_string(),
        error: None,
    });
    failed.chain(current).collect()
}

fn timeline(job: &jobs::Job, attempts: &[Attempt]) -> Vec<Happening> {
    let happening =
        |at: DateTime<Utc>, event: &str, attempt| Happening { at: at.into(), event: event.to_owned(), attempt };
    let mut timeline = vec![happening(job.created_at, "asked_for", None)];
    timeline.extend(job.cancel_requested_at.map(|at| happening(at, "cancel_requested", None)));
    for attempt in attempts {
        let number = (attempt.attempt > 0).then_some(attempt.attempt);
        timeline.extend(attempt.started_at.map(|at| happening(at.0, "started", number)));
        timeline.extend(attempt.ended_at.map(|at| happening(at.0, &attempt.outcome, number)));
    }
    let final_state = job.state.as_str();
    if let Some(at) = job.finished_at
        && attempts.last().is_none_or(|attempt| attempt.outcome != final_state)
    {
        timeline.push(happening(at, final_state, None));
    }
    // Stable: what happened in the same microsecond stays in the order of life.
    timeline.sort_by_key(|happening| happening.at);
    timeline
}

#[cfg(test)]
mod tests {
    use gantry_schema::OrganizationId;
    use gantry_schema::jobs::Failure;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn job(state: State, failures: Vec<Failure>) -> jobs::Job {
        let id = JobId::from_uuid(uuid::Uuid::nil());
        let (kind, queue, by) = ("a.b".to_owned(), "default".to_owned(), "platform:test".to_owned());
        jobs::Job {
            id,
            organization: OrganizationId::PLATFORM,
            kind,
            queue,
            priority: 4,
            state,
            attempt: 2,
            max_attempts: 5,
            uncounted: 0,
            rescues: 0,
            run_at: at(0),
            expires_at: None,
            unique_key: None,
            concurrency_key: None,
            payload: Value::Null,
            traceparent: None,
            requested_by: by,
            created_at: at(0),
            worker: None,
            started_at: Some(at(5)),
            finished_at: state.is_final().then(|| at(9)),
            cancel_requested_at: None,
            progress: None,
            result: None,
            failures,
        }
    }

    fn failure(attempt: i32, ended: i64, outcome: &str) -> Failure {
        let started_at = Some(at(ended - 1));
        Failure {
            attempt,
            worker: None,
            started_at,
            ended_at: at(ended),
            outcome: outcome.to_owned(),
            error: "no".to_owned(),
        }
    }

    fn told(job: jobs::Job) -> Vec<(i64, String)> {
        Job::from(job).timeline.into_iter().map(|happening| (happening.at.0.timestamp(), happening.event)).collect()
    }

    fn events(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
        expected.iter().map(|(at, event)| (*at, (*event).to_owned())).collect()
    }

    #[test]
    fn the_timeline_tells_a_life_from_its_beginning_to_its_end() {
        let succeeded = job(State::Succeeded, vec![failure(1, 3, "failed")]);
        assert_eq!(
            told(succeeded),
            events(&[(0, "asked_for"), (2, "started"), (3, "failed"), (5, "started"), (9, "succeeded")])
        );
        let running = job(State::Running, Vec::new());
        assert_eq!(told(running), events(&[(0, "asked_for"), (5, "started")]));
        let exhausted = job(State::Discarded, vec![failure(1, 3, "failed"), failure(2, 9, "failed")]);
        assert_eq!(
            told(exhausted).last(),
            Some(&(9, "discarded".to_owned())),
            "the last attempt failed, and with it the job"
        );
        let mut cancelled = job(State::Cancelled, vec![failure(2, 8, "snoozed")]);
        cancelled.cancel_requested_at = Some(at(7));
        assert_eq!(
            told(cancelled),
            events(&[(0, "asked_for"), (7, "cancel_requested"), (7, "started"), (8, "snoozed"), (9, "cancelled")])
        );
    }
}
