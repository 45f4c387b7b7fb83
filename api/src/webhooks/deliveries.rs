//! What came of telling an endpoint, and telling it again.

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_jobs::webhooks::{DeliverWebhook, ReplayEvents};
use gantry_schema::organizations::needed::{ManageWebhooks, ReadWebhooks};
use gantry_schema::webhooks::event_types::{self, PlatformEvent};
use gantry_schema::webhooks::{Event, attempts, backlog, endpoints, events};
use gantry_schema::{EndpointId, EventId, JobId, JobTx as _, TenantTx};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use super::answers::{Attempt, Statistics};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::dry_run::DryRun;
use crate::during::During;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{EventType, Moment};
use crate::jobs::{Asked, Job, Prefer, Shows};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// How far back events can be sent again: as long as they are kept.
const KEPT: Duration = Duration::days(30);

/// Events that are counted to say how many would be sent again.
const COUNTED: i64 = 10_000;

/// The operations on what was, or is to be, delivered.
#[derive(Debug, Clone, Copy)]
pub struct WebhookDeliveries;

/// A job that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "WebhookJob", example)]
struct Task {
    /// The job that does it, or would.
    job_id: JobId,
    /// What it delivers, where that is one event.
    #[oai(skip_serializing_if_is_none)]
    event_id: Option<EventId>,
    /// The job itself: where the request waited for it.
    #[oai(skip_serializing_if_is_none)]
    job: Option<Box<Job>>,
    /// How many events would be sent, of up to 10 000 that are counted: where it was only tried out.
    #[oai(skip_serializing_if_is_none)]
    events: Option<u64>,
    /// `true`: it was only tried out, and nothing is sent.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

example!(Task, { "job_id": "job_01h455vb4pex5vsknk084sn02q", "event_id": "evt_01h455vb4pex5vsknk084sn02q" });

impl Shows for Task {
    fn showing(self, job: Job) -> Self {
        Self { job: Some(Box::new(job)), ..self }
    }
}

fn accepted(job: JobId, event: Option<EventId>) -> Asked<Task> {
    Asked::accepted(job, Task { job_id: job, event_id: event, job: None, events: None, dry_run: None })
}

/// A test of an endpoint.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookTest", example)]
struct Test {
    /// The type of which the catalogue's example is sent; left out: `webhook.ping`.
    event_type: Option<EventType>,
}

example!(Test, { "event_type": "webhook.ping" });

/// One event, to be sent again.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookResend", example)]
struct Resend {
    /// The event.
    event_id: EventId,
}

example!(Resend, { "event_id": "evt_01h455vb4pex5vsknk084sn02q" });

/// Since when to send what did not arrive.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookRecovery", example)]
struct Recovery {
    /// Events since then of which no delivery succeeded; at most 30 days ago.
    since: Moment,
}

example!(Recovery, { "since": "2026-01-15T09:00:00Z" });

/// Which events to send again.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookReplay", example)]
struct Replay {
    /// Events since then; at most 30 days ago.
    from: Moment,
    /// Events before then; left out: until now.
    to: Option<Moment>,
}

example!(Replay, { "from": "2026-01-15T09:00:00Z", "to": "2026-01-15T11:00:00Z" });

#[OpenApi(tag = "Tag::WebhookEndpoints")]
impl WebhookDeliveries {
    /// List attempts to deliver to an endpoint
    ///
    /// Newest first, with what the receiver answered.
    #[oai(path = "/webhook-endpoints/:endpoint/attempts", method = "get", operation_id = "listWebhookAttempts")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn attempts(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        /// Only those that succeeded, or did not.
        succeeded: Query<Option<bool>>,
        /// Only those of this event.
        event_id: Query<Option<EventId>>,
        during: During,
        paging: Paging<Newest>,
    ) -> Result<Paged<Attempt>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?.within(during.since, during.until);
        let filter = attempts::Filter { succeeded: succeeded.0, event: event_id.0 };
        let mut tx = app.db.tenant(organization).await?;
        exists(&mut tx, endpoint.0).await?;
        let found = attempts::list(&mut tx, endpoint.0, filter, window).await?;
        Ok(paging.page(organization, found, |attempt| Place::id(attempt.id), Attempt::from))
    }

    /// Get an endpoint's statistics
    ///
    /// How deliveries went, and how many wait.
    #[oai(path = "/webhook-endpoints/:endpoint/statistics", method = "get", operation_id = "getWebhookStatistics")]
    async fn statistics(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        /// Counted from then on, at most seven days ago; left out: a day ago.
        since: Query<Option<Moment>>,
    ) -> Result<Json<Statistics>, Error> {
        let organization = caller.organization();
        let now = app.db.now();
        let since = since.0.map_or(now - Duration::days(1), |since| since.0);
        if since < now - Duration::days(7) {
            return Err(Error::parameter("since", "statistics go back seven days; write a later moment"));
        }
        let mut tx = app.db.tenant(organization).await?;
        exists(&mut tx, endpoint.0).await?;
        let counted = attempts::statistics(&mut tx, endpoint.0, since).await?;
        let backlog = backlog::count(&mut tx, endpoint.0).await?;
        Ok(Json(Statistics {
            since: since.into(),
            succeeded: counted.succeeded,
            failed: counted.failed,
            events: counted.events,
            latency_p50_ms: counted.latency_p50_ms,
            latency_p95_ms: counted.latency_p95_ms,
            last_attempt_at: counted.last_at.map(Into::into),
            backlog,
        }))
    }

    /// Send a test event to an endpoint
    ///
    /// The catalogue's example of a type, to this endpoint alone, whatever types it wants. It is not part of the feed.
    ///
    /// Refused as `wrong_state` when the endpoint is disabled.
    #[oai(path = "/webhook-endpoints/:endpoint/test", method = "post", operation_id = "testWebhookEndpoint")]
    async fn test(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<Test>,
    ) -> Result<Answered<Asked<Task>>, Error> {
        let organization = caller.organization();
        let wanted = body.0.event_type.as_ref().map_or(PlatformEvent::Ping.name(), EventType::as_str);
        let test = once.run(&caller, organization, async |tx| {
            enabled(tx, endpoint.0).await?;
            let platform = event_types::platform().into_iter().find(|described| described.name == wanted);
            let described = match platform {
                Some(described) => Some(described),
                None => event_types::find(tx, wanted, None).await?,
            };
            let described = described.ok_or_else(|| {
                let detail = format!("the catalogue has no type {wanted}; GET /event-types lists those it has");
                Error::field("event_type", detail)
            })?;
            let event = Event {
                id: tx.ids().mint(),
                r#type: described.name,
                payload: described.example,
                channels: Vec::new(),
                key: None,
                created_at: tx.now(),
            };
            events::insert_test(tx, &event, endpoint.0).await?;
            let delivery = DeliverWebhook { event: event.id, endpoint: endpoint.0 };
            let asked = delivery.request().enqueue(tx, caller.by()).await?;
            Ok(accepted(asked.id, Some(event.id)))
        });
        prefer.wait(&app, organization, test.await?).await
    }

    /// Send an event to an endpoint again
    ///
    /// Whatever became of it before.
    ///
    /// Refused as `wrong_state` when the endpoint is disabled.
    #[oai(path = "/webhook-endpoints/:endpoint/resend", method = "post", operation_id = "resendWebhook")]
    async fn resend(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<Resend>,
    ) -> Result<Answered<Asked<Task>>, Error> {
        let organization = caller.organization();
        let event = body.0.event_id;
        let resend = once.run(&caller, organization, async |tx| {
            enabled(tx, endpoint.0).await?;
            events::find(tx, event).await?.ok_or_else(|| Error::not_found(event).at("event_id"))?;
            let asked = DeliverWebhook { event, endpoint: endpoint.0 }.request().enqueue(tx, caller.by()).await?;
            tx.audit().set("event_id", event).set("job_id", asked.id);
            Ok(accepted(asked.id, Some(event)))
        });
        prefer.wait(&app, organization, resend.await?).await
    }

    /// Recover what an endpoint missed
    ///
    /// Every event since a moment that it wants, and of which no delivery to it succeeded, is delivered again. With
    /// `dry_run=true` the answer says how many those are.
    ///
    /// Refused as `wrong_state` when the endpoint is disabled.
    #[oai(path = "/webhook-endpoints/:endpoint/recover", method = "post", operation_id = "recoverWebhooks")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn recover(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        prefer: Prefer,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<Recovery>,
    ) -> Result<Answered<Asked<Task>>, Error> {
        let replay = Replay { from: body.0.since, to: None };
        let recover = again(&caller, once, dry_run, endpoint.0, &replay, true).await?;
        prefer.wait(&app, caller.organization(), recover).await
    }

    /// Replay events to an endpoint
    ///
    /// Every event of a stretch of time that it wants is delivered again, whatever became of it before. Receivers know
    /// by `webhook-id` what they have. With `dry_run=true` the answer says how many those are.
    ///
    /// Refused as `wrong_state` when the endpoint is disabled.
    #[oai(path = "/webhook-endpoints/:endpoint/replay", method = "post", operation_id = "replayWebhooks")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn replay(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        prefer: Prefer,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<Replay>,
    ) -> Result<Answered<Asked<Task>>, Error> {
        let replay = again(&caller, once, dry_run, endpoint.0, &body.0, false).await?;
        prefer.wait(&app, caller.organization(), replay).await
    }
}

async fn again(
    caller: &May<ManageWebhooks>,
    once: Once,
    dry_run: DryRun,
    endpoint: EndpointId,
    replay: &Replay,
    missed: bool,
) -> Result<Answered<Asked<Task>>, Error> {
    let organization = caller.organization();
    let again = dry_run.run(once, caller, organization, async |tx| {
        let (now, field) = (tx.now(), if missed { "since" } else { "from" });
        let (from, to) = (replay.from.0, replay.to.map_or(now, |to| to.0.min(now)));
        if from < now - KEPT {
            return Err(Error::field(field, "events are kept for 30 days; write a later moment"));
        }
        if from >= to {
            return Err(Error::field(field, "there is no time between this moment and the end; write an earlier one"));
        }
        enabled(tx, endpoint).await?;
        let asked = ReplayEvents { endpoint, from, to, missed }.request().enqueue(tx, caller.by()).await?;
        if dry_run.is_wanted() {
            let found = events::wanted_between(tx, endpoint, from, to, missed, None, COUNTED).await?;
            let (events, dry_run) = (Some(found.len() as u64), dry_run.shown());
            return Ok(Asked::tried_out(Task { job_id: asked.id, event_id: None, job: None, events, dry_run }));
        }
        tx.audit().set("from", from).set("to", to).set("missed", missed).set("job_id", asked.id);
        Ok(accepted(asked.id, None))
    });
    again.await
}

async fn exists(tx: &mut TenantTx, endpoint: EndpointId) -> Result<gantry_schema::webhooks::Endpoint, Error> {
    endpoints::find(tx, endpoint).await?.ok_or_else(|| Error::not_found(endpoint))
}

async fn enabled(tx: &mut TenantTx, endpoint: EndpointId) -> Result<(), Error> {
    if exists(tx, endpoint).await?.enabled {
        Ok(())
    } else {
        Err(Error::new(Code::WrongState, "the endpoint is disabled and gets nothing; enable it first"))
    }
}
