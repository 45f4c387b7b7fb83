//! `bench webhooks`: how many deliveries a worker makes, what a dead or slow receiver costs the others, and how soon
//! an event arrives.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, organization};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::cpu::ServerProcesses;
use crate::http::{Connection, Target, find};
use crate::measure::{Figures, fsync, median, rate};
use crate::program::{Product, Program};
use crate::sink::Sink;

/// Connections that prepare a measurement.
const CONNECTIONS: usize = 16;

/// The longest one measurement may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Events posted to see how soon they arrive, and the pause between two.
const GENTLE: usize = 400;
const PAUSE: Duration = Duration::from_millis(20);

struct Bench {
    servers: Servers,
    processes: ServerProcesses,
    product: Product,
    api: Program,
    address: std::net::SocketAddr,
    sink: Sink,
    deliveries: usize,
}

/// The receivers of one measurement.
#[derive(Debug, Clone, Copy)]
struct Receivers {
    count: usize,
    /// What the first one is, where it is not as the others.
    first: Option<&'static str>,
}

impl Receivers {
    const fn well(count: usize) -> Self {
        Self { count, first: None }
    }
}

/// What one measurement came to.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    /// Deliveries per second.
    rate: f64,
    /// Microseconds of CPU for each, of the worker and the servers.
    cost: f64,
}

/// The same measurement, round by round.
#[derive(Debug, Default)]
struct Rounds {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, delivered: Delivered) {
        self.rates.push(delivered.rate);
        self.costs.push(delivered.cost);
    }

    /// How the rates compare with those of the same round.
    fn beside(&self, others: &Self) -> f64 {
        median(&self.rates.iter().zip(&others.rates).map(|(rate, other)| rate / other).collect::<Vec<_>>())
    }
}

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(deliveries: usize, rounds: usize, json: Option<PathBuf>) -> anyhow::Result<()> {
    LocalSet::new().run_until(Box::pin(measure_here(deliveries, rounds, json))).await
}

async fn measure_here(deliveries: usize, rounds: usize, json: Option<PathBuf>) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let product = Product::beside_this()?;
    product.migrate().await?;
    let (api, address) = product.api().await?;
    let processes = ServerProcesses::find(&servers).await?;
    let bench = Bench { servers, processes, product, api, address, sink: Sink::start().await?, deliveries };
    let mut figures = Figures::default();
    let (_, fsync_p99) = fsync()?;
    figures.note("fsync_p99_ms", fsync_p99);

    let (mut well, mut dead, mut slow) = (Rounds::default(), Rounds::default(), Rounds::default());
    // Warms up.
    bench.deliver(Receivers::well(10)).await?;
    for _ in 0..rounds {
        well.add(bench.deliver(Receivers::well(10)).await?);
        dead.add(bench.deliver(Receivers { count: 10, first: Some("dead") }).await?);
        slow.add(bench.deliver(Receivers { count: 10, first: Some("slow") }).await?);
    }
    figures.note("deliveries_per_s", median(&well.rates));
    figures.note("deliveries_per_s_one_dead", median(&dead.rates));
    figures.note("deliveries_per_s_one_slow", median(&slow.rates));
    figures.note("one_dead_ratio", dead.beside(&well));
    figures.note("one_slow_ratio", slow.beside(&well));
    figures.note("cpu_per_delivery_us", median(&well.costs));
    figures.note("cpu_per_delivery_us_one_dead", median(&dead.costs));
    figures.note("cpu_per_delivery_us_one_slow", median(&slow.costs));
    figures.note("deliveries_per_s_1", bench.deliver(Receivers::well(1)).await?.rate);
    figures.note("deliveries_per_s_10", median(&well.rates));
    figures.note("deliveries_per_s_1000", bench.deliver(Receivers::well(1_000)).await?.rate);
    bench.latency(&mut figures).await?;
    let (_, fsync_p99) = fsync()?;
    figures.note("fsync_p99_after_ms", fsync_p99);
    figures.write(json.as_deref())?;
    bench.api.stop().await
}

impl Bench {
    /// An organization of its own, so that nothing is left over from one measurement to the next.
    async fn organization(&self, receivers: Receivers) -> anyhow::Result<(Target, Vec<String>)> {
        let tenant = organization(&self.servers, "Bench").await?;
        self.product.unlimit(tenant).await?;
        let target = Target { address: self.address, key: self.product.api_key(tenant).await? };
        let bodies: Vec<String> = (0..receivers.count)
            .map(|number| {
                let manner = if number == 0 { receivers.first.unwrap_or("well") } else { "well" };
                json!({ "url": format!("http://{}/{manner}/{number}", self.sink.address) }).to_string()
            })
            .collect();
        let made =
            each(&target, bodies.len(), |number| ("POST", "/webhook-endpoints".to_owned(), bodies[number].clone()))
                .await
                .context("making endpoints")?;
        let ids = made.iter().filter_map(|made| made["id"].as_str().map(str::to_owned)).collect();
        Ok((target, ids))
    }

    /// How many deliveries a second the receivers get that are well, out of a full queue.
    async fn deliver(&self, receivers: Receivers) -> anyhow::Result<Delivered> {
        let (target, endpoints) = self.organization(receivers).await?;
        let events = (self.deliveries / receivers.count).max(1);
        each(&target, events, |number| ("POST", "/events".to_owned(), event(number)))
            .await
            .context("posting events")?;

        let well = receivers.count - usize::from(receivers.first.is_some());
        let (earlier, wanted) = (self.sink.well_received(), events * well);
        let received = || self.sink.well_received() - earlier;
        let worker = self.product.worker().await?;
        let started = Instant::now();
        // From the first hundredth, so that the start of a process is not measured, to all but the last.
        let (mut begun, mut first, mut before) = (started, 0, self.cpu(&worker)?);
        while received() < wanted - wanted / 100 && started.elapsed() < LONGEST {
            if first == 0 && received() > wanted / 100 {
                (begun, first, before) = (Instant::now(), received(), self.cpu(&worker)?);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (count, time) = (received() - first, begun.elapsed());
        let after = self.cpu(&worker)?;
        let cost = |at: usize| after[at].saturating_sub(before[at]).as_secs_f64() * 1e6 / count.max(1) as f64;
        eprintln!(
            "{} receivers{}: {count} deliveries in {:.2} s, for each {:.0} µs of the worker's CPU, {:.0} of PostgreSQL's, \
             {:.0} of Redis'",
            receivers.count,
            receivers.first.map(|first| format!(", one {first}")).unwrap_or_default(),
            time.as_secs_f64(),
            cost(0),
            cost(1),
            cost(2),
        );
        worker.stop().await?;
        self.clear(&target, &endpoints).await?;
        Ok(Delivered { rate: rate(count, time), cost: cost(0) + cost(1) + cost(2) })
    }

    /// CPU time used so far: by the worker, PostgreSQL and Redis.
    fn cpu(&self, worker: &Program) -> anyhow::Result<[Duration; 3]> {
        let (postgres, redis) = self.processes.cpu()?;
        Ok([worker.cpu()?, postgres, redis])
    }

    /// Nothing of one measurement is to be done during the next.
    async fn clear(&self, target: &Target, endpoints: &[String]) -> anyhow::Result<()> {
        let path = |number: usize| format!("/webhook-endpoints/{}", endpoints[number]);
        each(target, endpoints.len(), |number| ("DELETE", path(number), String::new())).await?;
        for state in ["available", "scheduled"] {
            let which = json!({ "state": state }).to_string();
            while target.ask("POST", "/jobs/discard", &which).await?["more"] == true {}
        }
        Ok(())
    }

    /// One event every now and then: from sending it to its arrival.
    async fn latency(&self, figures: &mut Figures) -> anyhow::Result<()> {
        let (target, endpoints) = self.organization(Receivers::well(1)).await?;
        let worker = self.product.worker().await?;
        let mut connection = Connection::open(self.address).await?;
        let mut posted: HashMap<String, (Instant, Instant)> = HashMap::new();
        let mut tick = tokio::time::interval(PAUSE);
        for number in 0..GENTLE + GENTLE / 4 {
            // The first ones find a worker that has just begun.
            if number == GENTLE / 4 {
                self.sink.note_times();
                posted.clear();
            }
            tick.tick().await;
            let request = target.request("POST", "/events", &event(number));
            let sent = Instant::now();
            let (status, answer) = connection.exchange(&request).await?;
            let answered = Instant::now();
            anyhow::ensure!(status == 202, "posting an event answers {status}");
            let answer: Value = serde_json::from_slice(answer)?;
            posted.insert(answer["id"].as_str().context("no id")?.to_owned(), (sent, answered));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let received = self.sink.times();
        worker.stop().await?;
        self.clear(&target, &endpoints).await?;

        let (mut from_sent, mut from_answered) = (Vec::new(), Vec::new());
        for (id, (sent, answered)) in &posted {
            let at = received.get(id).with_context(|| format!("{id} has not arrived"))?;
            from_sent.push(at.saturating_duration_since(*sent).as_secs_f64() * 1000.0);
            from_answered.push(at.saturating_duration_since(*answered).as_secs_f64() * 1000.0);
        }
        figures.note("post_to_receive_p50_ms", percentile(&mut from_sent, 50));
        figures.note("post_to_receive_p99_ms", percentile(&mut from_sent, 99));
        figures.note("answer_to_receive_p50_ms", percentile(&mut from_answered, 50));
        Ok(())
    }
}

/// An event like many.
fn event(number: usize) -> String {
    let text = "a payload of a size that payloads usually have";
    json!({ "type": "bench.happened", "payload": { "number": number, "text": text } }).to_string()
}

/// Asks so many times over a few connections at once. Answers what was answered, in any order.
async fn each(
    target: &Target,
    count: usize,
    request: impl Fn(usize) -> (&'static str, String, String),
) -> anyhow::Result<Vec<Value>> {
    let (request, mut connections) = (&request, target.connections(CONNECTIONS.min(count.max(1))).await?);
    let step = connections.len();
    let loops = connections.iter_mut().enumerate().map(|(index, connection)| async move {
        let mut answers = Vec::new();
        for number in (index..count).step_by(step) {
            let (method, path, body) = request(number);
            let (status, answer) = connection.exchange(&target.request(method, &path, &body)).await?;
            let text = String::from_utf8_lossy(answer);
            anyhow::ensure!((200..300).contains(&status), "{method} {path} answers {status}: {text}");
            if find(answer, b"{").is_some() {
                answers.push(serde_json::from_slice(answer)?);
            }
        }
        anyhow::Ok(answers)
    });
    Ok(futures::future::try_join_all(loops).await?.concat())
}
