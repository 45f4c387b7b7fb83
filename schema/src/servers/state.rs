//! The states that Terraform keeps: what one is, which may follow which, and how they are packed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Bytes a state may have; what has more is no state of a server.
pub const LARGEST: usize = 64 * 1024 * 1024;

/// What a state says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// Of the format.
    pub version: u64,
    /// Counts up with every change.
    pub serial: i64,
    /// The same for all states of a stack.
    pub lineage: String,
}

/// A state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none.
    #[error("it is no state of Terraform's format 4: {0}")]
    Malformed(String),
    /// It is too large.
    #[error("it has {0} bytes, and at most {LARGEST} are kept")]
    TooLarge(usize),
    /// It is another stack's.
    #[error("its lineage is {theirs}, and that of the stack is {ours}")]
    Lineage {
        /// What the stack has.
        ours: String,
        /// What came.
        theirs: String,
    },
    /// It is older than what is kept.
    #[error("its serial is {theirs}, and the one that is kept has {ours}")]
    Serial {
        /// What is kept.
        ours: i64,
        /// What came.
        theirs: i64,
    },
    /// Something else has the same number.
    #[error("its serial is {0}, as that of the one that is kept, and it says something else")]
    Differs(i64),
}

impl Head {
    /// Reads what a state says of itself.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub fn of(state: &[u8]) -> Result<Self, Refused> {
        if state.len() > LARGEST {
            return Err(Refused::TooLarge(state.len()));
        }
        let head: Self = serde_json::from_slice(state).map_err(|error| Refused::Malformed(error.to_string()))?;
        if head.version != 4 || head.serial < 0 || head.lineage.is_empty() || head.lineage.len() > 200 {
            return Err(Refused::Malformed("version, serial or lineage".to_owned()));
        }
        Ok(head)
    }

    /// Whether a state with this head may follow the one that is kept; `same`: both say the same, byte for byte.
    ///
    /// # Errors
    /// When it may not.
    pub fn follows(&self, kept: &Self, same: bool) -> Result<(), Refused> {
        if self.lineage != kept.lineage {
            return Err(Refused::Lineage { ours: kept.lineage.clone(), theirs: self.lineage.clone() });
        }
        match self.serial.cmp(&kept.serial) {
            std::cmp::Ordering::Less => Err(Refused::Serial { ours: kept.serial, theirs: self.serial }),
            std::cmp::Ordering::Equal if !same => Err(Refused::Differs(self.serial)),
            _ => Ok(()),
        }
    }
}

/// The same state under another serial; everything else in it stays as Terraform wrote it.
///
/// # Errors
/// When it is no state.
pub fn with_serial(state: &[u8], serial: i64) -> Result<Vec<u8>, Refused> {
    let malformed = |error: serde_json::Error| Refused::Malformed(error.to_string());
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(state).map_err(malformed)?;
    members.insert("serial".to_owned(), serde_json::value::to_raw_value(&serial).map_err(malformed)?);
    serde_json::to_vec(&members).map_err(malformed)
}

/// The addresses of what a state says is there, without what is only read. They are in order.
#[must_use]
pub fn resources(state: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Resource {
        #[serde(default)]
        mode: String,
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        name: String,
    }
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        resources: Vec<Resource>,
    }
    let whole: Whole = serde_json::from_slice(state).unwrap_or(Whole { resources: Vec::new() });
    let managed = whole.resources.into_iter().filter(|it| it.mode == "managed");
    let mut addresses: Vec<String> = managed.map(|it| format!("{}.{}", it.kind, it.name)).collect();
    addresses.sort();
    addresses
}

/// Makes it small.
#[must_use]
pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = DeflateEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    packer.write_all(bytes).and_then(|()| packer.finish()).expect("a vector takes everything")
}

/// What [`packed`] made small, as it was; `None`: it is nothing of the kind, or has more than `most` bytes.
#[must_use]
pub fn unpacked(packed: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    DeflateDecoder::new(packed).take(limit).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(serial: i64, lineage: &str) -> Head {
        Head { version: 4, serial, lineage: lineage.to_owned() }
    }

    #[test]
    fn a_state_under_another_serial_says_the_same() {
        let state = br#"{"version":4,"serial":7,"lineage":"a","resources":[{"mode":"managed","type":"t","name":"n",
                         "n": 123456789012345678901234567890.10}, {"mode":"data","type":"d","name":"n"}]}"#;
        let next = with_serial(state, 9).unwrap();
        assert_eq!(Head::of(&next), Ok(head(9, "a")));
        assert!(String::from_utf8(next.clone()).unwrap().contains("123456789012345678901234567890.10"));
        assert_eq!(resources(&next), ["t.n"]);
        assert!(with_serial(b"[]", 1).is_err());
    }

    #[test]
    fn a_state_follows_one_with_a_lower_serial_of_the_same_lineage() {
        assert_eq!(head(2, "a").follows(&head(1, "a"), false), Ok(()));
        assert_eq!(head(1, "a").follows(&head(1, "a"), true), Ok(()), "it is sent again");
        assert_eq!(head(1, "a").follows(&head(1, "a"), false), Err(Refused::Differs(1)));
        assert_eq!(head(1, "a").follows(&head(2, "a"), false), Err(Refused::Serial { ours: 2, theirs: 1 }));
        assert!(matches!(head(3, "b").follows(&head(2, "a"), false), Err(Refused::Lineage { .. })));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let state = br#"{"version": 4, "terraform_version": "1.11.4", "serial": 7, "lineage": "a", "outputs": {}}"#;
        assert_eq!(Head::of(state), Ok(head(7, "a")));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"version": 3, "serial": 1, "lineage": "a"}"#,
            r#"{"version": 4, "serial": 1, "lineage": ""}"#,
        ] {
            assert!(matches!(Head::of(bad.as_bytes()), Err(Refused::Malformed(_))), "{bad}");
        }
        assert_eq!(Head::of(&vec![b' '; LARGEST + 1]), Err(Refused::TooLarge(LARGEST + 1)));
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_as_it_was_and_no_larger_than_it_may_be(bytes: Vec<u8>) {
            let small = packed(&bytes);
            prop_assert_eq!(unpacked(&small, bytes.len()), Some(bytes.clone()));
            if !bytes.is_empty() {
                prop_assert_eq!(unpacked(&small, bytes.len() - 1), None);
            }
        }

        #[test]
        fn a_serial_never_goes_back(kept in 0_i64..1_000, next in 0_i64..1_000) {
            let follows = head(next, "a").follows(&head(kept, "a"), false).is_ok();
            prop_assert_eq!(follows, next > kept);
        }
    }
}
