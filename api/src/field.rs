//! Values that callers send, parsed where they arrive: a wrong one never reaches a query, and the answer
//! says what to write instead.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use gantry_schema::people::{Email, InvalidEmail};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use serde_json::value::RawValue;

/// A type that is a string in JSON and in parameters, read by `FromStr` and written by `Display`.
macro_rules! text_type {
    ($name:ident, $format:literal, |$schema:ident| $describe:expr) => {
        impl poem_openapi::types::Type for $name {
            const IS_REQUIRED: bool = true;
            type RawValueType = Self;
            type RawElementValueType = Self;

            fn name() -> std::borrow::Cow<'static, str> {
                concat!("string_", $format).into()
            }

            fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
                let mut $schema = poem_openapi::registry::MetaSchema::new_with_format("string", $format);
                $describe;
                poem_openapi::registry::MetaSchemaRef::Inline(Box::new($schema))
            }

            fn as_raw_value(&self) -> Option<&Self::RawValueType> {
                Some(self)
            }

            fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
                Box::new(std::iter::once(self))
            }
        }

        impl poem_openapi::types::ParseFromJSON for $name {
            fn parse_from_json(value: Option<serde_json::Value>) -> poem_openapi::types::ParseResult<Self> {
                match value.unwrap_or_default() {
                    serde_json::Value::String(text) => text.parse().map_err(poem_openapi::types::ParseError::custom),
                    other => Err(poem_openapi::types::ParseError::expected_type(other)),
                }
            }
        }

        impl poem_openapi::types::ParseFromParameter for $name {
            fn parse_from_parameter(value: &str) -> poem_openapi::types::ParseResult<Self> {
                value.parse().map_err(poem_openapi::types::ParseError::custom)
            }
        }

        impl poem_openapi::types::ToJSON for $name {
            fn to_json(&self) -> Option<serde_json::Value> {
                Some(serde_json::Value::String(self.to_string()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_type;

/// Why a value is not as expected, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);

/// What people call something: 1 to 200 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.chars().count() {
            0 => Err(Wrong("a name must not be empty; write 1 to 200 characters".into())),
            1..=200 if text.trim().is_empty() => {
                Err(Wrong("a name must not be blank; write something people recognise".into()))
            }
            1..=200 if text.chars().any(char::is_control) => {
                Err(Wrong("a name must not contain control characters; leave them out".into()))
            }
            1..=200 => Ok(Self(text.to_owned())),
            length => Err(Wrong(format!("a name has at most 200 characters, this one {length}; shorten it"))),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Name, "name", |schema| {
    schema.min_length = Some(1);
    schema.max_length = Some(200);
});

/// Where mail reaches somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress(Email);

impl EmailAddress {
    /// The address.
    #[must_use]
    pub fn email(self) -> Email {
        self.0
    }
}

impl FromStr for EmailAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|error: InvalidEmail| Wrong(error.to_string()))
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_type!(EmailAddress, "email", |schema| {
    schema.max_length = Some(254);
    schema.example = Some("ada@example.com".into());
});

/// Something that is sent and never shown again: a password, a token.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for Secret {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.len() {
            0 => Err(Wrong("it must not be empty".into())),
            1..=4096 => Ok(Self(text.into())),
            _ => Err(Wrong("it has more than 4096 bytes, and nothing of the kind has; check what was sent".into())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([REDACTED])")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

text_type!(Secret, "password", |schema| {
    schema.min_length = Some(1);
    schema.max_length = Some(4096);
    schema.write_only = true;
});

/// The language in which somebody is written to: a tag of BCP 47, such as `de` or `pt-BR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locale(String);

impl Locale {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Locale {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let mut parts = text.split('-');
        let language = parts
            .next()
            .is_some_and(|part| (2..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphabetic()));
        let rest =
            parts.all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        if language && rest && text.len() <= 35 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong("this is no language tag; write one such as en, de or pt-BR".into()))
        }
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Locale, "locale", |schema| {
    schema.min_length = Some(2);
    schema.max_length = Some(35);
    schema.example = Some("de".into());
});

/// A word that names something of the platform's: a queue, a kind of job, a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

impl FromStr for Word {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.');
        if (1..=100).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong("this is no name of the platform's; write 1 to 100 characters of a-z, 0-9, _, - and .".into()))
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Word, "word", |schema| {
    schema.pattern = Some("^[a-z0-9_.-]{1,100}$".into());
});

/// A moment between 1970 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub DateTime<Utc>);

impl From<DateTime<Utc>> for Moment {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment)
    }
}

impl FromStr for Moment {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        use chrono::Datelike as _;
        let moment = DateTime::parse_from_rfc3339(text)
            .map_err(|error| Wrong(format!("not a moment ({error}); write RFC 3339, such as 2030-01-31T12:00:00Z")))?
            .to_utc();
        if !(1970..=9999).contains(&moment.year()) {
            return Err(Wrong("a moment lies between the years 1970 and 9999".into()));
        }
        // PostgreSQL keeps microseconds.
        Ok(Self(DateTime::from_timestamp_micros(moment.timestamp_micros()).unwrap_or(moment)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

text_type!(Moment, "date-time", |schema| {
    schema.example = Some("2030-01-31T12:00:00Z".into());
});

/// What kind of thing happened: lower-case words with dots between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType(String);

const EVENT_TYPE: &str = "words of a-z, 0-9 and _ with dots between them, such as invoice.paid, at most 128 characters";

impl EventType {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventType {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if text.len() <= 128 && text.split('.').all(word) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong(format!("an event type is {EVENT_TYPE}")))
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(EventType, "event-type", |schema| {
    schema.pattern = Some("^[a-z0-9_]+(\\.[a-z0-9_]+)*$".into());
    schema.max_length = Some(128);
    schema.example = Some("invoice.paid".into());
});

/// Which event types a receiver wants: one, or all that begin with something, `invoice.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPattern(String);

impl FromStr for EventPattern {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.strip_suffix(".*").unwrap_or(text).parse::<EventType>().map(|_| Self(text.to_owned())).map_err(|_| {
            Wrong(format!("write an event type ({EVENT_TYPE}), or the beginning of one and .*, such as invoice.*"))
        })
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(EventPattern, "event-pattern", |schema| {
    schema.pattern = Some("^[a-z0-9_]+(\\.[a-z0-9_]+)*(\\.\\*)?$".into());
    schema.max_length = Some(130);
    schema.example = Some("invoice.*".into());
});

/// Any JSON, kept as it was written.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(transparent)]
pub struct AnyJson(pub Box<RawValue>);

impl AnyJson {
    /// As a tree.
    ///
    /// # Errors
    /// When it is nested too deeply, or holds a text that cannot be stored.
    pub fn value(&self) -> Result<Value, Wrong> {
        if has_nul(self.0.get()) {
            return Err(Wrong(
                "it contains the character U+0000 in a text, which cannot be stored; leave it out".into(),
            ));
        }
        serde_json::from_str(self.0.get()).map_err(|error| Wrong(format!("it cannot be stored: {error}; simplify it")))
    }
}

/// Whether a JSON text contains the escaped character U+0000, which `jsonb` cannot hold.
#[must_use]
pub fn has_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        // An even number of backslashes before: this one begins the escape, and is not escaped itself.
        json.bytes().take(at).rev().take_while(|byte| *byte == b'\\').count() % 2 == 0
    })
}

impl poem_openapi::types::Type for AnyJson {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "any".into()
    }

    fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
        poem_openapi::registry::MetaSchemaRef::Inline(Box::new(poem_openapi::registry::MetaSchema::ANY))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl poem_openapi::types::ParseFromJSON for AnyJson {
    fn parse_from_json(value: Option<Value>) -> poem_openapi::types::ParseResult<Self> {
        let raw = serde_json::value::to_raw_value(&value.unwrap_or_default());
        raw.map(Self).map_err(poem_openapi::types::ParseError::custom)
    }
}

impl poem_openapi::types::ToJSON for AnyJson {
    fn to_json(&self) -> Option<Value> {
        serde_json::from_str(self.0.get()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_and_patterns_are_words_with_dots() {
        for good in ["paid", "invoice.paid", "invoice.line_2.paid"] {
            assert!(good.parse::<EventType>().is_ok() && good.parse::<EventPattern>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "Invoice", "a b", "a-b", "é", "a\0", "*", "a.*.b", "a*"] {
            assert!(bad.parse::<EventType>().is_err() && bad.parse::<EventPattern>().is_err(), "{bad}");
        }
        assert!("invoice.*".parse::<EventPattern>().is_ok() && "invoice.*".parse::<EventType>().is_err());
        assert!("*".parse::<EventPattern>().is_err() && "a".repeat(129).parse::<EventType>().is_err());
    }

    #[test]
    fn the_character_zero_is_found_and_its_likeness_is_not() {
        assert!(has_nul(r#""a\u0000""#) && has_nul(r#""\\\u0000""#));
        assert!(!has_nul(r#""\\u0000""#) && !has_nul(r#""\\\\u0000 u0000""#) && !has_nul("{}"));
    }

    #[test]
    fn names_have_something_to_read() {
        assert!("Acme GmbH & Söhne".parse::<Name>().is_ok() && "é".repeat(200).parse::<Name>().is_ok());
        for bad in ["", "  ", "a\0b", "line\nbreak", &"a".repeat(201)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn moments_beyond_what_can_be_stored_are_refused() {
        assert!("2030-01-31T12:00:00+02:00".parse::<Moment>().is_ok());
        for bad in
            ["tomorrow", "2030-01-31", "+262142-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00"]
        {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }
}
