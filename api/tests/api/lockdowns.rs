//! An organization and all below it locked down.

use chrono::TimeDelta;
use gantry_schema::memberships::Role;
use poem::http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Actor, Platform};

const REASON: &str = "A laptop was stolen";

fn lockdown(of: &Actor) -> String {
    format!("/organizations/{}/lockdown", of.organization)
}

fn unlock(of: &Actor) -> String {
    format!("/organizations/{}/unlock", of.organization)
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_of_it_does_anything_until_it_is_unlocked_and_then_everything_is_as_before(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let branch = platform.below(acme.organization, "branch").await;
    let ada = platform.member("ada@example.com", acme.organization, Role::Owner).await;
    let bob = platform.member("bob@example.com", branch.organization, Role::Viewer).await;
    platform.clock.advance(TimeDelta::minutes(1));
    let body = json!({ "reason": REASON, "queues": ["default"] });
    let locked = acme.post(&lockdown(&acme), &body).await.expect(201);
    assert_eq!((&locked["reason"], &locked["queues"]), (&json!(REASON), &json!(["default"])));

    let refused = acme.get("/jobs").await.problem(403, "locked_down", None);
    assert_eq!(refused["reason"], "locked_down");
    branch.get("/jobs").await.problem(403, "locked_down", None);
    acme.post(&unlock(&acme), &json!({ "reason": "because" })).await.problem(403, "locked_down", None);
    // Sessions that were there have ended.
    ada.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    bob.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    other.get("/jobs").await.expect(200);
    assert_eq!(platform.count("job_holds").await, 2, "of both organizations");
    acme.post(&lockdown(&acme), &body).await.problem(403, "locked_down", None);
    let operator = platform.operator().await;
    operator.post(&lockdown(&acme), &body).await.problem(409, "wrong_state", None);
    // What is put below it meanwhile is held too.
    platform.below(branch.organization, "twig").await.get("/jobs").await.problem(403, "locked_down", None);
    assert_eq!(platform.count("job_holds").await, 3);

    operator.post(&unlock(&branch), &json!({ "reason": "no" })).await.problem(409, "wrong_state", None);
    operator.post(&unlock(&acme), &json!({ "reason": "It was found" })).await.expect(200);
    acme.get("/jobs").await.expect(200);
    branch.get("/jobs").await.expect(200);
    ada.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    assert_eq!(platform.count("job_holds").await, 0);
    let again = platform.signed_in(ada.id, "ada@example.com").await;
    again.get("/jobs").await.expect(200);
    operator.post(&unlock(&acme), &json!({ "reason": "again" })).await.problem(409, "wrong_state", None);

    let list = again.get(&format!("/organizations/{}/lockdowns", acme.organization)).await.expect(200);
    assert_eq!((&list["items"][0]["end_reason"], list["items"].as_array().unwrap().len()), (&json!("It was found"), 1));
    let told = async |of: &Actor, event: &str| {
        let page = of.get(&format!("/events?types=security.{event}")).await.expect(200);
        page["items"].as_array().unwrap().len()
    };
    assert_eq!((told(&acme, "lockdown_started").await, told(&operator, "lockdown_ended").await), (1, 1));
    let recorded = acme.get("/audit-entries?outcome=allowed").await.expect(200).to_string();
    assert!(recorded.contains(REASON), "{recorded}");
    assert_eq!(told(&acme, "lockdown_ended").await, 1, "from above");
    let notices = acme.get("/notices?dismissed=false").await.expect(200);
    assert_eq!(notices["items"], json!([]), "it is no longer so");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_who_signs_in_anew_unlocks_and_does_nothing_else_before(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.member("ada@example.com", acme.organization, Role::Owner).await;
    platform.member("bob@example.com", acme.organization, Role::Viewer).await;
    platform.clock.advance(TimeDelta::minutes(11));
    let body = json!({ "reason": REASON });
    // It needs a proof of the last minutes.
    ada.post(&lockdown(&acme), &body).await.problem(401, "insufficient_user_authentication", None);
    let ada = platform.signed_in(ada.id, "ada@example.com").await;
    platform.clock.advance(TimeDelta::seconds(1));
    ada.post(&lockdown(&acme), &body).await.expect(201);
    platform.clock.advance(TimeDelta::seconds(1));
    ada.post(&unlock(&acme), &json!({ "reason": "I did it" })).await.problem(
        401,
        "unauthenticated",
        Some("Authorization"),
    );
    let ada = platform.signed_in(ada.id, "ada@example.com").await;
    ada.get("/jobs").await.problem(403, "locked_down", None);
    ada.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.problem(403, "locked_down", None);
    platform.clock.advance(TimeDelta::minutes(11));
    ada.post(&unlock(&acme), &json!({ "reason": "late" })).await.problem(401, "insufficient_user_authentication", None);
    let ada = platform.signed_in(ada.id, "ada@example.com").await;
    ada.post(&unlock(&acme), &json!({ "reason": "" })).await.problem(422, "invalid_field", Some("reason"));
    ada.post(&unlock(&acme), &json!({ "reason": "It was found" })).await.expect(200);
    ada.get("/jobs").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_locks_what_is_not_below_him_or_without_the_permission(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let branch = platform.below(acme.organization, "branch").await;
    let viewer = platform.member("bob@example.com", acme.organization, Role::Viewer).await;
    let body = json!({ "reason": REASON });
    other.post(&lockdown(&acme), &body).await.problem(404, "not_found", None);
    branch.post(&lockdown(&acme), &body).await.problem(404, "not_found", None);
    viewer.post(&lockdown(&acme), &body).await.problem(403, "forbidden", None);
    let unknown = json!({ "reason": REASON, "queues": ["default", "no such"] });
    acme.post(&lockdown(&acme), &unknown).await.problem(422, "invalid_field", Some("queues[1]"));
    acme.get("/jobs").await.expect(200);
    assert_eq!(platform.count("lockdowns").await, 0);
    acme.post(&lockdown(&branch), &body).await.expect(201);
    branch.get("/jobs").await.problem(403, "locked_down", None);
    other.post(&unlock(&branch), &body).await.problem(404, "not_found", None);
    acme.post(&unlock(&branch), &body).await.expect(200);
    branch.get("/jobs").await.expect(200);
    drop(viewer.get("/jobs").await.expect(200));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_put_below_a_locked_organization_is_held_with_its_jobs_and_goes_on_elsewhere(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let operator = platform.operator().await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let branch = platform.below(globex.organization, "branch").await;
    let leaf = platform.below(branch.organization, "leaf").await;
    acme.post(&lockdown(&acme), &json!({ "reason": REASON, "queues": ["default"] })).await.expect(201);
    leaf.get("/jobs").await.expect(200);
    let put_below = async |parent: &Actor| {
        let path = format!("/organizations/{}/move", branch.organization);
        let body = json!({ "parent_id": parent.organization }).to_string();
        let mut request = operator.request(Method::POST, &path, Some(body.into()));
        request.headers_mut().insert("If-Match", "*".parse().unwrap());
        operator.send_as_is(request).await.expect(200);
    };
    let held = async || {
        let held: Vec<uuid::Uuid> =
            sqlx::query_scalar("select organization_id from job_holds order by organization_id")
                .fetch_all(&platform.pool)
                .await
                .unwrap();
        held.len()
    };
    assert_eq!(held().await, 1);
    put_below(&acme).await;
    assert_eq!(held().await, 3, "with all that is below it");
    leaf.get("/jobs").await.problem(403, "locked_down", None);
    put_below(&globex).await;
    assert_eq!(held().await, 1);
    leaf.get("/jobs").await.expect(200);
    put_below(&acme).await;
    operator.post(&unlock(&acme), &json!({ "reason": "It was found" })).await.expect(200);
    assert_eq!(held().await, 0);
}
