//! Changes on condition: nobody's change is overwritten unseen.

use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::Platform;

fn schedule(name: &str, cron: &str) -> Value {
    json!({ "name": name, "kind": "diagnostics.probe", "cron": cron })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_the_caller_has_is_not_sent_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/schedules", &schedule("nightly", "0 3 * * *")).await;
    let (path, etag) = (made.header("Location").to_owned(), made.header("ETag").to_owned());
    let got = acme.get(&path).await;
    assert_eq!((got.header("ETag"), got.header("Cache-Control")), (etag.as_str(), "private, no-cache"));
    for seen in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
        let answer = acme.with(&[("If-None-Match", &seen)], Method::GET, &path, None).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str(), answer.header("ETag")), (304, "", etag.as_str()));
    }
    acme.with(&[("If-None-Match", "\"other\"")], Method::GET, &path, None).await.expect(200);
    let answer = acme.with(&[("If-None-Match", "other")], Method::GET, &path, None).await;
    answer.problem(400, "invalid_parameter", Some("If-None-Match"));

    let own = format!("/organizations/{}", acme.organization);
    let etag = acme.get(&own).await.header("ETag").to_owned();
    assert_eq!(acme.with(&[("If-None-Match", &etag)], Method::GET, &own, None).await.status, 304);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_is_replaced_by_whoever_saw_it_as_it_is(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/schedules", &schedule("nightly", "0 3 * * *")).await;
    let (path, etag) = (made.header("Location").to_owned(), made.header("ETag").to_owned());
    let put = async |etag: Option<&str>, body: &Value| {
        let header = etag.map(|etag| ("If-Match", etag));
        acme.with(header.as_slice(), Method::PUT, &path, Some(body)).await
    };
    let earlier = schedule("early", "0 2 * * *");
    put(None, &earlier).await.problem(428, "precondition_required", Some("If-Match"));
    put(Some("\"other\""), &earlier).await.problem(412, "precondition_failed", Some("If-Match"));
    put(Some("W/\"x\""), &earlier).await.problem(400, "invalid_parameter", Some("If-Match"));
    put(Some(&etag), &schedule("early", "0 2 * *")).await.problem(422, "invalid_cron", Some("cron"));

    let put_first = put(Some(&etag), &earlier).await;
    let changed_etag = put_first.header("ETag").to_owned();
    let changed = put_first.expect(200);
    assert_eq!((&changed["name"], &changed["next_tick_at"]), (&json!("early"), &json!("2026-01-16T02:00:00Z")));
    assert_eq!(acme.get(&path).await.header("ETag"), changed_etag);
    // The answer was lost and the same is sent again: nobody else changed it, so it is no conflict.
    assert_eq!(put(Some(&etag), &earlier).await.expect(200), changed);
    // Somebody who saw the old one changes something else.
    put(Some(&etag), &schedule("mine", "0 4 * * *")).await.problem(412, "precondition_failed", Some("If-Match"));
    put(Some("*"), &schedule("mine", "0 4 * * *")).await.expect(200);

    acme.post("/schedules", &schedule("taken", "0 3 * * *")).await.expect(201);
    put(Some("*"), &schedule("taken", "0 4 * * *")).await.problem(409, "name_taken", Some("name"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn pausing_and_removing_may_have_a_condition(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.post("/schedules", &schedule("nightly", "0 3 * * *")).await;
    let (path, etag) = (made.header("Location").to_owned(), made.header("ETag").to_owned());
    let pause = format!("{path}/pause");
    acme.with(&[("If-Match", "\"x\"")], Method::POST, &pause, None).await.problem(
        412,
        "precondition_failed",
        Some("If-Match"),
    );
    let paused = acme.with(&[("If-Match", &etag)], Method::POST, &pause, None).await;
    assert_ne!(paused.header("ETag"), etag);
    acme.with(&[("If-Match", &etag)], Method::DELETE, &path, None).await.problem(
        412,
        "precondition_failed",
        Some("If-Match"),
    );
    // A paused schedule that is replaced stays paused.
    let replaced = acme.with(&[("If-Match", "*")], Method::PUT, &path, Some(&schedule("nightly", "0 5 * * *"))).await;
    assert_eq!(replaced.expect(200)["next_tick_at"], Value::Null);
    acme.delete(&path).await.expect(204);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn bins_and_descriptions_of_events_are_changed_on_condition(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let described = |description: &str| json!({ "description": description, "schema": {}, "example": {} });
    let path = "/event-types/order.sent/versions/1";
    let made = acme.put(path, &described("one")).await;
    let etag = made.header("ETag").to_owned();
    made.expect(201);
    assert_eq!(acme.get("/event-types/order.sent").await.header("ETag"), etag);
    acme.put(path, &described("one")).await.expect(200);
    acme.put(path, &described("two")).await.problem(428, "precondition_required", Some("If-Match"));
    acme.with(&[("If-Match", &etag)], Method::PUT, path, Some(&described("two"))).await.expect(200);
    let bin = acme.post("/inspector/bins", &json!({ "name": "first" })).await;
    let (bin, etag_of_bin) = (bin.header("Location").to_owned(), bin.header("ETag").to_owned());
    assert_eq!(acme.get(&bin).await.header("ETag"), etag_of_bin);
    let changed =
        acme.with(&[("If-Match", &etag_of_bin)], Method::PATCH, &bin, Some(&json!({ "name": "second" }))).await;
    assert_ne!(changed.header("ETag"), etag_of_bin);
    for (path, etag) in [(path, &etag), (bin.as_str(), &etag_of_bin)] {
        let late = acme.with(&[("If-Match", etag)], Method::DELETE, path, None).await;
        late.problem(412, "precondition_failed", Some("If-Match"));
        acme.delete(path).await.expect(204);
    }
}
