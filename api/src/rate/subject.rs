//! Whose requests are counted, in which buckets, and what is left in them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use gantry_schema::OrganizationId;
use gantry_schema::limits::{Class, Rate};
use uuid::Uuid;

/// Buckets of a subject: the owner's, a key's, an address'.
pub(super) const BUCKETS: usize = 3;

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// An organization.
    Organization(OrganizationId),
    /// Whoever asks from there.
    Address(IpAddr),
    /// Those for whom there is no place to remember them.
    Others,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// Requests of a class.
    Class(Class),
    /// Requests of nobody in particular.
    Anonymous,
    /// Credentials that are none.
    Credentials,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub owner: Owner,
    pub counted: Counted,
    /// One key's, where it has a share of its own.
    pub key: Option<Uuid>,
    /// One address', where it has a share of its own.
    pub address: Option<IpAddr>,
}

/// The rates of a subject's buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The owner's.
    pub whole: Rate,
    /// The key's.
    pub key: Option<Rate>,
    /// The address'.
    pub address: Option<Rate>,
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub policy: &'static str,
    /// Requests a minute.
    pub number: u32,
    pub remaining: u64,
    /// Microseconds until there is more; 0: it is full.
    pub next: u64,
    /// Microseconds until it is full.
    pub full: u64,
}

/// What is left in a subject's buckets, the owner's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts(pub [Option<Count>; BUCKETS]);

/// A request that is not to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub counts: Counts,
    /// What it would have cost.
    pub cost: u64,
    pub wait: Duration,
}

impl Counted {
    /// The rule whose number counts, of what is counted before anybody is known.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Class(class) => class.as_str(),
            Self::Anonymous => "anonymous",
            Self::Credentials => "credentials",
        }
    }

    /// What the limits are called in headers: the owner's, a key's, an address'.
    const fn policies(self) -> [&'static str; BUCKETS] {
        match self {
            Self::Class(Class::Read) => ["read", "key-read", "address-read"],
            Self::Class(Class::Write) => ["write", "key-write", "address-write"],
            Self::Class(Class::Deploy) => ["deploy", "key-deploy", "address-deploy"],
            Self::Anonymous => ["anonymous"; 3],
            Self::Credentials => ["credentials"; 3],
        }
    }
}

impl Subject {
    pub(super) const fn of_address(address: IpAddr, counted: Counted) -> Self {
        Self { owner: Owner::Address(address), counted, key: None, address: None }
    }

    /// Its buckets, each as a subject of its own.
    pub(super) fn buckets(self) -> impl Iterator<Item = Self> {
        let whole = Self { key: None, address: None, ..self };
        let of_key = self.key.map(|_| Self { address: None, ..self });
        let of_address = self.address.map(|_| Self { key: None, ..self });
        [Some(whole), of_key, of_address].into_iter().flatten()
    }

    /// The keys of its buckets in Redis: all of an owner's lie together.
    pub(super) fn keys(self, namespace: &str) -> Vec<String> {
        let tag = match self.owner {
            Owner::Organization(organization) => organization.uuid().simple().to_string(),
            Owner::Address(address) => address.to_string(),
            Owner::Others => "others".to_owned(),
        };
        let key = |bucket: Self| {
            let mut key = format!("{{{namespace}:rate:{tag}}}:{}", bucket.counted.rule());
            // Writing to a String cannot fail.
            let _ = match (bucket.key, bucket.address) {
                (Some(of), _) => write!(key, ":key:{}", of.simple()),
                (None, Some(address)) => write!(key, ":address:{address}"),
                (None, None) => Ok(()),
            };
            key
        };
        self.buckets().map(key).collect()
    }
}

impl Plan {
    pub(super) fn rates(self) -> impl Iterator<Item = Rate> {
        [Some(self.whole), self.key, self.address].into_iter().flatten()
    }

    /// What a request can cost at most, so that it can be done at all.
    pub(super) fn most(self) -> u64 {
        self.rates().map(Rate::capacity).min().unwrap_or(1)
    }

    /// How long until so many cells can be had of each bucket, where they will be full after these microseconds.
    pub(super) fn wait(self, until_full: &[u64], cells: u64) -> u64 {
        self.rates().zip(until_full).map(|(rate, until_full)| rate.wait(*until_full, cells)).max().unwrap_or(0)
    }

    /// What is left, with so many cells that this process has taken ahead.
    pub(super) fn counts(self, counted: Counted, until_full: &[u64], ahead: u64) -> Counts {
        let mut until_full = until_full.iter().copied();
        let mut counts = [None; BUCKETS];
        for (at, (rate, policy)) in
            [Some(self.whole), self.key, self.address].into_iter().zip(counted.policies()).enumerate()
        {
            let Some(rate) = rate else { continue };
            let full = until_full.next().unwrap_or(0).saturating_sub(ahead * rate.interval());
            let count =
                Count { policy, number: rate.number(), remaining: rate.available(full), next: rate.next(full), full };
            if let Some(place) = counts.get_mut(at) {
                *place = Some(count);
            }
        }
        Counts(counts)
    }
}

impl Counts {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Count> {
        self.0.iter().flatten()
    }
}

impl Refused {
    /// The limits that are used up.
    pub(super) fn violated(&self) -> impl Iterator<Item = &'static str> {
        self.counts.iter().filter(|count| count.remaining < self.cost).map(|count| count.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_buckets_of_an_owner_lie_in_one_slot() {
        let subject = Subject {
            owner: Owner::Organization(OrganizationId::PLATFORM),
            counted: Counted::Class(Class::Write),
            key: Some(Uuid::nil()),
            address: Some("2001:db8::".parse().unwrap()),
        };
        let tag = "{gantry:rate:00000000000070008000000000000000}";
        assert_eq!(
            subject.keys("gantry"),
            [
                format!("{tag}:write"),
                format!("{tag}:write:key:00000000000000000000000000000000"),
                format!("{tag}:write:address:2001:db8::"),
            ]
        );
    }

    #[test]
    fn what_is_left_counts_what_this_process_has_ahead() {
        let rate = Rate::per_minute(60, 10);
        let plan = Plan { whole: rate, key: None, address: Some(Rate::per_minute(60, 5)) };
        let counts = plan.counts(Counted::Class(Class::Read), &[7_000_000, 5_000_000], 2);
        let left: Vec<_> = counts.iter().map(|count| (count.policy, count.remaining, count.full)).collect();
        assert_eq!(left, [("read", 5, 5_000_000), ("address-read", 2, 3_000_000)]);
        let refused = Refused { counts, cost: 3, wait: Duration::ZERO };
        assert_eq!(refused.violated().collect::<Vec<_>>(), ["address-read"]);
    }
}
