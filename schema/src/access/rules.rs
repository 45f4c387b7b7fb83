//! The rules as functions of what is known: no clock, no database.
//!
//! What somebody may do is what all of these allow together: what his key or token was made for, what whoever is behind
//! it may do now, where he acts from, what the license allows, and whether anything is done in his organization at all.

use crate::OrganizationId;
use crate::defence::Bar;
use crate::organizations::{Permission, Permissions};
use crate::words::words;

/// Who is behind a key or token, and what he may do now in the organization it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nobody in particular: the organization itself.
    Organization,
    /// A member, whose role allows this.
    Member(Permissions),
    /// Somebody whose membership is suspended.
    Suspended,
    /// Somebody who is a member no more.
    Left,
}

/// How somebody stands to the organization that he acts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is the one he is of.
    Inside,
    /// His is above it.
    Above,
    /// His is above it, and nobody is a member of it yet: it is set up from above.
    SetsUp,
    /// His is above it, and he was given support in it that allows this.
    Support(Permissions),
}

/// Why nothing is done in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It was suspended, or one above it.
    Suspended,
    /// It was deleted, or one above it.
    Deleted,
    /// It was locked down, or one above it.
    LockedDown,
}

/// Somebody who wants to do something somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Where he acts.
    pub organization: OrganizationId,
    /// How he stands to it.
    pub reach: Reach,
    /// Whether the organization he is of is held.
    pub hold: Option<Hold>,
    /// Why he is not let through from where he asks.
    pub barred: Option<Bar>,
    /// His organization wants people to have a second factor, and he did not prove himself with one.
    pub unproven: bool,
    /// What his key or token was made for; `None`: for everything, as for somebody who signed in himself.
    pub scopes: Option<Permissions>,
    /// Who is behind it.
    pub behind: Behind,
    /// What the license of the organization he acts in allows.
    pub license: Permissions,
}

words! {
    /// The rule that refused; those that refuse whatever is wanted come first, and all are looked at in this order.
    Reason {
        /// The organization of the caller is not suspended, nor one above it.
        OrganizationSuspended = "organization_suspended",
        /// The organization of the caller is not deleted.
        OrganizationDeleted = "organization_deleted",
        /// The organization of the caller is not locked down, nor one above it; whoever signed in since may unlock it.
        LockedDown = "locked_down",
        /// The caller asks from one of the networks from which the organization may be asked.
        SourceAddress = "source_address",
        /// The caller asks from a country from which the organization may be asked.
        SourceCountry = "source_country",
        /// The organization does not need people to have a second factor, or he proved himself with one, or has days left to enrol
        /// one.
        SecondFactor = "second_factor",
        /// Whoever is behind the key is still a member.
        OwnerLeft = "owner_left",
        /// The membership is not suspended.
        MembershipSuspended = "membership_suspended",
        /// What concerns the whole installation is done for the platform's own organization.
        PlatformOnly = "platform_only",
        /// The key or token has the scope.
        Scope = "scope",
        /// The role of the member, or of the member behind the key, has the permission.
        Role = "role",
        /// Whoever stands above an organization reads, and does what support was given for.
        Above = "above",
        /// The support that was given covers it.
        Support = "support",
        /// The license of the organization allows it.
        License = "license",
    }
}

/// A rule, and whether it lets something through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Which.
    pub rule: Reason,
    /// It does.
    pub passes: bool,
}

impl Subject {
    /// What a rule says of a permission; `None`: it does not concern somebody like this.
    fn passes(&self, rule: Reason, permission: Permission) -> Option<bool> {
        match rule {
            Reason::OrganizationSuspended => Some(self.hold != Some(Hold::Suspended)),
            Reason::OrganizationDeleted => Some(self.hold != Some(Hold::Deleted)),
            Reason::LockedDown => {
                Some(self.hold != Some(Hold::LockedDown) || (permission == Permission::LockDown && self.is_person()))
            }
            Reason::SourceAddress => Some(self.barred != Some(Bar::Address)),
            Reason::SourceCountry => Some(self.barred != Some(Bar::Country)),
            Reason::SecondFactor => self.is_person().then_some(!self.unproven),
            Reason::OwnerLeft => (self.behind != Behind::Organization).then_some(self.behind != Behind::Left),
            Reason::MembershipSuspended => {
                matches!(self.behind, Behind::Member(_) | Behind::Suspended).then_some(self.behind != Behind::Suspended)
            }
            Reason::PlatformOnly => {
                let of_platform = permission == Permission::OperatePlatform;
                of_platform.then_some(self.organization == OrganizationId::PLATFORM)
            }
            Reason::Scope => self.scopes.map(|scopes| scopes.contain(permission)),
            Reason::Role => match self.behind {
                Behind::Member(role) => Some(role.contain(permission)),
                Behind::Organization | Behind::Suspended | Behind::Left => None,
            },
            Reason::Above => (self.reach == Reach::Above).then_some(permission.reads()),
            Reason::Support => match self.reach {
                Reach::Support(given) => Some(permission.reads() || given.contain(permission)),
                Reach::Inside | Reach::Above | Reach::SetsUp => None,
            },
            Reason::License => Some(self.license.contain(permission)),
        }
    }

    /// Somebody who signed in himself, which no key and no token is.
    fn is_person(&self) -> bool {
        self.scopes.is_none() && self.behind != Behind::Organization
    }

    /// Lets him go on who may.
    ///
    /// # Errors
    /// The first rule that refuses.
    pub fn decide(&self, permission: Permission) -> Result<(), Reason> {
        match Reason::ALL.iter().find(|rule| self.passes(**rule, permission) == Some(false)) {
            Some(refuses) => Err(*refuses),
            None => Ok(()),
        }
    }

    /// What every rule that concerns him says of a permission.
    #[must_use]
    pub fn explain(&self, permission: Permission) -> Vec<Check> {
        let check = |rule: &Reason| self.passes(*rule, permission).map(|passes| Check { rule: *rule, passes });
        Reason::ALL.iter().filter_map(check).collect()
    }

    /// All that he may do.
    #[must_use]
    pub fn may(&self) -> Permissions {
        let nothing = Permissions::default();
        if self.barred.is_some() || (self.unproven && self.is_person()) {
            return nothing;
        }
        let by_hold: Permissions = match self.hold {
            None => Permission::ALL.iter().copied().collect(),
            // Somebody has to be there who unlocks.
            Some(Hold::LockedDown) if self.is_person() => [Permission::LockDown].into_iter().collect(),
            Some(_) => return nothing,
        };
        let everything = || Permission::ALL.iter().copied();
        let by_role = match self.behind {
            Behind::Organization => everything().collect(),
            Behind::Member(role) => role,
            Behind::Suspended | Behind::Left => return nothing,
        };
        let by_reach: Permissions = match self.reach {
            Reach::Inside | Reach::SetsUp => everything().collect(),
            Reach::Above => everything().filter(|permission| permission.reads()).collect(),
            Reach::Support(given) => {
                everything().filter(|permission| permission.reads() || given.contain(*permission)).collect()
            }
        };
        let of_place: Permissions = everything()
            .filter(|permission| {
                *permission != Permission::OperatePlatform || self.organization == OrganizationId::PLATFORM
            })
            .collect();
        let by_scopes = self.scopes.unwrap_or_else(|| everything().collect());
        by_scopes.and(by_role).and(by_reach).and(of_place).and(by_hold).and(self.license)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memberships::{Role, permissions_of};

    fn permissions() -> impl Strategy<Value = Permissions> {
        proptest::collection::vec(proptest::sample::select(Permission::ALL), 0..Permission::ALL.len() * 2)
            .prop_map(|some| some.into_iter().collect())
    }

    fn behind() -> impl Strategy<Value = Behind> {
        prop_oneof![
            Just(Behind::Organization),
            permissions().prop_map(Behind::Member),
            Just(Behind::Suspended),
            Just(Behind::Left)
        ]
    }

    fn reach() -> impl Strategy<Value = Reach> {
        prop_oneof![
            Just(Reach::Inside),
            Just(Reach::Above),
            Just(Reach::SetsUp),
            permissions().prop_map(Reach::Support)
        ]
    }

    fn subject() -> impl Strategy<Value = Subject> {
        let hold = prop_oneof![4 => Just(None), 1 => Just(Some(Hold::Suspended)), 1 => Just(Some(Hold::Deleted)),
                              1 => Just(Some(Hold::LockedDown))];
        let barred = prop_oneof![4 => Just(None), 1 => Just(Some(Bar::Address)), 1 => Just(Some(Bar::Country))];
        let organization = proptest::sample::select(vec![
            OrganizationId::PLATFORM,
            OrganizationId::from_uuid(uuid::Uuid::from_u128(1)),
        ]);
        let license = prop_oneof![Just(Permissions::all()), permissions()];
        let unproven = proptest::bool::weighted(0.1);
        let whole =
            (organization, reach(), hold, barred, unproven, proptest::option::of(permissions()), behind(), license);
        whole.prop_map(|(organization, reach, hold, barred, unproven, scopes, behind, license)| Subject {
            organization,
            reach,
            hold,
            barred,
            unproven,
            scopes,
            behind,
            license,
        })
    }

    proptest! {
        #[test]
        fn one_by_one_and_all_together_are_decided_alike(subject in subject()) {
            let may = subject.may();
            for permission in Permission::ALL {
                let decided = subject.decide(*permission);
                prop_assert_eq!(decided.is_ok(), may.contain(*permission), "{}: {:?}", permission, decided);
                let explained = subject.explain(*permission);
                let refuses = explained.iter().find(|check| !check.passes).map(|check| check.rule);
                prop_assert_eq!(decided.err(), refuses);
            }
        }

        #[test]
        fn nobody_may_more_than_his_scopes_his_role_and_his_place_allow(subject in subject()) {
            let may = subject.may();
            let within = |limit: Permissions| may.and(limit) == may;
            prop_assert!(subject.scopes.is_none_or(within));
            prop_assert!(within(subject.license));
            if let Behind::Member(role) = subject.behind {
                prop_assert!(within(role));
            }
            if subject.reach == Reach::Above {
                prop_assert!(Permission::ALL.iter().all(|one| one.reads() || !may.contain(*one)));
            }
            let held = subject.hold.is_some_and(|hold| hold != Hold::LockedDown);
            if held || subject.barred.is_some() || (subject.unproven && subject.is_person()) || matches!(subject.behind, Behind::Suspended | Behind::Left) {
                prop_assert_eq!(may, Permissions::default());
            }
            if subject.hold == Some(Hold::LockedDown) {
                let unlocks: Permissions = [Permission::LockDown].into_iter().collect();
                prop_assert!(within(unlocks));
                prop_assert!(subject.scopes.is_none() || may == Permissions::default(), "no key unlocks");
            }
            if subject.organization != OrganizationId::PLATFORM {
                prop_assert!(!may.contain(Permission::OperatePlatform));
            }
        }

        #[test]
        fn taking_something_away_never_gives_anything(subject in subject(), fewer in permissions()) {
            // A second factor is asked of people alone, who are nobody's key: of somebody without scopes who has yet to
            // prove himself, one with scopes is no narrower kind.
            if subject.scopes.is_some() || !subject.unproven {
                let scopes = subject.scopes.map_or(fewer, |scopes| scopes.and(fewer));
                let narrower = Subject { scopes: Some(scopes), ..subject };
                prop_assert!(narrower.may().within(subject.may()));
            }
            if let Behind::Member(role) = subject.behind {
                let lesser = Subject { behind: Behind::Member(role.and(fewer)), ..subject };
                prop_assert_eq!(lesser.may().and(subject.may()), lesser.may());
            }
            let held = Subject { hold: Some(Hold::Suspended), ..subject };
            prop_assert_eq!(held.may(), Permissions::default());
        }

        /// Whoever gives what he has, and nothing else, makes nobody who may more than himself.
        #[test]
        fn what_is_passed_on_is_no_more_than_what_was_had(giver in subject(), wanted in permissions()) {
            let given = wanted.and(giver.may());
            prop_assert!(given.within(giver.may()));
            let made = Subject { scopes: Some(given), reach: Reach::Inside, hold: None, barred: None, unproven: false, ..giver };
            prop_assert!(made.may().within(giver.may()) || giver.hold.is_some() || giver.barred.is_some());
        }
    }

    #[test]
    fn roles_keep_to_the_matrix() {
        use Permission as P;
        let tenant = OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        let rows: &[(P, &[Role])] = &[
            (P::ReadOrganizations, &Role::ALL),
            (P::ReadMembers, &Role::ALL),
            (P::ReadJobs, &Role::ALL),
            (P::ManageJobs, &[Role::Owner, Role::Admin, Role::Member]),
            (P::ManageMembers, &[Role::Owner, Role::Admin]),
            (P::ManageSettings, &[Role::Owner, Role::Admin]),
            (P::ManageOrganizations, &[Role::Owner, Role::Admin]),
            (P::ManageApiKeys, &[Role::Owner, Role::Admin]),
            (P::GiveSupport, &[Role::Owner, Role::Admin]),
            (P::ManageDefence, &[Role::Owner, Role::Admin]),
            (P::LockDown, &[Role::Owner, Role::Admin]),
            (P::DeleteOrganizations, &[Role::Owner]),
            (P::IssueLicenses, &[Role::Owner]),
            (P::OperatePlatform, &[]),
        ];
        for (permission, roles) in rows {
            for role in Role::ALL {
                let allows = permissions_of(role, tenant).contains(permission);
                assert_eq!(allows, roles.contains(&role), "{permission} by {role}");
            }
        }
    }

    #[test]
    fn the_first_rule_that_refuses_is_named() {
        let tenant = OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        let reads: Permissions = [Permission::ReadJobs].into_iter().collect();
        let anybody = Subject {
            organization: tenant,
            reach: Reach::Inside,
            hold: None,
            barred: None,
            unproven: false,
            scopes: None,
            behind: Behind::Organization,
            license: Permissions::all(),
        };
        let refused = |subject: Subject, permission| subject.decide(permission).unwrap_err().as_str();
        let held = Subject { hold: Some(Hold::Suspended), scopes: Some(reads), ..anybody };
        assert_eq!(refused(held, Permission::ManageJobs), "organization_suspended");
        let locked = Subject { hold: Some(Hold::LockedDown), ..anybody };
        assert_eq!(refused(locked, Permission::LockDown), "locked_down");
        let barred = Subject { barred: Some(Bar::Country), scopes: Some(reads), ..anybody };
        assert_eq!(refused(barred, Permission::ManageJobs), "source_country");
        let scoped = Subject { scopes: Some(reads), ..anybody };
        assert_eq!(refused(scoped, Permission::ManageJobs), "scope");
        let member = Subject { behind: Behind::Member(reads), ..anybody };
        assert_eq!(refused(member, Permission::ManageJobs), "role");
        assert_eq!(refused(Subject { behind: Behind::Left, ..anybody }, Permission::ReadJobs), "owner_left");
        assert_eq!(refused(Subject { reach: Reach::Above, ..anybody }, Permission::ManageJobs), "above");
        assert_eq!(refused(Subject { reach: Reach::Support(reads), ..anybody }, Permission::ManageJobs), "support");
        assert_eq!(refused(Subject { license: reads, ..anybody }, Permission::ManageJobs), "license");
        assert_eq!(refused(anybody, Permission::OperatePlatform), "platform_only");
        assert_eq!(anybody.decide(Permission::ManageJobs), Ok(()));
    }
}
