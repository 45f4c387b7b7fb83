//! What checkpoints are signed with: an Ed25519 key of the installation, sealed in the database. A public key is believed
//! because its secret opens, which nobody who only owns the database can bring about.

use std::collections::HashMap;

use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

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
    let newest = sqlx::query!(
        r#"select id as "id: AuditKeyId", secret from audit_keys order by created_at desc, id desc limit 1"#
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(row) = newest {
        let seed = keys.open(&place(row.id), &row.secret)?;
        return Ok(SigningKey { id: row.id, pair: pair(seed.expose_secret())? });
    }
    let mut seed = Zeroizing::new([0; 32]);
    rand::fill(seed.as_mut_slice()).map_err(|_| SealError::Seal)?;
    let key = SigningKey { id: tx.ids().mint(), pair: pair(seed.as_slice())? };
    let (secret, now) = (keys.seal(&place(key.id), seed.as_slice())?, tx.now());
    sqlx::query!(
        "insert into audit_keys (id, public_key, secret, created_at) values ($1, $2, $3, $4)",
        key.id.uuid(),
        key.public(),
        secret,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(key)
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
