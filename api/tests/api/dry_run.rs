//! Changes that are only tried out.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::Platform;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_is_tried_out_is_checked_and_not_stored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let later = json!({ "kind": "diagnostics.probe", "run_at": "2026-01-16T12:00:00Z" });
    let receipt = acme.post("/jobs?dry_run=true", &later).await.expect(200);
    let job = &receipt["job"];
    let said = (&receipt["dry_run"], &receipt["outcome"], &job["state"], &job["queue"]);
    assert_eq!(said, (&json!(true), &json!("inserted"), &json!("scheduled"), &json!("default")));
    let unknown = json!({ "kind": "diagnostics.probe", "after": [{ "job": "job_01h455vb4pex5vsknk084sn02q" }] });
    acme.post("/jobs?dry_run=true", &unknown).await.problem(422, "unknown_predecessor", Some("after"));
    acme.post("/jobs?dry_run=yes", &later).await.problem(400, "invalid_parameter", Some("dry_run"));

    let bulk = json!({ "jobs": [later, later] });
    let receipts = acme.post("/jobs/bulk?dry_run=true", &bulk).await.expect(200);
    assert_eq!((&receipts["dry_run"], receipts["jobs"].as_array().unwrap().len()), (&json!(true), 2));
    assert_eq!((platform.count("jobs").await, platform.count("job_dispatch").await), (0, 0));
    acme.post("/jobs?dry_run=false", &later).await.expect(202);
    assert_eq!(platform.count("jobs").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn changing_many_jobs_can_be_counted_before(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for _ in 0..3 {
        acme.probe(None).await;
    }
    let filter = json!({ "kind": "diagnostics.probe" });
    let expected = json!({ "count": 3, "more": false, "dry_run": true });
    assert_eq!(acme.post("/jobs/discard?dry_run=true", &filter).await.expect(200), expected);
    assert_eq!(acme.post("/jobs/discard", &filter).await.expect(200), json!({ "count": 3, "more": false }));
    assert_eq!(acme.post("/jobs/retry?dry_run=true", &filter).await.expect(200), expected);
    let state: String =
        sqlx::query_scalar("select min(state)::text from jobs").fetch_one(&platform.pool).await.unwrap();
    assert_eq!(state, "discarded");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_that_is_tried_out_tells_its_times(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let schedule = json!({ "name": "nightly", "kind": "diagnostics.probe", "cron": "0 3 * * *" });
    let tried = acme.post("/schedules?dry_run=true", &schedule).await.expect(200);
    assert_eq!((&tried["dry_run"], &tried["next_times"][1]), (&json!(true), &json!("2026-01-17T03:00:00Z")));
    assert_eq!(platform.count("schedules").await, 0);
    let made = acme.post("/schedules", &schedule).await.expect(201);
    assert_eq!((&made["dry_run"], &made["next_times"]), (&Value::Null, &Value::Null));
    acme.post("/schedules?dry_run=true", &schedule).await.problem(409, "name_taken", Some("name"));
}
