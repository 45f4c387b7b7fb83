//! How much an organization may ask for.

use super::Rate;

/// A kind of request, counted apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
    /// It sets something going outside: a server, a deployment.
    Deploy,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Deploy];

    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Deploy => "deploy",
        }
    }
}

/// A tier: what the organizations that have it may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Reads a minute.
    pub read: u32,
    /// Changes a minute.
    pub write: u32,
    /// Deployments and the like a minute.
    pub deploy: u32,
    /// How much of a minute's may come at once after a rest.
    pub burst_percent: u16,
    /// How much of the organization's one key may use.
    pub key_percent: u16,
    /// How much of the organization's may come from one address.
    pub address_percent: u16,
}

/// What an organization was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The name of its tier.
    pub tier: String,
    /// Its own number of reads a minute; the other classes keep their proportion.
    pub number: Option<u32>,
    /// Nothing is counted for it.
    pub bypass: bool,
    /// Calls in a calendar month, UTC.
    pub monthly_calls: Option<u64>,
    /// Bytes of bodies in a calendar month, UTC.
    pub monthly_bytes: Option<u64>,
}

/// How much an organization may ask for: what it was given, and its tier's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// What it was given.
    pub given: Given,
    /// Its tier.
    pub tier: Tier,
}

impl Allowance {
    /// Requests of a class a minute.
    #[must_use]
    pub fn number(&self, class: Class) -> u32 {
        let of_tier = match class {
            Class::Read => self.tier.read,
            Class::Write => self.tier.write,
            Class::Deploy => self.tier.deploy,
        };
        let Some(own) = self.given.number else { return of_tier };
        let scaled = u64::from(own) * u64::from(of_tier) / u64::from(self.tier.read.max(1));
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    }

    /// The whole organization's.
    #[must_use]
    pub fn rate(&self, class: Class) -> Rate {
        self.share(class, 100)
    }

    /// What one key may use; `None`: as much as the organization.
    #[must_use]
    pub fn of_key(&self, class: Class) -> Option<Rate> {
        (self.tier.key_percent < 100).then(|| self.share(class, self.tier.key_percent))
    }

    /// What may come from one address; `None`: as much as the organization's.
    #[must_use]
    pub fn of_address(&self, class: Class) -> Option<Rate> {
        (self.tier.address_percent < 100).then(|| self.share(class, self.tier.address_percent))
    }

    fn share(&self, class: Class, percent: u16) -> Rate {
        let number = part(self.number(class), percent);
        Rate::per_minute(number, part(number, self.tier.burst_percent))
    }
}

fn part(number: u32, percent: u16) -> u32 {
    let part = u64::from(number) * u64::from(percent) / 100;
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance(number: Option<u32>) -> Allowance {
        let tier = Tier {
            name: "starter".to_owned(),
            read: 100,
            write: 50,
            deploy: 10,
            burst_percent: 20,
            key_percent: 50,
            address_percent: 100,
        };
        let given = Given { tier: tier.name.clone(), number, bypass: false, monthly_calls: None, monthly_bytes: None };
        Allowance { given, tier }
    }

    #[test]
    fn an_own_number_keeps_the_proportion_of_the_classes() {
        let numbers = |number| Class::ALL.map(|class| allowance(number).number(class));
        assert_eq!(numbers(None), [100, 50, 10]);
        assert_eq!(numbers(Some(5_000)), [5_000, 2_500, 500]);
        assert_eq!(numbers(Some(3)), [3, 1, 1], "nobody is left without any");
    }

    #[test]
    fn a_key_and_an_address_have_their_share_of_it() {
        let allowance = allowance(Some(1_000));
        assert_eq!(allowance.rate(Class::Read), Rate::per_minute(1_000, 200));
        assert_eq!(allowance.of_key(Class::Read), Some(Rate::per_minute(500, 100)));
        assert_eq!(allowance.of_address(Class::Read), None, "it would never be reached before the whole");
    }
}
