//! Codes that are sent to a telephone, or by mail: as a second factor, and what stands against whoever guesses or floods.

use chrono::TimeDelta;
use gantry_schema::OrganizationId;
use gantry_schema::memberships::Role;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::sign_up::letters;
use crate::support::{Actor, Human, PASSWORD, Platform};

const EMAIL: &str = "ada@example.com";

fn credentials() -> Value {
    json!({ "email": EMAIL, "password": PASSWORD, "kind": "program" })
}

/// The newest code that was sent to this number or address.
pub async fn newest(platform: &Platform, to: &str) -> String {
    let all = letters(platform, OrganizationId::PLATFORM).await;
    let letter = all.iter().rfind(|letter| letter.recipient == to && letter.kind == "second_factor_code").unwrap();
    let text = &letter.content.as_ref().unwrap().text;
    let mut words = text.split_whitespace();
    words.find(|word| word.len() == 7 && word.bytes().all(|byte| byte.is_ascii_digit())).unwrap().to_owned()
}

async fn ada(platform: &Platform) -> Human {
    let id = platform.person(EMAIL).await;
    platform.signed_in(id, EMAIL).await
}

pub async fn with_phone(platform: &Platform, human: &Human) -> String {
    let begun = human.post("/me/factors/sms", &json!({ "name": "Telephone", "phone": "+43 660 1234567" })).await;
    let begun = begun.expect(201);
    assert_eq!((&begun["sent_to"], &begun["confirmed"]), (&json!("+43…67"), &json!(false)));
    let id = begun["id"].as_str().unwrap().to_owned();
    let code = newest(platform, "+436601234567").await;
    let confirmed = human.post(&format!("/me/factors/{id}/confirm"), &json!({ "code": code })).await.expect(200);
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    id
}

async fn second_step(platform: &Platform, token: &Value, code: &str) -> crate::support::Answer {
    let body = json!({ "token": token, "factor": { "method": "sent_code", "code": code } });
    platform.post("/sessions/second-step", &body).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_telephone_is_enrolled_signs_in_as_a_second_step_and_proves_anew(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let wrong = here.post("/me/factors/sms", &json!({ "name": "Telephone", "phone": "0660 1234567" })).await;
    wrong.problem(422, "invalid_field", Some("phone"));
    let id = with_phone(&platform, &here).await;
    let asked = platform.post("/sessions", &credentials()).await.expect(202)["second_step"].clone();
    assert_eq!((&asked["factors"][0]["kind"], &asked["factors"][0]["sent_to"]), (&json!("sms"), &json!("+43…67")));
    // Whoever has nothing else was sent the code.
    let code = newest(&platform, "+436601234567").await;
    let opened = second_step(&platform, &asked["token"], &code).await.expect(201);
    assert_eq!(opened["session"]["methods"], json!(["pwd", "sms", "mfa"]));
    assert_eq!(opened["session"]["acr"], "urn:gantry:aal2");
    let here = here.with(&opened);
    platform.clock.advance(TimeDelta::minutes(11));
    here.delete(&format!("/me/factors/{id}")).await.problem(401, "insufficient_user_authentication", None);
    here.post(&format!("/me/factors/{id}/code"), &json!({})).await.expect(202);
    let code = newest(&platform, "+436601234567").await;
    let proof = json!({ "factor": { "method": "sent_code", "code": code } });
    let here = here.with(&here.post("/sessions/current/proof", &proof).await.expect(200));
    here.patch(&format!("/me/factors/{id}"), &json!({ "name": "My old one" })).await.expect(200);
    here.delete(&format!("/me/factors/{id}")).await.expect(204);
    platform.post("/sessions", &credentials()).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_replay_and_guesses_a_code_is_good_once_for_minutes_and_for_five_tries(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    with_phone(&platform, &here).await;
    let begin = async || platform.post("/sessions", &credentials()).await.expect(202)["second_step"].clone();
    let wrong = ("wrong_factor", Some("factor.code"));
    let asked = begin().await;
    let code = newest(&platform, "+436601234567").await;
    second_step(&platform, &asked["token"], &code).await.expect(201);
    // Another is sent with the next sign-in: the one before is none any more.
    let asked = begin().await;
    second_step(&platform, &asked["token"], &code).await.problem(401, wrong.0, wrong.1);
    sqlx::query("update sent_codes set tries = 5 where used_at is null").execute(&platform.pool).await.unwrap();
    let guessed = newest(&platform, "+436601234567").await;
    second_step(&platform, &asked["token"], &guessed).await.problem(401, wrong.0, wrong.1);
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select hash from sent_codes").fetch_all(&platform.pool).await.unwrap();
    assert!(stored.iter().all(|hash| hash.len() == 32), "only digests are kept");
    platform.clock.advance(TimeDelta::hours(1));
    let asked = begin().await;
    let code = newest(&platform, "+436601234567").await;
    sqlx::query("update sent_codes set expires_at = created_at where used_at is null")
        .execute(&platform.pool)
        .await
        .unwrap();
    second_step(&platform, &asked["token"], &code).await.problem(401, wrong.0, wrong.1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_flooding_few_codes_are_sent_in_a_row_and_six_in_an_hour_whatever_is_enrolled(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let enrol = async |human: &Human, number: usize| {
        let new = json!({ "name": "Telephone", "phone": format!("+43 660 123456{number}") });
        let begun = human.post("/me/factors/sms", &new).await;
        if begun.status == 201 {
            let id = begun.expect(201)["id"].as_str().unwrap().to_owned();
            human.delete(&format!("/me/factors/{id}")).await.expect(204);
            return true;
        }
        begun.problem(429, "too_many_requests", None);
        false
    };
    let mut at_once = 0;
    while at_once < 6 && enrol(&here, at_once).await {
        at_once += 1;
    }
    assert!((2..6).contains(&at_once), "{at_once} in a row");
    sqlx::query("delete from sent_codes").execute(&platform.pool).await.unwrap();
    // Whoever takes his time is stopped too.
    let person = here.id;
    sqlx::query(
        "insert into sent_codes (id, person_id, hash, created_at, expires_at)
         select gen_random_uuid(), $1, sha256(n::text::bytea), $2, $2 from generate_series(1, 6) n",
    )
    .bind(person.uuid())
    .bind(platform.app.db.now())
    .execute(&platform.pool)
    .await
    .unwrap();
    let other = Platform::counting(platform.pool.clone()).await;
    let here = other.signed_in(person, EMAIL).await;
    let new = json!({ "name": "Telephone", "phone": "+43 660 1234569" });
    let refused = here.post("/me/factors/sms", &new).await.problem(429, "too_many_requests", None);
    assert!(refused["detail"].as_str().unwrap().starts_with("6 codes were sent"), "{refused}");
    assert_eq!(platform.count("factors").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn another_code_is_asked_for_within_the_sign_in_and_for_nobody_elses_factor(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let id = with_phone(&platform, &here).await;
    let asked = platform.post("/sessions", &credentials()).await.expect(202)["second_step"].clone();
    let body = json!({ "token": asked["token"], "factor_id": id });
    platform.post("/sessions/second-step/code", &body).await.expect(202);
    let code = newest(&platform, "+436601234567").await;
    let unknown = json!({ "token": asked["token"], "factor_id": "fac_01h455vb4pex5vsknk084sn02q" });
    platform.post("/sessions/second-step/code", &unknown).await.problem(404, "not_found", Some("factor_id"));
    let stray = json!({ "token": "gsp_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY", "factor_id": id });
    platform.post("/sessions/second-step/code", &stray).await.problem(401, "invalid_sign_in", Some("token"));
    second_step(&platform, &asked["token"], &code).await.expect(201);
    let eve = platform.person("eve@example.com").await;
    let eve = platform.signed_in(eve, "eve@example.com").await;
    eve.post(&format!("/me/factors/{id}/code"), &json!({})).await.problem(404, "not_found", None);
}

async fn set(owner: &Actor, policy: &Value) -> crate::support::Answer {
    let path = format!("/organizations/{}/defence", owner.organization);
    let mut request = owner.request(Method::PUT, &path, Some(policy.to_string().into()));
    request.headers_mut().insert("If-Match", "*".parse().unwrap());
    owner.send_as_is(request).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_counts_as_a_second_factor_is_what_the_organization_says(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.member(EMAIL, acme.organization, Role::Member).await;
    let begun = ada.post("/me/factors/email", &json!({ "name": "My mail" })).await.expect(201);
    assert_eq!(begun["sent_to"], "a…@example.com");
    let id = begun["id"].as_str().unwrap();
    let code = newest(&platform, EMAIL).await;
    ada.post(&format!("/me/factors/{id}/confirm"), &json!({ "code": code })).await.expect(200);
    let wants = |kinds: Value| {
        json!({ "second_factor_required": true, "second_factor_grace_days": 0,
                                       "second_factor_kinds": kinds })
    };
    let asked = platform.post("/sessions", &credentials()).await.expect(202)["second_step"].clone();
    let opened = second_step(&platform, &asked["token"], &newest(&platform, EMAIL).await).await.expect(201);
    assert_eq!(opened["session"]["acr"], "urn:gantry:aal1", "mail is no second factor by itself");
    let ada = ada.with(&opened);
    set(&acme, &wants(json!(["totp", "passkey", "sms"]))).await.expect(200);
    let refused = ada.get("/jobs").await.problem(403, "second_factor_required", None);
    assert_eq!(refused["reason"], "second_factor");
    set(&acme, &wants(json!(["email", "totp"]))).await.expect(200);
    ada.get("/jobs").await.expect(200);
    set(&acme, &wants(json!(["passkey"]))).await.expect(200);
    ada.get("/jobs").await.problem(403, "second_factor_required", None);
    set(&acme, &wants(json!([]))).await.problem(422, "invalid_field", Some("second_factor_kinds"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn as_many_sessions_go_on_as_the_organization_lets(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let other = platform.organization("other").await;
    let first = platform.member(EMAIL, acme.organization, Role::Member).await;
    platform.join(first.id, other.organization, Role::Member).await;
    set(&acme, &json!({ "most_sessions": 2 })).await.expect(200);
    platform.clock.advance(TimeDelta::minutes(2));
    let second = platform.signed_in(first.id, EMAIL).await;
    let third = platform.signed_in(first.id, EMAIL).await;
    first.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    second.get("/me").await.expect(200);
    set(&acme, &json!({ "most_sessions": 2, "refuses_more_sessions": true })).await.expect(200);
    let refused = platform.post("/sessions", &credentials()).await.problem(403, "sign_in_refused", None);
    assert_eq!(refused["reason"], "too_many_sessions");
    // Elsewhere he may, and moves back when there is room.
    let elsewhere =
        json!({ "email": EMAIL, "password": PASSWORD, "kind": "program", "organization_id": other.organization });
    let fourth = first.with(&platform.post("/sessions", &elsewhere).await.expect(201));
    let switch = json!({ "organization_id": acme.organization });
    fourth.post("/sessions/current/organization", &switch).await.problem(403, "sign_in_refused", None);
    third.delete("/sessions/current").await.expect(204);
    fourth.post("/sessions/current/organization", &switch).await.expect(200);
    set(&acme, &json!({ "refuses_more_sessions": true })).await.problem(422, "invalid_field", Some("most_sessions"));
}
