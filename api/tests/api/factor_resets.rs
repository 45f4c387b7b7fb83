//! Two people have somebody's second factors removed who lost them, and nobody else does.

use chrono::TimeDelta;
use data_encoding::BASE32_NOPAD;
use gantry_schema::factors::totp;
use gantry_schema::memberships::Role;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::sign_up::letters;
use crate::support::{Actor, Human, PASSWORD, Platform};

fn path(of: &Actor, rest: &str) -> String {
    format!("/organizations/{}/factor-resets{rest}", of.organization)
}

/// With a device that shows codes.
async fn enrolled(platform: &Platform, email: &str, of: &Actor, role: Role) -> Human {
    let human = platform.member(email, of.organization, role).await;
    let begun = human.post("/me/factors/totp", &json!({ "name": "A telephone" })).await.expect(201);
    let secret = BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
    let code = totp::code(&secret, totp::step(platform.app.db.now()));
    let confirm = format!("/me/factors/{}/confirm", begun["factor"]["id"].as_str().unwrap());
    human.post(&confirm, &json!({ "code": code })).await.expect(200);
    human
}

fn about(human: &Human) -> Value {
    json!({ "person_id": human.id, "reason": "His telephone was stolen" })
}

async fn told(of: &Actor, event: &str) -> Vec<Value> {
    let events = of.get(&format!("/events?types={event}")).await.expect(200);
    events["items"].as_array().unwrap().iter().map(|event| event["payload"].clone()).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn one_asks_another_agrees_and_whose_they_are_is_told_both_times(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let boss = platform.member("boss@example.com", acme.organization, Role::Owner).await;
    let admin = platform.member("admin@example.com", acme.organization, Role::Admin).await;
    let ada = enrolled(&platform, "ada@example.com", &acme, Role::Member).await;
    let sign_in = json!({ "email": "ada@example.com", "password": PASSWORD, "kind": "program" });
    platform.post("/sessions", &sign_in).await.expect(202);

    let asked = admin.post(&path(&acme, ""), &about(&ada)).await.expect(201);
    let id = asked["id"].as_str().unwrap();
    let approve = path(&acme, &format!("/{id}/approve"));
    admin.post(&path(&acme, ""), &about(&ada)).await.problem(409, "wrong_state", None);
    let refused = admin.post(&approve, &json!({})).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "four_eyes", "who asked does not agree");
    // No key decides about people.
    acme.post(&approve, &json!({})).await.problem(403, "forbidden", None);
    let expected = json!({ "person_id": ada.id, "asked_by": admin.id, "reason": "His telephone was stolen",
                           "factor_reset_id": id, "expires_at": "2026-01-16T12:00:00Z" });
    assert_eq!(told(&acme, "security.factor_reset_requested").await, [expected]);

    let approved = boss.post(&approve, &json!({})).await.expect(200);
    assert_eq!((&approved["state"], &approved["decided_by"]), (&json!("approved"), &json!(boss.id)));
    boss.post(&approve, &json!({})).await.problem(409, "wrong_state", None);
    assert_eq!(told(&acme, "security.factors_reset").await[0]["approved_by"], json!(boss.id));
    let letters = letters(&platform, acme.organization).await;
    let subjects: Vec<&str> = letters
        .iter()
        .filter(|letter| letter.recipient == "ada@example.com")
        .map(|letter| letter.content.as_ref().unwrap().subject.as_deref().unwrap())
        .collect();
    assert_eq!(
        subjects,
        ["Your second factors at Gantry are to be removed", "Your second factors at Gantry were removed"]
    );
    // She was signed out, and signs in with her password alone.
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    platform.post("/sessions", &sign_in).await.expect(201);
    // The record has both, and who did what.
    let entries = acme.get("/audit-entries?action=factor_reset.approve").await.expect(200);
    let entry = entries["items"].as_array().unwrap().iter().find(|it| it["outcome"] == "allowed").unwrap();
    assert_eq!((&entry["actor"]["id"], &entry["target"]["id"]), (&json!(boss.id), &json!(id)));
    let listed = boss.get(&path(&acme, "")).await.expect(200);
    assert_eq!(listed["items"][0]["state"], "approved");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_collusion_nobody_removes_his_own_nor_those_of_somebody_who_may_more_or_is_elsewhere_too(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let below = platform.below(acme.organization, "below").await;
    let boss = enrolled(&platform, "boss@example.com", &acme, Role::Owner).await;
    let admin = enrolled(&platform, "admin@example.com", &acme, Role::Admin).await;
    let member = platform.member("member@example.com", acme.organization, Role::Member).await;
    let reason = |problem: Value| problem["reason"].as_str().unwrap().to_owned();
    let ask = async |human: &Human, whose: &Human| human.post(&path(&acme, ""), &about(whose)).await;
    assert_eq!(reason(ask(&admin, &admin).await.problem(403, "forbidden", None)), "four_eyes");
    assert_eq!(reason(ask(&admin, &boss).await.problem(403, "forbidden", None)), "escalation");
    assert_eq!(reason(ask(&member, &admin).await.problem(403, "forbidden", None)), "role");
    ask(&boss, &member).await.problem(409, "wrong_state", None);
    // An owner of an organization below may there what an admin above may not.
    let of_below = enrolled(&platform, "below@example.com", &below, Role::Owner).await;
    assert_eq!(reason(ask(&admin, &of_below).await.problem(403, "forbidden", None)), "escalation");
    ask(&boss, &of_below).await.expect(201);
    // Nobody has somebody's factors removed by making him a member.
    let stranger = enrolled(&platform, "stranger@example.com", &other, Role::Viewer).await;
    ask(&boss, &stranger).await.problem(404, "not_found", Some("person_id"));
    platform.join(stranger.id, acme.organization, Role::Viewer).await;
    assert_eq!(reason(ask(&boss, &stranger).await.problem(403, "forbidden", None)), "member_elsewhere");
    // What is somebody else's is not there.
    let eve = platform.member("eve@example.com", other.organization, Role::Owner).await;
    let asked = ask(&boss, &admin).await.expect(201);
    let approve =
        format!("/organizations/{}/factor-resets/{}/approve", other.organization, asked["id"].as_str().unwrap());
    eve.post(&approve, &json!({})).await.problem(404, "not_found", None);
    eve.post(&path(&acme, ""), &about(&admin)).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn it_is_over_after_a_day_can_be_withdrawn_and_needs_a_fresh_proof(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let boss = platform.member("boss@example.com", acme.organization, Role::Owner).await;
    let admin = platform.member("admin@example.com", acme.organization, Role::Admin).await;
    let ada = enrolled(&platform, "ada@example.com", &acme, Role::Member).await;
    let asked = admin.post(&path(&acme, ""), &about(&ada)).await.expect(201);
    let withdraw = path(&acme, &format!("/{}/withdraw", asked["id"].as_str().unwrap()));
    assert_eq!(boss.post(&withdraw, &json!({})).await.expect(200)["state"], "withdrawn");
    boss.post(&withdraw, &json!({})).await.problem(409, "wrong_state", None);
    let asked = admin.post(&path(&acme, ""), &about(&ada)).await.expect(201);
    let approve = path(&acme, &format!("/{}/approve", asked["id"].as_str().unwrap()));
    platform.clock.advance(TimeDelta::minutes(11));
    boss.post(&approve, &json!({})).await.problem(401, "insufficient_user_authentication", None);
    platform.clock.advance(TimeDelta::hours(24));
    let boss = platform.signed_in(boss.id, "boss@example.com").await;
    boss.post(&approve, &json!({})).await.problem(409, "wrong_state", None);
    assert_eq!(platform.count("factors").await, 1, "they are still there");
    boss.post(&path(&acme, ""), &about(&ada)).await.expect(201);
}
