//! Cloud credentials and servers, as far as the API goes: workers make them.

use poem::http::Method;
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

/// Workers have come so far with everything.
async fn come_to(platform: &Platform, server: &str, run: &str) {
    let of_servers = "update servers set state = $1 where destroyed_at is null";
    sqlx::query(of_servers).bind(server).execute(&platform.pool).await.unwrap();
    let of_runs = "update runs set state = $1, finished_at = now() where finished_at is null";
    sqlx::query(of_runs).bind(run).execute(&platform.pool).await.unwrap();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_server_is_changed_as_it_was_seen_and_only_when_it_is_ready(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let credential = added(&acme).await;
    let mut new = server("web-1", &credential);
    new["options"] = json!({ "volume_gib": 20 });
    new["on_failure"] = json!("keep");
    let asked = acme.post("/servers", &new).await.expect(202);
    assert_eq!((&asked["server"]["on_failure"], &asked["run"]["warnings"]), (&json!("keep"), &json!([])));
    let path = format!("/servers/{}", asked["server"]["id"].as_str().unwrap());
    let larger = json!({ "size": "medium", "options": { "volume_gib": 30 } });
    acme.patch(&path, &larger).await.problem(409, "wrong_state", None);
    come_to(&platform, "ready", "succeeded").await;
    let seen = acme.get(&path).await;
    let etag = seen.header("ETag").to_owned();
    seen.expect(200);
    sqlx::query("update servers set reached_at = now()").execute(&platform.pool).await.unwrap();
    assert_eq!(acme.get(&path).await.header("ETag"), etag, "that it was reached is no change");
    acme.patch(&path, &json!({ "options": { "volume_gib": 10 } })).await.problem(
        422,
        "invalid_field",
        Some("options.volume_gib"),
    );
    acme.with(&[("If-Match", "\"another\"")], Method::PATCH, &path, Some(&larger)).await.problem(
        412,
        "precondition_failed",
        Some("If-Match"),
    );
    let run = acme.with(&[("If-Match", &etag)], Method::PATCH, &path, Some(&larger)).await.expect(202);
    assert_eq!((&run["kind"], &run["state"]), (&json!("update"), &json!("queued")));
    acme.patch(&path, &larger).await.problem(409, "wrong_state", None);
    // It is what it was until it is really changed.
    assert_eq!(acme.get(&path).await.expect(200)["size"], "small");
    acme.post(&format!("{path}/runs/{}/cancel", run["id"].as_str().unwrap()), &json!({})).await.expect(200);
    assert_eq!(acme.get(&path).await.expect(200)["state"], "ready");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_misspelt_is_refused_and_what_is_probably_not_meant_is_warned_of(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let token = json!({ "name": "Hetzner", "credential": { "hetzner": { "token": "a".repeat(64) } } });
    let credential = acme.post("/cloud-credentials", &token).await.expect(201)["id"].as_str().unwrap().to_owned();
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    let named = |all: &[&str]| all.iter().map(|id| json!({ "id": id })).collect::<Value>();
    let catalogue = json!({ "regions": named(&["fsn1", "nbg1"]), "sizes": named(&["cx23", "cax11"]), "images": named(&["debian-12"]) });
    gantry_schema::credentials::accounts::keep_catalogue(&mut tx, credential.parse().unwrap(), "", &catalogue)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let new = |name: &str, region: &str, size: &str, options: Value| json!({ "name": name, "credential_id": credential, "region": region, "size": size, "image": "debian-12", "options": options });
    let refused = acme.post("/servers", &new("web-1", "fsn2", "cx23", json!({}))).await;
    assert!(refused.text.contains("did you mean fsn1"), "{}", refused.text);
    refused.problem(422, "invalid_field", Some("region"));
    acme.post("/servers", &new("web-1", "fsn1", "cx32", json!({}))).await.problem(422, "invalid_field", Some("size"));
    assert_eq!(platform.count("servers").await, 0);
    let network = |range: &str| json!({ "range": range, "subnet": range });
    let open = acme
        .post("/servers", &new("web-1", "fsn1", "cx23", json!({ "network": network("10.20.0.0/16") })))
        .await
        .expect(202);
    assert_eq!(open["run"]["warnings"][0]["code"], "open_ssh");
    let closed = json!({ "ssh_sources": [], "network": network("10.20.4.0/24") });
    let closed = acme.post("/servers", &new("web-2", "fsn1", "cx23", closed)).await.expect(202);
    let codes: Vec<&str> =
        closed["run"]["warnings"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["no_ssh", "network_overlap"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn somebody_goes_back_to_an_old_state_when_nobody_works_with_it(pool: PgPool) {
    use gantry_schema::servers::{runs, states};
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let credential = added(&acme).await;
    let asked = acme.post("/servers", &server("web-1", &credential)).await.expect(202);
    let path = format!("/servers/{}", asked["server"]["id"].as_str().unwrap());
    let secret = "a-password-in-a-state";
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    let run = runs::find(&mut tx, asked["run"]["id"].as_str().unwrap().parse().unwrap()).await.unwrap().unwrap();
    let fence = states::take_over(&mut tx, run.stack).await.unwrap();
    for serial in [4, 5] {
        let state = json!({ "version": 4, "serial": serial, "lineage": "a", "outputs": { "p": secret, "n": serial } });
        let writer = states::Writer { stack: run.stack, fence, run: run.id, lock: None };
        states::write(&mut tx, &platform.app.sealing, writer, state.to_string().as_bytes()).await.unwrap();
    }
    let info = json!({ "ID": "lock-1", "Operation": "OperationTypeApply", "Who": "root@w", "Created": "2026-01-15T12:00:01.5Z" });
    states::lock(&mut tx, run.stack, fence, "lock-1", &info).await.unwrap();
    tx.commit().await.unwrap();
    let listed = acme.get(&format!("{path}/states")).await.expect(200);
    let serials: Vec<i64> =
        listed["items"].as_array().unwrap().iter().map(|it| it["serial"].as_i64().unwrap()).collect();
    assert_eq!(serials, [5, 4]);
    assert!(!listed.to_string().contains(secret));
    let lock = acme.get(&format!("{path}/lock")).await.expect(200);
    assert_eq!(
        (&lock["held"], &lock["who"], &lock["operation"]),
        (&json!(true), &json!("root@w"), &json!("OperationTypeApply"))
    );
    let restore = format!("{path}/states/1/restore");
    acme.post(&restore, &json!({})).await.problem(409, "wrong_state", None);
    sqlx::query("update runs set state = 'applying'").execute(&platform.pool).await.unwrap();
    acme.delete(&format!("{path}/lock?id=lock-1")).await.problem(409, "wrong_state", None);
    come_to(&platform, "failed", "failed").await;
    acme.post(&restore, &json!({})).await.problem(409, "wrong_state", None);
    acme.delete(&format!("{path}/lock?id=lock-2")).await.problem(409, "wrong_state", None);
    assert_eq!(acme.delete(&format!("{path}/lock?id=lock-1")).await.expect(200)["held"], false);
    acme.post(&format!("{path}/states/9/restore"), &json!({})).await.problem(404, "not_found", None);
    let back = acme.post(&restore, &json!({})).await.expect(200);
    assert_eq!((&back["version"], &back["serial"], &back["restored_from"]), (&json!(3), &json!(6), &json!(1)));
    assert!(!acme.get("/audit-entries").await.expect(200).to_string().contains(secret));
}
