//! Jobs through the API.

use chrono::TimeDelta;
use gantry_schema::jobs::log::{self, Line};
use poem::Body;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, BEGINNING, Platform, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_is_written_down_with_who_asked_and_the_trace_it_continues(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let body = json!({ "kind": "diagnostics.probe", "payload": { "message": "hello" }, "priority": 0,
                       "run_at": "2026-02-01T01:00:00+01:00", "expires_at": "2026-03-01T00:00:00Z" });
    let mut request = acme.request(Method::POST, "/jobs", Some(Body::from_string(body.to_string())));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.headers_mut().insert("traceparent", trace.parse().unwrap());
    let answer = send(&platform.app, request).await;
    let (location, place) = (answer.header("location").to_owned(), answer.header("traceparent").to_owned());
    let receipt = answer.expect(202);
    assert_eq!(receipt["outcome"], "inserted");
    assert_eq!(location, format!("/jobs/{}", receipt["id"].as_str().unwrap()));

    let mut job = acme.get(&location).await.expect(200);
    assert!(job["requested_by"].take().as_str().unwrap().starts_with("api_key:key_"));
    assert_eq!(job["traceparent"].take(), json!(place));
    assert!(place.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    assert_eq!(
        job,
        json!({
            "id": receipt["id"], "kind": "diagnostics.probe", "queue": "default", "priority": 0, "state": "scheduled",
            "attempt": 0, "max_attempts": 5, "uncounted_attempts": 0, "rescues": 0,
            "run_at": "2026-02-01T00:00:00Z", "expires_at": "2026-03-01T00:00:00Z", "created_at": BEGINNING,
            "payload": { "message": "hello", "steps": 0, "step_milliseconds": 0, "failures": 0 },
            "requested_by": null, "traceparent": null, "attempts": [],
            "timeline": [{ "at": BEGINNING, "event": "asked_for" }],
        })
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_moment_that_is_over_means_at_once(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(Some("1970-01-01T00:00:00Z")).await;
    let job = acme.get(&format!("/jobs/{job}")).await.expect(200);
    assert_eq!((&job["state"], &job["run_at"]), (&json!("available"), &json!(BEGINNING)));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_waits_for_others(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.probe(None).await;
    let body = json!({ "kind": "diagnostics.probe", "after": [{ "job": first, "step": "build" }] });
    let second = acme.post("/jobs", &body).await.expect(202);
    let second = acme.get(&format!("/jobs/{}", second["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(second["state"], "waiting");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_are_listed_newest_first_by_what_is_asked(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let old = acme.probe(None).await;
    platform.clock.advance(TimeDelta::hours(1));
    let (later, new) = (acme.probe(Some("2026-02-01T00:00:00Z")).await, acme.probe(None).await);

    let listed = async |query: &str| -> Vec<String> {
        let page = acme.get(&format!("/jobs{query}")).await.expect(200);
        page["items"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed("").await, [new.clone(), later.clone(), old.clone()]);
    assert_eq!(listed("?state=scheduled").await, [&*later]);
    assert_eq!(listed("?state=available&until=2026-01-15T12:30:00Z").await, [&*old]);
    assert_eq!(listed("?kind=webhooks.deliver").await, Vec::<String>::new());
    assert_eq!(listed("?queue=default&limit=1").await, [new]);

    acme.post(&format!("/jobs/{old}/cancel"), &json!({})).await.expect(200);
    assert_eq!(listed("?state=cancelled").await, [old]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_is_cancelled_once_and_retried_by_hand(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(Some("2026-02-01T00:00:00Z")).await;
    let (cancel, retry) = (format!("/jobs/{job}/cancel"), format!("/jobs/{job}/retry"));
    let do_it = async |path: &str| acme.send(Method::POST, path, None).await;

    assert_eq!(do_it(&retry).await.expect(200)["state"], "available");
    do_it(&retry).await.problem(409, "wrong_state", None);
    let cancelled = do_it(&cancel).await.expect(200);
    assert_eq!((&cancelled["state"], &cancelled["finished_at"]), (&json!("cancelled"), &json!(BEGINNING)));
    assert_eq!(cancelled["timeline"][1]["event"], "cancelled");
    do_it(&cancel).await.problem(409, "wrong_state", None);
    assert_eq!(do_it(&retry).await.expect(200)["state"], "available");
    do_it("/jobs/job_01h455vb4pex5vsknk084sn02q/cancel").await.problem(404, "not_found", None);
    do_it("/jobs/job_01h455vb4pex5vsknk084sn02q/retry").await.problem(404, "not_found", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_running_job_is_told_to_stop(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    let worker = platform.claim(&job).await;
    let cancel = format!("/jobs/{job}/cancel");
    let told = acme.with(&[("Prefer", "wait=0")], Method::POST, &cancel, None).await.expect(202);
    assert_eq!((&told["state"], &told["cancel_requested_at"]), (&json!("running"), &json!(BEGINNING)));
    let attempt = json!({ "attempt": 1, "started_at": BEGINNING, "outcome": "running", "worker": worker });
    assert_eq!(told["attempts"], json!([attempt]));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn many_jobs_are_discarded_and_retried_by_what_they_are(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for _ in 0..3 {
        acme.probe(None).await;
    }
    let later = acme.probe(Some("2026-02-01T00:00:00Z")).await;

    acme.post("/jobs/discard", &json!({})).await.problem(422, "invalid_field", Some("body"));
    acme.post("/jobs/discard", &json!({ "state": "running" })).await.problem(422, "invalid_field", Some("state"));
    acme.post("/jobs/retry", &json!({ "state": "running" })).await.problem(422, "invalid_field", Some("state"));
    acme.post("/jobs/retry", &json!({ "state": "asleep" })).await.problem(422, "invalid_field", Some("state"));

    let changed =
        acme.post("/jobs/discard", &json!({ "state": "available", "kind": "diagnostics.probe" })).await.expect(200);
    assert_eq!(changed, json!({ "count": 3, "more": false }));
    assert_eq!(acme.get(&format!("/jobs/{later}")).await.expect(200)["state"], "scheduled");
    let changed = acme.post("/jobs/retry", &json!({})).await.expect(200);
    assert_eq!(changed, json!({ "count": 3, "more": false }));
    assert_eq!(acme.post("/jobs/retry", &json!({})).await.expect(200)["count"], 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_waits_for_a_job_is_answered_when_it_ends(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    let (path, cancel) = (format!("/jobs/{job}?wait=30"), format!("/jobs/{job}/cancel"));
    let (waited, _) = tokio::join!(acme.get(&path), acme.send(Method::POST, &cancel, None));
    assert_eq!(waited.expect(200)["state"], "cancelled");
    // What ended before is answered at once.
    assert_eq!(acme.get(&path).await.expect(200)["state"], "cancelled");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_prefers_to_wait_gets_the_job_if_it_ended_and_a_receipt_if_not(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ask = async |prefer: &'static str| {
        let body = Body::from_string(json!({ "kind": "diagnostics.probe" }).to_string());
        let mut request = acme.request(Method::POST, "/jobs", Some(body));
        request.headers_mut().insert("prefer", prefer.parse().unwrap());
        send(&platform.app, request).await
    };
    ask("wait=61").await.problem(400, "invalid_parameter", Some("Prefer"));
    assert_eq!(ask("wait=0").await.expect(202)["outcome"], "inserted");

    let end = async {
        while platform.count("jobs").await < 2 {}
        let listed = acme.get("/jobs?limit=1").await.expect(200);
        let newest = listed["items"][0]["id"].as_str().unwrap();
        acme.send(Method::POST, &format!("/jobs/{newest}/cancel"), None).await.expect(200)
    };
    let (answer, cancelled) = tokio::join!(ask("respond-async, wait=30"), end);
    assert_eq!(answer.header("preference-applied"), "wait=30");
    let ended = answer.expect(200);
    assert_eq!((&ended["id"], &ended["outcome"]), (&cancelled["id"], &json!("inserted")));
    assert_eq!((&ended["job"]["id"], &ended["job"]["state"]), (&cancelled["id"], &json!("cancelled")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whatever_asks_for_a_job_can_be_waited_for(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let schedule = json!({ "name": "nightly", "kind": "diagnostics.probe", "cron": "0 3 * * *" });
    let schedule = acme.post("/schedules", &schedule).await.expect(201);
    let endpoint = acme.post("/webhook-endpoints", &json!({ "url": "https://example.com/hooks" })).await.expect(201);
    let endpoint = format!("/webhook-endpoints/{}", endpoint["id"].as_str().unwrap());
    let test = json!({});
    let recover = json!({ "since": BEGINNING });
    platform.clock.advance(chrono::Duration::seconds(1));
    let mut seen = 0;
    for (path, body) in [
        (format!("/schedules/{}/run", schedule["id"].as_str().unwrap()), None),
        (format!("{endpoint}/test"), Some(&test)),
        (format!("{endpoint}/recover"), Some(&recover)),
    ] {
        let ask = async |prefer| acme.with(&[("Prefer", prefer)], Method::POST, &path, body).await;
        ask("wait=forever").await.problem(400, "invalid_parameter", Some("Prefer"));
        ask("wait=0").await.expect(202);
        seen += 2;
        let end = async {
            while platform.count("jobs").await < seen {}
            let listed = acme.get("/jobs?limit=1").await.expect(200);
            let newest = listed["items"][0]["id"].as_str().unwrap().to_owned();
            acme.send(Method::POST, &format!("/jobs/{newest}/cancel"), None).await.expect(200);
            newest
        };
        let (answer, ended) = tokio::join!(ask("wait=30"), end);
        assert_eq!(answer.header("Preference-Applied"), "wait=30");
        assert_eq!(answer.header("Location"), format!("/jobs/{ended}"));
        let answer = answer.expect(200);
        assert_eq!((&answer["job"]["id"], &answer["job"]["state"]), (&json!(ended), &json!("cancelled")), "{path}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_would_be_sent_again_is_counted_and_not_sent(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let endpoint = json!({ "url": "https://example.com/hooks", "event_types": ["invoice.paid"] });
    let endpoint = acme.post("/webhook-endpoints", &endpoint).await.expect(201);
    let endpoint = format!("/webhook-endpoints/{}", endpoint["id"].as_str().unwrap());
    let event = |event_type: &str| json!({ "type": event_type, "payload": {} });
    let events = json!({ "events": [event("invoice.paid"), event("invoice.paid"), event("invoice.sent")] });
    let tried = acme.post("/events/bulk?dry_run=true", &events).await.expect(200);
    assert_eq!((tried["events"].as_array().unwrap().len(), &tried["dry_run"]), (3, &json!(true)));
    assert_eq!((platform.count("events").await, platform.count("jobs").await), (0, 0));
    acme.post("/events/bulk", &events).await.expect(202);
    platform.clock.advance(chrono::Duration::seconds(1));
    let jobs = platform.count("jobs").await;
    for (path, body) in [("recover", json!({ "since": BEGINNING })), ("replay", json!({ "from": BEGINNING }))] {
        let tried = acme.post(&format!("{endpoint}/{path}?dry_run=true"), &body).await.expect(200);
        assert_eq!((&tried["events"], &tried["dry_run"]), (&json!(2), &json!(true)), "{path}");
    }
    assert_eq!(platform.count("jobs").await, jobs);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn log_lines_come_in_order_and_in_pages(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    assert_eq!(acme.get(&format!("/jobs/{job}/logs")).await.expect(200), json!({ "items": [] }));
    write(&platform, &acme, &job, &[(1, 1, "began"), (1, 2, "failed"), (2, 1, "again")]).await;

    let page = acme.get(&format!("/jobs/{job}/logs?limit=2")).await.expect(200);
    assert_eq!(page["items"][0], json!({ "attempt": 1, "line": 1, "at": BEGINNING, "message": "began" }));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = acme.get(&format!("/jobs/{job}/logs?cursor={cursor}")).await.expect(200);
    assert_eq!(rest, json!({ "items": [{ "attempt": 2, "line": 1, "at": BEGINNING, "message": "again" }] }));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_follows_a_job_hears_everything_in_order_and_can_resume(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    write(&platform, &acme, &job, &[(1, 1, "began"), (1, 2, "done")]).await;
    let (path, cancel) = (format!("/jobs/{job}/events"), format!("/jobs/{job}/cancel"));

    let (followed, _) = tokio::join!(acme.get(&path), acme.send(Method::POST, &cancel, None));
    assert_eq!(followed.header("content-type"), "text/event-stream");
    let events = events(&followed.text);
    let (last, first) = (events.last().unwrap(), &events[..events.len() - 1]);
    assert_eq!((last.0.as_str(), &last.2["state"]), ("state", &json!("cancelled")));
    let lines: Vec<_> =
        first.iter().filter(|event| event.0 == "log").map(|event| (event.1.as_str(), &event.2["message"])).collect();
    assert_eq!(lines, [("1-1", &json!("began")), ("1-2", &json!("done"))]);

    let mut request = acme.request(Method::GET, &path, None);
    request.headers_mut().insert("last-event-id", "1-1".parse().unwrap());
    let resumed = send(&platform.app, request).await;
    let messages: Vec<String> =
        self::events(&resumed.text).into_iter().map(|(name, id, _)| format!("{name} {id}")).collect();
    assert_eq!(messages, ["log 1-2", "state 1-2"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_follows_the_same_job_from_wherever_hears_all_that_is_new_to_him(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    // More than is kept for those who come later.
    let lines: Vec<(i32, i32, &str)> = (1..=700).map(|line| (1, line, "said")).collect();
    write(&platform, &acme, &job, &lines).await;
    let path = format!("/jobs/{job}/events");
    let from = async |place: Option<&str>| {
        let mut request = acme.request(Method::GET, &path, None);
        if let Some(place) = place {
            request.headers_mut().insert("last-event-id", place.parse().unwrap());
        }
        let heard = events(&send(&platform.app, request).await.text);
        assert_eq!(heard.last().unwrap().2["state"], "cancelled");
        heard.into_iter().filter(|event| event.0 == "log").map(|event| event.1).collect::<Vec<_>>()
    };
    let cancel = format!("/jobs/{job}/cancel");
    let cancelled = async {
        acme.send(Method::POST, &cancel, None).await.expect(200);
    };
    let (last, all, some, ()) = tokio::join!(from(Some("1-690")), from(None), from(Some("1-100")), cancelled);
    let lines = |from: i32| (from..=700).map(|line| format!("1-{line}")).collect::<Vec<_>>();
    assert_eq!((last, all, some), (lines(691), lines(1), lines(101)));
    assert_eq!(from(Some("1-699")).await, ["1-700"], "also after the job has ended");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn streams_and_waits_end_when_the_process_stops(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    platform.app.stop();
    let followed = acme.get(&format!("/jobs/{job}/events")).await;
    assert_eq!(events(&followed.text).len(), 1);
    assert_eq!(acme.get(&format!("/jobs/{job}?wait=60")).await.expect(200)["state"], "available");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_catalogue_says_what_can_be_asked_for(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let kinds = acme.get("/job-kinds").await.expect(200);
    let probe = kinds.as_array().unwrap().iter().find(|kind| kind["kind"] == "diagnostics.probe").unwrap();
    assert_eq!((&probe["public"], &probe["queue"]), (&json!(true), &json!("default")));
}

async fn write(platform: &Platform, acme: &Actor, job: &str, lines: &[(i32, i32, &str)]) {
    let at = platform.app.db.now();
    let lines: Vec<Line> = lines
        .iter()
        .map(|(attempt, line, message)| Line { attempt: *attempt, line: *line, at, message: (*message).to_owned() })
        .collect();
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    log::append(&mut tx, job.parse().unwrap(), &lines).await.unwrap();
    tx.commit().await.unwrap();
}

/// Name, id and data of each event.
fn events(stream: &str) -> Vec<(String, String, Value)> {
    let field = |event: &str, name: &str| {
        event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default().to_owned()
    };
    stream
        .split("\n\n")
        .filter(|event| event.contains("data:"))
        .map(|event| (field(event, "event"), field(event, "id"), serde_json::from_str(&field(event, "data")).unwrap()))
        .collect()
}
