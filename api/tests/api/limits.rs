//! How often somebody may ask.

use gantry_api::App;
use gantry_api::app::Surface;
use gantry_schema::api_keys::Token;
use poem::Request;
use poem::http::Method;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Platform, send};

/// What is left, by the header `RateLimit`.
fn left(answer: &Answer) -> &str {
    answer.header("RateLimit")
}

async fn give(platform: &Platform, to: &Actor, body: Value) {
    let path = format!("/organizations/{}/rate-limits", to.organization);
    change(&platform.operator().await, &path, &body).await.expect(200);
}

/// Whatever is there by now.
async fn change(operator: &Actor, path: &str, body: &Value) -> Answer {
    operator.with(&[("If-Match", "*")], Method::PUT, path, Some(body)).await
}

async fn set_tier(platform: &Platform, body: Value) {
    let operator = platform.operator().await;
    let answer = operator.put("/rate-tiers/small", &body).await;
    match answer.status.as_u16() {
        428 => change(&operator, "/rate-tiers/small", &body).await.expect(200),
        _ => answer.expect(201),
    };
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_answer_says_what_is_left_refusals_too(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    give(&platform, &acme, json!({ "tier": "professional" })).await;
    let answer = acme.get("/jobs").await;
    assert_eq!(answer.header("RateLimit-Policy"), "\"read\";q=500;w=60");
    assert_eq!(left(&answer), "\"read\";r=499;t=1");
    assert_eq!((answer.header("X-RateLimit-Limit"), answer.header("X-RateLimit-Remaining")), ("500", "499"));
    let now = platform.app.db.now().timestamp();
    assert_eq!(answer.header("X-RateLimit-Reset"), (now + 1).to_string());
    let missing = acme.get("/jobs/job_01h455vb4pex5vsknk084sn02q").await;
    assert!(left(&missing).starts_with("\"read\";r=49") && missing.status == 404);
    let wrong = acme.post("/jobs", &json!({})).await;
    assert_eq!((left(&wrong), wrong.status.as_u16()), ("\"write\";r=499;t=1", 422));
    // Who is refused before anybody looks who he is counts as nobody in particular.
    let early = from(acme.request(Method::GET, "/jobs?limt=1", None), "203.0.113.1");
    let early = send(&behind_a_proxy(&platform), early).await;
    assert_eq!((left(&early), early.status.as_u16()), ("\"anonymous\";r=299;t=1", 400));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_asks_too_often_is_told_how_long_to_wait(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let small = json!({ "read_per_minute": 3, "write_per_minute": 2, "deploy_per_minute": 1 });
    set_tier(&platform, small).await;
    give(&platform, &acme, json!({ "tier": "small" })).await;
    for expected in 0..3 {
        let answer = acme.get("/jobs").await;
        assert_eq!(answer.header("X-RateLimit-Remaining"), (2 - expected).to_string());
        answer.expect(200);
    }
    let refused = acme.get("/jobs").await;
    assert_eq!(left(&refused), "\"read\";r=0;t=20");
    assert_eq!((refused.header("Retry-After"), refused.header("X-RateLimit-Remaining")), ("20", "0"));
    let problem = refused.problem(429, "too_many_requests", None);
    assert_eq!(problem["violated-policies"], json!(["read"]));
    // What changes something is counted apart, and so is another organization.
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    platform.organization("other").await.get("/jobs").await.expect(200);
    // Nothing more was done than was let through.
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.problem(429, "too_many_requests", None);
    assert_eq!(platform.count("jobs").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operation_costs_what_is_declared_of_it(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    give(&platform, &acme, json!({ "tier": "starter", "per_minute": 100 })).await;
    let bulk = json!({ "jobs": [{ "kind": "diagnostics.probe" }] });
    assert_eq!(acme.post("/jobs/bulk", &bulk).await.header("X-RateLimit-Remaining"), "90");
    let preview = acme.post("/schedules/preview", &json!({ "cron": "@daily" })).await;
    assert_eq!(left(&preview), "\"read\";r=99;t=1", "it changes nothing");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn one_key_and_one_address_may_have_a_share_of_their_own(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let app = behind_a_proxy(&platform);
    let acme = platform.organization("acme").await;
    let second = platform.key(acme.organization, gantry_schema::organizations::Permission::ALL).await;
    set_tier(
        &platform,
        json!({ "read_per_minute": 4, "write_per_minute": 4, "deploy_per_minute": 4,
                "key_percent": 75, "address_percent": 50 }),
    )
    .await;
    give(&platform, &acme, json!({ "tier": "small" })).await;
    let asks =
        async |actor: &Actor, address| send(&app, from(actor.request(Method::GET, "/jobs", None), address)).await;
    asks(&acme, "203.0.113.1").await.expect(200);
    let answer = asks(&acme, "203.0.113.1").await;
    assert_eq!(answer.header("RateLimit-Policy"), r#""read";q=4;w=60, "key-read";q=3;w=60, "address-read";q=2;w=60"#);
    let of_address = asks(&acme, "203.0.113.1").await.problem(429, "too_many_requests", None);
    assert_eq!(of_address["violated-policies"], json!(["address-read"]));
    asks(&acme, "203.0.113.2").await.expect(200);
    let of_key = asks(&acme, "203.0.113.2").await.problem(429, "too_many_requests", None);
    assert_eq!(of_key["violated-policies"], json!(["key-read"]));
    asks(&second, "203.0.113.2").await.expect(200);
    let of_both = asks(&second, "203.0.113.3").await.problem(429, "too_many_requests", None);
    assert_eq!(of_both["violated-policies"], json!(["read"]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_has_the_bypass_is_not_counted(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let limits = json!({ "tier": "starter", "per_minute": 1, "bypass": true });
    give(&platform, &acme, limits).await;
    for _ in 0..5 {
        let answer = acme.get("/jobs").await;
        assert!(!answer.headers.contains_key("ratelimit"));
        answer.expect(200);
    }
    give(&platform, &acme, json!({ "tier": "starter", "per_minute": 1 })).await;
    acme.get("/jobs").await.expect(200);
    acme.get("/jobs").await.problem(429, "too_many_requests", None);
}

/// An API behind a proxy on the same machine.
fn behind_a_proxy(platform: &Platform) -> App {
    let proxies = "unix".parse().unwrap();
    platform.app.clone().with(Surface { proxies, ..Surface::default() })
}

fn from(mut request: Request, address: &str) -> Request {
    request.headers_mut().insert("x-forwarded-for", address.parse().unwrap());
    request
}

fn nobody(path: &str) -> Request {
    Request::builder().uri_str(path).finish()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn strangers_are_counted_by_their_address_before_anything_is_done_for_them(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    change(&platform.operator().await, "/rate-rules/anonymous", &json!({ "per_minute": 2 })).await.expect(200);
    let app = behind_a_proxy(&platform);
    let asks = async |path: &str, address| send(&app, from(nobody(path), address)).await;
    assert_eq!(left(&asks("/openapi.json", "203.0.113.1").await), "\"anonymous\";r=1;t=30");
    asks("/jobs", "203.0.113.1").await.problem(401, "unauthenticated", Some("Authorization"));
    let refused = asks("/nowhere", "203.0.113.1").await;
    assert_eq!(refused.header("Retry-After"), "30");
    refused.problem(429, "too_many_requests", None);
    asks("/nowhere", "203.0.113.2").await.problem(404, "unknown_route", None);
    // Whether the process is well is answered whatever happens, and who is known is not a stranger.
    asks("/health/live", "203.0.113.1").await.expect(200);
    let acme = platform.organization("acme").await;
    send(&app, from(acme.request(Method::GET, "/jobs", None), "203.0.113.1")).await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_tries_keys_is_not_looked_at_after_a_while_and_his_neighbour_is(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    change(&platform.operator().await, "/rate-rules/credentials", &json!({ "per_minute": 3 })).await.expect(200);
    let app = behind_a_proxy(&platform);
    let acme = platform.organization("acme").await;
    let well = || from(acme.request(Method::GET, "/jobs", None), "203.0.113.1");
    send(&app, well()).await.expect(200);
    let guess = |number: u8, address| {
        let guessed = Token::generate(&mut StdRng::seed_from_u64(number.into()));
        let token = format!("Bearer {}", guessed.expose());
        from(Request::builder().uri_str("/jobs").header("Authorization", token).finish(), address)
    };
    for number in 0..3 {
        let refused = send(&app, guess(number, "203.0.113.1")).await;
        assert_eq!(refused.header("X-RateLimit-Remaining"), (2 - number).to_string());
        refused.problem(401, "unauthenticated", Some("Authorization"));
    }
    let refused = send(&app, guess(4, "203.0.113.1")).await.problem(429, "too_many_requests", None);
    assert_eq!(refused["violated-policies"], json!(["credentials"]));
    send(&app, guess(5, "203.0.113.2")).await.problem(401, "unauthenticated", Some("Authorization"));
    send(&app, well()).await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_own_number_and_a_month_are_given_by_the_operator_alone(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.below(acme.organization, "branch").await;
    let operator = platform.operator().await;
    let path = format!("/organizations/{}/rate-limits", branch.organization);
    let own = json!({ "tier": "enterprise", "per_minute": 300, "monthly_calls": 1_000_000, "monthly_bytes": 5_000 });
    acme.put(&path, &own).await.problem(403, "forbidden", None);
    operator.put(&path, &own).await.problem(428, "precondition_required", Some("If-Match"));
    let etag = operator.get(&path).await.header("ETag").to_owned();
    let given = operator.with(&[("If-Match", &etag)], Method::PUT, &path, Some(&own)).await;
    assert_eq!(given.header("ETag"), branch.get("/rate-limits").await.header("ETag"));
    let other = json!({ "tier": "starter" });
    let late = operator.with(&[("If-Match", &etag)], Method::PUT, &path, Some(&other)).await;
    late.problem(412, "precondition_failed", Some("If-Match"));
    let seen = branch.get("/rate-limits").await.expect(200);
    assert_eq!(given.expect(200), seen);
    assert_eq!(seen, acme.get(&path).await.expect(200), "those above see it");
    assert_eq!((seen["tier"].as_str(), seen["per_minute"].as_u64()), (Some("enterprise"), Some(300)));
    assert_eq!(seen["limits"][1], json!({ "class": "write", "per_minute": 300, "burst": 300 }));
    assert_eq!((seen["monthly_calls"].as_u64(), seen["monthly_bytes"].as_u64()), (Some(1_000_000), Some(5_000)));
    branch.get(&format!("/organizations/{}/rate-limits", acme.organization)).await.problem(404, "not_found", None);

    for (body, field) in [
        (json!({ "tier": "gold" }), "tier"),
        (json!({ "tier": "starter", "per_minute": 0 }), "per_minute"),
        (json!({ "tier": "starter", "per_minute": 6_000_001 }), "per_minute"),
        (json!({ "tier": "starter", "monthly_calls": 0 }), "monthly_calls"),
        (json!({ "tier": "starter", "monthly_bytes": 10_000_000_000_000_000_000_u64 }), "monthly_bytes"),
        (json!({ "tier": "starter", "unlimited": true }), "unlimited"),
    ] {
        operator.put(&path, &body).await.problem(422, "invalid_field", Some(field));
    }
    assert_eq!(branch.get("/rate-limits").await.expect(200), seen);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn tiers_are_made_changed_and_removed_while_everything_runs(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (operator, acme) = (platform.operator().await, platform.organization("acme").await);
    let tier = json!({ "read_per_minute": 30, "write_per_minute": 20, "deploy_per_minute": 10, "burst_percent": 50 });
    let made = operator.put("/rate-tiers/gold", &tier).await;
    let etag = made.header("ETag").to_owned();
    let made = made.expect(201);
    assert_eq!(operator.put("/rate-tiers/gold", &tier).await.expect(200), made, "it looks so already");
    assert_eq!(operator.get("/rate-tiers/gold").await.header("ETag"), etag);
    let larger = json!({ "read_per_minute": 300, "write_per_minute": 20, "deploy_per_minute": 10 });
    operator.put("/rate-tiers/gold", &larger).await.problem(428, "precondition_required", Some("If-Match"));
    let unseen = operator.with(&[("If-Match", "\"x\"")], Method::PUT, "/rate-tiers/gold", Some(&larger)).await;
    unseen.problem(412, "precondition_failed", Some("If-Match"));
    give(&platform, &acme, json!({ "tier": "gold" })).await;
    let answer = acme.get("/rate-limits").await;
    assert_eq!(left(&answer), "\"read\";r=14;t=2");
    assert_eq!(answer.expect(200)["limits"][2], json!({ "class": "deploy", "per_minute": 10, "burst": 5 }));
    let listed = operator.get("/rate-tiers").await.expect(200);
    assert_eq!(listed[0]["name"], "gold", "from the smallest: {listed}");

    operator.delete("/rate-tiers/gold").await.problem(409, "wrong_state", Some("tier"));
    operator.delete("/rate-tiers/starter").await.problem(409, "wrong_state", Some("tier"));
    give(&platform, &acme, json!({ "tier": "starter" })).await;
    operator.delete("/rate-tiers/gold").await.expect(204);
    operator.delete("/rate-tiers/gold").await.problem(404, "not_found", Some("tier"));
    for (path, body, field) in [
        (
            "/rate-tiers/x",
            json!({ "read_per_minute": 0, "write_per_minute": 1, "deploy_per_minute": 1 }),
            "read_per_minute",
        ),
        (
            "/rate-tiers/x",
            json!({ "read_per_minute": 1, "write_per_minute": 1, "deploy_per_minute": 1, "key_percent": 101 }),
            "key_percent",
        ),
        ("/rate-rules/anonymous", json!({ "per_minute": 1, "burst": 0 }), "burst"),
    ] {
        operator.put(path, &body).await.problem(422, "invalid_field", Some(field));
    }
    operator.put("/rate-tiers/1x", &tier).await.problem(400, "invalid_parameter", Some("tier"));
    operator.put("/rate-rules/everybody", &json!({ "per_minute": 1 })).await.problem(404, "not_found", Some("rule"));
    operator.get("/rate-rules/everybody").await.problem(404, "not_found", Some("rule"));
    operator.get("/rate-tiers/silver").await.problem(404, "not_found", Some("tier"));
    let rule = operator.get("/rate-rules/anonymous").await;
    let (etag, new) = (rule.header("ETag").to_owned(), json!({ "per_minute": 200 }));
    operator.put("/rate-rules/anonymous", &new).await.problem(428, "precondition_required", Some("If-Match"));
    let set = operator.with(&[("If-Match", &etag)], Method::PUT, "/rate-rules/anonymous", Some(&new)).await;
    assert_eq!(set.expect(200), operator.get("/rate-rules/anonymous").await.expect(200));
    assert_eq!(operator.get("/rate-rules").await.expect(200).as_array().unwrap().len(), 4);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn without_redis_requests_are_counted_and_attempts_are_not_taken(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    give(&platform, &acme, json!({ "tier": "starter", "per_minute": 2 })).await;
    acme.get("/jobs").await.expect(200);
    acme.get("/jobs").await.expect(200);
    acme.get("/jobs").await.problem(429, "too_many_requests", None);
    let refused = platform.app.attempts().begin("password", None, "a@example.com").await.unwrap_err();
    let answer = Answer::of(refused.response("req_1", "/sign-in")).await;
    assert_eq!((answer.status.as_u16(), answer.header("Retry-After")), (503, "5"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_attempt_that_fails_counts_and_one_that_succeeds_does_not(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let address = Some("203.0.113.9".parse().unwrap());
    let begin = async || platform.app.attempts().begin("password", address, "a@example.com").await;
    for _ in 0..10 {
        begin().await.unwrap().succeeded().await;
    }
    for expected in 1..=3 {
        let attempt = begin().await.unwrap();
        assert!(attempt.seen().known_network);
        let seen = attempt.failed().await;
        assert_eq!((seen.accounts_of_address, seen.networks_of_account), (1, 1), "{expected}");
    }
    let refused = Answer::of(begin().await.unwrap_err().response("req_1", "/sign-in")).await;
    assert_eq!((refused.status.as_u16(), refused.header("Retry-After")), (429, "1"));
    let other = platform.app.attempts().begin("totp", address, "a@example.com").await;
    drop(other.expect("another kind of proof is counted apart"));
}
