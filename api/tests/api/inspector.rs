//! Bins that show what arrives.

use poem::{Body, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Platform, send};

/// Makes a bin; answers its path and what its URL ends in.
async fn bin(acme: &Actor, particulars: Value) -> (String, String) {
    let mut body = json!({ "name": "mine" });
    body.as_object_mut().unwrap().extend(particulars.as_object().unwrap().clone());
    let made = acme.post("/inspector/bins", &body).await.expect(201);
    let url = made["url"].as_str().unwrap().to_owned();
    let path = url.split_once("//").unwrap().1.split_once('/').unwrap().1;
    (format!("/inspector/bins/{}", made["id"].as_str().unwrap()), format!("/{path}"))
}

async fn arrive(platform: &Platform, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder().method(poem::http::Method::PUT).uri_str(path);
    let request = request.header("X-Team", "blue").header("Authorization", "Bearer secret").header("Cookie", "a=b");
    send(&platform.app, request.body(body)).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_bin_shows_what_anybody_sent_and_nobody_else_sees_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let (path, url) = bin(&acme, json!({})).await;
    arrive(&platform, &format!("{url}/a/b?c=d&c=e"), "{\"hello\": \"<script>\"}").await.expect(200);
    arrive(&platform, &url, vec![0, 159, 146, 150]).await.expect(200);

    let seen = acme.get(&format!("{path}/requests")).await.expect(200);
    let (binary, text) = (&seen["items"][0], &seen["items"][1]);
    assert_eq!((text["method"].as_str(), text["path"].as_str()), (Some("PUT"), Some("/a/b")));
    assert_eq!((text["query"].as_str(), text["body"].as_str()), (Some("c=d&c=e"), Some("{\"hello\": \"<script>\"}")));
    assert!(text["headers"].as_array().unwrap().contains(&json!({ "name": "x-team", "value": "blue" })));
    assert!(!seen.to_string().contains("Bearer secret") && !seen.to_string().contains("a=b"));
    assert_eq!((binary["body_base64"].as_str(), binary.get("body")), (Some("AJ+Slg=="), None));

    other.get(&path).await.problem(404, "not_found", None);
    other.get(&format!("{path}/requests")).await.problem(404, "not_found", None);
    other.delete(&path).await.problem(404, "not_found", None);
    assert_eq!(other.get("/inspector/bins").await.expect(200), json!({ "items": [] }));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_bin_answers_as_it_is_set_to(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (path, url) = bin(&acme, json!({ "status": 503 })).await;
    assert_eq!(arrive(&platform, &url, "").await.status, 503);
    acme.patch(&path, &json!({ "status": 410, "delay_ms": 1 })).await.expect(200);
    assert_eq!(arrive(&platform, &url, "").await.status, 410);
    for (field, value) in [("status", 199), ("status", 600), ("delay_ms", -1), ("delay_ms", 10_001)] {
        acme.patch(&path, &json!({ field: value })).await.problem(422, "invalid_field", Some(field));
    }
    acme.delete(&format!("{path}/requests")).await.expect(204);
    assert_eq!(acme.get(&format!("{path}/requests")).await.expect(200), json!({ "items": [] }));
    acme.delete(&path).await.expect(204);
    arrive(&platform, &url, "").await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_bin_keeps_is_bounded(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (path, url) = bin(&acme, json!({})).await;
    arrive(&platform, &url, vec![b'a'; 300 * 1024]).await.expect(200);
    let seen = acme.get(&format!("{path}/requests")).await.expect(200);
    assert_eq!(
        (seen["items"][0]["truncated"].as_bool(), seen["items"][0]["body"].as_str().unwrap().len()),
        (Some(true), 256 * 1024)
    );
    sqlx::query("insert into inspector_requests select gen_random_uuid(), organization_id, bin_id, method, path, query, headers, '', false, received_at from inspector_requests, generate_series(1, 150)")
        .execute(&platform.pool)
        .await
        .unwrap();
    arrive(&platform, &url, "").await.expect(200);
    assert_eq!(platform.count("inspector_requests").await, 100);
    acme.delete(&format!("{path}/requests")).await.expect(204);
    arrive(&platform, &url, "").await.expect(200);
    // Older ones, of bytes that cannot be stored in less.
    sqlx::query("insert into inspector_requests select ('00000000-0000-7000-8000-' || lpad(row_number() over ()::text, 12, '0'))::uuid, organization_id, bin_id, method, path, query, headers, (select string_agg(decode(md5(g::text), 'hex'), '') from generate_series(1, 16384) g), false, received_at from inspector_requests, generate_series(1, 80)")
        .execute(&platform.pool)
        .await
        .unwrap();
    let (another, url) = bin(&acme, json!({})).await;
    arrive(&platform, &url, "the newest").await.expect(200);
    let seen = acme.get(&format!("{another}/requests")).await.expect(200);
    assert_eq!(seen["items"][0]["body"], "the newest");
    let kept: i64 =
        sqlx::query_scalar("select sum(length(body)) from inspector_requests").fetch_one(&platform.pool).await.unwrap();
    assert!((15 * 1024 * 1024..=16 * 1024 * 1024).contains(&kept), "{kept} bytes");
    for _ in 0..8 {
        bin(&acme, json!({})).await;
    }
    acme.post("/inspector/bins", &json!({ "name": "one too many" })).await.problem(409, "too_many", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_path_that_is_no_bin_opens_nothing(pool: PgPool) {
    let platform = Platform::new(pool).await;
    for path in ["/inspect/a", "/inspect/' or true --", "/inspect/00000000000000000000000000", "/inspect/%00"] {
        let request = Request::builder().uri_str(path.replace(' ', "%20")).finish();
        assert_eq!(send(&platform.app, request).await.status, 404, "{path}");
    }
    let page = send(&platform.app, Request::builder().uri_str("/inspector").finish()).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").contains("script-src 'sha256-"));
}
