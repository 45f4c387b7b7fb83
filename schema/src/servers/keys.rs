//! With what the platform gets into an organization's servers: an Ed25519 key for each organization, made when it is first
//! needed.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _};

use crate::seal::{SealContext, SealError, SealingKeys, SecretBytes};
use crate::{JobTx as _, OrganizationId, SshKeyId, TenantTx};

/// A key cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    /// There is no randomness, or no key in it.
    #[error("an SSH key could not be made")]
    Generate,
    /// It does not open, or could not be sealed.
    #[error("a sealed SSH key")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("the table of SSH keys")]
    Database(#[from] sqlx::Error),
}

/// A key, opened.
#[derive(Debug)]
pub struct SshKey {
    /// As `authorized_keys` has it, without a comment.
    pub public: String,
    /// The 32 bytes it is made of.
    pub seed: SecretBytes,
}

/// The one place where a key opens.
#[must_use]
pub fn place(organization: OrganizationId, id: SshKeyId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "ssh_keys", column: "secret", row: id.uuid() }
}

/// The public half of the key that these 32 bytes make, as OpenSSH writes it (RFC 8709).
#[must_use]
pub fn public_key(seed: &[u8]) -> Option<String> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let mut blob = Vec::with_capacity(51);
    for part in [b"ssh-ed25519".as_slice(), pair.public_key().as_ref()] {
        blob.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
        blob.extend_from_slice(part);
    }
    Some(format!("ssh-ed25519 {}", STANDARD.encode(blob)))
}

/// The key of the transaction's organization; one is made where there is none.
///
/// # Errors
/// When none can be made, or the database refuses.
pub async fn ensure(tx: &mut TenantTx, keys: &SealingKeys) -> Result<SshKeyId, SshKeyError> {
    let organization = tx.organization();
    if let Some(id) = of_organization(tx).await? {
        return Ok(id);
    }
    let (id, now) = (tx.ids().mint::<SshKeyId>(), tx.now());
    let mut seed = SecretBytes::from(vec![0; 32]);
    aws_lc_rs::rand::fill(seed.expose_secret_mut()).map_err(|_| SshKeyError::Generate)?;
    let public = public_key(seed.expose_secret()).ok_or(SshKeyError::Generate)?;
    let secret = keys.seal(&place(organization, id), seed.expose_secret())?;
    // Two may need the first one at once: both take the one that was there first.
    sqlx::query!(
        "insert into ssh_keys (id, organization_id, public_key, secret, created_at) values ($1, $2, $3, $4, $5)
             on conflict (organization_id) do nothing",
        id.uuid(),
        organization.uuid(),
        public,
        secret,
        now
    )
    .execute(tx.connection())
    .await?;
    of_organization(tx).await?.ok_or(SshKeyError::Database(sqlx::Error::RowNotFound))
}

async fn of_organization(tx: &mut TenantTx) -> Result<Option<SshKeyId>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(r#"select id as "id: SshKeyId" from ssh_keys where organization_id = $1"#, organization.uuid())
        .fetch_optional(tx.connection())
        .await
}

/// A key of the transaction's organization, opened.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn open(tx: &mut TenantTx, keys: &SealingKeys, id: SshKeyId) -> Result<Option<SshKey>, SshKeyError> {
    let organization = tx.organization();
    let row = sqlx::query!(
        "select public_key, secret from ssh_keys where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(SshKey { public: row.public_key, seed: keys.open(&place(organization, id), &row.secret)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_written_as_openssh_writes_it() {
        // The first key of RFC 8032, section 7.1, made a line of by ssh-keygen.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
        assert_eq!(public_key(&seed).as_deref(), Some(line));
        assert_eq!(public_key(&seed[..31]), None);
    }
}
