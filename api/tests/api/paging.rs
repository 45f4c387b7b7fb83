//! Pages of lists.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use gantry_schema::jobs::log::{self, Line};
use gantry_schema::webhooks::{Attempt, attempts};
use gantry_schema::{EventId, JobId};
use poem::Request;
use poem::http::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::document::{document, operations};
use crate::support::{Actor, Platform, send};

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_cursor_is_of_one_list_of_one_organization_for_a_week(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    for _ in 0..3 {
        acme.probe(None).await;
    }
    let first = acme.get("/jobs?limit=2&kind=diagnostics.probe").await;
    let link = first.header("Link").to_owned();
    let page = first.expect(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(link, format!("</jobs?kind=diagnostics.probe&limit=2&cursor={cursor}>; rel=\"next\""));
    // What is made meanwhile changes nothing about the pages that follow.
    acme.probe(None).await;
    let second = acme.get(&format!("/jobs?kind=diagnostics.probe&limit=1&cursor={cursor}")).await;
    assert_eq!(second.header("Link"), "");
    assert_eq!(second.expect(200)["items"].as_array().unwrap().len(), 1);
    // To say what is usual is to say nothing.
    acme.get(&format!("/jobs?kind=diagnostics.probe&sort=-created_at&cursor={cursor}")).await.expect(200);

    let refused = ("invalid_parameter", Some("cursor"));
    for path in [
        "/jobs?",
        "/jobs?kind=other&",
        "/jobs?kind=diagnostics.probe&state=running&",
        "/jobs?kind=diagnostics.probe&sort=created_at&",
        "/schedules?",
    ] {
        acme.get(&format!("{path}cursor={cursor}")).await.problem(400, refused.0, refused.1);
    }
    other.get(&format!("/jobs?kind=diagnostics.probe&cursor={cursor}")).await.problem(400, refused.0, refused.1);
    platform.clock.advance(TimeDelta::days(7));
    let old = acme.get(&format!("/jobs?kind=diagnostics.probe&cursor={cursor}")).await;
    let problem = old.problem(400, "cursor_expired", Some("cursor"));
    assert!(problem["detail"].as_str().unwrap().contains("begin again"), "{problem}");
    let last = acme.get("/api-keys").await;
    assert_eq!((last.header("Link"), json!(last.status.as_u16())), ("", json!(200)));
}

#[test]
fn every_list_is_paged_and_sorted_in_the_same_way() {
    for (path, method, operation) in operations(&document()) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let parameter = |name: &str| parameters.iter().find(|parameter| parameter["name"] == name);
        assert_eq!(parameter("limit").is_some(), parameter("cursor").is_some(), "{method} {path}");
        let Some(cursor) = parameter("cursor") else { continue };
        assert_eq!(cursor["schema"]["format"], "cursor", "{method} {path}");
        let answer = &operation["responses"]["200"];
        assert!(answer["headers"]["LINK"].is_object() || answer["headers"]["Link"].is_object(), "{method} {path}");
        if let Some(sort) = parameter("sort") {
            let words: Vec<&str> =
                sort["schema"]["enum"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
            assert!(words.contains(&sort["schema"]["default"].as_str().unwrap()), "{method} {path}");
            for pair in words.chunks(2) {
                assert_eq!(pair[1], format!("-{}", pair[0]), "{method} {path}");
            }
            assert_eq!(words[..2], ["created_at", "-created_at"], "{method} {path}");
        }
    }
}

/// Five of everything an organization has lists of. Answers the endpoint, the bin and the job that have lists of
/// their own.
async fn five_of_everything(platform: &Platform, acme: &Actor) -> [(&'static str, String); 3] {
    let id = |answer: Value| answer["id"].as_str().unwrap().to_owned();
    let endpoint = id(acme.post("/webhook-endpoints", &json!({ "url": "https://a.example/" })).await.expect(201));
    let bin = acme.post("/inspector/bins", &json!({ "name": "mine" })).await.expect(201);
    let received = bin["url"].as_str().unwrap().split_once("//").unwrap().1.split_once('/').unwrap().1.to_owned();
    let job = acme.probe(None).await;
    for number in 0..5 {
        platform.clock.advance(TimeDelta::seconds(1));
        acme.probe(None).await;
        acme.post("/organizations", &json!({ "name": format!("below {number}") })).await.expect(201);
        acme.post("/api-keys", &json!({ "name": "ci", "scopes": ["jobs:read"] })).await.expect(201);
        acme.post("/webhook-endpoints", &json!({ "url": "https://a.example/" })).await.expect(201);
        acme.post("/events", &json!({ "type": "invoice.paid", "payload": {} })).await.expect(202);
        // By name they are in another order than by age.
        let name = format!("{} schedule", ["d", "b", "e", "a", "c"][number]);
        let schedule = json!({ "name": name, "kind": "diagnostics.probe", "cron": "@daily" });
        acme.post("/schedules", &schedule).await.expect(201);
        let described = json!({ "description": "", "schema": {}, "example": {} });
        acme.put(&format!("/event-types/own.type{number}/versions/1"), &described).await.expect(201);
        let request = Request::builder().method(Method::POST).uri_str(format!("/{received}")).finish();
        send(&platform.app, request).await.expect(200);
    }
    let ids = platform.app.db.ids();
    let mut tx = platform.app.db.tenant(acme.organization).await.unwrap();
    for number in 1..=5 {
        let line = Line { attempt: 1, line: number, at: platform.app.db.now(), message: "a line".to_owned() };
        log::append(&mut tx, job.parse().unwrap(), &[line]).await.unwrap();
        attempts::record(&mut tx, &[&attempt(ids.mint(), endpoint.parse().unwrap(), ids.mint(), number % 2 == 0)])
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    [("{endpoint}", endpoint), ("{bin}", id(bin)), ("{job}", job)]
}

fn attempt(
    id: gantry_schema::AttemptId,
    endpoint: gantry_schema::EndpointId,
    event: EventId,
    succeeded: bool,
) -> Attempt {
    Attempt {
        id,
        endpoint,
        event,
        job: JobId::from_uuid(id.uuid()),
        number: 1,
        attempted_at: chrono::DateTime::UNIX_EPOCH,
        latency_ms: 7,
        succeeded,
        status: Some(200),
        headers: None,
        answer: None,
        error: None,
    }
}

/// What identifies the things of a list, in its order: read whole, or in pages of two.
async fn read(acme: &Actor, path: &str, limit: usize) -> Vec<Value> {
    let (mut things, mut cursor) = (Vec::new(), String::new());
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = acme.get(&format!("{path}{separator}limit={limit}{cursor}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit, "{path}");
        things.extend(items.iter().map(|item| {
            let thing = ["id", "name", "line"].iter().find_map(|name| item.get(*name));
            thing.unwrap_or_else(|| panic!("{path}: what identifies {item}?")).clone()
        }));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return things,
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_list_read_in_pages_is_the_list_in_every_order(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let values = five_of_everything(&platform, &acme).await;
    let mut walked = BTreeSet::new();
    for (template, method, operation) in operations(&document()) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let parameter = |name: &str| parameters.iter().find(|parameter| parameter["name"] == name);
        let path = values.iter().fold(template.to_owned(), |path, (name, value)| path.replace(name, value));
        if method != "get" || parameter("cursor").is_none() || path.contains('{') {
            continue;
        }
        let whole = read(&acme, &path, 200).await;
        assert_eq!(read(&acme, &path, 2).await, whole, "{template}");
        assert_eq!(whole.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), whole.len(), "{template}");
        if let Some(sort) = parameter("sort") {
            let words: Vec<&str> =
                sort["schema"]["enum"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
            for pair in words.chunks(2) {
                let sorted = read(&acme, &format!("{path}?sort={}", pair[0]), 2).await;
                let mut turned = read(&acme, &format!("{path}?sort={}", pair[1]), 2).await;
                turned.reverse();
                assert_eq!(turned, sorted, "{template} by {}", pair[0]);
                let mut members = sorted.clone();
                let by_text = |thing: &Value| thing.to_string();
                members.sort_by_key(by_text);
                let mut wanted = whole.clone();
                wanted.sort_by_key(by_text);
                assert_eq!(members, wanted, "{template} by {}", pair[0]);
            }
            let refused = acme.get(&format!("{path}?sort=color")).await.problem(400, "invalid_parameter", Some("sort"));
            let detail = refused["detail"].as_str().unwrap();
            assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
        }
        if whole.len() >= 5 {
            walked.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    for list in [
        "listJobs",
        "listJobLogs",
        "listOrganizations",
        "listApiKeys",
        "listSchedules",
        "listWebhookEndpoints",
        "listWebhookAttempts",
        "listEvents",
        "listEventTypes",
        "listInspectedRequests",
    ] {
        assert!(walked.contains(list), "{list} was not walked with anything in it, only {walked:?}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn lists_show_what_is_asked_for(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let values = five_of_everything(&platform, &acme).await;
    let count = async |path: &str| read(&acme, path, 200).await.len();
    let schedules = acme.get("/schedules?sort=name").await.expect(200);
    let first = &schedules["items"][0];
    assert_eq!(first["name"], "a schedule");
    acme.send(Method::POST, &format!("/schedules/{}/pause", first["id"].as_str().unwrap()), None).await.expect(200);
    assert_eq!(read(&acme, "/schedules?paused=true&sort=-name", 2).await, [first["id"].clone()]);
    assert_eq!(count("/schedules?paused=false&sort=-name").await, 4);
    assert_eq!(count("/schedules?kind=webhooks.replay").await, 0);

    let key = acme.get("/api-keys?limit=200").await.expect(200)["items"][3]["id"].as_str().unwrap().to_owned();
    acme.delete(&format!("/api-keys/{key}")).await.expect(204);
    assert_eq!(read(&acme, "/api-keys?revoked=true", 2).await, [json!(key)]);
    assert_eq!(count("/api-keys?revoked=false&sort=-created_at").await, 5);

    let picky = json!({ "url": "https://a.example/", "event_types": ["invoice.*", "order.paid"], "enabled": false });
    acme.post("/webhook-endpoints", &picky).await.expect(201);
    for (query, wanted) in [
        ("event_type=order.paid", 7),
        ("event_type=order.paid.twice", 6),
        ("event_type=invoice.paid.twice&enabled=false", 1),
        ("enabled=true", 6),
    ] {
        assert_eq!(count(&format!("/webhook-endpoints?{query}")).await, wanted, "{query}");
    }

    let [(_, endpoint), ..] = &values;
    let attempts = format!("/webhook-endpoints/{endpoint}/attempts");
    let event = acme.get(&attempts).await.expect(200)["items"][0]["event_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (count(&format!("{attempts}?succeeded=true")).await, count(&format!("{attempts}?succeeded=false")).await),
        (2, 3)
    );
    assert_eq!(count(&format!("{attempts}?event_id={event}")).await, 1);
    assert_eq!(count(&format!("{attempts}?event_id={event}&succeeded=true")).await, 0);
    assert_eq!(count(&format!("{attempts}?since=2026-01-15T12:00:00Z&until=2026-01-15T12:00:04Z")).await, 0);

    for (query, wanted) in [
        ("types=invoice.paid,order.paid", 5),
        ("types=order.paid", 0),
        ("types=invoice.*", 5),
        ("types=invoice.paid&channel=none", 0),
        ("since=2026-01-15T12:00:02Z&until=2026-01-15T12:00:04Z&types=invoice.paid", 2),
        ("since=2026-01-15T12:00:02Z&until=2026-01-15T12:00:04Z&sort=created_at&types=api_key.*", 2),
    ] {
        assert_eq!(count(&format!("/events?{query}")).await, wanted, "{query}");
    }
    let backwards = acme.get("/events?since=2026-01-15T12:00:02Z&until=2026-01-15T12:00:02Z").await;
    backwards.problem(400, "invalid_parameter", Some("until"));
    for parameter in ["cursor=AAAA", "sort=created_at", "since=2026-01-15T12:00:02Z"] {
        let name = parameter.split_once('=').unwrap().0;
        let refused = acme.get(&format!("/events?after=beginning&{parameter}")).await;
        refused.problem(400, "invalid_parameter", Some(name));
    }
    assert_eq!(
        (count("/event-types?source=organization").await, count("/event-types?source=platform").await > 5),
        (5, true)
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_are_found_by_where_they_are_in_their_lives(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let (first, second) = (acme.probe(None).await, acme.probe(None).await);
    let waits = json!({ "kind": "diagnostics.probe", "after": [{ "job": first }] });
    let waiting = acme.post("/jobs", &waits).await.expect(202)["id"].clone();
    let scheduled = acme.probe(Some("2026-02-01T00:00:00Z")).await;
    let theirs = other.probe(None).await;
    platform.claim(&second).await;
    platform.claim(&theirs).await;

    let found = async |query: &str| read(&acme, &format!("/jobs?{query}"), 200).await;
    for order in ["created_at", "-created_at"] {
        for (state, wanted) in [
            ("available", json!(first)),
            ("running", json!(second)),
            ("waiting", waiting.clone()),
            ("scheduled", json!(scheduled)),
        ] {
            for more in ["", "&kind=diagnostics.probe", "&queue=default"] {
                assert_eq!(
                    found(&format!("state={state}&sort={order}{more}")).await,
                    std::slice::from_ref(&wanted),
                    "{state}{more}"
                );
            }
            for none in ["&kind=webhooks.deliver", "&queue=webhooks", "&until=2026-01-15T12:00:00Z"] {
                assert_eq!(
                    found(&format!("state={state}&sort={order}{none}")).await,
                    Vec::<Value>::new(),
                    "{state}{none}"
                );
            }
        }
    }
    assert_eq!(found("kind=diagnostics.probe").await.len(), 4);
    assert_eq!(found("queue=default&since=2026-01-15T12:00:00Z").await.len(), 4);
    assert_eq!(found("queue=webhooks").await.len(), 0);
    let unknown = acme.get("/jobs?queue=nowhere").await.problem(400, "invalid_parameter", Some("queue"));
    assert!(unknown["detail"].as_str().unwrap().contains("webhooks"), "{unknown}");
    // The time of the one that was asked for later has come.
    platform.clock.advance(TimeDelta::days(30));
    assert_eq!(found("state=available").await, [json!(scheduled), json!(first)]);
    assert!(found("state=scheduled").await.is_empty());
}
