//! Endpoints that cannot take everything at once: ordered, limited, failing, gone.

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_jobs::webhooks::{DeliverWebhook, DrainBacklog, ReplayEvents};
use gantry_providers::hooks::HookRequest;
use gantry_providers::hooks::sandbox::Outcome;
use gantry_schema::jobs::State;
use gantry_schema::webhooks::signature::{Scheme, SigningSecret};
use gantry_schema::webhooks::{endpoints, events, health};
use gantry_schema::{Order, Window};
use gantry_tests::{Actor, Platform, Receiver};
use serde_json::{Value, json};
use sqlx::PgPool;

fn header<'a>(request: &'a HookRequest, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn arrived(platform: &Platform, receiver: &Receiver) -> Vec<HookRequest> {
    let deliveries = platform.hooks.deliveries_to(&receiver.url).into_iter();
    deliveries.filter(|it| it.outcome == Outcome::Status(200)).map(|it| it.request).collect()
}

async fn told(platform: &Platform, event_type: &str) -> Vec<Value> {
    sqlx::query_scalar("select payload from events where type = $1 order by id")
        .bind(event_type)
        .fetch_all(&platform.owner)
        .await
        .unwrap()
}

/// Posts so many events.
async fn post(acme: &Actor, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(acme.event("invoice.paid", json!({ "number": number })).await.to_string());
    }
    ids
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_ordered_endpoint_gets_everything_in_order_without_a_gap_whatever_fails(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.ordered = true).await;
    let first = post(&acme, 3).await;
    platform.hooks.fail_next(1, Outcome::Status(500));
    platform.run_jobs().await;
    assert!(arrived(&platform, &receiver).is_empty(), "nothing overtakes the first");
    let second = post(&acme, 2).await;
    platform.hooks.fail_next(1, Outcome::Timeout);
    platform.run_through(Duration::hours(2)).await;

    let arrived = arrived(&platform, &receiver);
    let ids: Vec<_> = arrived.iter().map(|request| header(request, "webhook-id").unwrap().to_owned()).collect();
    assert_eq!(ids, [first, second].concat());
    let numbers: Vec<_> = arrived.iter().map(|request| header(request, "webhook-sequence").unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
    assert_eq!(acme.backlog(receiver.id).await, 0);
    assert_eq!(acme.attempts(receiver.id).await.len(), 7);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_rate_limit_delays_and_loses_nothing(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.rate_per_second = Some(200)).await;
    let began = std::time::Instant::now();
    post(&acme, 11).await;
    platform.run_jobs().await;
    assert_eq!(arrived(&platform, &receiver).len(), 11);
    assert!(began.elapsed() >= std::time::Duration::from_millis(50), "eleven at 200 a second take fifty milliseconds");
    platform.assert_ran::<DeliverWebhook>(0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_circuit_opens_holds_everything_back_and_closes_with_the_first_success(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://a.example/").await;
    let well = acme.endpoint("https://b.example/").await;
    // Deliveries of one event go out side by side; only those to the first endpoint fail.
    acme.set_enabled(well.id, false).await;
    let opens_after = usize::try_from(health::OPENS_AFTER).unwrap();
    platform.hooks.fail_next(opens_after, Outcome::Status(503));
    post(&acme, opens_after).await;
    platform.run_jobs().await;
    acme.set_enabled(well.id, true).await;

    let open = acme.endpoint_now(receiver.id).await;
    assert_eq!(open.consecutive_failures, health::OPENS_AFTER);
    assert_eq!(open.open_until, Some(platform.now() + Duration::seconds(30)));
    post(&acme, 5).await;
    platform.run_jobs().await;
    assert_eq!(arrived(&platform, &well).len(), 5, "others are not concerned");
    assert_eq!(platform.hooks.deliveries_to(&receiver.url).len(), opens_after, "nothing is sent while it is open");
    assert_eq!(acme.backlog(receiver.id).await, 5);

    platform.hooks.fail_next(1, Outcome::Timeout);
    platform.clock.advance(Duration::seconds(31));
    platform.run_jobs().await;
    assert_eq!(platform.hooks.deliveries_to(&receiver.url).len(), opens_after + 1, "half open: one delivery");
    let open = acme.endpoint_now(receiver.id).await;
    assert_eq!(open.open_until, Some(platform.now() + Duration::minutes(1)), "it stays open twice as long");

    platform.run_through(Duration::hours(1)).await;
    assert_eq!(arrived(&platform, &receiver).len(), opens_after + 5, "nothing was lost");
    let closed = acme.endpoint_now(receiver.id).await;
    assert_eq!((closed.consecutive_failures, closed.open_until, closed.failing_since), (0, None, None));
    assert_eq!(acme.backlog(receiver.id).await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_receiver_that_says_gone_is_disabled_and_its_owner_told(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let gone = acme.endpoint_for("https://a.example/fail/410", &["invoice.*"]).await;
    let watcher = acme.endpoint_for("https://b.example/", &["webhook.*"]).await;
    post(&acme, 1).await;
    platform.run_jobs().await;

    let endpoint = acme.endpoint_now(gone.id).await;
    assert_eq!((endpoint.enabled, endpoint.disabled_reason.as_deref()), (false, Some("gone")));
    let told = told(&platform, "webhook.endpoint_disabled").await;
    assert_eq!(told[0]["reason"], "gone");
    let notices = acme.notices().await;
    assert_eq!((notices[0].kind.as_str(), &notices[0].facts), ("webhook.endpoint_disabled", &told[0]));
    assert!(notices[0].message().contains("https://a.example/fail/410 was disabled: it answered 410"));
    let body: Value = serde_json::from_slice(&arrived(&platform, &watcher)[0].body).unwrap();
    assert_eq!(
        (body["type"].as_str(), body["data"]["endpoint_id"].as_str()),
        (Some("webhook.endpoint_disabled"), Some(gone.id.to_string().as_str()))
    );
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn after_five_days_without_a_success_an_endpoint_is_disabled_after_a_warning(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_for("https://a.example/fail/500", &["invoice.*"]).await;
    for _ in 0..12 {
        post(&acme, 1).await;
        platform.run_through(Duration::hours(12)).await;
        let elapsed = Duration::hours(12);
        platform.clock.advance(elapsed - (platform.now() - platform.now()));
    }
    platform.run_through(Duration::days(2)).await;

    let endpoint = acme.endpoint_now(receiver.id).await;
    assert_eq!((endpoint.enabled, endpoint.disabled_reason.as_deref()), (false, Some("failing")));
    assert_eq!(told(&platform, "webhook.endpoint_failing").await.len(), 1);
    assert_eq!(told(&platform, "webhook.endpoint_disabled").await.len(), 1);
    let notices: Vec<_> = acme.notices().await.into_iter().filter(|notice| notice.dismissed_at.is_none()).collect();
    assert!(notices.iter().any(|notice| notice.message().contains("was disabled: nothing has reached it since")));
    assert!(notices.iter().all(|notice| notice.kind != "webhook.endpoint_failing"), "it no longer only fails");
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_delivery_that_is_given_up_is_told_and_can_be_recovered(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_for("https://a.example/", &["invoice.*"]).await;
    let began = platform.now();
    platform.hooks.fail_next(9, Outcome::Status(500));
    platform.hooks.fail_next(1, Outcome::Status(500));
    let missed = post(&acme, 1).await;
    platform.run_through(Duration::days(4)).await;
    assert!(arrived(&platform, &receiver).is_empty());
    assert_eq!(told(&platform, "webhook.delivery_exhausted").await[0]["event_id"], missed[0]);
    post(&acme, 2).await;
    platform.run_through(Duration::hours(1)).await;
    assert_eq!(arrived(&platform, &receiver).len(), 2);

    let to = platform.now() + Duration::seconds(1);
    acme.enqueue(ReplayEvents { endpoint: receiver.id, from: began, to, missed: true }).await;
    platform.run_jobs().await;
    let ids: Vec<_> =
        arrived(&platform, &receiver).iter().map(|it| header(it, "webhook-id").unwrap().to_owned()).collect();
    assert_eq!((ids.len(), ids.last()), (3, Some(&missed[0])), "only what was missed");

    acme.enqueue(ReplayEvents { endpoint: receiver.id, from: began, to, missed: false }).await;
    platform.run_jobs().await;
    assert_eq!(arrived(&platform, &receiver).len(), 6, "everything it wants");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_replay_survives_the_failure_of_any_of_its_calls(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://a.example/").await;
    let from = platform.now() - Duration::seconds(1);
    post(&acme, 3).await;
    platform.run_jobs().await;
    let ask = async || {
        let to = platform.now() + Duration::seconds(1);
        acme.enqueue(ReplayEvents { endpoint: receiver.id, from, to, missed: false }).await
    };
    platform
        .fail_at_each_call::<ReplayEvents>(ask, async |job| {
            assert_eq!(acme.job(job).await.result.unwrap()["deliveries"], 3, "{job}");
            let asked = format!("select count(*) from jobs where requested_by = 'job:{job}' and state = 'succeeded'");
            assert_eq!(platform.count(&asked).await, 3, "{job} asked for each delivery once");
        })
        .await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_wait_the_receiver_asks_for_is_kept(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.endpoint("https://a.example/").await;
    platform.hooks.fail_next(1, Outcome::StatusAfter(429, "7200"));
    let event = post(&acme, 1).await;
    platform.run_jobs().await;
    let waiting: String =
        sqlx::query_scalar("select run_at::text from jobs where kind = $1 and payload ->> 'event' = $2")
            .bind(DeliverWebhook::KIND)
            .bind(&event[0])
            .fetch_one(&platform.owner)
            .await
            .unwrap();
    assert_eq!(waiting, "2026-03-02 11:00:00+00");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn while_a_secret_is_replaced_both_verify_and_afterwards_only_the_new_one(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://a.example/").await;
    let new = acme.rotate(receiver.id, Scheme::V1a, Duration::hours(24)).await;
    let verify = |secret: &SigningSecret, request: &HookRequest| {
        receiver.with(secret.clone()).verify(request, platform.now()).is_ok()
    };
    post(&acme, 1).await;
    platform.run_jobs().await;
    let request = arrived(&platform, &receiver).pop().unwrap();
    assert_eq!(header(&request, "webhook-signature").unwrap().split(' ').count(), 2);
    assert!(receiver.verify(&request, platform.now()).is_ok() && verify(&new, &request));

    platform.clock.advance(Duration::hours(24));
    post(&acme, 1).await;
    platform.run_jobs().await;
    let request = arrived(&platform, &receiver).pop().unwrap();
    assert!(receiver.verify(&request, platform.now()).is_err() && verify(&new, &request));

    let newest = acme.rotate(receiver.id, Scheme::V1, Duration::zero()).await;
    post(&acme, 1).await;
    platform.run_jobs().await;
    let request = arrived(&platform, &receiver).pop().unwrap();
    assert!(!verify(&new, &request) && verify(&newest, &request), "at once means at once");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_thin_delivery_says_where_the_rest_is(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.thin = true).await;
    let event = post(&acme, 1).await.remove(0);
    platform.run_jobs().await;
    let body: Value = serde_json::from_slice(&arrived(&platform, &receiver)[0].body).unwrap();
    assert_eq!(body["data"], json!({ "event_id": event, "url": format!("/events/{event}") }));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_waits_for_a_disabled_endpoint_is_delivered_when_it_is_enabled(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.ordered = true).await;
    post(&acme, 2).await;
    acme.set_enabled(receiver.id, false).await;
    platform.run_jobs().await;
    assert_eq!((arrived(&platform, &receiver).len(), acme.backlog(receiver.id).await), (0, 2));
    acme.set_enabled(receiver.id, true).await;
    acme.enqueue(DrainBacklog::now(receiver.id)).await;
    platform.run_jobs().await;
    assert_eq!((arrived(&platform, &receiver).len(), acme.backlog(receiver.id).await), (2, 0));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_drain_survives_the_failure_of_any_of_its_calls(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.ordered = true).await;
    let ask = async || {
        let mut tx = acme.begin().await;
        let emitted = gantry_jobs::webhooks::emit(&mut tx, "invoice.paid", json!({}), &acme.by()).await.unwrap();
        tx.commit().await.unwrap();
        let job = "select id from jobs where kind = 'webhooks.drain' order by id desc limit 1";
        let job: uuid::Uuid = sqlx::query_scalar(job).fetch_one(&platform.owner).await.unwrap();
        drop(emitted);
        job.into()
    };
    platform.fail_at_each_call::<DrainBacklog>(ask, async |_| assert_eq!(acme.backlog(receiver.id).await, 0)).await;
    let numbers: Vec<u64> = arrived(&platform, &receiver)
        .iter()
        .map(|request| header(request, "webhook-sequence").unwrap().parse().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "repeated perhaps, never out of order: {numbers:?}");
    let mut distinct = numbers.clone();
    distinct.dedup();
    assert_eq!(distinct, (1..=distinct.len() as u64).collect::<Vec<_>>(), "and without a gap");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn old_events_and_attempts_are_forgotten_and_newer_ones_are_not(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint("https://a.example/").await;
    post(&acme, 2).await;
    platform.run_jobs().await;
    platform.clock.advance(Duration::days(29));
    let kept = post(&acme, 1).await;
    platform.run_jobs().await;
    platform.clock.advance(Duration::days(2));
    platform.operator().enqueue(gantry_jobs::maintenance::ForgetEvents::default()).await;
    platform.run_jobs().await;
    let mut tx = acme.begin().await;
    let left = events::list(&mut tx, &events::Filter::default(), Window::new(Order::Descending, 10)).await.unwrap();
    assert_eq!(left.iter().map(|event| event.id.to_string()).collect::<Vec<_>>(), kept);
    drop(tx);
    assert_eq!(acme.attempts(receiver.id).await.len(), 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_burst_to_an_ordered_endpoint_is_one_job_at_a_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let receiver = acme.endpoint_with("https://a.example/", |endpoint| endpoint.ordered = true).await;
    post(&acme, 50).await;
    let waiting = "select count(*) from jobs where kind = 'webhooks.drain'";
    assert_eq!(platform.count(waiting).await, 1);
    platform.run_jobs().await;
    assert_eq!(arrived(&platform, &receiver).len(), 50);
    let change = endpoints::Change { ordered: Some(false), ..endpoints::Change::default() };
    acme.change(receiver.id, &change).await;
    let job = acme.event("invoice.paid", json!({})).await;
    platform.assert_enqueued::<DeliverWebhook>(|delivery| delivery.event == job).await;
    platform.run_jobs().await;
    let states = "select count(*) from jobs where state <> 'succeeded'";
    assert_eq!(platform.count(states).await, 0, "{:?}", State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_for_an_endpoint_that_is_behind_waits_at_once_and_arrives_in_its_turn(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (behind, well) = (acme.endpoint("https://a.example/").await, acme.endpoint("https://b.example/").await);
    let mut tx = acme.begin().await;
    endpoints::fell_behind(&mut tx, &[behind.id]).await.unwrap();
    tx.commit().await.unwrap();

    post(&acme, 3).await;
    assert_eq!((acme.backlog(behind.id).await, acme.backlog(well.id).await), (3, 0));
    platform.run_jobs().await;
    assert_eq!((arrived(&platform, &behind).len(), arrived(&platform, &well).len()), (3, 3));
    assert_eq!(acme.endpoint_now(behind.id).await.behind_until, None, "it caught up");

    post(&acme, 1).await;
    assert_eq!(acme.backlog(behind.id).await, 0, "and gets what is for it directly");
    platform.run_jobs().await;
}
