//! Pages of lists: a limit, and an opaque cursor from which the next page continues.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use poem_openapi::Object;
use poem_openapi::types::{ParseFromJSON, ToJSON};
use uuid::Uuid;

use crate::error::Error;
use crate::field::{Wrong, text_type};

/// A page of a list.
#[derive(Debug, Object)]
pub struct Page<T: ParseFromJSON + ToJSON + Send + Sync> {
    /// The things, in order.
    pub items: Vec<T>,
    /// Send it as `cursor` to get what follows; absent: nothing does.
    #[oai(skip_serializing_if_is_none)]
    pub next_cursor: Option<Cursor>,
}

/// How many things a page has: 1 to 200, 50 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u8);

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

impl Limit {
    /// The number.
    #[must_use]
    pub fn count(self) -> usize {
        usize::from(self.0)
    }
}

impl FromStr for Limit {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(limit @ 1..=200) => Ok(Self(limit)),
            _ => Err(Wrong("a page has 1 to 200 things; write a number between them".into())),
        }
    }
}

impl poem_openapi::types::Type for Limit {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "integer_limit".into()
    }

    fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
        let mut schema = poem_openapi::registry::MetaSchema::new_with_format("integer", "int32");
        schema.minimum = Some(1.0);
        schema.maximum = Some(200.0);
        schema.default = Some(50.into());
        poem_openapi::registry::MetaSchemaRef::Inline(Box::new(schema))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl poem_openapi::types::ParseFromParameter for Limit {
    fn parse_from_parameter(value: &str) -> poem_openapi::types::ParseResult<Self> {
        value.parse().map_err(poem_openapi::types::ParseError::custom)
    }
}

/// A place in a list: what the list is sorted by, of the row after which it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Vec<u8>);

impl Place {
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// After the thing with this id.
    #[must_use]
    pub fn id(id: impl Into<Uuid>) -> Self {
        Self(id.into().as_bytes().to_vec())
    }

    /// After the thing of this name.
    #[must_use]
    pub fn name(name: &str) -> Self {
        Self(name.as_bytes().to_vec())
    }

    /// After this version of the thing of this name.
    #[must_use]
    pub fn version(name: &str, version: i32) -> Self {
        Self([&version.to_be_bytes(), name.as_bytes()].concat())
    }

    /// After the thing of this level of a tree with this id.
    #[must_use]
    pub fn level(depth: i32, id: Uuid) -> Self {
        Self([&depth.to_be_bytes()[..], id.as_bytes()].concat())
    }

    /// After this line.
    #[must_use]
    pub fn line(attempt: i32, line: i32) -> Self {
        Self([attempt.to_be_bytes(), line.to_be_bytes()].concat())
    }

    /// After what has this number.
    #[must_use]
    pub fn number(number: i64) -> Self {
        Self(number.to_be_bytes().to_vec())
    }

    /// The number of [`Self::number`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_number(&self) -> Result<i64, Error> {
        self.0.as_slice().try_into().map(i64::from_be_bytes).map_err(|_| foreign())
    }

    /// The id of [`Self::id`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_id(&self) -> Result<Uuid, Error> {
        Uuid::from_slice(&self.0).map_err(|_| foreign())
    }

    /// The name of [`Self::name`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_name(&self) -> Result<&str, Error> {
        str::from_utf8(&self.0).map_err(|_| foreign())
    }

    /// The name and version of [`Self::version`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_version(&self) -> Result<(&str, i32), Error> {
        let (version, name) = self.0.split_first_chunk::<4>().ok_or_else(foreign)?;
        Ok((str::from_utf8(name).map_err(|_| foreign())?, i32::from_be_bytes(*version)))
    }

    /// The level and id of [`Self::level`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_level<Id: From<Uuid>>(&self) -> Result<(i32, Id), Error> {
        let (depth, id) = self.0.split_first_chunk::<4>().ok_or_else(foreign)?;
        Ok((i32::from_be_bytes(*depth), Id::from(Uuid::from_slice(id).map_err(|_| foreign())?)))
    }

    /// The attempt and line of [`Self::line`].
    ///
    /// # Errors
    /// When it is another list's place.
    pub fn to_line(&self) -> Result<(i32, i32), Error> {
        match self.0.as_chunks::<4>() {
            ([attempt, line], []) => Ok((i32::from_be_bytes(*attempt), i32::from_be_bytes(*line))),
            _ => Err(foreign()),
        }
    }
}

pub(crate) fn foreign() -> Error {
    Error::parameter(
        "cursor",
        "this cursor is not of this list with these filters; use next_cursor of its last page, or begin without one",
    )
}

/// What a page gives to get the next one with. What is in it is nobody's business but ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

/// Characters of a cursor, at most: the longest name there is fits.
const MAX_CURSOR: usize = 1_200;

impl Cursor {
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Cursor {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if text.len() <= MAX_CURSOR => Ok(Self(bytes)),
            _ => Err(Wrong("this is no cursor; use next_cursor of the last page, or begin without one".into())),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

text_type!(Cursor, "cursor", |schema| {
    schema.max_length = Some(MAX_CURSOR);
    schema.example = Some("AAAAAGlo3sBpZmsVlCTrIgGQYopbZ-qpiJyp5K6QtuQ".into());
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_not_mistaken_for_each_other() {
        let id = Uuid::from_u128(7);
        assert_eq!(Place::id(id).to_id().unwrap(), id);
        assert_eq!(Place::name("nightly").to_name().unwrap(), "nightly");
        assert_eq!(Place::version("invoice.paid", 3).to_version().unwrap(), ("invoice.paid", 3));
        assert_eq!(Place::line(3, 9).to_line().unwrap(), (3, 9));
        assert!(Place::line(3, 9).to_id().is_err() && Place::id(id).to_line().is_err());
        assert_eq!(Place::level(3, id).to_level::<Uuid>().unwrap(), (3, id));
        assert!(Place::id(id).to_level::<Uuid>().is_err() && Place::level(3, id).to_id().is_err());
        assert!(Place(vec![0xff]).to_name().is_err() && Place(vec![]).to_version().is_err());
    }

    #[test]
    fn a_cursor_is_text_of_a_bounded_length() {
        let cursor = Cursor::of_bytes(vec![1, 2, 3]);
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        let longest = Cursor::of_bytes([&[0; 16], "\u{10ffff}".repeat(200).as_bytes()].concat());
        assert!(longest.to_string().parse::<Cursor>().is_ok());
        for bad in ["!", "a", &"A".repeat(MAX_CURSOR + 4)] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_bounded() {
        for bad in ["0", "201", "-1", "x", "", "1e2"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
        assert_eq!("200".parse::<Limit>().unwrap().count(), 200);
    }
}
