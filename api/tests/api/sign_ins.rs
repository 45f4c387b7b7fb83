//! Sign-ins that look wrong, and organizations that want a second factor of everybody.

use chrono::TimeDelta;
use gantry_api::App;
use gantry_api::app::Surface;
use gantry_api::defence::Places;
use gantry_schema::OrganizationId;
use gantry_schema::memberships::Role;
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::places;
use crate::sign_up::letters;
use crate::support::{Actor, Answer, PASSWORD, Platform, send};

const EMAIL: &str = "ada@example.com";
const VIENNA: &str = "203.0.113.1";
const NEW_YORK: &str = "203.0.113.33";

/// An API behind a proxy on the same machine, that knows where addresses are.
fn knowing_places(platform: &Platform, directory: &tempfile::TempDir) -> App {
    let path = directory.path().join("city.mmdb");
    std::fs::write(&path, places::cities()).unwrap();
    let surface = Surface { proxies: "unix".parse().unwrap(), ..Surface::default() };
    platform.app.clone().with(surface).locating(Places::open(path).unwrap())
}

async fn post(app: &App, path: &str, address: &str, device: &str, body: &Value) -> Answer {
    let request = Request::builder().method(Method::POST).uri_str(path).header("Content-Type", "application/json");
    let request = request.header("X-Forwarded-For", address).header("User-Agent", device);
    send(app, request.body(body.to_string())).await
}

async fn sign_in(app: &App, address: &str, device: &str) -> Answer {
    let body = json!({ "email": EMAIL, "password": PASSWORD, "kind": "program" });
    post(app, "/sessions", address, device, &body).await
}

async fn set(owner: &Actor, policy: &Value) -> Answer {
    let path = format!("/organizations/{}/defence", owner.organization);
    let mut request = owner.request(Method::PUT, &path, Some(policy.to_string().into()));
    request.headers_mut().insert("If-Match", "*".parse().unwrap());
    owner.send_as_is(request).await
}

async fn told(owner: &Actor) -> Vec<Value> {
    let events = owner.get("/events?types=security.sign_in_suspicious").await.expect(200);
    events["items"].as_array().unwrap().iter().map(|event| event["payload"].clone()).collect()
}

async fn scene(pool: PgPool) -> (Platform, Actor) {
    let platform = Platform::counting(pool).await;
    let owner = platform.organization("acme").await;
    let ada = platform.person(EMAIL).await;
    platform.join(ada, owner.organization, Role::Member).await;
    (platform, owner)
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_new_device_is_told_of_or_asked_for_a_code_by_mail_or_refused_as_the_policy_says(pool: PgPool) {
    let (platform, owner) = scene(pool).await;
    let app = &platform.app;
    sign_in(app, VIENNA, "one/1").await.expect(201);
    assert_eq!(told(&owner).await, Vec::<Value>::new(), "the first device is no news");
    sign_in(app, VIENNA, "two/1").await.expect(201);
    let events = told(&owner).await;
    assert_eq!((&events[0]["found"], &events[0]["response"]), (&json!(["new_device"]), &json!("notice")));

    set(&owner, &json!({ "new_device": "step_up" })).await.expect(200);
    sign_in(app, VIENNA, "two/1").await.expect(201);
    let asked = sign_in(app, VIENNA, "three/1").await.expect(202)["second_step"].clone();
    assert_eq!((&asked["mailed_code"], &asked["factors"]), (&json!(true), &json!([])));
    let all = letters(&platform, OrganizationId::PLATFORM).await;
    let code = all.iter().find_map(|letter| {
        let mut words = letter.content.as_ref()?.text.split_whitespace();
        words.find(|word| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_digit())).map(str::to_owned)
    });
    let second = async |code: &str| {
        let body = json!({ "token": asked["token"], "factor": { "method": "mailed_code", "code": code } });
        post(app, "/sessions/second-step", VIENNA, "three/1", &body).await
    };
    second("00000000").await.problem(401, "wrong_factor", Some("factor.code"));
    let opened = second(&code.unwrap()).await.expect(201);
    assert_eq!(
        (&opened["session"]["methods"], &opened["session"]["acr"]),
        (&json!(["pwd", "otp"]), &json!("urn:gantry:aal1"))
    );
    sign_in(app, VIENNA, "three/1").await.expect(201);

    set(&owner, &json!({ "new_device": "refuse" })).await.expect(200);
    let refused = sign_in(app, VIENNA, "four/1").await.problem(403, "sign_in_refused", None);
    assert_eq!(refused["reason"], "new_device");
    assert_eq!(told(&owner).await.iter().filter(|event| event["response"] == "refuse").count(), 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_cannot_have_come_so_far_is_asked_for_more_and_told_of(pool: PgPool) {
    let (platform, owner) = scene(pool).await;
    let directory = tempfile::tempdir().unwrap();
    let app = knowing_places(&platform, &directory);
    sign_in(&app, VIENNA, "one/1").await.expect(201);
    platform.clock.advance(TimeDelta::hours(1));
    sign_in(&app, NEW_YORK, "one/1").await.expect(202);
    platform.clock.advance(TimeDelta::hours(12));
    sign_in(&app, NEW_YORK, "one/1").await.expect(201);
    set(&owner, &json!({ "impossible_travel": "refuse" })).await.expect(200);
    let refused = sign_in(&app, VIENNA, "one/1").await.problem(403, "sign_in_refused", None);
    assert_eq!(refused["reason"], "impossible_travel");
    let events = told(&owner).await;
    assert!(
        events.iter().any(|event| event["found"] == json!(["impossible_travel"]) && event["country"] == "AT"),
        "{events:?}"
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn where_many_accounts_are_tried_from_a_right_password_alone_does_not_sign_in(pool: PgPool) {
    let (platform, _) = scene(pool).await;
    for number in 0..12 {
        let body =
            json!({ "email": format!("nobody{number}@example.com"), "password": "wrong and long", "kind": "program" });
        post(&platform.app, "/sessions", VIENNA, "one/1", &body).await.problem(401, "wrong_credentials", None);
    }
    let asked = sign_in(&platform.app, VIENNA, "one/1").await.expect(202)["second_step"].clone();
    assert_eq!(asked["mailed_code"], true);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_has_everybody_enrol_a_second_factor_within_days(pool: PgPool) {
    let (platform, owner) = scene(pool).await;
    let ada = platform.member("grace@example.com", owner.organization, Role::Member).await;
    set(&owner, &json!({ "second_factor_required": true, "second_factor_grace_days": 7 })).await.expect(200);
    ada.get("/jobs").await.expect(200);
    platform.clock.advance(TimeDelta::days(7));
    let ada = platform.signed_in(ada.id, "grace@example.com").await;
    let refused = ada.get("/jobs").await.problem(403, "second_factor_required", None);
    assert_eq!(refused["reason"], "second_factor");
    // What he does about himself he does, such as enrolling one; and keys go on.
    ada.get("/me/factors").await.expect(200);
    owner.get("/jobs").await.expect(200);
    // Who sets it is not locked out without wanting to be.
    let boss = platform.member("boss@example.com", owner.organization, Role::Owner).await;
    let policy = json!({ "second_factor_required": true, "second_factor_grace_days": 0 });
    let path = format!("/organizations/{}/defence", owner.organization);
    boss.replace(&path, &policy).await.problem(409, "would_lock_out", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_list_of_sessions_says_where_they_are_used(pool: PgPool) {
    let (platform, _) = scene(pool).await;
    let directory = tempfile::tempdir().unwrap();
    let app = knowing_places(&platform, &directory);
    let opened = sign_in(&app, VIENNA, "one/1").await.expect(201);
    assert_eq!((&opened["session"]["country"], &opened["session"]["city"]), (&json!("AT"), &json!("Vienna")));
    let request = Request::builder()
        .uri_str("/sessions")
        .header("Authorization", format!("Bearer {}", opened["access_token"].as_str().unwrap()))
        .header("X-Forwarded-For", VIENNA)
        .finish();
    let listed = send(&app, request).await.expect(200);
    assert_eq!((&listed["items"][0]["country"], &listed["items"][0]["city"]), (&json!("AT"), &json!("Vienna")));
}
