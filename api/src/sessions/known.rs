//! Sessions that were verified a moment ago, so that a busy person costs one lookup per second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_schema::sessions::{self, Known};
use gantry_schema::{Db, OrganizationId};

use crate::error::Error;

/// How long a verified session is believed without looking: an ended one stops working within this.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Verified sessions that are remembered.
const REMEMBERED: usize = 10_000;

/// How exactly it is noted when a session was used last.
const NOTED: TimeDelta = TimeDelta::minutes(1);

/// By token and wanted organization.
type ByToken = HashMap<([u8; 32], Option<OrganizationId>), Verified>;

/// Sessions that were verified a moment ago.
#[derive(Debug, Default)]
pub(crate) struct KnownSessions(Mutex<ByToken>);

#[derive(Debug, Clone)]
struct Verified {
    known: Arc<Known>,
    at: DateTime<Utc>,
}

impl Verified {
    fn is_believed(&self, now: DateTime<Utc>) -> bool {
        (TimeDelta::zero()..BELIEVED).contains(&(now - self.at)) && self.known.expires_at > now
    }
}

impl KnownSessions {
    /// The session that a token opens.
    pub(crate) async fn verify(
        &self,
        db: &Db,
        hash: [u8; 32],
        wanted: Option<OrganizationId>,
        address: Option<&str>,
    ) -> Result<Option<Arc<Known>>, Error> {
        let (key, now) = ((hash, wanted), db.now());
        if let Some(verified) = self.lock().get(&key).filter(|verified| verified.is_believed(now)) {
            return Ok(Some(Arc::clone(&verified.known)));
        }
        let found = sessions::authenticate(&mut db.credential(hash).await?, wanted).await?;
        let Some(mut known) = found else {
            self.lock().remove(&key);
            return Ok(None);
        };
        if now - known.last_used_at >= NOTED {
            let mut tx = db.person(known.person).await?;
            sessions::touch(&mut tx, known.session, address).await?;
            tx.commit().await?;
            known.last_used_at = now;
        }
        let known = Arc::new(known);
        let mut all = self.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, verified| verified.is_believed(now));
        }
        if all.len() < REMEMBERED {
            all.insert(key, Verified { known: Arc::clone(&known), at: now });
        }
        Ok(Some(known))
    }

    /// Whether the session that a token opens is remembered.
    pub(crate) fn knows(&self, hash: [u8; 32], wanted: Option<OrganizationId>, now: DateTime<Utc>) -> bool {
        self.lock().get(&(hash, wanted)).is_some_and(|verified| verified.is_believed(now))
    }

    /// Looks at every session again.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
