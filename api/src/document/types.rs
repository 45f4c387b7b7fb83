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
