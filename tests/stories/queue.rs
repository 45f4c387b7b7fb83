//! The engine itself, with Redis and the machine's clock: in each test real workers with connections of their own.
//!
//! Nothing here waits for a time to pass; it waits for something to be so, see [`eventually`].

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use gantry_jobs::doorbell::{Bell, base_key};
use gantry_jobs::schedule::NewSchedule;
use gantry_jobs::{Job as _, Queue};
use gantry_schema::jobs::control::{Change, Filter};
use gantry_schema::jobs::limits::{self, Limit};
use gantry_schema::jobs::pause::Subject;
use gantry_schema::jobs::{Ready, State};
use gantry_schema::schedules::cron::{MissedRuns, Overlap};
use gantry_schema::{JobId, WorkerId};
use gantry_tests::kinds::{Act, Garble, OneAtATime, Only, Rated, Scripted};
use gantry_tests::live::{Engine, eventually};
use gantry_tests::{Actor, Live};
use serde_json::json;
use sqlx::PgPool;

async fn count(live: &Live, statement: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {statement}")))
        .fetch_one(&live.owner)
        .await
        .unwrap()
}

async fn until_count(live: &Live, statement: &str, wanted: i64) {
    eventually(&format!("{wanted} {statement}"), async || (count(live, statement).await == wanted).then_some(())).await;
}

async fn until_state(acme: &Actor, job: JobId, wanted: State) {
    eventually(&format!("{job} is {wanted}"), async || (acme.state(job).await == wanted).then_some(())).await;
}

fn naps(count: usize, milliseconds: u64) -> Vec<Scripted> {
    (0..count).map(|number| Scripted::new(&number.to_string(), Act::Nap(milliseconds))).collect()
}

/// How many attempts ran at the same time at most, by when they began and ended.
async fn most_at_once(live: &Live, which: &str) -> usize {
    let spans: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("select started_at, finished_at from jobs where {which}")))
            .fetch_all(&live.owner)
            .await
            .unwrap();
    let overlapping = |at: DateTime<Utc>| spans.iter().filter(|(from, to)| *from <= at && at < *to).count();
    spans.iter().map(|(from, _)| overlapping(*from)).max().unwrap_or(0)
}

async fn set(live: &Live, limit: Limit) {
    let mut tx = live.operator().begin().await;
    limits::set(&mut tx, &limit).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_of_every_fate_come_to_their_end(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = live.engine(20).await;
    let fine = acme.enqueue_all(&naps(200, 0)).await;
    let answers = acme.enqueue(Scripted::new("a", Act::Answer(json!([1, 2])))).await;
    let completes = acme.enqueue(Scripted::new("b", Act::Complete)).await;
    let gives_up = acme.enqueue(Scripted::new("c", Act::GiveUp("no".to_owned()))).await;
    let panics = acme.enqueue(Scripted::acts("d", &[Act::Panic("oh".to_owned()), Act::Succeed])).await;
    let keyed = acme.enqueue_all(&vec![OneAtATime::under("k"); 20]).await;
    let only = acme.enqueue(Only::one("k", "alive", "existing", "a")).await;
    let after = Scripted::new("e", Act::AnswerStep("a".to_owned()));
    let after = acme.ask(after.request().after("a", answers).after("k", keyed[19])).await.id;
    let zero = acme.enqueue(Garble { outcome: "fail".to_owned() }).await;
    let receiver = acme.endpoint_for("https://receiver.example/hooks", &["invoice.*"]).await;
    acme.event("invoice.paid", json!({})).await;

    until_state(&acme, panics, State::Scheduled).await;
    assert_eq!(acme.retry(panics).await, Change::Done, "nobody waits ten seconds here");
    live.settled().await;
    for job in fine.iter().chain(&keyed).chain(&[answers, completes, panics, only, after]) {
        assert_eq!(acme.state(*job).await, State::Succeeded, "{job}");
    }
    assert_eq!((acme.state(gives_up).await, acme.state(zero).await), (State::Discarded, State::Discarded));
    assert_eq!(acme.job(after).await.result, Some(json!([1, 2])));
    assert_eq!(acme.job(answers).await.worker, Some(engine.worker));
    assert_eq!(live.hooks.deliveries_to(&receiver.url).len(), 1);
    assert_eq!(most_at_once(&live, "kind = 'story.one_at_a_time'").await, 1);
    eventually("nothing is held", async || {
        let held = count(&live, "job_leases").await + count(&live, "job_slots").await;
        (held == 0).then_some(())
    })
    .await;
    engine.stop().await;
    assert_eq!(count(&live, "job_workers").await + count(&live, "job_leaders").await, 0);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_due_later_is_run_when_its_time_comes(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = live.engine(5).await;
    let job = Scripted::fine("a");
    let due = acme.db().now() + chrono::Duration::milliseconds(700);
    let id = acme.ask(job.request().at(due)).await.id;
    until_state(&acme, id, State::Succeeded).await;
    assert!(acme.job(id).await.started_at.unwrap() >= due);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_redis_that_forgets_everything_loses_no_job(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = live.engine(10).await;
    for _ in 0..4 {
        acme.enqueue_all(&naps(100, 2)).await;
        acme.enqueue(OneAtATime { key: "k".to_owned(), limit: 1, milliseconds: 20 }).await;
        live.flush().await;
    }
    live.settled().await;
    assert_eq!(count(&live, "jobs where state = 'succeeded' and attempt = 1").await, 404);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_was_asked_for_while_nobody_was_there_is_found(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    acme.enqueue_all(&naps(1_500, 0)).await;
    acme.enqueue_all(&vec![OneAtATime { key: "k".to_owned(), limit: 5, milliseconds: 0 }; 20]).await;
    live.flush().await;
    let engine = live.engine(50).await;
    live.settled().await;
    assert_eq!(count(&live, "jobs where state = 'succeeded' and attempt = 1").await, 1_520);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn ringing_again_and_again_runs_a_job_once(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engines = [live.engine(10).await, live.engine(10).await];
    let ids = acme.enqueue_all(&naps(100, 5)).await;
    let bell = Bell::new(live.redis.clone(), &live.namespace);
    let ready: Vec<Ready> = ids
        .iter()
        .map(|id| Ready { id: *id, organization: acme.id, queue: "default".to_owned(), priority: 4, careful: false })
        .collect();
    for _ in 0..20 {
        bell.ring(&ready).await.unwrap();
    }
    live.settled().await;
    bell.ring(&ready).await.unwrap();
    let last = acme.enqueue(Scripted::fine("last")).await;
    until_state(&acme, last, State::Succeeded).await;
    assert_eq!(count(&live, "jobs where state = 'succeeded' and attempt = 1").await, 101);
    assert_eq!(count(&live, "job_unsuccessful").await, 0);
    for engine in engines {
        engine.stop().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn two_workers_share_the_load(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engines = [live.engine(5).await, live.engine(5).await];
    acme.enqueue_all(&naps(200, 10)).await;
    live.settled().await;
    for engine in &engines {
        let share = count(&live, &format!("jobs where worker_id = '{}'", engine.worker.uuid())).await;
        assert!(share >= 40, "{share} of 200");
    }
    assert_eq!(count(&live, "jobs where attempt = 1").await, 200);
    for engine in engines {
        engine.stop().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_serves_its_queues_only(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = live.engine_with(vec![(Queue::Webhooks, 5)], |_| {}).await;
    acme.endpoint("https://receiver.example/").await;
    let other = acme.enqueue(Scripted::fine("a")).await;
    acme.event("invoice.paid", json!({})).await;
    until_count(&live, "jobs where kind = 'webhooks.deliver' and state = 'succeeded'", 1).await;
    assert_eq!(acme.state(other).await, State::Available);
    let second = live.engine_with(vec![(Queue::Default, 5)], |_| {}).await;
    until_state(&acme, other, State::Succeeded).await;
    engine.stop().await;
    second.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_small_tenant_is_served_among_a_large_ones_backlog(pool: PgPool) {
    let live = Live::new(pool).await;
    let (large, small) = (live.organization("large").await, live.organization("small").await);
    large.enqueue_all(&naps(2_000, 10)).await;
    let engine = live.engine(10).await;
    until_running(&live).await;
    let ids = small.enqueue_all(&naps(10, 0)).await;
    for id in ids {
        until_state(&small, id, State::Succeeded).await;
    }
    let waiting = count(&live, "job_dispatch").await;
    assert!(waiting > 1_000, "{waiting} of the others still wait");
    drop(engine);
}

async fn until_running(live: &Live) {
    eventually("jobs run", async || (count(live, "jobs where started_at is not null").await > 0).then_some(())).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn organizations_that_both_wait_are_served_by_weight(pool: PgPool) {
    let live = Live::new(pool).await;
    let heavy = live.organization_with("heavy", 4, None).await;
    let light = live.organization_with("light", 1, None).await;
    for actor in [&heavy, &light] {
        actor.enqueue_all(&naps(600, 5)).await;
    }
    let engine = live.engine(10).await;
    until_count_at_least(&live, "jobs where state = 'succeeded'", 500).await;
    let done = "jobs where started_at is not null and organization_id =";
    let heavy = count(&live, &format!("{done} '{}'", heavy.id.uuid())).await;
    let light = count(&live, &format!("{done} '{}'", light.id.uuid())).await;
    let ratio = f64::from(i32::try_from(heavy).unwrap()) / f64::from(i32::try_from(light.max(1)).unwrap());
    assert!((2.5..=6.0).contains(&ratio), "{heavy} to {light}");
    drop(engine);
}

async fn until_count_at_least(live: &Live, statement: &str, wanted: i64) {
    let what = format!("at least {wanted} {statement}");
    eventually(&what, async || (count(live, statement).await >= wanted).then_some(())).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn urgent_jobs_of_an_organization_come_first(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    acme.enqueue_all(&naps(300, 5)).await;
    let job = Scripted::fine("urgent");
    let urgent = acme.ask(job.request().priority(0)).await.id;
    let idle = acme.ask(job.request().priority(9)).await.id;
    let engine = live.engine(5).await;
    until_state(&acme, idle, State::Succeeded).await;
    let before = async |id: JobId| {
        count(&live, &format!("jobs where started_at < (select started_at from jobs where id = '{}')", id.uuid())).await
    };
    assert!(before(urgent).await < 20, "{}", before(urgent).await);
    assert!(before(idle).await > 280, "{}", before(idle).await);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_limit_of_a_queue_holds_over_all_workers_and_can_be_lifted(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    set(&live, Limit::Queue { name: "default".to_owned(), running: 3 }).await;
    let engines = [live.engine(10).await, live.engine(10).await];
    acme.enqueue_all(&naps(60, 10)).await;
    live.settled().await;
    let most = most_at_once(&live, "true").await;
    assert!((1..=3).contains(&most), "{most} at once");

    let mut tx = live.operator().begin().await;
    assert!(limits::lift(&mut tx, "queue", "default").await.unwrap());
    tx.commit().await.unwrap();
    eventually("the limit is lifted", async || live.keys(":default}:limits").await.is_empty().then_some(())).await;
    let late = acme.enqueue_all(&naps(100, 300)).await;
    live.settled().await;
    let most = most_at_once(&live, &format!("id >= '{}'", late[0].uuid())).await;
    assert!(most > 3, "{most} at once");
    for engine in engines {
        engine.stop().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_limit_of_an_organization_holds_while_others_go_on(pool: PgPool) {
    let live = Live::new(pool).await;
    let limited = live.organization_with("limited", 1, Some(2)).await;
    let free = live.organization("free").await;
    let engine = live.engine(20).await;
    limited.enqueue_all(&naps(40, 20)).await;
    free.enqueue_all(&naps(200, 20)).await;
    live.settled().await;
    let of = |actor: &Actor| format!("organization_id = '{}'", actor.id.uuid());
    let most = most_at_once(&live, &of(&limited)).await;
    assert!((1..=2).contains(&most), "{most} at once");
    let most = most_at_once(&live, &of(&free)).await;
    assert!(most > 5, "{most} at once");
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn however_many_organizations_are_at_their_limits_the_others_are_served(pool: PgPool) {
    let live = Live::new(pool).await;
    for number in 0..130 {
        let limited = live.organization_with(&format!("limited {number}"), 1, Some(1)).await;
        limited.enqueue_all(&vec![Scripted::new("hangs", Act::Hang); 2]).await;
    }
    let free = live.organization("free").await;
    let engine = live.engine(150).await;
    until_count(&live, "jobs where state = 'running'", 130).await;
    let backlog = free.enqueue_all(&naps(200, 1)).await;
    for id in backlog {
        until_state(&free, id, State::Succeeded).await;
    }
    assert_eq!(count(&live, "jobs where state = 'running'").await, 130);
    drop(engine);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_duplicate_ring_does_not_keep_a_place_under_a_limit(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization_with("acme", 1, Some(1)).await;
    let engine = live.engine(5).await;
    let done = acme.enqueue(Scripted::fine("a")).await;
    until_state(&acme, done, State::Succeeded).await;
    let bell = Bell::new(live.redis.clone(), &live.namespace);
    let ready = Ready { id: done, organization: acme.id, queue: "default".to_owned(), priority: 0, careful: false };
    bell.ring(&[ready]).await.unwrap();
    let popped = acme.db().now();
    let next = acme.enqueue(Scripted::fine("b")).await;
    until_state(&acme, next, State::Succeeded).await;
    let waited = acme.job(next).await.started_at.unwrap() - popped;
    assert!(waited < chrono::Duration::seconds(15), "{waited}");
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn jobs_under_a_rate_are_spread_and_none_is_lost(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    set(&live, Limit::Rate { name: "vendor".to_owned(), amount: 10, period_seconds: 1, burst: 2 }).await;
    let engine = live.engine(20).await;
    acme.enqueue_all(&vec![Rated { rate: "vendor".to_owned() }; 20]).await;
    let other = acme.enqueue_all(&vec![Rated { rate: "unlimited".to_owned() }; 20]).await;
    for id in other {
        until_state(&acme, id, State::Succeeded).await;
    }
    live.settled().await;
    let mut begun: Vec<i64> = sqlx::query_scalar(
        "select result::bigint from jobs where rate_key = 'vendor' and state = 'succeeded' order by 1",
    )
    .fetch_all(&live.owner)
    .await
    .unwrap();
    assert_eq!(begun.len(), 20);
    begun.sort_unstable();
    // A burst of two, then one each 100 milliseconds: 18 of them. Late ones may come closer together, never early.
    assert!(begun[19] - begun[0] >= 1_700, "all within {} ms", begun[19] - begun[0]);
    for window in begun.windows(14) {
        assert!(window[13] - window[0] >= 800, "14 within {} ms", window[13] - window[0]);
    }
    assert_eq!(count(&live, "jobs where rate_key = 'vendor' and attempt - uncounted <> 1").await, 0);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_paused_queue_stands_still_and_goes_on_when_it_is_resumed(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    acme.endpoint("https://receiver.example/").await;
    let engine = live.engine(10).await;
    let operator = live.operator();
    acme.enqueue_all(&naps(2_000, 3)).await;
    until_running(&live).await;
    operator.pause(Subject::Queue, "default").await;
    // Whatever was claimed before the worker heard of it ends. Then the worker, with all its slots free, carries out
    // another queue's jobs and none of this one's.
    let stood = eventually("the other queue moves and this one does not", async || {
        let before = count(&live, "jobs where queue = 'default' and started_at is not null").await;
        let delivered = count(&live, "jobs where queue = 'webhooks' and state = 'succeeded'").await;
        for number in 0..20 {
            acme.event("round.ended", json!({"number": number})).await;
        }
        until_count(&live, "jobs where queue = 'webhooks' and state = 'succeeded'", delivered + 20).await;
        let after = count(&live, "jobs where queue = 'default' and started_at is not null").await;
        (before == after).then_some(after)
    })
    .await;
    assert!(stood < 2_000, "all had started before the pause");
    operator.resume(Subject::Queue, "default").await;
    live.settled().await;
    assert_eq!(count(&live, "jobs where queue = 'default' and state = 'succeeded' and attempt = 1").await, 2_000);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_paused_kind_and_a_paused_organization_wait_while_others_run(pool: PgPool) {
    let live = Live::new(pool).await;
    let (acme, globex) = (live.organization("acme").await, live.organization("globex").await);
    let operator = live.operator();
    operator.pause(Subject::Kind, OneAtATime::KIND).await;
    let globex_id = globex.id.uuid().to_string();
    globex.pause(Subject::Organization, &globex_id).await;
    // A worker hears of a pause within a second; one that starts knows it.
    let engine = live.engine(10).await;
    let kind = acme.enqueue(OneAtATime::under("k")).await;
    let organization = globex.enqueue_all(&naps(1_200, 0)).await;
    let free = acme.enqueue_all(&naps(50, 0)).await;
    for id in free {
        until_state(&acme, id, State::Succeeded).await;
    }
    assert_eq!(acme.state(kind).await, State::Available);
    operator.resume(Subject::Kind, OneAtATime::KIND).await;
    until_state(&acme, kind, State::Succeeded).await;
    globex.resume(Subject::Organization, &globex_id).await;
    live.settled().await;
    assert_eq!(count(&live, "jobs where state = 'succeeded' and attempt = 1").await, 1_251);
    drop(organization);
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn cancelling_reaches_a_running_handler(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let engine = live.engine(5).await;
    let listens = acme.enqueue(Scripted::new("a", Act::Listen)).await;
    let deaf = acme.enqueue(Scripted::new("b", Act::Hang)).await;
    for id in [listens, deaf] {
        until_state(&acme, id, State::Running).await;
    }
    let asked = acme.db().now();
    assert_eq!((acme.cancel(listens).await, acme.cancel(deaf).await), (Change::Asked, Change::Asked));
    until_state(&acme, listens, State::Succeeded).await;
    until_state(&acme, deaf, State::Cancelled).await;
    assert_eq!(acme.job(listens).await.result, Some(json!("stopped")));
    let deaf = acme.job(deaf).await;
    assert_eq!(deaf.failures[0].error, "cancelled while it ran");
    assert!(deaf.finished_at.unwrap() - asked < chrono::Duration::seconds(10));
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_that_leaves_lets_jobs_finish_and_hands_back_the_rest(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let queues = vec![(Queue::Default, 5)];
    let engine = live.engine_with(queues, |config| config.drain = Duration::from_millis(700)).await;
    let hangs = acme.enqueue(Scripted::new("hangs", Act::Hang)).await;
    let finishes = acme.enqueue(Scripted::new("finishes", Act::Nap(300))).await;
    for id in [hangs, finishes] {
        until_state(&acme, id, State::Running).await;
    }
    let waiting = acme.enqueue_all(&naps(200, 20)).await;
    until_state(&acme, waiting[0], State::Running).await;
    engine.stop().await;

    assert_eq!(acme.state(finishes).await, State::Succeeded);
    let job = acme.job(hangs).await;
    assert_eq!((job.state, job.attempt, job.uncounted), (State::Available, 1, 1));
    assert_eq!(job.failures[0].error, "its worker was stopped");
    assert_eq!(count(&live, "jobs where state = 'running'").await, 0);
    assert_eq!(count(&live, "job_leases").await, 0);
    assert_eq!(count(&live, "jobs where state = 'available' and attempt <> uncounted").await, 0, "nothing counted");
    acme.cancel(hangs).await;
    let heir = live.engine(10).await;
    live.settled().await;
    assert_eq!(count(&live, "jobs where state = 'succeeded' and attempt - uncounted = 1").await, 201);
    heir.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_worker_that_loses_a_part_of_a_claim_stops_that_and_goes_on_with_the_rest(pool: PgPool) {
    let live = Live::new(pool).await;
    let (acme, globex) = (live.organization("acme").await, live.organization("globex").await);
    let hanging = acme.enqueue_all(&vec![Scripted::new("hangs", Act::Hang); 2]).await;
    sqlx::query("update jobs set lease_seconds = 60 where id = $1")
        .bind(hanging[1].uuid())
        .execute(&live.owner)
        .await
        .unwrap();
    let engine = live.engine(2).await;
    until_count(&live, "jobs where state = 'running'", 2).await;
    assert_eq!(count(&live, "(select distinct claim_id from job_leases) claims").await, 1);
    assert_eq!(count(&live, "job_leases").await, 2);
    // Nobody takes the lost job again, which would end the older attempt as well.
    let paused = acme.id.uuid().to_string();
    acme.pause(Subject::Organization, &paused).await;
    eventually("the shorter lease has run out", async || {
        sqlx::query("update job_leases set expires_at = now() - interval '1 second' where seconds = 5")
            .execute(&live.owner)
            .await
            .unwrap();
        (acme.state(hanging[0]).await == State::Available).then_some(())
    })
    .await;
    // It has no slot but the one of the handler that is stopped.
    let next = globex.enqueue(Scripted::fine("next")).await;
    until_state(&globex, next, State::Succeeded).await;
    let kept = acme.job(hanging[1]).await;
    assert_eq!((kept.state, kept.attempt, kept.rescues), (State::Running, 1, 0));
    drop(engine);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn another_worker_takes_over_when_the_leader_dies(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let leader = async || -> Option<WorkerId> {
        sqlx::query_scalar("select worker_id from job_leaders where expires_at > now()")
            .fetch_optional(&live.owner)
            .await
            .unwrap()
    };
    let first = live.engine(2).await;
    eventually("the first leads", async || (leader().await == Some(first.worker)).then_some(())).await;
    let second = live.engine(2).await;
    acme.enqueue_all(&vec![Scripted::new("hangs", Act::Hang); 2]).await;
    let running = "jobs where state = 'running'";
    until_count(&live, running, 2).await;
    let held = format!("jobs where worker_id = '{}'", first.worker.uuid());
    let held = count(&live, &held).await;
    first.kill();

    eventually("the second leads", async || (leader().await == Some(second.worker)).then_some(())).await;
    // The dead worker's jobs are taken back, what is due becomes ready, and schedules tick.
    until_count(&live, "jobs where rescues = 1", held).await;
    let job = Scripted::fine("later");
    let later = acme.ask(job.request().at(acme.db().now() + chrono::Duration::milliseconds(300))).await.id;
    for id in acme.jobs(&Filter { kinds: vec![Scripted::KIND.to_owned()], ..Filter::default() }, None, 9).await {
        if id != later {
            acme.cancel(id).await;
        }
    }
    until_state(&acme, later, State::Succeeded).await;
    live.settled().await;
    second.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_dead_workers_jobs_run_elsewhere_to_their_end(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    acme.enqueue_all(&naps(300, 30)).await;
    acme.enqueue_all(&vec![OneAtATime { key: "k".to_owned(), limit: 2, milliseconds: 10 }; 10]).await;
    let (doomed, survivor) = (live.engine(10).await, live.engine(10).await);
    until_count_at_least(&live, "jobs where state = 'succeeded'", 50).await;
    doomed.kill();
    live.settled().await;
    assert_eq!(count(&live, "jobs where state = 'succeeded'").await, 310);
    assert_eq!(count(&live, "jobs where attempt > 1 and rescues = 0").await, 0);
    survivor.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_schedule_ticks_once_each_second_whoever_leads(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let mut engines: Vec<Option<Engine>> = vec![Some(live.engine(5).await), Some(live.engine(5).await)];
    let schedule = acme
        .schedule(NewSchedule {
            name: "every second".to_owned(),
            kind: "diagnostics.probe".to_owned(),
            payload: json!({}),
            cron: "* * * * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            missed_runs: MissedRuns::All,
            overlap: Overlap::Allow,
            jitter_seconds: 0,
        })
        .await;
    until_count_at_least(&live, "schedule_ticks", 2).await;
    let leader: WorkerId =
        sqlx::query_scalar("select worker_id from job_leaders").fetch_one(&live.owner).await.unwrap();
    let at = engines.iter().position(|engine| engine.as_ref().is_some_and(|it| it.worker == leader)).unwrap();
    engines[at].take().unwrap().kill();
    let before = count(&live, "schedule_ticks").await;
    until_count_at_least(&live, "schedule_ticks", before + 4).await;

    let ticks: Vec<DateTime<Utc>> =
        sqlx::query_scalar("select tick_at from schedule_ticks where schedule_id = $1 order by 1")
            .bind(schedule.id.uuid())
            .fetch_all(&live.owner)
            .await
            .unwrap();
    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == chrono::Duration::seconds(1)), "{ticks:?}");
    let jobs = count(&live, "jobs where requested_by like 'schedule:%'").await;
    assert!(jobs >= i64::try_from(ticks.len()).unwrap());
    assert_eq!(count(&live, "schedule_ticks where job_id is null").await, 0);
    for engine in engines.into_iter().flatten() {
        engine.stop().await;
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn redis_holds_ids_and_rates_and_nothing_of_the_payload(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    acme.enqueue_all(&naps(50, 0)).await;
    eventually("the bell has rung", async || (!live.keys(":default}:bell").await.is_empty()).then_some(())).await;
    let base = base_key(&live.namespace, "default");
    let mut kinds = HashMap::new();
    for key in live.keys("*").await {
        assert!(key.starts_with(base.as_bytes()), "{}", String::from_utf8_lossy(&key));
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut live.redis.clone()).await.unwrap();
        kinds.insert(key, kind);
    }
    let ready = kinds.iter().find(|(key, _)| key.windows(7).any(|part| part == b":ready:")).unwrap();
    let members: Vec<Vec<u8>> =
        redis::cmd("ZRANGE").arg(ready.0).arg(0).arg(-1).query_async(&mut live.redis.clone()).await.unwrap();
    assert_eq!(members.len(), 50);
    assert!(members.iter().all(|member| member.len() == 17));
    let engine = live.engine(20).await;
    live.settled().await;
    engine.stop().await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn whoever_waits_for_a_job_is_told_when_it_ends(pool: PgPool) {
    let live = Live::new(pool).await;
    let acme = live.organization("acme").await;
    let url = std::env::var("GANTRY_TEST_REDIS_URL").or_else(|_| std::env::var("GANTRY_REDIS_URL")).unwrap();
    let mut subscription = redis::Client::open(url).unwrap().get_async_pubsub().await.unwrap();
    subscription.subscribe(gantry_jobs::signals::ended_channel(&live.namespace)).await.unwrap();
    let mut messages = subscription.into_on_message();
    let engine = live.engine(5).await;
    let id = acme.enqueue(Scripted::new("a", Act::Complete)).await;
    let told = tokio::time::timeout(Duration::from_mins(1), async {
        while let Some(message) = messages.next().await {
            if message.get_payload_bytes().chunks(16).any(|job| job == id.uuid().as_bytes()) {
                return true;
            }
        }
        false
    });
    assert!(told.await.unwrap());
    assert_eq!(acme.state(id).await, State::Succeeded);
    engine.stop().await;
}
