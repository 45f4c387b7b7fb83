//! Jobs: asking for them, looking at them, changing their course.

mod answer;
mod ask;
pub(crate) mod asked;
pub(crate) mod feed;
mod follow;
pub(crate) mod together;
pub mod wait;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use gantry_jobs::{By, Queue, catalogue, request};
use gantry_schema::audit;
use gantry_schema::jobs::control::{self, Change, Filter};
use gantry_schema::jobs::log;
use gantry_schema::jobs::{Enqueued, NewJob};
use gantry_schema::organizations::needed::{ManageJobs, ReadJobs};
use gantry_schema::{JobId, JobTx as _, TenantTx};
use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{EventStream, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::{Body, MIB};
use crate::caller::May;
use crate::dry_run::DryRun;
use crate::during::During;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

pub use answer::{Job, JobState, JobSummary, LogLine};
pub use ask::{BulkRequest, JobRequest, Outcome};
pub use asked::{Asked, Prefer, Shows};
pub use follow::News;

/// Jobs that one call by filter changes at most.
const AT_ONCE: i64 = 10_000;

/// When to look at a job that was asked for, in seconds: most have ended by then.
pub(crate) const LOOK_AFTER: u32 = 1;

/// The operations on jobs.
#[derive(Debug, Clone, Copy)]
pub struct Jobs;

/// A job that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "JobReceipt", example)]
pub struct Receipt {
    /// The job.
    pub id: JobId,
    /// What came of asking for it.
    pub outcome: Outcome,
    /// The job itself: where the request waited for it, or only tried it out.
    #[oai(skip_serializing_if_is_none)]
    pub job: Option<Box<Job>>,
    /// `true`: it was only tried out, and is not there, unless its `outcome` is `existing` or `updated`.
    #[oai(skip_serializing_if_is_none)]
    pub dry_run: Option<bool>,
}

example!(Receipt, { "id": "job_01h455vb4pex5vsknk084sn02q", "outcome": "inserted" });

/// The jobs that were asked for, in the order of the request.
#[derive(Debug, Object)]
#[oai(rename = "JobReceipts")]
pub struct Receipts {
    /// One for each job of the request.
    pub jobs: Vec<Receipt>,
    /// `true`: it was only tried out, and these jobs are not there.
    #[oai(skip_serializing_if_is_none)]
    pub dry_run: Option<bool>,
}

/// What came of asking for a job to stop.
#[derive(ApiResponse)]
enum Stopped {
    /// It waited for its turn, and is cancelled; or it ran, the caller preferred to wait, and it ended.
    #[oai(status = 200)]
    Ended(
        Json<Job>,
        /// The preference that was honoured.
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
    /// It runs; its worker was told, and stops it within seconds.
    #[oai(status = 202)]
    Told(
        Json<Job>,
        /// The job.
        #[oai(header = "Location")]
        String,
        /// When to look at it, in seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
}

/// Which jobs; what is left out does not matter.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "JobSelection", example)]
struct Selection {
    /// Of this kind.
    kind: Option<Word>,
    /// In this queue.
    queue: Option<Word>,
    /// In this state.
    state: Option<JobState>,
    /// Asked for from this moment on.
    since: Option<Moment>,
    /// Asked for before this moment.
    until: Option<Moment>,
}

example!(Selection, { "kind": "diagnostics.probe", "until": "2026-01-15T12:00:00Z" });

impl From<Selection> for Filter {
    fn from(selection: Selection) -> Self {
        Self {
            state: selection.state.map(Into::into),
            kinds: selection.kind.into_iter().map(Into::into).collect(),
            queue: selection.queue.map(Into::into),
            since: selection.since.map(|moment| moment.0),
            until: selection.until.map(|moment| moment.0),
        }
    }
}

/// What came of changing many jobs.
#[derive(Debug, Object)]
#[oai(rename = "JobsChanged", example)]
struct Changed {
    /// How many were changed.
    count: u64,
    /// The most that one call changes was reached: repeat the call until this is false.
    more: bool,
    /// `true`: it was only tried out, and none was changed.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

example!(Changed, { "count": 12, "more": false });

/// A kind of job that can be asked for, or that the platform asks for.
#[derive(Debug, Object)]
#[oai(example)]
struct JobKind {
    /// `feature.verb`.
    kind: String,
    /// Where its jobs wait.
    queue: String,
    /// Callers may ask for it.
    public: bool,
    /// 0 first, 9 last, when the request does not say otherwise.
    priority: i16,
    /// Counted attempts before a job is discarded.
    max_attempts: i32,
    /// How long one attempt may take.
    timeout_seconds: u64,
}

example!(JobKind, {
    "kind": "diagnostics.probe",
    "queue": "default",
    "public": true,
    "priority": 4,
    "max_attempts": 10,
    "timeout_seconds": 600,
});

#[OpenApi(tag = "Tag::Jobs")]
impl Jobs {
    /// Ask for a job
    ///
    /// It is written down before the answer, and done at least once. The answer comes at once; with the header
    /// `Prefer: wait=10` it comes when the job ended, with the job, or after so many seconds (at most 60). With
    /// `dry_run=true` the answer has the job as it would be, or the one that has its unique key already.
    #[oai(path = "/jobs", method = "post", operation_id = "askForJob")]
    async fn ask(
        &self,
        caller: May<ManageJobs>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        prefer: Prefer,
        body: Body<JobRequest>,
    ) -> Result<Answered<Asked<Receipt>>, Error> {
        let organization = caller.organization();
        let new = ask::new_job(body.0, caller.by(), app.db.now())?;
        if dry_run.is_wanted() {
            return once.rehearse(organization, async |tx| tried_out(tx, new).await).await;
        }
        let receipt = if once.has_key() {
            let ask = once.run(&caller, organization, async |tx| Ok(asked(ask_for_one(tx, new).await?)));
            ask.await?
        } else {
            // Nothing else belongs in its transaction.
            Answered::of(asked(together::enqueue(&app, organization, new, once.author(&caller)).await?))
        };
        prefer.wait(&app, organization, receipt).await
    }

    /// Ask for many jobs
    ///
    /// Up to 10 000 jobs of any kinds, written down in one statement: all of them, or none when one of them cannot be
    /// asked for. Then `errors` names each by its place in the request.
    /// A license has to have the feature `bulk_operations`, where there is one.
    #[oai(path = "/jobs/bulk", method = "post", operation_id = "askForJobs")]
    async fn ask_for_many(
        &self,
        caller: May<ManageJobs>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        body: Body<BulkRequest, { 32 * MIB }>,
    ) -> Result<Answered<BulkAccepted>, Error> {
        let organization = caller.organization();
        let new = ask::new_jobs(&body.0, caller.by(), app.db.now())?;
        let predecessors = ask::Predecessors::of(&new);
        let kinds: Vec<String> = new.iter().map(|job| job.kind.clone()).collect();
        let ask = dry_run.run(once, &caller, organization, async |tx| {
            let enqueued = request::enqueue_new(tx, organization, new).await;
            let enqueued = enqueued.map_err(|error| predecessors.explain(error))?;
            let asked: Vec<_> = enqueued.iter().map(|enqueued| enqueued.id).zip(&kinds).collect();
            audit::asks_for(tx.audit(), &asked);
            let jobs = enqueued.into_iter().map(Receipt::from).collect();
            let receipts = Json(Receipts { jobs, dry_run: dry_run.shown() });
            Ok(if dry_run.is_wanted() { BulkAccepted::TriedOut(receipts) } else { BulkAccepted::Accepted(receipts) })
        });
        ask.await
    }

    /// List jobs
    ///
    /// Newest first unless told otherwise. They come without payloads, results and histories; `GET /jobs/{id}` has them.
    #[oai(path = "/jobs", method = "get", operation_id = "listJobs")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        /// Only in this state.
        state: Query<Option<JobState>>,
        /// Only of this kind.
        kind: Query<Option<Word>>,
        /// Only in this queue.
        queue: Query<Option<Word>>,
        during: During,
        paging: Paging<Newest>,
    ) -> Result<Paged<JobSummary>, Error> {
        let organization = caller.organization();
        let filter = Filter {
            state: state.0.map(Into::into),
            kinds: kinds(kind.0, queue.0.as_ref())?,
            queue: queue.0.map(Into::into),
            since: during.since,
            until: during.until,
        };
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let jobs = control::list(&mut tx, &filter, window).await?;
        Ok(paging.page(organization, jobs, |job| Place::id(job.id), JobSummary::from))
    }

    /// Get a job
    ///
    /// With its attempts and what happened to it when. With `wait`, the answer comes the moment the job ended, or after
    /// so many seconds as it is then.
    #[oai(path = "/jobs/:job", method = "get", operation_id = "getJob")]
    async fn get(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        /// The job.
        job: Path<JobId>,
        /// Seconds to wait for its end, at most 60.
        wait: Query<Option<wait::Seconds>>,
    ) -> Result<Json<Job>, Error> {
        let organization = caller.organization();
        let patience = wait.0.map_or(Duration::ZERO, wait::Seconds::duration);
        let job = wait::until_ended(&app, organization, job.0, patience).await?;
        Ok(Json(Arc::unwrap_or_clone(job).into()))
    }

    /// Cancel a job
    ///
    /// At once if it waits. If it runs, its worker is told: the handler hears of it within a second, and is stopped hard
    /// after its grace. With `Prefer: wait=10` the answer comes when it ended, or after so many seconds.
    ///
    /// Refused as `wrong_state` when it has ended.
    #[oai(path = "/jobs/:job/cancel", method = "post", operation_id = "cancelJob")]
    async fn cancel(
        &self,
        caller: May<ManageJobs>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The job.
        job: Path<JobId>,
    ) -> Result<Answered<Stopped>, Error> {
        let organization = caller.organization();
        let cancel = once.run(&caller, organization, async |tx| {
            let change = control::cancel(tx, job.0, &caller.by().to_string()).await?;
            refuse_impossible(change, job.0, "cancelled: it has ended")?;
            let after = control::find(tx, job.0).await?.ok_or_else(|| Error::not_found(job.0))?;
            Ok(match change {
                Change::Asked => Stopped::Told(Json(after.into()), format!("/jobs/{}", job.0), LOOK_AFTER),
                _ => Stopped::Ended(Json(after.into()), None),
            })
        });
        let stopped = cancel.await?;
        if stopped.status() == StatusCode::OK && !stopped.is_replayed() {
            app.tell_ended(&[job.0]).await;
        }
        match prefer.ended(&app, organization, &stopped).await? {
            Some((_, job, applied)) => stopped.instead(|_| Ok(Stopped::Ended(Json(job), Some(applied)))).await,
            None => Ok(stopped),
        }
    }

    /// Retry a job
    ///
    /// A job that was discarded or cancelled runs again, with all its attempts before it; one that is scheduled runs now.
    ///
    /// Refused as `wrong_state` when it is in any other state.
    #[oai(path = "/jobs/:job/retry", method = "post", operation_id = "retryJob")]
    async fn retry(
        &self,
        caller: May<ManageJobs>,
        once: Once,
        /// The job.
        job: Path<JobId>,
    ) -> Result<Answered<Json<Job>>, Error> {
        let organization = caller.organization();
        let retry = once.run(&caller, organization, async |tx| {
            let change = control::retry(tx, job.0).await?;
            refuse_impossible(change, job.0, "retried: only jobs that are scheduled, discarded or cancelled can be")?;
            let after = control::find(tx, job.0).await?.ok_or_else(|| Error::not_found(job.0))?;
            Ok(Json(after.into()))
        });
        retry.await
    }

    /// Retry many jobs
    ///
    /// The discarded jobs that the filter selects (or the cancelled ones, with `"state": "cancelled"`), oldest first, up
    /// to 10 000 in one call.
    #[oai(path = "/jobs/retry", method = "post", operation_id = "retryJobs")]
    async fn retry_many(
        &self,
        caller: May<ManageJobs>,
        once: Once,
        dry_run: DryRun,
        body: Body<Selection>,
    ) -> Result<Answered<Json<Changed>>, Error> {
        let organization = caller.organization();
        if !matches!(body.0.state, None | Some(JobState::Discarded | JobState::Cancelled)) {
            return Err(Error::field(
                "state",
                "only discarded or cancelled jobs can be retried; write one of the two, or leave it out",
            ));
        }
        let retry = dry_run.run(once, &caller, organization, async |tx| {
            let filter = Filter::from(body.0);
            let count = control::retry_all(tx, &filter, AT_ONCE).await?;
            selected(tx, &filter, count);
            Ok(changed(count, dry_run))
        });
        retry.await
    }

    /// Discard many jobs
    ///
    /// The jobs that wait for a worker or for their time and that the filter selects, oldest first, up to 10 000 in one
    /// call. They stay searchable as discarded jobs, and can be retried.
    #[oai(path = "/jobs/discard", method = "post", operation_id = "discardJobs")]
    async fn discard_many(
        &self,
        caller: May<ManageJobs>,
        once: Once,
        dry_run: DryRun,
        body: Body<Selection>,
    ) -> Result<Answered<Json<Changed>>, Error> {
        let organization = caller.organization();
        if !matches!(body.0.state, None | Some(JobState::Available | JobState::Scheduled)) {
            return Err(Error::field(
                "state",
                "only available or scheduled jobs can be discarded; write one of the two, or leave it out",
            ));
        }
        let filter = Filter::from(body.0);
        if filter == Filter::default() {
            return Err(Error::field(
                "body",
                "this would discard everything that waits; name a kind, a queue, a state, since or until",
            ));
        }
        let discard = dry_run.run(once, &caller, organization, async |tx| {
            let count = control::discard_all(tx, &filter, &caller.by().to_string(), AT_ONCE).await?;
            selected(tx, &filter, count);
            Ok(changed(count, dry_run))
        });
        discard.await
    }

    /// List a job's log lines
    ///
    /// In the order they were written, attempt by attempt.
    #[oai(path = "/jobs/:job/logs", method = "get", operation_id = "listJobLogs")]
    async fn logs(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        /// The job.
        job: Path<JobId>,
        paging: Paging,
    ) -> Result<Paged<LogLine>, Error> {
        let organization = caller.organization();
        let after = paging.after(organization)?.map(|place| place.to_line()).transpose()?;
        let (attempt, line) = after.unwrap_or_default();
        let mut tx = app.db.tenant(organization).await?;
        let lines = log::after(&mut tx, job.0, attempt, line, paging.and_one()).await?;
        if lines.is_empty() && control::find(&mut tx, job.0).await?.is_none() {
            return Err(Error::not_found(job.0));
        }
        Ok(paging.page(organization, lines, |line| Place::line(line.attempt, line.line), LogLine::from))
    }

    /// Follow a job
    ///
    /// Server-sent events: `state`, `progress` and `log`, as they happen. The stream begins with the job as it is, and
    /// ends when the job ends, or after a quarter of an hour. A client that connects again with `Last-Event-ID`, as
    /// browsers do, gets the log lines it has not seen.
    #[oai(path = "/jobs/:job/events", method = "get", operation_id = "followJob")]
    async fn follow(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        /// The job.
        job: Path<JobId>,
        /// The id of the last event that was received.
        #[oai(name = "Last-Event-ID")]
        last_event: Header<Option<follow::Place>>,
    ) -> Result<EventStream<BoxStream<'static, News>>, Error> {
        let organization = caller.organization();
        follow::follow(&app, organization, job.0, last_event.0.unwrap_or_default()).await
    }

    /// List the kinds of jobs
    ///
    /// What can be asked for, and how it is run.
    #[oai(path = "/job-kinds", method = "get", operation_id = "listJobKinds")]
    async fn kinds(&self, _caller: May<ReadJobs>) -> Result<Json<Vec<JobKind>>, Error> {
        Ok(Json(catalogue::kinds().into_iter().map(JobKind::from).collect()))
    }
}

/// What came of asking for many jobs.
#[derive(ApiResponse)]
enum BulkAccepted {
    /// They were written down, and will be done.
    #[oai(status = 202)]
    Accepted(Json<Receipts>),
    /// It was only tried out: they could be asked for, and this would come of it.
    #[oai(status = 200)]
    TriedOut(Json<Receipts>),
}

impl Shows for Receipt {
    fn showing(self, job: Job) -> Self {
        Self { job: Some(Box::new(job)), ..self }
    }
}

pub(crate) fn asked(receipt: impl Into<Receipt>) -> Asked<Receipt> {
    let receipt = receipt.into();
    Asked::accepted(receipt.id, receipt)
}

/// The kinds that are meant: the one that is named, or those of the queue, for the ledger finds jobs by their kinds.
fn kinds(kind: Option<Word>, queue: Option<&Word>) -> Result<Vec<String>, Error> {
    match (kind, queue) {
        (Some(kind), _) => Ok(vec![kind.into()]),
        (None, None) => Ok(Vec::new()),
        (None, Some(name)) => {
            let queue: Queue = name.as_str().parse().map_err(|_| {
                let all: Vec<&str> = Queue::ALL.iter().map(|queue| queue.as_str()).collect();
                Error::parameter("queue", format!("there is no such queue; write one of {}", all.join(", ")))
            })?;
            let of_queue = catalogue::kinds().into_iter().filter(|kind| kind.policy.queue == queue);
            Ok(of_queue.map(|kind| kind.name.to_owned()).collect())
        }
    }
}

async fn enqueue_one(tx: &mut TenantTx, new: NewJob) -> Result<Enqueued, Error> {
    let organization = tx.organization();
    let enqueued = request::enqueue_new(tx, organization, vec![new]).await?;
    Ok(enqueued.first().copied().ok_or(sqlx::Error::RowNotFound)?)
}

/// The same, where this is what the transaction is for.
async fn ask_for_one(tx: &mut TenantTx, new: NewJob) -> Result<Enqueued, Error> {
    let kind = new.kind.clone();
    let enqueued = enqueue_one(tx, new).await?;
    audit::asks_for(tx.audit(), &[(enqueued.id, &kind)]);
    Ok(enqueued)
}

/// The job as it would be, in a transaction that will not be.
async fn tried_out(tx: &mut TenantTx, new: NewJob) -> Result<Asked<Receipt>, Error> {
    let enqueued = enqueue_one(tx, new).await?;
    let found = control::find(tx, enqueued.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let receipt = Receipt { job: Some(Box::new(found.into())), dry_run: Some(true), ..enqueued.into() };
    Ok(Asked::tried_out(receipt))
}

/// What a call by filter changed, for the record.
fn selected(tx: &mut TenantTx, filter: &Filter, count: u64) {
    let draft = tx.audit().set("count", count).set("kinds", &filter.kinds).set("queue", &filter.queue);
    draft
        .set("state", filter.state.map(|state| state.to_string()))
        .set("since", filter.since)
        .set("until", filter.until);
}

fn changed(count: u64, dry_run: DryRun) -> Json<Changed> {
    Json(Changed { count, more: count == AT_ONCE.unsigned_abs(), dry_run: dry_run.shown() })
}

fn refuse_impossible(change: Change, job: JobId, what: &str) -> Result<(), Error> {
    match change {
        Change::Done | Change::Asked => Ok(()),
        Change::Unknown => Err(Error::not_found(job)),
        Change::Impossible(state) => {
            Err(Error::new(Code::WrongState, format!("the job {job} is {state} and cannot be {what}")))
        }
    }
}

impl From<catalogue::Kind> for JobKind {
    fn from(kind: catalogue::Kind) -> Self {
        Self {
            kind: kind.name.to_owned(),
            queue: kind.policy.queue.to_string(),
            public: kind.public,
            priority: kind.policy.priority,
            max_attempts: kind.policy.max_attempts,
            timeout_seconds: kind.policy.timeout.as_secs(),
        }
    }
}

impl From<Enqueued> for Receipt {
    fn from(enqueued: Enqueued) -> Self {
        Self { id: enqueued.id, outcome: enqueued.outcome.into(), job: None, dry_run: None }
    }
}

/// Asks for a job of a kind that is known by word, with a payload that was checked before.
pub(crate) async fn ask_again(
    tx: &mut TenantTx,
    kind: &str,
    payload: &serde_json::Value,
    by: &By,
) -> Result<Receipt, Error> {
    let payload = serde_json::value::to_raw_value(payload).map_err(request::RequestError::Payload)?;
    let new = catalogue::find(kind)?.new_job(&payload, &request::Asked::default(), by, tx.now())?;
    Ok(enqueue_one(tx, new).await?.into())
}
