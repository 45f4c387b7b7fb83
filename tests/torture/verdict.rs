//! What must hold in the end, asked of the ledger and of the traces.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio::time::sleep;

use gantry_tests::percentile::percentile;

use crate::Plan;
use crate::faults::Count;
use crate::load::{Asked, Book};
use crate::scene::{Scene, by_fault};
use std::sync::atomic::Ordering;

/// Waits until no job is left to be done, apart from those of schedules, which never end.
pub async fn finished(owner: &PgPool) {
    loop {
        let left: Result<i64, _> = sqlx::query_scalar(
            "select count(*) from jobs j where state not in ('succeeded', 'discarded', 'cancelled')
                and not (requested_by like 'schedule:%' and exists (select from schedules where not paused))",
        )
        .fetch_one(owner)
        .await;
        if matches!(left, Ok(0)) {
            return;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Lets every schedule tick up to now, then stops them. Answers up to when they must have ticked.
pub async fn stop_schedules(owner: &PgPool) -> anyhow::Result<DateTime<Utc>> {
    let end: DateTime<Utc> = sqlx::query_scalar("select date_trunc('second', now())").fetch_one(owner).await?;
    for _ in 0..100 {
        let late: i64 = sqlx::query_scalar("select count(*) from schedules where last_tick_at < $1")
            .bind(end)
            .fetch_one(owner)
            .await?;
        if late == 0 {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    sqlx::query("update schedules set paused = true").execute(owner).await?;
    Ok(end)
}

/// The figures of a run.
#[derive(Debug, Default)]
pub struct Figures {
    values: Map<String, Value>,
    broken: Vec<String>,
    diary: Vec<String>,
}

impl Figures {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// A number that must be zero.
    fn zero(&mut self, name: &str, value: i64) {
        self.set(name, value);
        if value != 0 {
            self.broken.push(format!("{name} is {value}"));
        }
    }

    /// What the run itself was like.
    pub fn run(
        &mut self,
        plan: &Plan,
        count: Count,
        scene: &Scene,
        recovered: &[(&'static str, f64)],
        recovery: Duration,
    ) {
        self.set("seed", plan.seed);
        self.set("seconds", plan.seconds);
        self.set("workers", plan.workers);
        self.set("faults", count.values().sum::<usize>());
        self.set("faults_by_kind", json!(count));
        self.zero(
            "workers_that_would_not_leave",
            scene.stubborn.load(Ordering::Relaxed).try_into().unwrap_or(i64::MAX),
        );
        let mut all: Vec<f64> = recovered.iter().map(|(_, seconds)| *seconds).collect();
        self.set("recover_p50_s", rounded(percentile(&mut all, 50)));
        self.set("recover_p99_s", rounded(percentile(&mut all, 99)));
        self.set("recover_all_s", rounded(recovery.as_secs_f64()));
        for (fault, mut seconds) in by_fault(recovered) {
            self.diary.push(format!(
                "{fault:<26} {:>3} times, a new job was done {:>7.3} s later at the median, {:>7.3} s at most",
                seconds.len(),
                percentile(&mut seconds, 50),
                percentile(&mut seconds, 100)
            ));
        }
    }

    /// Prints everything. `true`: every invariant held.
    pub fn report(&self) -> bool {
        println!();
        for line in &self.diary {
            println!("{line}");
        }
        println!();
        for (name, value) in &self.values {
            if !value.is_object() {
                println!("{name:<30} {value:>12}");
            }
        }
        println!();
        for broken in &self.broken {
            println!("BROKEN: {broken}");
        }
        if self.broken.is_empty() {
            println!("Nothing was lost, nothing happened twice.");
        }
        self.broken.is_empty()
    }

    /// The figures as JSON.
    pub fn json(&self) -> Value {
        Value::Object(self.values.clone())
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// A question whose answer is a number and some examples.
struct Question {
    name: &'static str,
    /// Answers one row with one text per thing that is wrong.
    sql: &'static str,
}

/// What may not be found. Every one counts into the figure of its name.
const WRONG: &[Question] = &[
    Question {
        name: "lost",
        sql: "select a.job_id || ' accepted, but is ' || coalesce(j.state::text || ', attempt ' || j.attempt || ', worker '
                     || coalesce(j.worker_id::text, '-') || ', ' || coalesce(j.failures ->> -1, ''), 'not there')
                     || ' instead of ' || a.expected
                from torture.accepted a left join jobs j on j.id = a.job_id
               where (a.sure or j.id is not null)
                 and coalesce(j.state::text, 'not there') <> a.expected
                 and not (a.expected = 'either' and j.state::text in ('succeeded', 'cancelled'))
               union all
              select id || ', a ' || kind || ' of ' || requested_by || ', is ' || state::text || ' for ever, attempt ' || attempt
                     || case when exists (select from job_leases l where j.id = any(l.job_ids)) then ', with a lease'
                             else ', without a lease' end from jobs j
               where state not in ('succeeded', 'discarded', 'cancelled')
                 and not exists (select from torture.accepted a where a.job_id = j.id)",
    },
    Question {
        name: "effects_lost",
        sql: "select j.id || ' of ' || j.kind || ' succeeded without its effect' from jobs j
               where j.state = 'succeeded' and j.kind like 'torture.%'
                 and not exists (select from torture.effects e where e.job_id = j.id)
                 and not exists (select from torture.vendor v where v.job_id = j.id)
               union all
              select job_id || ': ' || text from torture.problems
               union all
              select s.job_id || ' should have been undone, and was not' from job_steps s join jobs j on j.id = s.job_id
                left join jobs u on u.id = s.compensated_by
               where s.compensation is not null and j.state = 'succeeded' and u.state is distinct from 'succeeded'",
    },
    Question {
        name: "effects_more_than_once",
        sql: "select job_id || ' has ' || count(*) || ' effects' from torture.effects group by job_id having count(*) > 1
               union all
              select job_id || ' asked the vendor with ' || count(*) || ' keys' from torture.vendor
               group by job_id having count(*) > 1
               union all
              select 'the workflow step ' || key || ' was undone ' || count(*) || ' times' from torture.effects
               where kind = 'torture.undo' group by key having count(*) > 1
               union all
              select j.id || ' is ' || j.state::text || ', but had its effect' from jobs j
                join torture.effects e on e.job_id = j.id where j.state <> 'succeeded'",
    },
    Question {
        name: "concurrency_violations",
        sql: "select kind || ' ' || key || ': ' || job_id || ' began ' || (before - began_at) || ' before the previous ended'
                from (select *, max(ended_at) over (partition by kind, key order by began_at
                                   rows between unbounded preceding and 1 preceding) as before
                        from torture.effects where kind in ('torture.exclusive', 'torture.single')) runs
               where began_at < before",
    },
    Question {
        name: "leftovers",
        sql: "select 'a slot of ' || concurrency_key from job_slots
               union all select 'a unique key ' || unique_key from job_unique
               union all select 'dispatch of ' || id from job_dispatch
               union all select 'a lease of ' || claim_id || ' that ends ' || expires_at from job_leases
                          where expires_at < now() - interval '5 s'",
    },
];

/// Looks at everything.
pub async fn judge(
    owner: &PgPool,
    book: &Book,
    schedules: &[uuid::Uuid],
    end: DateTime<Utc>,
) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    let asked = book.all();
    write_down(owner, &asked).await?;
    for question in WRONG {
        let wrong: Vec<String> = sqlx::query_scalar(question.sql).fetch_all(owner).await?;
        figures.zero(question.name, i64::try_from(wrong.len())?);
        figures.broken.extend(wrong.into_iter().take(10).map(|what| format!("  {what}")));
    }
    let (accepted, finished, repeated): (i64, i64, i64) = sqlx::query_as(
        "select count(*) filter (where a.sure),
                count(*) filter (where a.sure and j.state in ('succeeded', 'discarded', 'cancelled')),
                coalesce(sum(greatest(0, j.attempt - 1 - a.planned)), 0)::bigint
           from torture.accepted a left join jobs j on j.id = a.job_id",
    )
    .fetch_one(owner)
    .await?;
    figures.set("accepted", accepted);
    figures.set("finished", finished);
    figures.set("attempts_repeated", repeated);
    figures.set("asked_unknown", asked.iter().filter(|asked| !asked.sure).count());
    figures.set("transactions_refused", book.refused.load(Ordering::Relaxed));
    figures.set("transactions_unknown", book.unknown.load(Ordering::Relaxed));
    let rescued: i64 =
        sqlx::query_scalar("select coalesce(sum(rescues), 0)::bigint from jobs").fetch_one(owner).await?;
    figures.set("rescues", rescued);
    let repeated: i64 =
        sqlx::query_scalar("select coalesce(sum(calls - 1), 0)::bigint from torture.vendor").fetch_one(owner).await?;
    figures.set("vendor_asked_again", repeated);
    // How long the least lucky job of those waited that were to run at once and as planned.
    let (p99, max): (f64, f64) = sqlx::query_as(
        "select coalesce(percentile_cont(0.99) within group (order by waited), 0), coalesce(max(waited), 0)::float8
           from (select extract(epoch from e.ended_at - j.created_at)::float8 as waited
                   from jobs j join torture.effects e on e.job_id = j.id
                  where j.payload = '{\"milliseconds\": 0, \"failures\": 0, \"snoozes\": 0}' and j.run_at <= j.created_at) w",
    )
    .fetch_one(owner)
    .await?;
    figures.set("delay_p99_s", rounded(p99));
    figures.set("delay_max_s", rounded(max));
    ticks(owner, schedules, end, &mut figures).await?;
    Ok(figures)
}

async fn write_down(owner: &PgPool, asked: &[Asked]) -> anyhow::Result<()> {
    for some in asked.chunks(5_000) {
        sqlx::query(
            "insert into torture.accepted (job_id, expected, planned, sure)
             select * from unnest($1::uuid[], $2::text[], $3::int[], $4::bool[])",
        )
        .bind(some.iter().map(|asked| asked.job.uuid()).collect::<Vec<_>>())
        .bind(some.iter().map(|asked| asked.expected.as_str()).collect::<Vec<_>>())
        .bind(some.iter().map(|asked| asked.planned).collect::<Vec<_>>())
        .bind(some.iter().map(|asked| asked.sure).collect::<Vec<_>>())
        .execute(owner)
        .await?;
    }
    Ok(())
}

/// Every second from the making of a schedule to the end must have one tick, and every tick one job that was done.
async fn ticks(
    owner: &PgPool,
    schedules: &[uuid::Uuid],
    end: DateTime<Utc>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (expected, missed, doubled): (i64, i64, i64) = sqlx::query_as(
        "with expected as (
             select s.id, second from schedules s
              cross join lateral generate_series(date_trunc('second', s.created_at) + interval '1 s', $2,
                                                 interval '1 s') as second
              where s.id = any($1)),
         ran as (
             select e.id, e.second, j.state from expected e
               left join schedule_ticks t on t.schedule_id = e.id and t.tick_at = e.second
               left join jobs j on j.id = t.job_id)
         select (select count(*) from expected),
                (select count(*) from ran where state is distinct from 'succeeded'),
                (select count(*) from jobs j where j.requested_by like 'schedule:%'
                    and not exists (select from schedule_ticks t where t.job_id = j.id))",
    )
    .bind(schedules)
    .bind(end)
    .fetch_one(owner)
    .await?;
    figures.set("ticks", expected);
    figures.zero("ticks_missed", missed);
    figures.zero("ticks_doubled", doubled);
    Ok(())
}
