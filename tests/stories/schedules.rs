//! Recurring jobs.

use chrono::{DateTime, Duration, Utc};
use gantry_jobs::diagnostics::Probe;
use gantry_jobs::maintenance::ForgetJobs;
use gantry_jobs::schedule::{self, NewSchedule, ScheduleError};
use gantry_schema::jobs::State;
use gantry_schema::jobs::control::Filter;
use gantry_schema::schedules::cron::{MissedRuns, Overlap};
use gantry_schema::schedules::queries;
use gantry_tests::{Actor, Platform};
use gantry_workers::engine;
use serde_json::json;
use sqlx::PgPool;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn every(name: &str, cron: &str) -> NewSchedule {
    NewSchedule {
        name: name.to_owned(),
        kind: "diagnostics.probe".to_owned(),
        payload: json!({ "message": name }),
        cron: cron.to_owned(),
        time_zone: "UTC".to_owned(),
        missed_runs: MissedRuns::Skip,
        overlap: Overlap::Allow,
        jitter_seconds: 0,
    }
}

/// When the jobs of the organization were asked for, oldest first.
async fn asked_at(acme: &Actor) -> Vec<DateTime<Utc>> {
    let mut moments = Vec::new();
    for id in acme.jobs(&Filter::default(), None, 100).await {
        moments.insert(0, acme.job(id).await.created_at);
    }
    moments
}

/// Moves the clock in steps of a minute and ticks after each.
async fn pass(platform: &Platform, time: Duration) {
    for _ in 0..time.num_minutes() {
        platform.clock.advance(Duration::minutes(1));
        platform.tick().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_asks_for_its_job_at_every_tick_and_never_before(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.schedule(every("quarterly", "*/15 * * * *")).await;
    assert_eq!(made.next_tick_at, Some(at("2026-03-02T09:15:00Z")));
    assert_eq!(platform.tick().await, 0);
    pass(&platform, Duration::minutes(50)).await;
    assert_eq!(
        asked_at(&acme).await,
        [at("2026-03-02T09:15:00Z"), at("2026-03-02T09:30:00Z"), at("2026-03-02T09:45:00Z")]
    );
    platform.assert_ran::<Probe>(3);
    let job = acme.job(acme.jobs(&Filter::default(), None, 1).await[0]).await;
    assert_eq!((job.organization, job.requested_by), (acme.id, format!("schedule:{}", made.id)));
    assert_eq!(job.result, Some(json!({ "message": "quarterly" })));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn missed_ticks_are_left_out_made_good_once_or_all(pool: PgPool) {
    let platform = Platform::new(pool).await;
    for (policy, expected) in [(MissedRuns::Skip, 0), (MissedRuns::Once, 1), (MissedRuns::All, 6)] {
        let acme = platform.organization(policy.as_str()).await;
        acme.schedule(NewSchedule { missed_runs: policy, ..every("hourly", "30 * * * *") }).await;
        // Nobody ticks for six hours.
        platform.clock.advance(Duration::hours(6) + Duration::minutes(15));
        platform.tick().await;
        assert_eq!(asked_at(&acme).await.len(), expected, "{policy:?}");
        // From then on everything is as usual.
        platform.tick().await;
        pass(&platform, Duration::hours(1)).await;
        assert_eq!(asked_at(&acme).await.len(), expected + 1, "{policy:?}");
        platform.clock.advance(-Duration::minutes(15));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_tick_while_the_last_job_lives_is_left_out_queued_or_run_beside(pool: PgPool) {
    let platform = Platform::new(pool).await;
    for policy in Overlap::ALL {
        let acme = platform.organization(policy.as_str()).await;
        let made = acme.schedule(NewSchedule { overlap: policy, ..every("hourly", "0 * * * *") }).await;
        platform.clock.advance(Duration::hours(1));
        engine::tick(platform.runtime()).await.unwrap();
        let first = acme.jobs(&Filter::default(), None, 9).await;
        let worker = platform.ids().mint();
        let running = platform.claim(worker, &first).await;
        assert_eq!(running.len(), 1);
        // It is still running an hour later.
        platform.clock.advance(Duration::hours(1));
        engine::tick(platform.runtime()).await.unwrap();
        let jobs = acme.jobs(&Filter::default(), None, 9).await;
        let claimed = platform.claim(worker, &jobs).await.len();
        match policy {
            Overlap::Allow => assert_eq!((jobs.len(), claimed), (2, 1)),
            Overlap::Skip => assert_eq!((jobs.len(), claimed), (1, 0)),
            Overlap::Queue => assert_eq!((jobs.len(), claimed), (2, 0)),
        }
        platform.silence(worker).await;
        platform.rescue().await;
        platform.run_jobs().await;
        let states: Vec<State> = futures::future::join_all(jobs.iter().map(|job| acme.state(*job))).await;
        assert!(states.iter().all(|state| *state == State::Succeeded), "{policy:?}: {states:?}");
        let ticks = format!("select count(*) from schedule_ticks where schedule_id = '{}'", made.id.uuid());
        assert_eq!(platform.count(&ticks).await, 2, "a tick that was left out is on record");
        // Now that it has ended, the next tick runs under every policy.
        platform.clock.advance(Duration::hours(1));
        platform.tick().await;
        assert_eq!(acme.jobs(&Filter::default(), None, 9).await.len(), jobs.len() + 1, "{policy:?}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn many_schedulers_at_once_ask_once_per_tick(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for number in 0..20 {
        acme.schedule(NewSchedule { missed_runs: MissedRuns::All, ..every(&number.to_string(), "* * * * *") }).await;
    }
    for _ in 0..5 {
        platform.clock.advance(Duration::minutes(1));
        let ticking = (0..4).map(|_| engine::tick(platform.runtime()));
        for ticked in futures::future::join_all(ticking).await {
            ticked.unwrap();
        }
    }
    assert_eq!(platform.run_jobs().await, 100);
    assert_eq!(platform.count("select count(*) from schedule_ticks where job_id is not null").await, 100);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_clock_that_steps_back_and_a_leader_that_forgot_ask_for_nothing_twice(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.schedule(NewSchedule { missed_runs: MissedRuns::All, ..every("a", "*/10 * * * *") }).await;
    pass(&platform, Duration::minutes(30)).await;
    platform.clock.advance(-Duration::minutes(25));
    pass(&platform, Duration::minutes(25)).await;
    assert_eq!(asked_at(&acme).await.len(), 3);
    // As if a leader had died after its ticks and before it noted how far it was.
    let mut tx = platform.ledger().begin().await.unwrap();
    let begin = at("2026-03-02T09:00:00Z");
    queries::ticked(&mut tx, made.id, begin, Some(begin)).await.unwrap();
    tx.commit().await.unwrap();
    platform.tick().await;
    assert_eq!(asked_at(&acme).await.len(), 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn when_clocks_change_a_daily_job_runs_once_a_day(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // In Berlin there is no 02:30 on 29 March 2026, and there are two on 25 October.
    let daily = NewSchedule { time_zone: "Europe/Berlin".to_owned(), ..every("nightly", "30 2 * * *") };
    acme.schedule(daily).await;
    for (from, days) in [("2026-03-27T12:00:00Z", 4), ("2026-10-23T12:00:00Z", 4)] {
        platform.clock.advance(at(from) - platform.now());
        platform.tick().await;
        let before = asked_at(&acme).await.len();
        for _ in 0..days * 24 * 4 {
            platform.clock.advance(Duration::minutes(15));
            platform.tick().await;
        }
        assert_eq!(asked_at(&acme).await.len() - before, days, "after {from}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_paused_schedule_does_not_tick_and_what_it_missed_stays_missed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let made = acme.schedule(NewSchedule { missed_runs: MissedRuns::All, ..every("a", "*/10 * * * *") }).await;
    let mut tx = acme.begin().await;
    assert!(queries::set_paused(&mut tx, made.id, true, made.next_tick_at).await.unwrap());
    tx.commit().await.unwrap();
    pass(&platform, Duration::minutes(35)).await;
    assert!(asked_at(&acme).await.is_empty());
    let mut tx = acme.begin().await;
    let next = schedule::next_tick(&made, platform.now());
    assert!(queries::set_paused(&mut tx, made.id, false, next).await.unwrap());
    tx.commit().await.unwrap();
    pass(&platform, Duration::minutes(10)).await;
    assert_eq!(asked_at(&acme).await, [at("2026-03-02T09:40:00Z")]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn ticks_are_spread_within_the_jitter_and_always_alike(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.schedule(NewSchedule { jitter_seconds: 600, ..every("a", "0 * * * *") }).await;
    platform.clock.advance(Duration::hours(1));
    engine::tick(platform.runtime()).await.unwrap();
    let job = acme.job(acme.jobs(&Filter::default(), None, 1).await[0]).await;
    let delay = job.run_at - at("2026-03-02T10:00:00Z");
    assert!(delay > Duration::zero() && delay <= Duration::seconds(600), "{delay}");
    assert_eq!(job.state, State::Scheduled);
    platform.run_through(Duration::minutes(10)).await;
    assert_eq!(acme.state(job.id).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_that_can_never_work_is_refused_and_nothing_is_stored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.schedule(every("taken", "0 0 1 1 *")).await;
    let wrong = [
        every("a", "0 0 30 2 *"),
        every("a", "every day"),
        every("a", "* * * * * * *"),
        NewSchedule { time_zone: "Mars/Olympus".to_owned(), ..every("a", "* * * * *") },
        NewSchedule { kind: "no.such".to_owned(), ..every("a", "* * * * *") },
        NewSchedule { kind: "webhooks.deliver".to_owned(), ..every("a", "* * * * *") },
        NewSchedule { payload: json!({ "steps": "many" }), ..every("a", "* * * * *") },
        NewSchedule { payload: json!([]), ..every("a", "* * * * *") },
        every("taken", "* * * * *"),
    ];
    for new in wrong {
        let mut tx = acme.begin().await;
        let refused = schedule::create(&mut tx, new.clone()).await;
        assert!(refused.is_err(), "{new:?}");
        if let Err(ScheduleError::Database(error)) = refused {
            assert_eq!(error.as_database_error().and_then(|error| error.constraint()), Some("schedules_name_key"));
        }
        tx.rollback().await.unwrap();
    }
    assert_eq!(platform.count("select count(*) from schedules").await, 1);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn workers_that_start_together_agree_on_the_standing_schedules(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let starting = (0..5).map(|_| schedule::ensure_standing(platform.ledger()));
    for ensured in futures::future::join_all(starting).await {
        ensured.unwrap();
    }
    let names = platform.count("select count(distinct name) from schedules").await;
    assert_eq!(platform.count("select count(*) from schedules").await, names);
    // The housekeeping runs at night, and again the night after.
    for _ in 0..2 {
        platform.clock.advance(Duration::days(1));
        platform.tick().await;
    }
    platform.assert_ran::<ForgetJobs>(2);
    assert_eq!(platform.count("select count(*) from jobs where state <> 'succeeded'").await, 0);
    assert!(names > 1 && platform.count("select count(*) from schedule_ticks").await >= 2 * names);
}
