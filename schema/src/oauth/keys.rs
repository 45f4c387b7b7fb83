//! The signing keys in the table, and when the next one is due.

use chrono::{DateTime, Duration, Utc};

use super::ACCESS;
use crate::seal::SealContext;
use crate::{JobTx as _, OrganizationId, SigningKeyId, TenantTx};

/// How long a key signs.
pub const SIGNS: Duration = Duration::days(30);

/// How long a key is shown before it signs: whoever keeps the set has asked for it again by then.
pub const SHOWN_BEFORE: Duration = Duration::days(1);

/// A key, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id.
    pub id: SigningKeyId,
    /// A point of P-256, uncompressed.
    pub public_key: Vec<u8>,
    /// PKCS #8, sealed for this row.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it begins to sign.
    pub signs_from: DateTime<Utc>,
    /// When nothing it signed is believed any more; `None`: there is no later key.
    pub expires_at: Option<DateTime<Utc>>,
}

impl SigningKey {
    /// The one place where the sealed half opens.
    #[must_use]
    pub fn place(id: SigningKeyId) -> SealContext<'static> {
        SealContext {
            organization: OrganizationId::PLATFORM.uuid(),
            table: "oauth_signing_keys",
            column: "secret",
            row: id.uuid(),
        }
    }
}

/// From when a new key is to sign; `None`: none is due.
#[must_use]
pub fn next(keys: &[SigningKey], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match keys.iter().map(|key| key.signs_from).max() {
        None => Some(now),
        Some(latest) if now >= latest + SIGNS - SHOWN_BEFORE => Some((latest + SIGNS).max(now + SHOWN_BEFORE)),
        Some(_) => None,
    }
}

/// The keys. The transaction is of the platform's own organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<SigningKey>, sqlx::Error> {
    sqlx::query_as!(
        SigningKey,
        r#"select id as "id: SigningKeyId", public_key, secret, created_at, signs_from, expires_at
             from oauth_signing_keys order by signs_from, id"#
    )
    .fetch_all(tx.connection())
    .await
}

/// The keys, which nobody else adds to until the end of the transaction.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx) -> Result<Vec<SigningKey>, sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('oauth_signing_keys', 0))")
        .fetch_one(tx.connection())
        .await?;
    list(tx).await
}

/// Adds a key. Those before it are believed until the last token they sign has expired, and then forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add(tx: &mut TenantTx, key: &SigningKey) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!("delete from oauth_signing_keys where expires_at <= $1", now).execute(tx.connection()).await?;
    sqlx::query!(
        "update oauth_signing_keys set expires_at = $1 where expires_at is null",
        // Clocks differ, and what was signed at the last moment lasts as long as anything.
        key.signs_from + ACCESS * 2
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into oauth_signing_keys (id, organization_id, algorithm, public_key, secret, created_at, signs_from)
         values ($1, $2, 'ES256', $3, $4, $5, $6)",
        key.id.uuid(),
        organization.uuid(),
        key.public_key,
        key.secret,
        key.created_at,
        key.signs_from
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Lets no key be believed from now on: one of them may be known to somebody else. Whatever was signed is worth nothing.
///
/// # Errors
/// When the database refuses or went away.
pub async fn distrust(tx: &mut TenantTx) -> Result<u64, sqlx::Error> {
    sqlx::query!("delete from oauth_signing_keys").execute(tx.connection()).await.map(|done| done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(signs_from: DateTime<Utc>) -> SigningKey {
        SigningKey {
            id: SigningKeyId::from_uuid(uuid::Uuid::nil()),
            public_key: Vec::new(),
            secret: Vec::new(),
            created_at: signs_from,
            signs_from,
            expires_at: None,
        }
    }

    #[test]
    fn the_first_key_signs_at_once_and_the_next_is_shown_a_day_before() {
        let begun: DateTime<Utc> = "2026-01-15T12:00:00Z".parse().unwrap();
        assert_eq!(next(&[], begun), Some(begun));
        let keys = [key(begun)];
        assert_eq!(next(&keys, begun + SIGNS - SHOWN_BEFORE - Duration::seconds(1)), None);
        assert_eq!(next(&keys, begun + SIGNS - SHOWN_BEFORE), Some(begun + SIGNS));
        // Nobody asked for a year: even so it is shown before it signs.
        let late = begun + Duration::days(365);
        assert_eq!(next(&keys, late), Some(late + SHOWN_BEFORE));
        assert_eq!(next(&[key(begun), key(begun + SIGNS)], begun + SIGNS - SHOWN_BEFORE), None);
    }
}
