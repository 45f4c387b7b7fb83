//! Requests that are wrong, each in one place: made from one that is right, and from what its schemas say.

use serde_json::{Value, json};

use super::ask::{Ask, Sent, encoded};
use super::operation::{Operation, Things, id_prefix};
use crate::documented::DOCUMENT;
use crate::schema::resolve;

/// A request that has to be refused.
pub struct Wrong {
    /// What is wrong with it.
    pub what: String,
    pub ask: Ask,
    /// The status; none: any from 400 to 499.
    pub status: Option<u16>,
}

/// Every wrong request of an operation.
pub fn requests(operation: Operation, things: &Things) -> Vec<Wrong> {
    let right = operation.ask(things);
    let mut wrong = paths(operation, &right, things);
    wrong.extend(queries(operation, &right));
    wrong.extend(headers(operation, &right));
    if let (Some(schema), Some(example)) = (operation.body_schema(), operation.example(things)) {
        wrong.extend(texts(&right, &example));
        let mut bodies = Vec::new();
        spoil(schema, &example, "body", &|value| value, &mut bodies);
        let refuse = |(what, body): (String, Value)| {
            // Half of a surrogate pair is no Rust text: it takes the place of another one.
            let text = body.to_string().replace(HALF_OF_A_PAIR, "\\ud800");
            Wrong { what, ask: right.clone().text(text), status: None }
        };
        wrong.extend(bodies.into_iter().map(refuse));
    }
    wrong
}

fn refused(what: impl Into<String>, ask: Ask, status: u16) -> Wrong {
    Wrong { what: what.into(), ask, status: Some(status) }
}

fn paths(operation: Operation, right: &Ask, things: &Things) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    let path = operation.path;
    for parameter in operation.parameters("path") {
        let name = parameter["name"].as_str().unwrap();
        let schema = &parameter["schema"];
        let values = match id_prefix(schema) {
            Some(prefix) => {
                let id = &things[&prefix];
                let foreign = things.values().find(|other| !other.starts_with(&format!("{prefix}_"))).cloned();
                let mut values = garbage();
                values.extend([format!("{prefix}_"), format!("{id}0"), id.to_uppercase(), format!("x{id}")]);
                values.extend(foreign);
                values
            }
            None if schema["type"] == "integer" => integers(schema),
            None => garbage(),
        };
        let around = path.split(&format!("{{{name}}}")).collect::<Vec<_>>();
        let others = |text: &str| {
            // The other parts of the path are as they should be.
            let (mut text, filled) = (text.to_owned(), right.path.split('/').collect::<Vec<_>>());
            for (part, value) in path.split('/').zip(filled) {
                if part.starts_with('{') {
                    text = text.replace(part, value);
                }
            }
            text
        };
        let [before, after] = around.as_slice() else { panic!("{path} has {name} once") };
        for value in values {
            let mut ask = right.clone();
            ask.path = format!("{}{}{}", others(before), encoded(&value), others(after));
            wrong.push(refused(format!("{name} is {value:.40?}"), ask, 400));
        }
        // Bytes that are no text.
        let mut ask = right.clone();
        ask.path = format!("{}%FF%FE{}", others(before), others(after));
        wrong.push(refused(format!("{name} is no text"), ask, 400));
    }
    wrong
}

fn queries(operation: Operation, right: &Ask) -> Vec<Wrong> {
    let mut wrong = vec![refused("an unknown parameter", right.clone().query("nonsense", "1"), 400)];
    for parameter in operation.parameters("query") {
        let name = parameter["name"].as_str().unwrap();
        for value in parameter_values(&parameter["schema"]) {
            let what = format!("{name} is {value:.40?}");
            wrong.push(refused(what, right.clone().query(name, &value), 400));
        }
        if parameter["schema"]["type"] != "array" {
            let twice = right.clone().query(name, "1").query(name, "1");
            wrong.push(refused(format!("{name} twice"), twice, 400));
        }
    }
    wrong
}

fn headers(operation: Operation, right: &Ask) -> Vec<Wrong> {
    let mut wrong = vec![refused("an unknown version", right.clone().header("Gantry-Version", "1999-12-31"), 400)];
    for parameter in operation.parameters("header") {
        let name = parameter["name"].as_str().unwrap();
        let schema = &parameter["schema"];
        let values: Vec<Vec<u8>> = match name {
            "Prefer" => vec![b"wait=soon".into(), b"wait=99999999999".into(), b"wait=-1".into()],
            _ if schema["format"].is_string() || schema["pattern"].is_string() || schema["maxLength"].is_u64() => {
                vec![Vec::new(), b"\xe9\xff".into(), b"\"".into(), vec![b'x'; 6_000]]
            }
            _ => Vec::new(),
        };
        for value in values {
            let what = format!("{name} is {:.40?}", String::from_utf8_lossy(&value));
            wrong.push(refused(what, right.clone().header_bytes(name, &value), 400));
        }
    }
    wrong
}

/// Bodies that are wrong as a whole.
fn texts(right: &Ask, example: &Value) -> Vec<Wrong> {
    let text = example.to_string();
    let send = |bytes: Vec<u8>| right.clone().text(bytes);
    let mut wrong = Vec::new();
    for malformed in ["", " ", "{", "nul", "{'a': 1}", "{\"a\": NaN}", "{,}", "\u{feff}{}"] {
        wrong.push(refused(format!("a body of {malformed:?}"), send(malformed.into()), 400));
    }
    wrong.push(refused("something behind the body", send(format!("{text}}}").into()), 400));
    wrong.push(refused("a body that is no text", send(vec![b'{', 0xff, 0xfe, b'}']), 400));
    for cut in [1, text.len() / 2, text.len() - 1] {
        let end = (cut..text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
        wrong.push(refused(format!("a body that ends after {end} bytes"), send(text.as_bytes()[..end].into()), 400));
    }
    for whole in ["[]", "7", "\"x\"", "null", "true"] {
        wrong.push(refused(format!("a body of {whole}"), send(whole.into()), 422));
    }
    wrong.push(refused("a list of bodies", send(format!("[{text}]").into()), 422));
    if let Some((name, value)) = example.as_object().and_then(|members| members.iter().next()) {
        let twice = text.replacen('{', &format!("{{{}:{value},", json!(name)), 1);
        wrong.push(refused("a member twice", send(twice.into()), 422));
        for depth in [70, 20_000] {
            let deep = format!("{{{}:{}{}}}", json!(name), "[".repeat(depth), "]".repeat(depth));
            wrong.push(refused(format!("{depth} lists in each other"), send(deep.into()), 422));
        }
    }
    for media_type in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
    {
        wrong.push(refused(media_type, right.clone().header("Content-Type", media_type), 415));
    }
    wrong.push(refused("a compressed body", right.clone().header("Content-Encoding", "gzip"), 415));
    wrong.push(refused("no content type", right.clone().without("Content-Type"), 415));
    let announced = right.clone().header("Content-Length", "100000000000");
    wrong.push(refused("a body said to be too large", announced, 413));
    let mut too_large = right.clone();
    too_large.body = Sent::Spaces(33);
    wrong.push(refused("a body that is too large", too_large, 413));
    wrong
}

/// Stands for half of a surrogate pair until the text is written.
const HALF_OF_A_PAIR: &str = "half of a surrogate pair";

/// Bodies of which one member is wrong.
fn spoil(schema: &Value, right: &Value, at: &str, put: &dyn Fn(Value) -> Value, wrong: &mut Vec<(String, Value)>) {
    let schema = resolve(&DOCUMENT, schema);
    if let Some(part) = schema["allOf"].as_array().and_then(|parts| parts.first()) {
        return spoil(part, right, at, put, wrong);
    }
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let put_member = |value: Value| {
            let mut whole = right.clone();
            whole[name.as_str()] = value;
            put(whole)
        };
        for value in values(property, required(name)) {
            wrong.push((format!("{at} is {:.40}", value.to_string()), put_member(value)));
        }
        if required(name) {
            let mut whole = right.clone();
            whole.as_object_mut().unwrap().remove(name);
            wrong.push((format!("{at} is missing"), put(whole)));
        }
        let inner = right.get(name).cloned().unwrap_or_else(|| sample(property));
        spoil(property, &inner, &at, &put_member, wrong);
    }
    if schema["properties"].is_object() {
        let mut whole = right.clone();
        whole["nonsense"] = json!(1);
        wrong.push((format!("{at}.nonsense is not known"), put(whole)));
    }
    if let Some(items) = schema.get("items") {
        let at = format!("{at}[0]");
        for value in values(items, true) {
            wrong.push((format!("{at} is {:.40}", value.to_string()), put(json!([value]))));
        }
        let item = right.get(0).cloned().unwrap_or_else(|| sample(items));
        spoil(items, &item, &at, &|value| put(json!([value])), wrong);
    }
    if let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) {
        for value in values(others, true) {
            wrong.push((format!("{at}.any is {:.40}", value.to_string()), put(json!({ "any": value }))));
        }
        wrong.push((format!("{at} has a name with U+0000"), put(json!({ "a\0": sample(others) }))));
    }
}

/// Values that a schema does not allow.
fn values(schema: &Value, required: bool) -> Vec<Value> {
    let schema = resolve(&DOCUMENT, schema);
    if let Some(part) = schema["allOf"].as_array().and_then(|parts| parts.first()) {
        return values(part, required);
    }
    let mut wrong = match schema["type"].as_str() {
        Some("string") => {
            let mut wrong = vec![json!(7), json!(true), json!([]), json!({}), json!("a\0b"), json!(HALF_OF_A_PAIR)];
            if schema["enum"].is_array() {
                wrong.extend([json!(""), json!("nonsense")]);
            }
            if schema["pattern"].is_string() || schema["format"].is_string() {
                wrong.push(json!("\u{7f}"));
            }
            if let Some(most) = count(&schema["maxLength"]) {
                wrong.push(json!("x".repeat(most + 1)));
            }
            if count(&schema["minLength"]).is_some_and(|least| least > 0) {
                wrong.push(json!(""));
            }
            wrong
        }
        Some("integer") => {
            let mut wrong: Vec<Value> = vec![json!("7"), json!(true), json!([]), json!({}), json!(1.5), json!(1e300)];
            wrong.extend(integers(schema).iter().filter_map(|text| serde_json::from_str(text).ok()));
            wrong
        }
        Some("number") => vec![json!("7"), json!(true), json!([]), json!({})],
        Some("boolean") => vec![json!("true"), json!(0), json!([]), json!({})],
        Some("array") => {
            let mut wrong = vec![json!("x"), json!(7), json!(true), json!({})];
            // Longer ones are tested where they are read.
            if let Some(most) = count(&schema["maxItems"]).filter(|most| *most <= 1_000) {
                wrong.push(vec![sample(&schema["items"]); most + 1].into());
            }
            if count(&schema["minItems"]).is_some_and(|least| least > 0) {
                wrong.push(json!([]));
            }
            wrong
        }
        Some("object") => {
            let mut wrong = vec![json!("x"), json!(7), json!(true), json!([])];
            if let Some(most) = count(&schema["maxProperties"]) {
                let member = |number| (format!("x-{number}"), sample(&schema["additionalProperties"]));
                wrong.push((0..=most).map(member).collect());
            }
            wrong
        }
        // Anything goes, but what nobody can store.
        _ => return vec![json!("a\0b"), json!({ "a\0": 1 }), json!([HALF_OF_A_PAIR])],
    };
    if required && schema["nullable"] != true {
        wrong.push(Value::Null);
    }
    wrong
}

fn count(limit: &Value) -> Option<usize> {
    limit.as_u64().map(|limit| usize::try_from(limit).unwrap())
}

/// Texts that are no whole number of the schema's range.
fn integers(schema: &Value) -> Vec<String> {
    let mut wrong: Vec<String> = ["99999999999999999999", "-99999999999999999999"].map(str::to_owned).into();
    wrong.extend(schema["minimum"].as_i64().map(|least| (least - 1).to_string()));
    wrong.extend(schema["maximum"].as_i64().map(|most| (most + 1).to_string()));
    if schema["format"] == "int32" {
        wrong.extend(["2147483648".to_owned(), "-2147483649".to_owned()]);
    }
    wrong
}

/// Texts that a parameter does not allow.
fn parameter_values(schema: &Value) -> Vec<String> {
    let schema = resolve(&DOCUMENT, schema);
    if let Some(part) = schema["allOf"].as_array().and_then(|parts| parts.first()) {
        return parameter_values(part);
    }
    match schema["type"].as_str() {
        Some("integer") => [integers(schema), garbage()].concat(),
        Some("boolean") => ["", "maybe", "2"].map(str::to_owned).into(),
        Some("array") => parameter_values(&schema["items"]),
        // What is of no form is read by the operation; U+0000 is in no text.
        Some("string") if schema["pattern"].is_null() && schema["format"].is_null() && schema["enum"].is_null() => {
            vec!["\0".to_owned()]
        }
        _ => garbage(),
    }
}

/// Texts that are nothing.
fn garbage() -> Vec<String> {
    let mut garbage: Vec<String> = ["\0", "\u{7f}", "a b\u{1}", "\u{1f600}\n"].map(str::to_owned).into();
    garbage.push("x\n".repeat(3_000));
    garbage
}

/// Something that a schema allows, where the example has nothing.
pub fn sample(schema: &Value) -> Value {
    let schema = resolve(&DOCUMENT, schema);
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(part) = schema["allOf"].as_array().and_then(|parts| parts.first()) {
        return sample(part);
    }
    if let Some(word) = schema["enum"].as_array().and_then(|words| words.first()) {
        return word.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), sample(&schema["properties"][name]))).collect()
        }
        Some("array") => json!([sample(&schema["items"])]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("boolean") => json!(true),
        Some("string") => json!("a"),
        _ => json!({}),
    }
}
