//! The OpenAPI document, and the page that shows it.

use gantry_api::error::Code;
use gantry_schema::organizations::Permission;
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::Value;
use sqlx::PgPool;

use crate::schema::{faults, resolve};
use crate::support::{Platform, send};
use crate::walk::OF_STRANGERS;

pub fn document() -> Value {
    serde_json::from_str(gantry_api::openapi()).unwrap()
}

/// Path, method and operation of everything the API does.
pub fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

#[test]
fn the_committed_document_is_the_one_the_code_makes() {
    let committed = include_str!("../../openapi.json");
    assert!(committed.trim_end() == gantry_api::openapi(), "run: scripts/openapi");
}

#[test]
fn the_guide_to_errors_has_every_code() {
    let guide = include_str!("../../../docs/errors.md");
    assert!(guide.contains(&gantry_api::error::table()), "run: scripts/openapi");
}

/// Whether an operation takes a parameter of this name.
fn takes(operation: &Value, name: &str) -> bool {
    operation["parameters"].as_array().into_iter().flatten().any(|parameter| parameter["name"] == name)
}

#[test]
fn headers_are_described_and_a_job_that_is_asked_for_can_be_waited_for() {
    let (document, mut jobs) = (document(), 0);
    for (path, method, operation) in operations(&document) {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let headers = &resolve(&document, answer)["headers"];
            for (name, header) in headers.as_object().into_iter().flatten() {
                assert!(header["description"].is_string(), "{method} {path}: {status} has a header {name}");
            }
            if status == "202" && headers["LOCATION"]["description"] == "The job." {
                assert!(takes(operation, "Prefer"), "{method} {path}");
                jobs += 1;
            }
        }
    }
    assert!(jobs > 5, "{jobs} operations ask for a job");
}

/// Only he himself changes it, one member at a time.
const OF_ONESELF: &str = "/me";

#[test]
fn what_can_be_seen_and_changed_is_changed_on_condition() {
    let (document, mut changes) = (document(), 0);
    let operations = operations(&document);
    for (path, _, seen) in operations.iter().filter(|(_, method, seen)| *method == "get" && !takes(seen, "limit")) {
        let tagged = seen["responses"]["200"]["headers"]["ETag"].is_object();
        for (_, method, change) in operations.iter().filter(|(of, ..)| of == path && *of != OF_ONESELF) {
            // What is closed or left is not changed.
            if ["put", "patch"].contains(method) || *method == "delete" && tagged {
                assert!(tagged, "get {path} has no ETag");
                assert!(takes(change, "If-Match"), "{method} {path} takes no If-Match");
                changes += 1;
            }
        }
    }
    assert!(changes > 15, "{changes} changes");
}

#[test]
fn every_operation_is_described() {
    let document = document();
    let mut ids = Vec::new();
    for (path, method, operation) in operations(&document) {
        for member in ["summary", "description", "operationId"] {
            assert!(operation[member].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} has no {member}");
        }
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{method} {path}: {}", parameter["name"]);
        }
        let answers = operation["responses"].as_object().unwrap();
        let refusals = answers.iter().filter(|(status, _)| matches!(status.as_bytes(), [b'4' | b'5', ..]));
        for (status, refusal) in refusals {
            let content = &resolve(&document, refusal)["content"]["application/problem+json"];
            let codes = content["examples"].as_object().into_iter().flat_map(|codes| codes.keys());
            let codes: Vec<Code> = codes.map(|code| code.parse().unwrap()).collect();
            assert!(
                !codes.is_empty() || path == "/health/ready",
                "{method} {path} does not say why it answers {status}"
            );
            assert!(codes.iter().all(|code| code.status().as_str() == status), "{method} {path}: {status}");
        }
        ids.push(operation["operationId"].as_str().unwrap());
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operationId is there twice");
}

#[test]
fn every_body_has_an_example_that_is_what_its_schema_says() {
    let document = document();
    let shown = |carrier: &Value, what: &str| {
        for (media_type, content) in resolve(&document, carrier)["content"].as_object().into_iter().flatten() {
            let named = content["examples"].as_object().into_iter().flat_map(|examples| examples.values());
            let named = named.map(|example| &resolve(&document, example)["value"]);
            let examples: Vec<&Value> = content.get("example").into_iter().chain(named).collect();
            assert!(!examples.is_empty(), "{what} has no example of {media_type}; give its type one, see example.rs");
            for example in examples {
                assert_eq!(faults(&document, &content["schema"], example), Vec::<String>::new(), "{what}: {example}");
            }
        }
    };
    for (path, method, operation) in operations(&document) {
        shown(&operation["requestBody"], &format!("what {method} {path} takes"));
        for (status, answer) in operation["responses"].as_object().unwrap() {
            shown(answer, &format!("what {method} {path} answers with {status}"));
        }
    }
}

#[test]
fn every_event_the_platform_tells_has_a_schema_and_an_example_of_it() {
    let document = document();
    let registers = &document["paths"]["/webhook-endpoints"]["post"];
    let callbacks = registers["callbacks"].as_object().unwrap();
    assert_eq!(callbacks.len(), PlatformEvent::ALL.len());
    for event in PlatformEvent::ALL {
        let delivery = &callbacks[event.name()]["{$request.body#/url}"]["post"];
        let headers: Vec<&str> =
            delivery["parameters"].as_array().unwrap().iter().map(|header| header["name"].as_str().unwrap()).collect();
        assert_eq!(headers, ["webhook-id", "webhook-timestamp", "webhook-signature", "webhook-sequence"]);
        let content = &delivery["requestBody"]["content"]["application/json"];
        assert_eq!(content["example"]["type"], event.name());
        assert_eq!(faults(&document, &content["schema"], &content["example"]), Vec::<String>::new());
    }
}

#[test]
fn no_operation_consumes_anything_but_json() {
    for (path, method, operation) in operations(&document()) {
        let types: Vec<&String> =
            operation["requestBody"]["content"].as_object().into_iter().flat_map(|content| content.keys()).collect();
        assert!(types.iter().all(|content| *content == "application/json"), "{method} {path} consumes {types:?}");
    }
}

#[test]
fn everything_but_health_and_signing_in_needs_a_caller_and_says_which_permission() {
    for (path, method, operation) in operations(&document()) {
        let id = operation["operationId"].as_str().unwrap();
        let open = path.starts_with("/health/") || OF_STRANGERS.contains(&id);
        assert_eq!(operation.get("security").is_none(), open, "{method} {path}");
        // What somebody does about himself needs no permission, and no key can do it.
        let schemes = operation["security"].as_array().into_iter().flatten().filter_map(Value::as_object);
        let by_key = schemes.flat_map(serde_json::Map::keys).any(|scheme| scheme == "ApiKey");
        let permissions: Vec<&str> =
            operation["x-permissions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(!by_key || !permissions.is_empty(), "{method} {path} says nothing of what it needs");
        assert!(!open || permissions.is_empty(), "{method} {path} needs nobody, and a permission");
        for permission in permissions {
            assert!(permission.parse::<Permission>().is_ok(), "{method} {path}: {permission}");
            let said = format!("Needs the permission `{permission}`.");
            assert!(operation["description"].as_str().unwrap().ends_with(&said), "{method} {path}");
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_document_and_its_page_are_served_and_need_nobody_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let get = async |path| send(&platform.app, poem::Request::builder().uri_str(path).finish()).await;
    assert_eq!(get("/openapi.json").await.expect(200), document());
    let page = get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("SwaggerUIBundle") && page.text.contains("askForJob"));
    assert!(!page.text.contains("<script src=") && !page.text.contains("<link "), "the page loads something");
}
