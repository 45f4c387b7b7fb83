//! What readers of the document must know of types to generate clients, and poem-openapi does not say.

use serde_json::Value;

use super::tree::Tree;

/// Fields that `null` empties, by schema and name: those whose type is `MaybeUndefined`.
const EMPTIED_BY_NULL: &[(&str, &str)] = &[("WebhookEndpointChange", "rate_per_second")];

/// Says it.
pub(super) fn tell(document: &mut Tree) {
    widen(document);
    for (schema, field) in EMPTIED_BY_NULL {
        let mut place = Some(&mut *document);
        for name in ["components", "schemas", schema, "properties", field] {
            place = place.and_then(|place| place.get_mut(name));
        }
        place.expect("the fields that null empties are in the document").set("nullable", Value::Bool(true));
    }
}

/// `OpenAPI` knows whole numbers of 32 and of 64 bits, both with a sign. Generators take any other format for 32 bits.
fn widen(tree: &mut Tree) {
    if tree.get("type").and_then(Tree::as_str) == Some("integer") {
        let (format, unsigned) = match tree.get("format").and_then(Tree::as_str) {
            Some("uint8" | "uint16") => ("int32", true),
            Some("uint32" | "uint64") => ("int64", true),
            Some("int8" | "int16") => ("int32", false),
            _ => return,
        };
        tree.set("format", Value::from(format));
        if unsigned && tree.get("minimum").is_none() {
            tree.set("minimum", Value::from(0));
        }
        return;
    }
    tree.children_mut().for_each(|(_, child)| widen(child));
    tree.items_mut().iter_mut().for_each(widen);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Generated methods return one type, whatever the status.
    #[test]
    fn what_an_operation_answers_has_one_shape() {
        let document: Value = serde_json::from_str(crate::openapi()).unwrap();
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        for operation in operations {
            let answers =
                operation["responses"].as_object().unwrap().iter().filter(|(status, _)| status.starts_with('2'));
            let shape = |content: &Value| {
                let mut shape = content["schema"].clone();
                shape.as_object_mut().map(|shape| shape.remove("example"));
                shape
            };
            let mut schemas: Vec<Value> = answers
                .flat_map(|(_, answer)| answer["content"].as_object().into_iter().flat_map(|content| content.values()))
                .map(shape)
                .collect();
            schemas.dedup();
            assert!(schemas.len() < 2, "{} answers {schemas:?}", operation["operationId"]);
        }
    }

    #[test]
    fn whole_numbers_have_32_or_64_bits() {
        let mut tree = Tree::from(json!({ "a": [{ "type": "integer", "format": "uint64" }],
            "b": { "type": "integer", "format": "int16", "minimum": 5 }, "c": { "type": "string", "format": "uint8" } }));
        widen(&mut tree);
        let expected = json!({ "a": [{ "type": "integer", "format": "int64", "minimum": 0 }],
            "b": { "type": "integer", "format": "int32", "minimum": 5 }, "c": { "type": "string", "format": "uint8" } });
        assert_eq!(tree, expected.into());
    }
}
