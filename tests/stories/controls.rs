//! What people do with jobs: look at them, stop them, run them again, pause them.

use std::collections::BTreeSet;

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_schema::jobs::State;
use gantry_schema::jobs::claim::Paused;
use gantry_schema::jobs::control::{self, Change, Filter};
use gantry_schema::jobs::pause::{self, Subject};
use gantry_schema::jobs::settle::{self, Next, Setback, Success};
use gantry_schema::{JobId, OrganizationId};
use gantry_tests::kinds::{Act, OneAtATime, Only, Scripted};
use gantry_tests::live::eventually;
use gantry_tests::{Actor, Platform};
use sqlx::PgPool;

fn gives_up(name: &str) -> Scripted {
    Scripted::new(name, Act::GiveUp("no".to_owned()))
}

async fn retry_all(acme: &Actor, filter: &Filter, limit: i64) -> u64 {
    let mut tx = acme.begin().await;
    let count = control::retry_all(&mut tx, filter, limit).await.unwrap();
    tx.commit().await.unwrap();
    count
}

async fn discard_all(acme: &Actor, filter: &Filter, limit: i64) -> u64 {
    let mut tx = acme.begin().await;
    let count = control::discard_all(&mut tx, filter, "story", limit).await.unwrap();
    tx.commit().await.unwrap();
    count
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_waits_is_stopped_at_once(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let ready = acme.enqueue(job.clone()).await;
    let later = acme.ask(job.request().at(platform.now() + Duration::hours(1))).await.id;
    let waiting = acme.ask(job.request().after("a", later)).await.id;
    for id in [ready, waiting, later] {
        assert_eq!(acme.cancel(id).await, Change::Done, "{id}");
        let job = acme.job(id).await;
        assert_eq!((job.state, job.finished_at), (State::Cancelled, Some(platform.now())));
        assert_eq!(job.failures[0].error, "stopped before it ran, by story");
        assert_eq!(acme.cancel(id).await, Change::Impossible(State::Cancelled));
    }
    platform.run_through(Duration::hours(2)).await;
    platform.assert_ran::<Scripted>(0);
    assert_eq!(acme.cancel(platform.ids().mint()).await, Change::Unknown);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_runs_is_told_and_does_not_run_again(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    let claimed = platform.claim(platform.ids().mint(), &[id]).await.remove(0);
    assert_eq!(acme.cancel(id).await, Change::Asked);
    assert_eq!(acme.cancel(id).await, Change::Asked);
    assert_eq!(acme.state(id).await, State::Running);
    let told = gantry_schema::jobs::lease::cancelled(platform.ledger(), &[id]).await.unwrap();
    assert_eq!(told, [id]);
    // Its attempt fails before it hears of it: there is no other.
    let failure = gantry_schema::jobs::Failure {
        attempt: claimed.attempt,
        worker: None,
        started_at: None,
        ended_at: platform.now(),
        outcome: "failed".to_owned(),
        error: "it did not work".to_owned(),
    };
    let setback = Setback { id, attempt: 1, next: Next::Retry(platform.now() + Duration::seconds(5)), failure };
    settle::set_back(platform.ledger(), &[setback], &[]).await.unwrap();
    let job = acme.job(id).await;
    assert_eq!((job.state, job.finished_at), (State::Cancelled, Some(platform.now())));
    assert_eq!(platform.count("select count(*) from job_dispatch").await, 0);
    assert_eq!(acme.jobs(&Filter { state: Some(State::Cancelled), ..Filter::default() }, None, 9).await, [id]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_finishes_before_it_hears_that_it_should_stop_has_succeeded(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    platform.claim(platform.ids().mint(), &[id]).await;
    acme.cancel(id).await;
    let success = Success { id, attempt: 1, result: None, keyed: false };
    assert_eq!(settle::succeed(platform.ledger(), &[success], &[]).await.unwrap(), [id]);
    assert_eq!(acme.cancel(id).await, Change::Impossible(State::Succeeded));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn cancelling_and_claiming_at_the_same_time_leaves_no_job_in_between(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for round in 0..30 {
        let id = if round % 2 == 0 {
            acme.enqueue(Scripted::fine("a")).await
        } else {
            acme.enqueue(OneAtATime::under("k")).await
        };
        let worker = platform.ids().mint();
        let (claimed, change) = futures::future::join(platform.claim(worker, &[id]), acme.cancel(id)).await;
        match change {
            Change::Done => assert!(claimed.is_empty()),
            Change::Asked => assert_eq!(claimed.len(), 1),
            other => panic!("round {round}: {other:?}, {claimed:?}"),
        }
        for claimed in claimed {
            let success = Success { id, attempt: 1, result: None, keyed: claimed.keyed };
            settle::succeed(platform.ledger(), &[success], &[]).await.unwrap();
        }
    }
    assert_eq!(platform.count("select count(*) from job_dispatch").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_comes_back_to_its_queue_at_the_moment_of_its_cancellation_is_cancelled(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let id = acme.enqueue(Scripted::fine("a")).await;
    platform.claim(platform.ids().mint(), &[id]).await;
    // As a worker's setback does that is not committed yet.
    let mut setback = platform.owner.begin().await.unwrap();
    sqlx::query("update jobs set state = 'available' where id = $1")
        .bind(id.uuid())
        .execute(&mut *setback)
        .await
        .unwrap();
    sqlx::query(
        "insert into job_dispatch (id, organization_id, kind, queue, priority)
         select id, organization_id, kind, queue, priority from jobs where id = $1",
    )
    .bind(id.uuid())
    .execute(&mut *setback)
    .await
    .unwrap();
    let cancels = tokio::spawn({
        let acme = acme.clone();
        async move { acme.cancel(id).await }
    });
    eventually("it waits for the row", async || {
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        (platform.count(waits).await > 0).then_some(())
    })
    .await;
    setback.commit().await.unwrap();
    assert_eq!(cancels.await.unwrap(), Change::Done);
    assert_eq!(acme.state(id).await, State::Cancelled);
    assert_eq!(platform.run_jobs().await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_dead_letter_is_run_again_with_all_its_attempts(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let fails = Act::Fail("no".to_owned());
    let acts = [fails.clone(), fails.clone(), fails.clone(), fails.clone(), fails, Act::Succeed];
    let id = acme.enqueue(Scripted::acts("a", &acts)).await;
    assert_eq!(acme.retry(id).await, Change::Impossible(State::Available));
    platform.run_through(Duration::hours(1)).await;
    assert_eq!(acme.state(id).await, State::Discarded);

    assert_eq!(acme.retry(id).await, Change::Done);
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.uncounted, job.finished_at), (State::Available, 3, 3, None));
    assert!(acme.jobs(&Filter { state: Some(State::Discarded), ..Filter::default() }, None, 9).await.is_empty());
    platform.run_through(Duration::hours(1)).await;
    let job = acme.job(id).await;
    assert_eq!((job.state, job.attempt, job.failures.len()), (State::Succeeded, 6, 5));
    assert_eq!(acme.retry(id).await, Change::Impossible(State::Succeeded));
    assert_eq!(acme.retry(platform.ids().mint()).await, Change::Unknown);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_that_waits_for_its_time_can_be_run_now(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let id = acme.ask(job.request().at(platform.now() + Duration::days(1))).await.id;
    assert_eq!(acme.retry(id).await, Change::Done);
    assert_eq!(platform.rung(), [id]);
    assert_eq!(acme.job(id).await.run_at, platform.now());
    platform.run_jobs().await;
    assert_eq!(acme.state(id).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_unique_job_is_not_revived_beside_the_one_that_has_its_key(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let only = |act: Act| Only { act, ..Only::one("k", "alive", "existing", "a") };
    let dead = acme.enqueue(only(Act::GiveUp("no".to_owned()))).await;
    platform.run_jobs().await;

    // Alone, it takes its key again.
    assert_eq!(acme.retry(dead).await, Change::Done);
    assert_eq!(acme.ask(only(Act::Succeed).request()).await.id, dead);
    platform.run_jobs().await;
    let other = acme.enqueue(only(Act::Succeed)).await;
    assert_ne!(other, dead);
    assert_eq!(acme.retry(dead).await, Change::Impossible(State::Discarded));
    assert_eq!(retry_all(&acme, &Filter::default(), 10).await, 0);
    platform.run_jobs().await;
    assert_eq!(acme.state(dead).await, State::Discarded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn dead_letters_are_run_again_by_filter_oldest_first(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let mut dead = Vec::new();
    for _ in 0..5 {
        dead.push(acme.enqueue(gives_up("a")).await);
        platform.clock.advance(Duration::minutes(1));
    }
    let other_kind =
        acme.enqueue(Only { act: Act::GiveUp("no".to_owned()), ..Only::one("k", "alive", "existing", "") }).await;
    let cancelled = acme.enqueue(Scripted::fine("a")).await;
    acme.cancel(cancelled).await;
    let theirs = globex.enqueue(gives_up("a")).await;
    platform.run_jobs().await;

    let of_kind = Filter { kinds: vec![Scripted::KIND.to_owned()], ..Filter::default() };
    let before = acme.job(dead[3]).await.created_at;
    let old = Filter { until: Some(before), ..of_kind.clone() };
    assert_eq!(retry_all(&acme, &old, 2).await, 2);
    assert_eq!((acme.state(dead[0]).await, acme.state(dead[2]).await), (State::Available, State::Discarded));
    assert_eq!(retry_all(&acme, &old, 2).await, 1);
    assert_eq!(retry_all(&acme, &old, 2).await, 0);
    let elsewhere = Filter { queue: Some("webhooks".to_owned()), ..Filter::default() };
    assert_eq!(retry_all(&acme, &elsewhere, 9).await, 0);
    assert_eq!(retry_all(&acme, &of_kind, 9).await, 2);
    for (id, state) in [(other_kind, State::Discarded), (cancelled, State::Cancelled)] {
        assert_eq!(acme.state(id).await, state);
    }
    assert_eq!(globex.state(theirs).await, State::Discarded);
    let stopped = Filter { state: Some(State::Cancelled), ..Filter::default() };
    assert_eq!(retry_all(&acme, &stopped, 9).await, 1);
    platform.run_jobs().await;
    assert_eq!(acme.state(cancelled).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn waiting_jobs_are_discarded_by_filter_and_nothing_else_is(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let job = Scripted::fine("a");
    let running = acme.enqueue(job.clone()).await;
    platform.claim(platform.ids().mint(), &[running]).await;
    let later = acme.ask(job.request().at(platform.now() + Duration::hours(1))).await.id;
    let ready = [acme.enqueue(job.clone()).await, acme.enqueue(job.clone()).await];
    let other = acme.enqueue(OneAtATime::under("k")).await;
    let theirs = globex.enqueue(job.clone()).await;

    let of = |state: State| Filter { state: Some(state), kinds: vec![Scripted::KIND.to_owned()], ..Filter::default() };
    for state in [State::Running, State::Succeeded, State::Discarded, State::Cancelled, State::Waiting] {
        assert_eq!(discard_all(&acme, &of(state), 9).await, 0, "{state}");
    }
    assert_eq!(discard_all(&acme, &of(State::Available), 1).await, 1);
    assert_eq!(acme.state(ready[0]).await, State::Discarded);
    assert_eq!(discard_all(&acme, &of(State::Available), 9).await, 1);
    assert_eq!(acme.state(later).await, State::Scheduled);
    assert_eq!(discard_all(&acme, &of(State::Scheduled), 9).await, 1);
    assert_eq!(discard_all(&acme, &Filter::default(), 9).await, 1);
    let states = [acme.state(running).await, acme.state(other).await, globex.state(theirs).await];
    assert_eq!(states, [State::Running, State::Discarded, State::Available]);
    assert!(acme.job(ready[0]).await.failures[0].error.contains("by story"));
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn discarding_what_others_wait_for_cancels_them(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let first = acme.enqueue(job.clone()).await;
    let child = acme.ask(job.request().after("a", first)).await.id;
    assert_eq!(discard_all(&acme, &Filter::default(), 9).await, 1);
    assert_eq!(acme.state(child).await, State::Cancelled);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn pages_neither_repeat_nor_miss_a_job_while_others_come_in(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let mut existing = BTreeSet::new();
    for _ in 0..25 {
        existing.insert(acme.enqueue(gives_up("a")).await);
    }
    globex.enqueue(gives_up("theirs")).await;
    platform.run_jobs().await;
    for filter in [
        Filter::default(),
        Filter { state: Some(State::Discarded), ..Filter::default() },
        Filter { kinds: vec![Scripted::KIND.to_owned()], queue: Some("default".to_owned()), ..Filter::default() },
    ] {
        let (mut seen, mut after) = (Vec::<JobId>::new(), None);
        loop {
            let page = acme.jobs(&filter, after, 10).await;
            let Some(last) = page.last() else { break };
            after = Some(*last);
            seen.extend(&page);
            acme.enqueue(gives_up("new")).await;
            platform.run_jobs().await;
        }
        assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
        assert!(existing.iter().all(|id| seen.contains(id)), "{filter:?}");
        existing.extend(acme.jobs(&Filter::default(), None, 100).await);
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_are_found_by_the_state_people_see(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let later = acme.ask(job.request().at(platform.now() + Duration::hours(1))).await.id;
    let of = |state: State| Filter { state: Some(state), ..Filter::default() };
    assert_eq!(acme.jobs(&of(State::Scheduled), None, 9).await, [later]);
    platform.clock.advance(Duration::hours(1));
    assert!(acme.jobs(&of(State::Scheduled), None, 9).await.is_empty());
    assert_eq!(acme.jobs(&of(State::Available), None, 9).await, [later]);
    platform.run_jobs().await;
    assert_eq!(acme.jobs(&of(State::Succeeded), None, 9).await, [later]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_paused_is_not_claimed_until_it_is_resumed(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let operator = platform.operator();
    let theirs = globex.enqueue(Scripted::fine("a")).await;
    let keyed = acme.enqueue(OneAtATime::under("k")).await;
    let plain = acme.enqueue(Scripted::fine("a")).await;
    let ids = [theirs, keyed, plain];

    let paused =
        Paused { kinds: vec![Scripted::KIND.to_owned(), OneAtATime::KIND.to_owned()], organizations: Vec::new() };
    assert!(platform.claim_unless(platform.ids().mint(), &ids, &paused).await.is_empty());
    let paused = Paused { kinds: Vec::new(), organizations: vec![acme.id.uuid(), globex.id.uuid()] };
    assert!(platform.claim_unless(platform.ids().mint(), &ids, &paused).await.is_empty());
    assert_eq!(platform.count("select count(*) from job_dispatch where parked").await, 0);

    operator.pause(Subject::Kind, Scripted::KIND).await;
    operator.pause(Subject::Kind, Scripted::KIND).await;
    acme.pause(Subject::Organization, &acme.id.uuid().to_string()).await;
    assert_eq!(platform.run_jobs().await, 0);
    operator.resume(Subject::Kind, Scripted::KIND).await;
    assert_eq!(platform.run_jobs().await, 1);
    assert_eq!(globex.state(theirs).await, State::Succeeded);
    acme.resume(Subject::Organization, &acme.id.uuid().to_string()).await;
    operator.pause(Subject::Queue, "default").await;
    assert_eq!(platform.run_jobs().await, 0);
    operator.resume(Subject::Queue, "default").await;
    assert_eq!(platform.run_jobs().await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_cannot_lift_or_take_the_place_of_anothers_pause(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let name = acme.id.uuid().to_string();
    acme.pause(Subject::Organization, &name).await;
    let mut tx = globex.begin().await;
    assert!(!pause::resume(&mut tx, Subject::Organization, &name).await.unwrap());
    assert!(pause::list(&mut tx).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    let in_force = pause::all(platform.ledger()).await.unwrap();
    assert_eq!((in_force.len(), in_force[0].name.as_str()), (1, name.as_str()));
    assert_ne!(globex.id, OrganizationId::PLATFORM);
    // Nor can it pause what is not below it, or what is everybody's.
    for (subject, name) in [(Subject::Organization, name.as_str()), (Subject::Queue, "default")] {
        let mut tx = globex.begin().await;
        assert!(pause::pause(&mut tx, subject, name, "story").await.is_err(), "{subject:?}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_pause_from_above_holds_whatever_the_organization_does_with_its_own(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (operator, acme) = (platform.operator(), platform.organization("acme").await);
    let name = acme.id.uuid().to_string();
    let job = acme.enqueue(Scripted::fine("a")).await;
    acme.pause(Subject::Organization, &name).await;
    operator.pause(Subject::Organization, &name).await;
    acme.resume(Subject::Organization, &name).await;
    assert_eq!(platform.run_jobs().await, 0);
    acme.pause(Subject::Organization, &name).await;
    operator.resume(Subject::Organization, &name).await;
    assert_eq!(platform.run_jobs().await, 0, "its own holds as well");
    acme.resume(Subject::Organization, &name).await;
    assert_eq!(platform.run_jobs().await, 1);
    assert_eq!(acme.state(job).await, State::Succeeded);
}
