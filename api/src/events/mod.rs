//! Events: what happened, told to every endpoint that wants it and read by whoever asks.

mod answers;
mod feed;
mod stream;

use std::time::Duration;

use gantry_jobs::request::MAX_PAYLOAD_BYTES;
use gantry_jobs::webhooks::{self, MAX_EVENTS};
use gantry_schema::organizations::needed::{PostEvents, ReadEvents};
use gantry_schema::webhooks::events::{self, Filter};
use gantry_schema::webhooks::fan_out::NewEvent as Row;
use gantry_schema::{EndpointId, EventId, JobId};
use poem::web::Data;
use poem_openapi::param::{Header, Path, Query};
use poem_openapi::payload::{EventStream, Json};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::{Batch, Body, MIB};
use crate::caller::May;
use crate::dry_run::DryRun;
use crate::during::During;
use crate::error::{Code, Error, ItemProblem};
use crate::example::example;
use crate::field::{AnyJson, EventPattern, EventType};
use crate::jobs::wait;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::{Newest, Sorting as _};
use crate::tag::Tag;
use crate::webhooks::fields::{self, Channel};

pub use answers::Event;
pub use feed::After;
pub(crate) use stream::Feeds;

/// Delivery jobs an answer names; the rest is found by `GET /jobs`.
const MAX_NAMED: usize = 100;

/// The operations on events.
#[derive(Debug, Clone, Copy)]
pub struct Events;

/// Something to tell.
///
/// Refused as `payload_too_large` when the payload has more than 256 KB.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewEvent {
    /// What kind of thing happened: `invoice.paid`.
    r#type: EventType,
    /// The facts, any JSON of at most 256 KB.
    payload: AnyJson,
    /// Where it belongs; endpoints that name channels get events of theirs only.
    #[oai(validator(max_items = 20))]
    channels: Option<Vec<Channel>>,
    /// Your own name for the event, 1 to 255 characters: posted again under the same key, it is the same event, and
    /// nothing is delivered twice.
    #[oai(validator(min_length = 1, max_length = 255))]
    key: Option<String>,
}

example!(NewEvent, {
    "type": "invoice.paid",
    "payload": { "invoice": "2026-0001", "amount_minor": 11900, "currency": "EUR" },
    "channels": ["project:42"],
    "key": "invoice-2026-0001-paid",
});

/// Many things to tell.
///
/// Refused as `invalid_events` when one of them cannot be posted, and as `too_many_deliveries` when more endpoints want
/// them than one request may tell.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "EventBulkRequest")]
struct NewEvents {
    /// 1 to 1 000 events.
    events: Batch<NewEvent, MAX_EVENTS>,
}

/// What became of an event.
#[derive(Debug, Object)]
#[oai(rename = "PostedEvent", example)]
struct Posted {
    /// The event.
    id: EventId,
    /// An event of this key was there already; this is its id, and nothing new is delivered.
    existing: bool,
    /// How many endpoints it is being delivered to.
    deliveries: u64,
    /// The jobs that deliver it, the first hundred. What has to wait for its endpoint has none of its own.
    jobs: Vec<Delivery>,
    /// It was tried out: nothing was stored, and nothing is delivered.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

example!(Posted, {
    "id": "evt_01h455vb4pex5vsknk084sn02q",
    "existing": false,
    "deliveries": 1,
    "jobs": [{ "endpoint_id": "ep_01h455vb4pex5vsknk084sn02q", "job_id": "job_01h455vb4pex5vsknk084sn02q" }],
});

/// A delivery that was asked for.
#[derive(Debug, Object)]
#[oai(rename = "EventDelivery")]
struct Delivery {
    /// To whom.
    endpoint_id: EndpointId,
    /// The job that does it.
    job_id: JobId,
}

/// What became of many events, in their order.
#[derive(Debug, Object)]
#[oai(rename = "PostedEvents")]
struct PostedMany {
    /// One for each event of the request.
    events: Vec<Posted>,
    /// `true`: it was only tried out, and none was stored.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

/// An event was posted.
#[derive(ApiResponse)]
enum Accepted {
    /// It was written down, and is being delivered.
    #[oai(status = 202)]
    Accepted(
        Json<Posted>,
        /// The event.
        #[oai(header = "Location")]
        String,
    ),
    /// It could be posted; nothing was stored.
    #[oai(status = 200)]
    TriedOut(Json<Posted>),
}

/// Events were posted.
#[derive(ApiResponse)]
enum BulkAccepted {
    /// They were written down, and are being delivered.
    #[oai(status = 202)]
    Accepted(Json<PostedMany>),
    /// They could be posted; nothing was stored.
    #[oai(status = 200)]
    TriedOut(Json<PostedMany>),
}

#[OpenApi(prefix_path = "/events", tag = "Tag::Events")]
impl Events {
    /// Post an event
    ///
    /// It is written down together with one delivery for every enabled endpoint that wants its type.
    #[oai(path = "/", method = "post", operation_id = "postEvent")]
    async fn post(
        &self,
        caller: May<PostEvents>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        body: Body<NewEvent>,
    ) -> Result<Answered<Accepted>, Error> {
        let organization = caller.organization();
        let new = row(body.0)?;
        let event_type = new.r#type.clone();
        let post = dry_run.run(once, &caller, organization, async |tx| {
            let emitted = webhooks::emit_all(tx, vec![new], caller.by()).await?.pop();
            let posted = Posted::from(emitted.ok_or(sqlx::Error::RowNotFound)?);
            if dry_run.is_wanted() {
                return Ok(Accepted::TriedOut(Json(Posted { dry_run: dry_run.shown(), jobs: Vec::new(), ..posted })));
            }
            let location = format!("/events/{}", posted.id);
            tx.audit().on(&posted.id).set("type", &event_type).set("deliveries", posted.deliveries);
            Ok(Accepted::Accepted(Json(posted), location))
        });
        let answer = post.await?;
        app.tell_events(organization);
        Ok(answer)
    }

    /// Post many events
    ///
    /// Up to 1 000 in one transaction: all of them are written down, or none.
    /// A license has to have the feature `bulk_operations`, where there is one.
    #[oai(path = "/bulk", method = "post", operation_id = "postEvents")]
    async fn post_many(
        &self,
        caller: May<PostEvents>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        body: Body<NewEvents, { 32 * MIB }>,
    ) -> Result<Answered<BulkAccepted>, Error> {
        let organization = caller.organization();
        let new = rows(&body.0.events)?;
        let post = dry_run.run(once, &caller, organization, async |tx| {
            let emitted = webhooks::emit_all(tx, new, caller.by()).await?;
            let events: Vec<Posted> = emitted.into_iter().map(Posted::from).collect();
            if dry_run.is_wanted() {
                let events = events.into_iter().map(|posted| Posted { jobs: Vec::new(), ..posted }).collect();
                return Ok(BulkAccepted::TriedOut(Json(PostedMany { events, dry_run: dry_run.shown() })));
            }
            let ends = (events.first().map(|event| event.id), events.last().map(|event| event.id));
            tx.audit().set("count", events.len()).set("first", ends.0).set("last", ends.1);
            Ok(BulkAccepted::Accepted(Json(PostedMany { events, dry_run: None })))
        });
        let answer = post.await?;
        app.tell_events(organization);
        Ok(answer)
    }

    /// List events
    ///
    /// Newest first, in pages. With `after` it is the feed instead: what happened after that event, oldest first and in
    /// the order of the commits, the same events that are pushed. Continue with the id of the last event; with `wait`
    /// the answer comes as soon as there is one. Where a filter lets hardly anything through, a request looks at 100 000
    /// events, and the header `Link` says where to go on, also of a page that is empty.
    #[oai(path = "/", method = "get", operation_id = "listEvents")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        caller: May<ReadEvents>,
        app: Data<&App>,
        /// Only of these types, or that begin so: `invoice.*`. Several with commas between them.
        types: Query<Option<String>>,
        /// Only in this channel.
        channel: Query<Option<Channel>>,
        /// The feed after this event, or from the `beginning`.
        after: Query<Option<After>>,
        /// Seconds to wait for the feed to go on, at most 60.
        wait: Query<Option<wait::Seconds>>,
        during: During,
        paging: Paging<Newest>,
    ) -> Result<Paged<Event>, Error> {
        let organization = caller.organization();
        let filter = filter(types.0.as_deref(), channel.0)?;
        if let Some(after) = after.0 {
            only_of_a_list(&paging, during)?;
            let patience = wait.0.map_or(Duration::ZERO, wait::Seconds::duration);
            let (found, next) = feed::read(&app, organization, &filter, after, paging.count(), patience).await?;
            return Ok(paging.going_on(found, "after", next.map(|event| event.to_string())));
        }
        if wait.0.is_some() {
            return Err(Error::parameter("wait", "only the feed can be waited for; say after, or leave wait out"));
        }
        let window = paging.window(organization)?.within(during.since, during.until);
        let mut tx = app.db.tenant(organization).await?;
        let found = events::list(&mut tx, &filter, window).await?;
        Ok(paging.page(organization, found, |event| Place::id(event.id), Event::from))
    }

    /// Follow events
    ///
    /// Server-sent events: the feed as it goes on. Each carries the event's id; a client that connects again with
    /// `Last-Event-ID`, as browsers do, misses nothing. Without it, or `after`, it begins with what happens now. The
    /// stream ends after a quarter of an hour.
    #[oai(path = "/stream", method = "get", operation_id = "followEvents")]
    async fn follow(
        &self,
        caller: May<ReadEvents>,
        app: Data<&App>,
        /// Only of these types, or that begin so: `invoice.*`. Several with commas between them.
        types: Query<Option<String>>,
        /// Only in this channel.
        channel: Query<Option<Channel>>,
        /// Begin after this event, or from the `beginning`.
        after: Query<Option<After>>,
        /// The id of the last event that was received.
        #[oai(name = "Last-Event-ID")]
        last_event: Header<Option<After>>,
    ) -> Result<EventStream<stream::Told>, Error> {
        let organization = caller.organization();
        let filter = filter(types.0.as_deref(), channel.0)?;
        stream::follow(&app, organization, filter, last_event.0.or(after.0)).await
    }

    /// Get an event
    ///
    /// As it was posted.
    #[oai(path = "/:event", method = "get", operation_id = "getEvent")]
    async fn get(
        &self,
        caller: May<ReadEvents>,
        app: Data<&App>,
        /// The event.
        event: Path<EventId>,
    ) -> Result<Json<Event>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        let found = events::find(&mut tx, event.0).await?.ok_or_else(|| Error::not_found(event.0))?;
        Ok(Json(found.into()))
    }
}

/// The feed goes on from where its reader is, in one direction.
fn only_of_a_list(paging: &Paging<Newest>, during: During) -> Result<(), Error> {
    let of_list = [
        ("cursor", !paging.is_first()),
        ("sort", paging.order() != Newest::USUAL.order),
        ("since", during.since.is_some()),
        ("until", during.until.is_some()),
    ];
    match of_list.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::parameter(*name, format!("the feed has no {name}; continue with after"))),
        None => Ok(()),
    }
}

fn filter(types: Option<&str>, channel: Option<Channel>) -> Result<Filter, Error> {
    let types = types.map(|types| types.split(',').map(str::trim).map(str::parse::<EventPattern>).collect::<Vec<_>>());
    let types = types.unwrap_or_default().into_iter().collect::<Result<Vec<_>, _>>();
    let types = types.map_err(|wrong| Error::parameter("types", wrong.0))?;
    if types.len() > 100 {
        return Err(Error::parameter("types", "at most 100 types can be named; use beginnings such as invoice.*"));
    }
    Ok(Filter {
        types: types.iter().map(ToString::to_string).collect(),
        channel: channel.map(|channel| channel.to_string()),
    })
}

/// Longest key of a caller's own.
const MAX_KEY: usize = 255;

fn row(new: NewEvent) -> Result<Row, Error> {
    let bytes = new.payload.0.get().len();
    if bytes > MAX_PAYLOAD_BYTES {
        let detail = format!(
            "the payload has {bytes} bytes, and at most {MAX_PAYLOAD_BYTES} are allowed; store it and send its id"
        );
        return Err(Error::new(Code::PayloadTooLarge, detail).at("payload"));
    }
    let payload = new.payload.value().map_err(|wrong| Error::field("payload", wrong.0))?;
    if let Some(key) = &new.key
        && (key.is_empty() || key.chars().count() > MAX_KEY || key.chars().any(char::is_control))
    {
        return Err(Error::field("key", "a key has 1 to 255 characters, none of them a control character"));
    }
    let channels = fields::channels(new.channels.unwrap_or_default())?;
    Ok(Row { r#type: new.r#type.to_string(), payload, channels, key: new.key })
}

fn rows(batch: &Batch<NewEvent, MAX_EVENTS>) -> Result<Vec<Row>, Error> {
    /// What is said of the items of a request, at most.
    const MAX_PROBLEMS: usize = 100;
    if batch.count() == 0 {
        return Err(Error::field("events", "there is no event in the list; write at least one"));
    }
    if batch.count() > MAX_EVENTS {
        let detail = format!("{} events in one request, and at most {MAX_EVENTS} are allowed", batch.count());
        return Err(Error::field("events", format!("{detail}; send several requests")));
    }
    let mut rows = Vec::with_capacity(batch.count());
    let mut problems: Vec<ItemProblem> = Vec::new();
    for (index, item) in batch.read().enumerate() {
        match item.and_then(row) {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(error.into_item(index)),
        }
        if problems.len() == MAX_PROBLEMS {
            break;
        }
    }
    let Some(first) = problems.first() else { return Ok(rows) };
    let field = format!("events[{}]", first.index);
    let detail =
        "some of the events cannot be posted, see errors; put them right or leave them out, and send all again";
    Err(Error::new(Code::InvalidEvents, detail).at(field).items(problems))
}

impl From<webhooks::Emitted> for Posted {
    fn from(emitted: webhooks::Emitted) -> Self {
        let named = emitted.jobs.into_iter().take(MAX_NAMED);
        Self {
            id: emitted.event.id,
            existing: emitted.existing,
            deliveries: emitted.deliveries as u64,
            jobs: named.map(|(endpoint, job)| Delivery { endpoint_id: endpoint, job_id: job }).collect(),
            dry_run: None,
        }
    }
}
