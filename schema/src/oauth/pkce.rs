//! Proof Key for Code Exchange (RFC 7636), by S256 only: whoever exchanges a code is who asked for it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::digest::{constant_time_eq, sha256_alone};

/// What the code is asked for with: the digest of the verifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(String);

/// The text is no challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a code_challenge is the SHA-256 of the verifier in base64url: 43 letters, digits, - or _")]
pub struct InvalidChallenge;

impl Challenge {
    /// Whether this verifier is the one that the challenge was made of (RFC 7636, 4.6).
    #[must_use]
    pub fn is_of(&self, verifier: &str) -> bool {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(unreserved)
            && constant_time_eq(URL_SAFE_NO_PAD.encode(sha256_alone(verifier.as_bytes())).as_bytes(), self.0.as_bytes())
    }

    /// As it was sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Challenge {
    type Err = InvalidChallenge;

    fn from_str(text: &str) -> Result<Self, InvalidChallenge> {
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(digest) if digest.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(InvalidChallenge),
        }
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_vector_of_rfc_7636_fits() {
        assert!(CHALLENGE.parse::<Challenge>().unwrap().is_of(VERIFIER));
    }

    #[test]
    fn another_verifier_and_the_challenge_itself_do_not_fit() {
        let challenge: Challenge = CHALLENGE.parse().unwrap();
        let (short, long, huge) = ("a".repeat(42), "a".repeat(129), "a".repeat(1 << 20));
        // The challenge as its own verifier is what `plain` would take.
        for wrong in ["", CHALLENGE, &VERIFIER.to_lowercase(), &format!("{VERIFIER}a"), &short, &long, &huge] {
            assert!(!challenge.is_of(wrong));
        }
        let spaced: Challenge = URL_SAFE_NO_PAD.encode(sha256_alone("a ".repeat(25).as_bytes())).parse().unwrap();
        assert!(!spaced.is_of(&"a ".repeat(25)));
    }

    #[test]
    fn what_is_no_digest_is_no_challenge() {
        for bad in ["", "short", &format!("{CHALLENGE}="), &format!("{CHALLENGE}A"), &CHALLENGE.replace('-', "+")] {
            assert_eq!(bad.parse::<Challenge>(), Err(InvalidChallenge), "{bad}");
        }
    }
}
