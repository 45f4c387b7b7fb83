//! What a caller may be allowed to do.

use std::fmt;
use std::str::FromStr;

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Something a caller may be allowed to do; an API key's scopes are a list of these.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Permission {
            $($(#[$doc])* $name,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word that is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

permissions! {
    /// See the organization and those below it.
    ReadOrganizations = "organizations:read",
    /// Make organizations below this one.
    ManageOrganizations = "organizations:write",
    /// See API keys, never their secrets.
    ReadApiKeys = "api_keys:read",
    /// Make and revoke API keys.
    ManageApiKeys = "api_keys:write",
    /// See jobs.
    ReadJobs = "jobs:read",
    /// Ask for jobs, cancel and retry them.
    ManageJobs = "jobs:write",
    /// See schedules.
    ReadSchedules = "schedules:read",
    /// Make, change and run schedules.
    ManageSchedules = "schedules:write",
    /// See webhook endpoints and attempts.
    ReadWebhooks = "webhooks:read",
    /// Make and change webhook endpoints.
    ManageWebhooks = "webhooks:write",
    /// See events.
    ReadEvents = "events:read",
    /// Post events.
    PostEvents = "events:write",
    /// Pause queues and kinds, set limits: for the whole installation.
    OperatePlatform = "platform:operate",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no permission")]
pub struct UnknownPermission(pub String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(word: &str) -> Result<Self, UnknownPermission> {
        Self::ALL
            .iter()
            .copied()
            .find(|permission| permission.as_str() == word)
            .ok_or_else(|| UnknownPermission(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_is_read_back_from_its_word() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        assert!("jobs:everything".parse::<Permission>().is_err());
    }
}
