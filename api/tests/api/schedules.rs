//! Schedules through the API.

use chrono::TimeDelta;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{BEGINNING, Platform};

fn nightly() -> Value {
    json!({ "name": "nightly", "kind": "diagnostics.probe", "cron": "0 3 * * *", "time_zone": "Europe/Berlin" })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_says_when_it_asks_next(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/schedules", &nightly()).await.expect(201);
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    assert_eq!(
        acme.get(&path).await.expect(200),
        json!({
            "id": made["id"], "name": "nightly", "kind": "diagnostics.probe", "payload": {}, "cron": "0 3 * * *",
            "time_zone": "Europe/Berlin", "missed_runs": "once", "overlap": "allow", "jitter_seconds": 0,
            "paused": false, "next_tick_at": "2026-01-16T02:00:00Z", "created_at": BEGINNING,
        })
    );
    let times = acme.get(&format!("{path}/next-times?count=2")).await.expect(200);
    assert_eq!(times, json!({ "times": ["2026-01-16T02:00:00Z", "2026-01-17T02:00:00Z"] }));
    assert_eq!(acme.get("/schedules").await.expect(200)["items"][0]["id"], made["id"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_wrong_schedule_is_refused_by_field(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let cases = [
        ("cron", json!("0 0 30 2 *"), "invalid_cron"),
        ("cron", json!("every day"), "invalid_cron"),
        ("cron", json!("61 * * * *"), "invalid_cron"),
        ("cron", json!("*".repeat(300)), "invalid_cron"),
        ("cron", json!("\u{0}"), "invalid_field"),
        ("time_zone", json!("Europe/Berln"), "unknown_time_zone"),
        ("time_zone", json!(""), "unknown_time_zone"),
        ("kind", json!("no.such"), "unknown_kind"),
        ("kind", json!("webhooks.deliver"), "kind_not_public"),
        ("payload", json!({ "steps": -1 }), "invalid_payload"),
        ("name", json!(""), "invalid_field"),
        ("missed_runs", json!("never"), "invalid_field"),
        ("overlap", json!("maybe"), "invalid_field"),
        ("jitter_seconds", json!(86_401), "invalid_field"),
    ];
    for (field, value, code) in cases {
        let mut body = nightly();
        body[field] = value;
        acme.post("/schedules", &body).await.problem(422, code, Some(field));
    }
    assert_eq!(platform.count("schedules").await, 0);
    acme.post("/schedules", &nightly()).await.expect(201);
    acme.post("/schedules", &nightly()).await.problem(409, "name_taken", Some("name"));
    platform.organization("other").await.post("/schedules", &nightly()).await.expect(201);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_resumed_schedule_goes_on_with_its_next_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/schedules", &nightly()).await.expect(201);
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    let paused = acme.send(Method::POST, &format!("{path}/pause"), None).await.expect(200);
    assert_eq!((&paused["paused"], &paused["next_tick_at"]), (&json!(true), &Value::Null));
    platform.clock.advance(TimeDelta::days(3));
    for _ in 0..2 {
        let resumed = acme.send(Method::POST, &format!("{path}/resume"), None).await.expect(200);
        assert_eq!((&resumed["paused"], &resumed["next_tick_at"]), (&json!(false), &json!("2026-01-19T02:00:00Z")));
        assert_eq!(acme.get(&path).await.expect(200), resumed);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_runs_now_and_is_removed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut body = nightly();
    body["payload"] = json!({ "message": "from the schedule" });
    let made = acme.post("/schedules", &body).await.expect(201);
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    let started = acme.send(Method::POST, &format!("{path}/run"), None).await;
    let job = acme.get(started.header("location")).await.expect(200);
    assert_eq!((&job["state"], &job["payload"]["message"]), (&json!("available"), &json!("from the schedule")));
    acme.delete(&path).await.expect(204);
    acme.get(&path).await.problem(404, "not_found", None);
    acme.delete(&path).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_expression_is_tried_out_without_a_schedule(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let preview = async |body: Value| acme.post("/schedules/preview", &body).await;
    assert_eq!(
        preview(json!({ "cron": "*/20 * * * * *", "count": 2 })).await.expect(200),
        json!({ "times": ["2026-01-15T12:00:20Z", "2026-01-15T12:00:40Z"] })
    );
    assert_eq!(preview(json!({ "cron": "@daily" })).await.expect(200)["times"].as_array().unwrap().len(), 10);
    preview(json!({ "cron": "@daily", "count": 0 })).await.problem(422, "invalid_field", Some("count"));
    preview(json!({ "cron": "nonsense" })).await.problem(422, "invalid_cron", Some("cron"));
    assert_eq!(platform.count("schedules").await, 0);
}
