//! A walk over every operation: without a key, with a key that allows nothing, and with the ids of somebody else.

use std::collections::HashMap;

use gantry_schema::api_keys;
use poem::http::Method;
use poem::{Body, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::document::{document, operations};
use crate::support::{Actor, Platform, send};

/// A body each operation accepts.
fn body(operation: &str) -> Option<Value> {
    Some(match operation {
        "createOrganization" => json!({ "name": "New" }),
        "createApiKey" => json!({ "name": "new", "scopes": ["jobs:read"] }),
        "askForJob" => json!({ "kind": "diagnostics.probe" }),
        "askForJobs" => json!({ "jobs": [{ "kind": "diagnostics.probe" }] }),
        "retryJobs" | "discardJobs" => json!({ "kind": "diagnostics.probe" }),
        "setOrganizationRateLimits" => json!({ "tier": "professional" }),
        "setRateTier" => json!({ "read_per_minute": 1, "write_per_minute": 1, "deploy_per_minute": 1 }),
        "setRateRule" => json!({ "per_minute": 1 }),
        "limitQueue" => json!({ "max_running": 1 }),
        "setRate" => json!({ "amount": 1, "period_seconds": 1 }),
        "createSchedule" | "replaceSchedule" => json!({ "name": "new", "kind": "diagnostics.probe", "cron": "@daily" }),
        "previewSchedule" => json!({ "cron": "@daily" }),
        "createWebhookEndpoint" => json!({ "url": "https://new.example/" }),
        "updateWebhookEndpoint" => json!({ "enabled": false }),
        "rotateWebhookSecret" | "testWebhookEndpoint" => json!({}),
        "resendWebhook" => json!({ "event_id": "evt_01h455vb4pex5vsknk084sn02q" }),
        "recoverWebhooks" => json!({ "since": "2026-01-15T11:00:00Z" }),
        "replayWebhooks" => json!({ "from": "2026-01-15T11:00:00Z" }),
        "postEvent" => json!({ "type": "new", "payload": {} }),
        "postEvents" => json!({ "events": [{ "type": "new", "payload": {} }] }),
        "createInspectorBin" | "updateInspectorBin" => json!({ "name": "a bin" }),
        "putEventType" => json!({ "description": "", "schema": {}, "example": {} }),
        _ => return None,
    })
}

/// Something of everything, as the names of path parameters have it.
async fn belongings(platform: &Platform, acme: &Actor) -> HashMap<&'static str, String> {
    let id = |answer: Value| answer["id"].as_str().unwrap().to_owned();
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    let keys = api_keys::list(&mut tx, None, 1).await.unwrap();
    HashMap::from([
        ("organization", acme.organization.to_string()),
        ("api_key", keys[0].id.to_string()),
        ("job", acme.probe(None).await),
        ("schedule", id(acme.post("/schedules", &body("createSchedule").unwrap()).await.expect(201))),
        ("endpoint", id(acme.post("/webhook-endpoints", &body("createWebhookEndpoint").unwrap()).await.expect(201))),
        ("event", id(acme.post("/events", &body("postEvent").unwrap()).await.expect(202))),
        ("queue", "default".to_owned()),
        ("kind", "diagnostics.probe".to_owned()),
        ("rate", "namecheap".to_owned()),
        ("tier", "gold".to_owned()),
        ("rule", "anonymous".to_owned()),
        ("bin", id(acme.post("/inspector/bins", &body("createInspectorBin").unwrap()).await.expect(201))),
        ("name", "own.type".to_owned()),
        ("version", "1".to_owned()),
    ])
}

fn fill(path: &str, values: &HashMap<&str, String>) -> String {
    let segment = |segment: &str| match segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) {
        Some(name) => values.get(name).unwrap_or_else(|| panic!("no {name} to try {path} with")).clone(),
        None => segment.to_owned(),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn no_operation_lets_anybody_in_who_may_not(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let powerless = platform.key(acme.organization, &[]).await;
    let values = belongings(&platform, &acme).await;
    let before = tables(&platform).await;

    let document = document();
    let (mut refused, mut foreign) = (0, 0);
    for (path, method, operation) in operations(&document) {
        if operation.get("security").is_none() {
            continue;
        }
        let id = operation["operationId"].as_str().unwrap();
        assert_eq!(operation.get("requestBody").is_some(), body(id).is_some(), "a body to try {id} with");
        let (method, filled) = (method.to_uppercase().parse::<Method>().unwrap(), fill(path, &values));
        let payload = || body(id).map(|body| Body::from_string(body.to_string()));

        let request = Request::builder().method(method.clone()).uri_str(&filled).finish();
        send(&platform.app, request).await.problem(401, "unauthenticated", Some("Authorization"));
        powerless.send(method.clone(), &filled, payload()).await.problem(403, "forbidden", None);
        refused += 1;

        if ["{organization}", "{api_key}", "{job}", "{schedule}", "{endpoint}", "{event}", "{bin}"]
            .iter()
            .any(|name| path.contains(name))
        {
            let of_operator =
                operation["x-permissions"].as_array().unwrap().iter().any(|one| one == "platform:operate");
            let (status, code) = if of_operator { (403, "forbidden") } else { (404, "not_found") };
            other.send(method, &filled, payload()).await.problem(status, code, None);
            foreign += 1;
        }
    }
    assert!(refused > 40 && foreign > 15, "{refused} operations refused, {foreign} with somebody else's ids");
    assert_eq!(tables(&platform).await, before, "a refused request changed something");
}

/// How many rows there are of everything a request could make.
async fn tables(platform: &Platform) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in [
        "organizations",
        "api_keys where revoked_at is null",
        "jobs where state = 'available'",
        "job_dispatch",
        "job_pauses",
        "job_limits",
        "organization_limits",
        "rate_tiers",
        "rate_rules where number = 1",
        "schedules where not paused",
        "webhook_endpoints where enabled",
        "events",
        "event_types",
        "inspector_bins",
    ] {
        counts.push(platform.count(table).await);
    }
    counts
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn lists_show_nothing_of_anybody_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    belongings(&platform, &acme).await;
    for path in ["/jobs", "/schedules", "/webhook-endpoints", "/events"] {
        assert_eq!(other.get(path).await.expect(200), json!({ "items": [] }), "{path}");
        assert_ne!(acme.get(path).await.expect(200), json!({ "items": [] }), "{path}");
    }
    assert_eq!(other.get("/api-keys").await.expect(200)["items"].as_array().unwrap().len(), 1);
    assert_eq!(other.get("/organizations").await.expect(200)["items"].as_array().unwrap().len(), 1);
    let after = json!({ "kind": "diagnostics.probe", "after": [{ "job": acme.probe(None).await }] });
    other.post("/jobs", &after).await.problem(422, "unknown_predecessor", Some("after"));
    assert_eq!(other.post("/jobs/discard", &json!({ "kind": "diagnostics.probe" })).await.expect(200)["count"], 0);
}
