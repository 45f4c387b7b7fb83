//! Whether passwords are being tried: one on many accounts (spraying), those of a leak each on its account (stuffing), or
//! many on one account from many places. All of these are tried in vain far more often than people mistype.

/// Accounts that are tried in vain from one address, in ten to twenty minutes, before that looks wrong. Whole offices ask
/// from one.
const ACCOUNTS_OF_ADDRESS: u32 = 10;

/// The same of a network.
const ACCOUNTS_OF_NETWORK: u32 = 30;

/// Networks from which one account is tried in vain.
const NETWORKS_OF_ACCOUNT: u32 = 8;

/// What was tried in vain lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Accounts from the address.
    pub accounts_of_address: u32,
    /// Accounts from its network.
    pub accounts_of_network: u32,
    /// Networks on the account.
    pub networks_of_account: u32,
}

/// What that looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Many accounts from one address.
    Address,
    /// Many accounts from one network.
    Network,
    /// One account from many networks.
    Account,
}

impl Attack {
    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "accounts_of_address",
            Self::Network => "accounts_of_network",
            Self::Account => "networks_of_account",
        }
    }
}

/// What it looks like; `None`: like people who mistype. Whoever signed in from the network before is not suspected for what
/// his neighbours or strangers do.
#[must_use]
pub const fn suspect(tried: Tried, known_network: bool) -> Option<Attack> {
    if known_network {
        None
    } else if tried.accounts_of_address >= ACCOUNTS_OF_ADDRESS {
        Some(Attack::Address)
    } else if tried.accounts_of_network >= ACCOUNTS_OF_NETWORK {
        Some(Attack::Network)
    } else if tried.networks_of_account >= NETWORKS_OF_ACCOUNT {
        Some(Attack::Account)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tried(accounts_of_address: u32, accounts_of_network: u32, networks_of_account: u32) -> Tried {
        Tried { accounts_of_address, accounts_of_network, networks_of_account }
    }

    #[test]
    fn many_accounts_from_one_place_and_one_account_from_many_look_wrong() {
        assert_eq!(suspect(tried(9, 29, 7), false), None);
        assert_eq!(suspect(tried(10, 10, 1), false), Some(Attack::Address));
        assert_eq!(suspect(tried(1, 30, 1), false), Some(Attack::Network));
        assert_eq!(suspect(tried(1, 1, 8), false), Some(Attack::Account));
        assert_eq!(suspect(tried(99, 99, 99), true), None, "he has been here before");
    }

    proptest! {
        #[test]
        fn more_attempts_never_look_better(
            (address, network, account) in (0_u32..100, 0_u32..100, 0_u32..100),
            (one, two, three) in (0_u32..100, 0_u32..100, 0_u32..100),
        ) {
            let (before, after) = (tried(address, network, account), tried(address + one, network + two, account + three));
            if suspect(before, false).is_some() {
                prop_assert!(suspect(after, false).is_some());
            }
        }
    }
}
