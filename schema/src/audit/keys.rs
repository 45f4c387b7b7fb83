//! What checkpoints are signed with: an Ed25519 key of the installation, sealed in the database. A public key is believed
//! because its secret opens, which nobody who only owns the database can bring about.

use std::collections::HashMap;

use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use crate::licenses::SecretKey;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{AuditKeyId, AuditorTx, JobTx as _, OrganizationId, TenantTx};

/// A key that signs.
#[derive(Debug)]
pub(super) struct SigningKey {
    pub(super) id: AuditKeyId,
    pair: Ed25519KeyPair,
}

/// Public keys by their id.
pub type PublicKeys = HashMap<AuditKeyId, Vec<u8>>;

/// A signing key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It does not open, or could not be made.
    #[error("the key that signs checkpoints")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("looking for the key that signs checkpoints")]
    Database(#[from] sqlx::Error),
}

/// The one place where a secret opens.
#[must_use]
pub fn place(id: AuditKeyId) -> SealContext<'static> {
    SealContext { organization: OrganizationId::PLATFORM.uuid(), table: "audit_keys", column: "secret", row: id.uuid() }
}

impl SigningKey {
    pub(super) fn public(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    pub(super) fn sign(&self, statement: &[u8]) -> Vec<u8> {
        self.pair.sign(statement).as_ref().to_vec()
    }
}

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair, SealError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SealError::Malformed)
}

/// The key that signs now, made if there is none. The caller holds the lock of whoever seals.
pub(super) async fn current(tx: &mut AuditorTx, keys: &SealingKeys) -> Result<SigningKey, KeyError> {
    if let Some((id, seed)) = newest(tx.connection(), keys).await? {
        return Ok(SigningKey { id, pair: pair(seed.as_slice())? });
    }
    let (id, now) = (tx.ids().mint(), tx.now());
    let seed = made(tx.connection(), keys, id, now).await?;
    Ok(SigningKey { id, pair: pair(seed.as_slice())? })
}

/// The same key, for what else the installation vouches for. The transaction is the platform's.
///
/// # Errors
/// When it does not open, or the database refuses or went away.
pub async fn signing(tx: &mut TenantTx, keys: &SealingKeys) -> Result<SecretKey, KeyError> {
    crate::turn::take(tx, "audit key").await?;
    if let Some((_, seed)) = newest(tx.connection(), keys).await? {
        return Ok(SecretKey::from_seed(&seed));
    }
    let (id, now) = (tx.ids().mint(), tx.now());
    Ok(SecretKey::from_seed(&*made(tx.connection(), keys, id, now).await?))
}

/// What a key is made of.
type Seed = Zeroizing<[u8; 32]>;

async fn newest(connection: &mut PgConnection, keys: &SealingKeys) -> Result<Option<(AuditKeyId, Seed)>, KeyError> {
    let newest = sqlx::query!(
        r#"select id as "id: AuditKeyId", secret from audit_keys order by created_at desc, id desc limit 1"#
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = newest else { return Ok(None) };
    let seed = keys.open(&place(row.id), &row.secret)?;
    let seed: [u8; 32] = seed.expose_secret().try_into().map_err(|_| SealError::Malformed)?;
    Ok(Some((row.id, Zeroizing::new(seed))))
}

async fn made(
    connection: &mut PgConnection,
    keys: &SealingKeys,
    id: AuditKeyId,
    now: DateTime<Utc>,
) -> Result<Seed, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(seed.as_mut_slice()).map_err(|_| SealError::Seal)?;
    let public_key = pair(seed.as_slice())?.public_key().as_ref().to_vec();
    let secret = keys.seal(&place(id), seed.as_slice())?;
    sqlx::query!(
        "insert into audit_keys (id, public_key, secret, created_at) values ($1, $2, $3, $4)",
        id.uuid(),
        public_key,
        secret,
        now
    )
    .execute(connection)
    .await?;
    Ok(seed)
}

/// The public keys of which the secrets open. The transaction is the platform's.
///
/// # Errors
/// When the database refuses or went away.
pub async fn believed(tx: &mut TenantTx, keys: &SealingKeys) -> Result<PublicKeys, sqlx::Error> {
    let rows =
        sqlx::query!(r#"select id as "id: AuditKeyId", secret from audit_keys"#).fetch_all(tx.connection()).await?;
    let public = rows.into_iter().filter_map(|row| {
        let seed = keys.open(&place(row.id), &row.secret).ok()?;
        Some((row.id, pair(seed.expose_secret()).ok()?.public_key().as_ref().to_vec()))
    });
    Ok(public.collect())
}
