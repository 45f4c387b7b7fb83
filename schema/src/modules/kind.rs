//! What an input takes: types as Terraform has them, and whether a value is of one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// What an input takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// Any number of them, in order.
    List(Box<Kind>),
    /// Any number of them.
    Set(Box<Kind>),
    /// Any number of them, each with a name.
    Map(Box<Kind>),
    /// As many as there are here, in order.
    Tuple(Vec<Kind>),
    /// Those that are here, by name.
    Object {
        /// Their names, and what each is.
        members: BTreeMap<String, Kind>,
        /// Those that may be missing.
        optional: BTreeSet<String>,
    },
}

impl Kind {
    /// Reads a type that is written as Terraform does in JSON.
    #[must_use]
    pub fn read(written: &Value) -> Option<Self> {
        if let Some(word) = written.as_str() {
            return match word {
                "dynamic" => Some(Self::Any),
                "string" => Some(Self::Text),
                "number" => Some(Self::Number),
                "bool" => Some(Self::Bool),
                _ => None,
            };
        }
        let [word, of, rest @ ..] = written.as_array()?.as_slice() else { return None };
        let one = || Self::read(of).map(Box::new);
        match word.as_str()? {
            "list" => one().map(Self::List),
            "set" => one().map(Self::Set),
            "map" => one().map(Self::Map),
            "tuple" => of.as_array()?.iter().map(Self::read).collect::<Option<_>>().map(Self::Tuple),
            "object" => {
                let members = of.as_object()?.iter().map(|(name, kind)| Some((name.clone(), Self::read(kind)?)));
                let optional = rest.first().and_then(Value::as_array).into_iter().flatten();
                let optional = optional.filter_map(|name| name.as_str().map(str::to_owned)).collect();
                Some(Self::Object { members: members.collect::<Option<_>>()?, optional })
            }
            _ => None,
        }
    }

    fn written(&self) -> Value {
        match self {
            Self::Any => json!("dynamic"),
            Self::Text => json!("string"),
            Self::Number => json!("number"),
            Self::Bool => json!("bool"),
            Self::List(of) => json!(["list", of.written()]),
            Self::Set(of) => json!(["set", of.written()]),
            Self::Map(of) => json!(["map", of.written()]),
            Self::Tuple(kinds) => json!(["tuple", kinds.iter().map(Self::written).collect::<Vec<_>>()]),
            Self::Object { members, optional } => {
                let members: BTreeMap<&String, Value> =
                    members.iter().map(|(name, kind)| (name, kind.written())).collect();
                if optional.is_empty() { json!(["object", members]) } else { json!(["object", members, optional]) }
            }
        }
    }

    /// Whether a value is of this type.
    ///
    /// # Errors
    /// What to write instead, and where.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.look(value, &mut String::new())
    }

    fn look(&self, value: &Value, at: &mut String) -> Result<(), String> {
        let wrong = |at: &str, wanted: &Self| {
            let place =
                if at.is_empty() { "it".to_owned() } else { format!("its part {}", at.trim_start_matches('.')) };
            Err(format!("{place} is no {wanted}; write one"))
        };
        let within = |kind: &Self, value: &Value, at: &mut String, step: String| {
            let length = at.len();
            at.push_str(&step);
            let found = kind.look(value, at);
            at.truncate(length);
            found
        };
        match (self, value) {
            (Self::Any, _) | (Self::Text, Value::String(_)) => Ok(()),
            (Self::Number, Value::Number(_)) | (Self::Bool, Value::Bool(_)) => Ok(()),
            // What is missing inside of something is Terraform's to judge.
            (_, Value::Null) if !at.is_empty() => Ok(()),
            (Self::List(of) | Self::Set(of), Value::Array(list)) => {
                list.iter().enumerate().try_for_each(|(number, one)| within(of, one, at, format!("[{number}]")))
            }
            (Self::Map(of), Value::Object(map)) => {
                map.iter().try_for_each(|(name, one)| within(of, one, at, format!(".{name}")))
            }
            (Self::Tuple(kinds), Value::Array(list)) if kinds.len() == list.len() => {
                let mut both = kinds.iter().zip(list).enumerate();
                both.try_for_each(|(number, (kind, one))| within(kind, one, at, format!("[{number}]")))
            }
            (Self::Object { members, optional }, Value::Object(map)) => {
                for (name, kind) in members {
                    match map.get(name) {
                        Some(one) => within(kind, one, at, format!(".{name}"))?,
                        None if optional.contains(name) => {}
                        None => return wrong(&format!("{at}.{name}"), kind),
                    }
                }
                match map.keys().find(|name| !members.contains_key(*name)) {
                    Some(other) => {
                        let known: Vec<&str> = members.keys().map(String::as_str).collect();
                        Err(format!("it has no member {other}; there are {}", known.join(", ")))
                    }
                    None => Ok(()),
                }
            }
            _ => wrong(at, self),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Text => f.write_str("string"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("bool"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Set(of) => write!(f, "set({of})"),
            Self::Map(of) => write!(f, "map({of})"),
            Self::Tuple(kinds) => {
                let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
                write!(f, "tuple([{}])", kinds.join(", "))
            }
            Self::Object { members, optional } => {
                let member = |(name, kind): (&String, &Self)| {
                    if optional.contains(name) {
                        format!("{name} = optional({kind})")
                    } else {
                        format!("{name} = {kind}")
                    }
                };
                let members: Vec<String> = members.iter().map(member).collect();
                write!(f, "object({{ {} }})", members.join(", "))
            }
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        Self::read(&written).ok_or_else(|| D::Error::custom("no type of Terraform's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_terraform_writes_them_and_shown_as_people_do() {
        for (written, shown) in [
            (json!("dynamic"), "any"),
            (json!(["list", "string"]), "list(string)"),
            (json!(["map", ["set", "number"]]), "map(set(number))"),
            (json!(["tuple", ["string", "bool"]]), "tuple([string, bool])"),
            (json!(["object", { "a": "string", "b": "bool" }, ["b"]]), "object({ a = string, b = optional(bool) })"),
        ] {
            let kind: Kind = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(kind.to_string(), shown);
            assert_eq!(serde_json::to_value(&kind).unwrap(), written);
        }
        for bad in [json!("thing"), json!(["list"]), json!(["heap", "string"]), json!(1)] {
            assert_eq!(Kind::read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_of_another_type_is_named_with_where_it_is() {
        let kind = Kind::read(&json!(["list", ["object", { "name": "string", "gib": "number" }, ["gib"]]])).unwrap();
        for fine in
            [json!([]), json!([{ "name": "a" }, { "name": "b", "gib": 1 }]), json!([{ "name": "a", "gib": null }])]
        {
            assert_eq!(kind.check(&fine), Ok(()), "{fine}");
        }
        for (wrong, why) in [
            (json!("a"), "it is no list("),
            (json!([{ "name": 1 }]), "its part [0].name is no string"),
            (json!([{ "name": "a" }, {}]), "its part [1].name is no string"),
            (json!([{ "name": "a", "size": 1 }]), "no member size"),
        ] {
            let said = kind.check(&wrong).unwrap_err();
            assert!(said.starts_with(why) || said.contains(why), "{said}");
        }
        assert!(Kind::Text.check(&Value::Null).is_err());
    }
}
