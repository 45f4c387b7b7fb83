//! What every operation works with. Concrete, and cheap to clone.

use std::fmt;
use std::sync::Arc;

use gantry_jobs::gather::Gather;
use gantry_jobs::process::Receivers;
use gantry_jobs::signals::{self, Signals};
use gantry_schema::licenses::{PublicKey, Trust};
use gantry_schema::people::hashing::Hasher;
use gantry_schema::seal::SealingKeys;
use gantry_schema::{Db, JobId, OrganizationId};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::watch;
use tracing::debug;
use url::Url;

use crate::accounts::SignUp;
use crate::audit::refusals::Refusals;
use crate::caller::Keys;
use crate::client::{Hosts, Proxies};
use crate::cors::Origins;
use crate::defence::Places;
use crate::events::Feeds;
use crate::inspector::Rates;
use crate::jobs::feed::JobFeeds;
use crate::jobs::together::{Asks, Looks};
use crate::load::{Limits, Load};
use crate::oauth::{Grantees, Signing};
use crate::people::Passwords;
use crate::rate::Limiter;
use crate::scope::KnownHosts;
use crate::sessions::known::KnownSessions;
use crate::standing::Standings;
use crate::usage::Usage;

/// What the surface allows, beside the operations.
#[derive(Debug, Clone, Default)]
pub struct Surface {
    /// How much is done at the same time.
    pub limits: Limits,
    /// Whose pages may call from a browser.
    pub origins: Origins,
    /// For how long browsers are told to use TLS only; `None`: they are not told.
    pub tls_only_seconds: Option<u64>,
    /// The proxies that say for whom they ask.
    pub proxies: Proxies,
    /// The names under which the API may be asked.
    pub hosts: Hosts,
}

/// What every operation works with.
#[derive(Clone)]
pub struct App {
    /// The ledger, one organization at a time.
    pub db: Db,
    /// Whoever waits for a job is told here.
    pub signals: Signals,
    /// Seals what must not lie open.
    pub sealing: Arc<SealingKeys>,
    /// Receivers of webhooks may be `http://`, and lie inside the network.
    private_receivers: bool,
    /// Those that may in any case.
    receivers: Arc<Receivers>,
    pub(crate) redis: ConnectionManager,
    pub(crate) keys: Arc<Keys>,
    pub(crate) sessions: Arc<KnownSessions>,
    pub(crate) grantees: Arc<Grantees>,
    pub(crate) signing: Arc<Signing>,
    pub(crate) passwords: Passwords,
    pub(crate) asks: Gather<Asks>,
    pub(crate) looks: Gather<Looks>,
    pub(crate) job_feeds: JobFeeds,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) surface: Arc<Surface>,
    pub(crate) load: Arc<Load>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) limiter: Limiter,
    pub(crate) standings: Arc<Standings>,
    /// Whose licenses are believed.
    pub(crate) trust: Arc<Trust>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) places: Places,
    pub(crate) known_hosts: Arc<KnownHosts>,
    public_url: Arc<str>,
    base_domain: Option<Arc<str>>,
    sign_up: SignUp,
    namespace: Arc<str>,
    stopping: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl App {
    /// Puts the parts together. `redis` is from [`connect`].
    #[must_use]
    pub fn new(
        db: Db,
        redis: ConnectionManager,
        namespace: &str,
        signals: Signals,
        sealing: SealingKeys,
        private_receivers: bool,
    ) -> Self {
        let sealing = Arc::new(sealing);
        let db = db.recording(Arc::clone(&sealing));
        let trust = Arc::new(Trust { keys: Arc::clone(&sealing), pinned: Vec::new() });
        Self {
            asks: Gather::new(Asks(db.clone())),
            looks: Gather::new(Looks(db.clone())),
            job_feeds: JobFeeds::default(),
            db,
            signals,
            sealing,
            refusals: Arc::default(),
            usage: Arc::default(),
            places: Places::default(),
            private_receivers,
            receivers: Arc::default(),
            limiter: Limiter::new(redis.clone(), namespace),
            standings: Arc::new(Standings::new(Arc::clone(&trust))),
            trust,
            known_hosts: Arc::default(),
            redis,
            keys: Arc::default(),
            sessions: Arc::default(),
            grantees: Arc::default(),
            signing: Arc::default(),
            passwords: Passwords::default(),
            feeds: Arc::default(),
            surface: Arc::default(),
            load: Arc::new(Load::within(Limits::default())),
            rates: Arc::default(),
            public_url: "http://127.0.0.1:8080".into(),
            base_domain: None,
            sign_up: SignUp::default(),
            namespace: namespace.into(),
            stopping: Arc::new(watch::Sender::new(false)),
        }
    }

    /// With a file that says where addresses are.
    #[must_use]
    pub fn locating(mut self, places: Places) -> Self {
        self.places = places;
        self
    }

    /// With licenses believed that were signed with these keys, besides the platform's own.
    #[must_use]
    pub fn believing(mut self, pinned: Vec<PublicKey>) -> Self {
        self.trust = Arc::new(Trust { keys: Arc::clone(&self.sealing), pinned });
        self.standings = Arc::new(Standings::new(Arc::clone(&self.trust)));
        self
    }

    /// With another surface than the default.
    #[must_use]
    pub fn with(mut self, surface: Surface) -> Self {
        self.load = Arc::new(Load::within(surface.limits));
        self.surface = Arc::new(surface);
        self
    }

    /// With another way to keep passwords than the default.
    #[must_use]
    pub fn hashing(mut self, hasher: Hasher) -> Self {
        self.passwords = Passwords::kept_by(hasher);
        self
    }

    /// With receivers of webhooks that may be `http://` and lie inside the network, whatever others may.
    #[must_use]
    pub fn letting_through(mut self, receivers: Receivers) -> Self {
        self.receivers = Arc::new(receivers);
        self
    }

    /// Whether webhooks may go to a URL without TLS.
    pub(crate) fn may_be_plain(&self, url: &Url) -> bool {
        self.private_receivers || url.host().is_some_and(|host| self.receivers.lists(&host))
    }

    /// With the URL under which the world reaches this API, without a slash at its end.
    #[must_use]
    pub fn at(mut self, public_url: &str) -> Self {
        self.public_url = public_url.trim_end_matches('/').into();
        self
    }

    /// The URL under which the world reaches this API, without a slash at its end.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// With host names for organizations: one label before this domain.
    #[must_use]
    pub fn under(mut self, base_domain: Option<&str>) -> Self {
        self.base_domain = base_domain.map(|domain| domain.trim_matches('.').to_ascii_lowercase().into());
        self
    }

    /// The domain below which organizations have host names; `None`: they have none.
    #[must_use]
    pub fn base_domain(&self) -> Option<&str> {
        self.base_domain.as_deref()
    }

    /// With accounts for these.
    #[must_use]
    pub const fn letting_in(mut self, sign_up: SignUp) -> Self {
        self.sign_up = sign_up;
        self
    }

    /// Who may make an account.
    #[must_use]
    pub const fn sign_up(&self) -> SignUp {
        self.sign_up
    }

    /// Who may do what has changed: nothing is believed from memory any more.
    pub(crate) fn access_changed(&self) {
        self.heard_of_access(None);
        self.standings.forget(None);
        self.known_hosts.forget();
    }

    /// The keys and members of an organization, or of any, may do something else than before.
    pub(crate) fn heard_of_access(&self, organization: Option<OrganizationId>) {
        self.keys.forget(organization);
        self.sessions.forget();
    }

    /// Tells requests that only wait to come to an end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// No new work is taken.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when no new work is taken.
    pub async fn stopping(&self) {
        // The sender lives as long as the app.
        let mut stopping = self.stopping.subscribe();
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// Tells whoever follows the organization's events that there are new ones. Losing it is harmless: followers look by
    /// themselves.
    pub(crate) fn tell_events(&self, organization: OrganizationId) {
        self.signals.wake_events(organization);
        let mut redis = self.redis.clone();
        let channel = signals::events_channel(&self.namespace);
        tokio::spawn(async move {
            let told = signals::publish_events(&mut redis, &channel, organization);
            drop(tokio::time::timeout(std::time::Duration::from_millis(200), told).await);
        });
    }

    /// Tells whoever waits for these jobs that they ended. Losing it is harmless: waiters look by themselves.
    pub(crate) async fn tell_ended(&self, jobs: &[JobId]) {
        let mut redis = self.redis.clone();
        let channel = signals::ended_channel(&self.namespace);
        let told = signals::publish(&mut redis, &channel, jobs);
        match tokio::time::timeout(std::time::Duration::from_millis(200), told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("Waiters were not told, they will look: {error}"),
            Err(_) => debug!("Waiters were not told in time, they will look"),
        }
    }
}

/// A connection to Redis that is opened when it is first needed, and again when it was lost: jobs are accepted
/// while Redis is away.
///
/// # Errors
/// When the URL is none.
pub fn connect(url: &str) -> redis::RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(std::time::Duration::from_secs(2)))
        .set_connection_timeout(Some(std::time::Duration::from_secs(2)))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)
}
