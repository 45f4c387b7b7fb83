//! Between the first step of signing in and the second: somebody knew his password, and that alone opens nothing.

use chrono::{DateTime, Duration, Utc};

use crate::digest::{constant_time_eq, sha256};
use crate::sessions::Kind;
use crate::token::SignInToken;
use crate::{CredentialTx, OrganizationId, PendingSignInId, PersonId, PersonalTx};

/// How long the second step may be waited for.
pub const LASTS: Duration = Duration::minutes(10);

/// How often it may be tried; then it begins again with the password.
pub const MAX_TRIES: i32 = 5;

/// A sign-in that goes on with its second step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: PendingSignInId,
    /// Who signs in.
    pub person: PersonId,
    /// Who will hold the session.
    pub kind: Kind,
    /// For which of his organizations he wants to act.
    pub organization: Option<OrganizationId>,
    /// What he has proven.
    pub methods: Vec<String>,
    /// When it is too late.
    pub expires_at: DateTime<Utc>,
    user_agent: Vec<u8>,
    mailed_code: Option<Vec<u8>>,
}

impl Pending {
    /// Whether this is the code that was sent by mail; `None`: none was.
    #[must_use]
    pub fn was_mailed(&self, code: &str) -> Option<bool> {
        self.mailed_code.as_ref().map(|kept| constant_time_eq(kept, &code_digest(self.person, code)))
    }

    /// Whether a code was sent by mail.
    #[must_use]
    pub const fn has_mailed_code(&self) -> bool {
        self.mailed_code.is_some()
    }

    /// Whether the client that began it goes on with it.
    #[must_use]
    pub fn is_of(&self, user_agent: Option<&str>) -> bool {
        constant_time_eq(&self.user_agent, &digest(user_agent))
    }
}

fn code_digest(person: PersonId, code: &str) -> [u8; 32] {
    sha256(&[b"gantry mailed code", person.uuid().as_bytes(), code.as_bytes()])
}

fn digest(user_agent: Option<&str>) -> [u8; 32] {
    sha256(&[b"gantry sign-in", user_agent.unwrap_or_default().as_bytes()])
}

/// A sign-in whose first step is done.
#[derive(Debug, Clone)]
pub struct NewPending<'a> {
    /// Who signs in: the transaction acts for him.
    pub person: PersonId,
    /// Who will hold the session.
    pub kind: Kind,
    /// For which of his organizations he wants to act.
    pub organization: Option<OrganizationId>,
    /// What he has proven.
    pub methods: &'a [&'a str],
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// The code that is sent by mail, if one is.
    pub mailed_code: Option<&'a str>,
}

/// Keeps it. Answers until when.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut impl PersonalTx,
    token: &SignInToken,
    new: &NewPending<'_>,
) -> Result<DateTime<Utc>, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<PendingSignInId>(), tx.now());
    let methods: Vec<String> = new.methods.iter().map(ToString::to_string).collect();
    let expires_at = now + LASTS;
    sqlx::query!(
        "insert into pending_sign_ins (id, person_id, hash, kind, organization_id, methods, user_agent, created_at,
                                       expires_at, mailed_code)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        id.uuid(),
        new.person.uuid(),
        &token.hash()[..],
        new.kind.as_str(),
        new.organization.map(OrganizationId::uuid),
        &methods,
        &digest(new.user_agent)[..],
        now,
        expires_at,
        new.mailed_code.map(|code| code_digest(new.person, code).to_vec())
    )
    .execute(tx.connection())
    .await?;
    Ok(expires_at)
}

/// The sign-in whose token the transaction presents, if it can go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Pending>, sqlx::Error> {
    let now = tx.now();
    let row = sqlx::query!(
        r#"select id as "id: PendingSignInId", person_id as "person: PersonId", kind,
                  organization_id as "organization: OrganizationId", methods, user_agent, mailed_code, expires_at
             from pending_sign_ins
            where hash = presented_key() and used_at is null and expires_at > $1 and tries < $2"#,
        now,
        MAX_TRIES
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Pending {
        id: row.id,
        person: row.person,
        kind: Kind::read(&row.kind),
        organization: row.organization,
        methods: row.methods,
        expires_at: row.expires_at,
        user_agent: row.user_agent,
        mailed_code: row.mailed_code,
    }))
}

/// Counts that the second step is tried, before it is known what comes of it; `false`: it must not be tried any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn try_once(tx: &mut impl PersonalTx, id: PendingSignInId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update pending_sign_ins set tries = tries + 1
          where id = $1 and used_at is null and expires_at > $2 and tries < $3",
        id.uuid(),
        now,
        MAX_TRIES
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Uses it up; `false`: that was done, or it was too late.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut impl PersonalTx, id: PendingSignInId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update pending_sign_ins set used_at = $2 where id = $1 and used_at is null and expires_at > $2",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Lets none of the person's sign-ins go on: what they were begun with was changed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end_all(tx: &mut impl PersonalTx, person: PersonId) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update pending_sign_ins set used_at = $2 where person_id = $1 and used_at is null",
        person.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
