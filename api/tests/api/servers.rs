//! Cloud credentials and servers, as far as the API goes: workers make them.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

fn credential(name: &str, token: &str) -> Value {
    json!({ "name": name, "credential": { "sandbox": { "token": token } } })
}

async fn added(actor: &Actor) -> String {
    let made = actor.post("/cloud-credentials", &credential("Sandbox", "sandbox-my-first-one")).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

fn server(name: &str, credential: &str) -> Value {
    json!({ "name": name, "credential_id": credential, "region": "sandbox-1", "size": "small", "image": "debian-12",
            "labels": { "team": "shop" } })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_credential_is_taken_once_and_never_shown_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let token = "sandbox-nobody-sees-this-one";
    let made = acme.post("/cloud-credentials", &credential("Sandbox", token)).await.expect(201);
    assert_eq!((made["cloud"].as_str(), made["hint"].as_str()), (Some("sandbox"), Some("…-one")));
    let path = format!("/cloud-credentials/{}", made["id"].as_str().unwrap());
    let next = json!({ "credential": { "sandbox": { "token": "sandbox-the-one-after-it" } } });
    for answer in [
        acme.get("/cloud-credentials").await.expect(200),
        acme.get(&path).await.expect(200),
        acme.post(&format!("{path}/rotate"), &next).await.expect(200),
        acme.get("/audit-entries").await.expect(200),
    ] {
        assert!(!answer.to_string().contains(token) && !answer.to_string().contains("the-one-after"), "{answer}");
    }
    let stored = "cloud_credentials where secret like '%nobody-sees%'::bytea or hint like '%nobody-sees%'";
    assert_eq!(platform.count(stored).await, 0);

    acme.post("/cloud-credentials", &credential("SANDBOX", token)).await.problem(409, "name_taken", Some("name"));
    let other = json!({ "credential": { "hetzner": { "token": "a".repeat(64) } } });
    acme.post(&format!("{path}/rotate"), &other).await.problem(422, "invalid_field", Some("credential"));
    acme.delete(&path).await.expect(204);
    acme.get(&path).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_credential_that_cannot_be_one_is_refused_by_the_member_at_fault(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (given, field) in [
        (json!({}), "credential"),
        (
            json!({ "sandbox": { "token": "sandbox-my-first-one" }, "hetzner": { "token": "a".repeat(64) } }),
            "credential",
        ),
        (json!({ "hetzner": { "token": "dop_v1_abc" } }), "credential.hetzner.token"),
        (json!({ "gcp": { "service_account": "{\"type\":\"authorized_user\"}" } }), "credential.gcp.service_account"),
        (
            json!({ "aws": { "access_key_id": "ASIAIOSFODNN7EXAMPLE", "secret_access_key": "a".repeat(40) } }),
            "credential.aws.access_key_id",
        ),
    ] {
        let body = json!({ "name": "x", "credential": given });
        acme.post("/cloud-credentials", &body).await.problem(422, "invalid_field", Some(field));
    }
    assert_eq!(platform.count("cloud_credentials").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_asked_for_and_a_job_makes_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let credential = added(&acme).await;
    let asked = acme.post("/servers", &server("web-1", &credential)).await.expect(202);
    assert_eq!(
        (asked["server"]["state"].as_str(), asked["run"]["state"].as_str()),
        (Some("provisioning"), Some("queued"))
    );
    let (id, job) = (asked["server"]["id"].as_str().unwrap(), asked["run"]["job_id"].as_str().unwrap());
    let job = acme.get(&format!("/jobs/{job}")).await.expect(200);
    assert_eq!((job["kind"].as_str(), job["state"].as_str()), (Some("servers.provision"), Some("available")));
    acme.post("/servers", &server("WEB-1", &credential)).await.problem(422, "invalid_field", Some("name"));
    acme.post("/servers", &server("web-1", &credential)).await.problem(409, "name_taken", Some("name"));
    acme.delete(&format!("/cloud-credentials/{credential}")).await.problem(409, "in_use", None);
    let theirs = globex.post("/servers", &server("web-1", &credential)).await;
    theirs.problem(404, "not_found", Some("credential_id"));
    globex.get(&format!("/servers/{id}")).await.problem(404, "not_found", None);
    globex.delete(&format!("/servers/{id}")).await.problem(404, "not_found", None);

    let count = async |path: &str| acme.get(path).await.expect(200)["items"].as_array().unwrap().len();
    assert_eq!((count("/servers?label=team%3Dshop").await, count("/servers?label=team").await), (1, 1));
    assert_eq!((count("/servers?label=team%3Dbank").await, count("/servers?state=ready").await), (0, 0));
    let run = acme.delete(&format!("/servers/{id}")).await.expect(202);
    assert_eq!(run["kind"], "destroy");
    assert_eq!(count(&format!("/servers/{id}/runs")).await, 2);

    let approval = json!({ "plan_sha256": "00".repeat(32), "monthly_cost": 500 });
    let path = format!("/servers/{id}/runs/{}/approve", asked["run"]["id"].as_str().unwrap());
    acme.post(&path, &approval).await.problem(409, "wrong_state", None);
    let malformed = json!({ "plan_sha256": "+1".repeat(32), "monthly_cost": 500 });
    acme.post(&path, &malformed).await.problem(422, "invalid_field", Some("plan_sha256"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_run_is_cancelled_and_what_failed_is_tried_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let credential = added(&acme).await;
    let asked = acme.post("/servers", &server("web-1", &credential)).await.expect(202);
    let path = format!("/servers/{}", asked["server"]["id"].as_str().unwrap());
    let run = format!("{path}/runs/{}", asked["run"]["id"].as_str().unwrap());
    acme.post(&format!("{path}/retry"), &json!({})).await.problem(409, "wrong_state", None);
    acme.post(&format!("{path}/compare"), &json!({})).await.problem(409, "wrong_state", None);
    assert_eq!(acme.post(&format!("{run}/cancel"), &json!({})).await.expect(200)["state"], "cancelled");
    acme.post(&format!("{run}/cancel"), &json!({})).await.problem(409, "wrong_state", None);
    let failed = acme.get(&path).await.expect(200);
    assert_eq!((&failed["state"], &failed["problem"]["code"]), (&json!("failed"), &json!("cancelled")));
    let job = acme.get(&format!("/jobs/{}", asked["run"]["job_id"].as_str().unwrap())).await.expect(200);
    assert_eq!(job["state"], "cancelled");

    let again = acme.post(&format!("{path}/retry"), &json!({})).await.expect(202);
    assert_eq!((&again["kind"], &again["state"]), (&json!("provision"), &json!("queued")));
    assert_eq!(acme.get(&path).await.expect(200)["state"], "provisioning");

    assert_eq!(acme.post(&format!("{path}/maintenance"), &json!({})).await.expect(200)["maintenance"], true);
    assert_eq!(acme.delete(&format!("{path}/maintenance")).await.expect(200)["maintenance"], false);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn there_are_no_more_servers_and_accounts_than_the_license_allows(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let license = json!({ "tier": "starter", "type": "perpetual", "limits": [{ "name": "servers", "most": 1 }] });
    platform
        .operator()
        .await
        .post(&format!("/organizations/{}/license", acme.organization), &license)
        .await
        .expect(200);
    let credential = added(&acme).await;
    let second = json!({ "name": "Second", "credential": { "sandbox": { "token": "sandbox-my-second-one" } } });
    acme.post("/cloud-credentials", &second).await.problem(409, "license_limit", None);
    let asked = acme.post("/servers", &server("web-1", &credential)).await.expect(202);
    acme.post("/servers", &server("web-2", &credential)).await.problem(409, "license_limit", None);
    assert_eq!(platform.count("servers").await, 1);
    // What is gone leaves its place to another.
    let gone = "update servers set state = 'destroyed', destroyed_at = now()";
    sqlx::query(gone).execute(&platform.pool).await.unwrap();
    assert!(asked["server"]["id"].is_string());
    acme.post("/servers", &server("web-2", &credential)).await.expect(202);
}
