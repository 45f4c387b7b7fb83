//! Licenses that wait for whoever has their code, that go to somebody else, and that somebody above decided about.

use chrono::Duration;
use gantry_schema::licenses::chain;
use gantry_schema::licenses::code::ClaimCode;
use gantry_schema::memberships::Role;
use rand::SeedableRng as _;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::licenses::{give, limit, make_child, of, place, to_resell};
use crate::support::{Actor, Platform};

fn claims(of: &Actor) -> String {
    format!("{}/claims", place(of))
}

fn code(of: &Value) -> Value {
    json!({ "code": of["code"] })
}

async fn events(platform: &Platform, kind: &str) -> Vec<Value> {
    sqlx::query_scalar("select payload from events where type = $1 order by id")
        .bind(kind)
        .fetch_all(&platform.pool)
        .await
        .unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_code_puts_its_license_in_force_once_and_for_whom_it_was_made(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let operator = platform.operator().await;
    let new = json!({ "tier": "professional", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" });
    let kept = operator.post(&claims(&acme), &new).await.expect(201);
    assert_eq!(acme.get("/license").await.expect(200)["state"], "unlicensed", "nobody has claimed it");
    // As somebody reads it out, and types it.
    let typed = json!({ "code": kept["code"].as_str().unwrap().to_lowercase().replace('-', " ") });
    other.post("/license/claim", &typed).await.problem(422, "invalid_field", Some("code"));
    let mut wrong = kept["code"].as_str().unwrap().to_owned();
    wrong.replace_range(0..1, if wrong.starts_with('7') { "8" } else { "7" });
    let problem =
        acme.post("/license/claim", &json!({ "code": wrong })).await.problem(422, "invalid_field", Some("code"));
    assert!(problem["detail"].as_str().unwrap().contains("typing mistake"), "{problem}");
    // Who may not, and who may: an owner.
    let admin = platform.member("admin@example.com", acme.organization, Role::Admin).await;
    admin.post("/license/claim", &typed).await.problem(403, "forbidden", None);
    let owner = platform.member("owner@example.com", acme.organization, Role::Owner).await;
    let claimed = owner.post("/license/claim", &typed).await.expect(200);
    assert_eq!((&claimed["state"], &claimed["tier"]), (&json!("valid"), &json!("professional")));
    owner.post("/license/claim", &typed).await.problem(422, "invalid_field", Some("code"));
    // What is listed says what became of it, and not the code.
    let listed = acme.get(&claims(&acme)).await.expect(200);
    let listed = &listed["items"][0];
    assert_eq!((&listed["id"], &listed["license_id"]), (&kept["id"], &claimed["id"]));
    assert!(listed["claimed_by"].as_str().unwrap().starts_with("person:usr_") && listed.get("code").is_none());
    assert_eq!(events(&platform, "license.issued").await.len(), 1);
    acme.post(&claims(&acme), &new).await.problem(403, "forbidden", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_code_that_is_over_withdrawn_or_overtaken_is_good_for_nothing(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let operator = platform.operator().await;
    let new = json!({ "tier": "professional", "type": "perpetual" });
    let keep = async || operator.post(&claims(&acme), &new).await.expect(201);
    let (first, second) = (keep().await, keep().await);
    // The newer one first: the older one is overtaken.
    acme.post("/license/claim", &code(&second)).await.expect(200);
    acme.post("/license/claim", &code(&first)).await.problem(409, "wrong_state", None);
    let overtaken = keep().await;
    give(&platform, &acme, json!({ "tier": "starter", "type": "perpetual" })).await;
    acme.post("/license/claim", &code(&overtaken)).await.problem(409, "wrong_state", None);
    assert_eq!(acme.get("/license").await.expect(200)["tier"], "starter");
    // Withdrawn, once.
    let withdrawn = keep().await;
    let path = format!("{}/{}", claims(&acme), withdrawn["id"].as_str().unwrap());
    operator.delete(&path).await.expect(204);
    operator.delete(&path).await.problem(409, "wrong_state", None);
    acme.post("/license/claim", &code(&withdrawn)).await.problem(422, "invalid_field", Some("code"));
    // A code is no way around a suspension.
    let before = keep().await;
    operator.post(&format!("{}/suspend", place(&acme)), &json!({ "reason": "Unpaid." })).await.expect(200);
    acme.post("/license/claim", &code(&before)).await.problem(409, "wrong_state", None);
    assert_eq!(acme.get("/license").await.expect(200)["state"], "suspended");
    platform.clock.advance(Duration::minutes(1));
    let after = keep().await;
    acme.post("/license/claim", &code(&after)).await.expect(200);
    let forgotten = keep().await;
    platform.clock.advance(Duration::days(30));
    acme.post("/license/claim", &code(&forgotten)).await.problem(422, "invalid_field", Some("code"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_guesses_codes_waits_longer_and_longer(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let kept = platform.operator().await.post(&claims(&acme), &json!({ "tier": "starter", "type": "perpetual" })).await;
    let kept = kept.expect(201);
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let mut refused = false;
    for _ in 0..30 {
        let guess = json!({ "code": ClaimCode::generate(&mut random).to_string() });
        let answer = acme.post("/license/claim", &guess).await;
        if answer.status.as_u16() == 429 {
            answer.problem(429, "too_many_requests", None);
            refused = true;
            break;
        }
        answer.problem(422, "invalid_field", Some("code"));
    }
    assert!(refused, "nobody stopped it");
    acme.post("/license/claim", &code(&kept)).await.problem(429, "too_many_requests", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_license_goes_to_another_organization_with_its_time_or_a_new_one(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let operator = platform.operator().await;
    let new = json!({
        "tier": "enterprise", "type": "subscription", "expires_at": "2026-07-15T12:00:00Z",
        "limits": [limit("child_organizations", 5)],
    });
    give(&platform, &acme, new).await;
    make_child(&acme, "child").await.expect(201);
    platform.clock.advance(Duration::days(10));
    let transfer = |expiry: &str| json!({ "organization_id": other.organization, "expiry": expiry, "reason": "The shop was sold." });
    let path = format!("{}/transfer", place(&acme));
    // Tried out, it says what the giver could not do any more, and changes nothing.
    let tried = operator.post(&format!("{path}?dry_run=true"), &transfer("keep")).await.expect(200);
    assert_eq!((&tried["dry_run"], &tried["license"]["organization_id"]), (&json!(true), &json!(other.organization)));
    assert_eq!(tried["giver"]["after"]["state"], "revoked");
    let named = |things: &Value, name: &str| things.as_array().unwrap().iter().any(|thing| thing["name"] == name);
    assert!(named(&tried["giver"]["operations"], "createApiKey"), "{tried}");
    let resources = tried["giver"]["resources"].as_array().unwrap();
    let children = resources.iter().find(|one| one["name"] == "child_organizations").unwrap();
    assert_eq!((&children["grows_before"], &children["grows_after"]), (&json!(true), &json!(false)));
    assert_eq!(acme.get("/license").await.expect(200)["state"], "valid");
    assert_eq!(other.get("/license").await.expect(200)["state"], "unlicensed");
    // Kept: it ends when it would have ended.
    let moved = operator.post(&path, &transfer("keep")).await.expect(200);
    assert_eq!(moved["license"]["ends_at"], "2026-07-15T12:00:00Z");
    assert_eq!(acme.get("/license").await.expect(200)["state"], "revoked");
    make_child(&acme, "another").await.problem(409, "license_state", None);
    acme.get("/organizations").await.expect(200);
    let has = other.get("/license").await.expect(200);
    assert_eq!((&has["state"], &of(&has, "child_organizations")["most"]), (&json!("valid"), &json!(5)));
    make_child(&other, "child").await.expect(201);
    let told = events(&platform, "license.transferred").await;
    assert_eq!(told[0]["organization_id"], acme.organization.to_string());
    let issued = events(&platform, "license.issued").await;
    assert_eq!(issued.last().unwrap()["organization_id"], other.organization.to_string());
    // Each side has it on record.
    let entries: Vec<(String, uuid::Uuid)> = sqlx::query_as(
        "select action, organization_id from audit_entries where action in ('license.transfer', 'license.receive')",
    )
    .fetch_all(&platform.pool)
    .await
    .unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.contains(&("license.transfer".to_owned(), acme.organization.uuid())));
    assert!(entries.contains(&("license.receive".to_owned(), other.organization.uuid())));
    // What is given away is not given twice, and nobody gets a second one.
    operator.post(&path, &transfer("keep")).await.problem(409, "wrong_state", None);
    give(&platform, &acme, json!({ "tier": "starter", "type": "perpetual" })).await;
    operator.post(&path, &transfer("keep")).await.problem(409, "wrong_state", None);
    // Reset: all of its time again.
    operator.delete(&place(&acme)).await.expect(200);
    let back = json!({ "organization_id": acme.organization, "expiry": "reset", "reason": "Sold back." });
    let moved = operator.post(&format!("{}/transfer", place(&other)), &back).await.expect(200);
    assert_eq!(moved["license"]["days_remaining"], 171, "{moved}");
    make_child(&acme, "second").await.expect(201);
    // To other host names.
    let rehost = json!({ "domains": ["*.shop.example"], "expiry": "keep", "reason": "Another name." });
    operator.post(&path, &rehost).await.expect(200);
    let has = acme.get("/license").await.expect(200);
    let says = chain::inspect(has["key"].as_str().unwrap()).unwrap().pop().unwrap().1;
    assert_eq!((&says["dom"], &says["exp"]), (&json!(["*.shop.example"]), &moved["license"]["ends_at"]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_somebody_above_suspended_or_revoked_only_he_or_one_above_him_gives_back(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let reseller = platform.organization("reseller").await;
    let customer = platform.below(reseller.organization, "customer").await;
    let elsewhere = platform.below(reseller.organization, "elsewhere").await;
    let operator = platform.operator().await;
    give(&platform, &reseller, to_resell(8, &["api_access", "reselling"])).await;
    let small = json!({ "tier": "starter", "type": "subscription" });
    reseller.post(&place(&customer), &small).await.expect(200);
    let (suspend, reinstate) = (format!("{}/suspend", place(&customer)), format!("{}/reinstate", place(&customer)));
    let why = json!({ "reason": "Abuse." });
    let kept = reseller.post(&claims(&customer), &small).await.expect(201);
    // What the reseller suspended, he and the platform lift.
    reseller.post(&suspend, &why).await.expect(200);
    operator.post(&reinstate, &json!({})).await.expect(200);
    reseller.post(&suspend, &why).await.expect(200);
    reseller.post(&reinstate, &json!({})).await.expect(200);
    // What the platform suspended, the reseller lifts in no way.
    operator.post(&suspend, &why).await.expect(200);
    reseller.post(&reinstate, &json!({})).await.problem(409, "wrong_state", None);
    reseller.post(&place(&customer), &small).await.problem(409, "wrong_state", None);
    reseller.post(&claims(&customer), &small).await.problem(409, "wrong_state", None);
    customer.post("/license/claim", &code(&kept)).await.problem(409, "wrong_state", None);
    let away = json!({ "organization_id": elsewhere.organization, "expiry": "keep", "reason": "Away." });
    reseller.post(&format!("{}/transfer", place(&customer)), &away).await.problem(409, "wrong_state", None);
    // Not even by revoking it first.
    reseller.delete(&place(&customer)).await.expect(200);
    reseller.post(&place(&customer), &small).await.problem(409, "wrong_state", None);
    assert_eq!(customer.get("/license").await.expect(200)["state"], "revoked");
    operator.post(&place(&customer), &small).await.expect(200);
    assert_eq!(customer.get("/license").await.expect(200)["state"], "valid");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operation_that_needs_a_feature_is_refused_without_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let many = json!({ "jobs": [{ "kind": "diagnostics.probe" }] });
    let bulk = async || acme.post("/jobs/bulk", &many).await;
    assert!(bulk().await.status.is_success(), "without a license everything may be used");
    let with = async |features: Value| {
        let new = json!({
            "tier": "enterprise", "type": "subscription", "expires_at": "2026-07-15T12:00:00Z", "features": features,
        });
        give(&platform, &acme, new).await;
    };
    with(json!(["api_access"])).await;
    let problem = bulk().await.problem(403, "forbidden", None);
    assert_eq!(problem["reason"], "license");
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
    with(json!(["api_access", "bulk_operations"])).await;
    let answer = bulk().await;
    assert!(answer.status.is_success(), "{}", answer.text);
    // In the grace, bulk operations are over, and the rest goes on.
    platform.clock.advance(Duration::days(182));
    bulk().await.problem(403, "forbidden", None);
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.expect(202);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn answers_say_how_much_of_the_license_is_used(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = json!({ "tier": "enterprise", "type": "perpetual", "limits": [limit("child_organizations", 8)] });
    make_child(&acme, "first").await.expect(201);
    give(&platform, &acme, license).await;
    let answer = acme.get("/license").await;
    assert_eq!(answer.header("X-Usage-Child-Organizations"), "12%");
    assert!(answer.headers.get("X-Usage-Servers").is_none(), "of what there may be any number nothing is said");
}
