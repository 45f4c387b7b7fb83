//! Whatever is wrong with a request: a problem document that names field and remedy, and nothing half-stored.

use poem::http::Method;
use poem::{Body, Request};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Platform, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn bad_jobs_are_refused_by_field_and_nothing_is_stored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let probe = |key: &str, value: Value| {
        let mut job = json!({ "kind": "diagnostics.probe" });
        job[key] = value;
        job
    };
    let unknown = "job_01h455vb4pex5vsknk084sn02q";
    let cases = [
        (json!({ "kind": "no.such" }), 422, "unknown_kind", "kind"),
        (json!({ "kind": "Not A Word\u{0}" }), 422, "invalid_field", "kind"),
        (json!({}), 422, "invalid_field", "kind"),
        (json!([]), 422, "invalid_field", "body"),
        (json!({ "kind": "webhooks.deliver" }), 422, "kind_not_public", "kind"),
        (probe("payload", json!({ "steps": "many" })), 422, "invalid_payload", "payload"),
        (probe("payload", json!("text")), 422, "invalid_payload", "payload"),
        (probe("payload", json!({ "message": "a\u{0}b" })), 422, "invalid_field", "payload.message"),
        (probe("payload", json!({ "message": "a".repeat(256 * 1024) })), 413, "payload_too_large", "payload"),
        (probe("run_at", json!("9999-12-31T23:59:59Z")), 422, "invalid_field", "run_at"),
        (probe("run_at", json!("+262142-01-01T00:00:00Z")), 422, "invalid_field", "run_at"),
        (probe("run_at", json!("tomorrow")), 422, "invalid_field", "run_at"),
        (probe("run_at", json!(7)), 422, "invalid_field", "run_at"),
        (probe("expires_at", json!("2026-01-15T12:00:00Z")), 422, "invalid_field", "expires_at"),
        (probe("expires_at", json!("9999-01-01T00:00:00Z")), 422, "invalid_field", "expires_at"),
        (probe("priority", json!(10)), 422, "invalid_field", "priority"),
        (probe("priority", json!(1e30)), 422, "invalid_field", "priority"),
        (probe("after", json!([{ "job": unknown }])), 422, "unknown_predecessor", "after"),
        (probe("after", json!([{ "job": "org_1" }])), 422, "invalid_field", "after[0].job"),
        (probe("colour", json!("red")), 422, "invalid_field", "colour"),
    ];
    for (body, status, code, field) in cases {
        let problem = acme.post("/jobs", &body).await.problem(status, code, Some(field));
        assert!(problem["detail"].as_str().unwrap().contains([';', ',']), "no remedy in {problem}");
    }
    assert_eq!((platform.count("jobs").await, platform.count("job_dispatch").await), (0, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn bodies_that_are_no_json_are_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let refused = async |body: Vec<u8>| acme.post_text("/jobs", Body::from_vec(body)).await;
    refused(b"{".to_vec()).await.problem(400, "malformed_json", Some("body"));
    refused(Vec::new()).await.problem(400, "malformed_json", Some("body"));
    refused(b"{\"kind\": NaN}".to_vec()).await.problem(400, "malformed_json", Some("kind"));
    refused(b"{\"kind\":\"diagnostics.probe\",\"payload\":{\"message\":\"\xff\"}}".to_vec()).await.problem(
        400,
        "not_utf8",
        Some("body"),
    );
    refused(b"[\"diagnostics.probe\"]".to_vec()).await.problem(422, "invalid_field", Some("body"));
    refused(vec![b'['; 100_000]).await.problem(422, "invalid_field", Some("body"));
    refused(vec![b' '; 1024 * 1024 + 1]).await.problem(413, "body_too_large", Some("body"));
    let deep = format!("{{\"type\":\"a\",\"payload\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    acme.post_text("/events", deep).await.problem(422, "invalid_field", Some("payload"));
    let surrogate = r#"{"type":"a","payload":"\ud800"}"#;
    acme.post_text("/events", surrogate).await.problem(422, "invalid_field", Some("payload"));
    acme.post_text("/events", r#"{"type":"a","payload":{"\u0000":1}}"#).await.problem(
        422,
        "invalid_field",
        Some("payload"),
    );
    assert_eq!((platform.count("jobs").await, platform.count("events").await), (0, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn other_content_types_are_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for content_type in
        ["text/plain", "application/xml", "application/yaml", "application/x-www-form-urlencoded", "nonsense"]
    {
        let mut request = acme.request(Method::POST, "/jobs", Some(Body::from_string("{}".into())));
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        send(&platform.app, request).await.problem(415, "unsupported_media_type", Some("Content-Type"));
    }
    acme.send(Method::POST, "/jobs", None).await.problem(415, "unsupported_media_type", Some("Content-Type"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_bulk_request_is_stored_as_a_whole_or_not_at_all(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let good = json!({ "kind": "diagnostics.probe" });

    let too_many = json!({ "jobs": vec![good.clone(); 10_001] });
    acme.post("/jobs/bulk", &too_many).await.problem(422, "too_many_jobs", Some("jobs"));
    acme.post("/jobs/bulk", &json!({ "jobs": [] })).await.problem(422, "invalid_field", Some("jobs"));
    acme.post("/jobs/bulk", &json!({ "jobs": good })).await.problem(422, "invalid_field", Some("jobs"));

    let some_bad = json!({ "jobs": [good, { "kind": "no.such" }, good, { "knd": 1 }, 5] });
    let problem = acme.post("/jobs/bulk", &some_bad).await.problem(422, "invalid_jobs", Some("jobs[1]"));
    let places: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| (&error["index"], &error["code"])).collect();
    assert_eq!(
        places,
        [
            (&json!(1), &json!("unknown_kind")),
            (&json!(3), &json!("invalid_field")),
            (&json!(4), &json!("invalid_field")),
        ]
    );

    let after = json!({ "kind": "diagnostics.probe", "after": [{ "job": "job_01h455vb4pex5vsknk084sn02q" }] });
    let problem =
        acme.post("/jobs/bulk", &json!({ "jobs": [good, after] })).await.problem(422, "invalid_jobs", Some("jobs[1]"));
    assert_eq!(problem["errors"][0]["code"], "unknown_predecessor");
    assert_eq!((platform.count("jobs").await, platform.count("job_dispatch").await), (0, 0));

    let all_bad = json!({ "jobs": vec![json!({}); 5_000] });
    let problem = acme.post("/jobs/bulk", &all_bad).await.problem(422, "invalid_jobs", Some("jobs[0]"));
    assert_eq!(problem["errors"].as_array().unwrap().len(), 100);

    let all_good = json!({ "jobs": vec![good; 10_000] });
    let receipts = acme.post("/jobs/bulk", &all_good).await.expect(202);
    assert_eq!(receipts["jobs"].as_array().unwrap().len(), 10_000);
    assert_eq!((platform.count("jobs").await, platform.count("job_dispatch").await), (10_000, 10_000));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn parameters_are_refused_by_name(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (path, field) in [
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=201", "limit"),
        ("/jobs?limit=many", "limit"),
        ("/jobs?cursor=%21", "cursor"),
        ("/jobs?cursor=AAAA", "cursor"),
        ("/jobs?state=asleep", "state"),
        ("/jobs?kind=%00", "kind"),
        ("/jobs?queue=A%20B", "queue"),
        ("/jobs?until=yesterday", "until"),
        ("/jobs?since=0001-01-01T00:00:00Z", "since"),
        ("/jobs/nonsense", "job"),
        ("/jobs/org_01h455vb4pex5vsknk084sn02q", "job"),
        ("/jobs/job_01h455vb4pex5vsknk084sn02q?wait=61", "wait"),
        ("/jobs/job_01h455vb4pex5vsknk084sn02q?wait=-1", "wait"),
        ("/organizations/x", "organization"),
        ("/events/x", "event"),
        ("/schedules/sch_01h455vb4pex5vsknk084sn02q/next-times?count=0", "count"),
    ] {
        let problem = acme.get(path).await.problem(400, "invalid_parameter", Some(field));
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains("occurred while parsing") && !detail.contains("verification"), "{detail}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn unknown_paths_and_methods_are_problems_too(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for path in ["/", "/nowhere", "/jobs/", "//jobs", "/jobs/a/b/c", "/../etc/passwd"] {
        acme.get(path).await.problem(404, "unknown_route", None);
    }
    acme.get("/%ff").await.problem(400, "invalid_parameter", None);
    let answer = acme.put("/jobs", &json!({})).await;
    assert_eq!(answer.header("allow"), "GET, POST, HEAD");
    answer.problem(405, "method_not_allowed", None);
    acme.send(Method::OPTIONS, "/jobs", None).await.problem(405, "method_not_allowed", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_answer_carries_the_requests_id_its_trace_and_the_headers_that_protect(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let live = |name: &'static str, value: &'static str| {
        Request::builder().uri_str("/health/live").header(name, value).finish()
    };

    let answer = send(&platform.app, live("X-Request-Id", "order-17.retry_2")).await;
    assert_eq!(answer.header("x-request-id"), "order-17.retry_2");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("cache-control", "no-store")]
    {
        assert_eq!(answer.header(name), value);
    }
    let answer = send(&platform.app, live("X-Request-Id", "{\"not\": \"an id\"}")).await;
    assert!(answer.header("x-request-id").starts_with("req_"));

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = send(&platform.app, live("traceparent", trace)).await;
    assert!(answer.header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_ne!(answer.header("traceparent"), trace);
    assert_eq!(send(&platform.app, live("traceparent", "nonsense")).await.header("traceparent").len(), trace.len());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_database_that_went_away_is_a_problem_to_try_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.get("/jobs").await.expect(200);
    platform.app.db.pool().close().await;
    let answer = acme.get("/jobs").await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.problem(503, "unavailable", None);
}
