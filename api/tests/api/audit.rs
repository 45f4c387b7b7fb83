//! The record: what changes leave in it, and refused permissions. That every change does is walked: `walk::audit`.

use gantry_schema::memberships::Role;
use gantry_schema::organizations::Permission;
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

fn job() -> Value {
    json!({ "kind": "diagnostics.probe" })
}

fn schedule() -> Value {
    json!({ "name": "nightly", "kind": "diagnostics.probe", "cron": "@daily" })
}

struct Recorded {
    action: String,
    actor: String,
    target: Option<String>,
    outcome: String,
    record: Value,
}

async fn recorded(platform: &Platform, of: &Actor) -> Vec<Recorded> {
    let rows: Vec<(String, String, Option<String>, String, String)> = sqlx::query_as(
        "select action, actor, target, outcome::text, record from audit_entries where organization_id = $1 order by id",
    )
    .bind(of.organization.uuid())
    .fetch_all(&platform.pool)
    .await
    .unwrap();
    let recorded = |(action, actor, target, outcome, record): (_, _, _, _, String)| Recorded {
        action,
        actor,
        target,
        outcome,
        record: serde_json::from_str(&record).unwrap(),
    };
    rows.into_iter().map(recorded).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_refused_tried_out_wrong_or_answered_again_changes_nothing_and_leaves_no_entry(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.post("/schedules?dry_run=true", &schedule()).await.expect(200);
    acme.post("/jobs?dry_run=true", &job()).await.expect(200);
    acme.post("/jobs", &json!({ "kind": "unknown" })).await.problem(422, "unknown_kind", Some("kind"));
    acme.delete("/schedules/sch_01h455vb4pex5vsknk084sn02q").await.problem(404, "not_found", None);
    assert_eq!(recorded(&platform, &acme).await.len(), 0);
    for _ in 0..3 {
        let mut request = acme.request(Method::POST, "/jobs", Some(Body::from_string(job().to_string())));
        request.headers_mut().insert("Idempotency-Key", "once".parse().unwrap());
        acme.send_as_is(request).await.expect(202);
    }
    assert_eq!(recorded(&platform, &acme).await.len(), 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn fields_that_changed_are_recorded_and_secrets_are_not(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/webhook-endpoints", &json!({ "url": "https://one.example/" })).await.expect(201);
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let path = format!("/webhook-endpoints/{id}");
    let change = json!({ "url": "https://two.example/", "headers": { "X-Key": "hunter2" } });
    acme.patch(&path, &change).await.expect(200);
    let rotated = acme.post(&format!("{path}/secret/rotate"), &json!({})).await.expect(200);
    let key = acme.post("/api-keys", &json!({ "name": "ci", "scopes": ["jobs:read"] })).await.expect(201);

    let all = recorded(&platform, &acme).await;
    let text: String = all.iter().map(|entry| entry.record.to_string()).collect();
    for secret in [secret, rotated["secret"].as_str().unwrap(), key["token"].as_str().unwrap(), "hunter2"] {
        assert!(!text.contains(secret), "{secret} is in the record");
    }
    let changed = all[1].record["changes"].as_array().unwrap();
    let url = json!({ "path": "url", "before": "https://one.example/", "after": "https://two.example/" });
    assert!(changed.contains(&url), "{changed:?}");
    assert_eq!(all[1].record["target"]["display"], "https://two.example/");
    let scopes = json!({ "path": "scopes", "after": ["jobs:read"] });
    assert!(all[3].record["changes"].as_array().unwrap().contains(&scopes));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_people_do_is_recorded_and_says_nothing_that_identifies_them(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let acme = platform.organization("acme").await;
    let ada = platform.member("ada@example.com", acme.organization, Role::Admin).await;
    let me = ada.get("/me").await.expect(200)["person"]["id"].as_str().unwrap().to_owned();
    ada.post("/jobs", &job()).await.expect(202);
    ada.patch("/me", &json!({ "name": "Ada Lovelace" })).await.expect(200);
    let wrong = json!({ "email": "ada@example.com", "password": "something else entirely", "kind": "program" });
    platform.post("/sessions", &wrong).await.problem(401, "wrong_credentials", None);
    ada.post("/api-keys", &json!({ "name": "more", "scopes": ["platform:operate"] })).await.expect(403);
    platform.post("/sessions/refresh", &json!({ "refresh_token": ada.refresh_token })).await.expect(200);
    let again = json!({ "refresh_token": ada.refresh_token });
    platform.post("/sessions/refresh", &again).await.problem(401, "invalid_refresh_token", Some("refresh_token"));

    let of_acme = recorded(&platform, &acme).await;
    assert_eq!(of_acme.len(), 2);
    assert_eq!((of_acme[0].action.as_str(), &of_acme[0].actor), ("job.ask_for", &me));
    assert_eq!(
        (&of_acme[0].record["authority"], &of_acme[0].record["permission"]),
        (&json!("role:admin"), &json!("jobs:write"))
    );
    assert_eq!((of_acme[1].action.as_str(), of_acme[1].outcome.as_str()), ("api_key.create", "denied"));
    let of_platform = recorded(&platform, &platform.operator().await).await;
    let actions: Vec<_> = of_platform.iter().map(|entry| (entry.action.as_str(), entry.outcome.as_str())).collect();
    let expected = [
        ("session.sign_in", "allowed"),
        ("me.change", "allowed"),
        ("session.refresh", "allowed"),
        ("session.refresh", "denied"),
    ];
    assert_eq!(actions, expected);
    for entry in of_platform.iter().chain(&of_acme) {
        assert_eq!(entry.actor, me);
        let text = entry.record.to_string();
        assert!(
            !text.contains("Lovelace") && !text.contains("example.com") && !text.contains(r#""address""#),
            "{text}"
        );
        assert!(entry.record["actor"]["subject_id"].is_string(), "{text}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_is_refused_a_permission_is_recorded_and_cannot_fill_the_record(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let reader = platform.key(acme.organization, &[Permission::ReadJobs]).await;
    for _ in 0..50 {
        reader.post("/jobs", &job()).await.problem(403, "forbidden", None);
    }
    reader.get("/schedules").await.problem(403, "forbidden", None);
    let all = recorded(&platform, &acme).await;
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].action.as_str(), all[0].outcome.as_str()), ("job.ask_for", "denied"));
    assert_eq!(all[0].record["permission"], "jobs:write");
    assert!(all[0].record["reason"].as_str().unwrap().contains("jobs:write"));
    assert_eq!(all[1].action, "schedules.list");

    // Ids of somebody else are no refusal: they are not there. A permission that cannot be passed on is one.
    acme.delete("/schedules/sch_01h455vb4pex5vsknk084sn02q").await.problem(404, "not_found", None);
    let more = json!({ "name": "more", "scopes": ["platform:operate"] });
    acme.post("/api-keys", &more).await.problem(403, "forbidden", Some("scopes[0]"));
    let all = recorded(&platform, &acme).await;
    assert_eq!((all.len(), all[2].action.as_str(), all[2].outcome.as_str()), (3, "api_key.create", "denied"));

    // What was counted is written down when its minute is over and something is refused again.
    platform.clock.advance(chrono::Duration::minutes(1));
    reader.post("/jobs", &job()).await.problem(403, "forbidden", None);
    let all = recorded(&platform, &acme).await;
    assert_eq!((all.len(), all[3].action.as_str(), all[4].action.as_str()), (5, "refusals.repeated", "job.ask_for"));
    assert_eq!(all[3].record["changes"], json!([{ "path": "job.ask_for", "after": 49 }]));
    assert_eq!(all[3].actor, all[0].actor);

    // Without a key that works nobody knows whose record it would be.
    let mut unknown = reader.clone();
    unknown.token = "gk_0000000000000000000000000000000000000000000".to_owned();
    unknown.get("/jobs").await.problem(401, "unauthenticated", Some("Authorization"));
    assert_eq!(recorded(&platform, &acme).await.len(), 5);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn requests_that_share_a_statement_are_all_in_the_record(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let one = job();
    let asked = futures::future::join_all((0..60).map(|_| acme.post("/jobs", &one))).await;
    let ids: Vec<String> =
        asked.into_iter().map(|answer| answer.expect(202)["id"].as_str().unwrap().to_owned()).collect();
    let all = recorded(&platform, &acme).await;
    assert!(all.len() < 60, "they shared statements");
    let named = |id: &String| {
        let is_named = |entry: &Recorded| {
            let changes = entry.record["changes"].as_array().cloned().unwrap_or_default();
            entry.target.as_ref() == Some(id)
                || changes.iter().any(|change| {
                    change["path"] == **id
                        && change["after"]["request_id"].as_str().is_some_and(|id| id.starts_with("req_"))
                })
        };
        all.iter().filter(|entry| is_named(entry)).count()
    };
    assert!(ids.iter().all(|id| named(id) == 1));
}
