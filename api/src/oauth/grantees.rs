//! What access tokens open. A token says what it was given; whether that still stands is looked up, and believed for a
//! second, so that a busy application costs one lookup per second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_schema::oauth::authorizations::{self, Opened};
use gantry_schema::oauth::jwt::AccessClaims;
use gantry_schema::{Db, OauthAuthorizationId};

use crate::error::Error;

/// How long it is believed without looking: what was taken back stops working within this.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Authorizations that are remembered.
const REMEMBERED: usize = 10_000;

/// Authorizations that were looked up a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Grantees(Mutex<ByAuthorization>);

/// What each opened, and when that was looked up.
type ByAuthorization = HashMap<OauthAuthorizationId, (DateTime<Utc>, Arc<Opened>)>;

impl Grantees {
    /// What an authorization opens at this moment, if anything. The claims are verified.
    pub(crate) async fn open(&self, db: &Db, claims: &AccessClaims) -> Result<Option<Arc<Opened>>, Error> {
        let (id, now) = (claims.authorization, db.now());
        let is_believed = |at: DateTime<Utc>| (TimeDelta::zero()..BELIEVED).contains(&(now - at));
        if let Some((_, opened)) = self.lock().get(&id).filter(|(at, _)| is_believed(*at)) {
            return Ok(Some(Arc::clone(opened)));
        }
        let found = authorizations::open(&mut db.tenant(claims.organization).await?, id).await?.map(Arc::new);
        let mut known = self.lock();
        match &found {
            Some(opened) => {
                if known.len() >= REMEMBERED {
                    known.retain(|_, (at, _)| is_believed(*at));
                }
                if known.len() < REMEMBERED {
                    known.insert(id, (now, Arc::clone(opened)));
                }
            }
            None => drop(known.remove(&id)),
        }
        Ok(found)
    }

    /// Looks at every authorization again.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByAuthorization> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
