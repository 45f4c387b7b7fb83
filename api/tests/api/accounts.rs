//! API keys and organizations: who may what.

use chrono::TimeDelta;
use gantry_schema::OrganizationId;
use gantry_schema::organizations::Permission;
use poem::Request;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Platform, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_request_without_a_key_that_works_is_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let unknown = format!("Bearer gk_{}", "A".repeat(43));
    for header in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer gk_short"),
        Some("Basic dXNlcjpwdw=="),
        Some(&unknown),
    ] {
        let mut request = Request::builder().uri_str("/jobs");
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let answer = send(&platform.app, request.finish()).await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        answer.problem(401, "unauthenticated", Some("Authorization"));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_is_shown_once_and_works_until_it_is_revoked(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let mut acme = platform.organization("acme").await;
    let owner = acme.clone();
    let made = acme.post("/api-keys", &json!({ "name": "ci", "scopes": ["jobs:read", "jobs:read"] })).await.expect(201);
    assert_eq!(made["api_key"]["scopes"], json!(["jobs:read"]));
    acme.token = made["token"].as_str().unwrap().to_owned();
    acme.get("/jobs").await.expect(200);

    let list = owner.get("/api-keys").await;
    assert!(!list.text.contains(&acme.token));
    assert_eq!(list.expect(200)["items"].as_array().unwrap().len(), 2);

    let path = format!("/api-keys/{}", made["api_key"]["id"].as_str().unwrap());
    owner.delete(&path).await.expect(204);
    acme.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    owner.delete(&path).await.expect(204);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_revoked_elsewhere_stops_working_within_a_second(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.get("/jobs").await.expect(200);
    sqlx::query("update api_keys set revoked_at = now()").execute(&platform.pool).await.unwrap();
    acme.get("/jobs").await.expect(200);
    platform.clock.advance(TimeDelta::seconds(1));
    acme.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_expires_on_time_also_when_it_was_just_used(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let mut acme = platform.organization("acme").await;
    let expiring = |at: &str| json!({ "name": "short", "scopes": ["jobs:read"], "expires_at": at });
    acme.post("/api-keys", &expiring("2026-01-15T12:00:00Z")).await.problem(422, "invalid_field", Some("expires_at"));
    let made = acme.post("/api-keys", &expiring("2026-01-15T12:00:00.5Z")).await.expect(201);
    acme.token = made["token"].as_str().unwrap().to_owned();
    acme.get("/jobs").await.expect(200);
    platform.clock.advance(TimeDelta::milliseconds(500));
    acme.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_passes_on_what_he_does_not_have(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let keys_only = platform.key(acme.organization, &[Permission::ManageApiKeys]).await;
    let wanting = |scopes: &[&str]| json!({ "name": "more", "scopes": scopes });
    keys_only.post("/api-keys", &wanting(&["api_keys:write", "jobs:read"])).await.problem(
        403,
        "forbidden",
        Some("scopes[1]"),
    );
    acme.post("/api-keys", &wanting(&["platform:operate"])).await.problem(403, "forbidden", Some("scopes[0]"));
    acme.post("/api-keys", &wanting(&["everything"])).await.problem(422, "invalid_field", Some("scopes[0]"));
    acme.post("/api-keys", &wanting(&[])).await.problem(422, "invalid_field", Some("scopes"));

    let operator = platform.operator().await;
    let mut body = wanting(&["platform:operate"]);
    operator.post("/api-keys", &body).await.expect(201);
    body["organization_id"] = json!(acme.organization);
    operator.post("/api-keys", &body).await.problem(422, "invalid_field", Some("scopes[0]"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_scope_of_the_platform_is_worth_nothing_elsewhere(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let cheat = platform.key(acme.organization, Permission::ALL).await;
    cheat.get("/queues").await.problem(403, "forbidden", None);
    cheat.put("/queues/default/pause", &json!({})).await.problem(403, "forbidden", None);
    platform.operator().await.get("/queues").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_is_made_below_ones_own_and_gets_its_first_key_from_above(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    let other = platform.organization("other").await;

    let made = hosting.post("/organizations", &json!({ "name": "Shop" })).await.expect(201);
    assert_eq!(made["parent_id"], json!(hosting.organization));
    let shop: OrganizationId = made["id"].as_str().unwrap().parse().unwrap();
    hosting.get(&format!("/organizations/{shop}")).await.expect(200);
    other.get(&format!("/organizations/{shop}")).await.problem(404, "not_found", None);

    let key = json!({ "name": "first", "scopes": ["jobs:write", "jobs:read"], "organization_id": shop });
    other.post("/api-keys", &key).await.problem(404, "not_found", Some("organization_id"));
    let made = hosting.post("/api-keys", &key).await.expect(201);
    assert_eq!(made["api_key"]["organization_id"], json!(shop));

    let mut of_shop = hosting.clone();
    of_shop.token = made["token"].as_str().unwrap().to_owned();
    let job = of_shop.probe(None).await;
    hosting.get(&format!("/jobs/{job}")).await.problem(404, "not_found", None);

    let list = hosting.get(&format!("/api-keys?organization={shop}")).await.expect(200);
    assert_eq!(list["items"][0]["name"], "first");
    other.get(&format!("/api-keys?organization={shop}")).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn only_the_platform_gives_out_shares(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    hosting.post("/organizations", &json!({ "name": "Greedy", "weight": 100 })).await.problem(403, "forbidden", None);
    let operator = platform.operator().await;
    operator.post("/organizations", &json!({ "name": "Big", "weight": 101 })).await.problem(
        422,
        "invalid_field",
        Some("weight"),
    );
    operator.post("/organizations", &json!({ "name": "Big", "max_running": 0 })).await.problem(
        422,
        "invalid_field",
        Some("max_running"),
    );
    let made =
        operator.post("/organizations", &json!({ "name": "Big", "weight": 10, "max_running": 5 })).await.expect(201);
    assert_eq!((&made["weight"], &made["max_running"]), (&json!(10), &json!(5)));
    for bad in [json!({}), json!({ "name": "" }), json!({ "name": "a\u{0}" }), json!({ "name": "x".repeat(201) })] {
        operator.post("/organizations", &bad).await.problem(422, "invalid_field", Some("name"));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn lists_come_in_pages_that_neither_repeat_nor_lose(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let hosting = platform.organization("hosting").await;
    for number in 0..5 {
        hosting.post("/organizations", &json!({ "name": format!("Shop {number}") })).await.expect(201);
    }
    let (mut names, mut path) = (Vec::new(), "/organizations?limit=2".to_owned());
    loop {
        let page = hosting.get(&path).await.expect(200);
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/organizations?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["hosting", "Shop 0", "Shop 1", "Shop 2", "Shop 3", "Shop 4"]);
}
