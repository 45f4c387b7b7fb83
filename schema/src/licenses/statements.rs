//! What was used under licenses, as signed statements that can be carried where nothing is connected: each names the digest of the
//! one before, so none can be left out, changed or made up later without it being seen. They are signed with the key that
//! signs the record's checkpoints.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use super::keys::{PublicKey, SecretKey};
use super::paseto::{self, PasetoError};
use crate::digest::{hex, sha256_alone};
use crate::{LicenseId, OrganizationId};

/// The version of what is written here.
pub const VERSION: u8 = 1;

/// Days of a statement, at most.
pub const MAX_DAYS: i64 = 366;

/// Characters of a statement, at most.
pub const MAX_LENGTH: usize = 4 * 1024 * 1024;

/// Binds a signature to what it is for.
const PURPOSE: &[u8] = b"gantry usage statement";

/// The most there was of something on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The day, UTC.
    pub day: NaiveDate,
    /// The license that was in force.
    pub lic: LicenseId,
    /// Of what.
    pub lim: String,
    /// How many there were at most.
    pub used: u64,
    /// How many there might be; null: any number.
    pub most: Option<u64>,
}

/// What an organization, and all below it, used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`VERSION`].
    pub ver: u8,
    /// Whose usage it is.
    pub sub: OrganizationId,
    /// Counts its statements, from 1.
    pub num: u64,
    /// The SHA-256 of the statement before, in hexadecimal digits; absent: it is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<String>,
    /// When it was made.
    pub iat: DateTime<Utc>,
    /// The first day; it is the last one of the statement before, which was not over then.
    pub from: NaiveDate,
    /// The last day, which may not be over.
    pub thru: NaiveDate,
    /// The highest of each day.
    pub marks: Vec<Mark>,
}

/// The text is no statement, or not one that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It is too long.
    #[error("a statement is at most {MAX_LENGTH} characters")]
    TooLong,
    /// It is no token, or was signed by somebody else.
    #[error("statement {place}: {source}")]
    Paseto {
        /// Which, counted from one.
        place: usize,
        /// What is wrong.
        source: PasetoError,
    },
    /// What it says cannot be read.
    #[error("statement {place} cannot be read: {message}")]
    Unreadable {
        /// Which.
        place: usize,
        /// Why.
        message: String,
    },
    /// It does not continue the one before it.
    #[error("statement {place} does not continue the one before it: {why}")]
    Broken {
        /// Which.
        place: usize,
        /// Why.
        why: &'static str,
    },
    /// There is none.
    #[error("there is no statement")]
    None,
}

/// What the next statement names: the SHA-256 of the text, in hexadecimal digits.
#[must_use]
pub fn digest(text: &str) -> String {
    hex(&sha256_alone(text.trim().as_bytes()))
}

impl Statement {
    /// Signs it.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> String {
        let message = serde_json::to_vec(self).expect("a statement has nothing that JSON cannot say");
        paseto::sign(key, &message, paseto::naming(&key.public().id()).as_bytes(), PURPOSE)
    }

    /// Why it does not follow the one before; `None`: it does.
    fn breaks(&self, before: &Self, digest_before: &str) -> Option<&'static str> {
        if self.sub != before.sub {
            Some("it is of another organization")
        } else if Some(self.num) != before.num.checked_add(1) {
            Some("its number is not the next one")
        } else if self.prev.as_deref() != Some(digest_before) {
            Some("it names another statement as the one before")
        } else if self.from != before.thru || self.iat < before.iat {
            Some("it does not begin where that one ended")
        } else {
            None
        }
    }

    /// Why it is not in order in itself; `None`: it is.
    fn disorder(&self) -> Option<&'static str> {
        let within = |mark: &Mark| self.from <= mark.day && mark.day <= self.thru;
        if self.ver != VERSION {
            Some("it is of another version")
        } else if self.num == 0 || (self.num == 1) != self.prev.is_none() {
            Some("only the first one follows none")
        } else if self.from > self.thru || !self.marks.iter().all(within) {
            Some("it tells of days that are not its own")
        } else {
            None
        }
    }
}

/// Reads statements that follow one another, and believes them if one of these keys has signed each.
///
/// # Errors
/// When one is none, is not believed, or does not follow.
pub fn verify(texts: &[&str], keys: &[PublicKey]) -> Result<Vec<Statement>, StatementError> {
    let mut read: Vec<Statement> = Vec::with_capacity(texts.len());
    for (text, place) in texts.iter().zip(1..) {
        if text.len() > MAX_LENGTH {
            return Err(StatementError::TooLong);
        }
        let wrong = |source| StatementError::Paseto { place, source };
        let token = paseto::read(text.trim()).map_err(wrong)?;
        let named = token.key_named();
        let key = keys.iter().find(|key| key.id().as_str() == named).ok_or(wrong(PasetoError::Signature))?;
        let message = token.verify(key, PURPOSE).map_err(wrong)?;
        let statement: Statement = serde_json::from_slice(&message)
            .map_err(|error| StatementError::Unreadable { place, message: error.to_string() })?;
        if let Some(why) = statement.disorder() {
            return Err(StatementError::Unreadable { place, message: why.to_owned() });
        }
        if let (Some(before), Some(text_before)) = (read.last(), texts.get(place.wrapping_sub(2)))
            && let Some(why) = statement.breaks(before, &digest(text_before))
        {
            return Err(StatementError::Broken { place, why });
        }
        read.push(statement);
    }
    if read.is_empty() { Err(StatementError::None) } else { Ok(read) }
}

/// Of each limit the highest mark of all days: what is due.
#[must_use]
pub fn highest(statements: &[Statement]) -> BTreeMap<String, Mark> {
    let mut highest: BTreeMap<String, Mark> = BTreeMap::new();
    for mark in statements.iter().flat_map(|statement| &statement.marks) {
        match highest.get(&mark.lim) {
            Some(known) if known.used >= mark.used => {}
            _ => drop(highest.insert(mark.lim.clone(), mark.clone())),
        }
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(number: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
    }

    fn mark(on: u32, used: u64) -> Mark {
        let lic = LicenseId::from_uuid(uuid::Uuid::nil());
        Mark { day: day(on), lic, lim: "servers".to_owned(), used, most: Some(10) }
    }

    fn first() -> Statement {
        Statement {
            ver: VERSION,
            sub: OrganizationId::PLATFORM,
            num: 1,
            prev: None,
            iat: DateTime::UNIX_EPOCH,
            from: day(1),
            thru: day(2),
            marks: vec![mark(1, 3), mark(2, 7)],
        }
    }

    fn after(before: &str) -> Statement {
        let marks = vec![mark(2, 9), mark(3, 4)];
        Statement { num: 2, prev: Some(digest(before)), from: day(2), thru: day(3), marks, ..first() }
    }

    #[test]
    fn statements_that_follow_one_another_are_believed_with_their_highest_marks() {
        let key = SecretKey::from_seed(&[7; 32]);
        let one = first().sign(&key);
        let two = after(&one).sign(&key);
        let read = verify(&[&one, &two], &[key.public()]).unwrap();
        assert_eq!(read, [first(), after(&one)]);
        assert_eq!(highest(&read)["servers"], mark(2, 9));
        // From any of them on.
        assert_eq!(verify(&[&two], &[key.public()]).unwrap(), [after(&one)]);
    }

    #[test]
    fn one_that_was_left_out_changed_or_signed_by_others_is_seen() {
        let (key, other) = (SecretKey::from_seed(&[7; 32]), SecretKey::from_seed(&[8; 32]));
        let one = first().sign(&key);
        let two = after(&one).sign(&key);
        let marks = vec![mark(3, 4)];
        let three = Statement { num: 3, prev: Some(digest(&two)), from: day(3), marks, ..after(&one) }.sign(&key);
        let broken = |texts: &[&str]| matches!(verify(texts, &[key.public()]), Err(StatementError::Broken { .. }));
        assert!(broken(&[&one, &three]) && broken(&[&two, &one]) && broken(&[&one, &one]));
        // The same days told otherwise: what follows names the other one.
        let less = Statement { marks: vec![mark(1, 3), mark(2, 1)], ..first() }.sign(&key);
        assert!(broken(&[&less, &two]));
        let gap = Statement { from: day(3), marks: vec![mark(3, 4)], ..after(&one) }.sign(&key);
        assert!(broken(&[&one, &gap]));
        let refused = StatementError::Paseto { place: 1, source: PasetoError::Signature };
        assert_eq!(verify(&[&first().sign(&other)], &[key.public()]), Err(refused));
        let foreign = Statement { marks: vec![mark(5, 1)], ..first() }.sign(&key);
        assert!(matches!(verify(&[&foreign], &[key.public()]), Err(StatementError::Unreadable { .. })));
        assert_eq!(verify(&[], &[key.public()]), Err(StatementError::None));
    }
}
