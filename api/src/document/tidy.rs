//! What poem-openapi writes in a way that generators of clients stumble over or people wonder at, written plainly.

use serde_json::Value;

use super::tree::Tree;

/// Goes through the whole document.
pub(super) fn tidy(tree: &mut Tree) {
    match tree {
        Tree::Leaf(Value::Number(number)) => {
            // Limits are `f64` inside: 200.0 for 200.
            if let Some(whole) = number.as_f64().filter(|it| number.is_f64() && it.fract() == 0.0 && it.abs() < 1e15) {
                #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
                let whole = whole as i64;
                *number = whole.into();
            }
        }
        Tree::Leaf(_) => {}
        Tree::List(items) => items.iter_mut().for_each(tidy),
        Tree::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    // Whatever they are called, they are schemas.
                    "properties" => member.children_mut().for_each(|(_, property)| tidy(property)),
                    // What is written there is somebody's own.
                    "example" | "default" | "enum" => {}
                    _ => tidy(member),
                }
            }
            one_reference(tree);
            plain_media_type(tree);
            say_nothing_twice(tree);
            fill_nothing_in(tree);
        }
    }
}

/// A reference that is described anew comes as `allOf` of the reference and of what stands beside it already.
fn one_reference(schema: &mut Tree) {
    let Some(Tree::List(parts)) = schema.get("allOf") else { return };
    let [reference, beside] = parts.as_slice() else { return };
    let repeated = beside.children().all(|(name, value)| schema.get(name) == Some(value));
    if reference.get("$ref").is_some() && repeated {
        schema.set("allOf", Tree::List(vec![reference.clone()]));
    }
}

/// JSON is UTF-8; generators compare media types letter by letter.
fn plain_media_type(content: &mut Tree) {
    if let Some(json) = content.remove("application/json; charset=utf-8") {
        content.set("application/json", json);
    }
}

/// `false` is what is meant where nothing is said.
fn say_nothing_twice(tree: &mut Tree) {
    if tree.get("deprecated") == Some(&Tree::Leaf(Value::Bool(false))) {
        tree.remove("deprecated");
    }
    if tree.get("in").is_some() && tree.get("explode").is_some() {
        let is_list = tree.get("schema").and_then(|schema| schema.get("type")).and_then(Tree::as_str) == Some("array");
        if !is_list {
            tree.remove("explode");
        }
    }
}

/// Pages on which calls are tried fill examples in, and what need not be sent is then sent: somebody else's id, a cursor of
/// nowhere, a key of idempotency for the second time. The description has them instead.
fn fill_nothing_in(parameter: &mut Tree) {
    let place = parameter.get("in").and_then(Tree::as_str);
    let is_optional = parameter.get("required") != Some(&Tree::Leaf(Value::Bool(true)));
    if !matches!(place, Some("query" | "header")) || !is_optional {
        return;
    }
    let Some(example) = parameter.get_mut("schema").and_then(|schema| schema.remove("example")) else { return };
    let (Some(example), Some(said)) = (example.as_str(), parameter.get("description").and_then(Tree::as_str)) else {
        return;
    };
    let described = format!("{said} For example `{example}`.");
    parameter.set("description", Tree::Leaf(Value::String(described)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tidied(value: Value) -> Tree {
        let mut tree = Tree::from(value);
        tidy(&mut tree);
        tree
    }

    #[test]
    fn what_is_written_in_a_roundabout_way_becomes_plain() {
        assert_eq!(tidied(json!({ "maximum": 200.0, "step": 0.5 })), json!({ "maximum": 200, "step": 0.5 }).into());
        let described = json!({ "description": "Where.", "allOf": [{ "$ref": "#/x" }, { "description": "Where." }] });
        assert_eq!(tidied(described), json!({ "description": "Where.", "allOf": [{ "$ref": "#/x" }] }).into());
        let two = json!({ "allOf": [{ "$ref": "#/x" }, { "description": "Where." }] });
        assert_eq!(tidied(two.clone()), two.into());
        let content = json!({ "application/json; charset=utf-8": {} });
        assert_eq!(tidied(content), json!({ "application/json": {} }).into());
        let example = json!({ "example": { "deprecated": false }, "properties": { "example": { "maximum": 1.0 } } });
        let same = json!({ "example": { "deprecated": false }, "properties": { "example": { "maximum": 1 } } });
        assert_eq!(tidied(example), same.into());
        let parameter = json!({ "in": "query", "deprecated": false, "explode": true, "schema": { "type": "string" } });
        assert_eq!(tidied(parameter), json!({ "in": "query", "schema": { "type": "string" } }).into());
    }

    #[test]
    fn an_example_of_what_need_not_be_sent_is_not_sent_by_whoever_tries_a_call() {
        let parameter = |required: bool| json!({ "in": "query", "required": required, "description": "From where.", "schema": { "example": "xyz" } });
        let said =
            json!({ "in": "query", "required": false, "description": "From where. For example `xyz`.", "schema": {} });
        assert_eq!(tidied(parameter(false)), said.into());
        assert_eq!(tidied(parameter(true)), parameter(true).into());
    }
}
