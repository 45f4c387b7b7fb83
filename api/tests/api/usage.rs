//! What was called, and what is left of the month.

use gantry_schema::organizations::Permission;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

async fn allow(platform: &Platform, to: &Actor, limits: Value) {
    let path = format!("/organizations/{}/rate-limits", to.organization);
    let operator = platform.operator().await;
    operator.with(&[("If-Match", "*")], Method::PUT, &path, Some(&limits)).await.expect(200);
}

async fn summary(of: &Actor) -> Value {
    of.get("/api-usage/summary").await.expect(200)
}

async fn events(of: &Actor) -> Vec<Value> {
    let page = of.get("/events?types=api_usage.threshold").await.expect(200);
    page["items"].as_array().unwrap().iter().map(|event| event["payload"].clone()).collect()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_each_key_called_is_counted_with_how_it_ended(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let second = platform.key(acme.organization, &[Permission::ReadJobs]).await;
    acme.get("/jobs").await.expect(200);
    acme.get("/jobs").await.expect(200);
    acme.get("/jobs/job_01h455vb4pex5vsknk084sn02q").await.problem(404, "not_found", None);
    second.get("/jobs").await.expect(200);
    second.get("/schedules").await.problem(403, "forbidden", None);
    // Of whom nobody knows who he is nothing is kept.
    acme.with_token("gk_none").get("/jobs").await;
    assert_eq!(summary(&acme).await["total"]["calls"], 0, "nothing is written while somebody waits");
    platform.app.add_up_usage().await;

    let total = summary(&acme).await["total"].clone();
    assert_eq!((&total["calls"], &total["refused"], &total["failed"]), (&json!(6), &json!(2), &json!(0)), "{total}");
    assert!(total["bytes"].as_u64().unwrap() > 100, "{total}");
    assert!(total["latency"]["p99_ms"].as_f64().unwrap() >= total["latency"]["p50_ms"].as_f64().unwrap(), "{total}");
    let keys = acme.get("/api-usage/keys").await.expect(200)["items"].clone();
    let of_keys: Vec<_> =
        keys.as_array().unwrap().iter().map(|key| (&key["kind"], &key["name"], &key["total"]["calls"])).collect();
    assert_eq!(
        of_keys,
        [(&json!("api_key"), &json!("test"), &json!(4)), (&json!("api_key"), &json!("test"), &json!(2))]
    );
    let operations = acme.get("/api-usage/operations?range=1h").await.expect(200)["items"].clone();
    assert_eq!((&operations[0]["operation"], &operations[0]["total"]["calls"]), (&json!("listJobs"), &json!(3)));
    let timeline = acme.get("/api-usage/timeline").await.expect(200);
    let points = timeline["points"].as_array().unwrap();
    assert_eq!(
        (points.len(), &points[287]["total"]["calls"], &points[0]["total"]["calls"]),
        (288, &json!(6), &json!(0))
    );
    assert_eq!(points[287]["starts_at"], "2026-01-15T12:00:00Z");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn it_adds_up_over_hours_days_and_months(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for hours in [0, 1, 24, 24 * 20] {
        platform.clock.advance(chrono::Duration::hours(hours));
        acme.get("/jobs").await.expect(200);
        // What is added twice belongs together.
        platform.app.add_up_usage().await;
        acme.get("/jobs").await.expect(200);
        platform.app.add_up_usage().await;
    }
    let calls = async |range: &str| {
        let timeline = acme.get(&format!("/api-usage/timeline?range={range}")).await.expect(200);
        let calls =
            timeline["points"].as_array().unwrap().iter().map(|point| point["total"]["calls"].as_u64().unwrap());
        calls.filter(|calls| *calls > 0).collect::<Vec<_>>()
    };
    assert_eq!(calls("1h").await, [2]);
    platform.app.add_up_usage().await;
    assert_eq!(calls("30d").await, [4, 2, 3]);
    assert_eq!(calls("12mo").await, [6, 3], "of January and February");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_stands_above_sees_the_sum_and_nobody_else_sees_anything(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let branch = platform.below(acme.organization, "branch").await;
    acme.get("/jobs").await.expect(200);
    branch.get("/jobs").await.expect(200);
    branch.get("/jobs").await.expect(200);
    platform.app.add_up_usage().await;
    let calls = async |of: &Actor, query: &str| {
        of.get(&format!("/api-usage/summary{query}")).await.expect(200)["total"]["calls"].as_u64().unwrap()
    };
    assert_eq!(calls(&acme, "").await, 1);
    assert_eq!(calls(&acme, "?below=true").await, 3);
    assert_eq!(calls(&acme, &format!("?organization={}", branch.organization)).await, 2);
    assert_eq!(calls(&branch, "?below=true").await, 2);
    assert_eq!(calls(&other, "?below=true").await, 0);
    let foreign = format!("/api-usage/keys?organization={}", acme.organization);
    other.get(&foreign).await.problem(404, "not_found", None);
    branch.get(&foreign).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn when_the_month_is_used_up_nothing_but_what_ends_it_is_done(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    allow(&platform, &acme, json!({ "tier": "starter", "monthly_calls": 3 })).await;
    for _ in 0..3 {
        acme.get("/jobs").await.expect(200);
    }
    let refused = acme.get("/jobs").await;
    // From the middle of January to the first of February.
    assert_eq!(refused.header("Retry-After"), (16 * 86_400 + 43_200).to_string());
    let problem = refused.problem(429, "quota_exceeded", None);
    assert_eq!(problem["violated-policies"], json!(["monthly-calls"]));
    acme.post("/jobs", &json!({ "kind": "diagnostics.probe" })).await.problem(429, "quota_exceeded", None);
    assert_eq!(platform.count("jobs").await, 0);
    // What was refused is not used, and added up it is the same.
    platform.app.add_up_usage().await;
    let month = summary(&acme).await["month"].clone();
    assert_eq!((&month["calls"]["used"], &month["calls"]["percent"]), (&json!(3), &json!(100)), "{month}");
    assert_eq!(summary(&acme).await["total"]["limited"], 2);
    acme.get("/jobs").await.problem(429, "quota_exceeded", None);
    // A key that is in wrong hands can be revoked all the same.
    let keys = acme.get("/api-keys").await.expect(200);
    let key = keys["items"][0]["id"].as_str().unwrap();
    assert_eq!(acme.delete(&format!("/api-keys/{key}")).await.status, 204);
    let next = platform.key(acme.organization, &[Permission::ReadJobs]).await;
    next.get("/jobs").await.problem(429, "quota_exceeded", None);
    platform.clock.advance(chrono::Duration::days(17));
    next.get("/jobs").await.expect(200);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn thresholds_of_the_month_are_told_once_each(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    allow(&platform, &acme, json!({ "tier": "starter", "monthly_calls": 10 })).await;
    for _ in 0..7 {
        acme.get("/jobs").await.expect(200);
    }
    platform.app.add_up_usage().await;
    let told = async || events(&acme).await.iter().map(|event| event["percent"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(told().await, Vec::<u64>::new());
    platform.app.add_up_usage().await;
    assert_eq!(told().await, [80], "the eighth call was to ask");
    acme.get("/jobs").await.expect(200);
    platform.app.add_up_usage().await;
    // Nothing of it is told again.
    platform.app.add_up_usage().await;
    let by_operator = platform.operator().await;
    let of_acme = acme.organization.to_string();
    let notices = by_operator
        .with(&[("X-Organization-Id", &of_acme)], Method::GET, "/notices?dismissed=false", None)
        .await
        .expect(200);
    let messages: Vec<_> =
        notices["items"].as_array().unwrap().iter().map(|it| it["message"].as_str().unwrap()).collect();
    assert_eq!(messages.len(), 1, "one notice for the month: {messages:?}");
    assert!(messages[0].starts_with("100 percent of this month's calls are used."), "{messages:?}");
    let told: i64 = sqlx::query_scalar("select count(*) from events where type = 'api_usage.threshold'")
        .fetch_one(&platform.pool)
        .await
        .unwrap();
    assert_eq!(told, 4);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_copy_has_every_row_in_both_forms(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.get("/jobs").await.expect(200);
    acme.get("/schedules").await.expect(200);
    platform.app.add_up_usage().await;
    let csv = acme.get("/api-usage/export?format=csv").await;
    assert_eq!((csv.status.as_u16(), csv.header("content-type")), (200, "text/csv"));
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert!(lines[0].starts_with("starts_at,credential_kind,credential,operation,calls,"), "{}", csv.text);
    assert!(lines[1].starts_with("2026-01-15T12:00:00Z,api_key,key_"), "{}", csv.text);
    assert!(lines[1].contains(",listJobs,1,0,0,0,"), "{}", csv.text);
    assert_eq!((lines.len(), lines[3]), (4, ""));
    let ndjson = acme.get("/api-usage/export?format=ndjson&range=12mo").await;
    let rows: Vec<Value> = ndjson.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named: Vec<_> = rows.iter().map(|row| (&row["starts_at"], &row["operation"])).collect();
    let january = json!("2026-01-01T00:00:00Z");
    // The first copy was counted, and not added yet.
    assert_eq!(named, [(&january, &json!("listJobs")), (&january, &json!("listSchedules"))]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_cannot_be_added_is_kept(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.get("/jobs").await.expect(200);
    let rename = async |from: &str, to: &str| {
        let rename = format!("alter function {from}(jsonb, jsonb) rename to {to}");
        sqlx::query(sqlx::AssertSqlSafe(rename)).execute(&platform.pool).await.unwrap();
    };
    rename("api_usage_add", "gone").await;
    platform.app.add_up_usage().await;
    assert_eq!(platform.count("api_usage").await, 0);
    rename("gone", "api_usage_add").await;
    platform.app.add_up_usage().await;
    assert_eq!(summary(&acme).await["total"]["calls"], 1);
}
