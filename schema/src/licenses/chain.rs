//! A license with those that it was made of: each is signed with the key that the one before it names, and is no wider.
//! Who has the keys of the first ones verifies it, and asks nobody.

use super::claims::{ANY_INSTANCE, Claims, InvalidClaims};
use super::features::Feature;
use super::keys::{KeyId, PublicKey, SecretKey};
use super::paseto::{self, PasetoError};
use crate::LicenseId;

/// What stands between the licenses of a chain; the first one is above the others.
pub const SEPARATOR: char = '~';

/// Licenses one below the other, at most.
pub const MAX_LINKS: usize = 8;

/// Characters of a key, at most.
pub const MAX_LENGTH: usize = 64 * 1024;

/// Binds a signature to what it is for: no token of another product is a license.
const PURPOSE: &[u8] = b"gantry license";

/// Keys that are believed of themselves: compiled in, or pinned by whoever operates the platform.
#[derive(Debug, Clone, Default)]
pub struct Anchors(Vec<(KeyId, PublicKey)>);

impl Anchors {
    /// These keys.
    #[must_use]
    pub fn of(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }

    /// The key of this name, if it is believed.
    pub(super) fn find(&self, id: &str) -> Option<&PublicKey> {
        self.0.iter().find(|(known, _)| known.as_str() == id).map(|(_, key)| key)
    }
}

/// A key that is believed: the licenses in it, that of the holder last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    links: Vec<Claims>,
    /// The key that the first one was signed with.
    anchor: KeyId,
}

/// In what a license is wider than the one it was made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wider {
    /// Nothing may be made of it.
    #[error("the license above may not be passed on; it needs the feature {} and a key", Feature::Reselling)]
    NotDelegated,
    /// Too many stand one below the other.
    #[error("the license above may not be passed on that far")]
    Depth,
    /// It names another license as the one above.
    #[error("it is not part of the license above it")]
    Parent,
    /// It is the same organization's.
    #[error("it is of the same organization as the license above it")]
    Subject,
    /// It has a feature more.
    #[error("the feature {0} is not in the license above")]
    Feature(String),
    /// It has more of something.
    #[error("the limit {0} is higher than in the license above")]
    Limit(String),
    /// It begins earlier.
    #[error("it begins before the license above")]
    Begin,
    /// It ends later.
    #[error("it ends after the license above")]
    End,
    /// It goes on longer after its end.
    #[error("its grace is longer than that of the license above")]
    Grace,
    /// A feature of it goes on after its end where it would not there.
    #[error("the feature {0} goes on longer than in the license above")]
    Degrade(String),
    /// It may be used somewhere else.
    #[error("it may be used where the license above may not")]
    Place,
    /// It goes on longer without news.
    #[error("it goes on longer without news of what was revoked than the license above")]
    Offline,
}

/// The text is no key, or not one that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It is too long, or too many stand one below the other.
    #[error("a key is at most {MAX_LENGTH} characters and {MAX_LINKS} licenses")]
    TooLong,
    /// A token of it is none, or was signed by somebody else.
    #[error("the license {link}: {source}")]
    Paseto {
        /// Which, from the top, counted from one.
        link: usize,
        /// What is wrong.
        source: PasetoError,
    },
    /// Nobody here believes the key it was signed with.
    #[error("the license {link} was signed with the key {key}, which is not believed here")]
    UnknownKey {
        /// Which.
        link: usize,
        /// The key it names.
        key: String,
    },
    /// What it says cannot be read.
    #[error("the license {link} cannot be read: {message}")]
    Unreadable {
        /// Which.
        link: usize,
        /// Why.
        message: String,
    },
    /// What it says is not in order.
    #[error("the license {link}: {source}")]
    Claims {
        /// Which.
        link: usize,
        /// Why.
        source: InvalidClaims,
    },
    /// It is more than the one above it can give.
    #[error("the license {link} is wider than the one above it: {source}")]
    Wider {
        /// Which.
        link: usize,
        /// In what.
        source: Wider,
    },
}

impl Chain {
    /// Reads a key, and believes it if its first license was signed with an anchor and each is within the one above.
    ///
    /// # Errors
    /// When it is none, or not believed.
    pub fn verify(text: &str, anchors: &Anchors) -> Result<Self, ChainError> {
        let text = text.trim();
        if text.len() > MAX_LENGTH || text.matches(SEPARATOR).count() >= MAX_LINKS {
            return Err(ChainError::TooLong);
        }
        let (mut links, mut anchor): (Vec<Claims>, Option<KeyId>) = (Vec::new(), None);
        for (token, link) in text.split(SEPARATOR).zip(1..) {
            let read = paseto::read(token).map_err(|source| ChainError::Paseto { link, source })?;
            let named = read.key_named();
            let key = match links.last() {
                None => anchors.find(&named).copied(),
                Some(above) => above.cld.as_ref().map(|cld| cld.key).filter(|key| key.id().as_str() == named),
            };
            let key = key.ok_or(ChainError::UnknownKey { link, key: named })?;
            let message = read.verify(&key, PURPOSE).map_err(|source| ChainError::Paseto { link, source })?;
            let claims = read_claims(&message, link)?;
            if let Some(above) = links.last() {
                narrower(above, &claims).map_err(|source| ChainError::Wider { link, source })?;
            } else if claims.par.is_some() {
                return Err(ChainError::Wider { link, source: Wider::Parent });
            }
            anchor.get_or_insert_with(|| key.id());
            links.push(claims);
        }
        Ok(Self { links, anchor: anchor.expect("splitting a text gives at least one part") })
    }

    /// The name of the key with which the first license was signed.
    #[must_use]
    pub const fn anchor(&self) -> &KeyId {
        &self.anchor
    }

    /// The licenses, from the top.
    #[must_use]
    pub fn links(&self) -> &[Claims] {
        &self.links
    }

    /// The holder's license.
    #[must_use]
    pub fn own(&self) -> &Claims {
        self.links.last().expect("splitting a text gives at least one part")
    }
}

fn read_claims(message: &[u8], link: usize) -> Result<Claims, ChainError> {
    let claims: Claims =
        serde_json::from_slice(message).map_err(|error| ChainError::Unreadable { link, message: error.to_string() })?;
    claims.check().map_err(|source| ChainError::Claims { link, source })?;
    Ok(claims)
}

/// What a key, a list of revoked licenses or a statement says, whoever signed it: to look at it, and for nothing else.
///
/// # Errors
/// When the text is no key.
pub fn inspect(text: &str) -> Result<Vec<(String, serde_json::Value)>, ChainError> {
    let text = text.trim();
    if text.len() > super::statements::MAX_LENGTH || text.matches(SEPARATOR).count() >= MAX_LINKS {
        return Err(ChainError::TooLong);
    }
    let look = |(token, link): (&str, usize)| {
        let read = paseto::read(token).map_err(|source| ChainError::Paseto { link, source })?;
        let named = read.key_named();
        let claims = serde_json::from_slice(read.message_unverified())
            .map_err(|error| ChainError::Unreadable { link, message: error.to_string() })?;
        Ok((named, claims))
    };
    text.split(SEPARATOR).zip(1..).map(look).collect()
}

/// Signs a license; the key of the one above comes before it.
///
/// # Errors
/// When it is not in order. That it is within the one above is for the caller to ask first, with [`narrower`].
pub fn issue(above: Option<&str>, claims: &Claims, key: &SecretKey) -> Result<String, InvalidClaims> {
    claims.check()?;
    let message = serde_json::to_vec(claims).expect("claims have nothing that JSON cannot say");
    let footer = paseto::naming(&key.public().id());
    let token = paseto::sign(key, &message, footer.as_bytes(), PURPOSE);
    Ok(above.map_or_else(|| token.clone(), |above| format!("{}{SEPARATOR}{token}", above.trim())))
}

/// Whether a license is no more than the one above it can give.
///
/// # Errors
/// What it has more.
pub fn narrower(above: &Claims, own: &Claims) -> Result<(), Wider> {
    let cld = above.cld.as_ref().filter(|_| above.feat.contains(Feature::Reselling.as_str()));
    let cld = cld.ok_or(Wider::NotDelegated)?;
    let left = cld.depth.checked_sub(1).ok_or(Wider::Depth)?;
    if own.cld.as_ref().is_some_and(|own| own.depth > left) {
        return Err(Wider::Depth);
    }
    if own.par != Some(above.jti) {
        return Err(Wider::Parent);
    }
    if own.sub == above.sub {
        return Err(Wider::Subject);
    }
    within(above, own)?;
    if let Some(name) = cld.lim.iter().find_map(|(name, most)| exceeds(own.limit(name), *most).then_some(name)) {
        return Err(Wider::Limit(name.clone()));
    }
    let fits = |rule| cld.dom.iter().any(|allowed| allowed.covers(rule));
    if !cld.dom.is_empty() && (own.dom.is_empty() || !own.dom.iter().all(fits)) {
        return Err(Wider::Place);
    }
    Ok(())
}

/// Whether a license gives no more than another one, whoever made them.
///
/// # Errors
/// What it gives more.
pub fn within(above: &Claims, own: &Claims) -> Result<(), Wider> {
    if let Some(more) = own.feat.iter().find(|feature| !above.feat.contains(*feature)) {
        return Err(Wider::Feature(more.clone()));
    }
    let mut limits = above.lim.iter();
    if let Some((name, _)) = limits.find(|(name, most)| exceeds(own.limit(name), **most)) {
        return Err(Wider::Limit(name.clone()));
    }
    if own.nbf < above.nbf {
        return Err(Wider::Begin);
    }
    if later(own.exp, above.exp) {
        return Err(Wider::End);
    }
    if own.grace > above.grace {
        return Err(Wider::Grace);
    }
    let milder = |feature: &&String| {
        own.mode(feature) < above.mode(feature) || (above.gra.contains(*feature) && !own.gra.contains(*feature))
    };
    if let Some(feature) = own.feat.iter().find(milder) {
        return Err(Wider::Degrade(feature.clone()));
    }
    if above.aud != ANY_INSTANCE && own.aud != above.aud {
        return Err(Wider::Place);
    }
    if above.off.is_some() && (own.off.is_none() || own.off > above.off) {
        return Err(Wider::Offline);
    }
    Ok(())
}

/// Whether there may be more than `most`; `None` is any number.
fn exceeds(own: Option<u64>, most: Option<u64>) -> bool {
    most.is_some_and(|most| own.is_none_or(|own| own > most))
}

fn later<T: Ord>(own: Option<T>, most: Option<T>) -> bool {
    most.is_some_and(|most| own.is_none_or(|own| own > most))
}

/// The ids of a chain's licenses, from the top.
pub fn ids(chain: &Chain) -> impl Iterator<Item = LicenseId> {
    chain.links().iter().map(|claims| claims.jti)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use chrono::{DateTime, Duration, Utc};
    use proptest::prelude::*;

    use super::super::claims::{Delegation, Kind, Mode, VERSION};
    use super::*;
    use crate::OrganizationId;

    pub(in super::super) const DAY: u64 = 86_400;

    pub(in super::super) fn begin() -> DateTime<Utc> {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    pub(in super::super) fn key(number: u8) -> SecretKey {
        SecretKey::from_seed(&[number; 32])
    }

    fn words(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(ToString::to_string).collect()
    }

    pub(in super::super) fn license(number: u128) -> Claims {
        Claims {
            ver: VERSION,
            jti: LicenseId::from_uuid(uuid::Uuid::from_u128(number)),
            iss: "vendor".into(),
            sub: OrganizationId::from_uuid(uuid::Uuid::from_u128(number + 1_000)),
            aud: ANY_INSTANCE.into(),
            iat: begin(),
            nbf: begin(),
            exp: Some(begin() + Duration::days(365)),
            typ: Kind::Subscription,
            tier: "professional".into(),
            feat: words(&["api_access", "domain_management", "reselling"]),
            lim: [("servers".to_owned(), Some(100)), ("users".to_owned(), None)].into(),
            dom: Vec::new(),
            grace: 7 * DAY,
            deg: BTreeMap::new(),
            gra: BTreeSet::new(),
            seq: 1,
            par: None,
            cld: Some(Delegation { key: key(2).public(), depth: 2, lim: BTreeMap::new(), dom: Vec::new() }),
            off: None,
            epo: 0,
        }
    }

    pub(in super::super) fn child_of(above: &Claims) -> Claims {
        let mut child = license(above.jti.uuid().as_u128() + 1);
        child.par = Some(above.jti);
        child.lim = [("servers".to_owned(), Some(10)), ("users".to_owned(), Some(5))].into();
        child.cld = Some(Delegation { key: key(3).public(), depth: 1, lim: BTreeMap::new(), dom: Vec::new() });
        child
    }

    fn anchors() -> Anchors {
        Anchors::of([key(1).public()])
    }

    #[test]
    fn a_chain_is_believed_from_its_anchor_alone() {
        let (top, middle) = (license(1), child_of(&license(1)));
        let mut last = child_of(&middle);
        last.cld = None;
        let root = issue(None, &top, &key(1)).unwrap();
        let second = issue(Some(&root), &middle, &key(2)).unwrap();
        let third = issue(Some(&second), &last, &key(3)).unwrap();
        let chain = Chain::verify(&third, &anchors()).unwrap();
        assert_eq!(chain.links(), [top, middle, last.clone()]);
        assert_eq!(chain.own(), &last);
        assert_eq!(inspect(&third).unwrap().len(), 3);
    }

    #[test]
    fn what_nobody_vouches_for_is_not_believed() {
        let (top, middle) = (license(1), child_of(&license(1)));
        let root = issue(None, &top, &key(1)).unwrap();
        let second = issue(Some(&root), &middle, &key(2)).unwrap();
        let verify = |text: &str| Chain::verify(text, &anchors());
        // Signed by somebody else, alone, in another order, with another one above, or changed.
        let stranger = issue(None, &top, &key(9)).unwrap();
        assert!(matches!(verify(&stranger), Err(ChainError::UnknownKey { link: 1, .. })));
        let alone = second.split(SEPARATOR).nth(1).unwrap();
        assert!(matches!(verify(alone), Err(ChainError::UnknownKey { link: 1, .. })));
        assert!(verify(&format!("{alone}{SEPARATOR}{root}")).is_err());
        let itself = issue(Some(&root), &middle, &key(1)).unwrap();
        assert!(matches!(verify(&itself), Err(ChainError::UnknownKey { link: 2, .. })));
        let renewed = issue(None, &Claims { jti: license(7).jti, ..top.clone() }, &key(1)).unwrap();
        let moved = verify(&format!("{renewed}{SEPARATOR}{alone}"));
        assert_eq!(moved, Err(ChainError::Wider { link: 2, source: Wider::Parent }));
        let headless = issue(None, &middle, &key(1)).unwrap();
        assert_eq!(verify(&headless), Err(ChainError::Wider { link: 1, source: Wider::Parent }));
        assert!(verify("").is_err() && verify("~").is_err());
        assert_eq!(verify(&[root.as_str(); MAX_LINKS + 1].join("~")), Err(ChainError::TooLong));
        for place in (0..root.len()).step_by(7) {
            let mut bytes = root.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            assert!(verify(std::str::from_utf8(&bytes).unwrap()).is_err(), "{place}");
        }
    }

    #[test]
    fn a_claim_that_this_release_does_not_know_is_not_overlooked() {
        let mut claims = serde_json::to_value(license(1)).unwrap();
        claims["only_on_sundays"] = true.into();
        let footer = format!(r#"{{"kid":"{}"}}"#, key(1).public().id());
        let token = paseto::sign(&key(1), claims.to_string().as_bytes(), footer.as_bytes(), PURPOSE);
        assert!(matches!(Chain::verify(&token, &anchors()), Err(ChainError::Unreadable { link: 1, .. })));
        let later = issue(None, &Claims { ver: 2, ..license(1) }, &key(1));
        assert_eq!(later, Err(InvalidClaims::Version(2)));
    }

    #[test]
    fn whatever_is_wider_is_refused_by_name() {
        let top = license(1);
        type Change = fn(&mut Claims, &mut Claims);
        let cases: &[(Change, Wider)] = &[
            (
                |_, child| {
                    child.feat.insert("sso_integration".into());
                },
                Wider::Feature("sso_integration".into()),
            ),
            (
                |_, child| {
                    child.lim.insert("servers".into(), Some(101));
                },
                Wider::Limit("servers".into()),
            ),
            (
                |_, child| {
                    child.lim.insert("servers".into(), None);
                },
                Wider::Limit("servers".into()),
            ),
            (
                |_, child| {
                    child.lim.remove("servers");
                },
                Wider::Limit("servers".into()),
            ),
            (|_, child| child.exp = Some(begin() + Duration::days(366)), Wider::End),
            (|_, child| child.exp = None, Wider::End),
            (|_, child| child.nbf = begin() - Duration::seconds(1), Wider::Begin),
            (|_, child| child.grace = 8 * DAY, Wider::Grace),
            (
                |_, child| {
                    child.deg.insert("api_access".into(), Mode::Continue);
                },
                Wider::Degrade("api_access".into()),
            ),
            (
                |top, _| {
                    top.gra.insert("api_access".into());
                },
                Wider::Degrade("api_access".into()),
            ),
            (|top, _| top.aud = "instance".into(), Wider::Place),
            (|top, _| top.off = Some(DAY), Wider::Offline),
            (|top, _| top.cld = None, Wider::NotDelegated),
            (
                |top, _| {
                    top.feat.remove("reselling");
                },
                Wider::NotDelegated,
            ),
            (|top, _| top.cld.as_mut().unwrap().depth = 0, Wider::Depth),
            (|top, _| top.cld.as_mut().unwrap().depth = 1, Wider::Depth),
            (
                |top, _| {
                    top.cld.as_mut().unwrap().lim.insert("servers".into(), Some(9));
                },
                Wider::Limit("servers".into()),
            ),
            (|top, _| top.cld.as_mut().unwrap().dom = vec!["*.example.com".parse().unwrap()], Wider::Place),
            (|top, child| child.sub = top.sub, Wider::Subject),
            (|_, child| child.par = None, Wider::Parent),
        ];
        assert_eq!(narrower(&top, &child_of(&top)), Ok(()));
        for (change, wider) in cases {
            let (mut top, mut child) = (license(1), child_of(&license(1)));
            change(&mut top, &mut child);
            assert_eq!(narrower(&top, &child).as_ref(), Err(wider));
            let root = issue(None, &top, &key(1)).unwrap();
            let both = issue(Some(&root), &child, &key(2)).unwrap();
            let refused = Chain::verify(&both, &anchors()).unwrap_err();
            let by_key = matches!(refused, ChainError::UnknownKey { link: 2, .. }) && top.cld.is_none();
            assert!(by_key || refused == ChainError::Wider { link: 2, source: wider.clone() }, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn what_verifies_has_never_more_than_what_is_above_it(
            features in proptest::collection::btree_set(proptest::sample::select(vec!["api_access", "domain_management", "sso_integration"]), 0..4),
            servers in proptest::option::of(0_u64..200),
            days in proptest::option::of(1_i64..800),
            grace in 0_u64..14,
        ) {
            let top = license(1);
            let mut child = child_of(&top);
            child.feat = features.into_iter().map(str::to_owned).collect();
            child.lim.insert("servers".into(), servers);
            child.exp = days.map(|days| begin() + Duration::days(days));
            child.grace = grace * DAY;
            let root = issue(None, &top, &key(1)).unwrap();
            let both = issue(Some(&root), &child, &key(2)).unwrap();
            if let Ok(chain) = Chain::verify(&both, &anchors()) {
                let own = chain.own();
                prop_assert!(own.feat.is_subset(&top.feat));
                prop_assert!(own.limit("servers").is_some_and(|servers| servers <= 100));
                prop_assert!(own.exp.is_some_and(|exp| Some(exp) <= top.exp));
                prop_assert!(own.grace <= top.grace);
            } else {
                prop_assert!(narrower(&top, &child).is_err());
            }
        }
    }
}
