//! Pauses and limits.

use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Answer, BEGINNING, Platform};

/// A change on condition.
async fn change(actor: &Actor, method: Method, path: &str, etag: &str, body: Option<&Value>) -> Answer {
    actor.with(&[("If-Match", etag)], method, path, body).await
}

async fn pause(actor: &Actor, path: &str) -> Answer {
    actor.send(Method::PUT, path, None).await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operator_pauses_and_limits_queues(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    operator.get("/queues/webhooks/pause").await.problem(404, "not_found", None);
    let paused = pause(&operator, "/queues/webhooks/pause").await.expect(201);
    assert_eq!(pause(&operator, "/queues/webhooks/pause").await.expect(200), paused);
    operator.put("/queues/webhooks/limit", &json!({ "max_running": 3 })).await.expect(201);

    let queues = operator.get("/queues").await.expect(200);
    let webhooks = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "webhooks").unwrap();
    assert_eq!((&webhooks["max_running"], &webhooks["pause"]["paused_at"]), (&json!(3), &json!(BEGINNING)));
    assert_eq!(webhooks["pause"], paused);

    for path in ["/queues/webhooks/pause", "/queues/webhooks/limit"] {
        operator.delete(path).await.expect(204);
        operator.delete(path).await.expect(204);
    }
    let queues = operator.get("/queues").await.expect(200);
    assert!(queues.as_array().unwrap().iter().all(|queue| queue.as_object().unwrap().len() == 1), "{queues}");

    pause(&operator, "/queues/nowhere/pause").await.problem(404, "not_found", Some("queue"));
    pause(&operator, "/job-kinds/no.such/pause").await.problem(404, "not_found", Some("kind"));
    operator.put("/queues/default/limit", &json!({ "max_running": 0 })).await.problem(
        422,
        "invalid_field",
        Some("max_running"),
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn limits_and_rates_are_overwritten_by_whoever_saw_them_as_they_are(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    for (path, one, two) in [
        ("/queues/webhooks/limit", json!({ "max_running": 3 }), json!({ "max_running": 4 })),
        (
            "/rates/namecheap",
            json!({ "amount": 20, "period_seconds": 60, "burst": 5 }),
            json!({ "amount": 10, "period_seconds": 60, "burst": 5 }),
        ),
    ] {
        operator.get(path).await.problem(
            404,
            "not_found",
            path.split('/').nth(1).map(|many| many.trim_end_matches('s')),
        );
        let early = change(&operator, Method::PUT, path, "*", Some(&one)).await;
        early.problem(412, "precondition_failed", Some("If-Match"));
        let made = operator.put(path, &one).await;
        let etag = made.header("ETag").to_owned();
        let made = made.expect(201);
        // The answer was lost and the same is sent again.
        assert_eq!(operator.put(path, &one).await.expect(200), made);
        assert_eq!(operator.get(path).await.header("ETag"), etag);
        operator.put(path, &two).await.problem(428, "precondition_required", Some("If-Match"));
        let changed = change(&operator, Method::PUT, path, &etag, Some(&two)).await;
        assert_ne!(changed.header("ETag"), etag);
        assert_eq!(changed.expect(200), operator.get(path).await.expect(200));
        for (method, body) in [(Method::PUT, Some(&one)), (Method::DELETE, None)] {
            let late = change(&operator, method, path, &etag, body).await;
            late.problem(412, "precondition_failed", Some("If-Match"));
        }
        let etag = operator.get(path).await.header("ETag").to_owned();
        change(&operator, Method::DELETE, path, &etag, None).await.expect(204);
        let gone = change(&operator, Method::DELETE, path, &etag, None).await;
        gone.problem(412, "precondition_failed", Some("If-Match"));
        operator.delete(path).await.expect(204);
    }
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
async fn two_who_make_a_rate_at_once_do_not_overwrite_each_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    let bodies: Vec<Value> = (1..=4).map(|amount| json!({ "amount": amount, "period_seconds": 60 })).collect();
    let put = bodies.iter().map(|body| operator.put("/rates/namecheap", body));
    let mut statuses: Vec<u16> = Vec::new();
    for answer in futures::future::join_all(put).await {
        statuses.push(answer.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 428, 428, 428]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_pauses_itself_and_no_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    pause(&acme, "/organization/pause").await.expect(201);
    let pauses = acme.get("/pauses").await.expect(200);
    assert_eq!((&pauses[0]["subject"], &pauses[0]["name"]), (&json!("organization"), &json!(acme.organization)));
    assert_eq!(acme.get("/organization/pause").await.expect(200), pauses[0]);
    assert_eq!(other.get("/pauses").await.expect(200), json!([]));
    other.delete("/organization/pause").await.expect(204);
    let of_acme = format!("/organizations/{}/pause", acme.organization);
    pause(&other, &of_acme).await.problem(404, "not_found", None);
    assert_eq!(acme.get("/pauses").await.expect(200).as_array().unwrap().len(), 1);
    let etag = acme.get("/organization/pause").await.header("ETag").to_owned();
    let unseen = change(&acme, Method::DELETE, "/organization/pause", "\"x\"", None).await;
    unseen.problem(412, "precondition_failed", Some("If-Match"));
    change(&acme, Method::DELETE, "/organization/pause", &etag, None).await.expect(204);
    assert_eq!(acme.get("/pauses").await.expect(200), json!([]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_pause_from_above_is_seen_below_and_lifted_only_above(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.below(acme.organization, "branch").await;
    let of_branch = format!("/organizations/{}/pause", branch.organization);
    pause(&branch, "/organization/pause").await.expect(201);
    let above = pause(&acme, &of_branch).await.expect(201);
    assert_eq!(acme.get("/pauses").await.expect(200), json!([above]));
    let told = branch.get("/pauses").await.expect(200);
    assert_eq!(told.as_array().unwrap().len(), 2, "its own, and the other: {told}");
    let by = |pauses: &Value| -> usize {
        pauses.as_array().unwrap().iter().filter(|pause| pause["paused_by"].is_string()).count()
    };
    assert_eq!(by(&told), 1, "who above did it is not told");

    for path in ["/organization/pause", of_branch.as_str()] {
        branch.delete(path).await.expect(204);
    }
    let told = branch.get("/pauses").await.expect(200);
    assert_eq!((told.as_array().unwrap().len(), by(&told)), (1, 0));
    acme.delete(&of_branch).await.expect(204);
    assert_eq!(branch.get("/pauses").await.expect(200), json!([]));
    acme.get(&of_branch).await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_operator_pauses_kinds(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let operator = platform.operator().await;
    pause(&operator, "/job-kinds/diagnostics.probe/pause").await.expect(201);
    let pauses = operator.get("/pauses").await.expect(200);
    assert_eq!((&pauses[0]["subject"], &pauses[0]["name"]), (&json!("kind"), &json!("diagnostics.probe")));
    operator.delete("/job-kinds/diagnostics.probe/pause").await.expect(204);
    assert_eq!(operator.get("/pauses").await.expect(200), json!([]));
}
