//! Secrets that are given out once and kept as hashes: a prefix that says what it is, and 43 characters of chance.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use crate::digest::sha256_alone;

/// What a token is for.
pub trait Kind: 'static {
    /// What it begins with.
    const PREFIX: &'static str;
}

/// A token as its holder has it: 256 random bits.
pub struct Token<K> {
    text: SecretString,
    kind: PhantomData<fn() -> K>,
}

/// The text is no token of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is to begin with {prefix}, followed by 43 letters, digits, - or _")]
pub struct InvalidToken {
    /// What tokens of this kind begin with.
    pub prefix: &'static str,
}

/// Characters after the prefix.
const LENGTH: usize = 43;

impl<K: Kind> Token<K> {
    /// A new token, of a source of randomness that must be a cryptographic one.
    pub fn generate(random: &mut impl rand::CryptoRng) -> Self {
        let secret: [u8; 32] = random.random();
        Self { text: format!("{}{}", K::PREFIX, URL_SAFE_NO_PAD.encode(secret)).into(), kind: PhantomData }
    }

    /// Reads a presented token.
    ///
    /// # Errors
    /// When the text cannot be one.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let invalid = InvalidToken { prefix: K::PREFIX };
        let secret = text.strip_prefix(K::PREFIX).filter(|secret| secret.len() == LENGTH).ok_or(invalid)?;
        match URL_SAFE_NO_PAD.decode(secret) {
            Ok(_) => Ok(Self { text: text.into(), kind: PhantomData }),
            Err(_) => Err(invalid),
        }
    }

    /// What is stored. The token has full entropy, so a plain hash is enough.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256_alone(self.text.expose_secret().as_bytes())
    }

    /// The whole text, for whom it is meant.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl<K> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([REDACTED])")
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident, $token:ident = $prefix:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy)]
            pub enum $name {}

            impl Kind for $name {
                const PREFIX: &'static str = $prefix;
            }

            $(#[$doc])*
            pub type $token = Token<$name>;
        )*
    };
}

kinds! {
    /// Opens a browser's session.
    Cookie, CookieToken = "gsc_";
    /// Opens a program's session, for some minutes.
    Access, AccessToken = "gsa_";
    /// Is exchanged for the next access token, once.
    Refresh, RefreshToken = "gsr_";
    /// Was sent to somebody, to prove that it reached him.
    OneTime, OneTimeToken = "got_";
    /// Goes on with a sign-in whose first step is done.
    SignIn, SignInToken = "gsp_";
    /// Was sent to somebody who is to become a member.
    Invite, InviteToken = "gin_";
    /// Is exchanged for an application's tokens, once and at once.
    Code, CodeToken = "goc_";
    /// Is exchanged for an application's next access token, once.
    OauthRefresh, OauthRefreshToken = "gor_";
    /// Is what a confidential application proves itself with.
    ClientSecret, ClientSecretToken = "gos_";
    /// Is what a device asks with until somebody has decided.
    Device, DeviceToken = "god_";
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_token_is_read_back_as_what_it_is_and_as_nothing_else() {
        let token = AccessToken::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        assert_eq!(AccessToken::parse(token.expose()).unwrap().hash(), token.hash());
        assert!(RefreshToken::parse(token.expose()).is_err());
        let secret = token.expose().trim_start_matches("gsa_");
        assert!(!format!("{token:?}").contains(secret));
    }

    #[test]
    fn truncated_lengthened_and_other_texts_are_refused() {
        let token = AccessToken::generate(&mut rand::rngs::StdRng::seed_from_u64(1));
        let (text, huge) = (token.expose(), "a".repeat(1 << 20));
        let first = |count: usize| text.chars().take(count).collect::<String>();
        for bad in ["", "gsa_", &first(46), &first(20), &format!("{text}A"), &format!("gsa_{huge}"), &huge] {
            assert!(AccessToken::parse(bad).is_err());
        }
        assert!(AccessToken::parse(&format!("gsa_{}", "é".repeat(21))).is_err());
    }
}
