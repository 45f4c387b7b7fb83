//! What deliveries of one organization do in one transaction for all of them; [`gantry_jobs::gather`] says how.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_jobs::gather::Together;
use gantry_jobs::webhooks::DrainBacklog;
use gantry_jobs::{By, Job as _};
use gantry_schema::jobs::settle;
use gantry_schema::seal::SealingKeys;
use gantry_schema::webhooks::backlog::{self, Parked};
use gantry_schema::webhooks::{Event, endpoints, events, secrets};
use gantry_schema::{Db, EndpointId, EventId, JobId, OrganizationId, TenantTx};
use serde_json::json;

use super::desk::{database, write_down};
use super::message::{Opened, Receiver};
use super::outcome::Made;

/// Answered in one transaction at most.
const AT_ONCE: usize = 256;

/// What the database said, to each of those who asked together.
pub(super) type Answer<T> = Result<T, Arc<sqlx::Error>>;

/// A delivery's endpoint and event; either may be gone by now. An endpoint that cannot be used says why.
pub(super) type Loaded = (Option<Result<Arc<Receiver>, String>>, Option<Arc<Event>>);

/// Reads what deliveries need.
#[derive(Clone)]
pub(super) struct Loads {
    pub(super) db: Db,
    pub(super) keys: Arc<SealingKeys>,
    pub(super) opened: Arc<Opened>,
}

impl Together for Loads {
    type Question = (EndpointId, EventId);
    type Answer = Answer<Loaded>;

    const AT_ONCE: usize = AT_ONCE;

    async fn answer(&self, organization: OrganizationId, wanted: Vec<(EndpointId, EventId)>) -> Vec<Answer<Loaded>> {
        let load = async {
            let mut tx = self.db.tenant(organization).await?;
            let loaded = self.load(&mut tx, &wanted).await?;
            tx.commit().await?;
            Ok(loaded)
        };
        to_each(wanted.len(), load.await)
    }
}

impl Loads {
    /// What deliveries need, in their order.
    pub(super) async fn load(
        &self,
        tx: &mut TenantTx,
        wanted: &[(EndpointId, EventId)],
    ) -> Result<Vec<Loaded>, sqlx::Error> {
        let endpoint_ids: BTreeSet<EndpointId> = wanted.iter().map(|(endpoint, _)| *endpoint).collect();
        let endpoint_ids: Vec<EndpointId> = endpoint_ids.into_iter().collect();
        let event_ids: BTreeSet<EventId> = wanted.iter().map(|(_, event)| *event).collect();
        let event_ids: Vec<EventId> = event_ids.into_iter().collect();

        let found = endpoints::find_many(tx, &endpoint_ids).await?;
        let signing = secrets::signing(tx, &endpoint_ids).await?;
        let open = |endpoint| Receiver::open(endpoint, &signing, &self.keys, &self.opened).map(Arc::new);
        let receivers: HashMap<EndpointId, Result<Arc<Receiver>, String>> =
            found.into_iter().map(|endpoint| (endpoint.id, open(endpoint))).collect();
        let found = events::find_many(tx, &event_ids).await?;
        let events: HashMap<EventId, Arc<Event>> = found.into_iter().map(|event| (event.id, Arc::new(event))).collect();
        let loaded =
            |(endpoint, event): &(EndpointId, EventId)| (receivers.get(endpoint).cloned(), events.get(event).cloned());
        Ok(wanted.iter().map(loaded).collect())
    }
}

/// Writes down what came of deliveries.
pub(super) struct Records(pub(super) Db);

impl Together for Records {
    type Question = Made;
    type Answer = Answer<()>;

    const AT_ONCE: usize = AT_ONCE;

    async fn answer(&self, organization: OrganizationId, made: Vec<Made>) -> Vec<Answer<()>> {
        let record = async {
            let mut tx = self.0.tenant(organization).await?;
            write_down(&mut tx, &made).await?;
            tx.commit().await?;
            Ok(vec![(); made.len()])
        };
        to_each(made.len(), record.await)
    }
}

/// A delivery that goes to its endpoint's backlog, and the attempt that ends with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parking {
    pub(super) parked: Parked,
    /// Its endpoint does not keep up.
    pub(super) behind: bool,
    pub(super) job: JobId,
    pub(super) attempt: i32,
}

/// Puts deliveries into backlogs and ends their jobs. Answers whether a job still was the caller's to end.
pub(super) struct Parks(pub(super) Db);

impl Together for Parks {
    type Question = Parking;
    type Answer = Answer<bool>;

    const AT_ONCE: usize = AT_ONCE;

    /// Nobody waits for what an endpoint cannot take anyway, and one transaction for many is what makes it cheap.
    const LINGER: Duration = Duration::from_millis(20);

    async fn answer(&self, organization: OrganizationId, parking: Vec<Parking>) -> Vec<Answer<bool>> {
        let park = async {
            let mut tx = self.0.tenant(organization).await?;
            let ended: Vec<(JobId, i32)> = parking.iter().map(|parking| (parking.job, parking.attempt)).collect();
            let result = json!({ "parked": "the endpoint does not answer or keep up; it is delivered in its turn" });
            let mine = settle::succeed_together(&mut tx, &ended, &result).await?;
            let parked: Vec<Parked> =
                parking.iter().filter(|parking| mine.contains(&parking.job)).map(|parking| parking.parked).collect();
            let behind: BTreeSet<EndpointId> =
                parking.iter().filter(|parking| parking.behind).map(|parking| parking.parked.endpoint).collect();
            if !behind.is_empty() {
                endpoints::fell_behind(&mut tx, &behind.into_iter().collect::<Vec<_>>()).await?;
            }
            for (endpoint, due) in backlog::park(&mut tx, &parked).await? {
                let drain = DrainBacklog::when_due(endpoint);
                let asked = drain.request().at(due).enqueue(&mut tx, &By::platform("webhooks")).await;
                asked.map_err(database)?;
            }
            tx.commit().await?;
            Ok(parking.iter().map(|parking| mine.contains(&parking.job)).collect())
        };
        to_each(parking.len(), park.await)
    }
}

fn to_each<T>(count: usize, answers: Result<Vec<T>, sqlx::Error>) -> Vec<Answer<T>> {
    match answers {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) => {
            let error = Arc::new(error);
            (0..count).map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}
