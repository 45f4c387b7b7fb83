//! Registering applications.

use gantry_schema::organizations::Permission;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Application, refused, scene};
use crate::support::Platform;

fn new(with: &Value) -> Value {
    let mut body =
        json!({ "name": "Books", "redirect_uris": ["https://books.example/callback"], "scopes": ["openid"] });
    for (name, value) in with.as_object().unwrap() {
        body[name.as_str()] = value.clone();
    }
    body
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_application_that_could_not_work_or_would_leak_is_not_registered(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (with, field) in [
        (json!({ "redirect_uris": [] }), "redirect_uris"),
        (json!({ "redirect_uris": ["http://books.example/"] }), "redirect_uris[0]"),
        (json!({ "redirect_uris": ["https://books.example/", "https://books.example/#x"] }), "redirect_uris[1]"),
        (json!({ "redirect_uris": ["https://books.example/", "https://books.example/"] }), "redirect_uris[1]"),
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), "redirect_uris[0]"),
        (json!({ "redirect_uris": ["com.example.app:/callback"] }), "redirect_uris[0]"),
        (json!({ "confidential": false, "flows": ["client_credentials"] }), "flows"),
        (json!({ "scopes": ["everything"] }), "scopes[0]"),
        (json!({ "scopes": ["openid", "platform:operate"] }), "scopes[1]"),
        (json!({ "homepage": "http://books.example/" }), "homepage"),
        (json!({ "homepage": "javascript:alert(1)" }), "homepage"),
        (json!({ "description": "\u{0007}" }), "description"),
    ] {
        acme.post("/oauth-clients", &new(&with)).await.problem(422, "invalid_field", Some(field));
    }
    assert_eq!(platform.count("oauth_clients").await, 0);
    let native = json!({ "confidential": false, "redirect_uris": ["com.example.app:/callback", "http://127.0.0.1/x"] });
    let made = acme.post("/oauth-clients", &new(&native)).await.expect(201);
    assert!(made.get("client_secret").is_none(), "{made}");
    let path = format!("/oauth-clients/{}/secret/rotate", made["client"]["id"].as_str().unwrap());
    acme.post(&path, &json!({})).await.problem(409, "wrong_state", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_registers_an_application_that_may_more_than_he(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let few = [Permission::ManageOauthClients, Permission::ReadJobs];
    let clerk = platform.key(acme.organization, &few).await;
    let with = json!({ "scopes": ["openid", "jobs:read", "api_keys:write"] });
    clerk.post("/oauth-clients", &new(&with)).await.problem(403, "forbidden", Some("scopes[2]"));
    // What somebody else gave it, he may leave there.
    let made = acme.post("/oauth-clients", &new(&with)).await.expect(201);
    let path = format!("/oauth-clients/{}", made["client"]["id"].as_str().unwrap());
    let change = json!({ "scopes": ["openid", "api_keys:write"] });
    clerk.patch(&path, &change).await.expect(200);
    let change = json!({ "scopes": ["schedules:read"] });
    clerk.patch(&path, &change).await.problem(403, "forbidden", Some("scopes[0]"));
    // A change that makes it leak changes nothing.
    let change = json!({ "redirect_uris": ["http://books.example/"] });
    acme.patch(&path, &change).await.problem(422, "invalid_field", Some("redirect_uris[0]"));
    let kept = acme.get(&path).await.expect(200);
    assert_eq!(kept["redirect_uris"], json!(["https://books.example/callback"]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_secret_is_shown_once_and_replaced_with_an_overlap(pool: PgPool) {
    let scene = scene(pool).await;
    let with = json!({ "flows": ["client_credentials"], "redirect_uris": [], "scopes": ["jobs:read"] });
    let robot = Application::registered(&scene.acme, &with).await;
    let path = format!("/oauth-clients/{}", robot.id);
    let ask = [("grant_type", "client_credentials")];
    let shown = [scene.acme.get(&path).await.text, scene.acme.get(&format!("{path}/secrets")).await.text];
    assert!(shown.iter().all(|text| !text.contains(robot.secret.as_deref().unwrap())));

    let rotate = format!("{path}/secret/rotate");
    let rotated = scene.acme.post(&rotate, &json!({ "overlap_seconds": 3600 })).await.expect(200);
    assert_eq!(rotated["secrets"].as_array().unwrap().len(), 2);
    let next = Application { id: robot.id.clone(), secret: rotated["client_secret"].as_str().map(str::to_owned) };
    scene.ask_as(&robot, "/oauth/token", &ask).await.expect(200);
    scene.ask_as(&next, "/oauth/token", &ask).await.expect(200);
    scene.platform.clock.advance(chrono::TimeDelta::hours(1));
    refused(scene.ask_as(&robot, "/oauth/token", &ask).await, 401, "invalid_client");
    scene.ask_as(&next, "/oauth/token", &ask).await.expect(200);
    // Whoever has it may have stolen it: at once.
    scene.acme.post(&rotate, &json!({ "overlap_seconds": 0 })).await.expect(200);
    refused(scene.ask_as(&next, "/oauth/token", &ask).await, 401, "invalid_client");
    for _ in 0..5 {
        scene.acme.post(&rotate, &json!({})).await.expect(200);
    }
    scene.acme.post(&rotate, &json!({})).await.problem(409, "too_many", Some("overlap_seconds"));
}
