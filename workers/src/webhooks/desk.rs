//! Where deliveries of one organization meet: what they need is read for all of them together, and what came of them
//! is written down for all of them together.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_jobs::By;
use gantry_jobs::gather::{Gather, Together, Unanswered};
use gantry_jobs::request::RequestError;
use gantry_jobs::webhooks;
use gantry_schema::jobs::enqueue::EnqueueError;
use gantry_schema::webhooks::backlog::Parked;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::webhooks::{Attempt, Event, attempts, endpoints, health};
use gantry_schema::{EndpointId, EventId, JobTx as _, TenantTx, notices};
use serde_json::json;
use tracing::warn;

use super::gate::{Gate, Turn};
use super::message::{Opened, Receiver};
use super::outcome::{self, Made, Verdict};
use super::together::{Answer, Loaded, Loads, Parking, Parks, Records};
use crate::{Context, Done, Failure};

/// What the deliveries of a process have in common.
pub(super) struct Desk {
    gate: Arc<Gate>,
    loads: Loads,
    loading: Gather<Loads>,
    records: Gather<Records>,
    parks: Gather<Parks>,
}

impl Desk {
    /// The desk of this process.
    pub(super) fn of(cx: &Context) -> Arc<Self> {
        cx.shared(|| {
            let db = cx.db().clone();
            let loads = Loads { db: db.clone(), keys: cx.keys(), opened: Arc::<Opened>::default() };
            Self {
                gate: Arc::default(),
                loading: Gather::new(loads.clone()),
                loads,
                records: Gather::new(Records(db.clone())),
                parks: Gather::new(Parks(db)),
            }
        })
    }

    /// What a delivery needs.
    pub(super) async fn load(&self, cx: &Context, endpoint: EndpointId, event: EventId) -> Result<Loaded, Failure> {
        together(&self.loading, cx, (endpoint, event)).await
    }

    /// As [`Self::load`], in a transaction that is there already.
    pub(super) async fn load_within(
        &self,
        tx: &mut TenantTx,
        wanted: &[(EndpointId, EventId)],
    ) -> Result<Vec<Loaded>, sqlx::Error> {
        self.loads.load(tx, wanted).await
    }

    /// Whether an endpoint is known not to keep up.
    pub(super) fn is_behind(&self, endpoint: EndpointId) -> bool {
        self.gate.is_behind(endpoint)
    }

    /// A place among the deliveries under way; `None`: the endpoint does not keep up.
    pub(super) async fn turn(&self, endpoint: EndpointId) -> Option<Turn> {
        self.gate.turn(endpoint).await
    }

    /// Writes down what came of a delivery.
    pub(super) async fn record(&self, cx: &Context, made: Made) -> Result<(), Failure> {
        together(&self.records, cx, made).await
    }

    /// Puts a delivery into its endpoint's backlog, and ends the job with it. `behind`: the endpoint does not keep up.
    pub(super) async fn park(&self, cx: &Context, parked: Parked, behind: bool) -> Result<Done, Failure> {
        let parking = Parking { parked, behind, job: cx.job(), attempt: cx.attempt() };
        if together(&self.parks, cx, parking).await? { Ok(Done::Committed) } else { Err(Failure::Lost) }
    }
}

async fn together<T, A>(gather: &Gather<T>, cx: &Context, question: T::Question) -> Result<A, Failure>
where
    T: Together<Answer = Answer<A>>,
{
    match gather.ask(cx.organization(), question).await {
        Ok(answer) => answer.map_err(|error| Failure::retry(WithOthers(error))),
        Err(Unanswered::Crowded(_)) => Err(Failure::retry("too many deliveries wait for the database")),
        Err(Unanswered::Lost) => Err(Failure::retry("the work was given up together with that of other jobs")),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("working together with other jobs")]
struct WithOthers(#[source] Arc<sqlx::Error>);

/// Sends once. `tries` failed before.
pub(super) async fn send(
    cx: &Context,
    receiver: &Receiver,
    event: &Event,
    number: Option<i64>,
    tries: i32,
    last: bool,
) -> (Made, Option<std::time::Duration>) {
    let attempted_at = cx.now();
    let request = receiver.request(event, number, attempted_at);
    let answer = cx.providers().hooks.send(request).await;
    let now = cx.now();
    let verdict = outcome::judge(&answer, now);
    let attempt = Attempt {
        id: cx.db().ids().mint(),
        endpoint: receiver.endpoint.id,
        event: event.id,
        job: cx.job(),
        number: tries + 1,
        attempted_at,
        latency_ms: i32::try_from((now - attempted_at).num_milliseconds()).unwrap_or(i32::MAX),
        succeeded: verdict == Verdict::Taken,
        status: answer.as_ref().ok().and_then(|answer| i16::try_from(answer.status).ok()),
        headers: answer.as_ref().ok().map(outcome::kept_headers),
        answer: answer.as_ref().ok().map(outcome::kept_body),
        error: answer.as_ref().err().map(gantry_providers::Error::explain),
    };
    let latency = answer.ok().map(|answer| answer.latency);
    let made = Made {
        attempt,
        verdict,
        troubled: receiver.endpoint.failing_since.is_some(),
        last,
        event_type: event.r#type.clone(),
    };
    (made, latency)
}

/// Writes down attempts and what they mean for their endpoints, which may end with telling the owner.
pub(super) async fn write_down(tx: &mut TenantTx, made: &[Made]) -> Result<(), sqlx::Error> {
    let attempted: Vec<&Attempt> = made.iter().map(|made| &made.attempt).collect();
    attempts::record(tx, &attempted).await?;

    // In one order for everybody: endpoints are rows that several workers write.
    let mut tallies: BTreeMap<EndpointId, Tally> = BTreeMap::new();
    for made in made {
        tallies.entry(made.attempt.endpoint).or_default().count(made);
    }
    let recovered: Vec<EndpointId> =
        tallies.iter().filter(|(_, tally)| tally.recovered).map(|(endpoint, _)| *endpoint).collect();
    if !recovered.is_empty() {
        health::succeeded(tx, &recovered).await?;
        for endpoint in &recovered {
            notices::settle(tx, &[PlatformEvent::EndpointFailing], &endpoint.to_string()).await?;
        }
    }
    for (endpoint, tally) in tallies {
        if tally.gone {
            if health::gone(tx, endpoint).await? {
                tell_disabled(tx, endpoint, "gone").await?;
            }
        } else if tally.failures > 0
            && let Some(verdict) = health::failed(tx, endpoint, tally.failures).await?
        {
            if verdict.disabled {
                tell_disabled(tx, endpoint, "failing").await?;
            } else if verdict.warn {
                tell_failing(tx, endpoint).await?;
            }
        }
    }
    for made in made.iter().filter(|made| made.last && made.verdict != Verdict::Taken) {
        // What is told about deliveries is not told about in its turn.
        if !made.event_type.starts_with("webhook.") {
            let facts = json!({ "endpoint_id": made.attempt.endpoint, "event_id": made.attempt.event,
                                "tries": made.attempt.number });
            tell(tx, PlatformEvent::DeliveryExhausted, made.attempt.endpoint, facts).await?;
        }
    }
    Ok(())
}

/// What attempts say about an endpoint, in their order.
#[derive(Debug, Default)]
struct Tally {
    /// Failures since the last success among them.
    failures: i32,
    /// One succeeded, and the endpoint had failed before.
    recovered: bool,
    /// The receiver wants no more.
    gone: bool,
}

impl Tally {
    fn count(&mut self, made: &Made) {
        match made.verdict {
            Verdict::Taken => {
                self.recovered |= made.troubled || self.failures > 0;
                self.failures = 0;
            }
            Verdict::Gone(_) => self.gone = true,
            Verdict::Later(..) | Verdict::Never(_) => self.failures += 1,
        }
    }
}

async fn tell_disabled(tx: &mut TenantTx, endpoint: EndpointId, reason: &str) -> Result<(), sqlx::Error> {
    let Some(found) = endpoints::find(tx, endpoint).await? else { return Ok(()) };
    warn!(organization.id = %found.organization, endpoint.id = %endpoint, reason, "An endpoint was disabled");
    metrics::counter!("gantry_webhook_endpoints_disabled_total", "reason" => reason.to_owned()).increment(1);
    let since = found.failing_since.unwrap_or(tx.now());
    let facts = json!({ "endpoint_id": endpoint, "url": found.url, "reason": reason, "failing_since": since });
    notices::settle(tx, &[PlatformEvent::EndpointFailing], &endpoint.to_string()).await?;
    tell(tx, PlatformEvent::EndpointDisabled, endpoint, facts).await
}

async fn tell_failing(tx: &mut TenantTx, endpoint: EndpointId) -> Result<(), sqlx::Error> {
    let Some(found) = endpoints::find(tx, endpoint).await? else { return Ok(()) };
    warn!(organization.id = %found.organization, endpoint.id = %endpoint, "Nothing reaches an endpoint");
    let since = found.failing_since.unwrap_or(tx.now());
    let facts = json!({ "endpoint_id": endpoint, "url": found.url, "failing_since": since,
                        "disabled_at": since + health::DISABLES_AFTER });
    tell(tx, PlatformEvent::EndpointFailing, endpoint, facts).await
}

/// Tells programs, and people.
async fn tell(
    tx: &mut TenantTx,
    what: PlatformEvent,
    endpoint: EndpointId,
    facts: serde_json::Value,
) -> Result<(), sqlx::Error> {
    notices::write(tx, what, &endpoint.to_string(), &facts).await?;
    webhooks::emit(tx, what.name(), facts, &By::platform("webhooks")).await.map(drop).map_err(database)
}

/// What the platform itself asks for can only fail with the database.
pub(super) fn database(error: RequestError) -> sqlx::Error {
    match error {
        RequestError::Enqueue(EnqueueError::Database(error)) => error,
        other => sqlx::Error::Protocol(other.to_string()),
    }
}
