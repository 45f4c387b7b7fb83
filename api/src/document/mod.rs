//! The OpenAPI document: what poem-openapi derives from the operations and their types, completed with what those types
//! say and poem-openapi has no place for. Nothing of an operation is written down here.

mod charges;
mod events;
mod examples;
mod permissions;
mod refusals;
mod tidy;
mod tree;
mod types;

use refusals::Refusals;
use tree::Tree;

/// The whole document, pretty JSON.
pub(crate) fn complete(derived: &str) -> String {
    let mut document: Tree = serde_json::from_str(derived).expect("poem-openapi writes JSON");
    tidy::tidy(&mut document);
    types::tell(&mut document);
    let mut components = document.remove("components").unwrap_or_else(Tree::empty);
    let mut schemas = components.remove("schemas").unwrap_or_else(Tree::empty);
    examples::arrange(&mut schemas);
    let mut refusals = Refusals::default();
    for (method, operation) in operations(&mut document) {
        charges::show(method, operation);
        permissions::show(operation);
        refusals.show(method, operation, &schemas);
        describe_answers(operation, &schemas);
        examples::show(operation, &schemas);
        events::show(operation, &mut schemas);
    }
    refusals.finish(&mut components);
    components.set("schemas", schemas);
    document.set("components", components);
    serde_json::to_string_pretty(&document).expect("a tree is JSON")
}

/// Every operation, with its method.
fn operations(document: &mut Tree) -> impl Iterator<Item = (&String, &mut Tree)> {
    let paths = document.get_mut("paths").into_iter().flat_map(Tree::children_mut);
    paths.flat_map(|(_, path)| path.children_mut())
}

/// An answer that is just a thing says what that thing is.
fn describe_answers(operation: &mut Tree, schemas: &Tree) {
    for (_, answer) in operation.get_mut("responses").into_iter().flat_map(Tree::children_mut) {
        if answer.get("description").and_then(Tree::as_str) == Some("") {
            let schema = json_schema(answer).map(|schema| schema.get("items").unwrap_or(schema));
            let description = schema.and_then(|schema| resolve(schema, schemas).get("description")).cloned();
            if let Some(description) = description {
                answer.set("description", description);
            }
        }
    }
}

/// The schema of what is carried, where it is JSON.
fn json_schema(carrier: &Tree) -> Option<&Tree> {
    carrier.get("content")?.get("application/json")?.get("schema")
}

/// What a schema refers to, or itself.
fn resolve<'a>(schema: &'a Tree, schemas: &'a Tree) -> &'a Tree {
    let name = schema.get("$ref").and_then(Tree::as_str).and_then(|reference| reference.rsplit('/').next());
    name.and_then(|name| schemas.get(name)).unwrap_or(schema)
}
