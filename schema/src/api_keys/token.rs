//! The text of an API key: `gk_`, 43 characters and a checksum of 6. Only its hash is stored.
//!
//! The prefix lets people and scanners of repositories recognise a key, and the checksum tells one that was mistyped or
//! made up from one that was given out, without asking anybody.

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
pub enum InvalidToken {
    /// It does not look like one.
    #[error("an API key is `gk_` followed by 49 letters, digits, `-` or `_`")]
    Form,
    /// It looks like one, and never was.
    #[error("the checksum of the API key is wrong: it was mistyped or cut off; copy it again")]
    Checksum,
}

const PREFIX: &str = "gk_";

/// Characters of the random part.
const RANDOM: usize = 43;

/// Characters of the checksum.
const CHECKSUM: usize = 6;

impl Token {
    /// A new key: 256 random bits.
    pub fn generate(random: &mut impl rand::Rng) -> Self {
        let secret: [u8; 32] = random.random();
        let begin = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        let checksum = checksum(&begin);
        Self((begin + &checksum).into())
    }

    /// Reads a presented key.
    ///
    /// # Errors
    /// When the text cannot be one.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix(PREFIX).ok_or(InvalidToken::Form)?;
        let (secret, sum) = rest
            .split_at_checked(RANDOM)
            .filter(|(_, sum)| sum.len() == CHECKSUM && sum.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .ok_or(InvalidToken::Form)?;
        match URL_SAFE_NO_PAD.decode(secret) {
            Ok(bytes) if bytes.len() == 32 => {}
            _ => return Err(InvalidToken::Form),
        }
        if checksum(&format!("{PREFIX}{secret}")) != sum {
            return Err(InvalidToken::Checksum);
        }
        Ok(Self(text.into()))
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

/// The CRC-32 of a text, as six digits of base 62.
fn checksum(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32 as in ISO 3309 and in zip files.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn token() -> Token {
        Token::generate(&mut rand::rngs::StdRng::seed_from_u64(1))
    }

    #[test]
    fn a_token_is_read_back_and_recognised_by_its_hash() {
        let token = token();
        let read = Token::parse(token.expose()).unwrap();
        assert_eq!(read.hash(), token.hash());
        assert!(token.expose().starts_with(&token.hint()));
        assert_eq!(token.expose().len(), 52);
        let rest: String = token.expose().chars().skip(9).collect();
        assert!(!format!("{token:?}").contains(&rest));
    }

    #[test]
    fn what_is_not_a_token_is_refused() {
        for text in [
            "",
            "gk_",
            "gk_short",
            "sk_0123456789012345678901234567890123456789012345678",
            "gk_0123456789012345678901234567890123456789012",
            "gk_0123456789012345678901234567890123456789é345678",
            &format!("gk_{}", "0".repeat(100_000)),
        ] {
            assert_eq!(Token::parse(text).err(), Some(InvalidToken::Form), "{text:.60}");
        }
    }

    #[test]
    fn a_token_with_one_character_wrong_was_never_given_out() {
        let right = token().expose().to_owned();
        for at in PREFIX.len()..right.len() {
            let other = if right.as_bytes()[at] == b'A' { "E" } else { "A" };
            let mut wrong = right.clone();
            wrong.replace_range(at..=at, other);
            assert!(Token::parse(&wrong).is_err(), "{at}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_that_everybody_can_compute() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum("123456789"), "3jZRME");
    }
}
