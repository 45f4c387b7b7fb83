//! Secrets at rest: every value is encrypted with a key of its own, which is wrapped by the installation's key.
//!
//! A sealed value is bound to the organization, table, column and row it was sealed for: copied anywhere else it does
//! not open. The layout, of which every byte is authenticated:
//!
//! ```text
//! version 1 | length of key id 1 | key id | nonce 12 | wrapped data key 32+16 | nonce 12 | value n+16
//! ```
//!
//! The key that wraps uses a random nonce for each value, so it should be replaced long before it sealed 2^32 values.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac, rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretSlice};
use uuid::Uuid;
use zeroize::Zeroizing;

/// An opened secret: forgotten from memory when dropped, and never printed or serialized.
pub type SecretBytes = SecretSlice<u8>;

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const KEY_ID_MAX: usize = 32;

/// Why something is not a sealing key. Never contains the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The id is empty, too long, or has other characters than `a-z 0-9 _ -`.
    #[error("a sealing key's id is 1 to 32 characters of a-z, 0-9, _ and -")]
    Id,
    /// The key is not standard base64 of 32 bytes.
    #[error("sealing key {0} is not base64 of 32 bytes")]
    Bytes(String),
    /// Two keys have the same id, so a sealed value could not tell which it needs.
    #[error("sealing key {0} is given twice")]
    Duplicate(String),
}

/// Why a value was not sealed or does not open. Never contains the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The system has no randomness to give, or the value is longer than can be encrypted at once.
    #[error("the secret could not be sealed")]
    Seal,
    /// The bytes are too short or not laid out as a sealed value.
    #[error("the sealed secret is malformed")]
    Malformed,
    /// A version of the layout that this release does not know.
    #[error("the sealed secret has version {0}, which is not known")]
    UnknownVersion(u8),
    /// The key that sealed the value is not configured any more.
    #[error("the secret was sealed with key {0}, which is not configured")]
    UnknownKey(String),
    /// The value was changed, belongs to another place, or the key of this id is not the one that sealed it.
    #[error("the sealed secret was changed, or belongs to another row")]
    Refused,
}

/// The one place where a sealed value may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
    /// The organization that owns the row.
    pub organization: Uuid,
    /// The table's name.
    pub table: &'a str,
    /// The column's name.
    pub column: &'a str,
    /// The row's id.
    pub row: Uuid,
}

/// A key-encryption key of the installation: it wraps the keys of values, never a value.
pub struct SealingKey {
    id: String,
    key: LessSafeKey,
    derivation: hmac::Key,
}

impl SealingKey {
    /// Reads a key of 32 bytes in base64. The id is stored with what it seals, and is no secret.
    pub fn from_base64(id: &str, encoded: &str) -> Result<Self, KeyError> {
        if !is_key_id(id.as_bytes()) {
            return Err(KeyError::Id);
        }
        let malformed = || KeyError::Bytes(id.to_owned());
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| malformed())?);
        let key = aes_key(&bytes).map_err(|_| malformed())?;
        Ok(Self { id: id.to_owned(), key, derivation: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// The name by which sealed values know this key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The installation's keys: one that seals, and older ones that only open what they once sealed.
#[derive(Debug)]
pub struct SealingKeys {
    current: SealingKey,
    older: Vec<SealingKey>,
}

impl SealingKeys {
    /// Seals with `current`, and opens with any.
    pub fn new(current: SealingKey, older: Vec<SealingKey>) -> Result<Self, KeyError> {
        let mut ids: Vec<_> = older.iter().map(SealingKey::id).chain([current.id()]).collect();
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(KeyError::Duplicate(pair[0].to_owned())),
            None => Ok(Self { current, older }),
        }
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn current_id(&self) -> &str {
        &self.current.id
    }

    /// Encrypts `plaintext` so that it opens only in `context`.
    pub fn seal(&self, context: &SealContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut data_key = Zeroizing::new([0; KEY_LEN]);
        rand::fill(data_key.as_mut_slice()).map_err(|_| SealError::Seal)?;

        let mut blob = header(&self.current.id);
        let bound = authenticated(context, &blob);
        append_encrypted(&mut blob, &self.current.key, Part::DataKey, &bound, data_key.as_slice())?;
        let data_key = aes_key(data_key.as_slice()).map_err(|_| SealError::Seal)?;
        append_encrypted(&mut blob, &data_key, Part::Value, &bound, plaintext)?;
        Ok(blob)
    }

    /// Decrypts what was sealed for the same `context`.
    pub fn open(&self, context: &SealContext<'_>, blob: &[u8]) -> Result<SecretBytes, SealError> {
        let sealed = Sealed::parse(blob)?;
        let key = self.find(sealed.key_id)?;
        let bound = authenticated(context, sealed.header);
        let data_key = decrypt(&key.key, Part::DataKey, &bound, sealed.data_key)?;
        let data_key = aes_key(data_key.expose_secret()).map_err(|_| SealError::Refused)?;
        decrypt(&data_key, Part::Value, &bound, sealed.value)
    }

    /// A key for another purpose, made from the sealing key of this id; `None`: it is not configured.
    #[must_use]
    pub fn derive(&self, id: &str, purpose: &str) -> Option<hmac::Key> {
        let key = self.find(id).ok()?;
        let derived = hmac::sign(&key.derivation, format!("gantry derived key\0{purpose}").as_bytes());
        Some(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// Whether `blob` was sealed with the current key; if not, it should be opened and sealed again.
    pub fn is_current(&self, blob: &[u8]) -> Result<bool, SealError> {
        Ok(Sealed::parse(blob)?.key_id == self.current.id)
    }

    fn find(&self, id: &str) -> Result<&SealingKey, SealError> {
        std::iter::once(&self.current)
            .chain(&self.older)
            .find(|key| key.id == id)
            .ok_or_else(|| SealError::UnknownKey(id.to_owned()))
    }
}

/// A sealed value, taken apart and not yet believed.
struct Sealed<'a> {
    header: &'a [u8],
    key_id: &'a str,
    data_key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self, SealError> {
        let (&version, rest) = blob.split_first().ok_or(SealError::Malformed)?;
        if version != VERSION {
            return Err(SealError::UnknownVersion(version));
        }
        let (&id_len, rest) = rest.split_first().ok_or(SealError::Malformed)?;
        let (id, rest) = rest.split_at_checked(id_len.into()).ok_or(SealError::Malformed)?;
        if !is_key_id(id) {
            return Err(SealError::Malformed);
        }
        let key_id = str::from_utf8(id).map_err(|_| SealError::Malformed)?;
        let (data_key, value) = rest.split_at_checked(NONCE_LEN + KEY_LEN + TAG_LEN).ok_or(SealError::Malformed)?;
        Ok(Self { header: &blob[..2 + id.len()], key_id, data_key, value })
    }
}

/// What one of the two ciphertexts is, so that neither can stand in for the other.
#[derive(Clone, Copy)]
enum Part {
    DataKey = 1,
    Value = 2,
}

fn is_key_id(id: &[u8]) -> bool {
    (1..=KEY_ID_MAX).contains(&id.len())
        && id.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn aes_key(bytes: &[u8]) -> Result<LessSafeKey, aws_lc_rs::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new)
}

/// Everything before the ciphertexts. The length of an id is checked when its key is read, and fits a byte.
fn header(key_id: &str) -> Vec<u8> {
    let len = u8::try_from(key_id.len()).unwrap_or(u8::MAX);
    [&[VERSION, len], key_id.as_bytes()].concat()
}

/// The additional data of both ciphertexts, up to the byte that says which of them it is.
fn authenticated(context: &SealContext<'_>, header: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(128);
    data.extend_from_slice(header);
    data.extend_from_slice(context.organization.as_bytes());
    for name in [context.table, context.column] {
        data.extend_from_slice(&(name.len() as u64).to_be_bytes());
        data.extend_from_slice(name.as_bytes());
    }
    data.extend_from_slice(context.row.as_bytes());
    data
}

fn aad(part: Part, bound: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([&[part as u8], bound].concat())
}

/// Appends a fresh nonce, the ciphertext and its tag.
fn append_encrypted(
    blob: &mut Vec<u8>,
    key: &LessSafeKey,
    part: Part,
    bound: &[u8],
    plaintext: &[u8],
) -> Result<(), SealError> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| SealError::Seal)?;
    let mut text = Zeroizing::new(plaintext.to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad(part, bound), &mut text)
        .map_err(|_| SealError::Seal)?;
    blob.extend_from_slice(&nonce);
    blob.extend_from_slice(&text);
    blob.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Decrypts a nonce, ciphertext and tag into memory that is wiped again.
fn decrypt(key: &LessSafeKey, part: Part, bound: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Malformed)?;
    let (text, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(SealError::Malformed)?;
    let mut plaintext = SecretBytes::from(vec![0; text.len()]);
    key.open_separate_gather(
        Nonce::assume_unique_for_key(*nonce),
        aad(part, bound),
        text,
        tag,
        plaintext.expose_secret_mut(),
    )
    .map_err(|_| SealError::Refused)?;
    Ok(plaintext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: &str, byte: u8) -> SealingKey {
        SealingKey::from_base64(id, &STANDARD.encode([byte; 32])).unwrap()
    }

    fn keys() -> SealingKeys {
        SealingKeys::new(key("2026-11", 1), vec![]).unwrap()
    }

    fn context() -> SealContext<'static> {
        SealContext {
            organization: Uuid::from_u128(1),
            table: "webhook_endpoints",
            column: "secret",
            row: Uuid::from_u128(2),
        }
    }

    fn refusal(result: Result<SecretBytes, SealError>) -> SealError {
        result.map(|_| ()).unwrap_err()
    }

    #[test]
    fn what_is_sealed_opens_in_the_same_place_and_is_never_printed() {
        let blob = keys().seal(&context(), b"hunter2").unwrap();
        let opened = keys().open(&context(), &blob).unwrap();
        assert_eq!(opened.expose_secret(), b"hunter2");
        assert!(!blob.windows(7).any(|part| part == b"hunter2"));
        assert_eq!(format!("{opened:?}"), "SecretBox<[u8]>([REDACTED])");
        assert_eq!(format!("{:?}", key("a", 1)), r#"SealingKey { id: "a", .. }"#);
        assert_eq!(format!("{:?}", keys()), r#"SealingKeys { current: SealingKey { id: "2026-11", .. }, older: [] }"#);
    }

    #[test]
    fn the_same_secret_is_never_sealed_to_the_same_bytes() {
        assert_ne!(keys().seal(&context(), b"same").unwrap(), keys().seal(&context(), b"same").unwrap());
    }

    #[test]
    fn moved_to_another_tenant_table_column_or_row_it_does_not_open() {
        let blob = keys().seal(&context(), b"hunter2").unwrap();
        let elsewhere = [
            SealContext { organization: Uuid::from_u128(9), ..context() },
            SealContext { table: "servers", ..context() },
            SealContext { column: "token", ..context() },
            SealContext { row: Uuid::from_u128(9), ..context() },
            SealContext { table: "webhook_endpointss", column: "ecret", ..context() },
            SealContext { organization: context().row, row: context().organization, ..context() },
        ];
        for context in elsewhere {
            assert_eq!(refusal(keys().open(&context, &blob)), SealError::Refused, "{context:?}");
        }
    }

    #[test]
    fn after_a_rotation_old_values_open_and_new_ones_use_the_new_key() {
        let old = keys().seal(&context(), b"old").unwrap();
        let rotated = SealingKeys::new(key("2027-05", 2), vec![key("2026-11", 1)]).unwrap();
        assert_eq!(rotated.open(&context(), &old).unwrap().expose_secret(), b"old");
        assert_eq!(rotated.is_current(&old), Ok(false));

        let new = rotated.seal(&context(), b"new").unwrap();
        assert_eq!(rotated.is_current(&new), Ok(true));
        assert_eq!(refusal(keys().open(&context(), &new)), SealError::UnknownKey("2027-05".into()));
    }

    #[test]
    fn derived_keys_differ_by_key_and_purpose_and_are_the_same_again() {
        let both = SealingKeys::new(key("a", 1), vec![key("b", 2)]).unwrap();
        let tag = |id: &str, purpose: &str| {
            let key = both.derive(id, purpose).unwrap();
            hmac::sign(&key, b"text").as_ref().to_vec()
        };
        assert_eq!(tag("a", "one"), tag("a", "one"));
        assert_ne!(tag("a", "one"), tag("a", "two"));
        assert_ne!(tag("a", "one"), tag("b", "one"));
        assert!(both.derive("c", "one").is_none());
    }

    #[test]
    fn a_different_key_under_the_same_id_does_not_open() {
        let blob = keys().seal(&context(), b"hunter2").unwrap();
        let impostor = SealingKeys::new(key("2026-11", 7), vec![]).unwrap();
        assert_eq!(refusal(impostor.open(&context(), &blob)), SealError::Refused);
    }

    #[test]
    fn the_name_of_the_key_cannot_be_changed_even_to_the_same_key() {
        let mut blob = keys().seal(&context(), b"hunter2").unwrap();
        let both = SealingKeys::new(key("2026-11", 1), vec![key("2026-12", 1)]).unwrap();
        blob[2..9].copy_from_slice(b"2026-12");
        assert_eq!(refusal(both.open(&context(), &blob)), SealError::Refused);
    }

    #[test]
    fn parts_of_two_sealed_values_cannot_be_put_together() {
        let (one, two) = (keys().seal(&context(), b"one").unwrap(), keys().seal(&context(), b"two").unwrap());
        let cut = 2 + "2026-11".len() + NONCE_LEN + KEY_LEN + TAG_LEN;
        let mixed = [&one[..cut], &two[cut..]].concat();
        assert_eq!(refusal(keys().open(&context(), &mixed)), SealError::Refused);
    }

    #[test]
    fn another_version_is_named() {
        let mut blob = keys().seal(&context(), b"hunter2").unwrap();
        blob[0] = 2;
        assert_eq!(refusal(keys().open(&context(), &blob)), SealError::UnknownVersion(2));
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_being_shown() {
        let good = STANDARD.encode([1; 32]);
        for id in ["", "Upper", "with space", "a.b", &"x".repeat(33)] {
            assert_eq!(SealingKey::from_base64(id, &good).unwrap_err(), KeyError::Id, "{id}");
        }
        for bytes in ["", "not base64!", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
            assert_eq!(SealingKey::from_base64("k", bytes).unwrap_err(), KeyError::Bytes("k".into()));
        }
        let twice = SealingKeys::new(key("k", 1), vec![key("j", 2), key("k", 3)]);
        assert_eq!(twice.unwrap_err(), KeyError::Duplicate("k".into()));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut blob = keys().seal(&context(), b"hunter2").unwrap();
        for at in 0..blob.len() {
            for bit in 0..8 {
                blob[at] ^= 1 << bit;
                assert!(keys().open(&context(), &blob).is_err(), "bit {bit} of byte {at}");
                blob[at] ^= 1 << bit;
            }
        }
        assert!(keys().open(&context(), &blob).is_ok());
    }

    #[test]
    fn anything_cut_off_or_added_is_noticed() {
        let mut blob = keys().seal(&context(), b"hunter2").unwrap();
        for len in 0..blob.len() {
            assert!(keys().open(&context(), &blob[..len]).is_err(), "the first {len} bytes");
        }
        blob.push(0);
        assert_eq!(refusal(keys().open(&context(), &blob)), SealError::Refused);
    }

    proptest! {
        #[test]
        fn any_value_comes_back_whole(plaintext in prop::collection::vec(any::<u8>(), 0..4096)) {
            let blob = keys().seal(&context(), &plaintext).unwrap();
            let opened = keys().open(&context(), &blob).unwrap();
            prop_assert_eq!(opened.expose_secret(), plaintext.as_slice());
        }

        #[test]
        fn arbitrary_bytes_never_panic(blob in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(keys().open(&context(), &blob).is_err());
            drop(keys().is_current(&blob));
        }
    }
}
