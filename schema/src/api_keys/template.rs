//! Templates: scopes that belong together, for who does not want to list them.

use crate::organizations::Permission;

/// What a key is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Template {
    /// To look.
    ReadOnly,
    /// To look, and to do the daily work.
    ReadWrite,
    /// To have something done, and to see what became of it.
    Deploy,
    /// Everything.
    Full,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::ReadWrite, Self::Deploy, Self::Full];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
            Self::Deploy => "deploy",
            Self::Full => "full",
        }
    }

    /// From its stored word.
    pub(super) fn stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|template| template.as_str() == word)
    }

    /// Its scopes.
    #[must_use]
    pub fn scopes(self) -> Vec<Permission> {
        use Permission as P;
        let has = |permission: P| match self {
            Self::Full => true,
            Self::ReadOnly => permission.reads(),
            Self::ReadWrite => {
                permission.reads()
                    || matches!(permission, P::ManageJobs | P::ManageSchedules | P::ManageWebhooks | P::PostEvents)
            }
            Self::Deploy => matches!(permission, P::ReadJobs | P::ManageJobs | P::ReadEvents | P::PostEvents),
        };
        P::ALL.iter().copied().filter(|permission| has(*permission)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_back_and_only_the_full_one_lets_see_to_keys_and_members() {
        for template in Template::ALL {
            assert_eq!(Template::stored(template.as_str()), Some(template));
            let sees_to = [Permission::ManageApiKeys, Permission::ManageMembers, Permission::DeleteOrganizations];
            let full = template == Template::Full;
            assert!(sees_to.iter().all(|one| template.scopes().contains(one) == full), "{template:?}");
        }
        assert!(Template::ReadOnly.scopes().iter().all(|scope| scope.reads()));
    }
}
