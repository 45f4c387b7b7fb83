//! What the URL of a bin ends in.

use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;

/// Letters and digits that cannot be mistaken for each other.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters: 130 bits that nobody guesses.
const LENGTH: usize = 26;

/// What the URL of a bin ends in: who has it may send to the bin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BinToken(String);

/// The text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL of a bin ends in 26 letters and digits")]
pub struct InvalidToken;

impl BinToken {
    /// A new token, of a source of randomness that must be a cryptographic one.
    #[must_use]
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        let character = |_| char::from(ALPHABET[usize::from(random.random::<u8>() % 32)]);
        Self((0..LENGTH).map(character).collect())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let valid = text.len() == LENGTH && text.bytes().all(|byte| ALPHABET.contains(&byte));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidToken) }
    }
}

impl fmt::Display for BinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn tokens_are_read_back_and_nothing_else_is_a_token() {
        let token = BinToken::generate(&mut rand::rngs::StdRng::seed_from_u64(7));
        assert_eq!(token.as_str().parse(), Ok(token.clone()));
        for bad in ["", "a", "'; drop table jobs; --xxxxxxxx", &"a".repeat(27), &"u".repeat(26), &"A".repeat(26)] {
            assert!(bad.parse::<BinToken>().is_err(), "{bad}");
        }
    }
}
