//! What signs, and what verifies.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What a symmetric secret begins with when it is shown.
const SYMMETRIC: &str = "whsec_";
/// What the private half of a key pair begins with when it is shown.
const PRIVATE: &str = "whsk_";
/// What the public half begins with.
const PUBLIC: &str = "whpk_";

/// Bytes of an Ed25519 seed, and of a public key.
const ED25519_BYTES: usize = 32;

/// How a signature is made; also the version it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HMAC-SHA256: both sides have the secret.
    V1,
    /// Ed25519: the receiver has the public key only.
    V1a,
}

impl Scheme {
    /// The word in a signature and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scheme {
    type Err = SecretError;

    fn from_str(word: &str) -> Result<Self, SecretError> {
        [Self::V1, Self::V1a].into_iter().find(|scheme| scheme.as_str() == word).ok_or(SecretError::Scheme)
    }
}

/// Why a text is not a key. Never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text begins like no key.
    #[error("a signing secret begins with whsec_ (v1) or whsk_ (v1a)")]
    Prefix,
    /// The text begins like no key that verifies.
    #[error("what verifies begins with whsec_ (v1) or whpk_ (v1a)")]
    PublicPrefix,
    /// What follows the prefix is not standard base64 with padding.
    #[error("a signing secret is base64 after its prefix")]
    Encoding,
    /// The secret is shorter or longer than the standard allows.
    #[error("a signing secret has 24 to 64 bytes, this one has {0}")]
    Length(usize),
    /// A private key is a seed, or a seed and its public key.
    #[error("an Ed25519 key has 32 bytes, or 64 with its public half; this one has {0}")]
    KeyLength(usize),
    /// The public half belongs to another private one.
    #[error("the public half of the key does not belong to its private half")]
    Halves,
    /// A stored word that names no scheme.
    #[error("the schemes of signatures are v1 and v1a")]
    Scheme,
}

/// What one receiver's deliveries are signed with. Forgotten from memory when dropped, and never printed.
#[derive(Clone)]
pub struct SigningSecret {
    bytes: SecretSlice<u8>,
    key: Arc<Key>,
}

/// Prepared once: signing must be cheap.
enum Key {
    V1(Box<hmac::Key>),
    V1a(Ed25519KeyPair),
}

impl SigningSecret {
    /// How many random bytes a new secret has.
    pub const BYTES: usize = 32;

    /// Reads `whsec_…` or `whsk_…`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if let Some(encoded) = text.strip_prefix(SYMMETRIC) {
            return Self::from_parts(Scheme::V1, &decode(encoded)?);
        }
        let bytes = decode(text.strip_prefix(PRIVATE).ok_or(SecretError::Prefix)?)?;
        let (seed, public) = bytes.split_at_checked(ED25519_BYTES).ok_or(SecretError::KeyLength(bytes.len()))?;
        let secret = Self::from_parts(Scheme::V1a, seed)?;
        match public.len() {
            0 => Ok(secret),
            ED25519_BYTES if secret.public_bytes() == Some(public) => Ok(secret),
            ED25519_BYTES => Err(SecretError::Halves),
            _ => Err(SecretError::KeyLength(bytes.len())),
        }
    }

    /// Makes a secret of bytes that must come from a cryptographic source of randomness.
    #[must_use]
    pub fn generate(scheme: Scheme, random: &[u8; Self::BYTES]) -> Self {
        Self::from_parts(scheme, random).expect("32 bytes are a secret of either scheme")
    }

    /// Takes back the bytes that [`SigningSecret::bytes`] gave to be sealed.
    pub fn from_parts(scheme: Scheme, bytes: &[u8]) -> Result<Self, SecretError> {
        let key = match (scheme, bytes.len()) {
            (Scheme::V1, 24..=64) => Key::V1(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))),
            (Scheme::V1, other) => return Err(SecretError::Length(other)),
            (Scheme::V1a, other) => {
                Key::V1a(Ed25519KeyPair::from_seed_unchecked(bytes).map_err(|_rejected| SecretError::KeyLength(other))?)
            }
        };
        Ok(Self { bytes: bytes.to_vec().into(), key: Arc::new(key) })
    }

    /// How it signs.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match *self.key {
            Key::V1(_) => Scheme::V1,
            Key::V1a(_) => Scheme::V1a,
        }
    }

    /// The bytes themselves, to be sealed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.expose_secret()
    }

    /// The text of the secret: what a receiver of `v1` signatures is shown, once.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        let mut bytes = Zeroizing::new(self.bytes().to_vec());
        bytes.extend_from_slice(self.public_bytes().unwrap_or_default());
        let mut text = Zeroizing::new(String::with_capacity(SYMMETRIC.len() + 88));
        text.push_str(match self.scheme() {
            Scheme::V1 => SYMMETRIC,
            Scheme::V1a => PRIVATE,
        });
        STANDARD.encode_string(bytes.as_slice(), &mut text);
        SecretString::from(text.as_str())
    }

    /// What a receiver of `v1a` signatures verifies with, `whpk_…`.
    #[must_use]
    pub fn public_key(&self) -> Option<String> {
        self.public_bytes().map(|bytes| format!("{PUBLIC}{}", STANDARD.encode(bytes)))
    }

    fn public_bytes(&self) -> Option<&[u8]> {
        match &*self.key {
            Key::V1(_) => None,
            Key::V1a(pair) => Some(pair.public_key().as_ref()),
        }
    }

    /// Signs the concatenation of the parts.
    pub(super) fn sign(&self, parts: &[&[u8]]) -> Vec<u8> {
        match &*self.key {
            Key::V1(key) => authenticate(key, parts).as_ref().to_vec(),
            Key::V1a(pair) => pair.sign(&parts.concat()).as_ref().to_vec(),
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret([REDACTED])")
    }
}

/// What a receiver verifies with.
#[derive(Clone)]
pub struct VerifyingKey(Verifying);

#[derive(Clone)]
enum Verifying {
    V1(Box<hmac::Key>),
    V1a(UnparsedPublicKey<Vec<u8>>),
}

impl VerifyingKey {
    /// Reads `whsec_…` or `whpk_…`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        if text.starts_with(SYMMETRIC) {
            return SigningSecret::parse(text).map(|secret| Self::from(&secret));
        }
        let bytes = decode(text.strip_prefix(PUBLIC).ok_or(SecretError::PublicPrefix)?)?;
        match bytes.len() {
            ED25519_BYTES => Ok(Self(Verifying::V1a(UnparsedPublicKey::new(&ED25519, bytes.to_vec())))),
            other => Err(SecretError::KeyLength(other)),
        }
    }

    /// Which signatures it verifies.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match self.0 {
            Verifying::V1(_) => Scheme::V1,
            Verifying::V1a(_) => Scheme::V1a,
        }
    }

    /// Whether the base64 of a signature was made over the concatenation of the parts.
    pub(super) fn accepts(&self, parts: &[&[u8]], signature: &str) -> bool {
        match &self.0 {
            // Compared as text: another spelling of the same bytes is another signature.
            Verifying::V1(key) => {
                STANDARD.encode(authenticate(key, parts)).as_bytes().ct_eq(signature.as_bytes()).into()
            }
            Verifying::V1a(key) => {
                STANDARD.decode(signature).is_ok_and(|signature| key.verify(&parts.concat(), &signature).is_ok())
            }
        }
    }
}

impl From<&SigningSecret> for VerifyingKey {
    fn from(secret: &SigningSecret) -> Self {
        Self(match &*secret.key {
            Key::V1(key) => Verifying::V1(key.clone()),
            Key::V1a(pair) => Verifying::V1a(UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref().to_vec())),
        })
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.scheme())
    }
}

fn decode(encoded: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_malformed| SecretError::Encoding)
}

/// Takes the content in parts, so that a body is not copied to be signed.
pub(super) fn authenticate(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}
