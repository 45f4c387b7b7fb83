//! What people prove themselves with, as it is stored.

use chrono::{DateTime, Utc};

use super::hashing::Hashed;
use crate::{PersonId, PersonalTx};

/// A stored password.
#[derive(Debug, Clone)]
pub struct Password {
    /// Its hash.
    pub hash: Hashed,
    /// It is long enough to be the only proof.
    pub stands_alone: bool,
    /// When it was set.
    pub changed_at: DateTime<Utc>,
    /// Wrong ones since the last right one.
    pub failures: i32,
    /// When the last of them was.
    pub failed_at: Option<DateTime<Utc>>,
}

/// The password of the person the transaction acts for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut impl PersonalTx, person: PersonId) -> Result<Option<Password>, sqlx::Error> {
    let row = sqlx::query!(
        "select hash, peppered, stands_alone, changed_at, failures, failed_at from passwords where person_id = $1",
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Password {
        hash: Hashed { text: row.hash, peppered: row.peppered },
        stands_alone: row.stands_alone,
        changed_at: row.changed_at,
        failures: row.failures,
        failed_at: row.failed_at,
    }))
}

/// Sets the password of the person the transaction acts for. Nobody has tried the new one wrongly yet.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(
    tx: &mut impl PersonalTx,
    person: PersonId,
    hash: &Hashed,
    stands_alone: bool,
) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into passwords (person_id, hash, peppered, stands_alone, changed_at) values ($1, $2, $3, $4, $5)
             on conflict (person_id) do update
            set hash = excluded.hash, peppered = excluded.peppered, stands_alone = excluded.stands_alone,
                changed_at = excluded.changed_at, failures = 0, failed_at = null",
        person.uuid(),
        hash.text,
        hash.peppered,
        stands_alone,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The right password was typed: nobody has tried wrongly since. Its hash is replaced where it was made anew.
///
/// # Errors
/// When the database refuses or went away.
pub async fn succeeded(
    tx: &mut impl PersonalTx,
    person: PersonId,
    made_anew: Option<&Hashed>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update passwords set failures = 0, hash = coalesce($2::text, hash), peppered = coalesce($3::bool, peppered)
          where person_id = $1 and (failures > 0 or $2::text is not null)",
        person.uuid(),
        made_anew.map(|hash| hash.text.as_str()),
        made_anew.map(|hash| hash.peppered)
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A wrong password was typed. Answers how many that were in a row.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut impl PersonalTx, person: PersonId) -> Result<i32, sqlx::Error> {
    let now = tx.now();
    let failures = sqlx::query_scalar!(
        "update passwords set failures = failures + 1, failed_at = $2 where person_id = $1 returning failures",
        person.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(failures.unwrap_or_default())
}
