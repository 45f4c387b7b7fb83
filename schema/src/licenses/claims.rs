//! What a license says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::domain::DomainRule;
use super::features::is_name;
use super::keys::PublicKey;
use crate::{LicenseId, OrganizationId};

/// The version of what is written here. Another one is not understood, so that a restriction is never overlooked.
pub const VERSION: u8 = 1;

/// What an instance is called in a license that any may use.
pub const ANY_INSTANCE: &str = "*";

/// Names in a list, at most.
const MAX_NAMES: usize = 200;

/// The longest of the times a license gives, in seconds: a hundred years.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

/// For how long it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To try it out.
    Trial,
    /// As long as it is paid for.
    Subscription,
    /// For good.
    Perpetual,
}

impl Kind {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Subscription => "subscription",
            Self::Perpetual => "perpetual",
        }
    }
}

/// What becomes of a feature when the license ends. What runs goes on running in any of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It goes on as before.
    Continue,
    /// What is there is changed, and nothing is added.
    #[default]
    NoGrowth,
    /// What is there is looked at.
    ReadOnly,
    /// It is gone, but for what runs.
    Stop,
}

impl Mode {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::NoGrowth => "no_growth",
            Self::ReadOnly => "read_only",
            Self::Stop => "stop",
        }
    }
}

/// That the holder may give narrower licenses to organizations below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// What they are signed with.
    pub key: PublicKey,
    /// How many may stand one below the other.
    pub depth: u8,
    /// The most each of them has; what is not named is as the license itself has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lim: BTreeMap<String, Option<u64>>,
    /// Where they may be used; empty: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dom: Vec<DomainRule>,
}

/// A license.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`VERSION`].
    pub ver: u8,
    /// Its id.
    pub jti: LicenseId,
    /// Who gave it.
    pub iss: String,
    /// Whose it is.
    pub sub: OrganizationId,
    /// The instance where it may be used, or [`ANY_INSTANCE`].
    pub aud: String,
    /// When it was made.
    pub iat: DateTime<Utc>,
    /// From when on.
    pub nbf: DateTime<Utc>,
    /// Until when; absent: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<DateTime<Utc>>,
    /// For how long it was given.
    pub typ: Kind,
    /// The name of its tier; what it has stands in the license itself.
    pub tier: String,
    /// Its features.
    #[serde(default)]
    pub feat: BTreeSet<String>,
    /// How many there may be of something; null, or not named: any number.
    #[serde(default)]
    pub lim: BTreeMap<String, Option<u64>>,
    /// Host names where it may be used; empty: anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dom: Vec<DomainRule>,
    /// For how many seconds after its end it goes on.
    #[serde(default)]
    pub grace: u64,
    /// What becomes of a feature after that; not named: [`Mode::NoGrowth`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deg: BTreeMap<String, Mode>,
    /// Features that grow no more from its end on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gra: BTreeSet<String>,
    /// Counts the licenses of the organization; the highest one is in force, and none before it comes back.
    pub seq: u64,
    /// The license of which it is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub par: Option<LicenseId>,
    /// That others may be made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cld: Option<Delegation>,
    /// For how many seconds it goes on without news of what was revoked; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<u64>,
    /// The list of what was revoked that its issuer had when he made it.
    #[serde(default)]
    pub epo: u64,
}

/// What a license says is not in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClaims {
    /// It is of another version.
    #[error("this release reads version {VERSION} of licenses, not {0}")]
    Version(u8),
    /// It ends before it begins.
    #[error("exp is not after nbf")]
    Times,
    /// A word is none.
    #[error("{0:?} is no name; a letter, then up to 49 letters, digits and _")]
    Name(String),
    /// It has more names than a license has.
    #[error("a list has more than {MAX_NAMES} names")]
    TooMany,
    /// A time is longer than anything.
    #[error("{0} is longer than a hundred years")]
    Seconds(&'static str),
}

impl Claims {
    /// Whether it is in order in itself.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<(), InvalidClaims> {
        if self.ver != VERSION {
            return Err(InvalidClaims::Version(self.ver));
        }
        if self.exp.is_some_and(|exp| exp <= self.nbf) {
            return Err(InvalidClaims::Times);
        }
        let ceilings = self.cld.iter().flat_map(|cld| cld.lim.keys());
        let names = self.feat.iter().chain(self.lim.keys()).chain(self.deg.keys()).chain(&self.gra).chain(ceilings);
        if let Some(wrong) = names.chain([&self.tier]).find(|name| !is_name(name)) {
            return Err(InvalidClaims::Name(wrong.clone()));
        }
        if [self.feat.len(), self.lim.len(), self.deg.len(), self.gra.len(), self.dom.len()]
            .iter()
            .any(|n| *n > MAX_NAMES)
        {
            return Err(InvalidClaims::TooMany);
        }
        for (name, seconds) in [("grace", self.grace), ("off", self.off.unwrap_or(0))] {
            if seconds > MAX_SECONDS {
                return Err(InvalidClaims::Seconds(name));
            }
        }
        Ok(())
    }

    /// How many there may be; `None`: any number.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<u64> {
        self.lim.get(name).copied().flatten()
    }

    /// What becomes of a feature after the grace.
    #[must_use]
    pub fn mode(&self, feature: &str) -> Mode {
        self.deg.get(feature).copied().unwrap_or_default()
    }

    /// For how long after its end it goes on.
    #[must_use]
    pub fn grace(&self) -> Duration {
        seconds(self.grace)
    }
}

/// Seconds of a license, which [`Claims::check`] has looked at.
pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::seconds(i64::try_from(seconds.min(MAX_SECONDS)).unwrap_or(i64::MAX / 1_000))
}
