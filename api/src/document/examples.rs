//! An example at every body. Types have theirs, see [`crate::example`]; what only holds such types is put together.

use indexmap::IndexMap;
use serde_json::Value;

use super::tree::Tree;

/// Types in each other, at most: an example of a type that holds itself would have no end.
const MAX_DEPTH: usize = 16;

/// Writes the members of the types' own examples in the order of their schemas, and leaves out what is not there.
pub(super) fn arrange(schemas: &mut Tree) {
    let known = schemas.clone();
    for (_, schema) in schemas.children_mut() {
        if let Some(example) = schema.remove("example") {
            let example = arranged(example, schema, &known);
            schema.set("example", example);
        }
    }
}

/// Puts an example at the body of the request, and at that of every answer.
pub(super) fn show(operation: &mut Tree, schemas: &Tree) {
    let body = operation.get_mut("requestBody").into_iter();
    body.for_each(|body| put(body, schemas));
    let answers = operation.get_mut("responses").into_iter().flat_map(Tree::children_mut);
    answers.for_each(|(_, answer)| put(answer, schemas));
}

fn put(carrier: &mut Tree, schemas: &Tree) {
    for (_, content) in carrier.get_mut("content").into_iter().flat_map(Tree::children_mut) {
        let example = content.get("schema").and_then(|schema| of(schema, schemas, MAX_DEPTH));
        if let Some(example) = example.filter(|_| content.get("examples").is_none()) {
            content.set("example", example);
        }
    }
}

/// An example of what a schema describes, where enough of it has one.
fn of(schema: &Tree, schemas: &Tree, depth: usize) -> Option<Tree> {
    let depth = depth.checked_sub(1)?;
    let schema = super::resolve(schema, schemas);
    if let Some(example) = schema.get("example") {
        return Some(example.clone());
    }
    if let Some(word) = schema.get("enum").and_then(|words| words.items().first()) {
        return Some(word.clone());
    }
    if let Some(part) = schema.get("allOf").and_then(|parts| parts.items().first()) {
        return of(part, schemas, depth);
    }
    match schema.get("type").and_then(Tree::as_str)? {
        "array" => Some(Tree::List(vec![of(schema.get("items")?, schemas, depth)?])),
        "object" => {
            let mut members = IndexMap::new();
            for (name, property) in schema.get("properties")?.children() {
                match of(property, schemas, depth) {
                    Some(example) => drop(members.insert(name.clone(), example)),
                    None if is_required(schema, name) => return None,
                    None => {}
                }
            }
            Some(Tree::Object(members))
        }
        _ => None,
    }
}

fn is_required(schema: &Tree, name: &str) -> bool {
    let required = schema.get("required").map(Tree::items).unwrap_or_default();
    required.iter().any(|required| required.as_str() == Some(name))
}

/// In the order of its schema, without the members that are null: those are left out in an answer, and may be in a
/// request.
fn arranged(example: Tree, schema: &Tree, schemas: &Tree) -> Tree {
    let schema = super::resolve(schema, schemas);
    let schema = schema
        .get("allOf")
        .and_then(|parts| parts.items().first())
        .map_or(schema, |part| super::resolve(part, schemas));
    match example {
        Tree::List(items) => {
            let of = schema.get("items").cloned().unwrap_or_else(Tree::empty);
            Tree::List(items.into_iter().map(|item| arranged(item, &of, schemas)).collect())
        }
        Tree::Object(mut members) => {
            members.retain(|_, member| *member != Tree::Leaf(Value::Null));
            let properties = || schema.get("properties").into_iter().flat_map(Tree::children);
            let mut in_order = IndexMap::new();
            for (name, property) in properties() {
                if let Some(member) = members.shift_remove(name) {
                    in_order.insert(name.clone(), arranged(member, property, schemas));
                }
            }
            in_order.extend(members);
            Tree::Object(in_order)
        }
        Tree::Leaf(leaf) => Tree::Leaf(leaf),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(tree: &Tree) -> String {
        serde_json::to_string(tree).unwrap()
    }

    #[test]
    fn what_holds_things_with_examples_has_one_of_them() {
        let schemas = Tree::from(json!({
            "Thing": { "type": "object", "example": { "id": "thing_1" } },
            "Kind": { "type": "string", "enum": ["small", "large"] },
        }));
        let example = |schema: Value| of(&schema.into(), &schemas, MAX_DEPTH).map(|example| text(&example));
        let thing = json!({ "$ref": "#/components/schemas/Thing" });
        let page = json!({ "type": "object", "required": ["items"], "properties": {
            "items": { "type": "array", "items": thing },
            "kind": { "description": "Which.", "allOf": [{ "$ref": "#/components/schemas/Kind" }] },
            "count": { "type": "integer" },
        } });
        assert_eq!(example(page).unwrap(), r#"{"items":[{"id":"thing_1"}],"kind":"small"}"#);
        let needs =
            json!({ "type": "object", "required": ["count"], "properties": { "count": { "type": "integer" } } });
        assert_eq!(example(needs), None);
    }

    #[test]
    fn what_holds_itself_has_no_example() {
        let schemas = Tree::from(json!({ "Tree": { "type": "object", "required": ["left"],
            "properties": { "left": { "$ref": "#/components/schemas/Tree" } } } }));
        assert_eq!(of(&json!({ "$ref": "#/components/schemas/Tree" }).into(), &schemas, MAX_DEPTH), None);
    }

    #[test]
    fn an_example_is_in_the_order_of_its_schema() {
        let mut schemas: Tree = serde_json::from_str(
            r##"{"Outer":{"properties":{"z":{"$ref":"#/components/schemas/Inner"},"a":{}},
                "example":{"a":1,"gone":null,"z":{"b":[1],"y":2}}},"Inner":{"properties":{"y":{},"b":{}}}}"##,
        )
        .unwrap();
        arrange(&mut schemas);
        let example = schemas.get("Outer").and_then(|outer| outer.get("example")).unwrap();
        assert_eq!(text(example), r#"{"z":{"y":2,"b":[1]},"a":1}"#);
    }
}
