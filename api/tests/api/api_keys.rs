//! API keys: what they look like, allow, and from where; how they are replaced, and how they die.

use gantry_api::app::Surface;
use gantry_schema::organizations::Permission;
use poem::http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Api, Platform};

async fn made(by: &Actor, new: Value) -> (Actor, Value) {
    let made = by.post("/api-keys", &new).await.expect(201);
    (by.with_token(made["token"].as_str().unwrap()), made["api_key"].clone())
}

fn id(key: &Value) -> &str {
    key["id"].as_str().unwrap()
}

async fn from(key: &Actor, address: &str) -> Answer {
    let mut request = key.request(Method::GET, "/jobs", None);
    request.headers_mut().insert(HeaderName::from_static("x-forwarded-for"), HeaderValue::from_str(address).unwrap());
    key.send_as_is(request).await
}

/// A platform that believes the header of the proxy before it.
async fn behind_a_proxy(pool: PgPool) -> Platform {
    let mut platform = Platform::new(pool).await;
    let surface = Surface { proxies: "unix".parse().unwrap(), ..Surface::default() };
    platform.app = platform.app.clone().with(surface);
    platform.api = Api::of(&platform.app);
    platform
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_is_made_of_a_template_as_far_as_whoever_makes_it_may(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (reader, key) = made(&acme, json!({ "name": "reader", "template": "read_only" })).await;
    assert_eq!(key["template"], "read_only");
    assert!(key["scopes"].as_array().unwrap().iter().all(|scope| scope.as_str().unwrap().ends_with(":read")));
    reader.get("/jobs").await.expect(200);
    let refused = reader.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "scope");
    let (deployer, _) = made(&acme, json!({ "name": "deployer", "template": "deploy" })).await;
    deployer.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    deployer.get("/schedules").await.problem(403, "forbidden", None);

    let few = platform.key(acme.organization, &[Permission::ManageApiKeys, Permission::ReadJobs]).await;
    let (_, key) = made(&few, json!({ "name": "full", "template": "full" })).await;
    assert_eq!(key["scopes"], json!(["api_keys:write", "jobs:read"]));
    let more = json!({ "name": "more", "scopes": ["jobs:read", "jobs:write"] });
    let refused = few.post("/api-keys", &more).await.problem(403, "forbidden", Some("scopes[1]"));
    assert_eq!(refused["reason"], "escalation");
    for neither in [json!({ "name": "x" }), json!({ "name": "x", "template": "full", "scopes": ["jobs:read"] })] {
        acme.post("/api-keys", &neither).await.problem(422, "invalid_field", Some("scopes"));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_works_from_its_networks_only_and_says_from_where_it_was_used(pool: PgPool) {
    let platform = behind_a_proxy(pool).await;
    let acme = platform.organization("acme").await;
    let networks = json!({ "name": "ci", "template": "read_only", "networks": ["203.0.113.7/24", "2001:db8::1"] });
    let (key, described) = made(&acme, networks).await;
    assert_eq!(described["networks"], json!(["203.0.113.0/24", "2001:db8::1/128"]));
    for elsewhere in ["198.51.100.1", "203.0.114.1", "2001:db8::2"] {
        let refused = from(&key, elsewhere).await.problem(403, "forbidden", None);
        assert_eq!(refused["reason"], "source_network", "{elsewhere}");
    }
    assert_eq!(
        key.get("/jobs").await.problem(403, "forbidden", None)["reason"],
        "source_network",
        "from nowhere known"
    );
    let used = async || {
        let keys = acme.get("/api-keys").await.expect(200);
        let key = keys["items"].as_array().unwrap().iter().find(|key| key["name"] == "ci").unwrap().clone();
        (key["last_used_at"].clone(), key["last_used_from"].clone())
    };
    assert_eq!(used().await, (Value::Null, Value::Null), "what is refused is no use");
    // What was found a moment ago is not looked up again.
    platform.clock.advance(chrono::Duration::seconds(1));
    for within in ["203.0.113.200", "::ffff:203.0.113.9", "2001:db8::1"] {
        from(&key, within).await.expect(200);
    }
    assert_eq!(used().await, (json!("2026-01-15T12:00:01Z"), json!("203.0.113.200")));
    platform.clock.advance(chrono::Duration::minutes(1));
    from(&key, "2001:db8::1").await.expect(200);
    assert_eq!(used().await, (json!("2026-01-15T12:01:01Z"), json!("2001:db8::1")));
    let wrong = json!({ "name": "x", "template": "full", "networks": ["203.0.113.0/24", "everywhere"] });
    acme.post("/api-keys", &wrong).await.problem(422, "invalid_field", Some("networks[1]"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_that_is_replaced_works_until_the_overlap_is_over(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let month = json!({ "name": "ci", "template": "deploy", "expires_at": "2026-02-14T12:00:00Z" });
    let (old, described) = made(&acme, month).await;
    platform.clock.advance(chrono::Duration::days(10));
    let path = format!("/api-keys/{}/rotate", id(&described));
    let answer = acme.post(&path, &json!({ "overlap_seconds": 3600 })).await.expect(201);
    let new = acme.with_token(answer["token"].as_str().unwrap());
    let made_key = &answer["api_key"];
    assert_eq!((&made_key["scopes"], &made_key["name"]), (&described["scopes"], &described["name"]));
    assert_eq!(made_key["expires_at"], "2026-02-24T12:00:00Z", "it lasts as long as the old one did");
    old.get("/jobs").await.expect(200);
    new.get("/jobs").await.expect(200);
    acme.post(&path, &json!({})).await.problem(409, "wrong_state", None);
    platform.clock.advance(chrono::Duration::hours(1));
    old.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    new.get("/jobs").await.expect(200);

    let path = format!("/api-keys/{}/rotate", id(made_key));
    acme.post(&path, &json!({ "overlap_seconds": 604_801 })).await.problem(
        422,
        "invalid_field",
        Some("overlap_seconds"),
    );
    let few = platform.key(acme.organization, &[Permission::ManageApiKeys]).await;
    let refused = few.post(&path, &json!({})).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "escalation", "who replaces a key gets what it allows");
    acme.post(&path, &json!({ "overlap_seconds": 0 })).await.expect(201);
    new.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    let unknown = "/api-keys/key_01h455vb4pex5vsknk084sn02q/rotate";
    acme.post(unknown, &json!({})).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn tokens_that_were_never_given_out_are_refused_whatever_they_look_like(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let right = acme.token.clone();
    let mut cut = right.clone();
    cut.pop();
    let mistyped = format!("{}{}", cut, if right.ends_with('0') { '1' } else { '0' });
    let huge = format!("gk_{}", "A".repeat(100_000));
    let longer = format!("{right}0");
    for wrong in [cut.as_str(), &mistyped, &huge, &longer, "gk_", "eyJhbGciOiJub25lIn0.e30."] {
        let answer = acme.with_token(wrong).get("/jobs").await;
        answer.problem(401, "unauthenticated", Some("Authorization"));
    }
    acme.get("/jobs").await.expect(200);
}

/// What a process remembers of a key is forgotten when the database tells of it: its time stands still here, so nothing is
/// forgotten by itself. Redis is away all the while.
#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_revoked_key_dies_in_every_process_also_without_redis(pool: PgPool) {
    let one = Platform::new(pool.clone()).await;
    let other = Platform::new(pool).await;
    let listening = [one.app.clone(), other.app.clone()];
    let listeners: Vec<_> = listening.into_iter().map(|app| tokio::spawn(async move { app.listen().await })).collect();
    other.app.hears().await;
    let acme = one.organization("acme").await;
    for kills in ["revoke", "rotate"] {
        let (key, described) = made(&acme, json!({ "name": kills, "template": "read_only" })).await;
        let there = Actor::bearing(&other.api, acme.organization, &key.token);
        key.get("/jobs").await.expect(200);
        there.get("/jobs").await.expect(200);
        let path = format!("/api-keys/{}", id(&described));
        match kills {
            "revoke" => drop(acme.delete(&path).await.expect(204)),
            _ => drop(acme.post(&format!("{path}/rotate"), &json!({ "overlap_seconds": 0 })).await.expect(201)),
        }
        key.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
        // It hears of it a moment later.
        while there.get("/jobs").await.status != 401 {
            tokio::task::yield_now().await;
        }
    }
    listeners.iter().for_each(tokio::task::JoinHandle::abort);
}
