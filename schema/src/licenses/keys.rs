//! What licenses are signed with, as text: PASERK `k4.public`, `k4.secret`, and `k4.pid`, which names a key.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::digest::consts::U33;
use blake2::{Blake2b, Digest as _};
use secrecy::SecretString;
use zeroize::Zeroizing;

const PUBLIC: &str = "k4.public.";
const SECRET: &str = "k4.secret.";
const ID: &str = "k4.pid.";

/// The text is no key of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins otherwise, or has another length.
    #[error("a key begins with {0}, followed by base64url without padding")]
    Form(&'static str),
    /// The public half is another key's.
    #[error("the two halves of the secret key do not belong together")]
    Halves,
    /// The machine has no randomness.
    #[error("no randomness can be had")]
    Random,
}

/// A key that verifies.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

/// A key that signs.
pub struct SecretKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

/// The name of a key, made of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(String);

fn decode(text: &str, prefix: &'static str, length: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bytes = text.trim().strip_prefix(prefix).and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok());
    bytes.filter(|bytes| bytes.len() == length).map(Zeroizing::new).ok_or(KeyError::Form(prefix))
}

impl PublicKey {
    /// A key of its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether its other half has signed this.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// What it is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = Blake2b::<U33>::new().chain_update(ID).chain_update(self.to_string()).finalize();
        KeyId(format!("{ID}{}", URL_SAFE_NO_PAD.encode(digest)))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, PUBLIC, 32)?;
        bytes.as_slice().try_into().map(Self).map_err(|_| KeyError::Form(PUBLIC))
    }
}

/// Several keys, with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKeys(pub Vec<PublicKey>);

impl FromStr for PublicKeys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl serde::Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl SecretKey {
    /// A new one.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        rand::fill(seed.as_mut_slice()).map_err(|_| KeyError::Random)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("32 bytes are a seed");
        Self { seed: Zeroizing::new(*seed), pair }
    }

    /// The key of its seed and its public half.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn from_bytes(bytes: &[u8; 64]) -> Result<Self, KeyError> {
        let (seed, public) = bytes.split_at(32);
        let key = Self::from_seed(seed.try_into().map_err(|_| KeyError::Form(SECRET))?);
        if key.public().0 == public { Ok(key) } else { Err(KeyError::Halves) }
    }

    /// What verifies.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// What it is made of, to be sealed.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// The key as text, `k4.secret.…`.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        let bytes = Zeroizing::new([self.seed.as_slice(), &self.public().0].concat());
        format!("{SECRET}{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())).into()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, SECRET, 64)?;
        Self::from_bytes(bytes.as_slice().try_into().map_err(|_| KeyError::Form(SECRET))?)
    }
}

impl KeyId {
    /// Takes a stored or sent name for one; it names a key only if one has it.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn keys_are_named_as_the_official_vectors_have_it() {
        let counting = |last: u8| {
            let mut bytes = [0; 32];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = 0x70 + u8::try_from(index).unwrap();
            }
            bytes[31] = last;
            PublicKey::from_bytes(bytes).id().to_string()
        };
        let zeros = PublicKey::from_bytes([0; 32]).id().to_string();
        assert_eq!(zeros, "k4.pid.S_XQmeEwHbbvRmiyfXfHYpLGjXGzjTRSDoT1YtTakWFE");
        assert_eq!(counting(0x8f), "k4.pid.9ShR3xc8-qVJ_di0tc9nx0IDIqbatdeM2mqLFBJsKRHs");
        assert_eq!(counting(0x90), "k4.pid.-nyvbaTz8U6TQz7OZWW-iB3va31iAxIpUgzUcVQVmW9A");
    }

    #[test]
    fn keys_are_read_back_from_their_text_and_nothing_else() {
        let key = SecretKey::generate().unwrap();
        let text = key.reveal();
        let read: SecretKey = text.expose_secret().parse().unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        let other = SecretKey::generate().unwrap();
        let mixed = [key.seed().as_slice(), &other.public().0].concat();
        assert_eq!(SecretKey::from_bytes(&mixed.try_into().unwrap()).unwrap_err(), KeyError::Halves);
        for wrong in ["", "k4.public.", "k4.public.AAAA", "k3.public.AAAA", text.expose_secret()] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(KeyError::Form(PUBLIC)), "{}", wrong.len());
        }
        assert!(!format!("{key:?}").contains(text.expose_secret().get(11..30).unwrap()));
    }
}
