//! What came of each attempt to deliver.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::window::in_order;
use crate::{AttemptId, EndpointId, EventId, JobId, JobTx, TenantTx, Window};

/// One attempt to deliver an event to an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// To whom.
    pub endpoint: EndpointId,
    /// What was delivered.
    pub event: EventId,
    /// The job that did it.
    pub job: JobId,
    /// Which try of this delivery, from 1.
    pub number: i32,
    /// When it began.
    pub attempted_at: DateTime<Utc>,
    /// How long it took.
    pub latency_ms: i32,
    /// The receiver took it.
    pub succeeded: bool,
    /// The HTTP status of the answer.
    pub status: Option<i16>,
    /// The headers of the answer.
    pub headers: Option<Value>,
    /// The first kilobyte of the answer.
    pub answer: Option<String>,
    /// Why there was no answer.
    pub error: Option<String>,
}

/// Which attempts a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that succeeded, or did not.
    pub succeeded: Option<bool>,
    /// Of this event.
    pub event: Option<EventId>,
}

/// Keeps attempts, in one statement; repeating it is harmless.
///
/// # Errors
/// When the database refuses or went away.
pub async fn record(tx: &mut TenantTx, attempts: &[&Attempt]) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let each = || attempts.iter();
    let ids: Vec<uuid::Uuid> = each().map(|attempt| attempt.id.uuid()).collect();
    let endpoints: Vec<uuid::Uuid> = each().map(|attempt| attempt.endpoint.uuid()).collect();
    let events: Vec<uuid::Uuid> = each().map(|attempt| attempt.event.uuid()).collect();
    let jobs: Vec<uuid::Uuid> = each().map(|attempt| attempt.job.uuid()).collect();
    let numbers: Vec<i32> = each().map(|attempt| attempt.number).collect();
    let moments: Vec<DateTime<Utc>> = each().map(|attempt| attempt.attempted_at).collect();
    let latencies: Vec<i32> = each().map(|attempt| attempt.latency_ms).collect();
    let succeeded: Vec<bool> = each().map(|attempt| attempt.succeeded).collect();
    let statuses: Vec<Option<i16>> = each().map(|attempt| attempt.status).collect();
    let headers: Vec<Option<String>> = each().map(|attempt| attempt.headers.as_ref().map(Value::to_string)).collect();
    let answers: Vec<Option<&str>> = each().map(|attempt| attempt.answer.as_deref()).collect();
    let errors: Vec<Option<&str>> = each().map(|attempt| attempt.error.as_deref()).collect();
    sqlx::query!(
        "insert into webhook_attempts (id, organization_id, endpoint_id, event_id, job_id, number, attempted_at,
                                       latency_ms, succeeded, status, headers, answer, error)
         select id, $1, endpoint, event, job, number, at, latency, succeeded, status, headers::jsonb, answer, error
           from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::int[], $7::timestamptz[], $8::int[],
                       $9::boolean[], $10::smallint[], $11::text[], $12::text[], $13::text[])
             as a (id, endpoint, event, job, number, at, latency, succeeded, status, headers, answer, error)
         on conflict do nothing",
        organization.uuid(),
        &ids,
        &endpoints,
        &events,
        &jobs,
        &numbers,
        &moments,
        &latencies,
        &succeeded,
        &statuses as _,
        &headers as _,
        &answers as _,
        &errors as _
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A page of an endpoint's attempts. Those of one event, and those that failed, are few among many, and have indexes.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    filter: Filter,
    window: Window,
) -> Result<Vec<Attempt>, sqlx::Error> {
    macro_rules! attempts {
        ($which:literal, $order:literal) => {
            sqlx::query_as!(
                Attempt,
                r#"select id as "id: AttemptId", endpoint_id as "endpoint: EndpointId", event_id as "event: EventId",
                          job_id as "job: JobId", number, attempted_at, latency_ms, succeeded, status, headers, answer,
                          error
                     from webhook_attempts where endpoint_id = $1 and id > $2 and id < $3"#
                    + $which
                    + " order by id "
                    + $order
                    + " limit $6",
                endpoint.uuid(),
                window.low(),
                window.high(),
                filter.succeeded,
                filter.event.map(EventId::uuid),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    macro_rules! of_event {
        ($order:literal) => {
            attempts!(" and event_id = $5 and ($4::boolean is null or succeeded = $4)", $order)
        };
    }
    macro_rules! failed {
        ($order:literal) => {
            attempts!(" and not succeeded and not $4 and $5::uuid is null", $order)
        };
    }
    macro_rules! any {
        ($order:literal) => {
            attempts!(" and ($4::boolean is null or succeeded = $4) and $5::uuid is null", $order)
        };
    }
    match filter {
        Filter { event: Some(_), .. } => in_order!(window.order, of_event),
        Filter { succeeded: Some(false), .. } => in_order!(window.order, failed),
        Filter { .. } => in_order!(window.order, any),
    }
}

/// How deliveries to an endpoint went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Attempts that succeeded.
    pub succeeded: i64,
    /// Attempts that did not.
    pub failed: i64,
    /// Different events that arrived.
    pub events: i64,
    /// Half of the attempts took no longer.
    pub latency_p50_ms: Option<f64>,
    /// Nearly all of the attempts took no longer.
    pub latency_p95_ms: Option<f64>,
    /// The last attempt.
    pub last_at: Option<DateTime<Utc>>,
}

/// How deliveries to an endpoint went since a moment.
///
/// # Errors
/// When the database refuses or went away.
pub async fn statistics(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    since: DateTime<Utc>,
) -> Result<Statistics, sqlx::Error> {
    sqlx::query_as!(
        Statistics,
        r#"select count(*) filter (where succeeded) as "succeeded!", count(*) filter (where not succeeded) as "failed!",
                  count(distinct event_id) filter (where succeeded) as "events!",
                  percentile_cont(0.5) within group (order by latency_ms) as latency_p50_ms,
                  percentile_cont(0.95) within group (order by latency_ms) as latency_p95_ms,
                  max(attempted_at) as last_at
             from webhook_attempts where endpoint_id = $1 and id >= id_at($2)"#,
        endpoint.uuid(),
        since
    )
    .fetch_one(tx.connection())
    .await
}
