//! An event becomes a webhook.

use chrono::Duration;
use gantry_jobs::webhooks::DeliverWebhook;
use gantry_providers::hooks::sandbox::Outcome;
use gantry_schema::jobs::control::Filter;
use gantry_schema::jobs::{State, control};
use gantry_schema::webhooks::endpoints;
use gantry_tests::Platform;
use serde_json::{Value, json};
use sqlx::PgPool;

/// The deliveries there are, oldest first.
async fn deliveries(acme: &gantry_tests::Actor) -> Vec<gantry_schema::jobs::Job> {
    let filter = Filter { kinds: vec!["webhooks.deliver".to_owned()], ..Filter::default() };
    let mut jobs = Vec::new();
    for id in acme.jobs(&filter, None, 100).await {
        jobs.insert(0, acme.job(id).await);
    }
    jobs
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_event_arrives_once_signed_so_that_the_receiver_believes_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/hooks").await;

    let event = acme.event("invoice.paid", json!({ "amount": 1200, "currency": "EUR" })).await;
    platform.assert_enqueued::<DeliverWebhook>(|job| job.event == event && job.endpoint == receiver.id).await;
    platform.run_jobs().await;

    let arrived = platform.hooks.deliveries_to(&receiver.url);
    assert_eq!(arrived.len(), 1);
    let request = &arrived[0].request;
    assert_eq!(receiver.verify(request, platform.now()), Ok(()));
    assert!(request.headers.contains(&("webhook-id".to_owned(), event.to_string())));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        json!({
            "type": "invoice.paid",
            "timestamp": "2026-03-02T09:00:00Z",
            "data": { "amount": 1200, "currency": "EUR" },
        })
    );
    let delivery = &deliveries(&acme).await[0];
    assert_eq!((delivery.state, delivery.result.clone()), (State::Succeeded, Some(json!({ "status": 200 }))));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn another_receivers_secret_does_not_verify_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (first, second) = (acme.endpoint("https://a.example/").await, acme.endpoint("https://b.example/").await);
    acme.event("invoice.paid", json!({})).await;
    platform.run_jobs().await;

    let arrived = platform.hooks.deliveries_to(&first.url);
    assert_eq!(first.verify(&arrived[0].request, platform.now()), Ok(()));
    assert!(second.verify(&arrived[0].request, platform.now()).is_err());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_endpoint_gets_the_types_it_wants_and_no_others(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let exact = acme.endpoint_for("https://exact.example/", &["invoice.paid"]).await;
    let prefix = acme.endpoint_for("https://prefix.example/", &["invoice.*", "domain.renewed"]).await;
    let all = acme.endpoint("https://all.example/").await;
    for event_type in ["invoice.paid", "invoice.draft.made", "domain.renewed", "domain.lost", "invoices.paid"] {
        acme.event(event_type, json!({})).await;
    }
    platform.run_jobs().await;

    let arrived = |receiver: &gantry_tests::Receiver| -> Vec<String> {
        let bodies = platform.hooks.deliveries_to(&receiver.url).into_iter().map(|delivery| delivery.request.body);
        bodies
            .map(|body| serde_json::from_slice::<Value>(&body).unwrap()["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(arrived(&exact), ["invoice.paid"]);
    assert_eq!(arrived(&prefix), ["invoice.paid", "invoice.draft.made", "domain.renewed"]);
    assert_eq!(arrived(&all).len(), 5);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_event_of_one_organization_reaches_no_endpoint_of_another(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let theirs = globex.endpoint("https://globex.example/").await;
    acme.event("invoice.paid", json!({})).await;
    assert_eq!(platform.run_jobs().await, 0);
    assert!(platform.hooks.deliveries_to(&theirs.url).is_empty());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_receiver_that_fails_is_asked_again_by_the_ladder_until_it_answers(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/hooks").await;
    platform.hooks.fail_next(1, Outcome::Status(500));
    platform.hooks.fail_next(1, Outcome::Timeout);
    let event = acme.event("invoice.paid", json!({})).await;
    platform.run_jobs().await;

    let waiting = deliveries(&acme).await.remove(0);
    let wait = waiting.run_at - platform.now();
    assert!((5_000..=5_500).contains(&wait.num_milliseconds()), "{wait}");
    assert_eq!(waiting.failures[0].error, "the receiver answered 500");
    platform.clock.advance(Duration::seconds(4));
    assert_eq!(platform.run_jobs().await, 0);
    platform.clock.advance(Duration::seconds(2));
    assert_eq!(platform.run_jobs().await, 1);
    let wait = deliveries(&acme).await[0].run_at - platform.now();
    assert!((300..=330).contains(&wait.num_seconds()), "{wait}");
    platform.run_through(Duration::hours(1)).await;

    assert_eq!(deliveries(&acme).await[0].state, State::Succeeded);
    let kept = acme.attempts(receiver.id).await;
    let seen: Vec<_> =
        kept.iter().rev().map(|attempt| (attempt.number, attempt.status, attempt.error.is_some())).collect();
    assert_eq!(seen, [(1, Some(500), false), (2, None, true), (3, Some(200), false)]);
    assert!(kept.iter().all(|attempt| attempt.event == event));
    // The id is the same in every attempt, the signature is each attempt's own.
    let arrived = platform.hooks.deliveries_to(&receiver.url);
    assert_eq!(arrived.len(), 3);
    assert!(
        arrived.iter().all(|delivery| delivery.request.headers.contains(&("webhook-id".to_owned(), event.to_string())))
    );
    assert_eq!(receiver.verify(&arrived[2].request, platform.now()), Ok(()));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn after_the_last_rung_of_three_days_a_delivery_is_a_dead_letter(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.endpoint_for("https://receiver.example/fail/500", &["invoice.*"]).await;
    acme.event("invoice.paid", json!({})).await;
    let began = platform.now();
    platform.run_through(Duration::days(10)).await;

    platform.assert_ran::<DeliverWebhook>(10);
    let took = platform.now() - began;
    assert!((75..=84).contains(&took.num_hours()), "{took}");
    let delivery = deliveries(&acme).await.remove(0);
    assert_eq!((delivery.state, delivery.failures.len()), (State::Discarded, 10));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_receiver_that_is_gone_is_not_asked_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/fail/410").await;
    acme.event("invoice.paid", json!({})).await;
    platform.run_through(Duration::days(10)).await;

    platform.assert_ran::<DeliverWebhook>(1);
    assert_eq!(deliveries(&acme).await[0].state, State::Discarded);
    assert_eq!(acme.attempts(receiver.id).await[0].status, Some(410));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_address_that_must_not_be_reached_is_not_asked_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/fail/refused_address").await;
    acme.event("invoice.paid", json!({})).await;
    platform.run_through(Duration::days(10)).await;

    platform.assert_ran::<DeliverWebhook>(1);
    assert_eq!(deliveries(&acme).await[0].state, State::Discarded);
    assert!(acme.attempts(receiver.id).await[0].error.is_some());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_disabled_endpoint_is_passed_over_and_a_removed_one_is_not_missed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let disabled = acme.endpoint("https://a.example/").await;
    let disabled_late = acme.endpoint("https://b.example/").await;
    let removed_late = acme.endpoint("https://c.example/").await;
    acme.set_enabled(disabled.id, false).await;
    acme.event("invoice.paid", json!({})).await;
    assert_eq!(deliveries(&acme).await.len(), 2, "nothing is asked for a disabled endpoint");
    acme.set_enabled(disabled_late.id, false).await;
    let mut tx = acme.begin().await;
    assert!(endpoints::delete(&mut tx, removed_late.id).await.unwrap());
    tx.commit().await.unwrap();
    platform.run_jobs().await;

    assert!(platform.hooks.deliveries().is_empty());
    assert!(deliveries(&acme).await.iter().all(|delivery| delivery.state == State::Succeeded));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn delivering_twice_is_told_by_the_same_id(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.endpoint("https://receiver.example/hooks").await;
    acme.event("invoice.paid", json!({})).await;
    platform.run_jobs().await;
    platform.run_twice::<DeliverWebhook>().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_delivery_survives_the_failure_of_any_of_its_calls(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/hooks").await;
    let ask = async || {
        acme.event("invoice.paid", json!({})).await;
        deliveries(&acme).await.pop().unwrap().id
    };
    platform
        .fail_at_each_call::<DeliverWebhook>(ask, async |job| {
            let kept = acme.attempts(receiver.id).await;
            assert!(kept.iter().any(|attempt| attempt.job == job && attempt.status == Some(200)), "{job}");
        })
        .await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_dead_delivery_is_sent_when_it_is_retried_by_hand(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://receiver.example/hooks").await;
    platform.hooks.fail_next(1, Outcome::RefusedAddress);
    acme.event("invoice.paid", json!({})).await;
    platform.run_jobs().await;
    let delivery = deliveries(&acme).await.remove(0).id;
    assert_eq!(acme.retry(delivery).await, control::Change::Done);
    platform.run_jobs().await;

    assert_eq!(acme.state(delivery).await, State::Succeeded);
    assert_eq!(acme.attempts(receiver.id).await.len(), 2);
}
