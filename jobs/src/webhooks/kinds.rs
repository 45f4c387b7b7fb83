//! The kinds of jobs that tell the world.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_schema::jobs::{Concurrency, Held, OnConflict, Unique};
use gantry_schema::{EndpointId, EventId};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue, Retry};

/// Delivers one event to one endpoint. The job is the delivery: its id stays the same over all attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverWebhook {
    /// What.
    pub event: EventId,
    /// To whom.
    pub endpoint: EndpointId,
}

/// The waits Standard Webhooks 1.0 recommends, about three days in all.
pub const LADDER: Retry = Retry::Ladder(&[
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
]);

impl Job for DeliverWebhook {
    const KIND: &'static str = "webhooks.deliver";
    const POLICY: Policy = Policy::new(Queue::Webhooks).attempts(10).timeout(Duration::from_secs(30)).retry(LADDER);
}

/// Works off what waits for an endpoint that is ordered, limited, or did not answer. One at a time per endpoint; a
/// job that has to wait asks for the next one and ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainBacklog {
    /// Whose backlog.
    pub endpoint: EndpointId,
    /// The one that waits already is to begin at once.
    #[serde(skip)]
    hurry: bool,
}

impl DrainBacklog {
    /// At once, whatever was planned.
    #[must_use]
    pub const fn now(endpoint: EndpointId) -> Self {
        Self { endpoint, hurry: true }
    }

    /// When the one that waits already begins; at once if there is none.
    #[must_use]
    pub const fn when_due(endpoint: EndpointId) -> Self {
        Self { endpoint, hurry: false }
    }
}

impl Job for DrainBacklog {
    const KIND: &'static str = "webhooks.drain";
    const POLICY: Policy = Policy::new(Queue::Webhooks).attempts(100).timeout(Duration::from_mins(2));

    fn unique(&self) -> Option<Unique> {
        let on_conflict = if self.hurry { OnConflict::Debounce } else { OnConflict::Existing };
        Some(Unique { key: self.endpoint.to_string(), held: Held::Pending, on_conflict })
    }

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency { key: format!("webhooks.drain:{}", self.endpoint), limit: 1 })
    }
}

/// Delivers the events of a stretch of time to an endpoint again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayEvents {
    /// To whom.
    pub endpoint: EndpointId,
    /// From then on.
    pub from: DateTime<Utc>,
    /// Until before then.
    pub to: DateTime<Utc>,
    /// Only what did not arrive.
    pub missed: bool,
}

impl Job for ReplayEvents {
    const KIND: &'static str = "webhooks.replay";
    const POLICY: Policy = Policy::new(Queue::Webhooks).timeout(Duration::from_mins(10));

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency { key: format!("webhooks.replay:{}", self.endpoint), limit: 1 })
    }
}
