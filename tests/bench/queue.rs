//! `bench queue`: what the job engine can do.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use gantry_jobs::request::enqueue_all;
use gantry_jobs::{By, Job as _};
use gantry_schema::jobs::control;
use gantry_schema::{Db, JobId, OrganizationId};
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, app_db, organization, silent_db};
use sqlx::{Connection as _, PgConnection};

use crate::measure::{Ended, Figures, fsync, rate};
use crate::noop::{Nap, Noop, Stamp};
use crate::worker;

/// Slots of the worker.
const SLOTS: usize = 500;

/// Jobs in one transaction of a bulk enqueue.
const BULK: usize = 1_000;

/// Transactions that write at the same time while the worker drains.
const WRITERS: usize = 2;

struct Bench {
    servers: Servers,
    db: Db,
    tenant: OrganizationId,
    figures: Figures,
}

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(jobs: usize, history: i64, json: Option<PathBuf>) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    servers.migrate().await?;
    let db = app_db(&servers).await?;
    let tenant = organization(&servers, "Bench").await?;
    let mut bench = Bench { servers, db, tenant, figures: Figures::default() };

    let (fsync_p50, fsync_p99) = fsync()?;
    bench.figure("fsync_p50_ms", fsync_p50);
    bench.figure("fsync_p99_ms", fsync_p99);
    bench.enqueue_single().await?;
    bench.throughput(jobs).await?;
    bench.latency().await?;
    bench.idle().await?;
    bench.memory().await?;
    bench.fairness().await?;
    bench.history(jobs, history).await?;
    let (_, fsync_p99) = fsync()?;
    bench.figure("fsync_p99_after_ms", fsync_p99);

    bench.figures.write(json.as_deref())
}

impl Bench {
    fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.note(name, value);
    }

    /// One job per transaction over one connection, in turns with bare single-row commits; also without the
    /// doorbell, to tell what the ringing costs beside it on the same cores.
    async fn enqueue_single(&mut self) -> anyhow::Result<()> {
        const ROUNDS: usize = 20;
        const EACH: usize = 100;
        let mut bare = PgConnection::connect(&self.servers.owner_url).await?;
        sqlx::raw_sql("drop table if exists bare; create table bare (id bigint primary key, payload jsonb not null)")
            .execute(&mut bare)
            .await?;
        let silent = silent_db(&self.servers).await?;
        let payload = serde_json::to_value(Noop::numbered(0))?;
        let by = By::platform("bench");
        let (mut bare_time, mut rung_time, mut silent_time) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for round in 0..=ROUNDS {
            let begun = Instant::now();
            for number in round * EACH..(round + 1) * EACH {
                sqlx::query("insert into bare (id, payload) values ($1, $2)")
                    .bind(i64::try_from(number)?)
                    .bind(&payload)
                    .execute(&mut bare)
                    .await?;
            }
            let bare_round = begun.elapsed();
            let begun = Instant::now();
            for number in 0..EACH {
                Noop::numbered(number).request().enqueue_alone(&self.db, self.tenant, &by).await?;
            }
            let rung_round = begun.elapsed();
            let begun = Instant::now();
            for number in 0..EACH {
                Noop::numbered(number).request().enqueue_alone(&silent, self.tenant, &by).await?;
            }
            // The first round warms up.
            if round > 0 {
                bare_time += bare_round;
                rung_time += rung_round;
                silent_time += begun.elapsed();
            }
        }
        self.figure("bare_commit_per_s", rate(ROUNDS * EACH, bare_time));
        self.figure("enqueue_single_per_s", rate(ROUNDS * EACH, rung_time));
        self.figure("enqueue_silent_per_s", rate(ROUNDS * EACH, silent_time));
        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        ended.reach(2 * (ROUNDS + 1) * EACH).await?;
        worker.stop().await
    }

    /// Bulk enqueue alone, drain alone, and both at once.
    async fn throughput(&mut self, jobs: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        enqueue_many(self.db.clone(), self.tenant, jobs).await?;
        self.figure("enqueue_bulk_per_s", rate(jobs, begun.elapsed()));
        let drained = self.drain(jobs).await?;
        self.figure("drain_per_s", drained);

        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        self.warm_up(&ended).await?;
        let begun = Instant::now();
        let writers: Vec<_> =
            (0..WRITERS).map(|_| tokio::spawn(enqueue_many(self.db.clone(), self.tenant, jobs / WRITERS))).collect();
        for writer in writers {
            writer.await??;
        }
        ended.reach(jobs / WRITERS * WRITERS + WARM_UP).await?;
        self.figure("end_to_end_per_s", rate(jobs / WRITERS * WRITERS, begun.elapsed()));
        worker.stop().await
    }

    /// Jobs per second a worker takes from a full queue.
    async fn drain(&self, jobs: usize) -> anyhow::Result<f64> {
        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        // From the first batch that has ended, so that the start of a process is not measured.
        ended.reach(1).await?;
        let begun = Instant::now();
        ended.reach(jobs).await?;
        let rate = rate(jobs, begun.elapsed());
        worker.stop().await?;
        Ok(rate)
    }

    async fn warm_up(&self, ended: &Ended) -> anyhow::Result<()> {
        enqueue_many(self.db.clone(), self.tenant, WARM_UP).await?;
        ended.reach(WARM_UP).await
    }

    /// 200 jobs a second for 15 seconds: from the end of the commit to the begin of the handler.
    async fn latency(&mut self) -> anyhow::Result<()> {
        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        self.warm_up(&ended).await?;
        let mut waits = self.stamp(self.tenant, 3_000, Duration::from_millis(5)).await?;
        self.figure("latency_p50_ms", percentile(&mut waits, 50));
        self.figure("latency_p99_ms", percentile(&mut waits, 99));
        self.figure("latency_max_ms", percentile(&mut waits, 100));
        worker.stop().await
    }

    /// Enqueues one stamp per `pause`, and answers how many milliseconds each waited after its commit.
    async fn stamp(&self, tenant: OrganizationId, count: usize, pause: Duration) -> anyhow::Result<Vec<f64>> {
        let mut committed: Vec<(JobId, DateTime<Utc>)> = Vec::with_capacity(count);
        let mut tick = tokio::time::interval(pause);
        for _ in 0..count {
            tick.tick().await;
            let job = Stamp {}.request().enqueue_alone(&self.db, tenant, &By::platform("bench")).await?;
            committed.push((job.id, self.db.now()));
        }
        let mut waits = Vec::with_capacity(count);
        for (job, committed_at) in committed {
            let begun = loop {
                let mut tx = self.db.tenant(tenant).await?;
                let found = control::find(&mut tx, job).await?;
                tx.rollback().await?;
                if let Some(begun) = found.and_then(|job| job.result).and_then(|result| result.as_i64()) {
                    break begun;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            waits.push((begun - committed_at.timestamp_micros()) as f64 / 1000.0);
        }
        Ok(waits)
    }

    /// A worker with nothing to do.
    async fn idle(&mut self) -> anyhow::Result<()> {
        let worker = worker::start(SLOTS)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (before, begun) = (worker.cpu()?, Instant::now());
        tokio::time::sleep(Duration::from_secs(20)).await;
        let used = worker.cpu()?.saturating_sub(before);
        self.figure("idle_cpu_percent", used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0);
        worker.stop().await
    }

    /// A worker with every slot taken, and jobs waiting behind.
    async fn memory(&mut self) -> anyhow::Result<()> {
        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        let naps: Vec<Nap> = (0..4 * SLOTS).map(|_| Nap { milliseconds: 500 }).collect();
        let mut tx = self.db.tenant(self.tenant).await?;
        enqueue_all(&mut tx, &naps, &By::platform("bench")).await?;
        tx.commit().await?;
        ended.reach(naps.len()).await?;
        self.warm_up(&ended).await.ok();
        self.figure("worker_rss_mb", worker.peak_rss_mb()?);
        worker.stop().await
    }

    /// A small tenant's jobs, one every 15 ms, while another has 100 000 queued and more.
    async fn fairness(&mut self) -> anyhow::Result<()> {
        let small = organization(&self.servers, "Small").await?;
        const LARGE: usize = 300_000;
        enqueue_many(self.db.clone(), self.tenant, LARGE).await?;
        let ended = Ended::count(&self.servers).await?;
        let worker = worker::start(SLOTS)?;
        ended.reach(1).await?;
        let mut waits = self.stamp(small, 300, Duration::from_millis(15)).await?;
        self.figure("fairness_p99_ms", percentile(&mut waits, 99));
        ended.reach(LARGE + 300).await?;
        worker.stop().await
    }

    /// Drain rate beside millions of finished jobs, over the rate without.
    async fn history(&mut self, jobs: usize, history: i64) -> anyhow::Result<()> {
        let mut owner = PgConnection::connect(&self.servers.owner_url).await?;
        sqlx::raw_sql("truncate jobs; truncate job_dispatch; checkpoint").execute(&mut owner).await?;
        let without = self.drain_fresh(jobs).await?;
        sqlx::raw_sql("truncate jobs; truncate job_dispatch").execute(&mut owner).await?;
        let batch = 500_000.min(history.max(1));
        for _ in 0..history / batch {
            sqlx::query(
                "insert into jobs (id, organization_id, kind, queue, priority, state, attempt, max_attempts, lease_seconds,
                                   run_at, payload, requested_by, created_at, started_at, finished_at)
                 select (left(id_at(now() - random() * interval '1 hour')::text, 15) || substr(gen_random_uuid()::text, 16))::uuid,
                        $1, 'bench.noop', 'default', 4, 'succeeded', 1, 5, 30, now(), $2, 'platform:bench', now(), now(), now()
                   from generate_series(1, $3)",
            )
            .bind(self.tenant.uuid())
            .bind(serde_json::to_value(Noop::numbered(0))?)
            .bind(batch)
            .execute(&mut owner)
            .await?;
        }
        sqlx::raw_sql("analyze jobs; checkpoint").execute(&mut owner).await?;
        let with = self.drain_fresh(jobs).await?;
        self.figure("history_rows", (history / batch * batch) as f64);
        self.figure("history_ratio", with / without);
        sqlx::raw_sql("truncate jobs").execute(&mut owner).await?;
        Ok(())
    }

    async fn drain_fresh(&self, jobs: usize) -> anyhow::Result<f64> {
        enqueue_many(self.db.clone(), self.tenant, jobs).await?;
        self.drain(jobs).await
    }
}

const WARM_UP: usize = 5_000;

async fn enqueue_many(db: Db, tenant: OrganizationId, jobs: usize) -> anyhow::Result<()> {
    let mut left = jobs;
    while left > 0 {
        let batch: Vec<Noop> = (0..left.min(BULK)).map(Noop::numbered).collect();
        let mut tx = db.tenant(tenant).await?;
        enqueue_all(&mut tx, &batch, &By::platform("bench")).await?;
        tx.commit().await?;
        left -= batch.len();
    }
    Ok(())
}
