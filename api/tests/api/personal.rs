//! A copy of what is known of oneself, and being forgotten, as people ask for it.

use chrono::TimeDelta;
use gantry_schema::audit::receipts::Receipt;
use gantry_schema::memberships::Role;
use gantry_schema::personal::exports;
use gantry_schema::{AuditKeyId, ExportId, OrganizationId};
use poem::Request;
use poem::http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::record::seal;
use crate::sign_up::letters;
use crate::support::{Answer, Human, Platform};

const EMAIL: &str = "ada@example.com";

async fn stranger(platform: &Platform, path: &str) -> Answer {
    platform.api.send(Request::builder().method(Method::GET).uri_str(path).finish()).await
}

async fn ada(platform: &Platform, organization: OrganizationId, role: Role) -> Human {
    platform.member(EMAIL, organization, role).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_copy_is_asked_for_made_once_and_fetched_by_whose_it_is_after_a_fresh_proof(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = ada(&platform, acme.organization, Role::Member).await;
    ada.get("/me/export").await.problem(404, "not_found", None);
    ada.get("/me/export/data").await.problem(404, "not_found", None);
    let asked = ada.post("/me/export", &json!({})).await;
    assert_eq!(asked.header("Location"), "/me/export");
    let asked = asked.expect(202);
    assert_eq!(ada.post("/me/export", &json!({})).await.expect(202), asked, "one is being made");
    assert_eq!(platform.count("jobs where kind = 'personal.export'").await, 1);
    ada.get("/me/export/data").await.problem(409, "wrong_state", None);

    // It is made.
    let (id, now): (ExportId, _) = (asked["id"].as_str().unwrap().parse().unwrap(), platform.app.db.now());
    let statement = exports::statement(id, ada.id, b"{}", now);
    let key: AuditKeyId = platform.app.db.ids().mint();
    let receipt = Receipt { statement, key, public_key: vec![1; 32], signature: vec![2; 64] };
    let mut tx = platform.app.db.person(ada.id).await.unwrap();
    assert!(exports::keep(&mut tx, &platform.app.sealing, id, b"{}", &receipt, now).await.unwrap());
    tx.commit().await.unwrap();
    let made = ada.get("/me/export").await.expect(200);
    assert_eq!((&made["bytes"], made["receipt"]["statement"].as_str()), (&json!(2), Some(receipt.statement.as_str())));
    let data = ada.get("/me/export/data").await;
    assert!(data.header("Content-Disposition").contains(&id.to_string()));
    assert_eq!((data.header("Cache-Control"), data.text.as_str()), ("no-store", "{}"));
    let sealed: Vec<u8> =
        sqlx::query_scalar("select content from personal_exports").fetch_one(&platform.pool).await.unwrap();
    assert!(sealed.len() > 20, "it is sealed");

    let eve = platform.person("eve@example.com").await;
    let eve = platform.signed_in(eve, "eve@example.com").await;
    eve.get("/me/export").await.problem(404, "not_found", None);
    platform.clock.advance(TimeDelta::minutes(11));
    ada.get("/me/export").await.expect(200);
    ada.get("/me/export/data").await.problem(401, "insufficient_user_authentication", None);
    ada.post("/me/export", &json!({})).await.problem(401, "insufficient_user_authentication", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_last_owner_of_an_organization_passes_it_on_before_he_is_forgotten(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = ada(&platform, acme.organization, Role::Owner).await;
    let refused = ada.post("/me/erasure", &json!({})).await.problem(409, "last_owner", None);
    assert!(refused["detail"].as_str().unwrap().contains(&acme.organization.to_string()), "{refused}");
    assert_eq!(platform.count("erasures").await, 0);
    let eve = platform.person("eve@example.com").await;
    platform.join(eve, acme.organization, Role::Owner).await;

    platform.clock.advance(TimeDelta::minutes(11));
    ada.post("/me/erasure", &json!({})).await.problem(401, "insufficient_user_authentication", None);
    let ada = platform.signed_in(ada.id, EMAIL).await;
    let asked = ada.post("/me/erasure", &json!({})).await;
    let location = asked.header("Location").to_owned();
    let asked = asked.expect(202);
    assert_eq!(location, format!("/erasures/{}", asked["id"].as_str().unwrap()));
    assert_eq!(platform.count("jobs where kind = 'personal.erase'").await, 1);
    // He is signed out everywhere, and told.
    ada.get("/me").await.problem(401, "unauthenticated", Some("Authorization"));
    let all = letters(&platform, OrganizationId::PLATFORM).await;
    assert!(all.iter().any(|letter| letter.kind == "erasure_begun" && letter.recipient == EMAIL));
    // Whoever knows the id looks at it, and it says nothing of who he is.
    let answer = stranger(&platform, &location).await;
    assert!(!answer.text.contains(EMAIL) && !answer.text.contains("Ada"), "{}", answer.text);
    assert_eq!(answer.expect(200)["state"], "pending");
    stranger(&platform, "/erasures/era_01h455vb4pex5vsknk084sn02q").await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn anybody_sees_the_keys_with_which_the_installation_signs(pool: PgPool) {
    let platform = Platform::new(pool).await;
    assert_eq!(stranger(&platform, "/audit-keys").await.expect(200)["items"], json!([]));
    let acme = platform.organization("acme").await;
    acme.probe(None).await;
    seal(&platform).await;
    let keys = stranger(&platform, "/audit-keys").await.expect(200);
    let signed = acme.get("/audit-checkpoints").await.expect(200)["items"][0].clone();
    assert_eq!(keys["items"], json!([{ "id": signed["key_id"], "public_key": signed["public_key"] }]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_somebody_does_by_a_key_of_his_is_recorded_under_his_own_key(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = ada(&platform, acme.organization, Role::Owner).await;
    let made = ada.post("/api-keys", &json!({ "name": "Ada's laptop", "template": "deploy" })).await.expect(201);
    let key = acme.with_token(made["token"].as_str().unwrap());
    key.probe(None).await;
    let records: Vec<String> = sqlx::query_scalar("select record from audit_entries where organization_id = $1")
        .bind(acme.organization.uuid())
        .fetch_all(&platform.pool)
        .await
        .unwrap();
    assert!(records.len() >= 2 && records.iter().all(|record| !record.contains("laptop")), "{records:?}");
    let entries = acme.get("/audit-entries?action=job.ask_for").await.expect(200);
    let actor = &entries["items"][0]["actor"];
    assert_eq!((&actor["display"], &actor["person_id"]), (&json!("Ada's laptop"), &json!(ada.id)));
}
