//! Forgetting finished jobs.

use chrono::{Duration, NaiveDate};
use gantry_jobs::maintenance::ForgetJobs;
use gantry_schema::JobId;
use gantry_schema::jobs::control::Filter;
use gantry_schema::jobs::retention::{self, Retention};
use gantry_schema::jobs::{State, log};
use gantry_tests::kinds::{Act, OneAtATime, Scripted};
use gantry_tests::{Actor, Platform};
use sqlx::PgPool;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// Without the days the migrations prepared, which are those of the day the test runs on.
async fn days(platform: &Platform) -> Vec<NaiveDate> {
    let days = retention::days(platform.ledger()).await.unwrap();
    days.into_iter().filter(|it| *it < day("2026-09-01")).collect()
}

async fn note(acme: &Actor, job: JobId) {
    let mut tx = acme.begin().await;
    let line = log::Line { attempt: 1, line: 1, at: tx_now(acme), message: "a line".to_owned() };
    log::append(&mut tx, job, &[line]).await.unwrap();
    tx.commit().await.unwrap();
}

fn tx_now(acme: &Actor) -> chrono::DateTime<chrono::Utc> {
    acme.db().now()
}

/// One job of every state, finished or not, of the present day.
async fn one_of_each(platform: &Platform, acme: &Actor) -> [(State, JobId); 7] {
    let job = Scripted::fine("a");
    let succeeded = acme.enqueue(job.clone()).await;
    let discarded = acme.enqueue(Scripted::new("b", Act::GiveUp("no".to_owned()))).await;
    let cancelled = acme.enqueue(job.clone()).await;
    acme.cancel(cancelled).await;
    platform.run_jobs().await;
    let running = acme.enqueue(OneAtATime::under("k")).await;
    platform.claim(platform.ids().mint(), &[running]).await;
    let far = platform.now() + Duration::days(300);
    let scheduled = acme.ask(gantry_jobs::Job::request(&job).at(far)).await.id;
    let waiting = acme.ask(gantry_jobs::Job::request(&job).after("a", scheduled)).await.id;
    let available = acme.enqueue(OneAtATime::under("k")).await;
    platform.claim(platform.ids().mint(), &[available]).await;
    let all = [
        (State::Succeeded, succeeded),
        (State::Discarded, discarded),
        (State::Cancelled, cancelled),
        (State::Running, running),
        (State::Scheduled, scheduled),
        (State::Waiting, waiting),
        (State::Available, available),
    ];
    for (state, job) in all {
        note(acme, job).await;
        assert_eq!(acme.state(job).await, state);
    }
    all
}

async fn left(acme: &Actor, jobs: &[(State, JobId)]) -> Vec<State> {
    let mut left = Vec::new();
    for (state, job) in jobs {
        if acme.find_job(*job).await.is_some() {
            left.push(*state);
        }
    }
    left
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn days_are_prepared_ahead_and_preparing_again_changes_nothing(pool: PgPool) {
    let platform = Platform::new(pool).await;
    for _ in 0..2 {
        retention::prepare(platform.ledger(), 2).await.unwrap();
        assert_eq!(days(&platform).await, [day("2026-03-02"), day("2026-03-03"), day("2026-03-04")]);
    }
    let acme = platform.organization("acme").await;
    acme.enqueue(Scripted::fine("a")).await;
    platform.run_jobs().await;
    assert_eq!(platform.count("select count(*) from jobs_20260302").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_of_days_that_nobody_prepared_are_kept_and_move_to_their_day(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.enqueue(Scripted::fine("a")).await;
    note(&acme, first).await;
    platform.clock.advance(Duration::days(5));
    let second = acme.enqueue(Scripted::fine("b")).await;
    let running = acme.enqueue(OneAtATime::under("k")).await;
    platform.claim(platform.ids().mint(), &[running]).await;
    assert_eq!(platform.count("select count(*) from jobs_other").await, 3);

    retention::prepare(platform.ledger(), 1).await.unwrap();
    assert_eq!(days(&platform).await, [day("2026-03-02"), day("2026-03-07"), day("2026-03-08")]);
    for (table, rows) in
        [("jobs_other", 0), ("job_logs_other", 0), ("jobs_20260302", 1), ("job_logs_20260302", 1), ("jobs_20260307", 2)]
    {
        assert_eq!(platform.count(&format!("select count(*) from {table}")).await, rows, "{table}");
    }
    platform.run_jobs().await;
    assert_eq!((acme.state(first).await, acme.state(second).await), (State::Succeeded, State::Succeeded));
    assert_eq!(acme.state(running).await, State::Running);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn compaction_keeps_exactly_what_must_stay(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, ledger) = (platform.organization("acme").await, platform.ledger());
    retention::prepare(ledger, 0).await.unwrap();
    let jobs = one_of_each(&platform, &acme).await;
    let today = day("2026-03-02");
    let live = [State::Running, State::Scheduled, State::Waiting, State::Available];

    // Nothing is old enough.
    platform.clock.advance(Duration::days(7));
    assert_eq!(retention::compact(ledger, today, Retention::default()).await.unwrap(), 7);
    platform.clock.advance(Duration::seconds(1));
    assert_eq!(retention::compact(ledger, today, Retention::default()).await.unwrap(), 6);
    assert_eq!(left(&acme, &jobs).await, [&[State::Discarded, State::Cancelled], &live[..]].concat());
    platform.clock.advance(Duration::days(7));
    assert_eq!(retention::compact(ledger, today, Retention::default()).await.unwrap(), 5);
    assert_eq!(left(&acme, &jobs).await, [&[State::Discarded], &live[..]].concat());
    platform.clock.advance(Duration::days(76));
    assert_eq!(retention::compact(ledger, today, Retention::default()).await.unwrap(), 4);
    assert_eq!(left(&acme, &jobs).await, live);
    assert_eq!(platform.count("select count(*) from job_logs").await, 4, "lines go with their jobs");
    assert_eq!(days(&platform).await, [today], "a day with live jobs stays");

    // They go on as if nothing had happened.
    platform.run_through(Duration::days(300)).await;
    assert_eq!(acme.state(jobs[4].1).await, State::Succeeded);
    assert_eq!(acme.state(jobs[5].1).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_empty_day_is_dropped_and_a_day_that_never_was_is_no_harm(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, ledger) = (platform.organization("acme").await, platform.ledger());
    retention::prepare(ledger, 0).await.unwrap();
    let job = acme.enqueue(Scripted::fine("a")).await;
    note(&acme, job).await;
    platform.run_jobs().await;
    platform.clock.advance(Duration::days(8));
    assert_eq!(retention::compact(ledger, day("2026-03-02"), Retention::default()).await.unwrap(), 0);
    assert_eq!(retention::compact(ledger, day("2026-03-02"), Retention::default()).await.unwrap(), 0);
    assert!(days(&platform).await.is_empty());
    assert!(acme.find_job(job).await.is_none());
    let tables = "select count(*) from pg_class where relname like 'job%20260302'";
    assert_eq!(platform.count(tables).await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_belonged_to_forgotten_jobs_is_swept_away(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, ledger) = (platform.organization("acme").await, platform.ledger());
    retention::prepare(ledger, 0).await.unwrap();
    let first = acme.enqueue(Scripted::new("a", Act::GiveUp("no".to_owned()))).await;
    let child = acme.ask(gantry_jobs::Job::request(&Scripted::fine("b")).after("a", first)).await.id;
    platform.run_jobs().await;
    assert_eq!(acme.state(child).await, State::Cancelled);
    platform.clock.advance(Duration::days(91));
    retention::compact(ledger, day("2026-03-02"), Retention::default()).await.unwrap();
    let filter = Filter { state: Some(State::Discarded), ..Filter::default() };
    assert!(acme.jobs(&filter, None, 9).await.is_empty(), "nothing is shown that is gone");
    assert!(retention::sweep(ledger, platform.now(), 100).await.unwrap() > 0);
    assert_eq!(retention::sweep(ledger, platform.now(), 100).await.unwrap(), 0);
    for table in ["job_unsuccessful", "job_dependencies", "job_steps", "job_unique", "job_slots"] {
        assert_eq!(platform.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_nightly_job_does_all_of_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let operator = platform.operator();
    operator.enqueue(ForgetJobs {}).await;
    platform.run_jobs().await;
    assert_eq!(days(&platform).await.len(), 8, "a week ahead");
    let jobs = one_of_each(&platform, &acme).await;
    platform.clock.advance(Duration::days(100));
    let forgets = operator.enqueue(ForgetJobs {}).await;
    platform.run_jobs().await;
    assert_eq!(operator.state(forgets).await, State::Succeeded, "{:?}", operator.job(forgets).await.failures);
    assert_eq!(left(&acme, &jobs).await, [State::Running, State::Scheduled, State::Waiting, State::Available]);
    let kept: Vec<_> = days(&platform).await;
    assert_eq!((kept.len(), kept[0]), (9, day("2026-03-02")));
    platform.run_twice::<ForgetJobs>().await;
}
