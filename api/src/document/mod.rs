//! The OpenAPI document: what poem-openapi derives from the operations and their types, completed with what those types
//! say and poem-openapi has no place for.

mod permissions;
mod tree;
mod types;

use tree::Tree;

/// The whole document, pretty JSON.
pub(crate) fn complete(derived: &str) -> String {
    let mut document: Tree = serde_json::from_str(derived).expect("poem-openapi writes JSON");
    for operation in operations(&mut document) {
        permissions::show(operation);
    }
    types::tell(&mut document);
    serde_json::to_string_pretty(&document).expect("a tree is JSON")
}

/// Every operation.
fn operations(document: &mut Tree) -> impl Iterator<Item = &mut Tree> {
    let paths = document.get_mut("paths").into_iter().flat_map(Tree::children_mut);
    paths.flat_map(|(_, path)| path.children_mut()).map(|(_, operation)| operation)
}
