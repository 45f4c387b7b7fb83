//! Jobs that share a concurrency key.

use chrono::Duration;
use gantry_schema::jobs::settle::{self, Success};
use gantry_schema::jobs::{State, claim::Claimed};
use gantry_schema::{JobId, WorkerId};
use gantry_tests::kinds::OneAtATime;
use gantry_tests::{Actor, Platform};
use sqlx::PgPool;

async fn finish(platform: &Platform, claimed: &Claimed) {
    let success = Success { id: claimed.id, attempt: claimed.attempt, result: None, keyed: claimed.keyed };
    let settled = settle::succeed(platform.ledger(), &[success], &[]).await.unwrap();
    assert_eq!(settled, [claimed.id]);
}

async fn under(acme: &Actor, key: &str, limit: i16, count: usize) -> Vec<JobId> {
    let jobs = vec![OneAtATime { key: key.to_owned(), limit, milliseconds: 0 }; count];
    acme.enqueue_all(&jobs).await
}

async fn parked(platform: &Platform) -> i64 {
    platform.count("select count(*) from job_dispatch where parked").await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn one_runs_and_the_others_are_out_of_the_way_until_it_ends(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ids = under(&acme, "server", 1, 3).await;
    let other = under(&acme, "other", 1, 1).await[0];
    let worker: WorkerId = platform.ids().mint();
    drop(platform.rung());

    let claimed = platform.claim(worker, &[ids[0], ids[1], ids[2], other]).await;
    let mut taken: Vec<JobId> = claimed.iter().map(|claimed| claimed.id).collect();
    taken.sort_unstable();
    assert_eq!(taken, [ids[0], other]);
    assert_eq!(parked(&platform).await, 2);
    assert!(platform.claim(worker, &ids).await.is_empty(), "the slot is taken");
    assert_eq!(acme.state(ids[1]).await, State::Available);

    for next in 1..3 {
        let running = if next == 1 {
            claimed.iter().find(|claimed| claimed.id == ids[0]).unwrap().clone()
        } else {
            platform.claim(worker, &[ids[next - 1]]).await.remove(0)
        };
        finish(&platform, &running).await;
        assert_eq!(platform.rung(), [ids[next]], "the next in line is woken, and nobody else");
    }
    let last = platform.claim(worker, &[ids[2]]).await.remove(0);
    finish(&platform, &last).await;
    assert!(platform.rung().is_empty());
    assert_eq!(platform.count("select count(*) from job_slots").await, 1, "the other key's");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn two_run_under_a_limit_of_two(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ids = under(&acme, "k", 2, 5).await;
    let worker: WorkerId = platform.ids().mint();
    let mut running = platform.claim(worker, &ids).await;
    running.sort_by_key(|claimed| claimed.id);
    assert_eq!(running.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), ids[..2]);
    drop(platform.rung());
    for claimed in &running {
        finish(&platform, claimed).await;
    }
    assert_eq!(platform.rung(), ids[2..4], "as many as were freed");
    let mut running = platform.claim(worker, &ids[2..]).await;
    running.sort_by_key(|claimed| claimed.id);
    assert_eq!(running.len(), 2);
    finish(&platform, &running[0]).await;
    platform.run_jobs().await;
    assert_eq!(acme.state(ids[4]).await, State::Succeeded);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn claims_that_race_never_exceed_the_limit_and_leave_nobody_behind(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    for (key, limit) in [("one", 1_i16), ("two", 2), ("five", 5)] {
        let ids = under(&acme, key, limit, 12).await;
        let mut done = 0;
        while done < ids.len() {
            let workers = (0..4).map(|_| platform.ids().mint::<WorkerId>());
            let claims = futures::future::join_all(workers.map(|worker| platform.claim(worker, &ids))).await;
            let running: Vec<Claimed> = claims.into_iter().flatten().collect();
            assert!((1..=usize::try_from(limit).unwrap()).contains(&running.len()), "{key}: {}", running.len());
            // They end at the same time as others try to begin.
            futures::future::join(
                futures::future::join_all(running.iter().map(|claimed| finish(&platform, claimed))),
                async {
                    for claimed in platform.claim(platform.ids().mint(), &ids).await {
                        finish(&platform, &claimed).await;
                    }
                },
            )
            .await;
            done = ids.len() - usize::try_from(platform.count("select count(*) from job_dispatch").await).unwrap();
        }
    }
    assert_eq!(platform.count("select count(*) from job_slots").await, 0);
    assert_eq!(platform.count("select count(*) from jobs where state <> 'succeeded'").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn two_organizations_may_use_the_same_key(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let ids = [under(&acme, "k", 1, 1).await[0], under(&globex, "k", 1, 1).await[0]];
    assert_eq!(platform.claim(platform.ids().mint(), &ids).await.len(), 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_most_urgent_is_woken_first(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = OneAtATime::under("k");
    let first = acme.enqueue(job.clone()).await;
    let usual = acme.enqueue(job.clone()).await;
    let urgent = acme.ask(gantry_jobs::Job::request(&job).priority(0)).await.id;
    let worker: WorkerId = platform.ids().mint();
    let claimed = platform.claim(worker, &[first]).await.remove(0);
    assert!(platform.claim(worker, &[usual, urgent]).await.is_empty());
    drop(platform.rung());
    finish(&platform, &claimed).await;
    assert_eq!(platform.rung(), [urgent]);
    platform.run_jobs().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_holder_that_is_rescued_or_fails_makes_room(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ids = under(&acme, "k", 1, 2).await;
    let worker: WorkerId = platform.ids().mint();
    platform.claim(worker, &ids).await;
    platform.silence(worker).await;
    platform.rescue().await;
    assert_eq!(parked(&platform).await, 0);
    assert_eq!(platform.count("select count(*) from job_slots").await, 0);
    platform.run_jobs().await;
    assert_eq!(platform.count("select count(*) from jobs where state = 'succeeded'").await, 2);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn one_that_is_cancelled_when_its_turn_came_passes_it_on(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // The second way is that its time moves: it is asked for again later, or it is paused.
    for limit in [1, 2] {
        let ids = under(&acme, &format!("k{limit}"), limit, usize::try_from(limit).unwrap() + 2).await;
        let worker: WorkerId = platform.ids().mint();
        let running = platform.claim(worker, &ids).await;
        let (next, last) = (ids[ids.len() - 2], ids[ids.len() - 1]);
        assert_eq!(parked(&platform).await, 2);
        finish(&platform, &running[0]).await;
        acme.cancel(next).await;
        platform.mend().await;
        assert_eq!(parked(&platform).await, 0, "limit {limit}: there is room, so nobody is parked");
        let claimed = platform.claim(worker, &[last]).await;
        assert_eq!(claimed.len(), 1, "limit {limit}");
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_a_crash_left_behind_is_mended(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let ids = under(&acme, "k", 1, 2).await;
    let worker: WorkerId = platform.ids().mint();
    let claimed = platform.claim(worker, &ids).await.remove(0);
    // As if the worker had settled the job and died before it freed the slot.
    let success = Success { id: claimed.id, attempt: claimed.attempt, result: None, keyed: false };
    settle::succeed(platform.ledger(), &[success], &[]).await.unwrap();
    assert_eq!(parked(&platform).await, 1);
    platform.mend().await;
    assert_eq!(parked(&platform).await, 0);
    platform.run_through(Duration::minutes(1)).await;
    assert_eq!(acme.state(ids[1]).await, State::Succeeded);
}
