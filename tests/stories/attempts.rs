//! What becomes of attempts.

use std::sync::Arc;

use chrono::Duration;
use gantry_jobs::diagnostics::Probe;
use gantry_schema::db::Silent;
use gantry_schema::jobs::claim::{self, Claimed, Paused};
use gantry_schema::jobs::settle::{self, Next, Setback, Success};
use gantry_schema::jobs::{Failure, State, lease, log};
use gantry_schema::{EngineDb, IdMint, JobId, WorkerId};
use gantry_tests::kinds::{Act, Effect, Garble, Hanging, OneAtATime, Scripted};
use gantry_tests::platform::as_role;
use gantry_tests::{Actor, Platform};
use serde_json::json;
use sqlx::PgPool;

async fn run(platform: &Platform, acme: &Actor, acts: &[Act]) -> JobId {
    let id = acme.enqueue(Scripted::acts("a", acts)).await;
    platform.run_jobs().await;
    id
}

fn success(claimed: &Claimed) -> Success {
    Success { id: claimed.id, attempt: claimed.attempt, result: Some("\"mine\"".to_owned()), keyed: claimed.keyed }
}

fn setback(platform: &Platform, claimed: &Claimed, next: Next) -> Setback {
    let failure = Failure {
        attempt: claimed.attempt,
        worker: None,
        started_at: None,
        ended_at: platform.now(),
        outcome: "failed".to_owned(),
        error: "it did not work".to_owned(),
    };
    Setback { id: claimed.id, attempt: claimed.attempt, next, failure }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_failed_attempt_is_followed_by_another_by_the_kinds_ladder(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id =
        run(&platform, &acme, &[Act::Fail("first".to_owned()), Act::Fail("second".to_owned()), Act::Succeed]).await;

    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.finished_at), (State::Scheduled, 1, None));
    assert!((10_000..=11_000).contains(&(job.run_at - platform.now()).num_milliseconds()));
    platform.clock.advance(Duration::seconds(11));
    platform.run_jobs().await;
    let job = acme.job(id).await;
    assert!((100_000..=110_000).contains(&(job.run_at - platform.now()).num_milliseconds()));
    platform.run_through(Duration::hours(1)).await;

    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.finished_at), (State::Succeeded, 3, Some(platform.now())));
    let errors: Vec<_> = job.failures.iter().map(|it| (it.attempt, it.outcome.as_str(), it.error.as_str())).collect();
    assert_eq!(errors, [(1, "failed", "first"), (2, "failed", "second")]);
    assert!(job.failures.iter().all(|failure| failure.worker == Some(platform.runtime().worker)));
    assert!(job.failures.iter().all(|failure| failure.started_at == Some(failure.ended_at)));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_fails_in_every_attempt_is_discarded(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::Fail("no".to_owned())]).await;
    platform.run_through(Duration::hours(1)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.failures.len()), (State::Discarded, 3, 3));
    assert_eq!(platform.count("select count(*) from job_unsuccessful where state = 'discarded'").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_other_side_may_say_when_to_come_back_but_not_how_often(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::FailUntil(1234)]).await;
    assert_eq!(acme.job(id).await.run_at, platform.now() + Duration::seconds(1234));
    platform.run_through(Duration::hours(3)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt), (State::Discarded, 3));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn coming_back_later_costs_no_attempt(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut acts = vec![Act::Snooze(60); 10];
    acts.push(Act::Fail("now".to_owned()));
    acts.push(Act::Succeed);
    let id = run(&platform, &acme, &acts).await;
    assert_eq!(acme.job(id).await.run_at, platform.now() + Duration::seconds(60));
    platform.clock.advance(Duration::minutes(10));
    platform.run_through(Duration::hours(1)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.uncounted), (State::Succeeded, 12, 10));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_many_failures_the_last_fifty_are_kept(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let mut acts = vec![Act::Snooze(1); 60];
    acts.push(Act::Succeed);
    let id = run(&platform, &acme, &acts).await;
    platform.run_through(Duration::hours(1)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.failures.len()), (State::Succeeded, 50));
    assert_eq!((job.failures[0].attempt, job.failures[49].attempt), (11, 60));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_failure_for_good_is_not_repeated(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::GiveUp("no such domain".to_owned())]).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.failures[0].outcome.as_str()), (State::Discarded, 1, "failed_for_good"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_panic_is_a_setback_and_its_message_is_kept(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::Panic("index out of bounds".to_owned()), Act::Succeed]).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.failures[0].outcome.as_str()), (State::Scheduled, "panicked"));
    assert!(job.failures[0].error.contains("index out of bounds"));
    platform.run_through(Duration::hours(1)).await;
    assert_eq!(acme.state(id).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_attempt_that_takes_too_long_is_stopped_and_repeated(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Hanging { listens: false }).await;
    platform.run_jobs().await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.failures[0].outcome.as_str()), (State::Scheduled, "timed_out"));
    assert_eq!(job.failures[0].error, "not done within 0.1 s");
    platform.run_through(Duration::hours(1)).await;
    assert_eq!(acme.state(id).await, State::Discarded);

    let listens = acme.enqueue(Hanging { listens: true }).await;
    platform.run_jobs().await;
    assert_eq!(acme.job(listens).await.result, Some(json!("finished all the same")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_payload_its_kind_does_not_understand_is_given_up_and_an_unknown_kind_waits(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let garbled = acme.enqueue(Scripted::fine("a")).await;
    let unknown = acme.enqueue(Scripted::fine("b")).await;
    let set = "update jobs set payload = '{}' where id = $1";
    sqlx::query(set).bind(garbled.uuid()).execute(&platform.owner).await.unwrap();
    let set = "with j as (update jobs set kind = 'next.release' where id = $1) update job_dispatch set kind = 'next.release' where id = $1";
    sqlx::query(set).bind(unknown.uuid()).execute(&platform.owner).await.unwrap();
    platform.run_jobs().await;

    let garbled = acme.job(garbled).await;
    assert_eq!(garbled.state, State::Discarded);
    assert!(garbled.failures[0].error.contains("missing field"), "{}", garbled.failures[0].error);
    let unknown = acme.job(unknown).await;
    assert_eq!(
        (unknown.state, unknown.uncounted, unknown.failures[0].outcome.as_str()),
        (State::Scheduled, 1, "unknown_kind")
    );
    platform.run_through(Duration::hours(2)).await;
    assert_eq!(acme.state(unknown.id).await, State::Discarded, "but not for ever");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn text_that_postgres_cannot_keep_does_not_stop_the_settling_of_a_job(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // No payload has a zero byte, so the handler must make it: of an answer from outside, say.
    let garble = async |outcome: &str| acme.enqueue(Garble { outcome: outcome.to_owned() }).await;
    let (zero, zero_error, zero_log) = (garble("answer").await, garble("fail").await, garble("log").await);
    platform.run_jobs().await;
    assert_eq!(acme.job(zero).await.result, Some(json!({ "k\u{fffd}": ["v\u{fffd}"] })));
    assert_eq!(acme.job(zero_error).await.failures[0].error, "before\u{fffd}after");
    assert_eq!(acme.job(zero_log).await.result, Some(json!("all\u{fffd}")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_handler_says_is_kept_with_its_job(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let id = acme.enqueue(Probe { steps: 3, failures: 1, message: "done".to_owned(), ..Probe::default() }).await;
    platform.run_through(Duration::hours(1)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt), (State::Succeeded, 2));
    assert_eq!(job.progress, Some(json!({ "done": 3, "of": 3 })));
    assert_eq!(job.result, Some(json!({ "message": "done" })));
    let mut tx = acme.begin().await;
    let lines = log::after(&mut tx, id, 0, 0, 99).await.unwrap();
    let said: Vec<_> = lines.iter().map(|line| (line.attempt, line.line, line.message.as_str())).collect();
    assert_eq!(said[..2], [(1, 1, "step 1 of 3"), (1, 2, "step 2 of 3")]);
    assert_eq!((said.len(), said[5]), (6, (2, 3, "step 3 of 3")));
    assert_eq!(log::after(&mut tx, id, 1, 3, 2).await.unwrap(), lines[3..5]);
    let mut tx = globex.begin().await;
    assert!(log::after(&mut tx, id, 0, 0, 99).await.unwrap().is_empty());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn work_and_end_are_one_commit(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::Complete]).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.result), (State::Succeeded, Some(json!("completed"))));
    assert_eq!(platform.count("select count(*) from events").await, 1);
    assert_eq!(platform.count("select count(*) from job_leases").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_effect_happens_once_though_any_call_fails_and_the_handler_runs_twice(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Effect { url: "https://vendor.example/charge".to_owned() };
    platform
        .fail_at_each_call::<Effect>(
            async || acme.enqueue(job.clone()).await,
            async |id| {
                let events = format!("select count(*) from events where payload ->> 'job' = '{id}'");
                assert_eq!(platform.count(&events).await, 1, "{id}");
            },
        )
        .await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_lost_the_job_changes_nothing_any_more(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    let (zombie, heir): (WorkerId, WorkerId) = (platform.ids().mint(), platform.ids().mint());
    let late = platform.claim(zombie, &[id]).await.remove(0);
    assert!(platform.claim(heir, &[id]).await.is_empty(), "nobody claims what another holds");
    platform.silence(zombie).await;
    assert_eq!(platform.rescue().await, lease::Rescued { returned: 1, discarded: 0 });
    let owned = platform.claim(heir, &[id]).await.remove(0);
    assert_eq!((late.attempt, owned.attempt), (1, 2));

    // The zombie comes back and tries everything.
    let ledger = platform.ledger();
    assert!(settle::succeed(ledger, &[success(&late)], &[]).await.unwrap().is_empty());
    for next in [Next::Retry(platform.now()), Next::Snooze(platform.now()), Next::Return, Next::Discard, Next::Cancel] {
        assert!(settle::set_back(ledger, &[setback(&platform, &late, next)], &[]).await.unwrap().is_empty());
    }
    let mut tx = acme.begin().await;
    assert!(!settle::succeed_within(&mut tx, id, late.attempt, None, false).await.unwrap());
    assert!(!log::set_progress(&mut tx, id, late.attempt, &json!(99)).await.unwrap());
    tx.rollback().await.unwrap();
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.progress.clone()), (State::Running, 2, None));
    assert_eq!(job.failures.len(), 1, "{:?}", job.failures);

    // The heir does as it likes, once.
    assert_eq!(settle::succeed(ledger, &[success(&owned)], &[]).await.unwrap(), [id]);
    assert!(settle::succeed(ledger, &[success(&owned)], &[]).await.unwrap().is_empty());
    assert_eq!(acme.job(id).await.result, Some(json!("mine")));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_handler_that_lost_its_job_cannot_commit_its_work(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    let claimed = platform.claim(platform.ids().mint(), &[id]).await.remove(0);
    let mut work = acme.begin().await;
    gantry_jobs::webhooks::emit(&mut work, "work.done", json!({}), &acme.by()).await.unwrap();
    acme.cancel(id).await;
    settle::set_back(platform.ledger(), &[setback(&platform, &claimed, Next::Cancel)], &[]).await.unwrap();
    assert!(!settle::succeed_within(&mut work, id, claimed.attempt, None, false).await.unwrap());
    work.rollback().await.unwrap();
    assert_eq!(platform.count("select count(*) from events").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn of_many_claims_of_the_same_jobs_each_job_is_in_one(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let jobs: Vec<Scripted> = (0..100).map(|number| Scripted::fine(&number.to_string())).collect();
    let mut ids = acme.enqueue_all(&jobs).await;
    for number in 0..20 {
        ids.push(acme.enqueue(OneAtATime::under(&number.to_string())).await);
    }
    let workers = (0..5).map(|_| platform.ids().mint::<WorkerId>());
    let claims = futures::future::join_all(workers.map(|worker| platform.claim(worker, &ids))).await;
    let mut claimed: Vec<JobId> = claims.iter().flatten().map(|claimed| claimed.id).collect();
    claimed.sort_unstable();
    ids.sort_unstable();
    assert_eq!(claimed, ids);
    assert!(claims.iter().flatten().all(|claimed| claimed.attempt == 1));
    assert_eq!(platform.count("select count(*) from job_dispatch").await, 0);
    let leased = "select sum(cardinality(job_ids)) from job_leases";
    assert_eq!(platform.count(leased).await, 120);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn claims_that_take_the_same_jobs_in_opposite_orders_do_not_stop_each_other(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // A ledger whose plan takes the rows as they lie, where others go by id.
    let options = as_role(&platform.owner.connect_options(), "gantry_engine").options([
        ("enable_nestloop", "off"),
        ("enable_indexscan", "off"),
        ("enable_bitmapscan", "off"),
    ]);
    let (clock, ids) = (platform.clock.clone(), Arc::new(IdMint::seeded(platform.clock.clone(), 8)));
    let other = EngineDb::connect(options, 8, clock, ids, Arc::new(Silent)).await.unwrap();
    for round in 0..5 {
        let mut ids = acme.enqueue_all(&vec![Scripted::fine("a"); 1_000]).await;
        let turned = "with gone as (delete from job_dispatch returning *)
                      insert into job_dispatch select * from gone order by id desc";
        sqlx::query(turned).execute(&platform.owner).await.unwrap();
        let claim = async |ledger: &EngineDb| {
            let mut wanted: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
            let (worker, claim) = (platform.ids().mint(), platform.ids().mint());
            claim::claim(ledger, worker, claim, &mut wanted, &Paused::default()).await.unwrap()
        };
        let claims = (0..6).map(|number| claim(if number % 2 == 0 { platform.ledger() } else { &other }));
        let claims = futures::future::join_all(claims).await;
        let mut claimed: Vec<JobId> = claims.iter().flatten().map(|claimed| claimed.id).collect();
        claimed.sort_unstable();
        ids.sort_unstable();
        assert_eq!(claimed, ids, "round {round}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_claim_does_not_wait_for_what_another_is_taking(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ids = acme.enqueue_all(&vec![Scripted::fine("a"); 2]).await;
    let mut taking = platform.owner.begin().await.unwrap();
    sqlx::query("delete from job_dispatch where id = $1").bind(ids[0].uuid()).execute(&mut *taking).await.unwrap();
    let claim = platform.claim(platform.ids().mint(), &ids);
    let claimed = tokio::time::timeout(std::time::Duration::from_mins(1), claim).await.expect("it does not wait");
    assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [ids[1]]);
    // The other one came to nothing: the job is there for the next.
    taking.rollback().await.unwrap();
    assert_eq!(platform.claim(platform.ids().mint(), &ids).await.len(), 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_silent_workers_jobs_run_elsewhere_and_the_attempt_counts(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (one, two) = (acme.enqueue(Scripted::fine("a")).await, acme.enqueue(OneAtATime::under("k")).await);
    let worker: WorkerId = platform.ids().mint();
    platform.claim(worker, &[one, two]).await;
    assert_eq!(platform.rescue().await, lease::Rescued::default(), "its leases hold");
    platform.silence(worker).await;
    drop(platform.rung());
    assert_eq!(platform.rescue().await, lease::Rescued { returned: 2, discarded: 0 });
    assert_eq!(platform.rescue().await, lease::Rescued::default());
    assert_eq!(platform.rung().len(), 2, "they are rung for");

    let job = acme.job(one).await;
    assert_eq!((job.state, job.attempt, job.uncounted, job.rescues), (State::Available, 1, 0, 1));
    assert_eq!((job.failures[0].outcome.as_str(), job.failures[0].worker), ("rescued", Some(worker)));
    platform.run_jobs().await;
    assert_eq!((acme.state(one).await, acme.state(two).await), (State::Succeeded, State::Succeeded));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_keeps_killing_its_worker_is_given_up_as_poison(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // It has five attempts, and may kill twice.
    let id = acme.enqueue(OneAtATime::under("k")).await;
    for round in 1..=3 {
        let worker: WorkerId = platform.ids().mint();
        assert_eq!(platform.claim(worker, &[id]).await.len(), 1, "round {round}");
        platform.silence(worker).await;
        platform.rescue().await;
    }
    let job = acme.job(id).await;
    assert_eq!((job.state, job.rescues), (State::Discarded, 3));
    assert!(job.failures[2].error.contains("poison"), "{}", job.failures[2].error);
    assert_eq!(platform.count("select count(*) from job_slots").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_that_falls_silent_in_the_last_attempt_ends_the_job(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = run(&platform, &acme, &[Act::Fail("a".to_owned()), Act::Fail("b".to_owned()), Act::Succeed]).await;
    platform.clock.advance(Duration::seconds(11));
    platform.run_jobs().await;
    platform.clock.advance(Duration::seconds(111));
    let worker: WorkerId = platform.ids().mint();
    assert_eq!(platform.claim(worker, &[id]).await[0].attempt, 3);
    platform.silence(worker).await;
    assert_eq!(platform.rescue().await, lease::Rescued { returned: 0, discarded: 1 });
    assert_eq!(acme.state(id).await, State::Discarded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_that_leaves_without_settling_loses_no_job(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    let worker: WorkerId = platform.ids().mint();
    platform.claim(worker, &[id]).await;
    lease::leave(platform.ledger(), worker).await.unwrap();
    platform.rescue().await;
    assert_eq!(acme.state(id).await, State::Available);
    platform.run_jobs().await;
    assert_eq!(acme.state(id).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_handed_back_unstarted_does_not_count(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    let claimed = platform.claim(platform.ids().mint(), &[id]).await.remove(0);
    settle::set_back(platform.ledger(), &[setback(&platform, &claimed, Next::Return)], &[]).await.unwrap();
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.uncounted), (State::Available, 1, 1));
    platform.run_jobs().await;
}
