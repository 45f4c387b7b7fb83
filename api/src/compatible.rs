//! Whether a program written against one document of the API goes on working with another: everything that it may send
//! is still taken, and everything that it is answered is still as it was told.
//!
//! What was marked as deprecated in the old document may be gone in the new one: that is how things come to an end, see
//! [`crate::version`]. Additions are no break: operations, parameters that may be left out, members of answers, codes.
//! A word more in an answer is one, for generated clients know only those there were.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

/// Something that a program may rely on and that is no longer so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    /// Where: the operation, and the place in what it takes or answers.
    pub at: String,
    /// What is different.
    pub what: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// What of the old document the new one breaks, in order; nothing: it is compatible.
///
/// # Errors
/// When one of them is no JSON.
pub fn breaks(old: &str, new: &str) -> Result<Vec<Break>, serde_json::Error> {
    let (old, new) = (serde_json::from_str(old)?, serde_json::from_str(new)?);
    let mut comparison = Comparison { old: &old, new: &new, breaks: BTreeSet::new(), compared: BTreeSet::new() };
    comparison.documents();
    Ok(comparison.breaks.into_iter().collect())
}

/// Who sends what a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Programs do: what they may send, they may go on sending.
    In,
    /// The API does: what programs know of it, they may go on relying on.
    Out,
}

struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    breaks: BTreeSet<Break>,
    /// Pairs of types that were compared, so that types that hold themselves come to an end.
    compared: BTreeSet<(Way, &'a str, &'a str)>,
}

impl<'a> Comparison<'a> {
    fn broken(&mut self, at: &str, what: impl Into<String>) {
        self.breaks.insert(Break { at: at.to_owned(), what: what.into() });
    }

    fn documents(&mut self) {
        let (old, new) = (self.old, self.new);
        for (path, methods) in members(&old["paths"]) {
            for (method, operation) in members(methods) {
                let at = operation["operationId"].as_str().map_or_else(|| format!("{method} {path}"), str::to_owned);
                match new["paths"][path].get(method) {
                    Some(after) => self.operations(&at, operation, after),
                    None if operation["deprecated"] == true => {}
                    None => self.broken(&at, format!("{} {path} is gone", method.to_uppercase())),
                }
            }
        }
        // Generated clients have a type for each.
        for (name, schema) in members(&old["components"]["schemas"]) {
            if new["components"]["schemas"].get(name).is_none() && schema["deprecated"] != true {
                self.broken(name, "the type is gone, or has another name");
            }
        }
    }

    fn operations(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.broken(at, format!("its operationId is {} now", new["operationId"]));
        }
        if old["tags"] != new["tags"] {
            self.broken(at, format!("its tags are {} now: generated clients have it elsewhere", new["tags"]));
        }
        if old.get("security").is_none() && new.get("security").is_some() {
            self.broken(at, "it needs a key now");
        }
        for permission in list(&new["x-permissions"]) {
            if !list(&old["x-permissions"]).contains(permission) {
                self.broken(at, format!("it needs the permission {permission} now"));
            }
        }
        self.parameters(at, old, new, Way::In);
        self.bodies(at, old, new, Way::In);
        self.answers(at, &old["responses"], &new["responses"]);
        for (name, callback) in members(&old["callbacks"]) {
            let at = format!("{at}, callback {name}");
            for (receiver, methods) in members(callback) {
                for (method, before) in members(methods) {
                    match new["callbacks"][name][receiver].get(method) {
                        Some(after) => {
                            self.parameters(&at, before, after, Way::Out);
                            self.bodies(&at, before, after, Way::Out);
                        }
                        None if before["deprecated"] == true => {}
                        None => self.broken(&at, "it is gone"),
                    }
                }
            }
        }
    }

    fn parameters(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let same = |one: &Value, other: &Value| one["name"] == other["name"] && one["in"] == other["in"];
        for before in list(&old["parameters"]) {
            let at = format!("{at}, {} parameter {}", text(&before["in"]), text(&before["name"]));
            let Some(after) = list(&new["parameters"]).iter().find(|after| same(before, after)) else {
                if before["deprecated"] != true {
                    self.broken(&at, "it is gone");
                }
                continue;
            };
            match way {
                Way::In if before["required"] != true && after["required"] == true => {
                    self.broken(&at, "it may not be left out any more");
                }
                Way::Out if before["required"] == true && after["required"] != true => {
                    self.broken(&at, "it may be missing now");
                }
                _ => {}
            }
            self.schemas(&at, &before["schema"], &after["schema"], way);
        }
        if way == Way::In {
            for after in list(&new["parameters"]).iter().filter(|after| after["required"] == true) {
                if !list(&old["parameters"]).iter().any(|before| same(before, after)) {
                    let at = format!("{at}, {} parameter {}", text(&after["in"]), text(&after["name"]));
                    self.broken(&at, "it is new and may not be left out");
                }
            }
        }
    }

    fn bodies(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let at = format!("{at}, body");
        match (old.get("requestBody"), new.get("requestBody")) {
            (None, Some(after)) if way == Way::In && after["required"] == true => {
                self.broken(&at, "it is new and may not be left out");
            }
            (Some(_), None) => self.broken(&at, "it is gone"),
            (Some(before), Some(after)) => {
                if way == Way::In && before["required"] != true && after["required"] == true {
                    self.broken(&at, "it may not be left out any more");
                }
                self.contents(&at, &before["content"], &after["content"], way);
            }
            _ => {}
        }
    }

    /// Refusals may come and go: a program decides by `code`, or by the class of the status.
    fn answers(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        for (status, before) in members(old) {
            let at = format!("{at}, answer {status}");
            let before = resolve(self.old, before);
            match new.get(status) {
                None if status.starts_with(['4', '5']) => {}
                None => self.broken(&at, "it is gone"),
                Some(after) => {
                    let after = resolve(self.new, after);
                    for (name, header) in members(&before["headers"]) {
                        let at = format!("{at}, header {name}");
                        match after["headers"].get(name) {
                            None => self.broken(&at, "it is gone"),
                            Some(after) if header["required"] == true && after["required"] != true => {
                                self.broken(&at, "it may be missing now");
                            }
                            Some(after) => self.schemas(&at, &header["schema"], &after["schema"], Way::Out),
                        }
                    }
                    self.contents(&at, &before["content"], &after["content"], Way::Out);
                }
            }
        }
    }

    fn contents(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        for (media_type, before) in members(old) {
            match new.get(media_type) {
                Some(after) => self.schemas(at, &before["schema"], &after["schema"], way),
                None => self.broken(at, format!("it is no longer {media_type}")),
            }
        }
    }

    fn schemas(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let (old, new) = (alone(old), alone(new));
        if let (Some(before), Some(after)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.compared.insert((way, before, after))
        {
            return;
        }
        let (old, new) = (resolve(self.old, old), resolve(self.new, new));
        let (old, new) = (alone(old), alone(new));
        if old["type"] != new["type"] {
            // What was anything may be sent no more; what is anything cannot be relied on.
            let widened = match way {
                Way::In => new["type"].is_null(),
                Way::Out => old["type"].is_null(),
            };
            if !widened {
                self.broken(
                    at,
                    format!("it was of type {}, and is of type {}", shown(&old["type"]), shown(&new["type"])),
                );
            }
            return;
        }
        self.words(at, old, new, way);
        self.forms(at, old, new, way);
        match way {
            Way::In => self.bounds(at, old, new),
            Way::Out => {}
        }
        for composed in ["oneOf", "anyOf", "allOf"] {
            if old[composed] != new[composed] {
                self.broken(at, format!("its {composed} is another"));
            }
        }
        self.properties(at, old, new, way);
        match (old.get("items"), new.get("items")) {
            (Some(before), Some(after)) => self.schemas(&format!("{at}[]"), before, after, way),
            (None, Some(_)) if way == Way::In => self.broken(at, "its items have a form now"),
            _ => {}
        }
        match (old.get("additionalProperties"), new.get("additionalProperties")) {
            (Some(before), Some(after)) if before.is_object() && after.is_object() => {
                self.schemas(&format!("{at}.*"), before, after, way);
            }
            (before, after) if before != after && way == Way::In && after.is_some() => {
                self.broken(at, "it does not take the same members any more");
            }
            (Some(_), None) if way == Way::Out => self.broken(at, "it may have any members now"),
            _ => {}
        }
    }

    fn words(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        let (before, after) = (list(&old["enum"]), list(&new["enum"]));
        for word in before.iter().filter(|word| !after.contains(word) && !after.is_empty()) {
            self.broken(at, format!("the word {word} is gone"));
        }
        match way {
            Way::In if before.is_empty() && !after.is_empty() => self.broken(at, "it is one of some words now"),
            Way::Out if !before.is_empty() && after.is_empty() => self.broken(at, "it may be any text now"),
            Way::Out if !before.is_empty() => {
                for word in after.iter().filter(|word| !before.contains(word)) {
                    self.broken(at, format!("the word {word} is new"));
                }
            }
            _ => {}
        }
    }

    fn forms(&mut self, at: &str, old: &Value, new: &Value, way: Way) {
        let wider = match way {
            Way::In => old["format"] == "int32" && new["format"] == "int64",
            Way::Out => old["format"] == "int64" && new["format"] == "int32",
        };
        let loosened = way == Way::In && new["format"].is_null() || way == Way::Out && old["format"].is_null();
        if old["format"] != new["format"] && !wider && !loosened {
            self.broken(at, format!("its format was {}, and is {}", shown(&old["format"]), shown(&new["format"])));
        }
        let tightened = match way {
            Way::In => !new["pattern"].is_null(),
            Way::Out => !old["pattern"].is_null(),
        };
        if old["pattern"] != new["pattern"] && tightened {
            self.broken(at, format!("its pattern was {}, and is {}", shown(&old["pattern"]), shown(&new["pattern"])));
        }
        match way {
            Way::In if old["nullable"] == true && new["nullable"] != true => {
                self.broken(at, "it may not be null any more");
            }
            Way::Out if old["nullable"] != true && new["nullable"] == true => self.broken(at, "it may be null now"),
            _ => {}
        }
        if way == Way::In && old["default"] != new["default"] {
            let what = format!("left out, it was {}, and is {}", shown(&old["default"]), shown(&new["default"]));
            self.broken(at, what);
        }
    }

    fn bounds(&mut self, at: &str, old: &Value, new: &Value) {
        for (bound, is_upper) in [
            ("maximum", true),
            ("minimum", false),
            ("maxLength", true),
            ("minLength", false),
            ("maxItems", true),
            ("minItems", false),
            ("maxProperties", true),
            ("minProperties", false),
        ] {
            let Some(after) = new[bound].as_f64() else { continue };
            // What is at least nothing is not bounded.
            let before = old[bound].as_f64().or((!is_upper && bound != "minimum").then_some(0.0));
            let narrower = before.is_none_or(|before| if is_upper { after < before } else { after > before });
            if narrower {
                self.broken(at, format!("its {bound} was {}, and is {}", shown(&old[bound]), shown(&new[bound])));
            }
        }
    }

    fn properties(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let required = |schema: &Value, name: &str| list(&schema["required"]).iter().any(|it| it == name);
        for (name, before) in members(&old["properties"]) {
            let at = format!("{at}.{name}");
            let Some(after) = new["properties"].get(name) else {
                if before["deprecated"] != true {
                    self.broken(&at, "it is gone");
                }
                continue;
            };
            match way {
                Way::In if !required(old, name) && required(new, name) => {
                    self.broken(&at, "it may not be left out any more");
                }
                Way::Out if required(old, name) && !required(new, name) => self.broken(&at, "it may be missing now"),
                _ => {}
            }
            self.schemas(&at, before, after, way);
        }
        if way == Way::In {
            for (name, _) in members(&new["properties"]) {
                if required(new, name) && old["properties"].get(name).is_none() {
                    self.broken(&format!("{at}.{name}"), "it is new and may not be left out");
                }
            }
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What a part of a document refers to, or itself.
fn resolve<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    let target = part["$ref"].as_str().and_then(|reference| document.pointer(reference.strip_prefix('#')?));
    target.unwrap_or(part)
}

/// A reference that is described anew stands alone in an `allOf`.
fn alone(schema: &Value) -> &Value {
    match list(&schema["allOf"]) {
        [one] => one,
        _ => schema,
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "not said".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A document in which everything is that can break.
    fn released() -> Value {
        json!({
            "paths": {
                "/things": {
                    "get": {
                        "operationId": "listThings", "tags": ["Things"], "security": [{ "ApiKey": [] }],
                        "x-permissions": ["things:read"],
                        "parameters": [
                            { "name": "state", "in": "query", "schema": { "$ref": "#/components/schemas/State" } },
                            { "name": "limit", "in": "query", "schema": {
                                "type": "integer", "format": "int32", "minimum": 1, "maximum": 200, "default": 50 } },
                        ],
                        "responses": {
                            "200": {
                                "headers": { "Link": { "required": true, "schema": { "type": "string" } } },
                                "content": { "application/json": { "schema": {
                                    "type": "array", "items": { "$ref": "#/components/schemas/Thing" } } } },
                            },
                            "404": { "content": {} },
                        },
                    },
                    "post": {
                        "operationId": "createThing", "tags": ["Things"],
                        "requestBody": { "content": {
                            "application/json": { "schema": { "$ref": "#/components/schemas/NewThing" } } } },
                        "responses": { "201": {}, "200": {} },
                        "callbacks": { "thing.made": { "{$request.body#/url}": { "post": {
                            "parameters": [
                                { "name": "webhook-id", "in": "header", "required": true, "schema": { "type": "string" } }],
                            "requestBody": { "content": {
                                "application/json": { "schema": { "$ref": "#/components/schemas/Thing" } } } },
                        } } } },
                    },
                },
                "/old": { "get": { "operationId": "old", "deprecated": true, "responses": {} } },
                "/open": { "get": { "operationId": "open", "responses": { "default": {} } } },
            },
            "components": { "schemas": {
                "State": { "type": "string", "enum": ["new", "done"] },
                "Thing": {
                    "type": "object", "required": ["id"],
                    "properties": {
                        "id": { "type": "string", "pattern": "^t_" },
                        "state": { "allOf": [{ "$ref": "#/components/schemas/State" }] },
                        "count": { "type": "integer", "format": "int32" },
                        "inside": { "$ref": "#/components/schemas/Thing" },
                        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                        "any": {},
                        "going": { "type": "string", "deprecated": true },
                    },
                },
                "NewThing": {
                    "type": "object", "required": ["name"],
                    "properties": {
                        "name": { "type": "string", "maxLength": 100, "format": "name" },
                        "note": { "type": "string", "nullable": true },
                        "state": { "$ref": "#/components/schemas/State" },
                        "tags": { "type": "array", "items": { "type": "string" }, "maxItems": 10 },
                        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                        "count": { "type": "integer", "format": "int32" },
                        "any": {},
                    },
                },
            } },
        })
    }

    /// What a change breaks.
    fn broken(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let (old, mut new) = (released(), released());
        change(&mut new);
        let breaks = breaks(&old.to_string(), &new.to_string()).unwrap();
        breaks.iter().map(ToString::to_string).collect()
    }

    /// Sets or, with null, removes what is there.
    fn set(place: &'static str, value: Value) -> impl FnOnce(&mut Value) {
        move |document| {
            let (parent, name) = place.rsplit_once('/').unwrap();
            let name = name.replace("~1", "/");
            let parent = document.pointer_mut(parent).expect(place);
            match (parent, value) {
                (Value::Object(members), Value::Null) => drop(members.remove(&name).expect(place)),
                (Value::Array(items), Value::Null) => drop(items.remove(name.parse().unwrap())),
                (Value::Array(items), value) if name == "-" => items.push(value),
                (parent, value) => parent[&name] = value,
            }
        }
    }

    #[test]
    fn a_document_is_compatible_with_itself() {
        assert_eq!(broken(|_| {}), Vec::<String>::new());
        let own = crate::openapi();
        assert_eq!(breaks(own, own).unwrap(), []);
        assert!(breaks("{", own).is_err());
    }

    macro_rules! breaking {
        ($($name:ident: $change:expr => [$($expected:literal),+];)*) => {
            $(
                #[test]
                fn $name() {
                    assert_eq!(broken($change), [$($expected),+]);
                }
            )*
        };
    }

    breaking! {
        a_path_is_gone: set("/paths/~1things", Value::Null) =>
            ["createThing: POST /things is gone", "listThings: GET /things is gone"];
        an_operation_is_gone: set("/paths/~1things/post", Value::Null) => ["createThing: POST /things is gone"];
        an_operation_has_another_name: set("/paths/~1open/get/operationId", json!("opened")) =>
            ["open: its operationId is \"opened\" now"];
        an_operation_has_another_tag: set("/paths/~1things/get/tags", json!(["Others"])) =>
            ["listThings: its tags are [\"Others\"] now: generated clients have it elsewhere"];
        an_operation_needs_a_key: set("/paths/~1open/get/security", json!([{ "ApiKey": [] }])) =>
            ["open: it needs a key now"];
        an_operation_needs_another_permission: set("/paths/~1things/get/x-permissions", json!(["things:see"])) =>
            ["listThings: it needs the permission \"things:see\" now"];
        a_parameter_is_gone: set("/paths/~1things/get/parameters/0", Value::Null) =>
            ["listThings, query parameter state: it is gone"];
        a_parameter_is_new_and_required:
            set("/paths/~1things/get/parameters/-", json!({ "name": "of", "in": "query", "required": true })) =>
            ["listThings, query parameter of: it is new and may not be left out"];
        a_parameter_becomes_required: set("/paths/~1things/get/parameters/0/required", json!(true)) =>
            ["listThings, query parameter state: it may not be left out any more"];
        a_parameter_moves: set("/paths/~1things/get/parameters/0/in", json!("header")) =>
            ["listThings, query parameter state: it is gone"];
        a_parameter_takes_less: set("/paths/~1things/get/parameters/1/schema/maximum", json!(100)) =>
            ["listThings, query parameter limit: its maximum was 200, and is 100"];
        a_parameter_takes_only_more: set("/paths/~1things/get/parameters/1/schema/minimum", json!(5)) =>
            ["listThings, query parameter limit: its minimum was 1, and is 5"];
        a_parameter_left_out_means_something_else: set("/paths/~1things/get/parameters/1/schema/default", json!(20)) =>
            ["listThings, query parameter limit: left out, it was 50, and is 20"];
        a_body_becomes_required: set("/paths/~1things/post/requestBody/required", json!(true)) =>
            ["createThing, body: it may not be left out any more"];
        a_body_is_new_and_required:
            set("/paths/~1open/get/requestBody", json!({ "required": true, "content": {} })) =>
            ["open, body: it is new and may not be left out"];
        a_body_is_of_another_media_type:
            set("/paths/~1things/post/requestBody/content", json!({ "application/xml": {} })) =>
            ["createThing, body: it is no longer application/json"];
        a_field_of_a_request_is_gone: set("/components/schemas/NewThing/properties/note", Value::Null) =>
            ["createThing, body.note: it is gone"];
        a_field_of_a_request_becomes_required: set("/components/schemas/NewThing/required", json!(["name", "note"])) =>
            ["createThing, body.note: it may not be left out any more"];
        a_field_of_a_request_is_new_and_required: |new: &mut Value| {
            set("/components/schemas/NewThing/properties/size", json!({ "type": "integer" }))(new);
            set("/components/schemas/NewThing/required/-", json!("size"))(new);
        } => ["createThing, body.size: it is new and may not be left out"];
        a_field_of_a_request_has_another_type: set("/components/schemas/NewThing/properties/name/type", json!("integer")) =>
            ["createThing, body.name: it was of type \"string\", and is of type \"integer\""];
        a_field_of_a_request_was_anything: set("/components/schemas/NewThing/properties/any/type", json!("string")) =>
            ["createThing, body.any: it was of type not said, and is of type \"string\""];
        a_field_of_a_request_is_shorter: set("/components/schemas/NewThing/properties/name/maxLength", json!(50)) =>
            ["createThing, body.name: its maxLength was 100, and is 50"];
        a_field_of_a_request_is_bounded: set("/components/schemas/NewThing/properties/note/maxLength", json!(50)) =>
            ["createThing, body.note: its maxLength was not said, and is 50"];
        a_field_of_a_request_may_not_be_empty: set("/components/schemas/NewThing/properties/note/minLength", json!(1)) =>
            ["createThing, body.note: its minLength was not said, and is 1"];
        a_field_of_a_request_gets_a_pattern: set("/components/schemas/NewThing/properties/note/pattern", json!("^a")) =>
            ["createThing, body.note: its pattern was not said, and is \"^a\""];
        a_field_of_a_request_gets_another_format: set("/components/schemas/NewThing/properties/name/format", json!("word")) =>
            ["createThing, body.name: its format was \"name\", and is \"word\""];
        a_field_of_a_request_may_not_be_null: set("/components/schemas/NewThing/properties/note/nullable", Value::Null) =>
            ["createThing, body.note: it may not be null any more"];
        a_list_of_a_request_is_shorter: set("/components/schemas/NewThing/properties/tags/maxItems", json!(5)) =>
            ["createThing, body.tags: its maxItems was 10, and is 5"];
        an_item_of_a_request_is_bounded: set("/components/schemas/NewThing/properties/tags/items/maxLength", json!(5)) =>
            ["createThing, body.tags[]: its maxLength was not said, and is 5"];
        members_of_any_name_are_bounded:
            set("/components/schemas/NewThing/properties/labels/additionalProperties/maxLength", json!(5)) =>
            ["createThing, body.labels.*: its maxLength was not said, and is 5"];
        members_of_any_name_are_taken_no_more:
            set("/components/schemas/NewThing/properties/labels/additionalProperties", json!(false)) =>
            ["createThing, body.labels: it does not take the same members any more"];
        a_field_of_a_request_is_one_of_some_words: set("/components/schemas/NewThing/properties/note/enum", json!(["a"])) =>
            ["createThing, body.note: it is one of some words now"];
        a_word_is_gone: set("/components/schemas/State/enum", json!(["new"])) => [
            "listThings, answer 200[].state: the word \"done\" is gone",
            "listThings, query parameter state: the word \"done\" is gone"
        ];
        an_answer_is_gone: set("/paths/~1things/post/responses/200", Value::Null) =>
            ["createThing, answer 200: it is gone"];
        an_answer_is_of_another_media_type: set("/paths/~1things/get/responses/200/content", json!({ "text/csv": {} })) =>
            ["listThings, answer 200: it is no longer application/json"];
        a_header_of_an_answer_is_gone: set("/paths/~1things/get/responses/200/headers/Link", Value::Null) =>
            ["listThings, answer 200, header Link: it is gone"];
        a_header_of_an_answer_may_be_missing: set("/paths/~1things/get/responses/200/headers/Link/required", json!(false)) =>
            ["listThings, answer 200, header Link: it may be missing now"];
        a_callback_is_gone: set("/paths/~1things/post/callbacks/thing.made", Value::Null) =>
            ["createThing, callback thing.made: it is gone"];
        a_header_of_a_delivery_is_gone:
            set("/paths/~1things/post/callbacks/thing.made/{$request.body#~1url}/post/parameters/0", Value::Null) =>
            ["createThing, callback thing.made, header parameter webhook-id: it is gone"];
        a_header_of_a_delivery_may_be_missing:
            set("/paths/~1things/post/callbacks/thing.made/{$request.body#~1url}/post/parameters/0/required", json!(false)) =>
            ["createThing, callback thing.made, header parameter webhook-id: it may be missing now"];
        a_field_of_an_answer_is_gone: set("/components/schemas/Thing/properties/count", Value::Null) =>
            ["listThings, answer 200[].count: it is gone"];
        a_field_of_an_answer_may_be_missing: set("/components/schemas/Thing/required", json!([])) =>
            ["listThings, answer 200[].id: it may be missing now"];
        a_field_of_an_answer_has_another_type: set("/components/schemas/Thing/properties/count/type", json!("string")) =>
            ["listThings, answer 200[].count: it was of type \"integer\", and is of type \"string\""];
        a_field_of_an_answer_is_larger: set("/components/schemas/Thing/properties/count/format", json!("int64")) =>
            ["listThings, answer 200[].count: its format was \"int32\", and is \"int64\""];
        a_field_of_an_answer_may_be_null: set("/components/schemas/Thing/properties/count/nullable", json!(true)) =>
            ["listThings, answer 200[].count: it may be null now"];
        a_field_of_an_answer_has_another_pattern: set("/components/schemas/Thing/properties/id/pattern", json!("^x_")) =>
            ["listThings, answer 200[].id: its pattern was \"^t_\", and is \"^x_\""];
        an_answer_is_composed_otherwise: set("/components/schemas/Thing/oneOf", json!([{ "type": "object" }])) =>
            ["listThings, answer 200[]: its oneOf is another"];
        a_type_has_another_name: |new: &mut Value| {
            let thing = new["components"]["schemas"]["NewThing"].clone();
            set("/components/schemas/NewThing", Value::Null)(new);
            set("/components/schemas/ThingToMake", thing)(new);
            let schema = json!({ "$ref": "#/components/schemas/ThingToMake" });
            set("/paths/~1things/post/requestBody/content/application~1json/schema", schema)(new);
        } => ["NewThing: the type is gone, or has another name"];
    }

    #[test]
    fn a_word_more_in_an_answer_is_a_break_and_in_a_request_is_none() {
        let breaks = broken(set("/components/schemas/State/enum", json!(["new", "done", "lost"])));
        assert_eq!(breaks, ["listThings, answer 200[].state: the word \"lost\" is new"]);
    }

    #[test]
    fn what_is_added_or_was_said_to_go_is_no_break() {
        let changes: Vec<(&'static str, Value)> = vec![
            ("/paths/~1more", json!({ "get": { "operationId": "more", "responses": {} } })),
            ("/paths/~1old", Value::Null),
            ("/components/schemas/Thing/properties/going", Value::Null),
            ("/components/schemas/Thing/properties/more", json!({ "type": "string" })),
            ("/components/schemas/Thing/required/-", json!("state")),
            ("/components/schemas/Thing/properties/any/type", json!("string")),
            ("/components/schemas/NewThing/properties/more", json!({ "type": "string" })),
            ("/components/schemas/NewThing/required", json!([])),
            ("/components/schemas/NewThing/properties/name/maxLength", json!(200)),
            ("/components/schemas/NewThing/properties/name/format", Value::Null),
            ("/components/schemas/NewThing/properties/count/format", json!("int64")),
            ("/components/schemas/NewThing/properties/tags/minItems", json!(0)),
            ("/paths/~1things/get/parameters/-", json!({ "name": "more", "in": "query" })),
            ("/paths/~1things/get/parameters/1/schema/maximum", json!(500)),
            ("/paths/~1things/get/responses/404", Value::Null),
            ("/paths/~1things/get/responses/409", json!({ "content": {} })),
            ("/paths/~1things/get/responses/200/headers/ETag", json!({ "schema": { "type": "string" } })),
            ("/paths/~1things/get/x-permissions", json!([])),
            ("/paths/~1things/get/summary", json!("List them")),
        ];
        for (place, value) in changes {
            assert_eq!(broken(set(place, value)), Vec::<String>::new(), "{place}");
        }
    }
}
