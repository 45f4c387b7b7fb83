//! The signing keys of the installation, as this process knows them, and making the next one when it is due.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_schema::oauth::jwt::{self, Key, Keys};
use gantry_schema::oauth::keys::{self as rows, SigningKey};
use gantry_schema::{JobTx as _, OrganizationId, SigningKeyId};
use secrecy::ExposeSecret as _;

use crate::app::App;
use crate::error::{Code, Error};

/// How long the keys are believed to be the same. A new one is shown for a day before it signs, and a key that is not to be
/// believed any more is forgotten everywhere within this.
const BELIEVED: TimeDelta = TimeDelta::seconds(10);

/// The keys, and when they were read.
#[derive(Debug, Default)]
pub(crate) struct Signing(Mutex<Option<(DateTime<Utc>, Arc<Keys>)>>);

impl Signing {
    /// The keys that sign and are believed.
    pub(crate) async fn keys(&self, app: &App) -> Result<Arc<Keys>, Error> {
        let now = app.db.now();
        let read = self.lock().clone();
        if let Some((_, keys)) = read.filter(|(at, _)| (TimeDelta::zero()..BELIEVED).contains(&(now - *at))) {
            return Ok(keys);
        }
        let mut stored = rows::list(&mut app.db.tenant(OrganizationId::PLATFORM).await?).await?;
        if rows::next(&stored, now).is_some() {
            stored = add_next(app).await?;
        }
        let keys = Arc::new(Keys::new(stored.iter().map(|key| open(app, key)).collect::<Result<_, _>>()?));
        *self.lock() = Some((now, Arc::clone(&keys)));
        Ok(keys)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(DateTime<Utc>, Arc<Keys>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the key that is due, unless another process did.
async fn add_next(app: &App) -> Result<Vec<SigningKey>, Error> {
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
    let before = rows::lock(&mut tx).await?;
    let Some(signs_from) = rows::next(&before, app.db.now()) else { return Ok(before) };
    let id: SigningKeyId = tx.ids().mint();
    let (secret, public_key) = jwt::generate().map_err(unusable)?;
    let secret = app.sealing.seal(&SigningKey::place(id), &secret)?;
    let key = SigningKey { id, public_key, secret, created_at: tx.now(), signs_from, expires_at: None };
    rows::add(&mut tx, &key).await?;
    tx.record("oauth_signing_key.add").on(&id).set("signs_from", signs_from);
    let after = rows::list(&mut tx).await?;
    tx.commit().await?;
    Ok(after)
}

fn open(app: &App, row: &SigningKey) -> Result<Key, Error> {
    let secret = app.sealing.open(&SigningKey::place(row.id), &row.secret)?;
    Key::new(row.id, row.signs_from, row.expires_at, secret.expose_secret(), &row.public_key).map_err(unusable)
}

pub(super) fn unusable(error: jwt::UnusableKey) -> Error {
    Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again").because(error)
}
