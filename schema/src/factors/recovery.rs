//! Recovery codes: what is left when a device is lost. Ten at a time, each good once.

use chrono::{DateTime, Utc};
use data_encoding::BASE32_NOPAD;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::people::hashing::{Salt, Salted};
use crate::{PersonId, PersonalTx};

/// Codes that are made at once.
pub const COUNT: usize = 10;

/// Characters of a code: fifty bits.
const LENGTH: usize = 10;

/// A code, in the form in which it is hashed.
#[derive(Debug, Clone)]
pub struct RecoveryCode(SecretString);

impl RecoveryCode {
    /// A new one.
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        let bytes: [u8; 7] = random.random();
        Self(BASE32_NOPAD.encode(&bytes).chars().take(LENGTH).collect::<String>().into())
    }

    /// Reads what somebody typed, in small letters or large, with dashes and spaces or without; `None`: it cannot be one.
    #[must_use]
    pub fn read(typed: &str) -> Option<Self> {
        let plain = typed.chars().take(4 * LENGTH).filter(|it| !matches!(it, '-' | ' '));
        let text: String = plain.map(|it| it.to_ascii_uppercase()).collect();
        let fits = text.len() == LENGTH && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'));
        fits.then(|| Self(text.into()))
    }

    /// As it is hashed.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }

    /// As people read it: in two groups.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = self.0.expose_secret().to_owned();
        text.insert(LENGTH / 2, '-');
        text
    }
}

/// How many are left of those that were made last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many.
    pub count: i64,
    /// When they were made.
    pub created_at: DateTime<Utc>,
}

/// Keeps the codes of the person the transaction acts for. Those he had are good for nothing from now on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn replace(
    tx: &mut impl PersonalTx,
    person: PersonId,
    hashes: &[[u8; 32]],
    salt: &Salt,
) -> Result<(), sqlx::Error> {
    remove_all(tx, person).await?;
    let (now, hashes): (_, Vec<Vec<u8>>) = (tx.now(), hashes.iter().map(|hash| hash.to_vec()).collect());
    sqlx::query!(
        "insert into recovery_codes (person_id, hash, salt, peppered, created_at)
         select $1, hash, $3, $4, $5 from unnest($2::bytea[]) hash",
        person.uuid(),
        &hashes,
        &salt.bytes[..],
        salt.peppered,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Forgets all of them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove_all(tx: &mut impl PersonalTx, person: PersonId) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from recovery_codes where person_id = $1", person.uuid())
        .execute(tx.connection())
        .await
        .map(drop)
}

/// How many the person has left; `None`: none were made.
///
/// # Errors
/// When the database refuses or went away.
pub async fn left(tx: &mut impl PersonalTx, person: PersonId) -> Result<Option<Left>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select count(*) filter (where used_at is null) as "count!", max(created_at) as created_at
             from recovery_codes where person_id = $1"#,
        person.uuid()
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(row.created_at.map(|created_at| Left { count: row.count, created_at }))
}

/// What the person's codes were hashed with.
///
/// # Errors
/// When the database refuses or went away.
pub async fn salt(tx: &mut impl PersonalTx, person: PersonId) -> Result<Option<Salt>, sqlx::Error> {
    let row = sqlx::query!("select salt, peppered from recovery_codes where person_id = $1 limit 1", person.uuid())
        .fetch_optional(tx.connection())
        .await?;
    Ok(row.and_then(|row| Some(Salt { bytes: row.salt.try_into().ok()?, peppered: row.peppered })))
}

/// Uses a code up; `false`: it is none of his, or was used.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(tx: &mut impl PersonalTx, person: PersonId, code: &Salted) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update recovery_codes set used_at = $3 where person_id = $1 and hash = $2 and used_at is null",
        person.uuid(),
        &code.0[..],
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
    fn a_code_is_read_however_it_is_typed_and_nothing_else_is_one() {
        let code = RecoveryCode::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        let shown = code.shown();
        assert!(shown.len() == 11 && shown.chars().nth(5) == Some('-'), "{shown}");
        for typed in [shown.clone(), shown.to_lowercase(), shown.replace('-', ""), shown.replace('-', " - ")] {
            assert_eq!(RecoveryCode::read(&typed).unwrap().expose(), code.expose(), "{typed}");
        }
        let huge = "A".repeat(1 << 20);
        for wrong in ["", "ABCDE-FGHI", "ABCDE-FGHIJK", "ABCDE-FGHI1", "ABCDE-FGHIÄ", huge.as_str()] {
            assert!(RecoveryCode::read(wrong).is_none());
        }
        assert!(!format!("{code:?}").contains(shown.get(..5).unwrap()));
    }
}
