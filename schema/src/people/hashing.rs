//! How passwords are kept: Argon2id (RFC 9106) with a salt each, and a pepper that lies outside the database.
//!
//! It is slow and takes memory by design: callers run it off the async threads, and few at a time.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretSlice};

use super::Typed;

/// How passwords are hashed.
#[derive(Clone)]
pub struct Hasher {
    params: Params,
    pepper: Option<SecretSlice<u8>>,
    /// Of no password anybody has: what is verified for those who have none.
    nobodys: String,
}

/// A hash, and what went into it.
#[derive(Clone)]
pub struct Hashed {
    /// A PHC string.
    pub text: String,
    /// A pepper went into it.
    pub peppered: bool,
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashed").field("peppered", &self.peppered).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher").field("params", &self.params).finish_non_exhaustive()
    }
}

/// What a password that was typed is to a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The right one.
    Right,
    /// The right one; its hash should be made anew, for it was made more cheaply or without the pepper.
    Outdated,
    /// Another one.
    Wrong,
}

/// A hash could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The costs are none that Argon2 takes.
    #[error("these costs are none that Argon2 takes")]
    Cost,
    /// There was not enough memory, or the hash in the table is none.
    #[error("hashing a password")]
    Hash(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The hash was made with a pepper, and none is configured.
    #[error("the password was hashed with a pepper, and GANTRY_PASSWORD_PEPPER is not set")]
    NoPepper,
}

impl From<argon2::password_hash::Error> for HashError {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Hash(error.to_string().into())
    }
}

/// What goes into the hashes of several short secrets of one person, so that one that is typed is hashed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt {
    /// Chance.
    pub bytes: [u8; SALT],
    /// A pepper goes into them.
    pub peppered: bool,
}

/// The hash of a short secret with a [`Salt`].
#[derive(Clone, Copy)]
pub struct Salted(pub [u8; 32]);

impl std::fmt::Debug for Salted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salted([REDACTED])")
    }
}

/// What OWASP's cheat sheet asks for at least: 19 MiB, two passes, one lane.
const OWASP: (u32, u32, u32) = (19_456, 2, 1);

/// A salt of no secret: it only makes hashes differ.
const SALT: usize = 16;

impl Hasher {
    /// As a server hashes.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(pepper: Option<SecretSlice<u8>>, random: &mut impl rand::CryptoRng) -> Result<Self, HashError> {
        Self::costing(OWASP, pepper, random)
    }

    /// With other costs: KiB of memory, passes, lanes.
    ///
    /// # Errors
    /// When Argon2 takes no such costs, or there is no memory.
    pub fn costing(
        (memory, passes, lanes): (u32, u32, u32),
        pepper: Option<SecretSlice<u8>>,
        random: &mut impl rand::CryptoRng,
    ) -> Result<Self, HashError> {
        let params = Params::new(memory, passes, lanes, None).map_err(|_| HashError::Cost)?;
        let mut hasher = Self { params, pepper, nobodys: String::new() };
        let nobody: [u8; 32] = random.random();
        hasher.nobodys = hasher.hash_bytes(&nobody, random)?;
        Ok(hasher)
    }

    /// A hash to keep.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn hash(&self, password: &Typed, random: &mut impl rand::CryptoRng) -> Result<Hashed, HashError> {
        Ok(Hashed { text: self.hash_bytes(password.expose(), random)?, peppered: self.pepper.is_some() })
    }

    fn hash_bytes(&self, password: &[u8], random: &mut impl rand::CryptoRng) -> Result<String, HashError> {
        let salt: [u8; SALT] = random.random();
        Ok(self.argon2(self.pepper.is_some())?.hash_password_with_salt(password, &salt)?.to_string())
    }

    /// A salt for new secrets.
    pub fn salt(&self, random: &mut impl rand::CryptoRng) -> Salt {
        Salt { bytes: random.random(), peppered: self.pepper.is_some() }
    }

    /// The hash of a short secret.
    ///
    /// # Errors
    /// When there is no memory, or a pepper is missing.
    pub fn salted(&self, secret: &[u8], salt: &Salt) -> Result<Salted, HashError> {
        let mut hash = [0; 32];
        let made = self.argon2(salt.peppered)?.hash_password_into(secret, &salt.bytes, &mut hash);
        made.map_err(|error| HashError::Hash(error.to_string().into()))?;
        Ok(Salted(hash))
    }

    fn argon2(&self, peppered: bool) -> Result<Argon2<'_>, HashError> {
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, self.params.clone());
        match (&self.pepper, peppered) {
            (Some(pepper), true) => {
                Argon2::new_with_secret(pepper.expose_secret(), algorithm, version, params).map_err(|_| HashError::Cost)
            }
            (None, true) => Err(HashError::NoPepper),
            (_, false) => Ok(Argon2::new(algorithm, version, params)),
        }
    }

    /// Compares what was typed with a hash.
    ///
    /// # Errors
    /// When the hash cannot be read.
    pub fn verify(&self, password: &Typed, kept: &Hashed) -> Result<Verdict, HashError> {
        let hash = PasswordHash::new(&kept.text).map_err(|error| HashError::Hash(error.to_string().into()))?;
        match self.argon2(kept.peppered)?.verify_password(password.expose(), &hash) {
            Ok(()) => {
                let params = Params::try_from(&hash)?;
                let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
                let current = hash.algorithm.as_str() == Algorithm::Argon2id.as_str()
                    && cost(&params) == cost(&self.params)
                    && kept.peppered == self.pepper.is_some();
                Ok(if current { Verdict::Right } else { Verdict::Outdated })
            }
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(Verdict::Wrong),
            Err(error) => Err(error.into()),
        }
    }

    /// Does the work of [`Self::verify`] for somebody who has no password: from how long an answer takes nobody learns
    /// whether there is an account.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn verify_nobodys(&self, password: &Typed) -> Result<(), HashError> {
        let kept = Hashed { text: self.nobodys.clone(), peppered: self.pepper.is_some() };
        self.verify(password, &kept).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const CHEAP: (u32, u32, u32) = (8, 1, 1);

    fn hasher(cost: (u32, u32, u32), pepper: Option<&[u8]>) -> Hasher {
        let pepper = pepper.map(|pepper| pepper.to_vec().into());
        Hasher::costing(cost, pepper, &mut rand::rngs::StdRng::seed_from_u64(1)).unwrap()
    }

    fn hashed(hasher: &Hasher, password: &str) -> Hashed {
        hasher.hash(&Typed::new(password), &mut rand::rngs::StdRng::seed_from_u64(2)).unwrap()
    }

    #[test]
    fn the_right_password_is_told_from_others_and_salts_differ() {
        let hasher = hasher(CHEAP, None);
        let kept = hashed(&hasher, "correct horse battery");
        assert!(kept.text.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{}", kept.text);
        assert_eq!(hasher.verify(&Typed::new("correct horse battery"), &kept).unwrap(), Verdict::Right);
        for wrong in ["", "correct horse batterz", "correct horse battery ", "Correct horse battery"] {
            assert_eq!(hasher.verify(&Typed::new(wrong), &kept).unwrap(), Verdict::Wrong, "{wrong}");
        }
        let other =
            hasher.hash(&Typed::new("correct horse battery"), &mut rand::rngs::StdRng::seed_from_u64(3)).unwrap();
        assert_ne!(other.text, kept.text);
        assert!(hasher.verify_nobodys(&Typed::new("anything")).is_ok());
    }

    #[test]
    fn a_password_that_goes_on_after_the_longest_is_no_prefix_of_itself() {
        let hasher = hasher(CHEAP, None);
        let longest: String = "ab3".chars().cycle().take(super::super::rules::LONGEST).collect();
        let kept = hashed(&hasher, &longest);
        assert_eq!(hasher.verify(&Typed::new(&longest), &kept).unwrap(), Verdict::Right);
        assert_eq!(hasher.verify(&Typed::new(&format!("{longest}x")), &kept).unwrap(), Verdict::Wrong);
    }

    #[test]
    fn hashes_that_were_cheaper_or_had_no_pepper_are_outdated() {
        let (plain, dearer, peppered) = (hasher(CHEAP, None), hasher((16, 1, 1), None), hasher(CHEAP, Some(b"pepper")));
        let kept = hashed(&plain, "correct horse battery");
        let typed = Typed::new("correct horse battery");
        assert_eq!(dearer.verify(&typed, &kept).unwrap(), Verdict::Outdated);
        assert_eq!(peppered.verify(&typed, &kept).unwrap(), Verdict::Outdated);
        let kept = hashed(&peppered, "correct horse battery");
        assert_eq!(peppered.verify(&typed, &kept).unwrap(), Verdict::Right);
        assert_eq!(hasher(CHEAP, Some(b"other")).verify(&typed, &kept).unwrap(), Verdict::Wrong);
        assert!(matches!(plain.verify(&typed, &kept), Err(HashError::NoPepper)));
        assert!(plain.verify(&typed, &Hashed { text: "none".to_owned(), peppered: false }).is_err());
    }

    #[test]
    fn a_server_takes_what_owasp_asks_for() {
        let hasher = Hasher::new(None, &mut rand::rngs::StdRng::seed_from_u64(1)).unwrap();
        assert!(hasher.nobodys.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hasher.nobodys);
    }
}
