//! An organization and what its people and programs do.

use std::sync::Arc;

use chrono::Duration;
use gantry_jobs::request::enqueue_all;
use gantry_jobs::schedule::{self, NewSchedule};
use gantry_jobs::{By, Job, Request, webhooks};
use gantry_schema::jobs::control::{self, Change, Filter};
use gantry_schema::jobs::{Enqueued, State, pause};
use gantry_schema::memberships::{self, Role};
use gantry_schema::notices::{self, Notice};
use gantry_schema::schedules::Schedule;
use gantry_schema::seal::SealingKeys;
use gantry_schema::webhooks::secrets::{self, Secret};
use gantry_schema::webhooks::signature::{self, Scheme, SignatureError, SigningSecret, VerifyingKey};
use gantry_schema::webhooks::{Attempt, Endpoint, attempts, backlog, endpoints};
use gantry_schema::{
    Db, EndpointId, EventId, JobId, JobTx as _, Order, OrganizationId, PersonId, SecretId, TenantTx, Window,
};
use serde_json::Value;

/// An organization and what its people and programs do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The organization.
    pub id: OrganizationId,
    db: Db,
    sealing_keys: Arc<SealingKeys>,
}

/// An endpoint, and the secret its receiver was given.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// The endpoint.
    pub id: EndpointId,
    /// Where it listens.
    pub url: url::Url,
    secret: SigningSecret,
}

impl Actor {
    pub(crate) const fn new(id: OrganizationId, db: Db, sealing_keys: Arc<SealingKeys>) -> Self {
        Self { id, db, sealing_keys }
    }

    /// As whom it asks.
    #[must_use]
    pub fn by(&self) -> By {
        By::platform("story")
    }

    /// The database as its requests see it.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// A transaction in its scope.
    pub async fn begin(&self) -> TenantTx {
        self.db.tenant(self.id).await.expect("the database answers")
    }

    /// What its people must know, and knew, newest first.
    pub async fn notices(&self) -> Vec<Notice> {
        let mut tx = self.begin().await;
        let found =
            notices::list(&mut tx, None, Window::new(Order::Descending, 100)).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        found
    }

    /// Makes somebody a member.
    pub async fn takes_in(&self, person: PersonId, role: Role) {
        let mut tx = self.begin().await;
        memberships::insert(&mut tx, person, role).await.expect("he can be a member");
        tx.commit().await.expect("the database answers");
    }

    /// Asks for a job.
    pub async fn enqueue<J: Job>(&self, job: J) -> JobId {
        self.ask(job.request()).await.id
    }

    /// Asks for a job with particulars.
    pub async fn ask<J: Job>(&self, request: Request<'_, J>) -> Enqueued {
        let mut tx = self.begin().await;
        let asked = request.enqueue(&mut tx, &self.by()).await.expect("the job can be asked for");
        tx.commit().await.expect("the database answers");
        asked
    }

    /// Asks for many jobs at once.
    pub async fn enqueue_all<J: Job>(&self, jobs: &[J]) -> Vec<JobId> {
        let mut tx = self.begin().await;
        let asked = enqueue_all(&mut tx, jobs, &self.by()).await.expect("the jobs can be asked for");
        tx.commit().await.expect("the database answers");
        asked.into_iter().map(|asked| asked.id).collect()
    }

    /// A job as it is now.
    pub async fn job(&self, id: JobId) -> gantry_schema::jobs::Job {
        self.find_job(id).await.expect("the job exists")
    }

    /// A job as it is now, if the organization has it.
    pub async fn find_job(&self, id: JobId) -> Option<gantry_schema::jobs::Job> {
        let mut tx = self.begin().await;
        let job = control::find(&mut tx, id).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        job
    }

    /// Where a job is in its life.
    pub async fn state(&self, id: JobId) -> State {
        self.job(id).await.state
    }

    /// A page of its jobs, newest first.
    pub async fn jobs(&self, filter: &Filter, after: Option<JobId>, limit: i64) -> Vec<JobId> {
        let newest = Window::new(Order::Descending, limit);
        let window = after.map_or(newest, |after| newest.after(after));
        let mut tx = self.begin().await;
        let page = control::list(&mut tx, filter, window).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        page.into_iter().map(|job| job.id).collect()
    }

    /// Stops a job.
    pub async fn cancel(&self, id: JobId) -> Change {
        let mut tx = self.begin().await;
        let change = control::cancel(&mut tx, id, "story").await.expect("the database answers");
        tx.commit().await.expect("the database answers");
        change
    }

    /// Runs a job again.
    pub async fn retry(&self, id: JobId) -> Change {
        let mut tx = self.begin().await;
        let change = control::retry(&mut tx, id).await.expect("the database answers");
        tx.commit().await.expect("the database answers");
        change
    }

    /// Pauses a queue, a kind or an organization.
    pub async fn pause(&self, subject: pause::Subject, name: &str) {
        let mut tx = self.begin().await;
        pause::pause(&mut tx, subject, name, "story").await.expect("the database answers");
        tx.commit().await.expect("the database answers");
    }

    /// Resumes what was paused.
    pub async fn resume(&self, subject: pause::Subject, name: &str) {
        let mut tx = self.begin().await;
        assert!(pause::resume(&mut tx, subject, name).await.expect("the database answers"), "{name} was not paused");
        tx.commit().await.expect("the database answers");
    }

    /// Makes a schedule.
    pub async fn schedule(&self, new: NewSchedule) -> Schedule {
        let mut tx = self.begin().await;
        let schedule = schedule::create(&mut tx, new).await.expect("the schedule can be made");
        tx.commit().await.expect("the database answers");
        schedule
    }

    /// Registers an endpoint that wants every event.
    pub async fn endpoint(&self, url: &str) -> Receiver {
        self.endpoint_for(url, &[]).await
    }

    /// Registers an endpoint that wants events of these types.
    pub async fn endpoint_for(&self, url: &str, event_types: &[&str]) -> Receiver {
        self.endpoint_with(url, |endpoint| {
            endpoint.event_types = event_types.iter().map(ToString::to_string).collect();
        })
        .await
    }

    /// Registers an endpoint with particulars.
    pub async fn endpoint_with(&self, url: &str, particulars: impl FnOnce(&mut Endpoint)) -> Receiver {
        let mut tx = self.begin().await;
        let (id, now): (EndpointId, _) = (tx.ids().mint(), tx.now());
        let mut endpoint = Endpoint {
            id,
            organization: self.id,
            url: url.to_owned(),
            description: String::new(),
            event_types: Vec::new(),
            channels: Vec::new(),
            metadata: serde_json::json!({}),
            headers: None,
            header_names: Vec::new(),
            rate_per_second: None,
            ordered: false,
            thin: false,
            enabled: true,
            disabled_reason: None,
            disabled_at: None,
            consecutive_failures: 0,
            open_until: None,
            behind_until: None,
            failing_since: None,
            created_at: now,
            updated_at: now,
        };
        particulars(&mut endpoint);
        endpoints::insert(&mut tx, &endpoint).await.expect("the database answers");
        tx.commit().await.expect("the database answers");
        let secret = self.rotate(id, Scheme::V1, Duration::zero()).await;
        Receiver { id, url: url.parse().expect("a URL"), secret }
    }

    /// Gives an endpoint a new secret; the one before signs beside it for a while.
    pub async fn rotate(&self, endpoint: EndpointId, scheme: Scheme, overlap: Duration) -> SigningSecret {
        let mut tx = self.begin().await;
        let id: SecretId = tx.ids().mint();
        // A secret nobody could guess is not needed here; one of its own is.
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(id.uuid().as_bytes());
        let secret = SigningSecret::generate(scheme, &bytes);
        let sealed = self.sealing_keys.seal(&Secret::place(self.id, id), secret.bytes()).expect("the key seals");
        let row = Secret {
            id,
            organization: self.id,
            endpoint,
            scheme: scheme.as_str().to_owned(),
            secret: sealed,
            created_at: tx.now(),
            expires_at: None,
        };
        secrets::replace(&mut tx, &row, overlap).await.expect("the database answers");
        tx.commit().await.expect("the database answers");
        secret
    }

    /// Enables or disables an endpoint.
    pub async fn set_enabled(&self, endpoint: EndpointId, enabled: bool) {
        let change = endpoints::Change { enabled: Some(enabled), ..endpoints::Change::default() };
        self.change(endpoint, &change).await;
    }

    /// Changes an endpoint.
    pub async fn change(&self, endpoint: EndpointId, change: &endpoints::Change) {
        let mut tx = self.begin().await;
        let changed = endpoints::update(&mut tx, endpoint, change).await;
        assert!(changed.expect("the database answers"), "there is no endpoint {endpoint}");
        tx.commit().await.expect("the database answers");
    }

    /// An endpoint as it is now.
    pub async fn endpoint_now(&self, endpoint: EndpointId) -> Endpoint {
        let mut tx = self.begin().await;
        let found = endpoints::find(&mut tx, endpoint).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        found.expect("the endpoint exists")
    }

    /// How many deliveries wait for an endpoint.
    pub async fn backlog(&self, endpoint: EndpointId) -> i64 {
        let mut tx = self.begin().await;
        let count = backlog::count(&mut tx, endpoint).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        count
    }

    /// Posts an event.
    pub async fn event(&self, event_type: &str, payload: Value) -> EventId {
        let mut tx = self.begin().await;
        let emitted = webhooks::emit(&mut tx, event_type, payload, &self.by()).await.expect("the event can be posted");
        tx.commit().await.expect("the database answers");
        emitted.event.id
    }

    /// The attempts to deliver to an endpoint, newest first.
    pub async fn attempts(&self, endpoint: EndpointId) -> Vec<Attempt> {
        let mut tx = self.begin().await;
        let newest = Window::new(Order::Descending, 200);
        let attempts =
            attempts::list(&mut tx, endpoint, attempts::Filter::default(), newest).await.expect("the database answers");
        tx.rollback().await.expect("the database answers");
        attempts
    }
}

impl Receiver {
    /// The same receiver with another secret.
    #[must_use]
    pub fn with(&self, secret: SigningSecret) -> Self {
        Self { secret, ..self.clone() }
    }

    /// Checks a delivery as the receiver does.
    ///
    /// # Errors
    /// When the receiver would not believe it.
    pub fn verify(
        &self,
        request: &gantry_providers::hooks::HookRequest,
        now: chrono::DateTime<chrono::Utc>,
    ) -> Result<(), SignatureError> {
        let header = |name: &str| {
            let found = request.headers.iter().find(|(key, _)| key == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        signature::verify(
            &[VerifyingKey::from(&self.secret)],
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-signature"),
            &request.body,
            now,
            chrono::TimeDelta::minutes(5),
        )
    }
}
