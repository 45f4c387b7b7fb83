//! How endpoints, secrets and attempts look to callers.

use std::collections::BTreeMap;

use gantry_schema::webhooks as rows;
use gantry_schema::{AttemptId, EndpointId, EventId, JobId, SecretId};
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object};
use serde_json::Value;

use crate::example::example;
use crate::field::Moment;

/// A receiver of events.
#[derive(Debug, Clone, Object)]
#[oai(rename = "WebhookEndpoint", example)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Where events are posted to.
    pub url: String,
    /// What people wrote about it.
    pub description: String,
    /// The types it wants: exact ones, or beginnings such as `invoice.*`; empty: all.
    pub event_types: Vec<String>,
    /// The channels it wants: events of any of them; empty: all events.
    pub channels: Vec<String>,
    /// What programs keep with it.
    pub metadata: BTreeMap<String, String>,
    /// The names of the headers it gets besides; their values are not shown.
    pub header_names: Vec<String>,
    /// Deliveries per second at most; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    pub rate_per_second: Option<i32>,
    /// Deliveries come one after the other, numbered without a gap in `webhook-sequence`.
    pub ordered: bool,
    /// Deliveries name the event instead of carrying its payload.
    pub thin: bool,
    /// It gets events.
    pub enabled: bool,
    /// Why the platform disabled it; absent where people did.
    #[oai(skip_serializing_if_is_none)]
    pub disabled_reason: Option<DisabledReason>,
    /// When the platform disabled it.
    #[oai(skip_serializing_if_is_none)]
    pub disabled_at: Option<Moment>,
    /// When the first failure since the last success was; absent: it is well.
    #[oai(skip_serializing_if_is_none)]
    pub failing_since: Option<Moment>,
    /// It failed so often that nothing is sent before this moment; deliveries wait meanwhile.
    #[oai(skip_serializing_if_is_none)]
    pub open_until: Option<Moment>,
    /// When it was made.
    pub created_at: Moment,
    /// When it was changed last.
    pub updated_at: Moment,
    /// What looks like a mistake, such as types nobody has heard of: where it was made or changed.
    #[oai(skip_serializing_if_is_none)]
    pub warnings: Option<Vec<String>>,
}

example!(Endpoint, {
    "id": "ep_01h455vb4pex5vsknk084sn02q",
    "url": "https://receiver.example/hooks",
    "description": "Books what was paid",
    "event_types": ["invoice.*"],
    "channels": ["project:42"],
    "metadata": { "team": "billing" },
    "header_names": ["x-team"],
    "rate_per_second": 50,
    "ordered": false,
    "thin": false,
    "enabled": true,
    "created_at": "2026-01-15T12:00:00Z",
    "updated_at": "2026-01-15T12:00:00Z",
});

/// Why the platform disabled an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "WebhookDisabledReason", rename_all = "snake_case")]
pub enum DisabledReason {
    /// It answered 410.
    Gone,
    /// Nothing reached it for five days.
    Failing,
}

impl From<rows::Endpoint> for Endpoint {
    fn from(row: rows::Endpoint) -> Self {
        let disabled_reason = row.disabled_reason.as_deref().map(|reason| match reason {
            "gone" => DisabledReason::Gone,
            _ => DisabledReason::Failing,
        });
        Self {
            id: row.id,
            url: row.url,
            description: row.description,
            event_types: row.event_types,
            channels: row.channels,
            metadata: serde_json::from_value(row.metadata).unwrap_or_default(),
            header_names: row.header_names,
            rate_per_second: row.rate_per_second,
            ordered: row.ordered,
            thin: row.thin,
            enabled: row.enabled,
            disabled_reason,
            disabled_at: row.disabled_at.map(Into::into),
            failing_since: row.failing_since.map(Into::into),
            open_until: row.open_until.map(Into::into),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
            warnings: None,
        }
    }
}

/// A signing secret, without itself.
#[derive(Debug, Object)]
#[oai(rename = "WebhookSecret", example)]
pub struct Secret {
    /// Its id.
    pub id: SecretId,
    /// The version of the signatures it makes.
    pub signature: SignatureVersion,
    /// What a receiver verifies `v1a` signatures with.
    #[oai(skip_serializing_if_is_none)]
    pub public_key: Option<String>,
    /// When it was made.
    pub created_at: Moment,
    /// When it stops signing; absent: it is the current one.
    #[oai(skip_serializing_if_is_none)]
    pub expires_at: Option<Moment>,
}

example!(Secret, { "id": "sec_01h455vb4pex5vsknk084sn02q", "signature": "v1", "created_at": "2026-01-15T12:00:00Z" });

/// How deliveries are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Enum, serde::Deserialize)]
#[oai(rename = "WebhookSignatureVersion", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum SignatureVersion {
    /// HMAC-SHA256 with a secret both sides have.
    #[default]
    V1,
    /// Ed25519: the receiver has the public key only.
    V1a,
}

/// One attempt to deliver an event.
#[derive(Debug, Object)]
#[oai(rename = "WebhookAttempt", example)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// What was delivered.
    pub event_id: EventId,
    /// The job that did it.
    pub job_id: JobId,
    /// Which try of this delivery, from 1.
    pub number: i32,
    /// When it began.
    pub attempted_at: Moment,
    /// How long it took.
    pub latency_ms: i32,
    /// The receiver took it: it answered 2xx.
    pub succeeded: bool,
    /// The HTTP status of the answer.
    #[oai(skip_serializing_if_is_none)]
    pub status: Option<i16>,
    /// The headers of the answer, at most 8 KB.
    #[oai(skip_serializing_if_is_none)]
    pub headers: Option<Any<Value>>,
    /// The first kilobyte of the answer.
    #[oai(skip_serializing_if_is_none)]
    pub answer: Option<String>,
    /// Why there was no answer.
    #[oai(skip_serializing_if_is_none)]
    pub error: Option<String>,
}

example!(Attempt, {
    "id": "att_01h455vb4pex5vsknk084sn02q",
    "event_id": "evt_01h455vb4pex5vsknk084sn02q",
    "job_id": "job_01h455vb4pex5vsknk084sn02q",
    "number": 1,
    "attempted_at": "2026-01-15T12:00:01Z",
    "latency_ms": 42,
    "succeeded": false,
    "status": 503,
    "headers": { "retry-after": "30" },
    "answer": "we are closed for maintenance",
});

impl From<rows::Attempt> for Attempt {
    fn from(row: rows::Attempt) -> Self {
        Self {
            id: row.id,
            event_id: row.event,
            job_id: row.job,
            number: row.number,
            attempted_at: row.attempted_at.into(),
            latency_ms: row.latency_ms,
            succeeded: row.succeeded,
            status: row.status,
            headers: row.headers.map(Any),
            answer: row.answer,
            error: row.error,
        }
    }
}

/// How deliveries to an endpoint went.
#[derive(Debug, Object)]
#[oai(rename = "WebhookStatistics", example)]
pub struct Statistics {
    /// Counted from then on.
    pub since: Moment,
    /// Attempts that succeeded.
    pub succeeded: i64,
    /// Attempts that did not.
    pub failed: i64,
    /// Different events that arrived.
    pub events: i64,
    /// Half of the attempts took no longer, in milliseconds.
    #[oai(skip_serializing_if_is_none)]
    pub latency_p50_ms: Option<f64>,
    /// 95 of 100 attempts took no longer, in milliseconds.
    #[oai(skip_serializing_if_is_none)]
    pub latency_p95_ms: Option<f64>,
    /// When the last attempt began.
    #[oai(skip_serializing_if_is_none)]
    pub last_attempt_at: Option<Moment>,
    /// Deliveries that wait for the endpoint: for their turn, or for it to answer again.
    pub backlog: i64,
}

example!(Statistics, {
    "since": "2026-01-14T12:00:00Z",
    "succeeded": 1480,
    "failed": 20,
    "events": 1480,
    "latency_p50_ms": 38.5,
    "latency_p95_ms": 210.0,
    "last_attempt_at": "2026-01-15T11:59:58Z",
    "backlog": 0,
});
