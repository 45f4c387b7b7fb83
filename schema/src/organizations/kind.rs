//! What an organization is, and what may stand below what.

use std::fmt;
use std::str::FromStr;

/// What an organization is. Each ranks below the one before it.
///
/// ```mermaid
/// flowchart TD
///     platform --> top_branch & master_branch & sub_user & end_user
///     top_branch --> master_branch & sub_user & end_user
///     master_branch --> master_branch & sub_user & end_user
///     sub_user --> sub_user & end_user
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum OrganizationType {
    /// The operator's own, above all others; there is one.
    Platform,
    /// A branch of its own, directly below the platform.
    TopBranch,
    /// A reseller.
    MasterBranch,
    /// A customer that has others below it.
    SubUser,
    /// A customer; nothing is below it.
    EndUser,
}

impl OrganizationType {
    /// All of them, the highest first.
    pub const ALL: [Self; 5] = [Self::Platform, Self::TopBranch, Self::MasterBranch, Self::SubUser, Self::EndUser];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::TopBranch => "top_branch",
            Self::MasterBranch => "master_branch",
            Self::SubUser => "sub_user",
            Self::EndUser => "end_user",
        }
    }

    /// Whether it may stand directly below the other. The database checks the same.
    #[must_use]
    pub fn may_be_below(self, parent: Self) -> bool {
        self > parent || (self == parent && matches!(self, Self::MasterBranch | Self::SubUser))
    }

    /// What stands below it unless something else is wanted; `None`: nothing may.
    #[must_use]
    pub const fn usual_child(self) -> Option<Self> {
        match self {
            Self::Platform => Some(Self::TopBranch),
            Self::TopBranch => Some(Self::MasterBranch),
            Self::MasterBranch => Some(Self::SubUser),
            Self::SubUser => Some(Self::EndUser),
            Self::EndUser => None,
        }
    }
}

impl fmt::Display for OrganizationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no type of organization.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type of organization")]
pub struct UnknownType(pub String);

impl FromStr for OrganizationType {
    type Err = UnknownType;

    fn from_str(word: &str) -> Result<Self, UnknownType> {
        Self::ALL.into_iter().find(|it| it.as_str() == word).ok_or_else(|| UnknownType(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::OrganizationType::{EndUser, MasterBranch, Platform, SubUser, TopBranch};
    use super::*;

    #[test]
    fn what_may_stand_below_what() {
        let below = |parent: OrganizationType| -> Vec<OrganizationType> {
            OrganizationType::ALL.into_iter().filter(|child| child.may_be_below(parent)).collect()
        };
        assert_eq!(below(Platform), [TopBranch, MasterBranch, SubUser, EndUser]);
        assert_eq!(below(TopBranch), [MasterBranch, SubUser, EndUser]);
        assert_eq!(below(MasterBranch), [MasterBranch, SubUser, EndUser]);
        assert_eq!(below(SubUser), [SubUser, EndUser]);
        assert_eq!(below(EndUser), []);
    }

    #[test]
    fn the_usual_child_may_stand_there_and_words_are_read_back() {
        for parent in OrganizationType::ALL {
            assert!(parent.usual_child().is_none_or(|child| child.may_be_below(parent)));
            assert_eq!(parent.as_str().parse(), Ok(parent));
        }
        assert!("reseller".parse::<OrganizationType>().is_err());
    }
}
