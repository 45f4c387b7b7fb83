//! Pages of lists: a limit, and an opaque cursor from which the next page continues.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
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

impl<T: ParseFromJSON + ToJSON + Send + Sync> Page<T> {
    /// Makes a page of rows of which one more than `limit` was asked for.
    pub fn of<R>(mut rows: Vec<R>, limit: Limit, place: impl Fn(&R) -> Cursor, item: impl Fn(R) -> T) -> Self {
        let more = rows.len() > limit.count();
        rows.truncate(limit.count());
        let next_cursor = rows.last().filter(|_| more).map(place);
        Self { items: rows.into_iter().map(item).collect(), next_cursor }
    }
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

    /// One more, to know whether there is a next page.
    #[must_use]
    pub fn and_one(self) -> i64 {
        i64::from(self.0) + 1
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

/// A place in a list. What is in it is nobody's business but ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// What is in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A cursor with this in it.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// After the thing with this id.
    #[must_use]
    pub fn id(id: Uuid) -> Self {
        Self(id.as_bytes().to_vec())
    }

    /// After the thing of this moment with this id.
    #[must_use]
    pub fn moment(at: DateTime<Utc>, id: Uuid) -> Self {
        Self([&at.timestamp_micros().to_be_bytes()[..], id.as_bytes()].concat())
    }

    /// After this line.
    #[must_use]
    pub fn line(attempt: i32, line: i32) -> Self {
        Self([attempt.to_be_bytes(), line.to_be_bytes()].concat())
    }

    /// The id of [`Self::id`].
    ///
    /// # Errors
    /// When it is another list's cursor.
    pub fn to_id<Id: From<Uuid>>(&self) -> Result<Id, Error> {
        Uuid::from_slice(&self.0).map(Id::from).map_err(|_| foreign())
    }

    /// The moment and id of [`Self::moment`].
    ///
    /// # Errors
    /// When it is another list's cursor.
    pub fn to_moment<Id: From<Uuid>>(&self) -> Result<(DateTime<Utc>, Id), Error> {
        let (at, id) = self.0.split_first_chunk::<8>().ok_or_else(foreign)?;
        let at = DateTime::from_timestamp_micros(i64::from_be_bytes(*at)).ok_or_else(foreign)?;
        Ok((at, Id::from(Uuid::from_slice(id).map_err(|_| foreign())?)))
    }

    /// The attempt and line of [`Self::line`].
    ///
    /// # Errors
    /// When it is another list's cursor.
    pub fn to_line(&self) -> Result<(i32, i32), Error> {
        match self.0.as_chunks::<4>() {
            ([attempt, line], []) => Ok((i32::from_be_bytes(*attempt), i32::from_be_bytes(*line))),
            _ => Err(foreign()),
        }
    }
}

fn foreign() -> Error {
    Error::parameter(
        "cursor",
        "this cursor is not of this list; use next_cursor of its last page, or begin without one",
    )
}

impl FromStr for Cursor {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if text.len() <= 64 => Ok(Self(bytes)),
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
    schema.max_length = Some(64);
    schema.example = Some("AAAAAGlo3sBpZmsVlCTrIgGQYopbZ-qpiJyp5K6QtuQ".into());
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back_and_not_mistaken_for_each_other() {
        let (id, at) = (Uuid::from_u128(7), DateTime::UNIX_EPOCH);
        let read = |cursor: Cursor| cursor.to_string().parse::<Cursor>().unwrap();
        assert_eq!(read(Cursor::id(id)).to_id::<Uuid>().unwrap(), id);
        assert_eq!(read(Cursor::moment(at, id)).to_moment::<Uuid>().unwrap(), (at, id));
        assert_eq!(read(Cursor::line(3, 9)).to_line().unwrap(), (3, 9));
        assert!(read(Cursor::line(3, 9)).to_id::<Uuid>().is_err() && Cursor::id(id).to_moment::<Uuid>().is_err());
        assert!("!".parse::<Cursor>().is_err() && Cursor(vec![]).to_line().is_err());
    }

    #[test]
    fn a_page_says_whether_there_is_a_next_one() {
        let page =
            |rows: Vec<u32>| Page::of(rows, Limit(2), |row| Cursor::id(Uuid::from_u128(u128::from(*row))), |row| row);
        assert!(page(vec![1, 2]).next_cursor.is_none());
        let first = page(vec![1, 2, 3]);
        assert_eq!((first.items, first.next_cursor), (vec![1, 2], Some(Cursor::id(Uuid::from_u128(2)))));
    }

    #[test]
    fn limits_are_bounded() {
        for bad in ["0", "201", "-1", "x", "", "1e2"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
        assert_eq!("200".parse::<Limit>().unwrap().and_one(), 201);
    }
}
