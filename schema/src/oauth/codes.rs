//! Authorization codes: good once, for a minute, for one application.

use chrono::{DateTime, Duration, Utc};

use super::authorizations::{self, Ended};
use crate::token::CodeToken;
use crate::{CredentialTx, JobTx as _, OauthAuthorizationId, OauthClientId, OrganizationId, TenantTx};

/// How long a code is good.
pub const LASTS: Duration = Duration::minutes(1);

/// What a code was given out for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Where the application will act.
    pub organization: OrganizationId,
    /// What it belongs to.
    pub authorization: OauthAuthorizationId,
    /// To which application.
    pub client: OauthClientId,
    /// Where it was sent to.
    pub redirect_uri: String,
    /// What the verifier has to fit.
    pub challenge: String,
    /// What the ID token repeats.
    pub nonce: Option<String>,
    /// When it stops being good.
    pub expires_at: DateTime<Utc>,
}

/// Stores a code.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(tx: &mut TenantTx, token: &CodeToken, code: &Code) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into oauth_codes (hash, organization_id, authorization_id, client_id, redirect_uri, challenge, nonce,
                                  created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &token.hash()[..],
        code.organization.uuid(),
        code.authorization.uuid(),
        code.client.uuid(),
        code.redirect_uri,
        code.challenge,
        code.nonce,
        now,
        code.expires_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The code that the transaction presents, whether or not it is still good.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Code>, sqlx::Error> {
    sqlx::query_as!(
        Code,
        r#"select organization_id as "organization: OrganizationId",
                  authorization_id as "authorization: OauthAuthorizationId", client_id as "client: OauthClientId",
                  redirect_uri, challenge, nonce, expires_at
             from oauth_codes where hash = presented_key()"#
    )
    .fetch_optional(tx.connection())
    .await
}

/// Uses a code up. `false`: it was used before, so two have it, and whatever it gave was ended (RFC 6749, 4.1.2).
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, token: &CodeToken, code: &Code) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let used = sqlx::query!(
        "update oauth_codes set used_at = $2 where hash = $1 and used_at is null and expires_at > $2",
        &token.hash()[..],
        now
    )
    .execute(tx.connection())
    .await?;
    if used.rows_affected() == 1 {
        return Ok(true);
    }
    authorizations::end(tx, code.authorization, Ended::CodeReused).await?;
    Ok(false)
}
