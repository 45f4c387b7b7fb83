//! Operations as the document describes them, and requests that they accept.

use std::collections::BTreeMap;

use gantry_schema::organizations::Permission;
use poem::http::Method;
use serde_json::Value;

use super::ask::Ask;
use crate::document::operations;
use crate::documented::DOCUMENT;
use crate::schema::resolve;

/// Something of every kind that ids name: by what they begin with. The organization is one below the caller's, which is
/// there as [`OWN`].
pub type Things = BTreeMap<String, String>;

/// The caller's organization.
pub const OWN: &str = "own";

/// An operation.
#[derive(Clone, Copy)]
pub struct Operation {
    pub id: &'static str,
    pub path: &'static str,
    method: &'static str,
    described: &'static Value,
}

/// Every operation.
pub fn all() -> Vec<Operation> {
    let described = operations(&DOCUMENT).into_iter();
    let each = described.map(|(path, method, described)| Operation {
        id: described["operationId"].as_str().unwrap(),
        path,
        method,
        described,
    });
    each.collect()
}

impl Operation {
    pub fn method(self) -> Method {
        self.method.to_uppercase().parse().unwrap()
    }

    /// It needs no key.
    pub fn is_open(self) -> bool {
        self.described.get("security").is_none()
    }

    /// It is about the person who asks: no key can do it.
    pub fn is_of_people(self) -> bool {
        let schemes = self.described["security"].as_array().into_iter().flatten();
        !self.is_open() && !schemes.clone().any(|scheme| scheme.get("ApiKey").is_some())
    }

    /// What its caller needs.
    pub fn permissions(self) -> Vec<Permission> {
        let words = self.described["x-permissions"].as_array().into_iter().flatten();
        words.map(|word| word.as_str().unwrap().parse().unwrap()).collect()
    }

    /// Its parameters in the path, the query or the headers.
    pub fn parameters(self, place: &str) -> impl Iterator<Item = &'static Value> {
        let parameters = self.described["parameters"].as_array().into_iter().flatten();
        parameters.filter(move |parameter| parameter["in"] == place)
    }

    /// It is about the caller's own organization, and not about one below it.
    fn is_about_own(self) -> bool {
        self.described["description"].as_str().is_some_and(|text| text.starts_with("The caller's own."))
    }

    /// The schema of what it takes.
    pub fn body_schema(self) -> Option<&'static Value> {
        self.described.get("requestBody").map(|body| &body["content"]["application/json"]["schema"])
    }

    /// What the ids in its path begin with.
    pub fn ids_in_path(self) -> Vec<String> {
        self.parameters("path").filter_map(|parameter| id_prefix(&parameter["schema"])).collect()
    }

    /// The document's example of what it takes, about these things.
    pub fn example(self, things: &Things) -> Option<Value> {
        let body = self.described.get("requestBody")?;
        let mut example = body["content"]["application/json"]["example"].clone();
        fill(&mut example, things);
        Some(example)
    }

    /// A request about these things that it accepts, if they are all there is to know.
    pub fn ask(self, things: &Things) -> Ask {
        let mut path = self.path.to_owned();
        for parameter in self.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            let value = match id_prefix(&parameter["schema"]) {
                Some(prefix) => {
                    let prefix = if prefix == "org" && self.is_about_own() { OWN.to_owned() } else { prefix };
                    things.get(&prefix).unwrap_or_else(|| panic!("nothing of kind {prefix} is there")).clone()
                }
                None => text(&parameter["schema"]["example"]),
            };
            assert_ne!(value, "", "{}: give the parameter {name} an example, see queues.rs", self.id);
            path = path.replace(&format!("{{{name}}}"), &value);
        }
        let mut ask = Ask::new(self.method(), path);
        for parameter in self.parameters("query").filter(|parameter| parameter["required"] == true) {
            ask = ask.query(parameter["name"].as_str().unwrap(), &text(&parameter["schema"]["example"]));
        }
        let answers = &self.described["responses"];
        // What it makes is not there yet, and is not overwritten.
        if answers.get("428").is_some() && answers.get("201").is_none() {
            ask = ask.header("If-Match", "*");
        }
        match self.example(things) {
            Some(body) => ask.json(&body),
            None => ask,
        }
    }
}

/// What ids of a schema begin with; none: it is not one of ids.
pub fn id_prefix(schema: &Value) -> Option<String> {
    let pattern = resolve(&DOCUMENT, schema)["pattern"].as_str()?;
    let prefix = pattern.strip_prefix('^')?.strip_suffix("_[0-7][0-9a-hjkmnp-tv-z]{25}$")?;
    Some(prefix.to_owned())
}

/// What an id begins with; none: the text is none.
pub fn prefix_of(id: &str) -> Option<&str> {
    let (prefix, rest) = id.rsplit_once('_')?;
    let is_base32 = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let is_prefix = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_prefix && rest.len() == 26 && rest.bytes().all(is_base32)).then_some(prefix)
}

/// Every id in a value.
pub fn ids(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => prefix_of(text).map(|_| text.as_str()).into_iter().collect(),
        Value::Array(items) => items.iter().flat_map(ids).collect(),
        Value::Object(members) => members.values().flat_map(ids).collect(),
        _ => Vec::new(),
    }
}

/// Puts the ids of these things in the place of the example's.
fn fill(value: &mut Value, things: &Things) {
    match value {
        Value::String(text) => {
            if let Some(id) = prefix_of(text).and_then(|prefix| things.get(prefix)) {
                text.clone_from(id);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, things)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| fill(member, things));
            // What is put somewhere is put below the caller's.
            if let (Some(parent), Some(own)) = (members.get_mut("parent_id"), things.get(OWN)) {
                *parent = own.as_str().into();
            }
        }
        _ => {}
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
