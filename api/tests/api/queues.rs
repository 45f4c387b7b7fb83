//! Pauses and limits.

use poem::http::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{BEGINNING, Platform};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operator_pauses_and_limits_queues(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    let put = async |path: &str| operator.send(Method::PUT, path, None).await;
    put("/queues/webhooks/pause").await.expect(204);
    put("/queues/webhooks/pause").await.expect(204);
    operator.put("/queues/webhooks/limit", &json!({ "max_running": 3 })).await.expect(204);

    let queues = operator.get("/queues").await.expect(200);
    let webhooks = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "webhooks").unwrap();
    assert_eq!((&webhooks["max_running"], &webhooks["pause"]["paused_at"]), (&json!(3), &json!(BEGINNING)));

    for path in ["/queues/webhooks/pause", "/queues/webhooks/limit"] {
        operator.delete(path).await.expect(204);
        operator.delete(path).await.expect(204);
    }
    let queues = operator.get("/queues").await.expect(200);
    assert!(queues.as_array().unwrap().iter().all(|queue| queue.as_object().unwrap().len() == 1), "{queues}");

    put("/queues/nowhere/pause").await.problem(404, "not_found", Some("queue"));
    put("/job-kinds/no.such/pause").await.problem(404, "not_found", Some("kind"));
    operator.put("/queues/default/limit", &json!({ "max_running": 0 })).await.problem(
        422,
        "invalid_field",
        Some("max_running"),
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operator_sets_rates(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    operator.put("/rates/namecheap", &json!({ "amount": 20, "period_seconds": 60 })).await.expect(204);
    operator.put("/rates/namecheap", &json!({ "amount": 10, "period_seconds": 60, "burst": 5 })).await.expect(204);
    assert_eq!(
        operator.get("/rates").await.expect(200),
        json!([{ "name": "namecheap", "amount": 10, "period_seconds": 60, "burst": 5 }])
    );
    operator.delete("/rates/namecheap").await.expect(204);
    assert_eq!(operator.get("/rates").await.expect(200), json!([]));
    for (field, body) in [
        ("amount", json!({ "amount": 0, "period_seconds": 60 })),
        ("period_seconds", json!({ "amount": 1, "period_seconds": 0 })),
        ("burst", json!({ "amount": 1, "period_seconds": 1, "burst": -1 })),
    ] {
        operator.put("/rates/namecheap", &body).await.problem(422, "invalid_field", Some(field));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_pauses_itself_and_no_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    acme.send(Method::PUT, "/organization/pause", None).await.expect(204);
    let pauses = acme.get("/pauses").await.expect(200);
    assert_eq!((&pauses[0]["subject"], &pauses[0]["name"]), (&json!("organization"), &json!(acme.organization)));
    assert_eq!(other.get("/pauses").await.expect(200), json!([]));
    other.delete("/organization/pause").await.expect(204);
    assert_eq!(acme.get("/pauses").await.expect(200).as_array().unwrap().len(), 1);
    acme.delete("/organization/pause").await.expect(204);
    assert_eq!(acme.get("/pauses").await.expect(200), json!([]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operator_pauses_kinds(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    operator.send(Method::PUT, "/job-kinds/diagnostics.probe/pause", None).await.expect(204);
    let pauses = operator.get("/pauses").await.expect(200);
    assert_eq!((&pauses[0]["subject"], &pauses[0]["name"]), (&json!("kind"), &json!("diagnostics.probe")));
    operator.delete("/job-kinds/diagnostics.probe/pause").await.expect(204);
    assert_eq!(operator.get("/pauses").await.expect(200), json!([]));
}
