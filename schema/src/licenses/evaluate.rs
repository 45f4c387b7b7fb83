//! What follows from a license at a moment: its state, what each feature allows, how many there may be of something, and
//! when that changes next. No clock and no database.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};

use super::claims::{ANY_INSTANCE, Claims, Mode, seconds};
use super::domain::DomainRule;
use crate::words::words;

/// How long before its end a license warns, at most: a quarter of its time.
pub const WARNING: Duration = Duration::days(30);

/// How far a clock may go back before that is worth a word.
pub const CLOCK_SLACK: Duration = Duration::hours(1);

words! {
    /// How a license is; of a chain the worst of all, which come later here.
    State {
        /// It is in force.
        Valid = "valid",
        /// It is in force, and ends soon.
        Warning = "warning",
        /// It has ended, and goes on for a while.
        Grace = "grace",
        /// It has not begun.
        NotYetValid = "not_yet_valid",
        /// It has ended, and each feature is in its mode.
        Expired = "expired",
        /// It is for other host names.
        WrongDomain = "wrong_domain",
        /// It is for another instance.
        WrongInstance = "wrong_instance",
        /// It was suspended.
        Suspended = "suspended",
        /// A newer one took its place before.
        Rollback = "rollback",
        /// It was revoked.
        Revoked = "revoked",
        /// It does not verify.
        BadSignature = "bad_signature",
    }
}

impl State {
    /// Whether something may be added at all.
    #[must_use]
    pub fn grows(self) -> bool {
        self <= Self::Grace
    }

    /// Whether it did not just come to an end, but was taken away or is none.
    const fn is_withdrawn(self) -> bool {
        matches!(self, Self::Suspended | Self::Rollback | Self::Revoked | Self::BadSignature)
    }
}

/// What was decided about a license since it was signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing.
    #[default]
    Active,
    /// It is not to be used for a while.
    Suspended,
    /// A newer one took its place.
    Replaced,
    /// It is not to be used any more.
    Revoked,
}

/// A license of a chain, and what was decided about it.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// What it says.
    pub claims: &'a Claims,
    /// What was decided.
    pub status: Status,
}

/// What a license is looked at with.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// What the clock says.
    pub now: DateTime<Utc>,
    /// The latest it ever said.
    pub seen: Option<DateTime<Utc>>,
    /// What this instance is called.
    pub instance: &'a str,
    /// The host name by which it is asked, where it is asked by one.
    pub host: Option<&'a str>,
    /// When it was last known what was revoked; `None`: it is known at any moment.
    pub informed: Option<DateTime<Utc>>,
    /// How many there are of something.
    pub usage: &'a BTreeMap<String, u64>,
}

/// What a feature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Nothing, but for what runs.
    None,
    /// To look.
    Read,
    /// To change what is there.
    Change,
    /// Everything.
    Full,
}

impl Access {
    /// The word that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Change => "change",
            Self::Full => "full",
        }
    }
}

impl From<Mode> for Access {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Continue => Self::Full,
            Mode::NoGrowth => Self::Change,
            Mode::ReadOnly => Self::Read,
            Mode::Stop => Self::None,
        }
    }
}

/// There are more of something than there may be: nothing is added, and nothing is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of what.
    pub limit: String,
    /// How many there are.
    pub used: u64,
    /// How many there may be.
    pub most: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The worst state of the chain.
    pub state: State,
    /// What each feature of it allows.
    pub features: BTreeMap<String, Access>,
    /// How many there may be; `None`: any number.
    pub limits: BTreeMap<String, Option<u64>>,
    /// Where there are more than there may be.
    pub violations: Vec<Violation>,
    /// When it ends, or ended; `None`: never.
    pub ends_at: Option<DateTime<Utc>>,
    /// When the state or a feature changes next by itself.
    pub next_change: Option<DateTime<Utc>>,
    /// The clock went back, so the latest time it said is taken.
    pub clock_went_back: bool,
    /// The time that was taken.
    pub at: DateTime<Utc>,
}

/// How one license of a chain is at a moment.
struct Phase<'a> {
    claims: &'a Claims,
    state: State,
    warns_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    degrades_at: Option<DateTime<Utc>>,
}

impl<'a> Phase<'a> {
    fn of(link: &Link<'a>, at: DateTime<Utc>, circumstances: &Circumstances<'_>) -> Self {
        let claims = link.claims;
        let unheard = match (claims.off, circumstances.informed) {
            (Some(off), Some(informed)) => informed.checked_add_signed(seconds(off)),
            _ => None,
        };
        let ends_at = [claims.exp, unheard].into_iter().flatten().min();
        let degrades_at = ends_at.and_then(|ends_at| ends_at.checked_add_signed(claims.grace()));
        let warns_at = claims.exp.map(|exp| exp - WARNING.min((exp - claims.nbf) / 4));
        let reached = |moment: Option<DateTime<Utc>>| moment.is_some_and(|moment| at >= moment);
        let by_time = if at < claims.nbf {
            State::NotYetValid
        } else if reached(degrades_at) {
            State::Expired
        } else if reached(ends_at) {
            State::Grace
        } else if reached(warns_at) {
            State::Warning
        } else {
            State::Valid
        };
        let by_status = match link.status {
            Status::Active => State::Valid,
            Status::Suspended => State::Suspended,
            Status::Replaced => State::Rollback,
            Status::Revoked => State::Revoked,
        };
        let state = by_time.max(by_status).max(by_place(claims, circumstances));
        Self { claims, state, warns_at, ends_at, degrades_at }
    }

    fn access(&self, feature: &str) -> Access {
        // What grows no more since the end does not grow again after the grace.
        let early = if self.claims.gra.contains(feature) { Access::Change } else { Access::Full };
        let when_ended = || Access::from(self.claims.mode(feature)).min(early);
        match self.state {
            State::Valid | State::Warning => Access::Full,
            State::Grace => early,
            state if state.is_withdrawn() => when_ended().min(Access::Read),
            _ => when_ended(),
        }
    }

    /// Moments at which it is different by itself.
    fn changes(&self) -> impl Iterator<Item = DateTime<Utc>> {
        [Some(self.claims.nbf), self.warns_at, self.ends_at, self.degrades_at].into_iter().flatten()
    }
}

fn by_place(claims: &Claims, circumstances: &Circumstances<'_>) -> State {
    let anywhere = claims.dom.is_empty();
    let fits = |host: &str| claims.dom.iter().any(|rule: &DomainRule| rule.fits(host));
    if claims.aud != ANY_INSTANCE && claims.aud != circumstances.instance {
        State::WrongInstance
    } else if !anywhere && circumstances.host.is_some_and(|host| !fits(host)) {
        State::WrongDomain
    } else {
        State::Valid
    }
}

/// What follows from a chain, the holder's license last. A chain has at least one license.
#[must_use]
pub fn evaluate(links: &[Link<'_>], circumstances: &Circumstances<'_>) -> Evaluation {
    // Time does not go back: whoever turns the clock back gains nothing.
    let at = circumstances.seen.map_or(circumstances.now, |seen| seen.max(circumstances.now));
    let phases: Vec<Phase<'_>> = links.iter().map(|link| Phase::of(link, at, circumstances)).collect();
    let state = phases.iter().map(|phase| phase.state).max().unwrap_or(State::BadSignature);
    let (mut features, mut limits) = (BTreeMap::new(), BTreeMap::new());
    if let Some(own) = phases.last() {
        for feature in &own.claims.feat {
            // One above that was replaced may have it no more.
            let of_link = |phase: &Phase<'_>| {
                if phase.claims.feat.contains(feature) { phase.access(feature) } else { Access::None }
            };
            if let Some(access) = phases.iter().map(of_link).min().filter(|access| *access > Access::None) {
                features.insert(feature.clone(), access);
            }
        }
    }
    for phase in &phases {
        for (name, most) in &phase.claims.lim {
            let known = limits.entry(name.clone()).or_insert(*most);
            *known = [*known, *most].into_iter().flatten().min();
        }
    }
    let over = |(name, most): (&String, &Option<u64>)| {
        let (used, most) = (circumstances.usage.get(name).copied().unwrap_or(0), (*most)?);
        (used > most).then(|| Violation { limit: name.clone(), used, most })
    };
    Evaluation {
        state,
        violations: limits.iter().filter_map(over).collect(),
        features,
        limits,
        ends_at: phases.iter().filter_map(|phase| phase.ends_at).min(),
        next_change: phases.iter().flat_map(Phase::changes).filter(|change| *change > at).min(),
        clock_went_back: at - circumstances.now > CLOCK_SLACK,
        at,
    }
}

impl Evaluation {
    /// What follows from a key that does not verify.
    #[must_use]
    pub fn of_none(at: DateTime<Utc>) -> Self {
        Self {
            state: State::BadSignature,
            features: BTreeMap::new(),
            limits: BTreeMap::new(),
            violations: Vec::new(),
            ends_at: None,
            next_change: None,
            clock_went_back: false,
            at,
        }
    }

    /// What a feature allows.
    #[must_use]
    pub fn access(&self, feature: &str) -> Access {
        self.features.get(feature).copied().unwrap_or(Access::None)
    }

    /// Whether something may be added that is counted, and needs this feature.
    #[must_use]
    pub fn grows(&self, feature: Option<&str>) -> bool {
        match feature {
            Some(feature) => self.access(feature) == Access::Full,
            None => self.state.grows(),
        }
    }

    /// Whole days until it ends; negative: since.
    #[must_use]
    pub fn days_remaining(&self) -> Option<i64> {
        self.ends_at.map(|ends_at| (ends_at - self.at).num_seconds().div_euclid(86_400))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::chain::tests::{DAY, begin, child_of, license};
    use super::*;
    use crate::licenses::within;

    fn at(now: DateTime<Utc>, usage: &BTreeMap<String, u64>) -> Circumstances<'_> {
        Circumstances { now, seen: None, instance: "here", host: None, informed: None, usage }
    }

    fn active(claims: &Claims) -> Link<'_> {
        Link { claims, status: Status::Active }
    }

    fn state_at(claims: &Claims, now: DateTime<Utc>) -> State {
        evaluate(&[active(claims)], &at(now, &BTreeMap::new())).state
    }

    #[test]
    fn a_license_ends_to_the_second() {
        let claims = license(1);
        let (end, second) = (claims.exp.unwrap(), Duration::seconds(1));
        assert_eq!(state_at(&claims, begin() - second), State::NotYetValid);
        assert_eq!(state_at(&claims, begin()), State::Valid);
        assert_eq!(state_at(&claims, end - WARNING - second), State::Valid);
        assert_eq!(state_at(&claims, end - WARNING), State::Warning);
        assert_eq!(state_at(&claims, end - second), State::Warning);
        assert_eq!(state_at(&claims, end), State::Grace);
        assert_eq!(state_at(&claims, end + Duration::days(7) - second), State::Grace);
        assert_eq!(state_at(&claims, end + Duration::days(7)), State::Expired);
        let trial = Claims { exp: Some(begin() + Duration::days(14)), ..claims };
        assert_eq!(state_at(&trial, begin() + Duration::days(10)), State::Valid);
        assert_eq!(state_at(&trial, begin() + Duration::days(11)), State::Warning);
    }

    #[test]
    fn each_feature_ends_as_the_license_says() {
        let mut claims = license(1);
        claims.feat = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
        let modes = [("a", Mode::Continue), ("b", Mode::NoGrowth), ("c", Mode::ReadOnly), ("d", Mode::Stop)];
        claims.deg = modes.map(|(name, mode)| (name.to_owned(), mode)).into();
        claims.gra = ["b".to_owned()].into();
        let (end, usage) = (claims.exp.unwrap(), BTreeMap::new());
        let look = |now, status| {
            let evaluation = evaluate(&[Link { claims: &claims, status }], &at(now, &usage));
            ["a", "b", "c", "d", "e", "f"].map(|feature| evaluation.access(feature))
        };
        use Access::{Change, Full, None, Read};
        assert_eq!(look(begin(), Status::Active), [Full, Full, Full, Full, Full, None]);
        assert_eq!(look(end, Status::Active), [Full, Change, Full, Full, Full, None]);
        assert_eq!(look(end + Duration::days(7), Status::Active), [Full, Change, Read, None, Change, None]);
        assert_eq!(look(begin(), Status::Revoked), [Read, Read, Read, None, Read, None]);
        assert_eq!(look(begin(), Status::Suspended), [Read, Read, Read, None, Read, None]);
    }

    #[test]
    fn over_a_limit_is_no_state() {
        let claims = license(1);
        let usage = [("servers".to_owned(), 101), ("users".to_owned(), 1_000_000)].into();
        let evaluation = evaluate(&[active(&claims)], &at(begin(), &usage));
        assert_eq!(evaluation.state, State::Valid);
        assert_eq!(evaluation.access("api_access"), Access::Full);
        let violation = Violation { limit: "servers".into(), used: 101, most: 100 };
        assert_eq!(evaluation.violations, [violation]);
    }

    #[test]
    fn a_clock_that_goes_back_gains_nothing() {
        let claims = license(1);
        let (end, usage) = (claims.exp.unwrap() + Duration::days(7), BTreeMap::new());
        let back = |by| {
            let circumstances = Circumstances { seen: Some(end), ..at(end - by, &usage) };
            let evaluation = evaluate(&[active(&claims)], &circumstances);
            (evaluation.state, evaluation.clock_went_back)
        };
        assert_eq!(back(Duration::minutes(59)), (State::Expired, false));
        assert_eq!(back(Duration::days(30)), (State::Expired, true));
    }

    #[test]
    fn it_is_used_where_it_may_be() {
        let mut claims = license(1);
        claims.dom = vec!["*.example.com".parse().unwrap()];
        let usage = BTreeMap::new();
        let by = |host| evaluate(&[active(&claims)], &Circumstances { host, ..at(begin(), &usage) }).state;
        assert_eq!(by(Some("a.example.com")), State::Valid);
        assert_eq!(by(Some("evilexample.com")), State::WrongDomain);
        // Whoever is asked by no name, as a job, is not in the wrong place.
        assert_eq!(by(None), State::Valid);
        let elsewhere = Claims { aud: "there".into(), ..license(1) };
        assert_eq!(state_at(&elsewhere, begin()), State::WrongInstance);
    }

    #[test]
    fn without_news_it_goes_on_for_as_long_as_it_allows() {
        let claims = Claims { off: Some(10 * DAY), ..license(1) };
        let usage = BTreeMap::new();
        let after = |days| {
            let now = begin() + Duration::days(days);
            evaluate(&[active(&claims)], &Circumstances { informed: Some(begin()), ..at(now, &usage) }).state
        };
        assert_eq!([9, 10, 16, 17].map(after), [State::Valid, State::Grace, State::Grace, State::Expired]);
    }

    #[test]
    fn when_the_one_above_shrinks_so_does_what_was_made_of_it() {
        let (top, usage) = (license(1), BTreeMap::new());
        let child = child_of(&top);
        let mut shrunk = top.clone();
        shrunk.feat.remove("domain_management");
        shrunk.lim.insert("servers".into(), Some(3));
        shrunk.exp = Some(begin() + Duration::days(30));
        let evaluation = evaluate(&[active(&shrunk), active(&child)], &at(begin(), &usage));
        assert_eq!(evaluation.access("domain_management"), Access::None);
        assert_eq!(evaluation.access("api_access"), Access::Full);
        assert_eq!(evaluation.limits["servers"], Some(3));
        assert_eq!(evaluation.ends_at, shrunk.exp);
        let revoked = Link { claims: &top, status: Status::Revoked };
        assert_eq!(evaluate(&[revoked, active(&child)], &at(begin(), &usage)).state, State::Revoked);
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![3 => Just(Status::Active), 1 => Just(Status::Suspended), 1 => Just(Status::Revoked)]
    }

    fn claims() -> impl Strategy<Value = Claims> {
        let mode = proptest::sample::select(vec![Mode::Continue, Mode::NoGrowth, Mode::ReadOnly, Mode::Stop]);
        let features = proptest::collection::btree_map("[a-c]", (mode, any::<bool>()), 0..4);
        (features, proptest::option::of(0_u64..9), proptest::option::of(1_i64..60), 0_u64..10).prop_map(
            |(features, servers, days, grace)| Claims {
                feat: features.keys().cloned().collect(),
                deg: features.iter().map(|(name, (mode, _))| (name.clone(), *mode)).collect(),
                gra: features.iter().filter(|(_, (_, early))| *early).map(|(name, _)| name.clone()).collect(),
                lim: [("servers".to_owned(), servers)].into(),
                exp: days.map(|days| begin() + Duration::days(days)),
                grace: grace * DAY,
                ..license(1)
            },
        )
    }

    proptest! {
        #[test]
        fn a_chain_allows_no_more_than_any_of_its_licenses(top in claims(), own in claims(), status in status(), day in -5_i64..90, used in 0_u64..12) {
            let usage = [("servers".to_owned(), used)].into();
            let circumstances = at(begin() + Duration::days(day), &usage);
            let above = Link { claims: &top, status };
            let both = evaluate(&[above, active(&own)], &circumstances);
            for one in [evaluate(&[above], &circumstances), evaluate(&[active(&own)], &circumstances)] {
                prop_assert!(both.state >= one.state);
                for (feature, access) in &both.features {
                    prop_assert!(*access <= one.access(feature));
                }
                for (name, most) in &one.limits {
                    prop_assert!(most.is_none_or(|most| both.limits[name].is_some_and(|both| both <= most)));
                }
                prop_assert!(one.violations.len() <= both.violations.len());
            }
        }

        #[test]
        fn what_is_narrower_allows_no_more_at_any_time(top in claims(), own in claims(), day in 0_i64..90) {
            if within(&top, &own).is_ok() {
                let usage = BTreeMap::new();
                let circumstances = at(begin() + Duration::days(day), &usage);
                let (top, own) = (evaluate(&[active(&top)], &circumstances), evaluate(&[active(&own)], &circumstances));
                for (feature, access) in &own.features {
                    prop_assert!(*access <= top.access(feature), "{feature}");
                }
            }
        }

        #[test]
        fn once_begun_it_allows_less_and_less_and_says_when(own in claims(), day in 0_i64..90, later in 0_i64..90) {
            let usage = BTreeMap::new();
            let look = |day: i64| evaluate(&[active(&own)], &at(begin() + Duration::days(day), &usage));
            let (now, then) = (look(day), look(day + later));
            prop_assert!(then.state >= now.state);
            for (feature, access) in &then.features {
                prop_assert!(*access <= now.access(feature));
            }
            if now.next_change.is_none_or(|change| change > then.at) {
                prop_assert_eq!((now.state, now.features), (then.state, then.features));
            }
        }

        #[test]
        fn using_more_takes_nothing_away(own in claims(), day in 0_i64..90, used in 0_u64..20) {
            let (none, some) = (BTreeMap::new(), [("servers".to_owned(), used)].into());
            let now = begin() + Duration::days(day);
            let (without, with) = (evaluate(&[active(&own)], &at(now, &none)), evaluate(&[active(&own)], &at(now, &some)));
            prop_assert_eq!((without.state, without.features, without.limits), (with.state, with.features, with.limits));
        }
    }
}
