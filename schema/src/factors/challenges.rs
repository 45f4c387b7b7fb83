//! What a passkey is to sign: good once, for one purpose, and not for long. The platform's own organization keeps them.

use chrono::{DateTime, Duration, Utc};

use serde_json::Value;

use crate::digest::sha256_alone;
use crate::{ChallengeId, JobTx as _, PersonId, TenantTx};

/// How long an answer may be waited for.
pub const LASTS: Duration = Duration::minutes(5);

/// What an answer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To enrol a passkey.
    Register,
    /// To sign in with nothing else.
    SignIn,
    /// To complete a sign-in.
    SecondStep,
    /// To prove anew who one is.
    Prove,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::SignIn => "sign_in",
            Self::SecondStep => "second_step",
            Self::Prove => "prove",
        }
    }
}

/// Keeps a challenge with what its answer is verified with; without a person, whoever's passkey may answer. Answers until
/// when.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut TenantTx,
    challenge: &[u8],
    purpose: Purpose,
    person: Option<PersonId>,
    state: &Value,
) -> Result<DateTime<Utc>, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<ChallengeId>(), tx.organization(), tx.now());
    sqlx::query!(
        "insert into passkey_challenges (id, organization_id, purpose, hash, person_id, state, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        id.uuid(),
        organization.uuid(),
        purpose.as_str(),
        &sha256_alone(challenge)[..],
        person.map(PersonId::uuid),
        state,
        now,
        now + LASTS
    )
    .execute(tx.connection())
    .await?;
    Ok(now + LASTS)
}

/// Uses a challenge up, if it was made for this purpose and person, and answers what it was kept with; `None`: it was not,
/// or it was used, or it is too late.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(
    tx: &mut TenantTx,
    challenge: &[u8],
    purpose: Purpose,
    person: Option<PersonId>,
) -> Result<Option<Value>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_scalar!(
        "update passkey_challenges set used_at = $4
          where hash = $1 and purpose = $2 and person_id is not distinct from $3 and used_at is null and expires_at > $4
         returning state",
        &sha256_alone(challenge)[..],
        purpose.as_str(),
        person.map(PersonId::uuid),
        now
    )
    .fetch_optional(tx.connection())
    .await
}
