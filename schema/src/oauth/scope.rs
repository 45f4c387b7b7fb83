//! What an application asks for: permissions, by their own words, and what OpenID Connect adds about a person.

use std::fmt;
use std::str::FromStr;

use crate::organizations::{Permission, Permissions};

/// Something an application asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Who signed in: an ID token.
    OpenId,
    /// What he is called.
    Profile,
    /// Where mail reaches him.
    Email,
    /// To go on when he is not there: a refresh token.
    OfflineAccess,
    /// To do this in his organization.
    Permission(Permission),
}

/// The word is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope")]
pub struct UnknownScope(pub String);

impl Scope {
    /// All that an application can be given: what concerns the whole installation, none can.
    pub fn all() -> impl Iterator<Item = Self> {
        let permissions =
            Permission::ALL.iter().copied().filter(|permission| *permission != Permission::OperatePlatform);
        let about_people = [Self::OpenId, Self::Profile, Self::Email, Self::OfflineAccess];
        about_people.into_iter().chain(permissions.map(Self::Permission))
    }

    /// The word that is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenId => "openid",
            Self::Profile => "profile",
            Self::Email => "email",
            Self::OfflineAccess => "offline_access",
            Self::Permission(permission) => permission.as_str(),
        }
    }

    /// What it allows, in a sentence for who is asked.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::OpenId => "Know who you are here.",
            Self::Profile => "See your name and your language.",
            Self::Email => "See your e-mail address.",
            Self::OfflineAccess => "Go on doing all this when you are not there, until you take it back.",
            Self::Permission(permission) => permission.describe(),
        }
    }

    /// It is about the person, whom an application that acts for itself does not have.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        !matches!(self, Self::Permission(_))
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        Self::all().find(|scope| scope.as_str() == word).ok_or_else(|| UnknownScope(word.chars().take(100).collect()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Several of them, each once and in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// As they are stored; words this release does not know allow nothing.
    #[must_use]
    pub fn stored(words: &[String]) -> Self {
        words.iter().filter_map(|word| word.parse().ok()).collect()
    }

    /// As a token that was signed here has them; words this release does not know allow nothing.
    #[must_use]
    pub fn from_words(text: &str) -> Self {
        text.split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn contain(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Whether all the others are among them.
    #[must_use]
    pub fn cover(&self, others: &Self) -> bool {
        others.iter().all(|scope| self.contain(scope))
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The permissions among them.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        let permission = |scope| match scope {
            Scope::Permission(permission) => Some(permission),
            _ => None,
        };
        self.iter().filter_map(permission).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut scopes: Vec<Scope> = scopes.into_iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::parse).collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|scope| scope.as_str()).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_back_from_its_word_and_told_in_a_sentence() {
        for scope in Scope::all() {
            assert_eq!(scope.as_str().parse(), Ok(scope));
            assert!(scope.describe().ends_with('.'), "{scope}");
        }
        assert!("platform:operate".parse::<Scope>().is_err() && "OPENID".parse::<Scope>().is_err());
    }

    #[test]
    fn scopes_are_each_once_and_cover_what_they_have() {
        let scopes: Scopes = "jobs:read openid  jobs:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "openid jobs:read");
        assert!(scopes.cover(&"openid".parse().unwrap()) && !scopes.cover(&"email".parse().unwrap()));
        assert_eq!(scopes.permissions(), [Permission::ReadJobs].into_iter().collect());
        assert_eq!("".parse(), Ok(Scopes::default()));
        assert_eq!("openid everything".parse::<Scopes>(), Err(UnknownScope("everything".to_owned())));
        assert_eq!(Scopes::stored(&["openid".to_owned(), "gone".to_owned()]), "openid".parse().unwrap());
    }
}
