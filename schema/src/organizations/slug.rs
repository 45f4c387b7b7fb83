//! Names for URLs.

use std::fmt;
use std::str::FromStr;

/// A name for URLs: 1 to 63 of a-z, 0-9 and `-`, which is at neither end. So it is a label of a host name too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug(String);

/// The text is no slug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a slug has 1 to 63 of a-z, 0-9 and -, and begins and ends with a letter or digit")]
pub struct InvalidSlug;

/// The longest one.
const MAX: usize = 63;

impl Slug {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a name looks like in a URL; `None`: it has no letter or digit of ASCII.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut text = String::new();
        for word in name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            if !text.is_empty() {
                text.push('-');
            }
            text.push_str(&word.to_ascii_lowercase());
        }
        text.truncate(MAX - 1 - ENDING);
        text.trim_end_matches('-').parse().ok()
    }

    /// The same with an ending, where the one without is taken. A slug from [`Self::of_name`] has room for one of
    /// eight characters.
    #[must_use]
    pub fn ending(&self, ending: &str) -> Option<Self> {
        format!("{}-{ending}", self.0).parse().ok()
    }
}

/// Characters an ending may have.
const ENDING: usize = 8;

impl FromStr for Slug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, InvalidSlug> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = (1..=MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSlug)
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_slug_and_has_room_for_an_ending() {
        let slug = |name: &str| Slug::of_name(name).map(|slug| slug.0);
        assert_eq!(slug("Acme GmbH & Co. KG").as_deref(), Some("acme-gmbh-co-kg"));
        assert_eq!(slug("  --A--  ").as_deref(), Some("a"));
        assert_eq!(slug("日本"), None);
        let long = Slug::of_name(&"a b".repeat(100)).unwrap();
        assert!(long.ending("12345678").is_some() && !long.as_str().ends_with('-'));
    }

    #[test]
    fn what_is_no_slug_is_refused() {
        for bad in ["", "-a", "a-", "A", "a b", "ä", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
        assert!("a-1".parse::<Slug>().is_ok() && "a".repeat(63).parse::<Slug>().is_ok());
    }
}
