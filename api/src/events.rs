//! Events: what happened, and is told to every endpoint that wants it.

use gantry_jobs::request::MAX_PAYLOAD_BYTES;
use gantry_jobs::webhooks;
use gantry_schema::EventId;
use gantry_schema::organizations::Permission;
use gantry_schema::webhooks::{self as rows, queries};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::body::Body;
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::field::{AnyJson, EventType, Moment};
use crate::page::{Cursor, Limit, Page};
use crate::tag::Tag;

/// The operations on events.
#[derive(Debug, Clone, Copy)]
pub struct Events;

/// Something that happened.
#[derive(Debug, Object)]
struct Event {
    /// Its id: receivers recognise a repeated delivery by it.
    id: EventId,
    /// What kind of thing.
    r#type: String,
    /// The facts.
    payload: Any<Value>,
    /// When.
    created_at: Moment,
}

/// Something to tell.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct NewEvent {
    /// What kind of thing happened: `invoice.paid`.
    r#type: EventType,
    /// The facts, any JSON of at most 256 KB.
    payload: AnyJson,
}

/// What became of an event.
#[derive(Debug, Object)]
struct Posted {
    /// The event.
    id: EventId,
    /// How many endpoints it is being delivered to.
    deliveries: u64,
}

/// An event was posted.
#[derive(ApiResponse)]
enum Accepted {
    /// It was written down, and is being delivered.
    #[oai(status = 202)]
    Accepted(Json<Posted>, #[oai(header = "Location")] String),
}

#[OpenApi(prefix_path = "/events", tag = "Tag::Events")]
impl Events {
    /// Post an event
    ///
    /// It is written down together with one delivery job for every enabled endpoint that wants its type.
    #[oai(path = "/", method = "post", operation_id = "postEvent")]
    async fn post(&self, caller: Caller, app: Data<&App>, body: Body<NewEvent>) -> Result<Accepted, Error> {
        let organization = caller.may(Permission::PostEvents)?;
        let bytes = body.0.payload.0.get().len();
        if bytes > MAX_PAYLOAD_BYTES {
            let detail = format!(
                "the payload has {bytes} bytes, and at most {MAX_PAYLOAD_BYTES} are allowed; store it and send its id"
            );
            return Err(Error::new(Code::PayloadTooLarge, detail).at("payload"));
        }
        let payload = body.0.payload.value().map_err(|wrong| Error::field("payload", wrong.0))?;
        let mut tx = app.db.tenant(organization).await?;
        let emitted = webhooks::emit(&mut tx, body.0.r#type.as_str(), payload, caller.by()).await?;
        tx.commit().await?;
        let (id, deliveries) = (emitted.event.id, emitted.deliveries as u64);
        Ok(Accepted::Accepted(Json(Posted { id, deliveries }), format!("/events/{id}")))
    }

    /// List events
    ///
    /// Newest first.
    #[oai(path = "/", method = "get", operation_id = "listEvents")]
    async fn list(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// How many.
        limit: Query<Option<Limit>>,
        /// Continue after the last page.
        cursor: Query<Option<Cursor>>,
    ) -> Result<Json<Page<Event>>, Error> {
        let organization = caller.may(Permission::ReadEvents)?;
        let after = cursor.0.map(|cursor| cursor.to_id()).transpose()?;
        let limit = limit.0.unwrap_or_default();
        let mut tx = app.db.tenant(organization).await?;
        let events = queries::list_events(&mut tx, after, limit.and_one()).await?;
        Ok(Json(Page::of(events, limit, |event| Cursor::id(event.id.uuid()), Event::from)))
    }

    /// Get an event
    ///
    /// As it was posted.
    #[oai(path = "/:event", method = "get", operation_id = "getEvent")]
    async fn get(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// The event.
        event: Path<EventId>,
    ) -> Result<Json<Event>, Error> {
        let organization = caller.may(Permission::ReadEvents)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::find_event(&mut tx, event.0).await?.ok_or_else(|| Error::not_found(event.0))?;
        Ok(Json(found.into()))
    }
}

impl From<rows::Event> for Event {
    fn from(event: rows::Event) -> Self {
        Self { id: event.id, r#type: event.r#type, payload: Any(event.payload), created_at: event.created_at.into() }
    }
}
