//! What runs how much: pauses and limits, changed while everything runs.

use gantry_jobs::{Queue, catalogue};
use gantry_schema::OrganizationId;
use gantry_schema::jobs::limits::{self, Limit as LimitRow};
use gantry_schema::jobs::pause::{self, Subject};
use gantry_schema::organizations::needed::{ManageJobs, OperatePlatform, ReadJobs};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
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
    /// Who did it.
    paused_by: String,
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

/// Something was changed.
#[derive(ApiResponse)]
enum Done {
    /// It is so, on every worker within a second.
    #[oai(status = 204)]
    Done,
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
            QueueState { name: name.to_owned(), max_running: limit, pause: pause.cloned().map(Pause::from) }
        };
        Ok(Json(Queue::ALL.into_iter().map(state).collect()))
    }

    /// List pauses
    ///
    /// Those the caller's organization made: of queues and kinds, and of organizations.
    #[oai(path = "/pauses", method = "get", operation_id = "listPauses")]
    async fn pauses(&self, caller: May<ReadJobs>, app: Data<&App>) -> Result<Json<Vec<Pause>>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        Ok(Json(pause::list(&mut tx).await?.into_iter().map(Pause::from).collect()))
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
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        set_pause(once, &caller, platform, Subject::Queue, known_queue(&queue)?, true).await
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
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        set_pause(once, &caller, platform, Subject::Queue, known_queue(&queue)?, false).await
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
        /// The kind.
        #[oai(example = "example_kind")]
        kind: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        set_pause(once, &caller, platform, Subject::Kind, known_kind(&kind)?, true).await
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
        /// The kind.
        #[oai(example = "example_kind")]
        kind: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        set_pause(once, &caller, platform, Subject::Kind, known_kind(&kind)?, false).await
    }

    /// Pause the organization's jobs
    ///
    /// None of the caller's organization starts any more; what runs ends.
    #[oai(path = "/organization/pause", method = "put", operation_id = "pauseOrganization")]
    async fn pause_organization(&self, caller: May<ManageJobs>, once: Once) -> Result<Answered<Done>, Error> {
        let organization = caller.organization();
        let name = organization.uuid().to_string();
        set_pause(once, &caller, organization, Subject::Organization, &name, true).await
    }

    /// Resume the organization's jobs
    ///
    /// What waits starts, unless somebody above paused the organization.
    #[oai(path = "/organization/pause", method = "delete", operation_id = "resumeOrganization")]
    async fn resume_organization(&self, caller: May<ManageJobs>, once: Once) -> Result<Answered<Done>, Error> {
        let organization = caller.organization();
        let name = organization.uuid().to_string();
        set_pause(once, &caller, organization, Subject::Organization, &name, false).await
    }

    /// Limit a queue
    ///
    /// So many of its jobs run at the same time at most, over all workers. Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is no such queue.
    #[oai(path = "/queues/:queue/limit", method = "put", operation_id = "limitQueue")]
    async fn limit_queue(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
        body: Body<QueueLimit>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        let name = known_queue(&queue)?.to_owned();
        let running = at_least_one("max_running", body.0.max_running)?;
        set_limit(once, &caller, platform, &LimitRow::Queue { name, running }).await
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
        /// The queue.
        #[oai(example = "example_queue")]
        queue: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        lift_limit(once, &caller, platform, "queue", known_queue(&queue)?).await
    }

    /// List rates
    ///
    /// The limits of providers. Needs a key of the platform.
    #[oai(path = "/rates", method = "get", operation_id = "listRates")]
    async fn rates(&self, caller: May<OperatePlatform>, app: Data<&App>) -> Result<Json<Vec<Rate>>, Error> {
        let platform = caller.organization();
        let mut tx = app.db.tenant(platform).await?;
        let rates = limits::list(&mut tx).await?.into_iter().filter_map(|limit| match limit {
            LimitRow::Rate { name, amount, period_seconds, burst } => {
                Some(Rate { name, amount, period_seconds, burst })
            }
            LimitRow::Queue { .. } => None,
        });
        Ok(Json(rates.collect()))
    }

    /// Set a rate
    ///
    /// So many jobs that use it start in a period at most, over all workers. Needs a key of the platform.
    #[oai(path = "/rates/:rate", method = "put", operation_id = "setRate")]
    async fn set_rate(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        /// The rate.
        #[oai(example = "example_rate")]
        rate: Path<Word>,
        body: Body<RateLimit>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        let limit = LimitRow::Rate {
            name: rate.0.into(),
            amount: at_least_one("amount", body.0.amount)?,
            period_seconds: at_least_one("period_seconds", body.0.period_seconds)?,
            burst: at_least_one("burst", body.0.burst.unwrap_or(body.0.amount))?,
        };
        set_limit(once, &caller, platform, &limit).await
    }

    /// Lift a rate
    ///
    /// Jobs that use it start as workers have room. Lifting what is not there changes nothing.
    #[oai(path = "/rates/:rate", method = "delete", operation_id = "liftRate")]
    async fn lift_rate(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        /// The rate.
        #[oai(example = "example_rate")]
        rate: Path<Word>,
    ) -> Result<Answered<Done>, Error> {
        let platform = caller.organization();
        lift_limit(once, &caller, platform, "rate", rate.as_str()).await
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

async fn set_pause(
    once: Once,
    caller: &Caller,
    organization: OrganizationId,
    subject: Subject,
    name: &str,
    paused: bool,
) -> Result<Answered<Done>, Error> {
    once.run(caller, organization, async |tx| {
        tx.audit().set("paused", paused);
        if paused {
            pause::pause(tx, subject, name, &caller.by().to_string()).await?;
        } else {
            pause::resume(tx, subject, name).await?;
        }
        Ok(Done::Done)
    })
    .await
}

async fn set_limit(
    once: Once,
    caller: &Caller,
    platform: OrganizationId,
    limit: &LimitRow,
) -> Result<Answered<Done>, Error> {
    once.run(caller, platform, async |tx| {
        match limit {
            LimitRow::Queue { running, .. } => tx.audit().set("max_running", running),
            LimitRow::Rate { amount, period_seconds, burst, .. } => {
                tx.audit().set("amount", amount).set("period_seconds", period_seconds).set("burst", burst)
            }
        };
        limits::set(tx, limit).await?;
        Ok(Done::Done)
    })
    .await
}

async fn lift_limit(
    once: Once,
    caller: &Caller,
    platform: OrganizationId,
    subject: &str,
    name: &str,
) -> Result<Answered<Done>, Error> {
    once.run(caller, platform, async |tx| {
        limits::lift(tx, subject, name).await?;
        Ok(Done::Done)
    })
    .await
}

impl From<pause::Pause> for Pause {
    fn from(pause: pause::Pause) -> Self {
        let organization = || pause.name.parse::<uuid::Uuid>().ok().map(|id| OrganizationId::from_uuid(id).to_string());
        let name = (pause.subject == Subject::Organization.as_str()).then(organization).flatten();
        Self {
            name: name.unwrap_or(pause.name),
            subject: pause.subject,
            paused_at: pause.paused_at.into(),
            paused_by: pause.paused_by,
        }
    }
}
