//! How a list is sorted: the parameter `sort`, one of the words of the list, with `-` before it for the other way.
//!
//! A list takes `paging: Paging<Newest>` when it is sorted by age, or a [`Sorting`] of its own.

use std::fmt;
use std::str::FromStr;

use gantry_schema::Order;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};

use crate::field::Wrong;

/// What a list may be sorted by. Each has an index, so that the last page costs what the first one does.
pub trait Sorting: fmt::Debug + Clone + Copy + PartialEq + Send + Sync + Sized + 'static {
    /// The words, with what they stand for. None: the list has one order.
    const WORDS: &'static [(&'static str, Self)];
    /// How it is sorted unless told otherwise.
    const USUAL: Sort<Self>;
}

/// By what, and in which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort<K> {
    /// By what.
    pub by: K,
    /// In which direction.
    pub order: Order,
}

/// A list that has one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed;

impl Sorting for Fixed {
    const WORDS: &'static [(&'static str, Self)] = &[];
    const USUAL: Sort<Self> = Sort { by: Self, order: Order::Ascending };
}

/// A list by age, the newest first unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest;

impl Sorting for Newest {
    const WORDS: &'static [(&'static str, Self)] = &[("created_at", Self)];
    const USUAL: Sort<Self> = Sort { by: Self, order: Order::Descending };
}

/// A list by age, the oldest first unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest;

impl Sorting for Oldest {
    const WORDS: &'static [(&'static str, Self)] = &[("created_at", Self)];
    const USUAL: Sort<Self> = Sort { by: Self, order: Order::Ascending };
}

impl<K: Sorting> Sort<K> {
    /// Every word of the list, in both directions.
    fn words() -> impl Iterator<Item = (String, Self)> {
        K::WORDS.iter().flat_map(|(word, by)| {
            let ascending = ((*word).to_owned(), Self { by: *by, order: Order::Ascending });
            [ascending, (format!("-{word}"), Self { by: *by, order: Order::Descending })]
        })
    }

    /// What the document says of the parameter; `None`: the list has none.
    pub(crate) fn schema() -> Option<MetaSchemaRef> {
        let usual = Self::words().find(|(_, sort)| *sort == K::USUAL)?;
        let mut schema = MetaSchema::new("string");
        schema.enum_items = Self::words().map(|(word, _)| word.into()).collect();
        schema.default = Some(usual.0.into());
        Some(MetaSchemaRef::Inline(Box::new(schema)))
    }
}

impl<K: Sorting> fmt::Display for Sort<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::words().find_map(|(word, sort)| (sort == *self).then_some(word)).unwrap_or_default())
    }
}

impl<K: Sorting> FromStr for Sort<K> {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        Self::words().find_map(|(word, sort)| (word == text).then_some(sort)).ok_or_else(|| {
            let words: Vec<String> = Self::words().map(|(word, _)| word).collect();
            Wrong(format!("this list is not sorted by that; write one of {}", words.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_sorted_by_its_own_words_in_both_directions() {
        let read = |text: &str| text.parse::<Sort<Newest>>();
        assert_eq!(read("created_at").unwrap().order, Order::Ascending);
        assert_eq!(read("-created_at").unwrap(), Newest::USUAL);
        for bad in ["", "-", "created_at-", "--created_at", "name", "CREATED_AT", "created_at,name"] {
            assert_eq!(
                read(bad).unwrap_err().0,
                "this list is not sorted by that; write one of created_at, -created_at",
                "{bad}"
            );
        }
        assert!("created_at".parse::<Sort<Fixed>>().is_err());
    }
}
