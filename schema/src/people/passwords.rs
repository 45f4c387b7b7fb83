//! What people prove themselves with, as it is stored.

use chrono::{DateTime, Utc};

use crate::{PersonId, PersonalTx};

/// A stored password.
#[derive(Clone)]
pub struct Password {
    /// A PHC string.
    pub hash: String,
    /// When it was set.
    pub changed_at: DateTime<Utc>,
    /// Wrong ones since the last right one.
    pub failures: i32,
    /// When the last of them was.
    pub failed_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Password")
            .field("changed_at", &self.changed_at)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// The password of the person the transaction acts for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut impl PersonalTx, person: PersonId) -> Result<Option<Password>, sqlx::Error> {
    sqlx::query_as!(
        Password,
        "select hash, changed_at, failures, failed_at from passwords where person_id = $1",
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Sets the password of the person the transaction acts for. Nobody has tried the new one wrongly yet.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(tx: &mut impl PersonalTx, person: PersonId, hash: &str) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into passwords (person_id, hash, changed_at) values ($1, $2, $3)
             on conflict (person_id) do update
            set hash = excluded.hash, changed_at = excluded.changed_at, failures = 0, failed_at = null",
        person.uuid(),
        hash,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
