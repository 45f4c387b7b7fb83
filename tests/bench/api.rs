//! `bench api`: what the API can do, as a program that calls it sees it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;
use gantry_schema::{Clock as _, SystemClock};
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, organization};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::http::{Connection, Load, Target, find, load};
use crate::measure::{Figures, fsync, median, rate};
use crate::program::{Product, Program};

/// How long each load lasts in a round.
const LONG: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_secs(1);

/// Jobs in one bulk request.
const BULK: usize = 1_000;

/// Connections that send bulks.
const BULK_CONNECTIONS: usize = 4;

/// News of the job that everybody follows.
const STEPS: usize = 12;

struct Bench {
    servers: Servers,
    product: Product,
    target: Target,
    api: Program,
    connections: usize,
    figures: Figures,
}

/// What the rounds measured, one value a round.
#[derive(Default)]
struct Rounds {
    bare: Vec<f64>,
    enqueue: Vec<f64>,
    ratio: Vec<f64>,
    enqueue_p99: Vec<f64>,
    bulk: Vec<f64>,
    get: Vec<f64>,
    get_p99: Vec<f64>,
    list: Vec<f64>,
    list_p99: Vec<f64>,
    nothing: Vec<f64>,
}

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(connections: usize, rounds: usize, followers: usize, json: Option<PathBuf>) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let product = Product::beside_this()?;
    product.migrate().await?;
    let tenant = organization(&servers, "Bench").await?;
    product.unlimit(tenant).await?;
    let key = product.api_key(tenant).await?;
    let (api, address) = product.api().await?;
    let figures = Figures::default();
    let mut bench = Bench { servers, product, target: Target { address, key }, api, connections, figures };

    let (_, fsync_p99) = fsync()?;
    bench.figures.note("fsync_p99_ms", fsync_p99);
    bench.figures.note("connections", connections as f64);
    bench.figures.note("api_rss_idle_mb", bench.api.rss_mb()?);
    bench.requests(rounds).await?;
    bench.fan_out(followers).await?;
    bench.figures.note("api_rss_peak_mb", bench.api.peak_rss_mb()?);
    let (_, fsync_p99) = fsync()?;
    bench.figures.note("fsync_p99_after_ms", fsync_p99);
    bench.figures.write(json.as_deref())?;
    bench.api.stop().await
}

impl Bench {
    /// Every kind of request, in turns with bare commits at the same concurrency.
    async fn requests(&mut self, rounds: usize) -> anyhow::Result<()> {
        let mut bare = self.bare_connections().await?;
        let mut connections = self.target.connections(self.connections).await?;
        let ids = self.some_jobs().await?;
        let one = self.target.request("POST", "/jobs", &probe(0).to_string());
        let many: Vec<Value> = (0..BULK).map(probe).collect();
        let many = self.target.request("POST", "/jobs/bulk", &json!({ "jobs": many }).to_string());
        let page = self.target.request("GET", "/jobs?limit=50", "");
        let nothing = self.target.request("GET", "/health/live", "");
        let target = self.target.clone();
        let get = |into: &mut Vec<u8>, number: usize| {
            // In no order, so that neighbours of one moment are not neighbours in the table.
            let id = &ids[number.wrapping_mul(7_919) % ids.len()];
            target.write(into, "GET", &format!("/jobs/{id}"), "");
        };
        let inserted = AtomicUsize::new(0);

        let mut seen = Rounds::default();
        for round in 0..=rounds {
            let cpu = self.api.cpu()?;
            let commits = bare_commits(&mut bare, LONG, &inserted).await?;
            let mut asked = load(&mut connections, LONG, 202, |into, _| into.extend_from_slice(&one)).await?;
            let asking = self.api.cpu()?.saturating_sub(cpu);
            let cpu = self.api.cpu()?;
            let mut got = load(&mut connections, LONG, 200, get).await?;
            let getting = self.api.cpu()?.saturating_sub(cpu);
            let mut listed = load(&mut connections, SHORT, 200, |into, _| into.extend_from_slice(&page)).await?;
            let untouched = load(&mut connections, SHORT, 200, |into, _| into.extend_from_slice(&nothing)).await?;
            let some = &mut connections[..BULK_CONNECTIONS.min(self.connections)];
            let bulks = load(some, SHORT, 202, |into, _| into.extend_from_slice(&many)).await?;
            eprintln!(
                "round {round}: {:.0} bare commits, {:.0} single jobs, {:.0} gets, {:.0} pages, {:.0} times nothing, {:.0} jobs in bulk a second; \
                 {:.0} and {:.0} µs of the API's CPU per single job and get",
                commits,
                asked.rate,
                got.rate,
                listed.rate,
                untouched.rate,
                bulks.rate * BULK as f64,
                per_request(asking, &asked),
                per_request(getting, &got),
            );
            // The first round warms up.
            if round > 0 {
                seen.bare.push(commits);
                seen.enqueue.push(asked.rate);
                seen.ratio.push(asked.rate / commits);
                seen.enqueue_p99.push(asked.p99());
                seen.bulk.push(bulks.rate * BULK as f64);
                seen.get.push(got.rate);
                seen.get_p99.push(got.p99());
                seen.list.push(listed.rate);
                seen.list_p99.push(listed.p99());
                seen.nothing.push(untouched.rate);
            }
        }
        for (name, values) in [
            ("bare_commit_rps", &seen.bare),
            ("enqueue_rps", &seen.enqueue),
            ("enqueue_ratio", &seen.ratio),
            ("enqueue_p99_ms", &seen.enqueue_p99),
            ("bulk_jobs_per_s", &seen.bulk),
            ("get_rps", &seen.get),
            ("get_p99_ms", &seen.get_p99),
            ("list_rps", &seen.list),
            ("list_p99_ms", &seen.list_p99),
            ("nothing_rps", &seen.nothing),
        ] {
            self.figures.note(name, median(values));
        }
        Ok(())
    }

    async fn bare_connections(&self) -> anyhow::Result<Vec<PgConnection>> {
        let url = &self.servers.owner_url;
        let mut first = PgConnection::connect(url).await?;
        sqlx::raw_sql("drop table if exists bare; create table bare (id bigint primary key, payload jsonb not null)")
            .execute(&mut first)
            .await?;
        Ok(try_join_all((0..self.connections).map(|_| PgConnection::connect(url))).await?)
    }

    /// Jobs to look at.
    async fn some_jobs(&self) -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        for batch in 0..10 {
            let jobs: Vec<Value> = (0..BULK).map(|number| probe(batch * BULK + number)).collect();
            let answer = self.target.ask("POST", "/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await?;
            for receipt in answer["jobs"].as_array().context("no receipts")? {
                ids.push(receipt["id"].as_str().context("no id")?.to_owned());
            }
        }
        Ok(ids)
    }

    /// Many clients follow one job. From the moment its handler writes a line to the arrival at each of them.
    async fn fan_out(&mut self, followers: usize) -> anyhow::Result<()> {
        // Whatever waits is not to be done first.
        while self.target.ask("POST", "/jobs/discard", r#"{"state": "available"}"#).await?["more"] == true {}
        let later = SystemClock.now() + Duration::from_secs(3);
        let steps = json!({ "kind": "diagnostics.probe", "run_at": later,
                            "payload": { "steps": STEPS, "step_milliseconds": 1_000 } });
        let job = self.target.ask("POST", "/jobs", &steps.to_string()).await?;
        let path = format!("/jobs/{}/events", job["id"].as_str().context("no id")?);
        let request = self.target.request("GET", &path, "");

        let begun = Instant::now();
        let mut streams = Vec::with_capacity(followers);
        for _ in 0..followers {
            let mut stream = Connection::open(self.target.address).await?;
            let status = stream.begin(&request).await?;
            anyhow::ensure!(status == 200, "following a job answers {status}");
            streams.push(stream);
        }
        self.figures.note("sse_connects_per_s", rate(followers, begun.elapsed()));
        let following = Arc::new(AtomicUsize::new(followers));
        let readers: Vec<_> =
            streams.into_iter().map(|stream| tokio::spawn(follow(stream, Arc::clone(&following)))).collect();

        let worker = self.product.worker().await?;
        let (cpu, begun) = (self.api.cpu()?, Instant::now());
        let mut resident = Vec::new();
        while following.load(Ordering::Relaxed) == followers && begun.elapsed() < Duration::from_mins(1) {
            tokio::time::sleep(Duration::from_millis(250)).await;
            resident.push(self.api.rss_mb()?);
        }
        let used = self.api.cpu()?.saturating_sub(cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
        let mut times = Vec::new();
        for reader in readers {
            times.extend(tokio::time::timeout(Duration::from_mins(1), reader).await???);
        }
        worker.stop().await?;

        self.figures.note("sse_clients", followers as f64);
        self.figures.note("sse_fanout_p50_ms", percentile(&mut times, 50));
        self.figures.note("sse_fanout_p99_ms", percentile(&mut times, 99));
        self.figures.note("sse_cpu_percent", used * 100.0);
        self.figures.note("api_rss_mb", percentile(&mut resident, 100));
        Ok(())
    }
}

/// A job like many, and about 75 bytes of payload.
fn probe(number: usize) -> Value {
    let message = format!("{number}: a payload of a size that payloads usually have");
    json!({ "kind": "diagnostics.probe", "payload": { "message": message } })
}

/// Single rows, each committed by itself, over all connections at once. Answers how many a second.
async fn bare_commits(connections: &mut [PgConnection], time: Duration, inserted: &AtomicUsize) -> anyhow::Result<f64> {
    let (begun, before) = (Instant::now(), inserted.load(Ordering::Relaxed));
    let payload = &probe(0)["payload"];
    try_join_all(connections.iter_mut().map(|connection| async move {
        while begun.elapsed() < time {
            sqlx::query("insert into bare (id, payload) values ($1, $2)")
                .bind(i64::try_from(inserted.fetch_add(1, Ordering::Relaxed))?)
                .bind(payload)
                .execute(&mut *connection)
                .await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(rate(inserted.load(Ordering::Relaxed) - before, begun.elapsed()))
}

fn per_request(cpu: Duration, load: &Load) -> f64 {
    cpu.as_secs_f64() * 1e6 / load.times.len().max(1) as f64
}

/// Reads a stream to its end. Answers how old each line was when it arrived, in milliseconds.
async fn follow(mut stream: Connection, following: Arc<AtomicUsize>) -> anyhow::Result<Vec<f64>> {
    let mut ages = Vec::with_capacity(STEPS);
    while ages.len() < STEPS {
        let event = stream.next_part(b"\n\n").await?;
        let now = SystemClock.now();
        if let Some(at) = written_at(&event) {
            ages.push((now - at).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0);
        }
    }
    following.fetch_sub(1, Ordering::Relaxed);
    Ok(ages)
}

/// When the line of an event was written; only lines say so.
fn written_at(event: &[u8]) -> Option<DateTime<Utc>> {
    const MEMBER: &[u8] = b"\"at\":\"";
    let rest = &event[find(event, MEMBER)? + MEMBER.len()..];
    let text = std::str::from_utf8(&rest[..find(rest, b"\"")?]).ok()?;
    text.parse().ok()
}
