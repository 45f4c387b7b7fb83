//! Devices without a browser, which wait until somebody has decided elsewhere (RFC 8628).

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Duration, Utc};
use rand::RngExt as _;

use super::scope::Scopes;
use crate::digest::sha256_alone;
use crate::token::DeviceToken;
use crate::{CredentialTx, JobTx as _, OauthAuthorizationId, OauthClientId, OauthDeviceId, OrganizationId, TenantTx};

/// How long a device waits.
pub const LASTS: Duration = Duration::minutes(10);

/// How many seconds it waits between two questions, at least.
pub const INTERVAL: i32 = 5;

/// What a person types: eight letters, none of which is a vowel or looks like another, in two groups.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCode([u8; 8]);

const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The text is no user code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code has eight letters, as BCDF-GHJK")]
pub struct InvalidUserCode;

impl UserCode {
    /// A new code, of a source of randomness that must be a cryptographic one.
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        Self(std::array::from_fn(|_| LETTERS[random.random_range(0..LETTERS.len())]))
    }

    /// What is stored.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256_alone(self.to_string().as_bytes())
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String = self.0.iter().copied().map(char::from).collect();
        let (first, second) = letters.split_at(4);
        write!(f, "{first}-{second}")
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode([REDACTED])")
    }
}

impl FromStr for UserCode {
    type Err = InvalidUserCode;

    /// As people type it: small letters, blanks and hyphens make no difference.
    fn from_str(text: &str) -> Result<Self, InvalidUserCode> {
        if text.len() > 100 {
            return Err(InvalidUserCode);
        }
        let letters = text.bytes().filter(|byte| !matches!(byte, b' ' | b'-')).map(|byte| byte.to_ascii_uppercase());
        let letters: Vec<u8> = letters.collect();
        match <[u8; 8]>::try_from(letters) {
            Ok(letters) if letters.iter().all(|letter| LETTERS.contains(letter)) => Ok(Self(letters)),
            _ => Err(InvalidUserCode),
        }
    }
}

/// A device that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: OauthDeviceId,
    /// Whose application it is.
    pub organization: OrganizationId,
    /// Which application.
    pub client: OauthClientId,
    /// What it asks for.
    pub scopes: Scopes,
    /// Until when it waits.
    pub expires_at: DateTime<Utc>,
    /// Somebody has decided.
    pub decided: bool,
    /// What he let it do, and where.
    pub authorization: Option<(OauthAuthorizationId, OrganizationId)>,
}

/// Lets a device wait; `false`: another one waits with the same user code.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut TenantTx,
    client: OauthClientId,
    token: &DeviceToken,
    code: &UserCode,
    scopes: &Scopes,
) -> Result<bool, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<OauthDeviceId>(), tx.organization(), tx.now());
    sqlx::query!(
        "insert into oauth_device_codes (id, organization_id, client_id, hash, user_code_hash, scopes, created_at,
                                         expires_at, interval_seconds)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (user_code_hash) do nothing",
        id.uuid(),
        organization.uuid(),
        client.uuid(),
        &token.hash()[..],
        &code.hash()[..],
        &scopes.words(),
        now,
        now + LASTS,
        INTERVAL
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The device whose code the transaction presents, its own or the one that people type.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Device>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select id as "id: OauthDeviceId", organization_id as "organization: OrganizationId",
                  client_id as "client: OauthClientId", scopes, expires_at, decided_at is not null as "decided!",
                  authorization_id as "authorization: OauthAuthorizationId", acts_in as "acts_in: OrganizationId"
             from oauth_device_codes where hash = presented_key() or user_code_hash = presented_key()"#
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Device {
        id: row.id,
        organization: row.organization,
        client: row.client,
        scopes: Scopes::stored(&row.scopes),
        expires_at: row.expires_at,
        decided: row.decided,
        authorization: row.authorization.zip(row.acts_in),
    }))
}

/// Decides about the device whose user code this is: lets it have the authorization, or nothing. The transaction is of
/// the organization in which it will act. `false`: it was decided before, or does not wait any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn decide(
    tx: &mut TenantTx,
    code: &UserCode,
    authorization: Option<OauthAuthorizationId>,
) -> Result<bool, sqlx::Error> {
    let (organization, now, hash) = (tx.organization(), tx.now(), code.hash());
    sqlx::query!("select set_config('gantry.presented_key', encode($1, 'hex'), true)", &hash[..])
        .fetch_one(tx.connection())
        .await?;
    let decided = sqlx::query!(
        "update oauth_device_codes set decided_at = $2, authorization_id = $3, acts_in = $4
          where user_code_hash = $1 and decided_at is null and expires_at > $2",
        &hash[..],
        now,
        authorization.map(OauthAuthorizationId::uuid),
        authorization.map(|_| organization.uuid())
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!("select set_config('gantry.presented_key', '', true)").fetch_one(tx.connection()).await?;
    Ok(decided.rows_affected() == 1)
}

/// Notes that the device asked. `false`: it asks too often, and has to wait longer from now on (`slow_down`).
///
/// # Errors
/// When the database refuses or went away.
pub async fn poll(tx: &mut TenantTx, id: OauthDeviceId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let in_time = sqlx::query_scalar!(
        r#"with before as (
               select id, polled_at is null or polled_at <= $2::timestamptz - make_interval(secs => interval_seconds) as in_time
                 from oauth_device_codes where id = $1 for update)
           update oauth_device_codes device
              set polled_at = $2, interval_seconds = case when in_time then interval_seconds else interval_seconds + 5 end
             from before where device.id = before.id
        returning before.in_time as "in_time!""#,
        id.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(in_time.unwrap_or(false))
}

/// Uses up what was decided; `false`: it was used before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, id: OauthDeviceId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update oauth_device_codes set used_at = $2 where id = $1 and used_at is null and expires_at > $2",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_user_code_is_read_as_people_type_it() {
        let code = UserCode::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        let text = code.to_string();
        assert_eq!((text.len(), text.find('-')), (9, Some(4)));
        for typed in [&text, &text.to_lowercase(), &text.replace('-', " "), &text.replace('-', "")] {
            assert_eq!(typed.parse(), Ok(code.clone()));
        }
        for bad in ["", "BCDF", "BCDF-GHJA", "BCDF-GHJKL", "BCDF-GHJ1", "ÄBCD-FGHJ", &"B".repeat(1 << 20)] {
            assert_eq!(bad.parse::<UserCode>(), Err(InvalidUserCode));
        }
        assert!(!format!("{code:?}").contains(&text));
    }
}
