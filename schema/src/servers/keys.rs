//! With what the platform gets into an organization's servers: Ed25519 keys, made here or brought along. One of them is the
//! default, which is made when a key is first needed.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _};

use crate::seal::{SealContext, SealError, SealingKeys, SecretBytes};
use crate::window::in_order;
use crate::{JobTx as _, OrganizationId, SshKeyId, TenantTx, Window};

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

/// The default key of the transaction's organization; one is made where there is none.
///
/// # Errors
/// When none can be made, or the database refuses.
pub async fn ensure(tx: &mut TenantTx, keys: &SealingKeys) -> Result<SshKeyId, SshKeyError> {
    if let Some(id) = default(tx).await? {
        return Ok(id);
    }
    // Two may need the first one at once: both take the one that was there first.
    hold(tx).await?;
    match default(tx).await? {
        Some(id) => Ok(id),
        None => insert(tx, keys, "Default", None).await,
    }
}

/// Others that add keys to the transaction's organization, or choose among them, wait until the transaction ends.
async fn hold(tx: &mut TenantTx) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("select id from organizations where id = $1 for no key update", organization.uuid())
        .fetch_optional(tx.connection())
        .await
        .map(drop)
}

async fn default(tx: &mut TenantTx) -> Result<Option<SshKeyId>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select id as "id: SshKeyId" from ssh_keys where organization_id = $1 and is_default"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Adds a key to the transaction's organization: the one that these 32 bytes make, or a new one. The first one is the default.
/// A name that is taken violates `ssh_keys_name_key`.
///
/// # Errors
/// When it cannot be made or sealed, or the database refuses.
pub async fn insert(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    name: &str,
    seed: Option<&SecretBytes>,
) -> Result<SshKeyId, SshKeyError> {
    let (id, organization, now) = (tx.ids().mint::<SshKeyId>(), tx.organization(), tx.now());
    let mut made = SecretBytes::from(vec![0; 32]);
    if seed.is_none() {
        aws_lc_rs::rand::fill(made.expose_secret_mut()).map_err(|_| SshKeyError::Generate)?;
    }
    let seed = seed.unwrap_or(&made).expose_secret();
    let public = public_key(seed).ok_or(SshKeyError::Generate)?;
    let secret = keys.seal(&place(organization, id), seed)?;
    hold(tx).await?;
    sqlx::query!(
        "insert into ssh_keys (id, organization_id, name, public_key, secret, is_default, created_at)
         values ($1, $2, $3, $4, $5,
                 not exists (select from ssh_keys where organization_id = $2 and is_default), $6)",
        id.uuid(),
        organization.uuid(),
        name,
        public,
        secret,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// Keys an organization may have.
pub const MOST: i64 = 50;

/// What may be known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: SshKeyId,
    /// What people call it.
    pub name: String,
    /// As `authorized_keys` has it, without a comment.
    pub public_key: String,
    /// It gets into servers for which no other is chosen.
    pub is_default: bool,
    /// Servers it gets into.
    pub servers: i64,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// How many keys the transaction's organization has.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(r#"select count(*) as "count!" from ssh_keys where organization_id = $1"#, organization.uuid())
        .fetch_one(tx.connection())
        .await
}

/// What may be known of a key of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: SshKeyId) -> Result<Option<Known>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Known,
        r#"select k.id as "id: SshKeyId", k.name, k.public_key, k.is_default,
                  (select count(*) from stacks s where s.ssh_key_id = k.id) as "servers!", k.created_at
             from ssh_keys k where k.organization_id = $1 and k.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// A page of the keys of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Known>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Known,
                r#"select k.id as "id: SshKeyId", k.name, k.public_key, k.is_default,
                          (select count(*) from stacks s where s.ssh_key_id = k.id) as "servers!", k.created_at
                     from ssh_keys k
                    where k.organization_id = $1 and k.id > $2 and k.id < $3
                    order by k.id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}

/// A key of the transaction's organization gets into servers for which no other is chosen, from now on; `false`: there is
/// none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_default(tx: &mut TenantTx, id: SshKeyId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    hold(tx).await?;
    // One statement after the other: no two of them are it at any time.
    sqlx::query!(
        "update ssh_keys set is_default = false
          where organization_id = $1 and id <> $2 and is_default
            and exists (select from ssh_keys k where k.organization_id = $1 and k.id = $2)",
        organization.uuid(),
        id.uuid()
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "update ssh_keys set is_default = true where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes a key of the transaction's organization; `false`: there is none, or it is the default and there are others. One
/// that gets into servers violates `stacks_ssh_key_fkey`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, id: SshKeyId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    hold(tx).await?;
    sqlx::query!(
        "delete from ssh_keys k
          where organization_id = $1 and id = $2
            and not (is_default and exists (select from ssh_keys o where o.organization_id = $1 and o.id <> $2))",
        organization.uuid(),
        id.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
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
