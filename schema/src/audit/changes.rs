//! What a change changed: fields with their values before and after, secrets left out.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use crate::digest::{hex, sha256_alone};

/// A field that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which: `name`, `headers.x-team`, `scopes`.
    pub path: String,
    /// What it was; absent: it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub before: Option<Value>,
    /// What it is; absent: it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub after: Option<Value>,
}

/// `null` is a value like others; only what is absent is none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Changes that one entry keeps; of more it is said how many there were.
const MAX_CHANGES: usize = 200;

/// Bytes of a value, written as JSON, that are kept; of a longer one its size and its SHA-256 are.
const MAX_VALUE: usize = 1_024;

/// How deep objects are gone through; what lies deeper is one value.
const MAX_DEPTH: usize = 6;

/// What stands in place of a secret: whether it changed is no secret.
const REDACTED: &str = "[redacted]";

/// Parts of a name by which a field is taken for a secret.
const SECRETS: [&str; 8] =
    ["secret", "password", "passphrase", "token", "credential", "private_key", "recovery_code", "authorization"];

/// Changes, gathered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Changes {
    kept: Vec<Change>,
    more: usize,
}

impl Changes {
    /// Notes one field.
    pub(super) fn note(&mut self, path: String, before: Option<Value>, after: Option<Value>) {
        if before == after {
            return;
        }
        if self.kept.len() >= MAX_CHANGES {
            self.more += 1;
            return;
        }
        let secret = is_secret(&path);
        let shown = |value: Value| match value {
            Value::Null => Value::Null,
            _ if secret => REDACTED.into(),
            value => bounded(redacted(value, 0)),
        };
        self.kept.push(Change { path, before: before.map(shown), after: after.map(shown) });
    }

    /// Notes what differs between two things, field by field.
    pub(super) fn between(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>, depth: usize) {
        let object = |value: Option<&'_ Value>| value.is_none_or(Value::is_object);
        if depth < MAX_DEPTH && object(before) && object(after) && !is_secret(path) {
            let none = Map::new();
            let fields = |value: Option<&Value>| value.and_then(Value::as_object).unwrap_or(&none).clone();
            let (before, after) = (fields(before), fields(after));
            let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
            let names: Vec<&String> = gone.map(|(name, _)| name).chain(after.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                self.between(&path, before.get(name), after.get(name), depth + 1);
            }
            return;
        }
        self.note(path.to_owned(), before.cloned(), after.cloned());
    }

    /// As they are kept.
    pub(super) fn into_kept(mut self) -> Vec<Change> {
        if self.more > 0 {
            let path = format!("and {} more", self.more);
            self.kept.push(Change { path, before: None, after: None });
        }
        self.kept
    }
}

fn is_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    // Whether there is one, what it is called and when it ends says nothing of it.
    let about = ["_id", "_ids", "_at", "_hint", "_names", "_count", "_seconds"];
    SECRETS.iter().any(|part| name.contains(part)) && !about.iter().any(|end| name.ends_with(end))
}

/// The value without secrets deep in it.
fn redacted(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth > 32 => "[…]".into(),
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let value =
                    if is_secret(&name) && !value.is_null() { REDACTED.into() } else { redacted(value, depth + 1) };
                (name, value)
            };
            fields.into_iter().map(field).collect()
        }
        Value::Array(values) => values.into_iter().map(|value| redacted(value, depth + 1)).collect(),
        other => other,
    }
}

fn bounded(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= MAX_VALUE {
        return value;
    }
    json!({ "bytes": text.len(), "sha256": hex(&sha256_alone(text.as_bytes())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(before: &Value, after: &Value) -> Value {
        let mut changes = Changes::default();
        changes.between("", Some(before), Some(after), 0);
        json!(changes.into_kept())
    }

    #[test]
    fn what_differs_is_named_field_by_field() {
        let before = json!({ "name": "a", "same": 1, "gone": true, "deep": { "x": 1, "y": [1] } });
        let after = json!({ "name": "b", "same": 1, "new": null, "deep": { "x": 1, "y": [1, 2] } });
        assert_eq!(
            between(&before, &after),
            json!([
                { "path": "gone", "before": true },
                { "path": "deep.y", "before": [1], "after": [1, 2] },
                { "path": "name", "before": "a", "after": "b" },
                { "path": "new", "after": null },
            ])
        );
        assert_eq!(between(&before, &before), json!([]));
    }

    #[test]
    fn secrets_are_left_out_wherever_they_lie() {
        let before =
            json!({ "password": "hunter2", "secret_id": "sec_1", "headers": [{ "Authorization": "hunter2" }] });
        let after = json!({ "password": "hunter3", "secret_id": "sec_2", "headers": [{ "Authorization": "hunter3" }],
                            "client_secret": { "value": "hunter4" }, "refresh_token": null });
        let changes = between(&before, &after);
        assert!(!changes.to_string().contains("hunter"), "{changes}");
        assert!(changes.to_string().contains("sec_2"));
        let paths: Vec<_> = changes.as_array().unwrap().iter().map(|change| change["path"].clone()).collect();
        assert!(paths.contains(&json!("password")) && paths.contains(&json!("client_secret")), "{paths:?}");
    }

    #[test]
    fn what_is_long_or_much_is_bounded() {
        let long = between(&json!({ "text": "" }), &json!({ "text": "x".repeat(5_000) }));
        assert_eq!(long[0]["after"]["bytes"], 5_002);
        assert_eq!(long[0]["after"]["sha256"].as_str().unwrap().len(), 64);
        let many: Map<String, Value> = (0..500).map(|number| (format!("f{number:03}"), json!(number))).collect();
        let many = between(&json!({}), &Value::Object(many));
        assert_eq!(many.as_array().unwrap().len(), MAX_CHANGES + 1);
        assert_eq!(many[MAX_CHANGES]["path"], "and 300 more");
    }

    #[test]
    fn null_is_told_from_nothing_when_it_is_read_again() {
        for text in
            [r#"{"path":"a","after":null}"#, r#"{"path":"a","before":1}"#, r#"{"path":"a","before":null,"after":2}"#]
        {
            let change: Change = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
        }
    }
}
