//! JSON whose members stay in the order in which they were written: people read the document.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Tree {
    /// Members by name, in their order.
    Object(IndexMap<String, Tree>),
    /// Items in their order.
    List(Vec<Tree>),
    /// A text, a number, a truth value or nothing.
    Leaf(Value),
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
    fn members_stay_in_their_order() {
        let text = r#"{"b":1,"a":{"d":[{"z":null,"y":true}],"c":"x"}}"#;
        let mut tree: Tree = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&tree).unwrap(), text);
        tree.set("b", Value::from(2));
        tree.set("0", Value::from("last"));
        assert_eq!(tree.children_mut().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b", "a", "0"]);
    }
}
