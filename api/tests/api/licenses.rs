//! What organizations may use, and how many of it there may be.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;
use futures::{StreamExt as _, stream};
use gantry_schema::OrganizationId;
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Kind, VERSION};
use gantry_schema::licenses::{SecretKey, chain, queries};
use gantry_schema::memberships::{self, Role};
use gantry_schema::organizations::Permission;
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, Api, Platform, sealing_keys};

/// Requests under way at the same time; more would be refused for being too many.
const AT_ONCE: usize = 100;

pub fn place(of: &Actor) -> String {
    format!("/organizations/{}/license", of.organization)
}

pub fn install(of: &Actor) -> String {
    format!("{}/install", place(of))
}

pub async fn give(platform: &Platform, to: &Actor, body: Value) -> Value {
    platform.operator().await.post(&place(to), &body).await.expect(200)
}

pub fn limit(name: &str, most: u32) -> Value {
    json!({ "name": name, "most": most })
}

pub async fn make_child(of: &Actor, name: &str) -> Answer {
    of.post("/organizations", &json!({ "name": name })).await
}

pub fn of<'a>(license: &'a Value, name: &str) -> &'a Value {
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
    let license = json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("child_organizations", 100)] });
    give(&platform, &acme, license).await;
    let names: Vec<String> = (0..1_000).map(|number| format!("child {number}")).collect();
    let (acme, making) = (&acme, names.iter());
    let answers: Vec<Answer> =
        stream::iter(making).map(|name| make_child(acme, name)).buffer_unordered(AT_ONCE).collect().await;
    let statuses = answers.iter().fold(BTreeMap::new(), |mut counts, answer| {
        *counts.entry(answer.status.as_u16()).or_insert(0) += 1;
        counts
    });
    assert_eq!(statuses, BTreeMap::from([(201, 100), (409, 900)]));
    let license = acme.get("/license").await.expect(200);
    assert_eq!(of(&license, "child_organizations")["used"], 100);
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
    operator.post(&install(&acme), &second).await.problem(422, "invalid_field", Some("key"));
    platform.app = platform.app.clone().believing(vec![vendor.public()]);
    platform.api = Api::of(&platform.app);
    let operator = platform.operator().await;
    operator.post(&install(&acme), &others).await.problem(422, "invalid_field", Some("key"));
    assert_eq!(operator.post(&install(&acme), &second).await.expect(200)["tier"], "custom");
    operator.post(&install(&acme), &first).await.problem(409, "wrong_state", None);
    operator.post(&install(&acme), &second).await.problem(409, "wrong_state", None);
}

/// A license that an organization may pass on.
pub fn to_resell(users: u32, features: &[&str]) -> Value {
    json!({
        "tier": "enterprise", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z", "features": features,
        "limits": [limit("users", users), limit("child_organizations", 20)],
    })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_resold_is_within_what_the_reseller_has_and_shrinks_with_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let reseller = platform.organization("reseller").await;
    let customer = platform.below(reseller.organization, "customer").await;
    let small = json!({ "tier": "professional", "type": "subscription" });
    // Whoever has no license of his own that lets him gives none.
    let problem = reseller.post(&place(&customer), &small).await.problem(403, "forbidden", None);
    assert_eq!(problem["reason"], "license");
    give(&platform, &reseller, to_resell(8, &["api_access"])).await;
    reseller.post(&place(&customer), &small).await.problem(403, "forbidden", None);
    let features = ["api_access", "domain_management", "reselling", "server_provisioning"];
    give(&platform, &reseller, to_resell(8, &features)).await;
    // Wider is refused, and says in what.
    for (field, name, value) in [
        ("features", "features", json!(["sso_integration"])),
        ("limits", "limits", json!([limit("users", 9)])),
        ("limits", "limits", json!([{ "name": "users" }])),
        ("expires_at", "expires_at", json!("2027-01-15T12:00:01Z")),
        ("grace_days", "grace_days", json!(8)),
    ] {
        let mut wider = small.clone();
        wider[name] = value;
        reseller.post(&place(&customer), &wider).await.problem(422, "invalid_field", Some(field));
    }
    let given = reseller.post(&place(&customer), &small).await.expect(200);
    assert_eq!((&given["state"], &given["ends_at"]), (&json!("valid"), &json!("2027-01-15T12:00:00Z")));
    assert_eq!(of(&given, "users")["most"], 8, "what the tier has more is left out: {given}");
    let names = |license: &Value| {
        let features = license["features"].as_array().unwrap();
        features.iter().map(|feature| feature["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&given), ["api_access", "domain_management", "server_provisioning"]);
    // One that says more than the one above it is not believed, whoever signed it.
    let mut tx = platform.app.db.tenant(reseller.organization).await.unwrap();
    let key = queries::issuer(&mut tx, &sealing_keys()).await.unwrap();
    drop(tx);
    let above = reseller.get("/license").await.expect(200)["key"].as_str().unwrap().to_owned();
    let own = given["key"].as_str().unwrap().strip_prefix(&above).unwrap().trim_start_matches('~');
    assert!(own.starts_with("v4.public."), "the chain is the reseller's license and the customer's");
    let read = chain::inspect(given["key"].as_str().unwrap()).unwrap().pop().unwrap().1;
    let mut claims: Claims = serde_json::from_value(read).unwrap();
    claims.seq += 1;
    claims.jti = platform.app.db.ids().mint();
    let fits = chain::issue(Some(&above), &claims, &key).unwrap();
    claims.lim.insert("users".to_owned(), Some(9));
    let wide = chain::issue(Some(&above), &claims, &key).unwrap();
    let operator = platform.operator().await;
    let problem =
        operator.post(&install(&customer), &json!({ "key": wide })).await.problem(422, "invalid_field", Some("key"));
    assert!(problem["detail"].as_str().unwrap().contains("the limit users is higher"), "{problem}");
    operator.post(&install(&customer), &json!({ "key": fits })).await.expect(200);
    // What the reseller has less of, the customer has less of.
    give(&platform, &reseller, to_resell(2, &["api_access", "reselling"])).await;
    let shrunk = customer.get("/license").await.expect(200);
    assert_eq!((&of(&shrunk, "users")["most"], names(&shrunk)), (&json!(2), vec!["api_access".to_owned()]));
    for (number, name) in ["ada@example.com", "bob@example.com"].into_iter().enumerate() {
        let person = platform.person(name).await;
        platform
            .join(person, if number == 0 { customer.organization } else { reseller.organization }, Role::Owner)
            .await;
    }
    let eve = platform.person("eve@example.com").await;
    let mut tx = platform.app.db.tenant(customer.organization).await.unwrap();
    let refused = memberships::insert(&mut tx, eve, Role::Member).await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().constraint(), Some("license_limit"), "both count together");
    drop(tx);
    // What is taken from the reseller is taken from the customer, and given back with it.
    operator.post(&format!("{}/suspend", place(&reseller)), &json!({ "reason": "Unpaid." })).await.expect(200);
    assert_eq!(customer.get("/license").await.expect(200)["state"], "suspended");
    make_child(&customer, "a").await.problem(409, "license_state", None);
    reseller.post(&place(&customer), &small).await.problem(403, "forbidden", None);
    operator.post(&format!("{}/reinstate", place(&reseller)), &json!({})).await.expect(200);
    make_child(&customer, "a").await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_reseller_decides_about_what_he_gave_and_nothing_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let reseller = platform.organization("reseller").await;
    let (one, other) =
        (platform.below(reseller.organization, "one").await, platform.below(reseller.organization, "other").await);
    let stranger = platform.organization("stranger").await;
    give(&platform, &reseller, to_resell(8, &["api_access", "reselling"])).await;
    give(&platform, &other, json!({ "tier": "starter", "type": "perpetual" })).await;
    let small = json!({ "tier": "starter", "type": "subscription" });
    reseller.post(&place(&one), &small).await.expect(200);
    let open = json!({ "reason": "Unpaid." });
    reseller.post(&format!("{}/suspend", place(&one)), &open).await.expect(200);
    reseller.post(&format!("{}/reinstate", place(&one)), &json!({})).await.expect(200);
    assert_eq!(reseller.delete(&place(&one)).await.expect(200)["state"], "revoked");
    reseller.post(&place(&one), &small).await.expect(200);
    for of in [&other, &reseller] {
        reseller.post(&place(of), &small).await.problem(409, "wrong_state", None);
        reseller.post(&format!("{}/suspend", place(of)), &open).await.problem(409, "wrong_state", None);
        reseller.delete(&place(of)).await.problem(409, "wrong_state", None);
    }
    reseller.post(&place(&stranger), &small).await.problem(404, "not_found", None);
    // Passed on once more, within what is left.
    give(&platform, &reseller, to_resell(8, &["api_access", "reselling"])).await;
    let further = json!({ "tier": "starter", "type": "subscription", "features": ["reselling"], "resale_depth": 7 });
    reseller.post(&place(&one), &further).await.problem(422, "invalid_field", Some("resale_depth"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_another_license_would_change_is_told_before_it_is_made_and_is_what_it_then_changes(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let below = platform.below(acme.organization, "below").await;
    let enterprise = json!({ "tier": "enterprise", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" });
    give(&platform, &acme, enterprise).await;
    make_child(&acme, "another").await.expect(201);
    let simulate = async |body: Value| acme.post("/licenses/simulate", &body).await.expect(200);
    let names = |things: &Value| -> Vec<String> {
        things.as_array().unwrap().iter().map(|thing| thing["name"].as_str().unwrap().to_owned()).collect()
    };
    // A downgrade: what is there stays, and no more is added.
    let starter = json!({ "tier": "starter", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" });
    let downgrade = simulate(json!({ "license": starter })).await;
    assert_eq!((&downgrade["before"]["tier"], &downgrade["after"]["tier"]), (&json!("enterprise"), &json!("starter")));
    assert!(names(&downgrade["features"]).contains(&"sso_integration".to_owned()), "{downgrade}");
    let refused: Vec<&Value> = downgrade["operations"].as_array().unwrap().iter().collect();
    assert!(refused.iter().all(|change| change["allowed"] == false), "{downgrade}");
    let adding = ["createOrganization", "moveOrganization", "restoreOrganization"];
    let with_features =
        ["addOrganizationHost", "askForJobs", "exportAuditEntries", "postEvents", "setAuditPolicy", "takeAuditArchive"];
    let expected: BTreeSet<&str> = adding.into_iter().chain(with_features).collect();
    let refused = names(&downgrade["operations"]);
    assert_eq!(refused.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
    let children = of_list(&downgrade["resources"], "child_organizations");
    assert_eq!(
        (&children["used"], &children["most_after"], &children["exceeded"]),
        (&json!(2), &json!(0), &json!(true))
    );
    assert_eq!((&children["grows_before"], &children["grows_after"]), (&json!(true), &json!(false)));
    // Nothing of it has happened.
    assert_eq!(acme.get("/license").await.expect(200)["tier"], "enterprise");
    make_child(&acme, "third").await.expect(201);
    // Time, and a decision.
    let ended = simulate(json!({ "at": "2027-03-01T00:00:00Z" })).await;
    assert_eq!((&ended["after"]["state"], &ended["before"]["state"]), (&json!("expired"), &json!("valid")));
    let operations = names(&ended["operations"]);
    assert!(operations.contains(&"createOrganization".to_owned()) && !operations.contains(&"createApiKey".to_owned()));
    let revoked = simulate(json!({ "decision": "revoked" })).await;
    assert!(names(&revoked["operations"]).contains(&"createApiKey".to_owned()), "{revoked}");
    let without = simulate(json!({ "license": { "tier": "starter", "type": "perpetual", "features": [] } })).await;
    assert!(names(&without["operations"]).contains(&"createApiKey".to_owned()), "{without}");
    // What was told comes about.
    give(&platform, &acme, starter).await;
    make_child(&acme, "fourth").await.problem(409, "license_limit", None);
    let key = json!({ "name": "a", "scopes": ["jobs:read"] });
    acme.post("/api-keys", &key).await.expect(201);
    platform.operator().await.delete(&place(&acme)).await.expect(200);
    acme.post("/api-keys", &key).await.problem(403, "forbidden", None);
    // Of one below, and of nobody else's.
    below.post("/licenses/simulate", &json!({ "organization_id": acme.organization })).await.problem(
        404,
        "not_found",
        None,
    );
}

fn of_list<'a>(things: &'a Value, name: &str) -> &'a Value {
    things.as_array().unwrap().iter().find(|thing| thing["name"] == name).unwrap()
}
