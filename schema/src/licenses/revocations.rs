//! Lists of licenses that their issuer has revoked, signed with a key of his: for platforms that he cannot reach. A list names
//! everything that he ever revoked and that has not ended; each has a higher number than those before, so that an older
//! one does not come back.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::chain::Anchors;
use super::keys::{KeyId, SecretKey};
use super::paseto::{self, PasetoError};
use crate::LicenseId;

/// The version of what is written here.
pub const VERSION: u8 = 1;

/// Licenses that a list names, at most.
pub const MOST: usize = 5_000;

/// Characters of a list, at most.
pub const MAX_LENGTH: usize = 256 * 1024;

/// Binds a signature to what it is for: no license is taken for a list.
const PURPOSE: &[u8] = b"gantry license revocations";

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// [`VERSION`].
    pub ver: u8,
    /// Who revoked them.
    pub iss: String,
    /// When it was made.
    pub iat: DateTime<Utc>,
    /// Counts the lists of the key.
    pub epo: u64,
    /// The licenses.
    pub rev: BTreeSet<LicenseId>,
}

/// The text is no list, or not one that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It is too long, or names too many.
    #[error("a list is at most {MAX_LENGTH} characters and {MOST} licenses; leave out those that have ended")]
    TooLong,
    /// It is no token, or was signed by somebody else.
    #[error("the list: {0}")]
    Paseto(#[from] PasetoError),
    /// Nobody here believes the key it was signed with.
    #[error("the list was signed with the key {0}, which is not believed here")]
    UnknownKey(String),
    /// What it says cannot be read.
    #[error("the list cannot be read: {0}")]
    Unreadable(String),
    /// It is of another version.
    #[error("this release reads version {VERSION} of lists, not {0}")]
    Version(u8),
}

impl Revocations {
    /// Reads a list, and believes it if it was signed with an anchor. Answers the name of that key as well.
    ///
    /// # Errors
    /// When it is none, or not believed.
    pub fn verify(text: &str, anchors: &Anchors) -> Result<(Self, KeyId), ListError> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(ListError::TooLong);
        }
        let read = paseto::read(text)?;
        let named = read.key_named();
        let key = *anchors.find(&named).ok_or(ListError::UnknownKey(named))?;
        let message = read.verify(&key, PURPOSE)?;
        let list: Self = serde_json::from_slice(&message).map_err(|error| ListError::Unreadable(error.to_string()))?;
        list.check()?;
        Ok((list, key.id()))
    }

    /// Signs it.
    ///
    /// # Errors
    /// When it names too many.
    pub fn sign(&self, key: &SecretKey) -> Result<String, ListError> {
        self.check()?;
        let message = serde_json::to_vec(self).expect("a list has nothing that JSON cannot say");
        Ok(paseto::sign(key, &message, paseto::naming(&key.public().id()).as_bytes(), PURPOSE))
    }

    fn check(&self) -> Result<(), ListError> {
        match self {
            Self { ver: VERSION, rev, .. } if rev.len() <= MOST => Ok(()),
            Self { ver: VERSION, .. } => Err(ListError::TooLong),
            Self { ver, .. } => Err(ListError::Version(*ver)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licenses::{chain, paseto};
    use uuid::Uuid;

    fn list(ids: impl IntoIterator<Item = u128>) -> Revocations {
        Revocations {
            ver: VERSION,
            iss: "vendor".to_owned(),
            iat: DateTime::UNIX_EPOCH,
            epo: 7,
            rev: ids.into_iter().map(|id| LicenseId::from_uuid(Uuid::from_u128(id))).collect(),
        }
    }

    #[test]
    fn a_list_is_believed_as_its_issuer_signed_it_and_not_otherwise() {
        let (key, other) = (SecretKey::from_seed(&[7; 32]), SecretKey::from_seed(&[8; 32]));
        let anchors = Anchors::of([key.public()]);
        let text = list([1, 2]).sign(&key).unwrap();
        assert_eq!(Revocations::verify(&text, &anchors), Ok((list([1, 2]), key.public().id())));
        let unknown = ListError::UnknownKey(other.public().id().to_string());
        assert_eq!(Revocations::verify(&list([1]).sign(&other).unwrap(), &anchors), Err(unknown));
        // A signature of the same words for something else is none.
        let message = serde_json::to_vec(&list([1])).unwrap();
        let footer = paseto::naming(&key.public().id());
        let elsewhere = paseto::sign(&key, &message, footer.as_bytes(), b"gantry license");
        assert_eq!(Revocations::verify(&elsewhere, &anchors), Err(ListError::Paseto(PasetoError::Signature)));
        assert!(chain::Chain::verify(&text, &anchors).is_err(), "a list is no license");
        let of_tomorrow = Revocations { ver: 2, ..list([1]) };
        assert_eq!(of_tomorrow.sign(&key), Err(ListError::Version(2)));
        assert_eq!(list(0..=MOST as u128).sign(&key), Err(ListError::TooLong));
        let most = list(0..MOST as u128).sign(&key).unwrap();
        assert!(most.len() <= MAX_LENGTH, "{}", most.len());
    }
}
