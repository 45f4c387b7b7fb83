//! From events to who is told of them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Event;
use crate::{EndpointId, EventId, JobTx, TenantTx};

/// An event to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What kind of thing happened.
    pub r#type: String,
    /// The facts.
    pub payload: Value,
    /// Where it belongs. Words without spaces.
    pub channels: Vec<String>,
    /// The caller's own name for it: posted again, it is the same event.
    pub key: Option<String>,
}

/// What became of the events, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct FannedOut {
    /// Every event: as it was written down now, or before under the same key.
    pub events: Vec<Written>,
    /// The deliveries that can be made now.
    pub deliveries: Vec<(EventId, EndpointId)>,
    /// Endpoints of which the backlog grew, and whether it has to wait all the same: for its turn, or for the endpoint.
    pub held: Vec<(EndpointId, bool)>,
}

/// An event, and whether it is new.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The event.
    pub event: Event,
    /// An event of that key was there already, and is answered.
    pub existing: bool,
    /// How many endpoints want it.
    pub endpoints: usize,
}

/// Writes events down and finds who wants them, in one statement; a second one only where keys were used before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn fan_out(tx: &mut TenantTx, new: Vec<NewEvent>) -> Result<FannedOut, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let mut events: Vec<Event> = Vec::with_capacity(new.len());
    for NewEvent { r#type, payload, channels, key } in new {
        events.push(Event { id: tx.ids().mint(), r#type, payload, channels, key, created_at: now });
    }
    let ids: Vec<uuid::Uuid> = events.iter().map(|event| event.id.uuid()).collect();
    let types: Vec<&str> = events.iter().map(|event| event.r#type.as_str()).collect();
    let payloads: Vec<String> = events.iter().map(|event| event.payload.to_string()).collect();
    let channels: Vec<String> = events.iter().map(|event| event.channels.join(" ")).collect();
    let keys: Vec<Option<&str>> = events.iter().map(|event| event.key.as_deref()).collect();
    let rows = sqlx::query_file!(
        "src/webhooks/fan_out.sql",
        organization.uuid(),
        &ids,
        &types as _,
        &payloads,
        &channels,
        &keys as _,
        now
    )
    .fetch_all(tx.connection())
    .await?;

    let mut counts: HashMap<EventId, usize> = HashMap::new();
    let (mut deliveries, mut held) = (Vec::with_capacity(rows.len()), BTreeMap::new());
    for row in rows {
        let count = counts.entry(row.event).or_default();
        let Some(endpoint) = row.endpoint else { continue };
        *count += 1;
        if row.held {
            held.insert(endpoint, row.waits);
        } else {
            deliveries.push((row.event, endpoint));
        }
    }
    let existing = existing(tx, &events, &counts).await?;
    let written = |event: Event| {
        if let Some(endpoints) = counts.get(&event.id) {
            return Written { endpoints: *endpoints, existing: false, event };
        }
        let before = event.key.as_ref().and_then(|key| existing.get(key).cloned()).unwrap_or(event);
        Written { event: before, existing: true, endpoints: 0 }
    };
    let events = events.into_iter().map(written).collect();
    Ok(FannedOut { events, deliveries, held: held.into_iter().collect() })
}

/// The events that were there already, by key.
async fn existing(
    tx: &mut TenantTx,
    events: &[Event],
    fresh: &HashMap<EventId, usize>,
) -> Result<HashMap<String, Event>, sqlx::Error> {
    let organization = tx.organization();
    let keys: Vec<String> =
        events.iter().filter(|event| !fresh.contains_key(&event.id)).filter_map(|event| event.key.clone()).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_as!(
        Event,
        r#"select id as "id: EventId", type, payload, channels, key, created_at from events
            where organization_id = $1 and key = any($2)"#,
        organization.uuid(),
        &keys
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().filter_map(|event| Some((event.key.clone()?, event))).collect())
}
