//! What is sent to somebody, to prove that it reaches him: good once, and not for long. The platform's own organization
//! keeps them.

use std::fmt;

use chrono::{DateTime, Duration, Utc};

use super::Email;
use crate::token::OneTimeToken;
use crate::{JobTx as _, OneTimeId, PersonId, TenantTx};

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To make an account with this address.
    SignUp,
    /// To set a new password.
    ResetPassword,
    /// To have mail sent to this address from now on.
    ChangeEmail,
    /// To become the first owner of the platform's own organization.
    Bootstrap,
}

impl Purpose {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignUp => "sign_up",
            Self::ResetPassword => "reset_password",
            Self::ChangeEmail => "change_email",
            Self::Bootstrap => "bootstrap",
        }
    }

    /// How long a token of this purpose is good: as long as mail may take, and whoever finds it later is too late.
    #[must_use]
    pub const fn lasts(self) -> Duration {
        match self {
            Self::SignUp | Self::Bootstrap => Duration::hours(24),
            Self::ResetPassword | Self::ChangeEmail => Duration::hours(1),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token to keep.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// What it is good for.
    pub purpose: Purpose,
    /// Where it is sent to.
    pub email: &'a Email,
    /// Whose account it concerns, where there is one.
    pub person: Option<PersonId>,
    /// What he will be called.
    pub name: Option<&'a str>,
    /// What is written to him in.
    pub locale: Option<&'a str>,
}

/// A token that was used.
#[derive(Debug, Clone)]
pub struct Used {
    /// Where it was sent to.
    pub email: String,
    /// Whose account it concerns, where there is one.
    pub person: Option<PersonId>,
    /// What he will be called.
    pub name: Option<String>,
    /// What is written to him in.
    pub locale: Option<String>,
}

/// Keeps a token. An earlier one of the same purpose for the same address is good for nothing from now on. The
/// transaction is the platform's own organization's.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(tx: &mut TenantTx, token: &OneTimeToken, new: &NewToken<'_>) -> Result<DateTime<Utc>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let (id, expires_at) = (tx.ids().mint::<OneTimeId>(), now + new.purpose.lasts());
    sqlx::query!(
        "update one_time_tokens set used_at = $3
          where organization_id = $4 and email_key = $1 and purpose = $2 and used_at is null",
        new.email.key(),
        new.purpose.as_str(),
        now,
        organization.uuid()
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into one_time_tokens (id, organization_id, purpose, hash, email, email_key, person_id, name, locale,
                                      created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        id.uuid(),
        organization.uuid(),
        new.purpose.as_str(),
        &token.hash()[..],
        new.email.as_str(),
        new.email.key(),
        new.person.map(PersonId::uuid),
        new.name,
        new.locale,
        now,
        expires_at
    )
    .execute(tx.connection())
    .await?;
    Ok(expires_at)
}

/// How many tokens of any purpose were sent to the address since then.
///
/// # Errors
/// When the database refuses or went away.
pub async fn sent_since(tx: &mut TenantTx, email: &Email, since: DateTime<Utc>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from one_time_tokens where email_key = $1 and created_at > $2"#,
        email.key(),
        since
    )
    .fetch_one(tx.connection())
    .await
}

/// What a token is about, if it is good for this now. It stays good.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, token: &OneTimeToken, purpose: Purpose) -> Result<Option<Used>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Used,
        r#"select email, person_id as "person: PersonId", name, locale from one_time_tokens
            where hash = $1 and purpose = $2 and used_at is null and expires_at > $3"#,
        &token.hash()[..],
        purpose.as_str(),
        now
    )
    .fetch_optional(tx.connection())
    .await
}

/// Uses a token up, if it is good for this now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut TenantTx, token: &OneTimeToken, purpose: Purpose) -> Result<Option<Used>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Used,
        r#"update one_time_tokens set used_at = $3
            where hash = $1 and purpose = $2 and used_at is null and expires_at > $3
        returning email, person_id as "person: PersonId", name, locale"#,
        &token.hash()[..],
        purpose.as_str(),
        now
    )
    .fetch_optional(tx.connection())
    .await
}

/// Makes every token that was sent to the person good for nothing: what it could change was changed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget_for(tx: &mut TenantTx, person: PersonId) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!("update one_time_tokens set used_at = $2 where person_id = $1 and used_at is null", person.uuid(), now)
        .execute(tx.connection())
        .await
        .map(drop)
}
