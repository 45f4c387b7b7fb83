//! Second factors: enrolling them, signing in with them, and what stands against whoever does not have them.

use chrono::TimeDelta;
use data_encoding::BASE32_NOPAD;
use gantry_schema::factors::totp;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Answer, Human, PASSWORD, Platform, send};

const EMAIL: &str = "ada@example.com";

fn credentials() -> Value {
    json!({ "email": EMAIL, "password": PASSWORD, "kind": "program" })
}

/// A device that shows codes.
struct Device {
    id: String,
    secret: Vec<u8>,
}

impl Device {
    async fn begun(human: &Human) -> Self {
        let begun = human.post("/me/factors/totp", &json!({ "name": "A telephone" })).await.expect(201);
        assert_eq!(begun["factor"]["confirmed"], json!(false));
        assert!(begun["qr_svg"].as_str().unwrap().starts_with("<svg"), "{begun}");
        assert!(begun["uri"].as_str().unwrap().starts_with("otpauth://totp/Gantry:ada%40example.com?secret="));
        let secret = BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
        Self { id: begun["factor"]["id"].as_str().unwrap().to_owned(), secret }
    }

    fn shows(&self, platform: &Platform) -> String {
        totp::code(&self.secret, totp::step(platform.app.db.now()))
    }

    async fn confirmed(platform: &Platform, human: &Human) -> (Self, Vec<String>) {
        let device = Self::begun(human).await;
        let path = format!("/me/factors/{}/confirm", device.id);
        let confirmed = human.post(&path, &json!({ "code": device.shows(platform) })).await.expect(200);
        let codes = confirmed["recovery_codes"].as_array().cloned().unwrap_or_default();
        (device, codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect())
    }
}

async fn ada(platform: &Platform) -> Human {
    let id = platform.person(EMAIL).await;
    platform.signed_in(id, EMAIL).await
}

/// The first step. Answers the token that goes on.
async fn first_step(platform: &Platform) -> String {
    let answer = platform.post("/sessions", &credentials()).await.expect(202);
    answer["second_step"]["token"].as_str().unwrap().to_owned()
}

async fn second_step(platform: &Platform, token: &str, method: &str, code: &str) -> Answer {
    let body = json!({ "token": token, "factor": { "method": method, "code": code } });
    platform.post("/sessions/second-step", &body).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_has_a_device_is_asked_for_what_it_shows_and_the_session_says_so(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let (here, elsewhere) = {
        let here = ada(&platform).await;
        let elsewhere = platform.signed_in(here.id, EMAIL).await;
        (here, elsewhere)
    };
    let (device, codes) = Device::confirmed(&platform, &here).await;
    assert_eq!(codes.len(), 10);
    here.get("/me").await.expect(200);
    elsewhere.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));

    platform.clock.advance(TimeDelta::seconds(30));
    let asked = platform.post("/sessions", &credentials()).await.expect(202)["second_step"].clone();
    assert!(asked.get("access_token").is_none());
    assert_eq!((&asked["factors"][0]["kind"], &asked["recovery_codes"]), (&json!("totp"), &json!(true)));
    let token = asked["token"].as_str().unwrap();
    let bearing = here.with_access(token);
    bearing.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let opened = second_step(&platform, token, "totp", &device.shows(&platform)).await.expect(201);
    assert_eq!(opened["session"]["methods"], json!(["pwd", "otp", "mfa"]));
    assert_eq!(opened["session"]["acr"], "urn:gantry:aal2");
    here.with(&opened).get("/me").await.expect(200);
    second_step(&platform, token, "totp", &device.shows(&platform)).await.problem(
        401,
        "invalid_sign_in",
        Some("token"),
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_replay_neither_a_code_nor_a_recovery_code_is_good_twice(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let (device, codes) = Device::confirmed(&platform, &here).await;
    // The code that confirmed it was used.
    let token = first_step(&platform).await;
    let shown = device.shows(&platform);
    second_step(&platform, &token, "totp", &shown).await.problem(401, "wrong_factor", Some("factor.code"));
    platform.clock.advance(TimeDelta::seconds(30));
    let shown = device.shows(&platform);
    second_step(&platform, &token, "totp", &shown).await.expect(201);
    let token = first_step(&platform).await;
    second_step(&platform, &token, "totp", &shown).await.problem(401, "wrong_factor", Some("factor.code"));

    second_step(&platform, &token, "recovery_code", &codes[0].to_lowercase()).await.expect(201);
    let token = first_step(&platform).await;
    let again = second_step(&platform, &token, "recovery_code", &codes[0]).await;
    again.problem(401, "wrong_factor", Some("factor.code"));
    second_step(&platform, &token, "recovery_code", &codes[1]).await.expect(201);
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select secret from factors").fetch_all(&platform.pool).await.unwrap();
    assert!(!stored[0].windows(20).any(|part| part == device.secret), "it is sealed");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_brute_force_a_sign_in_is_over_after_five_wrong_codes(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let (device, _) = Device::confirmed(&platform, &here).await;
    platform.clock.advance(TimeDelta::seconds(30));
    let token = first_step(&platform).await;
    sqlx::query("update pending_sign_ins set tries = 4").execute(&platform.pool).await.unwrap();
    second_step(&platform, &token, "totp", "not a code").await.problem(401, "wrong_factor", Some("factor.code"));
    let right = device.shows(&platform);
    second_step(&platform, &token, "totp", &right).await.problem(401, "invalid_sign_in", Some("token"));
    // Nor is any code of a device right that was guessed at a hundred times.
    sqlx::query("update factors set failures = 100").execute(&platform.pool).await.unwrap();
    let token = first_step(&platform).await;
    second_step(&platform, &token, "totp", &right).await.problem(401, "wrong_factor", Some("factor.code"));
    // And none is waited for longer than minutes.
    let token = first_step(&platform).await;
    platform.clock.advance(TimeDelta::minutes(10));
    second_step(&platform, &token, "totp", &right).await.problem(401, "invalid_sign_in", Some("token"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_sign_in_is_completed_by_the_client_that_began_it(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let (device, _) = Device::confirmed(&platform, &here).await;
    platform.clock.advance(TimeDelta::seconds(30));
    let token = first_step(&platform).await;
    let body = json!({ "token": token, "factor": { "method": "totp", "code": device.shows(&platform) } });
    let request = Request::builder().method(Method::POST).uri_str("/sessions/second-step");
    let request = request.header("Content-Type", "application/json").header("User-Agent", "thief/1");
    send(&platform.app, request.body(body.to_string())).await.problem(401, "invalid_sign_in", Some("token"));
    platform.post("/sessions/second-step", &body).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_stolen_sessions_factors_are_enrolled_and_removed_after_a_fresh_proof_only(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let (device, _) = Device::confirmed(&platform, &here).await;
    platform.clock.advance(TimeDelta::minutes(11));
    let stale = ("insufficient_user_authentication", None);
    let path = format!("/me/factors/{}", device.id);
    here.post("/me/factors/totp", &json!({ "name": "Eve's" })).await.problem(401, stale.0, stale.1);
    here.delete(&path).await.problem(401, stale.0, stale.1);
    here.post("/me/recovery-codes", &json!({})).await.problem(401, stale.0, stale.1);
    // The password alone is no proof of who has a second factor.
    let prove = async |body: &Value| here.post("/sessions/current/proof", body).await;
    prove(&json!({ "password": PASSWORD })).await.problem(403, "second_factor_required", None);
    prove(&json!({})).await.problem(422, "invalid_field", Some("password"));
    let proof = json!({ "factor": { "method": "totp", "code": device.shows(&platform) } });
    let renewed = here.with(&prove(&proof).await.expect(200));
    renewed.patch(&path, &json!({ "name": "My old telephone" })).await.expect(200);
    assert_eq!(renewed.get("/me/factors").await.expect(200)["items"][0]["name"], "My old telephone");
    renewed.delete(&path).await.expect(204);
    assert_eq!(renewed.get("/me/recovery-codes").await.expect(200)["left"], 0);
    platform.post("/sessions", &credentials()).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_device_of_somebody_else_is_not_there(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let here = ada(&platform).await;
    let device = Device::begun(&here).await;
    let eve = platform.person("eve@example.com").await;
    let eve = platform.signed_in(eve, "eve@example.com").await;
    let path = format!("/me/factors/{}", device.id);
    eve.patch(&path, &json!({ "name": "Mine" })).await.problem(404, "not_found", None);
    eve.delete(&path).await.problem(404, "not_found", None);
    let code = json!({ "code": device.shows(&platform) });
    eve.post(&format!("{path}/confirm"), &code).await.problem(404, "not_found", None);
    // What was not confirmed asks nobody for anything.
    platform.post("/sessions", &credentials()).await.expect(201);
}
