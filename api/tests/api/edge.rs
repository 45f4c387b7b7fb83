//! What surrounds every operation.

use std::num::NonZeroU32;

use gantry_api::app::Surface;
use gantry_api::load::Limits;
use poem::http::Method;
use poem::{Body, Endpoint as _, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Platform, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn parameters_an_operation_does_not_have_are_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (path, field, said) in [
        ("/jobs?limt=5", "limt", "did you mean limit?"),
        ("/jobs?state=running&state=running", "state", "given twice"),
        ("/jobs/?colour=red", "colour", "cursor"),
        ("/job-kinds?limit=5", "limit", "it has none"),
        ("/schedules/sch_01h455vb4pex5vsknk084sn02q?wait=5", "wait", "it has none"),
    ] {
        let problem = acme.get(path).await.problem(400, "invalid_parameter", Some(field));
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    acme.post("/jobs?dryrun=true", &json!({ "kind": "diagnostics.probe" })).await.problem(
        400,
        "invalid_parameter",
        Some("dryrun"),
    );
    assert_eq!(platform.count("jobs").await, 0);
    acme.get("/jobs?limit=5").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_two_readers_would_understand_differently_is_refused_by_its_field(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let payload = |payload: &str| format!(r#"{{"kind":"diagnostics.probe","payload":{payload}}}"#);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, status, code, field) in [
        (payload(r#"{"steps":1,"steps":2}"#), 422, "invalid_field", "payload.steps"),
        (payload(r#"{"message":"\ud83d"}"#), 422, "invalid_field", "payload.message"),
        (payload(r#"{"message":"\u0000"}"#), 422, "invalid_field", "payload.message"),
        (payload(r#"{"steps":NaN}"#), 400, "malformed_json", "payload.steps"),
        (payload(r#"{"steps":1e999}"#), 422, "invalid_field", "payload.steps"),
        (payload(&deep), 422, "invalid_field", "payload"),
        (r#"{"kind":"a","kind":"b"}"#.to_owned(), 422, "invalid_field", "kind"),
    ] {
        let problem = acme.post_text("/jobs", body).await.problem(status, code, Some(field));
        assert!(problem["detail"].as_str().unwrap().contains(';'), "no remedy in {problem}");
    }
    let bulk = format!(r#"{{"jobs":[{},{}]}}"#, payload("{}"), payload(r#"{"steps":1,"steps":2}"#));
    acme.post_text("/jobs/bulk", bulk).await.problem(422, "invalid_field", Some("jobs[1].payload.steps"));
    assert_eq!(platform.count("jobs").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_version_is_named_by_its_date(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let version = |version| [("Gantry-Version", version)];
    assert_eq!(acme.get("/jobs").await.header("Gantry-Version"), "2026-11-24");
    let answer = acme.with(&version("2026-11-24"), Method::GET, "/jobs", None).await;
    assert_eq!((answer.status.as_u16(), answer.header("Gantry-Version")), (200, "2026-11-24"));
    let refused = acme.with(&version("2020-01-01"), Method::GET, "/jobs", None).await;
    let problem = refused.problem(400, "unknown_version", Some("Gantry-Version"));
    assert!(problem["detail"].as_str().unwrap().contains("2026-11-24"), "{problem}");
    assert!(!answer.headers.contains_key("deprecation"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn pages_of_origins_that_are_named_may_call(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let asks = |origin: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri_str("/jobs")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "authorization,idempotency-key")
            .finish()
    };
    let closed = send(&platform.app, asks("https://console.example.com")).await;
    assert_eq!((closed.status.as_u16(), closed.header("access-control-allow-origin")), (405, ""));

    let origins = "https://console.example.com".parse().unwrap();
    let surface = Surface { origins, tls_only_seconds: Some(86_400), ..Surface::default() };
    let app = platform.app.clone().with(surface);
    let open = send(&app, asks("https://console.example.com")).await;
    assert_eq!(
        (open.status.as_u16(), open.header("access-control-allow-origin")),
        (204, "https://console.example.com")
    );
    assert!(open.header("access-control-allow-headers").contains("Idempotency-Key"));
    assert!(open.header("access-control-allow-methods").contains("PATCH"));
    assert_eq!(open.header("strict-transport-security"), "max-age=86400; includeSubDomains");
    assert_eq!(send(&app, asks("https://evil.example")).await.header("access-control-allow-origin"), "");

    let calls = Request::builder().uri_str("/jobs").header("Origin", "https://console.example.com").finish();
    let answer = send(&app, calls).await;
    assert_eq!((answer.status.as_u16(), answer.header("vary")), (401, "Origin"));
    assert!(answer.header("access-control-expose-headers").contains("ETag"), "also what is refused can be read");
    assert!(answer.header("access-control-allow-credentials").is_empty());
}

fn few(requests: u32, waiting: u32, body_mib: u32) -> Surface {
    let [requests, waiting, body_mib] = [requests, waiting, body_mib].map(|number| NonZeroU32::new(number).unwrap());
    Surface { limits: Limits { requests, waiting, body_mib }, ..Surface::default() }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_beyond_what_can_be_done_is_refused_at_once_and_health_is_not(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(Some("2026-01-16T12:00:00Z")).await;
    let app = platform.app.clone().with(few(1, 1, 1));

    // A stream counts as waiting, until it ends.
    let follows = acme.request(Method::GET, &format!("/jobs/{job}/events"), None);
    let stream = gantry_api::app(app.clone()).get_response(follows).await;
    assert_eq!(stream.status(), 200);
    let waits = || acme.request(Method::GET, &format!("/jobs/{job}?wait=1"), None);
    let refused = send(&app, waits()).await;
    assert_eq!(refused.header("Retry-After"), "1");
    refused.problem(503, "overloaded", None);
    // Others work, and health answers.
    send(&app, acme.request(Method::GET, "/jobs", None)).await.expect(200);
    send(&app, Request::builder().uri_str("/health/live").finish()).await.expect(200);
    drop(stream);
    app.stop();
    send(&app, waits()).await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn bodies_beyond_their_room_are_refused_before_they_are_read(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let app = platform.app.clone().with(few(8, 8, 1));
    let bulk = |bytes: usize| {
        let mut request = acme.request(Method::POST, "/jobs/bulk", Some(Body::from_vec(vec![b' '; bytes])));
        request.headers_mut().insert("content-length", bytes.into());
        request
    };
    send(&app, bulk(1024 * 1024 + 1)).await.problem(503, "overloaded", None);
    // Its room is free again, whatever came of the one before.
    for _ in 0..3 {
        send(&app, bulk(1024 * 1024)).await.problem(400, "malformed_json", Some("body"));
    }
    // A body that does not say how long it is may be as long as any.
    let mut unknown = bulk(10);
    unknown.headers_mut().remove("content-length");
    send(&app, unknown).await.problem(503, "overloaded", None);
    let job: Value = json!({ "kind": "diagnostics.probe" });
    let mut small = acme.request(Method::POST, "/jobs", Some(Body::from_string(job.to_string())));
    small.headers_mut().insert("content-length", job.to_string().len().into());
    send(&app, small).await.expect(202);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn under_another_name_nothing_is_answered_but_health(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let hosts = "api.example.com,*.example.net".parse().unwrap();
    let app = platform.app.clone().with(Surface { hosts, ..Surface::default() });
    let asks = |path: &str, host: &'static str| {
        let mut request = acme.request(Method::GET, path, None);
        request.headers_mut().insert("host", host.parse().unwrap());
        request
    };
    send(&app, asks("/jobs", "api.example.com:8080")).await.expect(200);
    send(&app, asks("/jobs", "acme.example.net")).await.expect(200);
    for host in ["evilexample.net", "example.net", "rebound.example", "127.0.0.1"] {
        send(&app, asks("/jobs", host)).await.problem(421, "unknown_host", Some("Host"));
        send(&app, asks("/health/live", host)).await.expect(200);
    }
}
