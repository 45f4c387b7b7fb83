//! Refresh tokens of applications: each is exchanged once for the next one, and one that comes twice ends them all.

use chrono::{DateTime, Duration, Utc};

use super::authorizations::{self, Ended};
use crate::token::OauthRefreshToken;
use crate::{CredentialTx, JobTx as _, OauthAuthorizationId, OauthRefreshTokenId, OrganizationId, TenantTx};

/// An application that does not ask for so long has to ask the person again.
pub const IDLE: Duration = Duration::days(30);

/// The longest that it goes on without asking him.
pub const LASTS: Duration = Duration::days(180);

/// Where a refresh token belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Where the application acts.
    pub organization: OrganizationId,
    /// What it belongs to.
    pub authorization: OauthAuthorizationId,
    /// When it stops being good.
    pub expires_at: DateTime<Utc>,
    /// It was exchanged already.
    pub used: bool,
}

/// Stores a refresh token.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut TenantTx,
    token: &OauthRefreshToken,
    authorization: OauthAuthorizationId,
    expires_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<OauthRefreshTokenId>(), tx.organization(), tx.now());
    sqlx::query!(
        "insert into oauth_refresh_tokens (id, organization_id, authorization_id, hash, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        organization.uuid(),
        authorization.uuid(),
        &token.hash()[..],
        now,
        expires_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The refresh token that the transaction presents, whether or not it is still good.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Held>, sqlx::Error> {
    sqlx::query_as!(
        Held,
        r#"select organization_id as "organization: OrganizationId",
                  authorization_id as "authorization: OauthAuthorizationId", expires_at,
                  used_at is not null as "used!"
             from oauth_refresh_tokens where hash = presented_key()"#
    )
    .fetch_optional(tx.connection())
    .await
}

/// Uses a refresh token up. `false`: it is not good any more; when it was used before, two have it, and all of its family
/// was ended (RFC 9700, 4.14.2).
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, token: &OauthRefreshToken) -> Result<bool, sqlx::Error> {
    let (now, hash) = (tx.now(), token.hash());
    let used = sqlx::query!(
        "update oauth_refresh_tokens set used_at = $2 where hash = $1 and used_at is null and expires_at > $2",
        &hash[..],
        now
    )
    .execute(tx.connection())
    .await?;
    if used.rows_affected() == 1 {
        return Ok(true);
    }
    let before = sqlx::query_scalar!(
        r#"select authorization_id as "authorization: OauthAuthorizationId" from oauth_refresh_tokens
            where hash = $1 and used_at is not null"#,
        &hash[..]
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(authorization) = before {
        authorizations::end(tx, authorization, Ended::RefreshTokenReused).await?;
    }
    Ok(false)
}
