//! The access system as those see it who use it, through the public API alone: from the machine on which nobody is known yet to
//! a key that is refused beyond its scope, and the record of all of it, which verifies.

use std::process::Command;

use chrono::TimeDelta;
use data_encoding::BASE32_NOPAD;
use gantry_schema::OrganizationId;
use gantry_schema::factors::totp;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, PgPool};

use crate::passkeys::{ORIGIN, enrolled};
use crate::record::{audit, said, seal};
use crate::sign_up::letters;
use crate::support::{Actor, Human, Platform};

const PASSWORD: &str = "another sentence nobody guesses";

/// What `gantry-api bootstrap` prints, as the one who has the machine runs it.
#[expect(clippy::disallowed_methods, reason = "it is the program that is tested")]
fn bootstrapped(platform: &Platform, email: &str) -> String {
    let url = platform.pool.connect_options().as_ref().clone().username("gantry_app").to_url_lossy();
    let printed = Command::new(env!("CARGO_BIN_EXE_gantry-api"))
        .args(["bootstrap", "--email", email])
        .env_clear()
        .env("GANTRY_DATABASE_URL", url.as_str())
        .env("GANTRY_SEALING_KEY", "test:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
        .env("GANTRY_PUBLIC_URL", ORIGIN)
        .output()
        .unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    let link = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&printed.stderr)));
    link.split_once("?token=").unwrap().1.to_owned()
}

async fn signed_in(platform: &Platform, email: &str) -> Human {
    let body = json!({ "email": email, "password": PASSWORD, "kind": "program" });
    let opened = platform.post("/sessions", &body).await.expect(201);
    Human::opened(&platform.api, &opened)
}

/// Somebody is invited, follows the link in the letter, and makes an account.
async fn joins(platform: &Platform, by: &Human, organization: &str, email: &str, role: &str) -> Human {
    let path = format!("/organizations/{organization}/invitations");
    by.post(&path, &json!({ "email": email, "role": role })).await.expect(201);
    let token = invited(platform, organization, email).await;
    let account = json!({ "token": token, "name": "Somebody", "password": PASSWORD });
    platform.post("/invitations/sign-up", &account).await.expect(201);
    signed_in(platform, email).await
}

/// What the newest invitation to this address carries.
async fn invited(platform: &Platform, organization: &str, email: &str) -> String {
    let all = letters(platform, organization.parse().unwrap()).await;
    let letter = all.iter().rfind(|letter| letter.recipient == email && letter.kind == "invitation").unwrap();
    let text = &letter.content.as_ref().unwrap().text;
    text.lines().find_map(|line| line.split_once("/account/invitation?token=")).unwrap().1.to_owned()
}

async fn created(by: &Human, name: &str, kind: &str) -> String {
    let made = by.post("/organizations", &json!({ "name": name, "type": kind })).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

/// What an organization's record says was done, oldest first, as the operator reads it.
async fn record(operator: &Human, organization: &str) -> Vec<(String, Value)> {
    let path = format!("/audit-entries?organization={organization}&sort=created_at&limit=100");
    let page = operator.get(&path).await.expect(200);
    let entries = page["items"].as_array().unwrap().iter();
    entries.map(|entry| (entry["action"].as_str().unwrap().to_owned(), entry.clone())).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn from_a_machine_on_which_nobody_is_known_to_a_key_refused_beyond_its_scope_and_all_of_it_on_record(
    pool: PgPool,
) {
    let platform = Platform::counting(pool).await.reached_at(ORIGIN);
    // Whoever has the machine makes the first owner, who follows the link.
    let token = bootstrapped(&platform, "root@example.com");
    let account = json!({ "token": token, "name": "Root", "password": PASSWORD });
    platform.post("/bootstrap/complete", &account).await.expect(201);
    let operator = signed_in(&platform, "root@example.com").await;

    // A reseller is made and set up from above, and makes a customer of his own.
    let reseller = created(&operator, "Reseller", "master_branch").await;
    let rita = joins(&platform, &operator, &reseller, "rita@example.com", "owner").await;
    let customer = created(&rita, "Customer", "sub_user").await;

    // Ada is invited to both, signs up by one invitation, and accepts the other.
    let ada = joins(&platform, &rita, &customer, "ada@example.com", "admin").await;
    let path = format!("/organizations/{reseller}/invitations");
    rita.post(&path, &json!({ "email": "ada@example.com", "role": "viewer" })).await.expect(201);
    let token = invited(&platform, &reseller, "ada@example.com").await;
    ada.post("/invitations/accept", &json!({ "token": token })).await.expect(200);

    // She enrols a device that shows codes, and a passkey.
    let begun = ada.post("/me/factors/totp", &json!({ "name": "Telephone" })).await.expect(201);
    let secret = BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
    let shown = || totp::code(&secret, totp::step(platform.app.db.now()));
    let confirm = format!("/me/factors/{}/confirm", begun["factor"]["id"].as_str().unwrap());
    let confirmed = ada.post(&confirm, &json!({ "code": shown() })).await.expect(200);
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    let (mut passkey, _) = enrolled(&ada, 1).await;
    ada.delete("/sessions/current").await.expect(204);

    // From now on the password is half of it; the passkey is enough.
    platform.clock.advance(TimeDelta::seconds(30));
    let password = json!({ "email": "ada@example.com", "password": PASSWORD, "kind": "program" });
    let asked = platform.post("/sessions", &password).await.expect(202)["second_step"].clone();
    let second = json!({ "token": asked["token"], "factor": { "method": "totp", "code": shown() } });
    platform.post("/sessions/second-step", &second).await.expect(201);
    let options = platform.post("/sessions/passkey-challenges", &json!({})).await.expect(201)["public_key"].clone();
    let credential = passkey.get(&options);
    let opened = platform.post("/sessions/passkey", &json!({ "kind": "program", "credential": credential })).await;
    let ada = ada.with(&opened.expect(201));

    // She acts for one organization and then for the other, and is in each what she is there.
    let switch = async |human: &Human, to: &str| {
        let body = json!({ "organization_id": to });
        human.with(&human.post("/sessions/current/organization", &body).await.expect(200))
    };
    let ada = switch(&ada, &reseller).await;
    assert_eq!(ada.get("/me").await.expect(200)["role"], "viewer");
    let refused = ada.post("/api-keys", &json!({ "name": "CI", "scopes": ["jobs:read"] })).await;
    assert_eq!(refused.problem(403, "forbidden", None)["reason"], "role");
    let ada = switch(&ada, &customer).await;
    assert_eq!(ada.get("/me").await.expect(200)["role"], "admin");

    // A key that may do one thing does it, and nothing else, and is told which rule says so.
    let made = ada.post("/api-keys", &json!({ "name": "CI", "scopes": ["jobs:read"] })).await.expect(201);
    let organization: OrganizationId = customer.parse().unwrap();
    let key = Actor::bearing(&platform.api, organization, made["token"].as_str().unwrap());
    key.get("/jobs").await.expect(200);
    let refused = key.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.problem(403, "forbidden", None);
    assert_eq!(refused["reason"], "scope");
    let id = made["api_key"]["id"].as_str().unwrap();
    let rotated = ada.post(&format!("/api-keys/{id}/rotate"), &json!({ "overlap_seconds": 0 })).await.expect(201);
    key.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    key.with_token(rotated["token"].as_str().unwrap()).get("/jobs").await.expect(200);

    // The operator reads all of it, from above, and it verifies.
    seal(&platform).await;
    let operator = signed_in(&platform, "root@example.com").await;
    let platforms_own = record(&operator, &OrganizationId::PLATFORM.to_string()).await;
    let of_reseller = record(&operator, &reseller).await;
    let of_customer = record(&operator, &customer).await;
    let said_in = |record: &[(String, Value)], wanted: &[&str]| {
        let mut said = record.iter().map(|(action, _)| action.as_str());
        for action in wanted {
            assert!(said.any(|said| said == *action), "{action} in its place of {record:?}");
        }
    };
    // The command goes by the clock on the wall, and so comes in no order here.
    said_in(&platforms_own, &["bootstrap.begin"]);
    said_in(&platforms_own, &["bootstrap.complete", "session.sign_in", "organization.create"]);
    said_in(&platforms_own, &["totp.enrol", "factor.confirm", "passkey.enrol", "session.sign_out"]);
    said_in(&of_reseller, &["invitation.create", "invitation.sign_up", "organization.create", "invitation.accept"]);
    said_in(&of_customer, &["invitation.create", "invitation.sign_up", "api_key.create", "api_key.rotate"]);
    let denied: Vec<&Value> =
        of_customer.iter().map(|(_, entry)| entry).filter(|entry| entry["outcome"] == "denied").collect();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0]["action"], "job.ask_for");
    assert!(denied[0]["reason"].as_str().unwrap().starts_with("this needs the scope jobs:write"), "{}", denied[0]);
    assert_eq!(denied[0]["actor"]["id"], id);
    let (_, made) = of_customer.iter().find(|(action, _)| action == "api_key.create").unwrap();
    assert_eq!(made["actor"]["id"], json!(ada.id));
    let told: Vec<Value> = ada.get("/events?types=member.added").await.expect(200)["items"].as_array().unwrap().clone();
    assert_eq!(told.len(), 1, "{told:?}");
    let verified = audit(&platform, &["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
}
