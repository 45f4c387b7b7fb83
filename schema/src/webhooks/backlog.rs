//! Deliveries that wait for their endpoint.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{EndpointId, EventId, JobTx, TenantTx};

/// A delivery that waits for its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place: the smallest is the oldest.
    pub place: i64,
    /// What is to be delivered.
    pub event: EventId,
    /// Its number, where the endpoint is ordered.
    pub number: Option<i64>,
    /// Tries that failed.
    pub tries: i32,
    /// Not before.
    pub due_at: DateTime<Utc>,
}

/// A delivery that is to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parked {
    /// For whom.
    pub endpoint: EndpointId,
    /// What is to be delivered.
    pub event: EventId,
    /// Tries that failed.
    pub tries: i32,
    /// Not before.
    pub due_at: DateTime<Utc>,
}

/// Puts deliveries into their endpoints' backlogs, in one statement, and answers when the first of each endpoint is due.
/// Those for endpoints that are gone or disabled are forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn park(tx: &mut TenantTx, parked: &[Parked]) -> Result<BTreeMap<EndpointId, DateTime<Utc>>, sqlx::Error> {
    let organization = tx.organization();
    let endpoints: Vec<uuid::Uuid> = parked.iter().map(|parked| parked.endpoint.uuid()).collect();
    let events: Vec<uuid::Uuid> = parked.iter().map(|parked| parked.event.uuid()).collect();
    let tries: Vec<i32> = parked.iter().map(|parked| parked.tries).collect();
    let due: Vec<DateTime<Utc>> = parked.iter().map(|parked| parked.due_at).collect();
    let rows = sqlx::query!(
        r#"with kept as (
               insert into webhook_backlog (endpoint_id, organization_id, event_id, tries, due_at)
               select w.id, $1, p.event, p.tries, p.due_at
                 from unnest($2::uuid[], $3::uuid[], $4::int[], $5::timestamptz[]) as p (endpoint, event, tries, due_at)
                 join webhook_endpoints w on w.id = p.endpoint and w.enabled
            returning endpoint_id, due_at)
           select endpoint_id as "endpoint: EndpointId", min(due_at) as "due_at!" from kept group by 1"#,
        organization.uuid(),
        &endpoints,
        &events,
        &tries,
        &due
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| (row.endpoint, row.due_at)).collect())
}

/// The oldest deliveries of an endpoint that are due; with `in_order`, the very oldest, due or not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn oldest(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    in_order: bool,
    limit: usize,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let (now, limit) = (tx.now(), i64::try_from(limit).unwrap_or(i64::MAX));
    sqlx::query_as!(
        Waiting,
        r#"select place, event_id as "event: EventId", number, tries, due_at
             from webhook_backlog where endpoint_id = $1 and ($2 or due_at <= $3) order by place limit $4"#,
        endpoint.uuid(),
        in_order,
        now,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// When the next delivery of an endpoint is due; `None`: none waits.
///
/// # Errors
/// When the database refuses or went away.
pub async fn next_due(tx: &mut TenantTx, endpoint: EndpointId) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("select min(due_at) from webhook_backlog where endpoint_id = $1", endpoint.uuid())
        .fetch_one(tx.connection())
        .await
}

/// Takes deliveries out of an endpoint's backlog.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, endpoint: EndpointId, places: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from webhook_backlog where endpoint_id = $1 and place = any($2)", endpoint.uuid(), places)
        .execute(tx.connection())
        .await
        .map(drop)
}

/// Puts a delivery off after a try that failed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_off(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    place: i64,
    due_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update webhook_backlog set tries = tries + 1, due_at = $3 where endpoint_id = $1 and place = $2",
        endpoint.uuid(),
        place,
        due_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Makes everything in an endpoint's backlog due now: somebody mended it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn hurry(tx: &mut TenantTx, endpoint: EndpointId) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    sqlx::query!("update webhook_backlog set due_at = $2 where endpoint_id = $1 and due_at > $2", endpoint.uuid(), now)
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected())
}

/// How many deliveries wait for an endpoint.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx, endpoint: EndpointId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from webhook_backlog where endpoint_id = $1"#, endpoint.uuid())
        .fetch_one(tx.connection())
        .await
}
