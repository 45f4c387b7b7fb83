//! What a member is, and what that allows him.

use std::fmt;
use std::str::FromStr;

use crate::OrganizationId;
use crate::organizations::Permission;

/// What a member is in an organization, from the one who may everything to the one who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Everything. There is always at least one.
    Owner,
    /// Everything but what ends the organization or concerns its bills and licenses.
    Admin,
    /// The daily work.
    Member,
    /// Look at the daily work.
    Viewer,
    /// One of the organization's own; what it allows stands there.
    Custom,
}

/// The word names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; the roles are owner, admin, member and viewer")]
pub struct UnknownRole(pub String);

impl Role {
    /// Those that every organization has.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Custom => "custom",
        }
    }

    /// What it is for, in a few words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Owner => "Everything. There is always at least one.",
            Self::Admin => "Everything but what ends the organization or concerns its bills and licenses.",
            Self::Member => "The daily work.",
            Self::Viewer => "Look at the daily work.",
            Self::Custom => "One of the organization's own.",
        }
    }

    /// From its stored word; one that this release does not know allows nothing, as one of the organization's own that is
    /// not known.
    pub(crate) fn stored(word: &str) -> Self {
        word.parse().unwrap_or(Self::Custom)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == word).ok_or_else(|| UnknownRole(word.to_owned()))
    }
}

/// What the role allows in this organization. What concerns the whole installation, only the platform's own have.
#[must_use]
pub fn permissions_of(role: Role, organization: OrganizationId) -> Vec<Permission> {
    use Permission as P;
    let allows = |permission: P| match (role, permission) {
        (Role::Owner | Role::Admin, P::OperatePlatform) => organization == OrganizationId::PLATFORM,
        (Role::Admin, P::DeleteOrganizations | P::IssueLicenses | P::ClaimLicenses) => false,
        (Role::Owner | Role::Admin, _) => true,
        (Role::Member, P::ManageJobs | P::PostEvents | P::ManageNotices) => true,
        (
            Role::Member | Role::Viewer,
            P::ReadOrganizations
            | P::ReadMembers
            | P::ReadJobs
            | P::ReadSchedules
            | P::ReadWebhooks
            | P::ReadServers
            | P::ReadEvents
            | P::ReadNotices,
        ) => true,
        (Role::Member | Role::Viewer | Role::Custom, _) => false,
    };
    P::ALL.iter().copied().filter(|permission| allows(*permission)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_read_back_from_its_word() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_role_allows_all_that_lesser_roles_allow() {
        let tenant = OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        for pair in Role::ALL.windows(2) {
            let (more, less) = (permissions_of(pair[0], tenant), permissions_of(pair[1], tenant));
            assert!(less.iter().all(|permission| more.contains(permission)), "{pair:?}");
        }
        assert!(!permissions_of(Role::Owner, tenant).contains(&Permission::OperatePlatform));
        assert!(permissions_of(Role::Owner, OrganizationId::PLATFORM).contains(&Permission::OperatePlatform));
        assert!(permissions_of(Role::Viewer, tenant).iter().all(|permission| permission.as_str().ends_with(":read")));
    }
}
