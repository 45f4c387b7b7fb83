//! Endpoints, events and attempts in the table.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{EndpointId, EventId, JobId, JobTx, OrganizationId, TenantTx};

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Where events are posted to.
    pub url: String,
    /// What people wrote about it.
    pub description: String,
    /// The types it wants: exact, or prefixes that end in `.*`; empty: all.
    pub event_types: Vec<String>,
    /// It gets events.
    pub enabled: bool,
    /// The signing secret, sealed for this row.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id: receivers recognise a repeated delivery by it.
    pub id: EventId,
    /// What kind of thing: `invoice.paid`.
    pub r#type: String,
    /// The facts.
    pub payload: Value,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The delivery's job.
    pub job: JobId,
    /// Which attempt of it.
    pub attempt: i32,
    /// What was delivered.
    pub event: EventId,
    /// To whom.
    pub endpoint: EndpointId,
    /// When it began.
    pub attempted_at: DateTime<Utc>,
    /// How long it took.
    pub latency_ms: i32,
    /// The HTTP status of the answer.
    pub status: Option<i16>,
    /// The first kilobyte of the answer.
    pub answer: Option<String>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// Stores a new endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert_endpoint(tx: &mut TenantTx, endpoint: &Endpoint) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into webhook_endpoints (id, organization_id, url, description, event_types, enabled, secret, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        endpoint.id.uuid(),
        endpoint.organization.uuid(),
        endpoint.url,
        endpoint.description,
        &endpoint.event_types,
        endpoint.enabled,
        endpoint.secret,
        endpoint.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// An endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find_endpoint(tx: &mut TenantTx, id: EndpointId) -> Result<Option<Endpoint>, sqlx::Error> {
    sqlx::query_as!(
        Endpoint,
        r#"select id as "id: EndpointId", organization_id as "organization: OrganizationId", url, description,
                  event_types, enabled, secret, created_at
             from webhook_endpoints where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// The endpoints after `after`, by id.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list_endpoints(
    tx: &mut TenantTx,
    after: Option<EndpointId>,
    limit: i64,
) -> Result<Vec<Endpoint>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Endpoint,
        r#"select id as "id: EndpointId", organization_id as "organization: OrganizationId", url, description,
                  event_types, enabled, secret, created_at
             from webhook_endpoints where organization_id = $1 and ($2::uuid is null or id > $2) order by id limit $3"#,
        organization.uuid(),
        after.map(EndpointId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Changes what may change; `None` leaves a field as it is. `false`: there is no such endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update_endpoint(
    tx: &mut TenantTx,
    id: EndpointId,
    url: Option<&str>,
    description: Option<&str>,
    event_types: Option<&[String]>,
    enabled: Option<bool>,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "update webhook_endpoints
            set url = coalesce($2, url), description = coalesce($3, description),
                event_types = coalesce($4, event_types), enabled = coalesce($5, enabled)
          where id = $1",
        id.uuid(),
        url,
        description,
        event_types,
        enabled
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes an endpoint; `false`: there is no such endpoint. Deliveries under way find it gone and end.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete_endpoint(tx: &mut TenantTx, id: EndpointId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from webhook_endpoints where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Writes an event down.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert_event(tx: &mut TenantTx, event: &Event) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "insert into events (id, organization_id, type, payload, created_at) values ($1, $2, $3, $4, $5)",
        event.id.uuid(),
        organization.uuid(),
        event.r#type,
        event.payload,
        event.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// An event.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find_event(tx: &mut TenantTx, id: EventId) -> Result<Option<Event>, sqlx::Error> {
    sqlx::query_as!(
        Event,
        r#"select id as "id: EventId", type, payload, created_at from events where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// The events after `after`, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list_events(tx: &mut TenantTx, after: Option<EventId>, limit: i64) -> Result<Vec<Event>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Event,
        r#"select id as "id: EventId", type, payload, created_at
             from events where organization_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3"#,
        organization.uuid(),
        after.map(EventId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// The enabled endpoints that want events of a type.
///
/// # Errors
/// When the database refuses or went away.
pub async fn endpoints_wanting(tx: &mut TenantTx, event_type: &str) -> Result<Vec<EndpointId>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select id as "id: EndpointId" from webhook_endpoints
            where organization_id = $1 and enabled
              and (event_types = '{}' or exists (
                      select from unnest(event_types) as wanted
                       where wanted = $2 or (right(wanted, 2) = '.*' and starts_with($2, left(wanted, -1)))))
            order by id"#,
        organization.uuid(),
        event_type
    )
    .fetch_all(tx.connection())
    .await
}

/// Keeps an attempt; repeating it is harmless.
///
/// # Errors
/// When the database refuses or went away.
pub async fn record_attempt(tx: &mut TenantTx, attempt: &Attempt) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "insert into webhook_attempts (job_id, attempt, organization_id, event_id, endpoint_id, attempted_at,
                                       latency_ms, status, answer, error)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict do nothing",
        attempt.job.uuid(),
        attempt.attempt,
        organization.uuid(),
        attempt.event.uuid(),
        attempt.endpoint.uuid(),
        attempt.attempted_at,
        attempt.latency_ms,
        attempt.status,
        attempt.answer,
        attempt.error
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// An endpoint's attempts before `before`, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list_attempts(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    before: Option<(DateTime<Utc>, JobId)>,
    limit: i64,
) -> Result<Vec<Attempt>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Attempt,
        r#"select job_id as "job: JobId", attempt, event_id as "event: EventId", endpoint_id as "endpoint: EndpointId",
                  attempted_at, latency_ms, status, answer, error
             from webhook_attempts
            where organization_id = $1 and endpoint_id = $2
              and ($3::timestamptz is null or (attempted_at, job_id) < ($3, $4))
            order by attempted_at desc, job_id desc limit $5"#,
        organization.uuid(),
        endpoint.uuid(),
        before.map(|(at, _)| at),
        before.map(|(_, job)| job.uuid()),
        limit
    )
    .fetch_all(tx.connection())
    .await
}
