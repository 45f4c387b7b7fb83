//! Requests that arrive at the same moment share statements, and nobody can tell.

use std::collections::HashSet;

use futures::FutureExt as _;
use futures::future::{join, join_all};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Actor, Platform};

fn saying(message: &str) -> Value {
    json!({ "kind": "diagnostics.probe", "payload": { "message": message } })
}

/// Asks for jobs at the same moment, each saying its number.
async fn ask_at_once(actor: &Actor, count: usize) -> Vec<String> {
    let asked = join_all((0..count).map(|number| async move {
        actor.post("/jobs", &saying(&number.to_string())).await.expect(202)["id"].as_str().unwrap().to_owned()
    }));
    asked.await
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_that_are_asked_for_at_once_are_written_in_few_commits_and_answered_each_its_own(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    // The key is known from here on, so that the others do not wait for that.
    acme.probe(None).await;
    let jobs = ask_at_once(&acme, 40).await;
    assert_eq!(jobs.iter().collect::<HashSet<_>>().len(), 40);
    for (number, job) in jobs.iter().enumerate() {
        let job = acme.get(&format!("/jobs/{job}")).await.expect(200);
        assert_eq!(job["payload"]["message"], number.to_string());
    }
    let commits: i64 =
        sqlx::query_scalar("select count(distinct xmin::text) from jobs").fetch_one(&platform.pool).await.unwrap();
    assert!(commits < 10, "{commits} commits for 41 jobs");
    assert_eq!(platform.count("job_dispatch").await, 41, "all of them will be found by workers");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn organizations_that_ask_at_once_see_and_get_only_their_own(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let (ours, theirs) = join(ask_at_once(&acme, 20), ask_at_once(&other, 20)).await;
    let owned: Vec<(uuid::Uuid, i64)> = sqlx::query_as("select organization_id, count(*) from jobs group by 1")
        .fetch_all(&platform.pool)
        .await
        .unwrap();
    let owned: HashSet<(uuid::Uuid, i64)> = owned.into_iter().collect();
    assert_eq!(owned, HashSet::from([(acme.organization.uuid(), 20), (other.organization.uuid(), 20)]));

    let (acme, other) = (&acme, &other);
    let looked = join_all(ours.iter().chain(&theirs).map(|job| async move {
        let path = format!("/jobs/{job}");
        let (ours, theirs) = join(acme.get(&path), other.get(&path)).await;
        (ours.status.as_u16(), theirs.status.as_u16())
    }));
    let statuses = looked.await;
    assert_eq!(statuses, [[(200, 404); 20], [(404, 200); 20]].concat());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_wrong_with_one_request_is_told_to_it_alone(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    let paths = [format!("/jobs/{job}"), "/jobs/job_01h455vb4pex5vsknk084sn02q".to_owned(), format!("/jobs/{job}")];
    let looked: Vec<_> = join_all(paths.iter().map(|path| acme.get(path))).await;
    assert_eq!(looked.iter().map(|answer| answer.status.as_u16()).collect::<Vec<_>>(), [200, 404, 200]);

    let bodies = [
        saying("well"),
        json!({ "kind": "diagnostics.probe", "after": [{ "job": "job_01h455vb4pex5vsknk084sn02q" }] }),
        json!({ "kind": "diagnostics.probe", "priority": 10 }),
        saying("also well"),
    ];
    let asked: Vec<_> = join_all(bodies.iter().map(|body| acme.post("/jobs", body))).await;
    assert_eq!(asked.iter().map(|answer| answer.status.as_u16()).collect::<Vec<_>>(), [202, 422, 422, 202]);
    assert_eq!(platform.count("jobs").await, 3);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_goes_away_takes_nobody_along(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    acme.probe(None).await;
    let (gone, stays) = (saying("gone"), saying("stays"));
    let mut gone = Box::pin(acme.post("/jobs", &gone));
    assert!((&mut gone).now_or_never().is_none(), "it waits for the ledger");
    let mut stays = Box::pin(acme.post("/jobs", &stays));
    assert!((&mut stays).now_or_never().is_none());
    drop(gone);
    let job = stays.await.expect(202);
    let job = acme.get(&format!("/jobs/{}", job["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(job["payload"]["message"], "stays");
    assert_eq!(platform.count("jobs").await, 2, "what nobody waited for was not written");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn when_the_ledger_does_not_answer_everybody_is_told_so_and_nothing_is_half_stored(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let job = acme.probe(None).await;
    // Statements of requests wait for the table, and are ended by an administrator while they do.
    let mut locked = platform.pool.begin().await.unwrap();
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut *locked).await.unwrap();
    let path = format!("/jobs/{job}");
    let asking = join(
        join_all((0..10).map(|_| async { acme.post("/jobs", &saying("x")).await })),
        join_all((0..10).map(|_| acme.get(&path))),
    );
    let ending = async {
        // The first to ask may go alone, and the rest after it: whoever waits is ended, until nobody asks any more.
        loop {
            let waiting = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                            where datname = current_database() and usename = 'gantry_app' and wait_event_type = 'Lock'";
            sqlx::query(waiting).execute(&platform.pool).await.unwrap();
        }
    };
    let (asked, looked) = tokio::select! {
        answers = asking => answers,
        () = ending => unreachable!("it does not end"),
    };
    for answer in asked.into_iter().chain(looked) {
        answer.problem(503, "unavailable", None);
    }
    locked.rollback().await.unwrap();
    assert_eq!(platform.count("jobs").await, 1);
    acme.get(&path).await.expect(200);
    acme.post("/jobs", &saying("again")).await.expect(202);
}
