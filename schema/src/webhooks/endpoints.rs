//! The receivers of events.

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use crate::window::in_order;
use crate::{EndpointId, JobTx, OrganizationId, TenantTx, Window};

/// A receiver of events.
#[derive(Debug, Clone, PartialEq)]
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
    /// The channels it wants; empty: all events, whatever their channels.
    pub channels: Vec<String>,
    /// What its owner's programs keep with it.
    pub metadata: Value,
    /// Headers of its owner's own, a JSON object sealed for this row.
    pub headers: Option<Vec<u8>>,
    /// What they are called.
    pub header_names: Vec<String>,
    /// Deliveries per second at most.
    pub rate_per_second: Option<i32>,
    /// Deliveries come one after the other, numbered without a gap.
    pub ordered: bool,
    /// Deliveries name the event instead of carrying its payload.
    pub thin: bool,
    /// It gets events.
    pub enabled: bool,
    /// Why the platform disabled it: `gone` or `failing`.
    pub disabled_reason: Option<String>,
    /// When the platform disabled it.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Failures since the last success.
    pub consecutive_failures: i32,
    /// Nothing is sent before.
    pub open_until: Option<DateTime<Utc>>,
    /// When the first failure since the last success was.
    pub failing_since: Option<DateTime<Utc>>,
    /// It does not keep up: until then, what is for it goes to its backlog at once.
    pub behind_until: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When people changed it last.
    pub updated_at: DateTime<Utc>,
}

/// What is to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Where events are posted to.
    pub url: Option<String>,
    /// What people wrote about it.
    pub description: Option<String>,
    /// The types it wants.
    pub event_types: Option<Vec<String>>,
    /// The channels it wants.
    pub channels: Option<Vec<String>>,
    /// What its owner's programs keep with it.
    pub metadata: Option<Value>,
    /// Headers, sealed, and their names; `Some(None)` removes them.
    pub headers: Option<Option<(Vec<u8>, Vec<String>)>>,
    /// Deliveries per second; `Some(None)` lifts the limit.
    pub rate_per_second: Option<Option<i32>>,
    /// One after the other.
    pub ordered: Option<bool>,
    /// Without payload.
    pub thin: Option<bool>,
    /// It gets events. Enabling it closes its circuit.
    pub enabled: Option<bool>,
}

/// Which endpoints a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that get events, or do not.
    pub enabled: Option<bool>,
    /// Only those that want events of this type.
    pub event_type: Option<String>,
}

/// Stores a new endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, endpoint: &Endpoint) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into webhook_endpoints (id, organization_id, url, description, event_types, channels, metadata, headers,
                                        header_names, rate_per_second, ordered, thin, enabled, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)",
        endpoint.id.uuid(),
        endpoint.organization.uuid(),
        endpoint.url,
        endpoint.description,
        &endpoint.event_types,
        &endpoint.channels,
        endpoint.metadata,
        endpoint.headers,
        &endpoint.header_names,
        endpoint.rate_per_second,
        endpoint.ordered,
        endpoint.thin,
        endpoint.enabled,
        endpoint.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// How many endpoints the organization has.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from webhook_endpoints where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// An endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: EndpointId) -> Result<Option<Endpoint>, sqlx::Error> {
    Ok(find_many(tx, &[id]).await?.pop())
}

/// Those of the endpoints that exist.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find_many(tx: &mut TenantTx, ids: &[EndpointId]) -> Result<Vec<Endpoint>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query_as!(
        Endpoint,
        r#"select id as "id: EndpointId", organization_id as "organization: OrganizationId", url, description,
                  event_types, channels, metadata, headers, header_names, rate_per_second, ordered, thin, enabled,
                  disabled_reason, disabled_at, consecutive_failures, open_until, failing_since, behind_until,
                  created_at, updated_at
             from webhook_endpoints where id = any($1)"#,
        &ids
    )
    .fetch_all(tx.connection())
    .await
}

/// An endpoint that nobody else changes until the end of the transaction.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: EndpointId) -> Result<Option<Endpoint>, sqlx::Error> {
    sqlx::query_scalar!("select 1 as one from webhook_endpoints where id = $1 for no key update", id.uuid())
        .fetch_optional(tx.connection())
        .await?;
    find(tx, id).await
}

/// A page of the endpoints.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: &Filter, window: Window) -> Result<Vec<Endpoint>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Endpoint,
                r#"select id as "id: EndpointId", organization_id as "organization: OrganizationId", url, description,
                          event_types, channels, metadata, headers, header_names, rate_per_second, ordered, thin,
                          enabled, disabled_reason, disabled_at, consecutive_failures, open_until, failing_since,
                          behind_until, created_at, updated_at
                     from webhook_endpoints
                    where organization_id = $1 and id > $2 and id < $3 and ($4::boolean is null or enabled = $4)
                      and ($5::text is null or event_types = '{}' or exists (
                              select from unnest(event_types) as wanted
                               where wanted = $5 or (right(wanted, 2) = '.*' and starts_with($5, left(wanted, -1)))))
                    order by id "#
                    + $order
                    + " limit $6",
                organization.uuid(),
                window.low(),
                window.high(),
                filter.enabled,
                filter.event_type,
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}

/// Changes what may change. `false`: there is no such endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(tx: &mut TenantTx, id: EndpointId, change: &Change) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let (headers, names) = match &change.headers {
        Some(Some((sealed, names))) => (Some(sealed.as_slice()), names.as_slice()),
        _ => (None, [].as_slice()),
    };
    sqlx::query!(
        "update webhook_endpoints
            set url = coalesce($2, url), description = coalesce($3, description),
                event_types = coalesce($4, event_types), channels = coalesce($5, channels),
                metadata = coalesce($6, metadata),
                headers = case when $7 then $8 else headers end,
                header_names = case when $7 then $9 else header_names end,
                rate_per_second = case when $10 then $11 else rate_per_second end,
                ordered = coalesce($12, ordered), thin = coalesce($13, thin), enabled = coalesce($14, enabled),
                disabled_reason = case when $14 is null then disabled_reason end,
                disabled_at = case when $14 is null then disabled_at end,
                consecutive_failures = case when $14 then 0 else consecutive_failures end,
                openings = case when $14 then 0 else openings end,
                open_until = case when $14 then null else open_until end,
                failing_since = case when $14 then null else failing_since end,
                warned_at = case when $14 then null else warned_at end,
                updated_at = $15
          where id = $1",
        id.uuid(),
        change.url,
        change.description,
        change.event_types.as_deref(),
        change.channels.as_deref(),
        change.metadata,
        change.headers.is_some(),
        headers,
        names,
        change.rate_per_second.is_some(),
        change.rate_per_second.flatten(),
        change.ordered,
        change.thin,
        change.enabled,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// How long what is for an endpoint that did not keep up goes to its backlog at once.
const BEHIND: Duration = Duration::seconds(30);

/// Notes that endpoints do not keep up, in one order for everybody; again only when half of the time is over.
///
/// # Errors
/// When the database refuses or went away.
pub async fn fell_behind(tx: &mut TenantTx, ids: &[EndpointId]) -> Result<(), sqlx::Error> {
    let now = tx.now();
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!(
        "update webhook_endpoints set behind_until = $2
          where id in (select id from webhook_endpoints
                        where id = any($1) and (behind_until is null or behind_until < $3)
                        order by id for no key update)",
        &ids,
        now + BEHIND,
        now + BEHIND / 2
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Nothing waits for the endpoint any more: what is for it may go to it directly.
///
/// # Errors
/// When the database refuses or went away.
pub async fn caught_up(tx: &mut TenantTx, id: EndpointId) -> Result<(), sqlx::Error> {
    sqlx::query!("update webhook_endpoints set behind_until = null where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(drop)
}

/// Removes an endpoint with its secrets and its backlog; `false`: there is no such endpoint. Deliveries under way
/// find it gone and end.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, id: EndpointId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from webhook_endpoints where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}
