//! Where a license may be used: host names, exactly or by what is below a name.

use std::fmt;
use std::str::FromStr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// A name, or all that are below one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainRule {
    /// In ASCII and lower case, without a dot at its end.
    name: String,
    /// What is at least one label below it, and not the name itself.
    below: bool,
}

/// The text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a host; write one such as shop.example.com, or *.example.com for all that are below it")]
pub struct InvalidDomain(pub String);

/// A host name as it is compared: in ASCII (IDNA, UTS 46), in lower case, without a port and the dot at its end.
#[must_use]
pub fn canonical(host: &str) -> Option<String> {
    let host = host.trim();
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return None,
        None => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let ascii =
        Uts46::new().to_ascii(host.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify).ok()?;
    Some(ascii.to_ascii_lowercase())
}

impl DomainRule {
    /// Whether a host is where the license may be used.
    #[must_use]
    pub fn fits(&self, host: &str) -> bool {
        canonical(host).is_some_and(|host| self.fits_canonical(&host))
    }

    fn fits_canonical(&self, host: &str) -> bool {
        if !self.below {
            return host == self.name;
        }
        // The dot is a border: evilexample.com is not below example.com, nor is example.com itself.
        host.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// Whether every host that fits the other one fits this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self.below, other.below) {
            (true, true) => self.name == other.name || self.fits_canonical(&other.name),
            (true, false) => self.fits_canonical(&other.name),
            (false, false) => self.name == other.name,
            (false, true) => false,
        }
    }
}

impl FromStr for DomainRule {
    type Err = InvalidDomain;

    fn from_str(text: &str) -> Result<Self, InvalidDomain> {
        let invalid = || InvalidDomain(text.to_owned());
        let (name, below) = text.trim().strip_prefix("*.").map_or((text, false), |name| (name, true));
        if name.contains(':') {
            return Err(invalid());
        }
        Ok(Self { name: canonical(name).ok_or_else(invalid)?, below })
    }
}

impl fmt::Display for DomainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

impl serde::Serialize for DomainRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for DomainRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> DomainRule {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_is_at_least_one_label_and_ends_at_a_border() {
        let below = rule("*.example.com");
        for host in ["a.example.com", "a.b.example.com", "A.EXAMPLE.com.", "a.example.com:8443"] {
            assert!(below.fits(host), "{host}");
        }
        for host in
            ["example.com", "evilexample.com", "example.com.evil.net", ".example.com", "a..example.com", "", "a b"]
        {
            assert!(!below.fits(host), "{host}");
        }
    }

    #[test]
    fn names_are_compared_as_they_are_resolved() {
        assert!(rule("EXAMPLE.com.").fits("example.com"));
        assert!(rule("bücher.de").fits("xn--bcher-kva.de"));
        assert!(rule("xn--bcher-kva.de").fits("BÜCHER.de"));
        assert!(rule("*.bücher.de").fits("a.xn--bcher-kva.de"));
        assert!(!rule("example.com").fits("www.example.com"));
        for wrong in ["", "*", "*.", "a..b", "*.*.example.com", "a*.example.com", "example.com:443", "exa mple.com"] {
            assert!(wrong.parse::<DomainRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_covers_what_is_narrower() {
        assert!(rule("*.example.com").covers(&rule("*.example.com")));
        assert!(rule("*.example.com").covers(&rule("*.a.example.com")));
        assert!(rule("*.example.com").covers(&rule("a.example.com")));
        assert!(rule("example.com").covers(&rule("example.com")));
        assert!(!rule("*.example.com").covers(&rule("example.com")));
        assert!(!rule("*.a.example.com").covers(&rule("*.example.com")));
        assert!(!rule("a.example.com").covers(&rule("*.a.example.com")));
        assert!(!rule("*.example.com").covers(&rule("*.evilexample.com")));
    }
}
