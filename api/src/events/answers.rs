//! How events look to callers.

use gantry_schema::EventId;
use gantry_schema::webhooks as rows;
use poem_openapi::Object;
use poem_openapi::types::Any;
use serde_json::Value;

use crate::example::example;
use crate::field::Moment;

/// Something that happened.
#[derive(Debug, Clone, Object)]
#[oai(example)]
pub struct Event {
    /// Its id: receivers recognise a repeated delivery by it.
    pub id: EventId,
    /// What kind of thing.
    pub r#type: String,
    /// The facts.
    pub payload: Any<Value>,
    /// Where it belongs.
    pub channels: Vec<String>,
    /// The key it was posted under.
    #[oai(skip_serializing_if_is_none)]
    pub key: Option<String>,
    /// When.
    pub created_at: Moment,
}

example!(Event, {
    "id": "evt_01h455vb4pex5vsknk084sn02q",
    "type": "invoice.paid",
    "payload": { "invoice": "2026-0001", "amount_minor": 11900, "currency": "EUR" },
    "channels": ["project:42"],
    "key": "invoice-2026-0001-paid",
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Event> for Event {
    fn from(event: rows::Event) -> Self {
        Self {
            id: event.id,
            r#type: event.r#type,
            payload: Any(event.payload),
            channels: event.channels,
            key: event.key,
            created_at: event.created_at.into(),
        }
    }
}
