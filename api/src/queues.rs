//! What runs how much: pauses and limits, changed while everything runs.

use gantry_jobs::{Queue, catalogue};
use gantry_schema::jobs::limits::{self, Limit as LimitRow};
use gantry_schema::jobs::pause::{self, Subject};
use gantry_schema::organizations::needed::{ManageJobs, OperatePlatform, ReadJobs};
use gantry_schema::{OrganizationId, TenantTx, turn};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::conditional::{IfMatch, IfNoneMatch, Put, Tagged};
use crate::error::{Code, Error};
use crate::example::{self, example};
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on queues, pauses and limits.
#[derive(Debug, Clone, Copy)]
pub struct Queues;

/// A queue.
#[derive(Debug, Object)]
#[oai(example)]
struct QueueState {
    /// Its name.
    name: String,
    /// Jobs that run at the same time at most, over all workers; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    max_running: Option<i32>,
    /// Its pause, if it is paused.
    #[oai(skip_serializing_if_is_none)]
    pause: Option<Pause>,
}

example!(QueueState, {
    "name": "webhooks",
    "max_running": 200,
    "pause": {
        "subject": "queue",
        "name": "webhooks",
        "paused_at": "2026-01-15T12:00:00Z",
        "paused_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
    },
});

/// A pause in force.
#[derive(Debug, Object)]
#[oai(example)]
struct Pause {
    /// What is paused: `queue`, `kind` or `organization`.
    subject: String,
    /// Its name or id.
    name: String,
    /// Since when.
    paused_at: Moment,
    /// Who did it; absent: somebody above the organization, who alone can lift it.
    #[oai(skip_serializing_if_is_none)]
    paused_by: Option<String>,
}

example!(Pause, {
    "subject": "kind",
    "name": "diagnostics.probe",
    "paused_at": "2026-01-15T12:00:00Z",
    "paused_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
});

/// How many jobs of a queue may run at the same time.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct QueueLimit {
    /// Jobs, over all workers; at least 1.
    #[oai(validator(minimum(value = "1")))]
    max_running: i32,
}

example!(QueueLimit, { "max_running": 200 });

/// A provider's limit.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct RateLimit {
    /// Jobs per period; at least 1.
    #[oai(validator(minimum(value = "1")))]
    amount: i32,
    /// The period, in seconds; at least 1.
    #[oai(validator(minimum(value = "1")))]
    period_seconds: i32,
    /// How many may come at once after a pause; left out: `amount`.
    #[oai(validator(minimum(value = "1")))]
    burst: Option<i32>,
}

example!(RateLimit, { "amount": 20, "period_seconds": 60, "burst": 5 });

/// A rate.
#[derive(Debug, Object)]
#[oai(example)]
struct Rate {
    /// Its name.
    name: String,
    /// Jobs per period.
    amount: i32,
    /// The period, in seconds.
    period_seconds: i32,
    /// How many may come at once after a pause.
    burst: i32,
}

example!(Rate, { "name": "namecheap", "amount": 20, "period_seconds": 60, "burst": 5 });

/// Something was lifted.
#[derive(ApiResponse)]
enum Lifted {
    /// It is, on every worker within a second.
    #[oai(status = 204)]
    Lifted,
}

#[OpenApi(tag = "Tag::Queues")]
impl Queues {
    /// List queues
    ///
    /// With their pauses and limits. Needs a key of the platform.
    #[oai(path = "/queues", method = "get", operation_id = "listQueues")]
    async fn list(&self, caller: May<OperatePlatform>, app: Data<&App>) -> Result<Json<Vec<QueueState>>, Error> {
        let platform = caller.organization();
        let mut tx = app.db.tenant(platform).await?;
        let (pauses, limits) = (pause::list(&mut tx).await?, limits::list(&mut tx).await?);
        let state = |queue: Queue| {
            let name = queue.as_str();
            let pause = pauses.iter().find(|pause| pause.subject == Subject::Queue.as_str() && pause.name == name);
            let limit = limits.iter().find_map(|limit| match limit {
                LimitRow::Queue { name: limited, running } if limited == name => Some(*running),
                _ => None,
            });
            QueueState {
                name: name.to_owned(),
                max_running: limit,
                pause: pause.cloned().map(|pause| Pause::seen_by(pause, platform)),
            }
        };
        Ok(Json(Queue::ALL.into_iter().map(state).collect()))
    }

    /// List pauses
    ///
    /// Those the caller's organization made, of queues, kinds and organizations, and those of itself that somebody above
    /// made.
    #[oai(path = "/pauses", method = "get", operation_id = "listPauses")]
    async fn pauses(&self, caller: May<ReadJobs>, app: Data<&App>) -> Result<Json<Vec<Pause>>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        Ok(Json(pause::list(&mut tx).await?.into_iter().map(|it| Pause::seen_by(it, organization)).collect()))
    }

    /// Get the pause of a queue
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such queue, and when it is not paused.
    #[oai(path = "/queues/:queue/pause", method = "get", operation_id = "getQueuePause")]
    async fn queue_pause(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Tagged<Pause>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        found_pause(&mut tx, &if_none_match, Subject::Queue, known_queue(&queue)?).await
    }

    /// Pause a queue
    ///
    /// Nothing of it starts any more, on any worker; what runs ends. Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such queue.
    #[oai(path = "/queues/:queue/pause", method = "put", operation_id = "pauseQueue")]
    async fn pause_queue(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Put<Pause>>, Error> {
        set_pause(once, &caller, caller.organization(), &if_match, Subject::Queue, known_queue(&queue)?).await
    }

    /// Resume a queue
    ///
    /// What waits starts. Resuming what is not paused changes nothing.
    ///
    /// Refused as `not_found` when there is no such queue.
    #[oai(path = "/queues/:queue/pause", method = "delete", operation_id = "resumeQueue")]
    async fn resume_queue(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Lifted>, Error> {
        lift_pause(once, &caller, caller.organization(), &if_match, Subject::Queue, known_queue(&queue)?).await
    }

    /// Get the pause of a kind of job
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such kind, and when it is not paused.
    #[oai(path = "/job-kinds/:kind/pause", method = "get", operation_id = "getJobKindPause")]
    async fn kind_pause(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The kind.
        #[oai(example = "example_kind")]
        kind: Path<Word>,
    ) -> Result<Tagged<Pause>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        found_pause(&mut tx, &if_none_match, Subject::Kind, known_kind(&kind)?).await
    }

    /// Pause a kind of job
    ///
    /// No job of it starts any more, on any worker; what runs ends. Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such kind.
    #[oai(path = "/job-kinds/:kind/pause", method = "put", operation_id = "pauseJobKind")]
    async fn pause_kind(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The kind.
        #[oai(example = "example_kind")]
        kind: Path<Word>,
    ) -> Result<Answered<Put<Pause>>, Error> {
        set_pause(once, &caller, caller.organization(), &if_match, Subject::Kind, known_kind(&kind)?).await
    }

    /// Resume a kind of job
    ///
    /// What waits starts. Resuming what is not paused changes nothing.
    ///
    /// Refused as `not_found` when there is no such kind.
    #[oai(path = "/job-kinds/:kind/pause", method = "delete", operation_id = "resumeJobKind")]
    async fn resume_kind(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The kind.
        #[oai(example = "example_kind")]
        kind: Path<Word>,
    ) -> Result<Answered<Lifted>, Error> {
        lift_pause(once, &caller, caller.organization(), &if_match, Subject::Kind, known_kind(&kind)?).await
    }

    /// Get the pause of the organization's jobs
    ///
    /// The one that the caller's organization made itself; `GET /pauses` has those from above too.
    ///
    /// Refused as `not_found` when it is not paused.
    #[oai(path = "/organization/pause", method = "get", operation_id = "getOrganizationPause")]
    async fn organization_pause(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
    ) -> Result<Tagged<Pause>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        found_pause(&mut tx, &if_none_match, Subject::Organization, &organization.uuid().to_string()).await
    }

    /// Pause the organization's jobs
    ///
    /// None of the caller's organization starts any more; what runs ends.
    #[oai(path = "/organization/pause", method = "put", operation_id = "pauseOrganization")]
    async fn pause_organization(
        &self,
        caller: May<ManageJobs>,
        once: Once,
        if_match: IfMatch,
    ) -> Result<Answered<Put<Pause>>, Error> {
        let name = caller.organization().uuid().to_string();
        set_pause(once, &caller, caller.organization(), &if_match, Subject::Organization, &name).await
    }

    /// Resume the organization's jobs
    ///
    /// What waits starts, unless somebody above paused the organization.
    #[oai(path = "/organization/pause", method = "delete", operation_id = "resumeOrganization")]
    async fn resume_organization(
        &self,
        caller: May<ManageJobs>,
        once: Once,
        if_match: IfMatch,
    ) -> Result<Answered<Lifted>, Error> {
        let name = caller.organization().uuid().to_string();
        lift_pause(once, &caller, caller.organization(), &if_match, Subject::Organization, &name).await
    }

    /// Get the pause of an organization below
    ///
    /// The one that the caller's organization made.
    ///
    /// Refused as `not_found` when it made none.
    #[oai(path = "/organizations/:organization/pause", method = "get", operation_id = "getPauseOfOrganization")]
    async fn pause_of(
        &self,
        caller: May<ReadJobs>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Tagged<Pause>, Error> {
        let below = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut tx = app.db.tenant(caller.organization()).await?;
        found_pause(&mut tx, &if_none_match, Subject::Organization, &below.uuid().to_string()).await
    }

    /// Pause the jobs of an organization below
    ///
    /// None of them starts any more; what runs ends. The organization is told of it, and cannot lift it: its own pause is
    /// another one. Those below it go on.
    #[oai(path = "/organizations/:organization/pause", method = "put", operation_id = "pauseOrganizationBelow")]
    async fn pause_below(
        &self,
        caller: May<ManageJobs>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Put<Pause>>, Error> {
        let below = caller.may_for(&app.db, Some(organization.0)).await?;
        set_pause(once, &caller, caller.organization(), &if_match, Subject::Organization, &below.uuid().to_string())
            .await
    }

    /// Resume the jobs of an organization below
    ///
    /// What waits starts, unless the organization paused itself, or somebody else above it did.
    #[oai(path = "/organizations/:organization/pause", method = "delete", operation_id = "resumeOrganizationBelow")]
    async fn resume_below(
        &self,
        caller: May<ManageJobs>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Lifted>, Error> {
        let below = caller.may_for(&app.db, Some(organization.0)).await?;
        lift_pause(once, &caller, caller.organization(), &if_match, Subject::Organization, &below.uuid().to_string())
            .await
    }

    /// Get the limit of a queue
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such queue, and when it has no limit.
    #[oai(path = "/queues/:queue/limit", method = "get", operation_id = "getQueueLimit")]
    async fn queue_limit(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Tagged<QueueLimit>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = limits::find(&mut tx, "queue", known_queue(&queue)?).await?.and_then(QueueLimit::of);
        let no_limit = || Error::new(Code::NotFound, format!("the queue {} has no limit", queue.0)).at("queue");
        Ok(if_none_match.answer(found.ok_or_else(no_limit)?))
    }

    /// Limit a queue
    ///
    /// So many of its jobs run at the same time at most, over all workers. Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such queue, and as `precondition_required` when it has
    /// another limit and there is no `If-Match`.
    #[oai(path = "/queues/:queue/limit", method = "put", operation_id = "limitQueue")]
    async fn limit_queue(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
        body: Body<QueueLimit>,
    ) -> Result<Answered<Put<QueueLimit>>, Error> {
        let (name, limit) = (known_queue(&queue)?, body.0);
        let running = at_least_one("max_running", limit.max_running)?;
        let set = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("limit of {name}")).await?;
            let before = limits::find(tx, "queue", name).await?.and_then(QueueLimit::of);
            let put = if_match.put(before.as_ref(), limit)?;
            tx.audit().set("max_running", running);
            limits::set(tx, &LimitRow::Queue { name: name.to_owned(), running }).await?;
            Ok(put)
        });
        set.await
    }

    /// Lift a queue's limit
    ///
    /// Its jobs run as workers have room. Lifting what is not there changes nothing.
    ///
    /// Refused as `not_found` when there is no such queue.
    #[oai(path = "/queues/:queue/limit", method = "delete", operation_id = "unlimitQueue")]
    async fn unlimit_queue(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Lifted>, Error> {
        let name = known_queue(&queue)?;
        let lift = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("limit of {name}")).await?;
            let before = limits::find(tx, "queue", name).await?.and_then(QueueLimit::of);
            if_match.check_if_there(before.as_ref())?;
            limits::lift(tx, "queue", name).await?;
            Ok(Lifted::Lifted)
        });
        lift.await
    }

    /// List rates
    ///
    /// The limits of providers. Needs a key of the platform.
    #[oai(path = "/rates", method = "get", operation_id = "listRates")]
    async fn rates(&self, caller: May<OperatePlatform>, app: Data<&App>) -> Result<Json<Vec<Rate>>, Error> {
        let platform = caller.organization();
        let mut tx = app.db.tenant(platform).await?;
        Ok(Json(limits::list(&mut tx).await?.into_iter().filter_map(Rate::of).collect()))
    }

    /// Get a rate
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is none of this name.
    #[oai(path = "/rates/:rate", method = "get", operation_id = "getRate")]
    async fn rate(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The rate.
        #[oai(example = "example_rate")]
        rate: Path<Word>,
    ) -> Result<Tagged<Rate>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = limits::find(&mut tx, "rate", rate.as_str()).await?.and_then(Rate::of);
        let none =
            || Error::new(Code::NotFound, format!("there is no rate {}; GET /rates lists them", rate.0)).at("rate");
        Ok(if_none_match.answer(found.ok_or_else(none)?))
    }

    /// Set a rate
    ///
    /// So many jobs that use it start in a period at most, over all workers. Needs a key of the platform.
    ///
    /// Refused as `precondition_required` when it is there, and there is no `If-Match`.
    #[oai(path = "/rates/:rate", method = "put", operation_id = "setRate")]
    async fn set_rate(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The rate.
        #[oai(example = "example_rate")]
        rate: Path<Word>,
        body: Body<RateLimit>,
    ) -> Result<Answered<Put<Rate>>, Error> {
        let RateLimit { amount, period_seconds, burst } = body.0;
        let rate = Rate {
            name: rate.0.into(),
            amount: at_least_one("amount", amount)?,
            period_seconds: at_least_one("period_seconds", period_seconds)?,
            burst: at_least_one("burst", burst.unwrap_or(amount))?,
        };
        let set = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("rate {}", rate.name)).await?;
            let before = limits::find(tx, "rate", &rate.name).await?.and_then(Rate::of);
            tx.audit().set("amount", rate.amount).set("period_seconds", rate.period_seconds).set("burst", rate.burst);
            limits::set(tx, &rate.row()).await?;
            if_match.put(before.as_ref(), rate)
        });
        set.await
    }

    /// Lift a rate
    ///
    /// Jobs that use it start as workers have room. Lifting what is not there changes nothing.
    #[oai(path = "/rates/:rate", method = "delete", operation_id = "liftRate")]
    async fn lift_rate(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The rate.
        #[oai(example = "example_rate")]
        rate: Path<Word>,
    ) -> Result<Answered<Lifted>, Error> {
        let name = rate.as_str();
        let lift = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("rate {name}")).await?;
            let before = limits::find(tx, "rate", name).await?.and_then(Rate::of);
            if_match.check_if_there(before.as_ref())?;
            limits::lift(tx, "rate", name).await?;
            Ok(Lifted::Lifted)
        });
        lift.await
    }
}

fn example_queue() -> Word {
    example::read("webhooks".into())
}

fn example_kind() -> Word {
    example::read("diagnostics.probe".into())
}

fn example_rate() -> Word {
    example::read("namecheap".into())
}

fn known_queue(name: &Word) -> Result<&str, Error> {
    match name.as_str().parse::<Queue>() {
        Ok(queue) => Ok(queue.as_str()),
        Err(_) => {
            Err(Error::new(Code::NotFound, format!("there is no queue {name}; GET /queues lists them")).at("queue"))
        }
    }
}

fn known_kind(name: &Word) -> Result<&str, Error> {
    match catalogue::find(name.as_str()) {
        Ok(kind) => Ok(kind.name),
        Err(_) => {
            Err(Error::new(Code::NotFound, format!("there is no kind of job {name}; GET /job-kinds lists them"))
                .at("kind"))
        }
    }
}

fn at_least_one(field: &str, number: i32) -> Result<i32, Error> {
    if number < 1 {
        return Err(Error::field(field, format!("{field} is at least 1; to stop everything, pause instead")));
    }
    Ok(number)
}

/// The pause that the transaction's organization has made.
async fn found_pause(
    tx: &mut TenantTx,
    if_none_match: &IfNoneMatch,
    subject: Subject,
    name: &str,
) -> Result<Tagged<Pause>, Error> {
    let organization = tx.organization();
    let found = pause::find(tx, subject, name).await?;
    let not_paused = || Error::new(Code::NotFound, "it is not paused; GET /pauses lists what is");
    Ok(if_none_match.answer(Pause::seen_by(found.ok_or_else(not_paused)?, organization)))
}

async fn set_pause(
    once: Once,
    caller: &Caller,
    organization: OrganizationId,
    if_match: &IfMatch,
    subject: Subject,
    name: &str,
) -> Result<Answered<Put<Pause>>, Error> {
    once.run(caller, organization, async |tx| {
        tx.audit().set("paused", true);
        let before = held_pause(tx, subject, name).await?;
        if before.is_none() {
            pause::pause(tx, subject, name, &caller.by().to_string()).await?;
        }
        let after = pause::find(tx, subject, name).await?.ok_or(sqlx::Error::RowNotFound)?;
        if_match.put(before.as_ref(), Pause::seen_by(after, organization))
    })
    .await
}

async fn lift_pause(
    once: Once,
    caller: &Caller,
    organization: OrganizationId,
    if_match: &IfMatch,
    subject: Subject,
    name: &str,
) -> Result<Answered<Lifted>, Error> {
    once.run(caller, organization, async |tx| {
        tx.audit().set("paused", false);
        if_match.check_if_there(held_pause(tx, subject, name).await?.as_ref())?;
        pause::resume(tx, subject, name).await?;
        Ok(Lifted::Lifted)
    })
    .await
}

/// The pause there is, or is not, until the transaction ends.
async fn held_pause(tx: &mut TenantTx, subject: Subject, name: &str) -> Result<Option<Pause>, Error> {
    let organization = tx.organization();
    turn::take(tx, &format!("pause of {} {name}", subject.as_str())).await?;
    Ok(pause::find(tx, subject, name).await?.map(|pause| Pause::seen_by(pause, organization)))
}

impl QueueLimit {
    fn of(row: LimitRow) -> Option<Self> {
        match row {
            LimitRow::Queue { running, .. } => Some(Self { max_running: running }),
            LimitRow::Rate { .. } => None,
        }
    }
}

impl Rate {
    fn of(row: LimitRow) -> Option<Self> {
        match row {
            LimitRow::Rate { name, amount, period_seconds, burst } => {
                Some(Self { name, amount, period_seconds, burst })
            }
            LimitRow::Queue { .. } => None,
        }
    }

    fn row(&self) -> LimitRow {
        let Self { name, amount, period_seconds, burst } = self;
        LimitRow::Rate { name: name.clone(), amount: *amount, period_seconds: *period_seconds, burst: *burst }
    }
}

impl Pause {
    /// A pause as an organization is shown it: who above it did it is not told.
    fn seen_by(pause: pause::Pause, organization: OrganizationId) -> Self {
        let uuid = || pause.name.parse::<uuid::Uuid>().ok().map(|id| OrganizationId::from_uuid(id).to_string());
        let name = (pause.subject == Subject::Organization.as_str()).then(uuid).flatten();
        Self {
            name: name.unwrap_or(pause.name),
            subject: pause.subject,
            paused_at: pause.paused_at.into(),
            paused_by: (pause.organization == organization).then_some(pause.paused_by),
        }
    }
}
