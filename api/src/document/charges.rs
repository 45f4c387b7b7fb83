//! What an operation counts as, for programs: `x-rate-limit`.

use poem::http::Method;
use serde_json::json;

use super::tree::Tree;
use crate::rate::Charge;

/// Says it of an operation that somebody asks for who is known.
pub(super) fn show(method: &str, operation: &mut Tree) {
    let id = operation.get("operationId").and_then(Tree::as_str);
    let (Some(id), Ok(method)) = (id, method.to_uppercase().parse::<Method>()) else { return };
    if operation.get("security").is_none() {
        return;
    }
    let Charge { class, cost, .. } = Charge::of(id, &method);
    operation.set("x-rate-limit", json!({ "class": class.as_str(), "cost": cost }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operation_counts_as_is_said_of_it() {
        let mut operation = Tree::from(json!({ "operationId": "askForJobs", "security": [{ "ApiKey": [] }] }));
        show("post", &mut operation);
        assert_eq!(operation.get("x-rate-limit"), Some(&Tree::from(json!({ "class": "write", "cost": 10 }))));
        let mut open = Tree::from(json!({ "operationId": "getLiveness" }));
        show("get", &mut open);
        assert_eq!(open.get("x-rate-limit"), None);
    }
}
