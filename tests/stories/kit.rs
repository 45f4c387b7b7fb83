//! The kit notices what it is there to notice.

use chrono::Duration;
use gantry_schema::jobs::State;
use gantry_tests::Platform;
use gantry_tests::kinds::{Act, Careless, Effect, Scripted};
use sqlx::PgPool;

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
#[should_panic(expected = "ready jobs were left")]
async fn a_story_that_leaves_ready_jobs_fails(pool: PgPool) {
    let platform = Platform::new(pool).await;
    platform.organization("acme").await.enqueue(Scripted::fine("a")).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_story_may_leave_what_is_not_ready_and_say_that_it_leaves_something(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    acme.ask(gantry_jobs::Job::request(&job).at(platform.now() + Duration::seconds(1))).await;
    platform.clock.advance(Duration::seconds(1));
    platform.leaves_jobs();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
#[should_panic(expected = "running story.careless twice is not the same as running it once")]
async fn a_job_whose_effect_is_repeated_is_noticed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.enqueue(Careless {}).await;
    platform.run_jobs().await;
    platform.run_twice::<Careless>().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
#[should_panic(expected = "twice the effect")]
async fn a_job_that_does_not_converge_is_noticed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let check = async |id: gantry_schema::JobId| {
        let events = format!("select count(*) from events where payload ->> 'job' = '{id}'");
        assert_eq!(platform.count(&events).await, 1, "twice the effect");
    };
    platform.leaves_jobs();
    platform.fail_at_each_call::<Careless>(async || acme.enqueue(Careless {}).await, check).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_story_is_the_same_in_every_run(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Effect { url: "https://vendor.example/".to_owned() }).await;
    platform.assert_enqueued::<Effect>(|job| job.url.ends_with("example/")).await;
    platform.run_jobs().await;
    platform.assert_ran::<Effect>(1);
    assert_eq!(id.to_string(), "job_01kjpwd6m0ekmv9mx0j8prw1sm");
    assert_eq!(acme.job(id).await.finished_at.unwrap().to_rfc3339(), "2026-03-02T09:00:00+00:00");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn time_passes_from_one_due_job_to_the_next(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::acts("a", &[Act::Snooze(3_600), Act::FailUntil(60), Act::Succeed])).await;
    let began = platform.now();
    platform.run_through(Duration::minutes(59)).await;
    assert_eq!(acme.state(id).await, State::Scheduled);
    platform.run_through(Duration::days(1)).await;
    assert_eq!(acme.job(id).await.finished_at, Some(began + Duration::seconds(3_660)));
}
