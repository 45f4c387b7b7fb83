//! Notices through the API.

use gantry_schema::notices;
use gantry_schema::organizations::Permission;
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, BEGINNING, Platform};

/// An endpoint of which the platform says that it disabled it.
async fn disabled_endpoint(platform: &Platform, acme: &Actor, url: &str) -> String {
    let made = acme.post("/webhook-endpoints", &json!({ "url": url })).await.expect(201);
    let id = made["id"].as_str().unwrap().to_owned();
    let facts = json!({ "endpoint_id": id, "url": url, "reason": "gone" });
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    notices::write(&mut tx, PlatformEvent::EndpointDisabled, &id, &facts).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn open(acme: &Actor) -> Vec<Value> {
    acme.get("/notices?dismissed=false").await.expect(200)["items"].as_array().unwrap().clone()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_notice_says_what_to_do_until_somebody_dismisses_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let endpoint = disabled_endpoint(&platform, &acme, "https://receiver.example/").await;

    let found = open(&acme).await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["kind"], &found[0]["subject"], &found[0]["created_at"]),
        (&json!("webhook.endpoint_disabled"), &json!(endpoint), &json!(BEGINNING))
    );
    assert_eq!(
        found[0]["message"],
        "The webhook endpoint https://receiver.example/ was disabled: it answered 410, which says that it is gone. Enable \
         it when it works again; what it missed can be recovered."
    );

    let dismiss = format!("/notices/{}/dismiss", found[0]["id"].as_str().unwrap());
    let dismissed = acme.post(&dismiss, &Value::Null).await.expect(200);
    assert!(dismissed["dismissed_by"].as_str().unwrap().starts_with("api_key:key_"), "{dismissed}");
    let other = platform.key(acme.organization, &[Permission::ManageNotices]).await;
    assert_eq!(other.post(&dismiss, &Value::Null).await.expect(200), dismissed, "it stays as it is");
    assert_eq!(open(&acme).await, Vec::<Value>::new());
    assert_eq!(acme.get("/notices?dismissed=true").await.expect(200)["items"], json!([dismissed]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_no_longer_so_needs_nobody_to_dismiss_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (enabled, removed, still) = (
        disabled_endpoint(&platform, &acme, "https://a.example/").await,
        disabled_endpoint(&platform, &acme, "https://b.example/").await,
        disabled_endpoint(&platform, &acme, "https://c.example/").await,
    );
    acme.patch(&format!("/webhook-endpoints/{enabled}"), &json!({ "enabled": true })).await.expect(200);
    acme.delete(&format!("/webhook-endpoints/{removed}")).await;
    let left: Vec<Value> = open(&acme).await.into_iter().map(|notice| notice["subject"].clone()).collect();
    assert_eq!(left, [json!(still)]);
    let settled = acme.get("/notices?dismissed=true").await.expect(200);
    assert!(
        settled["items"].as_array().unwrap().iter().all(|notice| notice.get("dismissed_by").is_none()),
        "{settled}"
    );
}
