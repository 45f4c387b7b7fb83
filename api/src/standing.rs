//! What an organization may do at the moment, whoever asks for it: kept in this process, and looked up again when the
//! database says that it is different, or after a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_schema::access::{self, Hold};
use gantry_schema::defence::{Effective, lockdowns, policies};
use gantry_schema::licenses::{self, Licensed, Trust};
use gantry_schema::limits::{self, Allowance, Rule};
use gantry_schema::organizations::{Permissions, lifecycle};
use gantry_schema::usage::{self, MonthUse};
use gantry_schema::{Db, OrganizationId};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::error::Error;
use crate::licenses::needs;

/// How long something is believed while the database tells of changes.
const BELIEVED: Duration = Duration::from_secs(10);

/// How long while it does not, so that a change is seen by every process within this.
const BELIEVED_DEAF: Duration = Duration::from_secs(1);

/// Organizations that are remembered.
const REMEMBERED: usize = 20_000;

/// How long to wait before the database is listened to again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What an organization may do at the moment.
#[derive(Debug)]
pub(crate) struct Standing {
    /// How much it may ask for.
    pub allowance: Allowance,
    /// Why nothing is done in it.
    pub hold: Option<Held>,
    /// What it has used of the month.
    pub used: MonthUse,
    /// From where it may be asked.
    pub defence: Effective,
    /// What sessions began before counts no more.
    pub sessions_from: Option<DateTime<Utc>>,
    /// The license that counts for it; `None`: everything may be used.
    pub license: Option<Licensed>,
    /// How many there are of what it limits.
    pub licensed_use: BTreeMap<String, u64>,
}

/// Why nothing is done in an organization.
#[derive(Debug)]
pub(crate) struct Held {
    pub hold: Hold,
    /// What was said of it.
    pub told: Option<Arc<str>>,
}

impl Standing {
    async fn read(db: &Db, trust: &Trust, organization: OrganizationId) -> Result<Self, Error> {
        let mut tx = db.tenant(organization).await?;
        let hold = lifecycle::held(&mut tx).await?.map(|(hold, told)| Held { hold, told: told.map(Arc::from) });
        let (allowance, used) = (limits::allowance(&mut tx).await?, usage::month(&mut tx).await?);
        let (defence, lockdown) = (policies::effective(&mut tx).await?, lockdowns::state(&mut tx).await?);
        // What was said of a lockdown is for those who may look it up.
        let hold = hold.or_else(|| lockdown.locked.then_some(Held { hold: Hold::LockedDown, told: None }));
        let line = licenses::queries::line(&mut tx).await?;
        let licensed_use = match line.as_slice() {
            [] => BTreeMap::new(),
            _ => licenses::queries::usage(&mut tx, organization).await?,
        };
        // Nobody waits for a connection while he has one.
        drop(tx);
        let license = if line.is_empty() { None } else { Licensed::of_line(line, &trust.anchors(db).await?) };
        Ok(Self { allowance, hold, used, defence, sessions_from: lockdown.sessions_from, license, licensed_use })
    }

    /// What the license allows, asked for by this host name; nothing, where it does not have what the operation needs besides
    /// the permission.
    pub(crate) fn licensed(&self, now: DateTime<Utc>, host: Option<&str>, operation: Option<&str>) -> Permissions {
        let Some(license) = &self.license else { return Permissions::all() };
        match operation.and_then(needs) {
            Some((feature, least)) if license.access(feature, now, host) < least => Permissions::default(),
            _ => license.allows(now, host),
        }
    }
}

/// What is known of organizations.
#[derive(Debug)]
pub(crate) struct Standings {
    /// Whose licenses are believed.
    trust: Arc<Trust>,
    known: Mutex<Known>,
    /// The database tells of changes.
    hears: AtomicBool,
    /// How often something was forgotten: what was read before may be old.
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    organizations: HashMap<OrganizationId, Kept<Standing>>,
    rules: Option<Kept<Vec<Rule>>>,
}

/// Something that was read a while ago.
#[derive(Debug)]
struct Kept<T> {
    what: Arc<T>,
    read_at: Instant,
    /// Somebody reads it again.
    renewing: bool,
}

impl<T> Kept<T> {
    fn new(what: &Arc<T>) -> Self {
        Self { what: Arc::clone(what), read_at: Instant::now(), renewing: false }
    }

    /// What it is, if that can be believed, and whether it is time to read it again.
    fn believed(&mut self, within: Duration) -> Option<(Arc<T>, bool)> {
        let age = self.read_at.elapsed();
        let renew = age > within / 2 && !std::mem::replace(&mut self.renewing, age > within / 2);
        (age < within).then(|| (Arc::clone(&self.what), renew))
    }
}

impl Standings {
    /// Nothing is known yet.
    pub(crate) fn new(trust: Arc<Trust>) -> Self {
        Self { trust, known: Mutex::default(), hears: AtomicBool::default(), epoch: AtomicU64::default() }
    }

    /// What an organization may do.
    pub(crate) async fn of(self: &Arc<Self>, db: &Db, organization: OrganizationId) -> Result<Arc<Standing>, Error> {
        let within = self.within();
        let kept = self.known().organizations.get_mut(&organization).and_then(|kept| kept.believed(within));
        match kept {
            Some((standing, false)) => Ok(standing),
            Some((standing, true)) => {
                // A busy organization's requests do not wait for what they have.
                let (standings, db) = (Arc::clone(self), db.clone());
                tokio::spawn(async move {
                    if let Err(error) = standings.read(&db, organization).await {
                        debug!("What an organization may do could not be read again: {error}");
                    }
                });
                Ok(standing)
            }
            // Rare, and larger than all the rest of a request.
            None => Box::pin(self.read(db, organization)).await,
        }
    }

    async fn read(&self, db: &Db, organization: OrganizationId) -> Result<Arc<Standing>, Error> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let standing = Arc::new(Standing::read(db, &self.trust, organization).await?);
        let within = self.within();
        let mut known = self.known();
        if known.organizations.len() >= REMEMBERED {
            known.organizations.retain(|_, kept| kept.read_at.elapsed() < within);
        }
        if known.organizations.len() < REMEMBERED && self.epoch.load(Ordering::Acquire) == epoch {
            known.organizations.insert(organization, Kept::new(&standing));
        }
        Ok(standing)
    }

    /// How often may be asked who does not say who he is.
    pub(crate) async fn rules(&self, db: &Db) -> Result<Arc<Vec<Rule>>, Error> {
        let within = self.within();
        if let Some((rules, false)) = self.known().rules.as_mut().and_then(|kept| kept.believed(within)) {
            return Ok(rules);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let read = Box::pin(async { limits::rules(&mut db.tenant(OrganizationId::PLATFORM).await?).await });
        let rules = Arc::new(read.await?);
        let mut known = self.known();
        if self.epoch.load(Ordering::Acquire) == epoch {
            known.rules = Some(Kept::new(&rules));
        }
        Ok(rules)
    }

    /// Looks at an organization again, or at all.
    pub(crate) fn forget(&self, organization: Option<OrganizationId>) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let mut known = self.known();
        match organization {
            Some(organization) => drop(known.organizations.remove(&organization)),
            None => *known = Known::default(),
        }
    }

    fn within(&self) -> Duration {
        if self.hears.load(Ordering::Relaxed) { BELIEVED } else { BELIEVED_DEAF }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Listens to what the database says of organizations that may do something else than before; connects again when
    /// the connection is lost. Without it, changes are seen within a second.
    pub async fn listen(&self) {
        let mut lost = false;
        loop {
            let Err(error) = self.hear(&mut lost).await;
            self.standings.hears.store(false, Ordering::Relaxed);
            self.access_changed();
            if !std::mem::replace(&mut lost, true) {
                warn!("Changes of limits cannot be heard, they are seen within a second meanwhile: {error}");
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Resolves when the database is listened to.
    pub async fn hears(&self) {
        while !self.standings.hears.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn hear(&self, lost: &mut bool) -> Result<std::convert::Infallible, sqlx::Error> {
        // A connection of its own: it is kept for good.
        let options = (*self.db.pool().connect_options()).clone();
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen_all([limits::CHANNEL, access::CHANNEL]).await?;
        // What was said while nobody listened.
        self.access_changed();
        self.standings.hears.store(true, Ordering::Relaxed);
        if std::mem::take(lost) {
            info!("Changes of limits are heard again");
        }
        loop {
            let Some(message) = listener.try_recv().await? else {
                return Err(sqlx::Error::WorkerCrashed);
            };
            let organization = message.payload().parse().ok().map(OrganizationId::from_uuid);
            if message.channel() == access::CHANNEL {
                self.heard_of_access(organization);
            } else {
                self.standings.forget(organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_renewed_by_one_and_believed_for_a_while() {
        let mut kept = Kept::new(&Arc::new(7));
        let second = Duration::from_secs(1);
        let mut believed = || kept.believed(second).map(|(what, renew)| (*what, renew));
        assert_eq!(believed(), Some((7, false)));
        tokio::time::advance(second * 3 / 4).await;
        assert_eq!((believed(), believed()), (Some((7, true)), Some((7, false))), "one reads it again");
        tokio::time::advance(second / 4).await;
        assert_eq!(believed(), None);
    }
}
