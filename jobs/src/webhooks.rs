//! Telling the world: an event is written down and a delivery is asked for per endpoint, in one transaction.

use std::time::Duration;

use gantry_schema::webhooks::{Event, queries};
use gantry_schema::{EndpointId, EventId, JobTx as _, TenantTx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::request::{self, RequestError};
use crate::{By, Job, Policy, Queue, Retry};

/// Delivers one event to one endpoint. The job is the delivery: its id stays the same over all attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverWebhook {
    /// What.
    pub event: EventId,
    /// To whom.
    pub endpoint: EndpointId,
}

/// The waits Standard Webhooks 1.0 recommends, about three days in all.
const LADDER: &[Duration] = &[
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

impl Job for DeliverWebhook {
    const KIND: &'static str = "webhooks.deliver";
    const POLICY: Policy =
        Policy::new(Queue::Webhooks).attempts(10).timeout(Duration::from_secs(30)).retry(Retry::Ladder(LADDER));
}

/// An event that was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// The event.
    pub event: Event,
    /// How many endpoints it goes to.
    pub deliveries: usize,
}

/// Writes an event down and asks for its delivery to every endpoint that wants it.
///
/// # Errors
/// When the database refuses.
pub async fn emit(tx: &mut TenantTx, event_type: &str, payload: Value, by: &By) -> Result<Emitted, RequestError> {
    let event = Event { id: tx.ids().mint(), r#type: event_type.to_owned(), payload, created_at: tx.now() };
    queries::insert_event(tx, &event).await?;
    let endpoints = queries::endpoints_wanting(tx, event_type).await?;
    let deliveries: Vec<DeliverWebhook> =
        endpoints.into_iter().map(|endpoint| DeliverWebhook { event: event.id, endpoint }).collect();
    for batch in deliveries.chunks(request::MAX_BULK) {
        request::enqueue_all(tx, batch, by).await?;
    }
    Ok(Emitted { event, deliveries: deliveries.len() })
}
