//! How the installation vouches for an entry before the chain does, and for the end of the chain: with codes that only its
//! sealing keys make. Whoever owns the database cannot make them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;

use super::chain::encode;
use crate::seal::SealingKeys;

/// What an entry adds to the tallies: sums are made by exclusive or, so their order does not matter, and nobody who
/// sees a sum knows what an entry adds to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// One half.
    pub high: i64,
    /// The other.
    pub low: i64,
}

impl Sum {
    /// With another one.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { high: self.high ^ other.high, low: self.low ^ other.low }
    }
}

/// The codes that one sealing key makes.
#[derive(Debug)]
struct Codes {
    entries: hmac::Key,
    sums: hmac::Key,
    heads: hmac::Key,
    beginnings: hmac::Key,
}

/// Makes and checks codes.
#[derive(Debug)]
pub struct Vouching {
    keys: Arc<SealingKeys>,
    known: Mutex<HashMap<String, Arc<Codes>>>,
}

impl Vouching {
    /// With the installation's keys.
    #[must_use]
    pub fn with(keys: Arc<SealingKeys>) -> Self {
        Self { keys, known: Mutex::default() }
    }

    fn codes(&self, key: &str) -> Option<Arc<Codes>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(codes) = known.get(key) {
            return Some(Arc::clone(codes));
        }
        let codes = Arc::new(Codes {
            entries: self.keys.derive(key, "audit entries")?,
            sums: self.keys.derive(key, "audit tallies")?,
            heads: self.keys.derive(key, "audit heads")?,
            beginnings: self.keys.derive(key, "audit beginnings")?,
        });
        known.insert(key.to_owned(), Arc::clone(&codes));
        Some(codes)
    }

    /// The code of an entry with these fields; `None`: the key is not configured.
    #[must_use]
    pub fn entry(&self, key: &str, fields: &[&str]) -> Option<Vec<u8>> {
        Some(hmac::sign(&self.codes(key)?.entries, &encode(fields)).as_ref().to_vec())
    }

    /// What an entry with these fields adds to the tallies; `None`: the key is not configured.
    #[must_use]
    pub fn sum(&self, key: &str, fields: &[&str]) -> Option<Sum> {
        let tag = hmac::sign(&self.codes(key)?.sums, &encode(fields));
        let mut halves = tag.as_ref().as_chunks::<8>().0.iter().map(|half| i64::from_be_bytes(*half));
        Some(Sum { high: halves.next()?, low: halves.next()? })
    }

    /// The code of the end of a chain; `None`: the key is not configured.
    #[must_use]
    pub fn head(&self, key: &str, head: &[u8]) -> Option<Vec<u8>> {
        Some(hmac::sign(&self.codes(key)?.heads, head).as_ref().to_vec())
    }

    /// The code of what a record begins with; `None`: the key is not configured.
    #[must_use]
    pub fn beginning(&self, key: &str, beginning: &[u8]) -> Option<Vec<u8>> {
        Some(hmac::sign(&self.codes(key)?.beginnings, beginning).as_ref().to_vec())
    }

    /// The installation's keys.
    #[must_use]
    pub const fn keys(&self) -> &Arc<SealingKeys> {
        &self.keys
    }
}

/// Whether two codes are the same, in the same time wherever they differ.
#[must_use]
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    use subtle::ConstantTimeEq as _;
    one.ct_eq(other).into()
}
