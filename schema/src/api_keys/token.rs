//! The text of an API key: `gk_` and 43 characters. Only its hash is stored.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};

/// An API key as its holder has it.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

/// The text is not an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key is `gk_` followed by 43 letters, digits, `-` or `_`")]
pub struct InvalidToken;

const PREFIX: &str = "gk_";

impl Token {
    /// A new key: 256 random bits.
    pub fn generate(random: &mut impl rand::Rng) -> Self {
        let secret: [u8; 32] = random.random();
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)).into())
    }

    /// Reads a presented key.
    ///
    /// # Errors
    /// When the text cannot be one.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let secret = text.strip_prefix(PREFIX).ok_or(InvalidToken)?;
        match URL_SAFE_NO_PAD.decode(secret) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(text.into())),
            _ => Err(InvalidToken),
        }
    }

    /// What is stored. The key has full entropy, so a plain hash is enough.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.expose_secret().as_bytes()).as_ref());
        hash
    }

    /// The beginning, by which people recognise it.
    #[must_use]
    pub fn hint(&self) -> String {
        self.0.expose_secret().chars().take(PREFIX.len() + 6).collect()
    }

    /// The whole text, to be shown once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_token_is_read_back_and_recognised_by_its_hash() {
        let token = Token::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        let read = Token::parse(token.expose()).unwrap();
        assert_eq!(read.hash(), token.hash());
        assert!(token.expose().starts_with(&token.hint()));
        let rest: String = token.expose().chars().skip(9).collect();
        assert!(!format!("{token:?}").contains(&rest));
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in [
            "",
            "gk_",
            "gk_short",
            "sk_0123456789012345678901234567890123456789012",
            "gk_0123456789012345678901234567890123456789é",
        ] {
            assert_eq!(Token::parse(text).err(), Some(InvalidToken), "{text}");
        }
    }
}
