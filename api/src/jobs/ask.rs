//! Requests for jobs, checked before anything is stored.

use chrono::{DateTime, Utc};
use gantry_jobs::request::{Asked, MAX_AHEAD, MAX_BULK, RequestError};
use gantry_jobs::{By, catalogue};
use gantry_schema::JobId;
use gantry_schema::jobs::enqueue::EnqueueError;
use gantry_schema::jobs::{self, Dependency, NewJob};
use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::body::Batch;
use crate::error::{Code, Error, ItemProblem};
use crate::example::example;
use crate::field::{AnyJson, Moment, Word};

/// A job to be done.
///
/// Refused as `unknown_kind` when there is no such kind, as `kind_not_public` when only the platform asks for it, as
/// `invalid_payload` or as `payload_too_large` when the payload is not what the kind expects, and as `unknown_predecessor`
/// when a job to wait for does not exist.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub struct JobRequest {
    /// What is to be done; `GET /job-kinds` lists them.
    pub kind: Word,
    /// What is to be done it to, at most 256 KB; what it looks like depends on the kind.
    pub payload: Option<AnyJson>,
    /// Not before this moment, at most 366 days ahead; left out: at once.
    pub run_at: Option<Moment>,
    /// Not started after this moment.
    pub expires_at: Option<Moment>,
    /// 0 first, 9 last, among the organization's jobs; left out: as the kind has it.
    #[oai(validator(minimum(value = "0"), maximum(value = "9")))]
    pub priority: Option<i16>,
    /// Only when these jobs have succeeded.
    #[oai(validator(max_items = 1000))]
    pub after: Option<Vec<Predecessor>>,
}

example!(JobRequest, {
    "kind": "diagnostics.probe",
    "payload": { "steps": 3, "message": "hello" },
    "run_at": "2026-01-15T18:00:00Z",
    "priority": 4,
});

/// A job that must have succeeded before.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "JobPredecessor")]
pub struct Predecessor {
    /// The job.
    pub job: JobId,
    /// The name under which its result is read; left out: its id.
    pub step: Option<Word>,
}

/// Many jobs to be done.
///
/// Refused as `invalid_jobs` when one of them cannot be asked for, and as `too_many_jobs` when there are too many.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "JobBulkRequest")]
pub struct BulkRequest {
    /// 1 to 10 000 jobs of any kinds.
    pub jobs: Batch<JobRequest, MAX_BULK>,
}

/// What came of asking for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
#[oai(rename = "JobOutcome")]
pub enum Outcome {
    /// It was written down.
    Inserted,
    /// Such a job was there already, and was left as it is.
    Existing,
    /// Such a job was waiting already, and has the new payload.
    Updated,
}

impl From<jobs::Outcome> for Outcome {
    fn from(outcome: jobs::Outcome) -> Self {
        match outcome {
            jobs::Outcome::Inserted => Self::Inserted,
            jobs::Outcome::Existing => Self::Existing,
            jobs::Outcome::Updated => Self::Updated,
        }
    }
}

/// Jobs that one job may wait for.
const MAX_PREDECESSORS: usize = 1_000;

/// What is said of the items of a bulk request, at most.
const MAX_ITEM_PROBLEMS: usize = 100;

/// The job a request asks for.
///
/// # Errors
/// When it cannot be asked for.
pub(super) fn new_job(request: JobRequest, by: &By, now: DateTime<Utc>) -> Result<NewJob, Error> {
    let kind = catalogue::find(request.kind.as_str())?;
    if !kind.public {
        return Err(Error::not_public(kind.name));
    }
    let payload = match request.payload {
        Some(AnyJson(payload)) => payload,
        None => RawValue::from_string("{}".to_owned()).map_err(RequestError::Payload)?,
    };
    let expires_at = request.expires_at.map(|moment| moment.0);
    if expires_at.is_some_and(|at| at > now + MAX_AHEAD * 2) {
        return Err(Error::field(
            "expires_at",
            "expires_at is more than two years ahead; leave it out for a job that does not expire",
        ));
    }
    let after = request.after.unwrap_or_default();
    if after.len() > MAX_PREDECESSORS {
        return Err(Error::field(
            "after",
            format!("a job waits for at most {MAX_PREDECESSORS} others; chain them over a job in between"),
        ));
    }
    let step = |step: Predecessor| Dependency {
        step: step.step.map_or_else(|| step.job.to_string(), Into::into),
        job: step.job,
    };
    let asked = Asked {
        // What should have run before now runs now.
        run_at: request.run_at.map(|moment| moment.0).filter(|run_at| *run_at > now),
        expires_at,
        priority: request.priority,
        after: after.into_iter().map(step).collect(),
    };
    Ok(kind.new_job(&payload, &asked, by, now)?)
}

/// The jobs a bulk request asks for.
///
/// # Errors
/// When there are none or too many, or some of them cannot be asked for.
pub(super) fn new_jobs(request: &BulkRequest, by: &By, now: DateTime<Utc>) -> Result<Vec<NewJob>, Error> {
    let count = request.jobs.count();
    if count > MAX_BULK {
        return Err(RequestError::TooMany { count }.into());
    }
    if count == 0 {
        return Err(Error::field("jobs", "there is no job in the list; write at least one"));
    }
    let mut new = Vec::with_capacity(count);
    let mut problems: Vec<ItemProblem> = Vec::new();
    for (index, item) in request.jobs.read().enumerate() {
        match item.and_then(|item| new_job(item, by, now)) {
            Ok(job) => new.push(job),
            Err(error) => problems.push(error.into_item(index)),
        }
        if problems.len() == MAX_ITEM_PROBLEMS {
            break;
        }
    }
    if problems.is_empty() { Ok(new) } else { Err(invalid(problems)) }
}

fn invalid(problems: Vec<ItemProblem>) -> Error {
    let field = problems.first().map(|problem| format!("jobs[{}]", problem.index)).unwrap_or_default();
    let count = problems.len();
    let detail = if count < MAX_ITEM_PROBLEMS {
        format!(
            "{count} of the jobs cannot be asked for, see errors; put them right or leave them out, and send all again"
        )
    } else {
        format!(
            "at least {count} of the jobs cannot be asked for, see errors; put them right or leave them out, and send all again"
        )
    };
    Error::new(Code::InvalidJobs, detail).at(field).items(problems)
}

/// Which job of a bulk request waits for which others: the ledger finds out only later that one is unknown.
pub(super) struct Predecessors(Vec<(usize, JobId)>);

impl Predecessors {
    pub(super) fn of(jobs: &[NewJob]) -> Self {
        let each = jobs.iter().enumerate();
        Self(each.flat_map(|(index, job)| job.after.iter().map(move |after| (index, after.job))).collect())
    }

    pub(super) fn explain(&self, error: RequestError) -> Error {
        let RequestError::Enqueue(EnqueueError::UnknownPredecessor(unknown)) = error else { return error.into() };
        let index = self.0.iter().find(|(_, job)| *job == unknown).map(|(index, _)| *index);
        let error = Error::from(error);
        match index {
            Some(index) => invalid(vec![error.into_item(index)]),
            None => error,
        }
    }
}
