//! What organizations may use, and how many of it there may be.

use std::collections::BTreeMap;

use chrono::Duration;
use futures::future::join_all;
use gantry_schema::OrganizationId;
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Kind, VERSION};
use gantry_schema::licenses::{SecretKey, chain};
use gantry_schema::memberships::Role;
use gantry_schema::organizations::Permission;
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Api, Platform};

fn place(of: &Actor) -> String {
    format!("/organizations/{}/license", of.organization)
}

async fn give(platform: &Platform, to: &Actor, body: Value) -> Value {
    platform.operator().await.post(&place(to), &body).await.expect(200)
}

fn limit(name: &str, most: u32) -> Value {
    json!({ "name": name, "most": most })
}

async fn make_child(of: &Actor, name: &str) -> Answer {
    of.post("/organizations", &json!({ "name": name })).await
}

fn of<'a>(license: &'a Value, name: &str) -> &'a Value {
    let limits = license["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == name).unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn without_a_license_everything_may_be_used(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let answer = acme.get("/license").await;
    assert!(answer.headers.get("X-License-Status").is_none());
    assert_eq!(answer.expect(200)["state"], "unlicensed");
    make_child(&acme, "child").await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn over_a_limit_nothing_is_added_and_nothing_is_taken_away(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = make_child(&acme, "first").await.expect(201);
    let license = json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("child_organizations", 2)] });
    let given = give(&platform, &acme, license).await;
    assert_eq!(given["state"], "valid");
    assert_eq!(of(&given, "child_organizations")["used"], 1);
    let second = make_child(&acme, "second").await.expect(201);
    let problem = make_child(&acme, "third").await.problem(409, "license_limit", None);
    assert!(problem["detail"].as_str().unwrap().contains("allows 2 child organizations, and 2 are used"), "{problem}");
    // What goes makes room, and what comes below counts as well.
    let path = format!("/organizations/{}", second["id"].as_str().unwrap());
    acme.with(&[("If-Match", "*")], Method::DELETE, &path, None).await.expect(204);
    make_child(&acme, "third").await.expect(201);
    // With a license for less, what is there stays.
    let less = json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("child_organizations", 1)] });
    let rehearsed = platform.operator().await.post(&format!("{}?dry_run=true", place(&acme)), &less).await.expect(200);
    assert_eq!(
        (&of(&rehearsed, "child_organizations")["exceeded"], &rehearsed["dry_run"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(of(&acme.get("/license").await.expect(200), "child_organizations")["exceeded"], false);
    let given = give(&platform, &acme, less).await;
    assert_eq!((&given["state"], &of(&given, "child_organizations")["used"]), (&json!("valid"), &json!(2)));
    make_child(&acme, "fourth").await.problem(409, "license_limit", None);
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    // A license above counts what is below, and its numbers are not told there.
    let below = platform.key(first["id"].as_str().unwrap().parse().unwrap(), &[Permission::ManageOrganizations]).await;
    let problem = make_child(&below, "fifth").await.problem(409, "license_limit", None);
    assert!(problem["detail"].as_str().unwrap().starts_with("a license above allows no more"), "{problem}");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_many_that_come_at_once_as_many_get_in_as_there_may_be(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("child_organizations", 10)] });
    give(&platform, &acme, license).await;
    let names: Vec<String> = (0..60).map(|number| format!("child {number}")).collect();
    let answers = join_all(names.iter().map(|name| make_child(&acme, name))).await;
    let statuses = answers.iter().fold(BTreeMap::new(), |mut counts, answer| {
        *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
        counts
    });
    assert_eq!(statuses, BTreeMap::from([(201, 10), (409, 50)]));
    let license = acme.get("/license").await.expect(200);
    assert_eq!(of(&license, "child_organizations")["used"], 10);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_license_ends_step_by_step_and_what_runs_goes_on(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = json!({ "tier": "enterprise", "type": "subscription", "expires_at": "2026-07-15T12:00:00Z" });
    give(&platform, &acme, license).await;
    let mut number = 0;
    let mut after = async |days, state: &str, grows: bool| {
        platform.clock.advance(Duration::days(days));
        let answer = acme.get("/license").await;
        assert_eq!(answer.header("X-License-Status"), state);
        assert_eq!(answer.expect(200)["state"], state);
        number += 1;
        let made = make_child(&acme, &format!("child {number}")).await;
        if grows {
            made.expect(201);
        } else {
            made.problem(409, "license_state", None);
        }
        acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    };
    after(0, "valid", true).await;
    after(155, "warning", true).await;
    after(27, "grace", true).await;
    after(7, "expired", false).await;
    let renewed = json!({ "tier": "enterprise", "type": "subscription", "expires_at": "2027-07-15T12:00:00Z" });
    give(&platform, &acme, renewed).await;
    after(0, "valid", true).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_suspended_or_revoked_is_so_in_every_process_at_once(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let other = Api::of(&platform.app.clone());
    let acme = platform.organization("acme").await;
    let operator = platform.operator().await;
    give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual" })).await;
    let suspend = json!({ "reason": "The invoice is open." });
    let suspended = operator.post(&format!("{}/suspend", place(&acme)), &suspend).await.expect(200);
    assert_eq!((&suspended["state"], &suspended["reason"]), (&json!("suspended"), &suspend["reason"]));
    let ask = acme.request(Method::POST, "/organizations", Some(Body::from_string(json!({ "name": "a" }).to_string())));
    other.send(ask).await.problem(409, "license_state", None);
    operator.post(&format!("{}/reinstate", place(&acme)), &json!({})).await.expect(200);
    make_child(&acme, "b").await.expect(201);
    let revoked = operator.delete(&place(&acme)).await.expect(200);
    assert_eq!(revoked["state"], "revoked");
    make_child(&acme, "c").await.problem(409, "license_state", None);
    operator.post(&format!("{}/reinstate", place(&acme)), &json!({})).await.problem(409, "wrong_state", None);
    acme.get("/organizations").await.expect(200);
    give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual" })).await;
    make_child(&acme, "d").await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_license_does_not_have_is_refused_with_its_reason(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    give(&platform, &acme, json!({ "tier": "enterprise", "type": "perpetual", "features": [] })).await;
    let new = json!({ "name": "a", "scopes": ["jobs:read"] });
    let problem = acme.post("/api-keys", &new).await.problem(403, "forbidden", None);
    assert_eq!(problem["reason"], "license");
    give(&platform, &acme, json!({ "tier": "starter", "type": "perpetual" })).await;
    acme.post("/api-keys", &new).await.expect(201);
    let ada = platform.person("ada@example.com").await;
    platform.join(ada, acme.organization, Role::Owner).await;
    let license = acme.get("/license").await.expect(200);
    assert_eq!((&of(&license, "users")["used"], &of(&license, "users")["remaining"]), (&json!(1), &json!(2)));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_key_that_was_signed_elsewhere_is_believed_if_the_operator_says_so(pool: PgPool) {
    let mut platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let vendor = SecretKey::from_seed(&[7; 32]);
    let now = platform.app.db.now();
    let sign = |number, sub: OrganizationId| {
        let claims = Claims {
            ver: VERSION,
            jti: platform.app.db.ids().mint(),
            iss: "vendor".to_owned(),
            sub,
            aud: ANY_INSTANCE.to_owned(),
            iat: now,
            nbf: now,
            exp: Some(now + Duration::days(365)),
            typ: Kind::Subscription,
            tier: "custom".to_owned(),
            feat: ["api_access".to_owned()].into(),
            lim: [("users".to_owned(), Some(5))].into(),
            dom: Vec::new(),
            grace: 0,
            deg: BTreeMap::new(),
            gra: [].into(),
            seq: number,
            par: None,
            cld: None,
            off: None,
            epo: 0,
        };
        json!({ "key": chain::issue(None, &claims, &vendor).unwrap() })
    };
    let (second, first) = (sign(2, acme.organization), sign(1, acme.organization));
    let others = sign(3, OrganizationId::PLATFORM);
    let operator = platform.operator().await;
    operator.put(&place(&acme), &second).await.problem(422, "invalid_field", Some("key"));
    platform.app = platform.app.clone().believing(vec![vendor.public()]);
    platform.api = Api::of(&platform.app);
    let operator = platform.operator().await;
    operator.put(&place(&acme), &others).await.problem(422, "invalid_field", Some("key"));
    assert_eq!(operator.put(&place(&acme), &second).await.expect(200)["tier"], "custom");
    operator.put(&place(&acme), &first).await.problem(409, "wrong_state", None);
    operator.put(&place(&acme), &second).await.problem(409, "wrong_state", None);
}
