//! What a caller may be allowed to do.

use std::str::FromStr;

use crate::words::words;

macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)*) => {
        words! {
            /// Something a caller may be allowed to do; an API key's scopes are a list of these.
            Permission {
                $($(#[doc = $doc])+ $name = $word,)*
            }
        }

        /// The permissions as types, for whoever says which one is needed before anybody asks: the signature of an
        /// operation.
        pub mod needed {
            $(
                $(#[doc = $doc])+
                #[derive(Debug, Clone, Copy)]
                pub enum $name {}

                impl super::Needed for $name {
                    const PERMISSION: super::Permission = super::Permission::$name;
                }
            )*
        }
    };
}

/// A permission as a type; they are in [`needed`].
pub trait Needed: Send + Sync + 'static {
    /// Which one.
    const PERMISSION: Permission;
}

permissions! {
    /// See the organization and those below it.
    ReadOrganizations = "organizations:read",
    /// Make organizations below this one, name, move, suspend and resume them, and name this one.
    ManageOrganizations = "organizations:write",
    /// Delete this organization or those below it, and restore those below it.
    DeleteOrganizations = "organizations:delete",
    /// Give licenses to organizations below this one, and suspend and revoke those that it gave.
    IssueLicenses = "licenses:write",
    /// Put a license in force that was kept for this organization, by its code.
    ClaimLicenses = "licenses:claim",
    /// Change settings and host names.
    ManageSettings = "settings:write",
    /// See members and roles.
    ReadMembers = "members:read",
    /// Invite, change and remove members, and make roles.
    ManageMembers = "members:write",
    /// Take support in organizations below this one, and end the support that was taken in this one.
    GiveSupport = "support:write",
    /// See API keys, never their secrets.
    ReadApiKeys = "api_keys:read",
    /// Make and revoke API keys.
    ManageApiKeys = "api_keys:write",
    /// See applications that were registered here, and what people let applications do.
    ReadOauthClients = "oauth_clients:read",
    /// Register and change applications, and take back what people let them do.
    ManageOauthClients = "oauth_clients:write",
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
    /// See cloud credentials, never their secrets.
    ReadCredentials = "cloud_credentials:read",
    /// Add, replace and remove cloud credentials.
    ManageCredentials = "cloud_credentials:write",
    /// See servers and what was run on them.
    ReadServers = "servers:read",
    /// Make and destroy servers.
    ManageServers = "servers:write",
    /// Let servers be made that cost more than is made without asking.
    ApproveServers = "servers:approve",
    /// See events.
    ReadEvents = "events:read",
    /// Post events.
    PostEvents = "events:write",
    /// See what people must know.
    ReadNotices = "notices:read",
    /// Dismiss what people know.
    ManageNotices = "notices:write",
    /// See the messages that were sent to people, and in a sandbox what they say.
    ReadMessages = "messages:read",
    /// See what the organization may ask for, and what it asked for.
    ReadUsage = "usage:read",
    /// See the record of what was done, and take copies of it.
    ReadAudit = "audit:read",
    /// Say how long the record is kept and whether it goes on as events, and take copies of all of it.
    ManageAudit = "audit:write",
    /// See from where the organization may be asked, what is done about sign-ins that look wrong, and lockdowns.
    ReadDefence = "defence:read",
    /// Set from where the organization may be asked, and what is done about sign-ins that look wrong.
    ManageDefence = "defence:write",
    /// Lock the organization, or one below it, down, and unlock it.
    LockDown = "lockdowns:write",
    /// Pause queues and kinds, set limits: for the whole installation.
    OperatePlatform = "platform:operate",
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u128);

impl Permissions {
    /// Every one.
    #[must_use]
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn contain(self, permission: Permission) -> bool {
        self.0 & Self::bit(permission) != 0
    }

    /// Those that are among the others as well.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Whether all of them are among the others.
    #[must_use]
    pub const fn within(self, others: Self) -> bool {
        self.0 & others.0 == self.0
    }

    /// Their words, in the order of the catalogue.
    #[must_use]
    pub fn words(self) -> Vec<String> {
        let among = |permission: &&Permission| self.contain(**permission);
        Permission::ALL.iter().filter(among).map(ToString::to_string).collect()
    }

    const fn bit(permission: Permission) -> u128 {
        1 << permission as u32
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | Self::bit(permission)))
    }
}

impl Permission {
    /// Whether it only lets see.
    #[must_use]
    pub fn reads(self) -> bool {
        self.as_str().ends_with(":read")
    }
}

const _: () = assert!(Permission::ALL.len() <= 128);

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

    #[test]
    fn what_somebody_may_do_is_what_was_granted_and_not_limited() {
        let granted: Permissions = [Permission::ReadJobs, Permission::ManageJobs].into_iter().collect();
        let limit: Permissions = [Permission::ReadJobs, Permission::OperatePlatform].into_iter().collect();
        let both = |permission: &&Permission| granted.and(limit).contain(**permission);
        assert_eq!(Permission::ALL.iter().filter(both).collect::<Vec<_>>(), [&Permission::ReadJobs]);
        assert_eq!(Permissions::default(), Permissions::from_iter([]));
    }

    #[test]
    fn a_permission_as_a_type_is_the_one_of_its_name() {
        assert_eq!(needed::ReadJobs::PERMISSION, Permission::ReadJobs);
        assert_eq!(Permission::ReadJobs.describe(), "See jobs.");
    }
}
