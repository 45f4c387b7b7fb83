//! Asking for jobs.

use chrono::{Duration, TimeZone as _, Utc};
use gantry_jobs::request::{Asked, enqueue_new};
use gantry_jobs::request::{MAX_BULK, MAX_PAYLOAD_BYTES, RequestError, enqueue_all};
use gantry_jobs::{Job as _, catalogue};
use gantry_schema::jobs::{Outcome, State};
use gantry_schema::{JobId, WorkerId};
use gantry_tests::Platform;
use gantry_tests::kinds::{Act, Only, Scripted};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_exists_exactly_if_its_transaction_was_committed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;

    let mut tx = acme.begin().await;
    let lost = Only::one("k", "alive", "existing", "lost").request().enqueue(&mut tx, &acme.by()).await.unwrap();
    assert_eq!(lost.outcome, Outcome::Inserted);
    tx.rollback().await.unwrap();
    assert!(acme.find_job(lost.id).await.is_none());
    for table in ["jobs", "job_dispatch", "job_unique"] {
        assert_eq!(platform.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }

    let kept = acme.enqueue(Only::one("k", "alive", "existing", "kept")).await;
    assert_ne!(kept, lost.id);
    platform.run_jobs().await;
    assert_eq!(acme.job(kept).await.result, Some(json!("kept")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_transaction_that_is_dropped_leaves_nothing(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = acme.begin().await;
    Scripted::fine("a").request().enqueue(&mut tx, &acme.by()).await.unwrap();
    drop(tx);
    assert_eq!(platform.run_jobs().await, 0);
    assert_eq!(platform.count("select count(*) from jobs").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_is_rung_for_before_the_commit_nor_for_what_is_not_ready(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;

    let mut tx = acme.begin().await;
    let ready = Scripted::fine("ready").request().enqueue(&mut tx, &acme.by()).await.unwrap().id;
    let later = Scripted::fine("later");
    let later = later.request().at(platform.now() + Duration::hours(1)).enqueue(&mut tx, &acme.by()).await.unwrap().id;
    let waiting = Scripted::fine("waiting");
    waiting.request().after("ready", ready).enqueue(&mut tx, &acme.by()).await.unwrap();
    assert!(platform.rung().is_empty());
    tx.commit().await.unwrap();
    assert_eq!(platform.rung(), [ready]);

    let mut tx = acme.begin().await;
    Scripted::fine("never").request().enqueue(&mut tx, &acme.by()).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(platform.rung().is_empty());
    platform.run_through(Duration::hours(2)).await;
    assert_eq!(acme.state(later).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_row_says_what_was_asked_by_whom_and_how_it_is_run(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned();
    let mut tx = acme.begin().await;
    let job = Scripted::fine("a");
    let by = acme.by().traced(Some(trace.clone()));
    let id = job.request().priority(2).enqueue(&mut tx, &by).await.unwrap().id;
    tx.commit().await.unwrap();

    let row = acme.job(id).await;
    assert_eq!((row.organization, row.kind.as_str(), row.queue.as_str()), (acme.id, Scripted::KIND, "default"));
    assert_eq!((row.priority, row.state, row.attempt, row.max_attempts), (2, State::Available, 0, 3));
    assert_eq!((row.created_at, row.run_at, row.finished_at), (platform.now(), platform.now(), None));
    assert_eq!((row.requested_by.as_str(), row.traceparent), ("platform:story", Some(trace)));
    assert_eq!(row.payload, json!({ "name": "a", "acts": ["Succeed"] }));
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn ten_thousand_jobs_are_written_down_at_once_and_not_one_more(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let jobs: Vec<Scripted> = (0..=MAX_BULK).map(|number| Scripted::fine(&number.to_string())).collect();

    let mut tx = acme.begin().await;
    let refused = enqueue_all(&mut tx, &jobs, &acme.by()).await;
    assert!(matches!(refused, Err(RequestError::TooMany { count: 10_001 })));
    tx.rollback().await.unwrap();
    assert_eq!(platform.count("select count(*) from jobs").await, 0);

    let ids = acme.enqueue_all(&jobs[..MAX_BULK]).await;
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert_eq!(platform.rung(), ids);
    assert_eq!(platform.count("select count(*) from job_dispatch").await, 10_000);
    assert_eq!(acme.job(ids[9_999]).await.payload["name"], "9999");
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_payload_that_is_too_large_and_one_that_is_not_as_expected_are_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = acme.begin().await;
    let large = Scripted::fine(&"x".repeat(MAX_PAYLOAD_BYTES));
    let refused = large.request().enqueue(&mut tx, &acme.by()).await;
    assert!(matches!(refused, Err(RequestError::PayloadTooLarge { .. })));

    let kind = catalogue::find("diagnostics.probe").unwrap();
    for payload in [r#"{"steps":-1}"#, r#"{"unknown":1}"#, "[]", "null", r#""""#] {
        let payload = RawValue::from_string(payload.to_owned()).unwrap();
        assert!(kind.new_job(&payload, &Asked::default(), &acme.by(), platform.now()).is_err(), "{payload}");
    }
    let payload = RawValue::from_string("{}".to_owned()).unwrap();
    let asked = |asked: Asked| kind.new_job(&payload, &asked, &acme.by(), platform.now()).map(drop);
    let far = Utc.with_ymd_and_hms(9999, 1, 1, 0, 0, 0).unwrap();
    assert!(asked(Asked { run_at: Some(far), ..Asked::default() }).is_err());
    assert!(asked(Asked { expires_at: Some(platform.now()), ..Asked::default() }).is_err());
    assert!(asked(Asked { priority: Some(10), ..Asked::default() }).is_err());
    assert!(asked(Asked { priority: Some(-1), ..Asked::default() }).is_err());
    assert!(asked(Asked::default()).is_ok());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_cannot_wait_for_what_does_not_exist_or_is_somebody_elses(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let theirs = globex.enqueue(Scripted::fine("theirs")).await;
    for foreign in [theirs, platform.ids().mint::<JobId>()] {
        let mut tx = acme.begin().await;
        let job = Scripted::fine("mine");
        let refused = job.request().after("it", foreign).enqueue(&mut tx, &acme.by()).await;
        assert!(refused.unwrap_err().to_string().contains(&foreign.to_string()));
        tx.rollback().await.unwrap();
    }
    platform.run_jobs().await;
    assert_eq!(globex.state(theirs).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_is_not_run_before_its_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("later");
    let id = acme.ask(job.request().at(platform.now() + Duration::minutes(10))).await.id;
    assert_eq!(acme.state(id).await, State::Scheduled);

    platform.clock.advance(Duration::minutes(10) - Duration::milliseconds(1));
    assert_eq!(platform.run_jobs().await, 0);
    assert!(platform.claim(platform.ids().mint(), &[id]).await.is_empty(), "an early ring is no reason to claim");
    platform.clock.advance(Duration::milliseconds(1));
    assert_eq!(acme.state(id).await, State::Available);
    assert_eq!(platform.run_jobs().await, 1);
    assert_eq!(acme.state(id).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_whose_time_to_start_is_over_is_not_started(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::new("late", Act::Answer(json!("ran")));
    let in_time = acme.ask(job.request().expires(platform.now() + Duration::minutes(2))).await.id;
    let late = acme
        .ask(job.request().at(platform.now() + Duration::minutes(1)).expires(platform.now() + Duration::minutes(2)))
        .await
        .id;
    platform.run_jobs().await;
    assert_eq!(acme.job(in_time).await.result, Some(json!("ran")));

    platform.clock.advance(Duration::minutes(2));
    platform.run_jobs().await;
    let late = acme.job(late).await;
    assert_eq!((late.state, late.result), (State::Cancelled, None));
    assert_eq!(late.failures[0].outcome, "expired");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_of_an_organization_run_by_priority_then_by_age(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut ids = Vec::new();
    for priority in [4, 9, 0, 4, 0] {
        let job = Scripted::fine("a");
        ids.push(acme.ask(job.request().priority(priority)).await.id);
        platform.clock.advance(Duration::milliseconds(1));
    }
    let ready = gantry_schema::jobs::relay::ready(platform.ledger(), 10).await.unwrap();
    let order: Vec<JobId> = ready.into_iter().map(|ready| ready.id).collect();
    assert_eq!(order, [ids[2], ids[4], ids[0], ids[3], ids[1]]);
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_unique_job_that_waits_is_answered_to_whoever_asks_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let only = |text: &str| Only::one("k", "pending", "existing", text);
    let first = acme.enqueue(only("first")).await;
    let again = acme.ask(only("again").request()).await;
    assert_eq!((again.id, again.outcome), (first, Outcome::Existing));
    let other = acme.ask(Only::one("other", "pending", "existing", "other").request()).await;
    assert_eq!(other.outcome, Outcome::Inserted);

    // Held until it is claimed: then another may wait while this one runs.
    let claimed = platform.claim(platform.ids().mint(), &[first]).await;
    assert_eq!(claimed.len(), 1);
    let next = acme.ask(only("next").request()).await;
    assert_eq!(next.outcome, Outcome::Inserted);
    assert_eq!(acme.ask(only("more").request()).await.id, next.id);
    platform.run_jobs().await;
    assert_eq!(acme.job(next.id).await.result, Some(json!("next")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_is_unique_while_it_lives_frees_its_key_when_it_ends(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let only = |act: Act| Only { act, ..Only::one("k", "alive", "existing", "a") };
    // It succeeds, it is discarded, it is cancelled.
    let first = acme.enqueue(only(Act::Succeed)).await;
    let worker: WorkerId = platform.ids().mint();
    platform.claim(worker, &[first]).await;
    assert_eq!(acme.ask(only(Act::Succeed).request()).await.id, first, "it holds the key while it runs");
    platform.silence(worker).await;
    platform.rescue().await;
    assert_eq!(acme.state(first).await, State::Discarded, "its only attempt was lost");

    let second = acme.ask(only(Act::GiveUp("no".to_owned())).request()).await;
    assert_eq!(second.outcome, Outcome::Inserted);
    platform.run_jobs().await;
    assert_eq!(acme.state(second.id).await, State::Discarded);

    let third = acme.ask(only(Act::Succeed).request()).await;
    assert_eq!(third.outcome, Outcome::Inserted);
    acme.cancel(third.id).await;
    let fourth = acme.ask(only(Act::Succeed).request()).await;
    assert_eq!(fourth.outcome, Outcome::Inserted);
    platform.run_jobs().await;
    assert_eq!(acme.state(fourth.id).await, State::Succeeded);
    assert_eq!(acme.ask(only(Act::Succeed).request()).await.outcome, Outcome::Inserted);
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_is_unique_for_a_period_stays_so_after_success_only(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let only = |act: Act| Only { act, ..Only::one("k", "60", "existing", "a") };
    let first = acme.enqueue(only(Act::Succeed)).await;
    platform.run_jobs().await;
    platform.clock.advance(Duration::seconds(59));
    let within = acme.ask(only(Act::Succeed).request()).await;
    assert_eq!((within.id, within.outcome), (first, Outcome::Existing));
    platform.clock.advance(Duration::seconds(1));
    let after = acme.ask(only(Act::GiveUp("no".to_owned())).request()).await;
    assert_eq!(after.outcome, Outcome::Inserted);
    platform.run_jobs().await;
    assert_eq!(acme.ask(only(Act::Succeed).request()).await.outcome, Outcome::Inserted);
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_later_question_replaces_what_a_waiting_job_says(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let only = |text: &str| Only::one("k", "alive", "replace", text);
    let job = only("first");
    let due = platform.now() + Duration::minutes(5);
    let first = acme.ask(job.request().at(due)).await.id;
    let again = acme.ask(only("second").request()).await;
    assert_eq!((again.id, again.outcome), (first, Outcome::Updated));
    assert_eq!(acme.job(first).await.run_at, due, "its time stays");
    platform.run_through(Duration::hours(1)).await;
    assert_eq!(acme.job(first).await.result, Some(json!("second")));

    // One that runs is left as it is.
    let running = acme.enqueue(only("running")).await;
    platform.claim(platform.ids().mint(), &[running]).await;
    let too_late = acme.ask(only("too late").request()).await;
    assert_eq!((too_late.id, too_late.outcome), (running, Outcome::Existing));
    assert_eq!(acme.job(running).await.payload["text"], "running");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn each_question_puts_a_debounced_job_off(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ask = async |text: &str| {
        let job = Only::one("k", "pending", "debounce", text);
        acme.ask(job.request().at(platform.now() + Duration::seconds(10))).await
    };
    let first = ask("one").await.id;
    for text in ["two", "three"] {
        platform.clock.advance(Duration::seconds(9));
        assert_eq!(platform.run_jobs().await, 0);
        let again = ask(text).await;
        assert_eq!((again.id, again.outcome), (first, Outcome::Updated));
        assert_eq!(acme.state(first).await, State::Scheduled);
    }
    platform.clock.advance(Duration::seconds(10));
    assert_eq!(platform.run_jobs().await, 1);
    assert_eq!(acme.job(first).await.result, Some(json!("three")));

    // Asked for without a time, it is ready at once.
    let second = ask("slow").await.id;
    acme.enqueue(Only::one("k", "pending", "debounce", "now")).await;
    assert_eq!(platform.run_jobs().await, 1);
    assert_eq!(acme.job(second).await.result, Some(json!("now")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn many_who_ask_for_a_unique_job_at_once_get_the_same_one(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for key in ["a", "b", "c"] {
        let asked = futures::future::join_all((0..12).map(|number| {
            let acme = acme.clone();
            async move {
                let job = Only::one(key, "alive", "existing", &number.to_string());
                acme.ask(job.request()).await
            }
        }))
        .await;
        assert_eq!(asked.iter().filter(|asked| asked.outcome == Outcome::Inserted).count(), 1, "{asked:?}");
        assert!(asked.iter().all(|one| one.id == asked[0].id), "{asked:?}");
    }
    assert_eq!(platform.run_jobs().await, 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_unique_key_counts_within_one_bulk_and_within_one_organization(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let jobs = ["a", "b", "a"].map(|key| Only::one(key, "alive", "existing", key));
    let ids = acme.enqueue_all(&jobs).await;
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[0], ids[1]);
    assert_ne!(globex.enqueue_all(&jobs).await[0], ids[0]);
    assert_eq!(platform.run_jobs().await, 4);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn bulks_that_want_the_same_keys_in_another_order_do_not_block_each_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let keys: Vec<String> = (0..5_000).map(|number| format!("key {number:04}")).collect();
    let rounds = (0..6).map(|round| {
        let (acme, mut keys) = (acme.clone(), keys.clone());
        async move {
            if round % 2 == 1 {
                keys.reverse();
            }
            let jobs: Vec<Only> = keys.iter().map(|key| Only::one(key, "alive", "existing", "a")).collect();
            let mut tx = acme.begin().await;
            let asked = enqueue_all(&mut tx, &jobs, &acme.by()).await.map(drop);
            tx.commit().await.unwrap();
            asked
        }
    });
    for asked in futures::future::join_all(rounds).await {
        asked.unwrap();
    }
    assert_eq!(platform.count("select count(*) from jobs").await, 5_000);
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_engine_asks_for_jobs_of_any_organization(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut tx = platform.ledger().begin().await.unwrap();
    let new = Scripted::fine("a").request().into_new_job(&acme.by()).unwrap();
    let asked = enqueue_new(&mut tx, acme.id, vec![new]).await.unwrap();
    tx.commit().await.unwrap();
    platform.run_jobs().await;
    assert_eq!(acme.state(asked[0].id).await, State::Succeeded);
}
