//! Telling the world: events are written down, and their deliveries are asked for, in one transaction.

mod kinds;

use std::collections::HashMap;

use gantry_schema::webhooks::Event;
use gantry_schema::webhooks::fan_out::{self, NewEvent};
use gantry_schema::{EndpointId, EventId, JobId, TenantTx};
use serde_json::Value;

pub use kinds::{DeliverWebhook, DrainBacklog, LADDER, ReplayEvents};

use crate::request::{self, RequestError};
use crate::{By, Job as _};

/// Events in one request.
pub const MAX_EVENTS: usize = 1_000;

/// Deliveries that one request may ask for.
pub const MAX_DELIVERIES: usize = 100_000;

/// An event that was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// The event.
    pub event: Event,
    /// It had been written down before, under the same key; nothing new follows.
    pub existing: bool,
    /// How many endpoints it goes to.
    pub deliveries: usize,
    /// The jobs that deliver it. What waits in an endpoint's backlog has none of its own.
    pub jobs: Vec<(EndpointId, JobId)>,
}

/// Writes an event down and asks for its delivery to every endpoint that wants it.
///
/// # Errors
/// When the database refuses.
pub async fn emit(tx: &mut TenantTx, event_type: &str, payload: Value, by: &By) -> Result<Emitted, RequestError> {
    let event = NewEvent { r#type: event_type.to_owned(), payload, channels: Vec::new(), key: None };
    let emitted = emit_all(tx, vec![event], by).await?.pop();
    emitted.ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// Writes events down and asks for their deliveries. Answers in the order of the events.
///
/// # Errors
/// When they would make more than [`MAX_DELIVERIES`], or the database refuses.
pub async fn emit_all(tx: &mut TenantTx, events: Vec<NewEvent>, by: &By) -> Result<Vec<Emitted>, RequestError> {
    let fanned = fan_out::fan_out(tx, events).await?;
    let count: usize = fanned.events.iter().map(|written| written.endpoints).sum();
    if count > MAX_DELIVERIES {
        return Err(RequestError::TooManyDeliveries { count });
    }
    let mut jobs: HashMap<EventId, Vec<(EndpointId, JobId)>> = HashMap::new();
    for pairs in fanned.deliveries.chunks(request::MAX_BULK) {
        let deliveries: Vec<DeliverWebhook> =
            pairs.iter().map(|(event, endpoint)| DeliverWebhook { event: *event, endpoint: *endpoint }).collect();
        let asked = request::enqueue_all(tx, &deliveries, by).await?;
        for ((event, endpoint), asked) in pairs.iter().zip(asked) {
            jobs.entry(*event).or_default().push((*endpoint, asked.id));
        }
    }
    for (endpoint, waits) in fanned.held {
        let drain = if waits { DrainBacklog::when_due(endpoint) } else { DrainBacklog::now(endpoint) };
        drain.request().enqueue(tx, by).await?;
    }
    let emitted = fanned.events.into_iter().map(|written| Emitted {
        jobs: jobs.remove(&written.event.id).unwrap_or_default(),
        event: written.event,
        existing: written.existing,
        deliveries: written.endpoints,
    });
    Ok(emitted.collect())
}
