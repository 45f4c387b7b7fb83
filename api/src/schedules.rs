//! Schedules: recurring jobs.

use gantry_jobs::schedule::{self, NewSchedule};
use gantry_schema::organizations::needed::{ManageSchedules, ReadSchedules};
use gantry_schema::schedules::cron::{CronSchedule, MissedRuns, Overlap};
use gantry_schema::schedules::{self as rows, queries};
use gantry_schema::{JobTx as _, Order, ScheduleId, TenantTx};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Any, ToJSON as _};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{Etag, IfMatch, IfNoneMatch, Tagged};
use crate::dry_run::DryRun;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::{AnyJson, Moment, Name, Word};
use crate::jobs::{self, Asked, Prefer, Receipt};
use crate::once::{Answered, Once};
use crate::page::{Limit, Place};
use crate::paging::{Paged, Paging};
use crate::sort::{Sort, Sorting};
use crate::tag::Tag;

/// The operations on schedules.
#[derive(Debug, Clone, Copy)]
pub struct Schedules;

/// A recurring job.
#[derive(Debug, Object)]
#[oai(example)]
struct Schedule {
    /// Its id.
    id: ScheduleId,
    /// What people call it; unique in the organization.
    name: String,
    /// The kind of job it asks for.
    kind: String,
    /// With which payload.
    payload: Any<Value>,
    /// When: five fields, or six with seconds first.
    cron: String,
    /// In which IANA time zone.
    time_zone: String,
    /// What happens to times nobody was there for: `skip`, `once` or `all`.
    missed_runs: String,
    /// What happens while the previous job still lives: `allow`, `skip` or `queue`.
    overlap: String,
    /// Its jobs start up to so many seconds later.
    jitter_seconds: i32,
    /// It asks for nothing at the moment.
    paused: bool,
    /// When it asks next; absent: it does not.
    #[oai(skip_serializing_if_is_none)]
    next_tick_at: Option<Moment>,
    /// When it was made.
    created_at: Moment,
    /// The times it would have: of a schedule that was only tried out.
    #[oai(skip_serializing_if_is_none)]
    next_times: Option<Vec<Moment>>,
    /// `true`: it was only tried out, and is not there.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

example!(Schedule, {
    "id": "sch_01h455vb4pex5vsknk084sn02q",
    "name": "Nightly probe",
    "kind": "diagnostics.probe",
    "payload": { "message": "good night" },
    "cron": "0 3 * * *",
    "time_zone": "Europe/Berlin",
    "missed_runs": "once",
    "overlap": "skip",
    "jitter_seconds": 60,
    "paused": false,
    "next_tick_at": "2026-01-16T02:00:00Z",
    "created_at": "2026-01-15T12:00:00Z",
});

/// What the list of schedules is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScheduleSorting {
    CreatedAt,
    Name,
}

impl Sorting for ScheduleSorting {
    const WORDS: &'static [(&'static str, Self)] = &[("created_at", Self::CreatedAt), ("name", Self::Name)];
    const USUAL: Sort<Self> = Sort { by: Self::CreatedAt, order: Order::Ascending };
}

/// A recurring job to set up.
///
/// Refused as `name_taken` when the organization has a schedule of this name, as `invalid_cron` or as `unknown_time_zone`
/// when its times cannot be understood, and as `unknown_kind`, as `kind_not_public`, as `invalid_payload` or as
/// `payload_too_large` when such a job cannot be asked for.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct ScheduleRequest {
    /// What people call it: 1 to 200 characters, unique in the organization.
    name: Name,
    /// The kind of job; `GET /job-kinds` lists them.
    kind: Word,
    /// The job's payload; what it looks like depends on the kind.
    payload: Option<AnyJson>,
    /// When: `0 3 * * MON`. Five fields (minute, hour, day, month, day of week), or six with seconds first.
    cron: String,
    /// The IANA time zone the expression is in: `Europe/Berlin`; left out: `UTC`.
    time_zone: Option<String>,
    /// What happens to times nobody was there for; left out: `once`.
    missed_runs: Option<MissedRunsPolicy>,
    /// What happens while the previous job still lives; left out: `allow`.
    overlap: Option<OverlapPolicy>,
    /// Its jobs start up to so many seconds later, so that not everything starts at once; 0 to 86 400.
    #[oai(validator(minimum(value = "0"), maximum(value = "86400")))]
    jitter_seconds: Option<i32>,
}

example!(ScheduleRequest, {
    "name": "Nightly probe",
    "kind": "diagnostics.probe",
    "payload": { "message": "good night" },
    "cron": "0 3 * * *",
    "time_zone": "Europe/Berlin",
    "overlap": "skip",
    "jitter_seconds": 60,
});

/// What happens to times that came and went while nobody was there.
#[derive(Debug, Clone, Copy, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
enum MissedRunsPolicy {
    /// They are left out.
    Skip,
    /// One job stands for all of them.
    Once,
    /// Each gets its job.
    All,
}

/// What happens while the previous job still lives.
#[derive(Debug, Clone, Copy, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
enum OverlapPolicy {
    /// Both run side by side.
    Allow,
    /// The new one is left out.
    Skip,
    /// The new one runs when the other has ended.
    Queue,
}

/// An expression to try out.
///
/// Refused as `invalid_cron` or as `unknown_time_zone` when it cannot be understood.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "SchedulePreviewRequest", example)]
struct PreviewRequest {
    /// When: `0 3 * * MON`.
    cron: String,
    /// The IANA time zone; left out: `UTC`.
    time_zone: Option<String>,
    /// How many times, 1 to 100; left out: 10.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    count: Option<u8>,
}

example!(PreviewRequest, { "cron": "0 3 * * MON", "time_zone": "Europe/Berlin", "count": 2 });

/// When something happens next.
#[derive(Debug, Object)]
#[oai(rename = "UpcomingTimes", example)]
struct Upcoming {
    /// The times, earliest first.
    times: Vec<Moment>,
}

example!(Upcoming, { "times": ["2026-01-19T02:00:00Z", "2026-01-26T02:00:00Z"] });

/// A schedule was set up.
#[derive(ApiResponse)]
enum Created {
    /// It asks for jobs from now on.
    #[oai(status = 201)]
    Created(
        Json<Schedule>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
        /// The tag of what it looks like: for `If-Match`, and for `If-None-Match`.
        #[oai(header = "ETag")]
        Etag,
    ),
    /// It was only tried out: it could be set up, and would have these times.
    #[oai(status = 200)]
    TriedOut(Json<Schedule>),
}

/// A schedule was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// It asks for nothing any more.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/schedules", tag = "Tag::Schedules")]
impl Schedules {
    /// Set up a schedule
    ///
    /// It asks for a job at every time of its expression, in its time zone, from now on.
    #[oai(path = "/", method = "post", operation_id = "createSchedule")]
    async fn create(
        &self,
        caller: May<ManageSchedules>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        body: Body<ScheduleRequest>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let new = new_schedule(body.0)?;
        let create = dry_run.run(once, &caller, organization, async |tx| {
            let made: Schedule =
                schedule::create(tx, new).await.on_constraint("schedules_name_key", name_taken)?.into();
            if dry_run.is_wanted() {
                let cron = CronSchedule::parse(&made.cron, &made.time_zone)?;
                let next_times = Some(upcoming(&cron, &app, 10).times);
                return Ok(Created::TriedOut(Json(Schedule { next_times, dry_run: dry_run.shown(), ..made })));
            }
            let (location, etag) = (format!("/schedules/{}", made.id), Etag::of(&made));
            tx.audit().on(&made.id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Created::Created(Json(made), location, etag))
        });
        create.await
    }

    /// List schedules
    ///
    /// Oldest first unless told otherwise.
    #[oai(path = "/", method = "get", operation_id = "listSchedules")]
    async fn list(
        &self,
        caller: May<ReadSchedules>,
        app: Data<&App>,
        /// Only those that are paused, or are not.
        paused: Query<Option<bool>>,
        /// Only those that ask for this kind of job.
        kind: Query<Option<Word>>,
        paging: Paging<ScheduleSorting>,
    ) -> Result<Paged<Schedule>, Error> {
        let organization = caller.organization();
        let filter = queries::Filter { paused: paused.0, kind: kind.0.map(Into::into) };
        let place = |schedule: &rows::Schedule| match paging.by() {
            ScheduleSorting::CreatedAt => Place::id(schedule.id),
            ScheduleSorting::Name => Place::name(&schedule.name),
        };
        let found = match paging.by() {
            ScheduleSorting::CreatedAt => {
                let window = paging.window(organization)?;
                queries::list(&mut app.db.tenant(organization).await?, &filter, window).await?
            }
            ScheduleSorting::Name => {
                let after = paging.after(organization)?;
                let after = after.as_ref().map(Place::to_name).transpose()?;
                let mut tx = app.db.tenant(organization).await?;
                queries::list_by_name(&mut tx, &filter, paging.order(), after, paging.and_one()).await?
            }
        };
        Ok(paging.page(organization, found, place, Schedule::from))
    }

    /// Try out an expression
    ///
    /// The times a schedule would have, without setting one up.
    #[oai(path = "/preview", method = "post", operation_id = "previewSchedule")]
    async fn preview(
        &self,
        _caller: May<ReadSchedules>,
        app: Data<&App>,
        body: Body<PreviewRequest>,
    ) -> Result<Json<Upcoming>, Error> {
        let cron = CronSchedule::parse(&body.0.cron, body.0.time_zone.as_deref().unwrap_or("UTC"))?;
        match body.0.count.unwrap_or(10) {
            count @ 1..=100 => Ok(Json(upcoming(&cron, &app, usize::from(count)))),
            _ => Err(Error::field("count", "1 to 100 times are shown; write a number between them")),
        }
    }

    /// Get a schedule
    ///
    /// With the time it asks next, and with the `ETag` that changing it needs.
    #[oai(path = "/:schedule", method = "get", operation_id = "getSchedule")]
    async fn get(
        &self,
        caller: May<ReadSchedules>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The schedule.
        schedule: Path<ScheduleId>,
    ) -> Result<Tagged<Schedule>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        Ok(if_none_match.answer(find(&mut tx, schedule.0).await?.into()))
    }

    /// Change a schedule
    ///
    /// All of it, as it is to be from now on: what is left out is as in a new one. It keeps its id and its pause; where
    /// its times change, it goes on with the next of the new ones. Needs `If-Match`, so that nobody else's change is
    /// overwritten unseen. With `dry_run=true` the answer has the times it would have; its `ETag` is of nothing that is there.
    ///
    /// Refused as `precondition_required` without `If-Match`.
    #[oai(path = "/:schedule", method = "put", operation_id = "replaceSchedule")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn replace(
        &self,
        caller: May<ManageSchedules>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        if_match: IfMatch,
        /// The schedule.
        schedule: Path<ScheduleId>,
        body: Body<ScheduleRequest>,
    ) -> Result<Answered<Tagged<Schedule>>, Error> {
        let organization = caller.organization();
        let new = new_schedule(body.0)?;
        let replace = dry_run.run(once, &caller, organization, async |tx| {
            let before = find_to_change(tx, schedule.0).await?;
            let after = schedule::changed(&before, new, tx.now())?;
            let (shown, after_shown) = (Schedule::from(before), Schedule::from(after.clone()));
            if_match.demand(&shown, &after_shown)?;
            queries::update(tx, &after).await.on_constraint("schedules_name_key", name_taken)?;
            if dry_run.is_wanted() {
                let next_times = Some(upcoming(&CronSchedule::parse(&after.cron, &after.time_zone)?, &app, 10).times);
                return Ok(Tagged::of(Schedule { next_times, dry_run: dry_run.shown(), ..after_shown }));
            }
            let changed = (shown.to_json(), after_shown.to_json());
            tx.audit().called(&after_shown.name).became(changed.0.as_ref(), changed.1.as_ref());
            Ok(Tagged::of(after_shown))
        });
        replace.await
    }

    /// List a schedule's next times
    ///
    /// Without the jitter of each; a paused schedule's are those it would have.
    #[oai(path = "/:schedule/next-times", method = "get", operation_id = "listScheduleTimes")]
    async fn next_times(
        &self,
        caller: May<ReadSchedules>,
        app: Data<&App>,
        /// The schedule.
        schedule: Path<ScheduleId>,
        /// How many; left out: 50.
        count: Query<Option<Limit>>,
    ) -> Result<Json<Upcoming>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        let found = find(&mut tx, schedule.0).await?;
        let cron = CronSchedule::parse(&found.cron, &found.time_zone)?;
        Ok(Json(upcoming(&cron, &app, count.0.unwrap_or_default().count())))
    }

    /// Remove a schedule
    ///
    /// Jobs it asked for stay.
    #[oai(path = "/:schedule", method = "delete", operation_id = "deleteSchedule")]
    async fn delete(
        &self,
        caller: May<ManageSchedules>,
        once: Once,
        if_match: IfMatch,
        /// The schedule.
        schedule: Path<ScheduleId>,
    ) -> Result<Answered<Deleted>, Error> {
        let organization = caller.organization();
        let delete = once.run(&caller, organization, async |tx| {
            let before = Schedule::from(find_to_change(tx, schedule.0).await?);
            if_match.check(&before)?;
            queries::delete(tx, schedule.0).await?;
            tx.audit().called(&before.name).became(before.to_json().as_ref(), None);
            Ok(Deleted::Deleted)
        });
        delete.await
    }

    /// Pause a schedule
    ///
    /// It asks for nothing until it is resumed. Pausing it again changes nothing.
    #[oai(path = "/:schedule/pause", method = "post", operation_id = "pauseSchedule")]
    async fn pause(
        &self,
        caller: May<ManageSchedules>,
        once: Once,
        if_match: IfMatch,
        /// The schedule.
        schedule: Path<ScheduleId>,
    ) -> Result<Answered<Tagged<Schedule>>, Error> {
        set_paused(once, &caller, &if_match, schedule.0, true).await
    }

    /// Resume a schedule
    ///
    /// It goes on with its next time; what it missed meanwhile stays missed. Resuming what is not paused changes nothing.
    #[oai(path = "/:schedule/resume", method = "post", operation_id = "resumeSchedule")]
    async fn resume(
        &self,
        caller: May<ManageSchedules>,
        once: Once,
        if_match: IfMatch,
        /// The schedule.
        schedule: Path<ScheduleId>,
    ) -> Result<Answered<Tagged<Schedule>>, Error> {
        set_paused(once, &caller, &if_match, schedule.0, false).await
    }

    /// Run a schedule now
    ///
    /// Asks for its job at once, paused or not; its times stay as they are. With `Prefer: wait=10` the answer comes when the
    /// job ended, with the job, or after so many seconds.
    ///
    /// Refused as `unknown_kind`, as `invalid_payload` or as `payload_too_large` when its job can no longer be asked for.
    #[oai(path = "/:schedule/run", method = "post", operation_id = "runSchedule")]
    async fn run(
        &self,
        caller: May<ManageSchedules>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The schedule.
        schedule: Path<ScheduleId>,
    ) -> Result<Answered<Asked<Receipt>>, Error> {
        let organization = caller.organization();
        let run = once.run(&caller, organization, async |tx| {
            let found = find(tx, schedule.0).await?;
            let receipt = jobs::ask_again(tx, &found.kind, &found.payload, caller.by()).await?;
            tx.audit().called(&found.name).set("job_id", receipt.id);
            Ok(jobs::asked(receipt))
        });
        prefer.wait(&app, organization, run.await?).await
    }
}

async fn set_paused(
    once: Once,
    caller: &May<ManageSchedules>,
    if_match: &IfMatch,
    id: ScheduleId,
    paused: bool,
) -> Result<Answered<Tagged<Schedule>>, Error> {
    let organization = caller.organization();
    let set = once.run(caller, organization, async |tx| {
        let mut found = find_to_change(tx, id).await?;
        if_match.check(&Schedule::from(found.clone()))?;
        tx.audit().called(&found.name).changed("paused", found.paused, paused);
        if found.paused != paused {
            let next = if paused { None } else { schedule::next_tick(&found, tx.now()) };
            queries::set_paused(tx, found.id, paused, next).await?;
            (found.paused, found.next_tick_at) = (paused, next);
        }
        Ok(Tagged::of(Schedule::from(found)))
    });
    set.await
}

fn name_taken() -> Error {
    Error::new(Code::NameTaken, "the organization has a schedule of this name; choose another, or delete that one")
        .at("name")
}

/// The schedule, held until the transaction ends: nobody else changes it in between.
async fn find_to_change(tx: &mut TenantTx, id: ScheduleId) -> Result<rows::Schedule, Error> {
    queries::lock(tx, id).await?.ok_or_else(|| Error::not_found(id))
}

async fn find(tx: &mut TenantTx, id: ScheduleId) -> Result<rows::Schedule, Error> {
    queries::find(tx, id).await?.ok_or_else(|| Error::not_found(id))
}

fn upcoming(cron: &CronSchedule, app: &App, count: usize) -> Upcoming {
    Upcoming { times: cron.upcoming(app.db.now(), count).into_iter().map(Moment).collect() }
}

fn new_schedule(request: ScheduleRequest) -> Result<NewSchedule, Error> {
    let payload = request.payload.map(|payload| payload.value()).transpose();
    let jitter_seconds = request.jitter_seconds.unwrap_or(0);
    if !(0..=86_400).contains(&jitter_seconds) {
        return Err(Error::field(
            "jitter_seconds",
            "jitter is 0 to 86 400 seconds, a day; write a number between them",
        ));
    }
    Ok(NewSchedule {
        name: request.name.to_string(),
        kind: request.kind.into(),
        payload: payload
            .map_err(|wrong| Error::new(Code::InvalidPayload, wrong.0).at("payload"))?
            .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
        cron: request.cron,
        time_zone: request.time_zone.unwrap_or_else(|| "UTC".to_owned()),
        missed_runs: request.missed_runs.unwrap_or(MissedRunsPolicy::Once).into(),
        overlap: request.overlap.unwrap_or(OverlapPolicy::Allow).into(),
        jitter_seconds,
    })
}

impl From<MissedRunsPolicy> for MissedRuns {
    fn from(policy: MissedRunsPolicy) -> Self {
        match policy {
            MissedRunsPolicy::Skip => Self::Skip,
            MissedRunsPolicy::Once => Self::Once,
            MissedRunsPolicy::All => Self::All,
        }
    }
}

impl From<OverlapPolicy> for Overlap {
    fn from(policy: OverlapPolicy) -> Self {
        match policy {
            OverlapPolicy::Allow => Self::Allow,
            OverlapPolicy::Skip => Self::Skip,
            OverlapPolicy::Queue => Self::Queue,
        }
    }
}

impl From<rows::Schedule> for Schedule {
    fn from(row: rows::Schedule) -> Self {
        Self {
            id: row.id,
            name: row.name,
            kind: row.kind,
            payload: Any(row.payload),
            cron: row.cron,
            time_zone: row.time_zone,
            missed_runs: row.missed_runs,
            overlap: row.overlap,
            jitter_seconds: row.jitter_seconds,
            paused: row.paused,
            next_tick_at: row.next_tick_at.map(Moment),
            created_at: row.created_at.into(),
            next_times: None,
            dry_run: None,
        }
    }
}
