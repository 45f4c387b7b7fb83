//! The platform's event types, as what an endpoint that is registered will be sent: callbacks, for OpenAPI 3.0 has no
//! webhooks. Each has its schema among the others, so that generated clients have a type to read a delivery with.

use gantry_schema::webhooks::event_types::{self, EventType};
use indexmap::IndexMap;
use serde_json::{Value, json};

use super::tree::Tree;

/// Where the body of the request says deliveries go.
const RECEIVER: &str = "{$request.body#/url}";

/// The operation that registers a receiver.
const REGISTERS: &str = "createWebhookEndpoint";

/// Says at that operation what will be sent, and puts the schemas to the others.
pub(super) fn show(operation: &mut Tree, schemas: &mut Tree) {
    if operation.get("operationId").and_then(Tree::as_str) != Some(REGISTERS) {
        return;
    }
    let mut callbacks = IndexMap::new();
    for described in event_types::platform() {
        let name = type_name(&described.name);
        schemas.set(&name, schema(&described));
        let post = IndexMap::from([("post".to_owned(), delivery(&described, &name))]);
        let receiver = IndexMap::from([(RECEIVER.to_owned(), Tree::Object(post))]);
        callbacks.insert(described.name, Tree::Object(receiver));
    }
    operation.set("callbacks", Tree::Object(callbacks));
}

/// `webhook.endpoint_failing` becomes `WebhookEndpointFailingEvent`.
fn type_name(event: &str) -> String {
    let mut name = String::new();
    for word in event.split(['.', '_']) {
        let mut characters = word.chars();
        name.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(characters);
    }
    name + "Event"
}

/// What is posted: the same around the facts of every type.
fn schema(described: &EventType) -> Tree {
    let mut facts = described.schema.clone();
    if let Some(members) = facts.as_object_mut() {
        // OpenAPI 3.0 knows one dialect only.
        members.remove("$schema");
        members.insert("description".to_owned(), "The facts.".into());
    }
    let moment = json!({ "type": "string", "format": "date-time", "description": "When it happened." });
    let properties = [
        ("type", json!({ "type": "string", "enum": [described.name], "description": "What kind of thing happened." })),
        ("timestamp", moment),
        ("data", facts),
    ];
    let properties = properties.map(|(name, schema)| (name.to_owned(), Tree::from(schema)));
    let mut schema = Tree::from(json!({ "type": "object" }));
    schema.set("description", Value::from(described.description.as_str()));
    schema.set("required", json!(["type", "timestamp", "data"]));
    schema.set("properties", Tree::Object(properties.into()));
    schema.set("example", example(described));
    schema
}

fn example(described: &EventType) -> Tree {
    let mut example = Tree::from(json!({ "type": described.name }));
    example.set("timestamp", json!("2026-01-15T12:00:00Z"));
    example.set("data", described.example.clone());
    example
}

fn delivery(described: &EventType, type_name: &str) -> Tree {
    let header = |name: &str, kind: &str, required: bool, description: &str, example: Value| {
        let mut parameter = Tree::from(json!({ "name": name }));
        parameter.set("in", json!("header"));
        parameter.set("description", json!(description));
        parameter.set("required", json!(required));
        parameter.set("schema", json!({ "type": kind, "example": example }));
        parameter
    };
    let parameters = vec![
        header(
            "webhook-id",
            "string",
            true,
            "The event's id: the same in every try, so that a receiver knows what it has.",
            json!("evt_01h455vb4pex5vsknk084sn02q"),
        ),
        header(
            "webhook-timestamp",
            "integer",
            true,
            "When this try was sent, in seconds since 1970. Refuse what is older than five minutes.",
            json!(1_768_478_400),
        ),
        header(
            "webhook-signature",
            "string",
            true,
            "Signatures of `{webhook-id}.{webhook-timestamp}.{body}` with spaces between them, one for each secret that \
             signs: `v1,` and HMAC-SHA256, or `v1a,` and Ed25519, in base64. One that verifies is enough.",
            json!("v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
        ),
        header(
            "webhook-sequence",
            "integer",
            false,
            "The delivery's number, without a gap: where the endpoint is `ordered`.",
            json!(42),
        ),
    ];
    let reference = json!({ "$ref": format!("#/components/schemas/{type_name}") });
    let mut content = Tree::from(json!({ "schema": reference }));
    content.set("example", example(described));
    let mut body = Tree::from(json!({ "required": true }));
    body.set("content", Tree::Object(IndexMap::from([("application/json".to_owned(), content)])));
    let mut operation = Tree::from(json!({ "tags": ["Events"] }));
    operation.set("summary", json!(described.name));
    let description = format!(
        "{} Version {}.\n\nWhere the endpoint is `thin`, `data` is `event_id` and the `url` to get the event from.",
        described.description, described.version
    );
    operation.set("description", json!(description));
    operation.set("operationId", json!(format!("on{type_name}")));
    operation.set("parameters", Tree::List(parameters));
    operation.set("requestBody", body);
    let answers = [
        ("2XX", "It was taken."),
        ("410", "Nobody is there any more: the endpoint is disabled."),
        ("default", "It was not taken, and is tried again, after `Retry-After` where the answer has it."),
    ];
    let answers =
        answers.map(|(status, description)| (status.to_owned(), json!({ "description": description }).into()));
    operation.set("responses", Tree::Object(answers.into()));
    if described.deprecated {
        operation.set("deprecated", json!(true));
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_platforms_is_sent_to_who_registers() {
        let (mut operation, mut schemas) = (Tree::from(json!({ "operationId": REGISTERS })), Tree::empty());
        show(&mut operation, &mut schemas);
        let shown: Vec<&String> = operation.get("callbacks").unwrap().children().map(|(name, _)| name).collect();
        let types: Vec<String> = event_types::platform().into_iter().map(|described| described.name).collect();
        assert_eq!(shown, types.iter().collect::<Vec<_>>());
        let failing = schemas.get("WebhookEndpointFailingEvent").unwrap();
        let facts = failing.get("properties").and_then(|properties| properties.get("data")).unwrap();
        assert!(facts.get("properties").is_some() && facts.get("$schema").is_none());

        let mut other = Tree::from(json!({ "operationId": "getJob" }));
        show(&mut other, &mut schemas);
        assert!(other.get("callbacks").is_none());
    }
}
