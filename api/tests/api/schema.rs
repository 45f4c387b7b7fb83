//! Whether a value is what a schema of the document says.

use serde_json::Value;

/// A part of the document that another one refers to, or itself.
pub fn resolve<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => part,
    }
}

/// What is wrong with a value; nothing: it is as its schema says, and has no member that the schema does not know.
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    look(document, schema, value, "", &mut faults);
    faults
}

fn look(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let schema = resolve(document, schema);
    let mut wrong = |what: &str| faults.push(format!("{at}: {what}: {value}"));
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong("none of the words");
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !is_of_type {
        return wrong(&format!("not of type {}", schema["type"]));
    }
    if value.as_f64().is_some_and(|number| {
        schema["minimum"].as_f64().is_some_and(|least| number < least)
            || schema["maximum"].as_f64().is_some_and(|most| number > most)
    }) {
        wrong("out of range");
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if schema["maxLength"].as_u64().is_some_and(|most| length > most)
            || schema["minLength"].as_u64().is_some_and(|least| length < least)
        {
            wrong("of another length");
        }
        if schema["format"] == "date-time" && chrono::DateTime::parse_from_rfc3339(text).is_err() {
            wrong("no moment");
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        look(document, part, value, at, faults);
    }
    let counted = [
        ("minItems", "maxItems", value.as_array().map(Vec::len)),
        ("minProperties", "maxProperties", value.as_object().map(serde_json::Map::len)),
    ];
    for (least, most, count) in counted {
        let count = count.map(|count| count as u64);
        if count.is_some_and(|count| {
            schema[least].as_u64().is_some_and(|least| count < least)
                || schema[most].as_u64().is_some_and(|most| count > most)
        }) {
            faults.push(format!("{at}: of another size: {value}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        look(document, &schema["items"], item, &format!("{at}[{index}]"), faults);
    }
    if let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                faults.push(format!("{at}.{name} is missing"));
            }
        }
        for (name, member) in members {
            match properties.get(name) {
                Some(property) => look(document, property, member, &format!("{at}.{name}"), faults),
                None => faults.push(format!("{at}.{name} is not documented")),
            }
        }
    } else if let (Some(members), Some(others)) = (value.as_object(), schema.get("additionalProperties")) {
        for (name, member) in members {
            look(document, others, member, &format!("{at}.{name}"), faults);
        }
    }
}

#[test]
fn what_is_not_as_its_schema_says_is_told() {
    let document = serde_json::json!({ "Inner": { "type": "integer", "minimum": 1 } });
    let schema = serde_json::json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "allOf": [{ "$ref": "#/Inner" }] }, "b": { "type": "array", "items": { "enum": ["x"] } },
        "c": { "type": "object", "additionalProperties": { "type": "string" } } } });
    let faults = |value: &str| faults(&document, &schema, &serde_json::from_str(value).unwrap());
    assert_eq!(faults(r#"{ "a": 1, "b": ["x"], "c": { "d": "e" } }"#), Vec::<String>::new());
    assert_eq!(faults(r#"{ "b": 1 }"#), [".a is missing", ".b: not of type \"array\": 1"]);
    assert_eq!(faults(r#"{ "a": 0, "b": ["y"] }"#), [".a: out of range: 0", ".b[0]: none of the words: \"y\""]);
    assert_eq!(faults(r#"{ "a": 1, "c": { "d": 1 } }"#), [".c.d: not of type \"string\": 1"]);
    assert_eq!(faults(r#"{ "a": 1, "z": 1 }"#), [".z is not documented"]);
}
