//! Requests that are sent again are done once.

use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Platform};

impl Actor {
    /// Sends a request with headers of its own.
    pub async fn with(&self, headers: &[(&str, &str)], method: Method, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|body| Body::from_string(body.to_string()));
        let mut request = self.request(method, path, body);
        for (name, value) in headers {
            let name: poem::http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        self.send_as_is(request).await
    }

    async fn post_once(&self, key: &str, path: &str, body: &Value) -> Answer {
        self.with(&[("Idempotency-Key", key)], Method::POST, path, Some(body)).await
    }
}

fn probe() -> Value {
    json!({ "kind": "diagnostics.probe" })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_request_that_is_sent_again_is_answered_as_before_and_done_once(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.post_once("\"one\"", "/jobs", &probe()).await;
    assert_eq!((first.status.as_u16(), first.header("Idempotency-Replayed")), (202, ""), "{}", first.text);
    // With quotes or without, it is the same key.
    for key in ["\"one\"", "one"] {
        let again = acme.post_once(key, "/jobs", &probe()).await;
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        assert_eq!(again.header("Idempotency-Replayed"), "true");
        for header in ["location", "retry-after", "content-type"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
    }
    assert_eq!((platform.count("jobs").await, platform.count("idempotency_keys").await), (1, 1));
    acme.post_once("two", "/jobs", &probe()).await.expect(202);
    assert_eq!(platform.count("jobs").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_belongs_to_one_request_of_one_api_key(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post_once("k", "/jobs", &probe()).await.expect(202);
    let other = json!({ "kind": "diagnostics.probe", "priority": 1 });
    let reused = ("idempotency_key_reused", Some("Idempotency-Key"));
    acme.post_once("k", "/jobs", &other).await.problem(422, reused.0, reused.1);
    acme.post_once("k", "/jobs?dry_run=false", &probe()).await.problem(422, reused.0, reused.1);
    acme.post_once("k", "/jobs/retry", &json!({})).await.problem(422, reused.0, reused.1);
    let colleague = platform.key(acme.organization, gantry_schema::organizations::Permission::ALL).await;
    colleague.post_once("k", "/jobs", &probe()).await.problem(422, reused.0, reused.1);
    // Another organization has keys of its own.
    platform.organization("globex").await.post_once("k", "/jobs", &probe()).await.expect(202);
    assert_eq!(platform.count("jobs").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_refused_request_leaves_nothing_and_may_be_put_right(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post_once("k", "/jobs", &json!({ "kind": "no.such" })).await.problem(422, "unknown_kind", Some("kind"));
    let schedule = json!({ "name": "a", "kind": "diagnostics.probe", "cron": "0 3 * * *" });
    acme.post("/schedules", &schedule).await.expect(201);
    acme.post_once("k", "/schedules", &schedule).await.problem(409, "name_taken", Some("name"));
    assert_eq!(platform.count("idempotency_keys").await, 0);
    acme.post_once("k", "/jobs", &probe()).await.expect(202);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_that_is_none_is_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for bad in ["\"\"", "\"open", "\"a\"b\"", &"k".repeat(256)] {
        acme.post_once(bad, "/jobs", &probe()).await.problem(400, "invalid_parameter", Some("Idempotency-Key"));
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    let answer = acme.with(&twice, Method::POST, "/jobs", Some(&probe())).await;
    answer.problem(400, "invalid_parameter", Some("Idempotency-Key"));
    assert_eq!(platform.count("jobs").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn while_a_request_is_done_the_same_is_told_to_come_again(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let acme = platform.organization("acme").await;
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1 || ' ' || 'k', 11))")
        .bind(acme.organization.uuid().to_string())
        .execute(&mut *other)
        .await
        .unwrap();
    let answer = acme.post_once("k", "/jobs", &probe()).await;
    assert_eq!(answer.header("Retry-After"), "1");
    answer.problem(409, "idempotency_key_in_flight", Some("Idempotency-Key"));
    other.rollback().await.unwrap();
    acme.post_once("k", "/jobs", &probe()).await.expect(202);
    assert_eq!(platform.count("jobs").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_many_at_once_one_is_done(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let body = probe();
    let answers = futures::future::join_all((0..12).map(|_| acme.post_once("k", "/jobs", &body))).await;
    let mut ids: Vec<String> = Vec::new();
    for answer in answers {
        match answer.status.as_u16() {
            202 => ids.push(answer.expect(202)["id"].as_str().unwrap().to_owned()),
            _ => drop(answer.problem(409, "idempotency_key_in_flight", Some("Idempotency-Key"))),
        }
    }
    ids.dedup();
    assert_eq!((ids.len(), platform.count("jobs").await), (1, 1));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_secret_is_shown_again_to_the_same_request_and_lies_sealed(pool: PgPool) {
    let platform = Platform::new(pool.clone()).await;
    let acme = platform.organization("acme").await;
    let key = json!({ "name": "deploy", "scopes": ["jobs:read"] });
    let made = acme.post_once("k", "/api-keys", &key).await.expect(201);
    assert_eq!(acme.post_once("k", "/api-keys", &key).await.expect(201), made);
    let body: Vec<u8> = sqlx::query_scalar("select body from idempotency_keys").fetch_one(&pool).await.unwrap();
    let token = made["token"].as_str().unwrap().as_bytes();
    assert!(!body.windows(token.len()).any(|window| window == token), "the token lies open");
    let row: String =
        sqlx::query_scalar("select row_to_json(i)::text from idempotency_keys i").fetch_one(&pool).await.unwrap();
    assert!(!row.contains(made["token"].as_str().unwrap()));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_largest_answer_there_is_is_kept_and_answers_without_a_body_too(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let bulk = json!({ "jobs": vec![probe(); 10_000] });
    let first = acme.post_once("bulk", "/jobs/bulk", &bulk).await;
    let again = acme.post_once("bulk", "/jobs/bulk", &bulk).await;
    assert_eq!((again.status.as_u16(), again.text == first.text), (202, true));
    assert_eq!(platform.count("jobs").await, 10_000);

    let resume = [("Idempotency-Key", "resume")];
    for replayed in ["", "true"] {
        let answer = acme.with(&resume, Method::DELETE, "/organization/pause", None).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
        assert_eq!(answer.header("Idempotency-Replayed"), replayed);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_is_free_again_after_a_day(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post_once("k", "/jobs", &probe()).await.expect(202);
    platform.clock.advance(chrono::Duration::hours(24) - chrono::Duration::seconds(1));
    acme.post_once("k", "/jobs", &probe()).await.expect(202);
    assert_eq!(platform.count("jobs").await, 1);
    platform.clock.advance(chrono::Duration::seconds(1));
    let other = json!({ "kind": "diagnostics.probe", "priority": 1 });
    acme.post_once("k", "/jobs", &other).await.expect(202);
    assert_eq!((platform.count("jobs").await, platform.count("idempotency_keys").await), (2, 1));
}

#[test]
fn every_change_takes_a_key() {
    let document: Value = serde_json::from_str(gantry_api::openapi()).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            // These change nothing, and a copy that is streamed is not kept; webhooks follow.
            let asks = [
                "/schedules/preview",
                "/permissions/explain",
                "/licenses/simulate",
                "/audit-entries/export",
                "/audit-archives",
            ];
            if method == "get" || asks.contains(&path.as_str()) || path.starts_with("/webhook") || path == "/events" {
                continue;
            }
            // What people do about themselves may be done twice: it is as after the first time, or a session more.
            if !operation["security"].to_string().contains("\"ApiKey\"") {
                continue;
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let takes = parameters.iter().any(|parameter| {
                parameter["name"] == "Idempotency-Key"
                    && parameter["in"] == "header"
                    && parameter["description"].is_string()
            });
            assert!(takes, "{method} {path} takes no Idempotency-Key");
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_waits_with_a_key_waits_for_the_job_that_was_asked_for(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.post_once("k", "/jobs", &probe()).await.expect(202)["id"].clone();
    acme.post(&format!("/jobs/{}/cancel", id.as_str().unwrap()), &Value::Null).await.expect(200);
    let headers = [("Idempotency-Key", "k"), ("Prefer", "wait=5")];
    let answer = acme.with(&headers, Method::POST, "/jobs", Some(&probe())).await;
    assert_eq!((answer.header("Idempotency-Replayed"), answer.header("Preference-Applied")), ("true", "wait=5"));
    let receipt = answer.expect(200);
    assert_eq!((&receipt["id"], &receipt["job"]["state"]), (&id, &json!("cancelled")));
}
