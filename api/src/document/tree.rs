//! JSON whose members stay in the order in which they were written: people read the document.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, de};
use serde_json::Value;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Tree {
    /// Members by name, in their order.
    Object(IndexMap<String, Tree>),
    /// Items in their order.
    List(Vec<Tree>),
    /// A text, a number, a truth value or nothing.
    Leaf(Value),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    /// An object that comes twice is one: poem-openapi writes a path once for each type that has operations on it.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = IndexMap::new();
        while let Some((name, member)) = members.next_entry::<String, Tree>()? {
            match (object.get_mut(&name), member) {
                (Some(Tree::Object(there)), Tree::Object(more)) => there.extend(more),
                (_, member) => drop(object.insert(name, member)),
            }
        }
        Ok(Tree::Object(object))
    }
}

impl Tree {
    /// An object without members.
    pub(super) fn empty() -> Self {
        Self::Object(IndexMap::new())
    }

    /// A member of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(name),
            _ => None,
        }
    }

    /// A member of an object, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => members.get_mut(name),
            _ => None,
        }
    }

    /// Sets a member of an object: in its place if it is there, else at the end.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Self>) {
        if let Self::Object(members) = self {
            members.insert(name.to_owned(), value.into());
        }
    }

    /// Takes a member out of an object; the others keep their order.
    pub(super) fn remove(&mut self, name: &str) -> Option<Self> {
        match self {
            Self::Object(members) => members.shift_remove(name),
            _ => None,
        }
    }

    /// The members of an object.
    pub(super) fn children(&self) -> impl Iterator<Item = (&String, &Self)> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The members of an object, to be changed.
    pub(super) fn children_mut(&mut self) -> impl Iterator<Item = (&String, &mut Self)> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The items of a list, to be changed.
    pub(super) fn items_mut(&mut self) -> &mut [Self] {
        match self {
            Self::List(items) => items,
            _ => &mut [],
        }
    }

    /// The text of one.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Leaf(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(name, member)| (name, member.into())).collect())
            }
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            leaf => Self::Leaf(leaf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_written_twice_has_the_operations_of_both() {
        let twice = r#"{"/a":{"get":{"b":[1,-2,0.5,null,true]}},"/a":{"patch":{}}}"#;
        let read: Tree = serde_json::from_str(twice).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"/a":{"get":{"b":[1,-2,0.5,null,true]},"patch":{}}}"#);
    }

    #[test]
    fn members_stay_in_their_order() {
        let text = r#"{"b":1,"a":{"d":[{"z":null,"y":true}],"c":"x"}}"#;
        let mut tree: Tree = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&tree).unwrap(), text);
        tree.set("b", Value::from(2));
        tree.set("0", Value::from("last"));
        assert_eq!(tree.children_mut().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a", "0"]);
    }
}
