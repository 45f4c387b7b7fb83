//! From where an organization may be asked. What is set above holds below: whoever is let through has to be let through
//! by every policy on the way up, so one below can only be narrower, whatever it says.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;

use crate::factors::{Kind, assurance};

/// A country, by its two letters of ISO 3166-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

/// The text is no country.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a country is two letters of ISO 3166-1, such as AT; write those")]
pub struct InvalidCountry;

impl FromStr for Country {
    type Err = InvalidCountry;

    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        match text.as_bytes() {
            [one, other] if one.is_ascii_uppercase() && other.is_ascii_uppercase() => Ok(Self([*one, *other])),
            _ => Err(InvalidCountry),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.0[0]), char::from(self.0[1]))
    }
}

/// What is done about something that looks wrong, from the mildest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Response {
    /// Nothing.
    Off,
    /// People are told.
    Notice,
    /// People are told, and whoever it was has to prove anew who he is before he does what matters.
    StepUp,
    /// People are told, and it is refused.
    Refuse,
}

impl Response {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Notice, Self::StepUp, Self::Refuse];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Notice => "notice",
            Self::StepUp => "step_up",
            Self::Refuse => "refuse",
        }
    }

    /// One that this release does not know is the strictest.
    pub(crate) fn stored(word: &str) -> Self {
        Self::ALL.into_iter().find(|response| response.as_str() == word).unwrap_or(Self::Refuse)
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detection {
    /// A program that a person did not sign in with before.
    NewDevice,
    /// A person who cannot have come so far since he last signed in.
    ImpossibleTravel,
    /// Many accounts tried from one place, or one account from many.
    CredentialStuffing,
}

impl Detection {
    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewDevice => "new_device",
            Self::ImpossibleTravel => "impossible_travel",
            Self::CredentialStuffing => "credential_stuffing",
        }
    }

    /// What is done where no policy says.
    #[must_use]
    pub const fn default_response(self) -> Response {
        match self {
            Self::NewDevice => Response::Notice,
            Self::ImpossibleTravel | Self::CredentialStuffing => Response::StepUp,
        }
    }
}

/// What one organization has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// From where; none: from anywhere.
    pub networks: Vec<IpNet>,
    /// From which countries; none: from all that are not denied.
    pub countries_allowed: Vec<Country>,
    /// From which not.
    pub countries_denied: Vec<Country>,
    /// Where countries are restricted, who comes from nobody knows where is refused.
    pub refuses_unknown: bool,
    /// What is done about a new device.
    pub new_device: Response,
    /// What is done about impossible travel.
    pub impossible_travel: Response,
    /// What is done about guesses.
    pub credential_stuffing: Response,
    /// Whether people need a second factor.
    pub second_factor: Option<SecondFactor>,
    /// What counts as one.
    pub factor_kinds: Vec<Kind>,
    /// How many sessions of a person go on in the organization at the same time.
    pub sessions: Option<MostSessions>,
}

/// How many sessions of a person go on in an organization at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MostSessions {
    /// How many.
    pub most: i64,
    /// With one more, nobody is let in; otherwise the longest unused one ends.
    pub refuses: bool,
}

/// What counts as a second factor where nobody said.
pub const USUAL_KINDS: [Kind; 3] = [Kind::Totp, Kind::Passkey, Kind::Sms];

/// People need a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondFactor {
    /// Since when.
    pub since: DateTime<Utc>,
    /// How long they have to enrol one, from then on or from when they became members.
    pub grace: TimeDelta,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            networks: Vec::new(),
            countries_allowed: Vec::new(),
            countries_denied: Vec::new(),
            refuses_unknown: false,
            new_device: Detection::NewDevice.default_response(),
            impossible_travel: Detection::ImpossibleTravel.default_response(),
            credential_stuffing: Detection::CredentialStuffing.default_response(),
            second_factor: None,
            factor_kinds: USUAL_KINDS.to_vec(),
            sessions: None,
        }
    }
}

/// Why somebody is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bar {
    /// His address is in none of the networks.
    Address,
    /// He is in a country from which nobody may ask.
    Country,
}

impl Policy {
    /// Why whoever asks from there is not let through.
    #[must_use]
    pub fn bars(&self, address: Option<IpAddr>, country: Option<Country>) -> Option<Bar> {
        let within = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address.to_canonical()));
        // Of whom it is not known from where he asks, it is not known that he may.
        if !self.networks.is_empty() && !address.is_some_and(within) {
            return Some(Bar::Address);
        }
        let fits = match country {
            Some(country) => {
                let allowed = self.countries_allowed.is_empty() || self.countries_allowed.contains(&country);
                allowed && !self.countries_denied.contains(&country)
            }
            None => !(self.restricts_countries() && self.refuses_unknown),
        };
        (!fits).then_some(Bar::Country)
    }

    /// Whether it matters in which country somebody is.
    #[must_use]
    pub fn restricts_countries(&self) -> bool {
        !self.countries_allowed.is_empty() || !self.countries_denied.is_empty()
    }

    /// Whether somebody who proved himself with these kinds of factors has done so as it is wanted. A recovery code counts where
    /// codes that a device shows do.
    fn accepts(&self, factors: &[String]) -> bool {
        let counts = |factor: &String| {
            let kind = if factor == assurance::RECOVERY_CODE { Some(Kind::Totp) } else { Kind::read(factor) };
            kind.is_some_and(|kind| self.factor_kinds.contains(&kind))
        };
        factors.iter().any(counts)
    }

    const fn response(&self, to: Detection) -> Response {
        match to {
            Detection::NewDevice => self.new_device,
            Detection::ImpossibleTravel => self.impossible_travel,
            Detection::CredentialStuffing => self.credential_stuffing,
        }
    }
}

/// What holds for an organization: its own policy, and those of all above it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective(pub Vec<Policy>);

impl Effective {
    /// Why whoever asks from there is not let through.
    #[must_use]
    pub fn bars(&self, address: Option<IpAddr>, country: Option<Country>) -> Option<Bar> {
        self.0.iter().find_map(|policy| policy.bars(address, country))
    }

    /// Whether it matters in which country somebody is.
    #[must_use]
    pub fn restricts_countries(&self) -> bool {
        self.0.iter().any(Policy::restricts_countries)
    }

    /// From when on somebody who became a member then does nothing without a second factor; `None`: none is needed.
    #[must_use]
    pub fn second_factor_from(&self, member_since: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let from = |needed: SecondFactor| needed.since.max(member_since.unwrap_or(needed.since)) + needed.grace;
        self.0.iter().filter_map(|policy| policy.second_factor).map(from).min()
    }

    /// Whether somebody who proved himself with these kinds of factors has done so as everybody on the way up wants it who wants
    /// a second factor.
    #[must_use]
    pub fn accepts(&self, factors: &[String]) -> bool {
        self.0.iter().filter(|policy| policy.second_factor.is_some()).all(|policy| policy.accepts(factors))
    }

    /// How many sessions of a person go on at the same time: the fewest that anybody on the way up has set, and whether one of
    /// those lets nobody in beyond.
    #[must_use]
    pub fn sessions(&self) -> Option<MostSessions> {
        let set = || self.0.iter().filter_map(|policy| policy.sessions);
        let most = set().map(|sessions| sessions.most).min()?;
        Some(MostSessions { most, refuses: set().any(|sessions| sessions.refuses && sessions.most == most) })
    }

    /// What is done: the strictest of what is set, where something is.
    #[must_use]
    pub fn response(&self, to: Detection) -> Response {
        self.0.iter().map(|policy| policy.response(to)).max().unwrap_or_else(|| to.default_response())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn country(text: &str) -> Country {
        text.parse().unwrap()
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let network = (any::<u32>(), 0_u8..=32)
            .prop_map(|(bits, length)| IpNet::new(std::net::Ipv4Addr::from(bits).into(), length).unwrap().trunc());
        let countries = || proptest::collection::vec(proptest::sample::select(vec!["AT", "DE", "US"]), 0..3);
        let read = |words: Vec<&str>| words.into_iter().map(country).collect::<Vec<_>>();
        let response = || proptest::sample::select(Response::ALL.to_vec());
        (proptest::collection::vec(network, 0..3), countries(), countries(), any::<bool>(), response(), response())
            .prop_map(move |(networks, allowed, denied, refuses_unknown, new_device, impossible_travel)| Policy {
                networks,
                countries_allowed: read(allowed),
                countries_denied: read(denied),
                refuses_unknown,
                new_device,
                impossible_travel,
                ..Policy::default()
            })
    }

    fn somewhere() -> impl Strategy<Value = (Option<IpAddr>, Option<Country>)> {
        let address = proptest::option::of(any::<u32>().prop_map(|bits| IpAddr::from(std::net::Ipv4Addr::from(bits))));
        let countries = proptest::sample::select(vec!["AT", "DE", "US", "FR"]);
        (address, proptest::option::of(countries.prop_map(country)))
    }

    #[test]
    fn a_second_factor_is_needed_when_the_shortest_grace_of_all_on_the_way_up_is_over() {
        let at = |days| DateTime::UNIX_EPOCH + TimeDelta::days(days);
        let needs = |since, grace| Policy {
            second_factor: Some(SecondFactor { since: at(since), grace: TimeDelta::days(grace) }),
            ..Policy::default()
        };
        let both = Effective(vec![needs(10, 14), Policy::default(), needs(0, 30)]);
        assert_eq!(both.second_factor_from(None), Some(at(24)));
        assert_eq!(both.second_factor_from(Some(at(5))), Some(at(24)));
        assert_eq!(both.second_factor_from(Some(at(100))), Some(at(114)), "who comes later has his days too");
        assert_eq!(Effective(vec![Policy::default()]).second_factor_from(None), None);
    }

    #[test]
    fn what_counts_as_a_second_factor_is_what_all_that_want_one_on_the_way_up_let_count() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let since = DateTime::UNIX_EPOCH;
        let needs = |kinds: &[Kind]| Policy {
            second_factor: Some(SecondFactor { since, grace: TimeDelta::zero() }),
            factor_kinds: kinds.to_vec(),
            ..Policy::default()
        };
        let usual = Effective(vec![needs(&USUAL_KINDS)]);
        assert!(["totp", "sms", "passkey", "recovery_code"].iter().all(|kind| usual.accepts(&words(&[kind]))));
        assert!(!usual.accepts(&words(&["email"])) && !usual.accepts(&words(&["mailed_code"])) && !usual.accepts(&[]));
        let strict = Effective(vec![needs(&USUAL_KINDS), Policy::default(), needs(&[Kind::Passkey])]);
        assert!(strict.accepts(&words(&["sms", "passkey"])));
        assert!(!strict.accepts(&words(&["sms"])) && !strict.accepts(&words(&["recovery_code"])));
        assert!(Effective(vec![Policy::default()]).accepts(&[]), "nobody wants one");
    }

    #[test]
    fn of_how_many_sessions_go_on_the_fewest_counts() {
        let most = |most, refuses| Policy { sessions: Some(MostSessions { most, refuses }), ..Policy::default() };
        assert_eq!(Effective(vec![Policy::default()]).sessions(), None);
        let effective = Effective(vec![most(3, false), Policy::default(), most(5, true)]);
        assert_eq!(effective.sessions(), Some(MostSessions { most: 3, refuses: false }));
        let effective = Effective(vec![most(3, false), most(3, true)]);
        assert_eq!(effective.sessions(), Some(MostSessions { most: 3, refuses: true }));
    }

    proptest! {
        #[test]
        fn a_policy_below_lets_nobody_through_who_is_refused_above(
            above in proptest::collection::vec(policy(), 0..3),
            below in policy(),
            (address, country) in somewhere(),
        ) {
            let before = Effective(above.clone());
            let after = Effective([above, vec![below.clone()]].concat());
            if after.bars(address, country).is_none() {
                prop_assert_eq!(before.bars(address, country), None);
                prop_assert_eq!(below.bars(address, country), None);
            }
            if !before.0.is_empty() {
                for detection in [Detection::NewDevice, Detection::ImpossibleTravel, Detection::CredentialStuffing] {
                    prop_assert!(after.response(detection) >= before.response(detection));
                }
            }
        }

        #[test]
        fn an_address_of_version_4_in_one_of_version_6_is_the_same(policy in policy(), bits in any::<u32>()) {
            let address = std::net::Ipv4Addr::from(bits);
            let mapped = IpAddr::from(address.to_ipv6_mapped());
            prop_assert_eq!(policy.bars(Some(address.into()), None), policy.bars(Some(mapped), None));
        }
    }

    #[test]
    fn who_is_not_known_to_be_allowed_is_not_let_through() {
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let office = Policy { networks: vec!["203.0.113.0/24".parse().unwrap()], ..Policy::default() };
        assert_eq!(office.bars(at("203.0.113.9"), None), None);
        assert_eq!(office.bars(at("203.0.114.9"), None), Some(Bar::Address));
        assert_eq!(office.bars(at("2001:db8::1"), None), Some(Bar::Address));
        assert_eq!(office.bars(None, None), Some(Bar::Address));
        let alps = Policy { countries_allowed: vec![country("AT"), country("CH")], ..Policy::default() };
        assert_eq!(alps.bars(None, Some(country("AT"))), None);
        assert_eq!(alps.bars(None, Some(country("US"))), Some(Bar::Country));
        assert_eq!(alps.bars(None, None), None, "unless it is said otherwise");
        let strict = Policy { refuses_unknown: true, ..alps };
        assert_eq!(strict.bars(None, None), Some(Bar::Country));
        let all_but = Policy {
            countries_denied: vec![country("AT")],
            countries_allowed: vec![country("AT")],
            ..Policy::default()
        };
        assert_eq!(all_but.bars(None, Some(country("AT"))), Some(Bar::Country), "what is denied is denied");
        assert_eq!(Policy { refuses_unknown: true, ..Policy::default() }.bars(None, None), None);
    }

    #[test]
    fn countries_are_two_letters() {
        for wrong in ["", "at", "AUT", "A1", "Ä", "A"] {
            assert_eq!(wrong.parse::<Country>(), Err(InvalidCountry), "{wrong}");
        }
        assert_eq!(country("AT").to_string(), "AT");
    }
}
