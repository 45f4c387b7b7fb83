//! Jobs that wait for others.

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_schema::jobs::State;
use gantry_schema::jobs::settle::{self, Success};
use gantry_schema::jobs::workflow::{self, Compensation};
use gantry_schema::{JobId, JobTx as _};
use gantry_tests::kinds::{Act, Only, Scripted};
use gantry_tests::{Actor, Platform};
use serde_json::json;
use sqlx::PgPool;

/// A job after others; the name of each is its step.
async fn after(acme: &Actor, job: &Scripted, before: &[(&str, JobId)]) -> JobId {
    let request = before.iter().fold(job.request(), |request, (step, job)| request.after(step, *job));
    acme.ask(request).await.id
}

fn undo(name: &str) -> Compensation {
    Compensation {
        kind: Scripted::KIND.to_owned(),
        queue: "default".to_owned(),
        priority: 4,
        max_attempts: 3,
        lease_seconds: 30,
        payload: serde_json::to_value(Scripted::fine(name)).unwrap(),
    }
}

/// Makes steps that each wait for the one before, each with what undoes it.
async fn chain(acme: &Actor, jobs: &[Scripted]) -> Vec<JobId> {
    let mut ids: Vec<JobId> = Vec::new();
    let mut tx = acme.begin().await;
    for job in jobs {
        let request = ids.last().map_or(job.request(), |before| job.request().after("before", *before));
        ids.push(request.enqueue(&mut tx, &acme.by()).await.unwrap().id);
    }
    let steps: Vec<_> = ids
        .iter()
        .zip(jobs)
        .map(|(id, job)| (*id, job.name.clone(), Some(undo(&format!("undo {}", job.name)))))
        .collect();
    let workflow = tx.ids().mint::<JobId>().uuid();
    workflow::steps(&mut tx, workflow, &steps).await.unwrap();
    tx.commit().await.unwrap();
    ids
}

/// The names of the compensations in the order in which they ended.
async fn undone(platform: &Platform) -> Vec<String> {
    sqlx::query_scalar(
        "select payload ->> 'name' from jobs where requested_by like 'workflow:%' and state = 'succeeded'
          order by finished_at, id",
    )
    .fetch_all(&platform.owner)
    .await
    .unwrap()
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_waits_for_all_the_others_and_reads_their_results(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.enqueue(Scripted::new("first", Act::Answer(json!({ "ip": "192.0.2.1" })))).await;
    let second = Scripted::acts("second", &[Act::Fail("once".to_owned()), Act::Answer(json!(2))]);
    let second = acme.enqueue(second).await;
    let read = Scripted::new("read", Act::AnswerStep("address".to_owned()));
    let last = after(&acme, &read, &[("address", first), ("number", second)]).await;
    assert_eq!(acme.state(last).await, State::Waiting);

    platform.run_jobs().await;
    assert_eq!((acme.state(first).await, acme.state(last).await), (State::Succeeded, State::Waiting));
    assert_eq!(platform.count(&format!("select count(*) from job_dispatch where id = '{}'", last.uuid())).await, 0);
    platform.run_through(Duration::minutes(1)).await;
    let last = acme.job(last).await;
    assert_eq!((last.state, last.result), (State::Succeeded, Some(json!({ "ip": "192.0.2.1" }))));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn who_comes_after_the_end_need_not_wait(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let done = acme.enqueue(Scripted::new("a", Act::Answer(json!(1)))).await;
    let failed = acme.enqueue(Scripted::new("b", Act::GiveUp("no".to_owned()))).await;
    platform.run_jobs().await;
    let read = Scripted::new("read", Act::AnswerStep("it".to_owned()));
    let late = after(&acme, &read, &[("it", done)]).await;
    assert_eq!(platform.rung().last(), Some(&late));
    let in_vain = after(&acme, &read, &[("it", failed)]).await;
    assert_eq!(acme.state(in_vain).await, State::Cancelled);
    platform.run_jobs().await;
    assert_eq!(acme.job(late).await.result, Some(json!(1)));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_job_may_wait_and_be_scheduled_for_later(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.enqueue(Scripted::fine("a")).await;
    let second = Scripted::fine("b");
    let at = platform.now() + Duration::hours(1);
    let second = acme.ask(second.request().after("a", first).at(at)).await.id;
    platform.run_jobs().await;
    assert_eq!(acme.state(second).await, State::Scheduled);
    platform.run_through(Duration::hours(2)).await;
    assert_eq!(acme.job(second).await.finished_at, Some(at));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_step_that_fails_for_good_cancels_all_that_depends_on_it(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let fails = acme.enqueue(Scripted::new("a", Act::GiveUp("no".to_owned()))).await;
    let fine = acme.enqueue(Scripted::fine("b")).await;
    let job = Scripted::fine("c");
    let child = after(&acme, &job, &[("a", fails), ("b", fine)]).await;
    let grandchild = after(&acme, &job, &[("c", child)]).await;
    let unrelated = after(&acme, &job, &[("b", fine)]).await;
    platform.run_jobs().await;

    for cancelled in [child, grandchild] {
        let job = acme.job(cancelled).await;
        assert_eq!((job.state, job.attempt, job.finished_at), (State::Cancelled, 0, Some(platform.now())));
        assert_eq!(job.failures[0].error, "a job it waited for did not succeed");
    }
    assert_eq!(acme.state(unrelated).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn cancelling_a_step_cancels_what_waits_for_it_at_once(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let first = acme.ask(job.request().at(platform.now() + Duration::hours(1))).await.id;
    let child = after(&acme, &job, &[("a", first)]).await;
    let grandchild = after(&acme, &job, &[("b", child)]).await;
    acme.cancel(first).await;
    assert_eq!((acme.state(child).await, acme.state(grandchild).await), (State::Cancelled, State::Cancelled));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn finished_steps_are_undone_last_first_when_a_later_one_fails(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let steps = [
        Scripted::fine("one"),
        Scripted::fine("two"),
        Scripted::fine("three"),
        Scripted::new("four", Act::GiveUp("no".to_owned())),
        Scripted::fine("five"),
    ];
    let ids = chain(&acme, &steps).await;
    platform.run_jobs().await;
    platform.clock.advance(Duration::seconds(1));
    platform.run_jobs().await;

    let states = [State::Succeeded, State::Succeeded, State::Succeeded, State::Discarded, State::Cancelled];
    for (id, state) in ids.iter().zip(states) {
        assert_eq!(acme.state(*id).await, state, "{id}");
    }
    assert_eq!(undone(&platform).await, ["undo three", "undo two", "undo one"]);
    // Repeating what a crash may repeat asks for nothing twice.
    workflow::advance(platform.ledger(), &ids).await.unwrap();
    platform.mend().await;
    platform.run_jobs().await;
    assert_eq!(undone(&platform).await.len(), 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_workflow_that_succeeds_is_not_undone(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    chain(&acme, &[Scripted::fine("one"), Scripted::new("two", Act::Complete)]).await;
    platform.run_jobs().await;
    platform.mend().await;
    platform.run_jobs().await;
    assert!(undone(&platform).await.is_empty());
    assert_eq!(platform.count("select count(*) from jobs where state = 'succeeded'").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn cancelling_the_last_step_undoes_the_others(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let last = Scripted::fine("two");
    let ids = chain(&acme, &[Scripted::fine("one"), last]).await;
    let claimed = platform.claim(platform.ids().mint(), &[ids[0]]).await.remove(0);
    let success = Success { id: ids[0], attempt: claimed.attempt, result: None, keyed: false };
    settle::succeed(platform.ledger(), &[success], &[]).await.unwrap();
    assert_eq!(acme.state(ids[1]).await, State::Available);
    acme.cancel(ids[1]).await;
    platform.mend().await;
    platform.run_jobs().await;
    assert_eq!(undone(&platform).await, ["undo one"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_step_that_still_ran_when_another_failed_is_undone_when_it_ends(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let (slow, fails) = (Scripted::fine("slow"), Scripted::new("fails", Act::GiveUp("no".to_owned())));
    let mut tx = acme.begin().await;
    let slow_id = slow.request().enqueue(&mut tx, &acme.by()).await.unwrap().id;
    let fails_id = fails.request().enqueue(&mut tx, &acme.by()).await.unwrap().id;
    let workflow = tx.ids().mint::<JobId>().uuid();
    let steps = [(slow_id, "slow".to_owned(), Some(undo("undo slow"))), (fails_id, "fails".to_owned(), None)];
    workflow::steps(&mut tx, workflow, &steps).await.unwrap();
    tx.commit().await.unwrap();

    let claimed = platform.claim(platform.ids().mint(), &[slow_id]).await.remove(0);
    platform.run_jobs().await;
    assert_eq!(acme.state(fails_id).await, State::Discarded);
    assert!(undone(&platform).await.is_empty());
    let success = Success { id: slow_id, attempt: claimed.attempt, result: None, keyed: false };
    settle::succeed(platform.ledger(), &[success], &[]).await.unwrap();
    platform.run_jobs().await;
    assert_eq!(undone(&platform).await, ["undo slow"]);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_wake_up_that_a_crash_swallowed_comes_later(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = Scripted::fine("a");
    let first = acme.enqueue(job.clone()).await;
    let child = after(&acme, &job, &[("a", first)]).await;
    // As if the worker had died after it wrote the end down and before it looked who waits.
    let claimed = platform.claim(platform.ids().mint(), &[first]).await.remove(0);
    let mut tx = acme.begin().await;
    assert!(settle::succeed_within(&mut tx, first, claimed.attempt, None, false).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(acme.state(child).await, State::Waiting);
    platform.mend().await;
    platform.run_jobs().await;
    assert_eq!(acme.state(child).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_last_two_predecessors_may_end_at_the_same_time(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for round in 0..10 {
        let job = Scripted::fine("a");
        let predecessors = [acme.enqueue(job.clone()).await, acme.enqueue(job.clone()).await];
        let child = after(&acme, &job, &[("a", predecessors[0]), ("b", predecessors[1])]).await;
        let claimed = platform.claim(platform.ids().mint(), &predecessors).await;
        let ends = claimed.iter().map(|claimed| {
            let success = Success { id: claimed.id, attempt: claimed.attempt, result: None, keyed: false };
            async { settle::succeed(platform.ledger(), &[success], &[]).await.unwrap().len() }
        });
        assert_eq!(futures::future::join_all(ends).await, [1, 1]);
        assert_eq!(acme.state(child).await, State::Available, "round {round}");
        platform.run_jobs().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_unique_job_that_was_never_begun_frees_its_key_when_its_predecessor_fails(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let first = acme.enqueue(Scripted::new("a", Act::GiveUp("no".to_owned()))).await;
    let only = Only::one("k", "alive", "existing", "a");
    let waits = acme.ask(only.request().after("a", first)).await;
    platform.run_jobs().await;
    assert_eq!(acme.state(waits.id).await, State::Cancelled);
    let again = acme.ask(only.request()).await;
    assert_ne!(again.id, waits.id);
    platform.run_jobs().await;
}
