//! Passkeys in the table of factors. What is known of one is kept as whoever verifies its signatures writes it.

use serde_json::Value;

use super::Factor;
use super::queries::Kind;
use crate::{CredentialTx, FactorId, PersonId, PersonalTx};

/// A passkey that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    /// Its id.
    pub id: FactorId,
    /// Whose it is.
    pub person: PersonId,
    /// What its signatures are verified with.
    pub known: Value,
}

/// A passkey that was just made.
#[derive(Debug, Clone, Copy)]
pub struct NewPasskey<'a> {
    /// Its id.
    pub id: FactorId,
    /// What its owner calls it.
    pub name: &'a str,
    /// What the browser knows it by.
    pub credential_id: &'a [u8],
    /// What its signatures are verified with.
    pub known: &'a Value,
}

/// Keeps a passkey of the person the transaction acts for. It counts from now on; `None`: somebody has enrolled it already.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(
    tx: &mut impl PersonalTx,
    person: PersonId,
    new: &NewPasskey<'_>,
) -> Result<Option<Factor>, sqlx::Error> {
    let now = tx.now();
    let done = sqlx::query!(
        "insert into factors (id, person_id, kind, name, credential_id, passkey, created_at, confirmed_at)
         values ($1, $2, 'passkey', $3, $4, $5, $6, $6) on conflict do nothing",
        new.id.uuid(),
        person.uuid(),
        new.name,
        new.credential_id,
        new.known,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok((done.rows_affected() == 1).then(|| Factor {
        id: new.id,
        kind: Kind::Passkey,
        name: new.name.to_owned(),
        created_at: now,
        confirmed_at: Some(now),
        last_used_at: None,
        backed_up: false,
        suspected_at: None,
        address: None,
    }))
}

/// The person's passkeys.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut impl PersonalTx, person: PersonId) -> Result<Vec<Passkey>, sqlx::Error> {
    sqlx::query_as!(
        Passkey,
        r#"select id as "id: FactorId", person_id as "person: PersonId", passkey as "known!" from factors
            where person_id = $1 and kind = 'passkey' order by id"#,
        person.uuid()
    )
    .fetch_all(tx.connection())
    .await
}

/// The passkey whose id the transaction presents.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Passkey>, sqlx::Error> {
    sqlx::query_as!(
        Passkey,
        r#"select id as "id: FactorId", person_id as "person: PersonId", passkey as "known!" from factors
            where kind = 'passkey' and sha256(credential_id) = (select presented_key())"#
    )
    .fetch_optional(tx.connection())
    .await
}

/// One of the person's signed something. Answers whether it is still there.
///
/// # Errors
/// When the database refuses or went away.
pub async fn used(tx: &mut impl PersonalTx, id: FactorId, known: &Value, backed_up: bool) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update factors set passkey = $2, backed_up = $3, last_used_at = $4, failures = 0 where id = $1",
        id.uuid(),
        known,
        backed_up,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The count of one went backwards, as that of a copy would.
///
/// # Errors
/// When the database refuses or went away.
pub async fn suspect(tx: &mut impl PersonalTx, id: FactorId) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!("update factors set suspected_at = $2 where id = $1", id.uuid(), now)
        .execute(tx.connection())
        .await
        .map(drop)
}
