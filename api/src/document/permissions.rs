//! Which permission an operation needs, as its caller's type says: in words, and for programs in `x-permissions`.

use serde_json::Value;

use super::tree::Tree;

/// Says it. Scopes in a requirement are for OAuth only, says OpenAPI 3.0: those of other schemes move to `x-permissions`.
pub(super) fn show(operation: &mut Tree) {
    let mut permissions: Vec<Tree> = Vec::new();
    let requirements = operation.get_mut("security").map(Tree::items_mut).unwrap_or_default();
    for (_, scopes) in requirements.iter_mut().flat_map(Tree::children_mut) {
        if let Tree::List(scopes) = scopes {
            let new: Vec<Tree> = scopes.drain(..).filter(|scope| !permissions.contains(scope)).collect();
            permissions.extend(new);
        }
    }
    let words: Vec<String> =
        permissions.iter().filter_map(Tree::as_str).map(|permission| format!("`{permission}`")).collect();
    if words.is_empty() {
        return;
    }
    let description = operation.get("description").and_then(Tree::as_str).unwrap_or_default();
    let described = format!("{description}\n\nNeeds the permission {}.", words.join(" and "));
    operation.set("description", Value::String(described));
    operation.set("x-permissions", Tree::List(permissions));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_permission_is_said_in_words_and_for_programs() {
        let mut operation = Tree::from(json!({ "description": "All.", "security": [{ "ApiKey": ["jobs:read"] }] }));
        show(&mut operation);
        let expected = json!({ "description": "All.\n\nNeeds the permission `jobs:read`.",
            "security": [{ "ApiKey": [] }], "x-permissions": ["jobs:read"] });
        assert_eq!(operation, expected.into());

        let open = Tree::from(json!({ "description": "Open." }));
        let mut same = open.clone();
        show(&mut same);
        assert_eq!(same, open);
    }
}
