//! Webhook endpoints and events through the API.

use gantry_schema::SecretId;
use gantry_schema::seal::{SealingKey, SealingKeys};
use gantry_schema::webhooks::secrets::Secret;
use gantry_schema::webhooks::signature::SigningSecret;
use poem::http::Method;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{BEGINNING, Platform};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_signing_secret_is_shown_once_and_lies_sealed_in_its_row(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let body = json!({ "url": "https://Receiver.example/hooks", "event_types": ["webhook.*"], "description": "Ours" });
    let made = acme.post("/webhook-endpoints", &body).await.expect(201);
    let secret = SigningSecret::parse(made["secret"].as_str().unwrap()).unwrap();
    assert_eq!(
        made["endpoint"],
        json!({ "id": made["id"], "url": "https://receiver.example/hooks", "description": "Ours",
                "event_types": ["webhook.*"], "channels": [], "metadata": {}, "header_names": [], "ordered": false,
                "thin": false, "enabled": true, "created_at": BEGINNING, "updated_at": BEGINNING })
    );

    let (row, sealed): (SecretId, Vec<u8>) =
        sqlx::query_as("select id, secret from webhook_secrets").fetch_one(&platform.pool).await.unwrap();
    let key = SealingKey::from_base64("test", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let opened = SealingKeys::new(key, Vec::new()).unwrap().open(&Secret::place(acme.organization, row), &sealed);
    assert_eq!(opened.unwrap().expose_secret(), secret.bytes());

    let id = made["id"].as_str().unwrap();
    for path in ["/webhook-endpoints".to_owned(), format!("/webhook-endpoints/{id}")] {
        let answer = acme.get(&path).await;
        assert!(!answer.text.contains("secret") && !answer.text.contains("whsec_"), "{}", answer.text);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_wrong_endpoint_is_refused_by_field(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let cases = [
        ("url", json!("http://receiver.example/")),
        ("url", json!("receiver.example")),
        ("url", json!("https://me:secret@receiver.example/")),
        ("url", json!(format!("https://receiver.example/{}", "a".repeat(2048)))),
        ("url", json!(7)),
        ("description", json!("a".repeat(1001))),
        ("description", json!("\u{0}")),
        ("event_types[1]", json!(["invoice.paid", "Invoice Paid"])),
        ("event_types", json!(vec!["a"; 101])),
        ("enabled", json!("yes")),
    ];
    let made = acme.post("/webhook-endpoints", &json!({ "url": "https://receiver.example/" })).await.expect(201);
    for (field, value) in cases {
        let mut body = json!({ "url": "https://receiver.example/" });
        body[field.split('[').next().unwrap()] = value;
        acme.post("/webhook-endpoints", &body).await.problem(422, "invalid_field", Some(field));
        let path = format!("/webhook-endpoints/{}", made["id"].as_str().unwrap());
        acme.patch(&path, &body).await.problem(422, "invalid_field", Some(field));
    }
    assert_eq!(platform.count("webhook_endpoints").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_event_is_written_down_with_a_delivery_for_whoever_wants_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let endpoint = async |types: Value, enabled: bool| {
        let body = json!({ "url": "https://receiver.example/", "event_types": types, "enabled": enabled });
        acme.post("/webhook-endpoints", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
    };
    let wants = endpoint(json!(["invoice.*"]), true).await;
    endpoint(json!([]), true).await;
    endpoint(json!(["invoice.paid"]), false).await;
    endpoint(json!(["invoice"]), true).await;
    let other = platform.organization("other").await;
    other.post("/webhook-endpoints", &json!({ "url": "https://other.example/" })).await.expect(201);

    let payload = json!({ "amount": 12.5, "text": "ü" });
    let answer = acme.post("/events", &json!({ "type": "invoice.paid", "payload": payload })).await;
    let location = answer.header("location").to_owned();
    let posted = answer.expect(202);
    assert_eq!(posted["deliveries"], 2);
    let event = acme.get(&location).await.expect(200);
    assert_eq!(
        event,
        json!({ "id": posted["id"], "type": "invoice.paid", "payload": payload, "channels": [], "created_at": BEGINNING })
    );

    let jobs = acme.get("/jobs?kind=webhooks.deliver").await.expect(200);
    assert_eq!(jobs["items"].as_array().unwrap().len(), 2);
    let oldest = acme.get(&format!("/jobs/{}", jobs["items"][1]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(oldest["payload"], json!({ "event": posted["id"], "endpoint": wants }));
    assert_eq!(other.get("/events").await.expect(200), json!({ "items": [] }));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_wrong_event_is_refused_by_field_and_not_stored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post("/webhook-endpoints", &json!({ "url": "https://receiver.example/" })).await.expect(201);
    for (body, status, code, field) in [
        (json!({ "payload": {} }), 422, "invalid_field", "type"),
        (json!({ "type": "", "payload": {} }), 422, "invalid_field", "type"),
        (json!({ "type": "Invoice Paid", "payload": {} }), 422, "invalid_field", "type"),
        (json!({ "type": "invoice.paid" }), 422, "invalid_field", "payload"),
        (json!({ "type": "invoice.paid", "payload": "\u{0}" }), 422, "invalid_field", "payload"),
        (json!({ "type": "invoice.paid", "payload": "a".repeat(256 * 1024) }), 413, "payload_too_large", "payload"),
    ] {
        acme.post("/events", &body).await.problem(status, code, Some(field));
    }
    assert_eq!((platform.count("events").await, platform.count("jobs").await), (0, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_endpoint_is_changed_in_part_and_removed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme
        .post("/webhook-endpoints", &json!({ "url": "https://receiver.example/", "event_types": ["webhook.ping"] }))
        .await
        .expect(201);
    let path = format!("/webhook-endpoints/{}", made["id"].as_str().unwrap());
    let changed = acme.patch(&path, &json!({ "enabled": false, "event_types": [] })).await.expect(200);
    let mut expected = made["endpoint"].clone();
    (expected["enabled"], expected["event_types"]) = (json!(false), json!([]));
    assert_eq!(changed, expected);
    assert_eq!(acme.get(&format!("{path}/attempts")).await.expect(200), json!({ "items": [] }));
    acme.delete(&path).await.expect(204);
    acme.get(&path).await.problem(404, "not_found", None);
    acme.patch(&path, &json!({})).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn types_that_nobody_has_heard_of_are_warned_of(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let described = json!({ "description": "d", "schema": {}, "example": {} });
    acme.put("/event-types/order.sent/versions/1", &described).await.expect(201);
    other.put("/event-types/parcel.sent/versions/1", &described).await.expect(201);
    acme.post("/events", &json!({ "type": "refund.made", "payload": {} })).await.expect(202);
    let warned = |answer: &Value| -> Vec<String> {
        let warnings = answer["warnings"].as_array().into_iter().flatten();
        let named = warnings.map(|warning| warning.as_str().unwrap().split_once("heard of ").unwrap().1);
        named.map(|rest| rest.split_once(';').unwrap().0.to_owned()).collect()
    };
    let types = json!([
        "webhook.ping",
        "webhook.*",
        "webhook.pong",
        "order.sent",
        "order.*",
        "order.*",
        "parcel.*",
        "refund.made",
        "refund.*",
        "invoice.pai"
    ]);
    let made =
        acme.post("/webhook-endpoints", &json!({ "url": "https://receiver.example/", "event_types": types })).await;
    let (etag, made) = (made.header("ETag").to_owned(), made.expect(201));
    assert_eq!(warned(&made["endpoint"]), ["webhook.pong", "parcel.*", "invoice.pai"]);
    let path = format!("/webhook-endpoints/{}", made["id"].as_str().unwrap());
    let seen = acme.get(&path).await;
    assert_eq!(seen.header("ETag"), etag, "a warning is nothing of the endpoint");
    assert!(seen.expect(200)["warnings"].is_null());
    let changed = acme.with(&[("If-Match", &etag)], Method::PATCH, &path, Some(&json!({ "event_types": ["a"] }))).await;
    assert_eq!(changed.header("ETag"), acme.get(&path).await.header("ETag"));
    assert_eq!(warned(&changed.expect(200)), ["a"]);
    // What could never be a type is refused.
    let never = json!({ "event_types": ["invoice.pai*"] });
    acme.patch(&path, &never).await.problem(422, "invalid_field", Some("event_types[0]"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_the_platform_does_is_told_as_its_catalogue_says(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post("/organizations", &json!({ "name": "branch" })).await.expect(201);
    let key = json!({ "name": "a key", "scopes": ["events:read"] });
    let made = acme.post("/api-keys", &key).await.expect(201);
    let path = format!("/api-keys/{}", made["api_key"]["id"].as_str().unwrap());
    acme.delete(&path).await.expect(204);
    acme.delete(&path).await.expect(204);

    let told = acme.get("/events").await.expect(200);
    let told = told["items"].as_array().unwrap();
    let types: Vec<&str> = told.iter().rev().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["organization.created", "api_key.created", "api_key.revoked"]);
    for event in told {
        let described = acme.get(&format!("/event-types/{}", event["type"].as_str().unwrap())).await.expect(200);
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&event["payload"]), names(&described["example"]), "{event}");
    }
}
