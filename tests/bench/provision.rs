//! `bench provision`: how soon a server of the sandbox is ready and what of that is the platform's own time, many at once
//! beside webhooks, and how long a state takes to be kept.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::servers::queries::{self as servers, NewServer};
use gantry_schema::servers::states::{self, Writer};
use gantry_schema::servers::{Options, RunKind, keys, runs};
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, app_db, organization, sealing_keys};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::http::{Connection, Target};
use crate::measure::{Figures, fsync};
use crate::program::Product;
use crate::sink::Sink;

/// Servers that are made one after the other.
const ALONE: usize = 7;

/// Servers that are asked for at once.
const TOGETHER: usize = 20;

/// The longest they may take.
const LONGEST: Duration = Duration::from_mins(5);

/// The longest an event may be on its way once nothing else is done.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Pause between two events.
const PAUSE: Duration = Duration::from_millis(50);

/// States of a megabyte that are kept.
const STATES: usize = 50;

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(json: Option<PathBuf>) -> anyhow::Result<()> {
    LocalSet::new().run_until(Box::pin(measure_here(json))).await
}

async fn measure_here(json: Option<PathBuf>) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let product = Product::beside_this()?;
    product.migrate().await?;
    let (api, address) = product.api().await?;
    let tenant = organization(&servers, "Bench").await?;
    product.unlimit(tenant).await?;
    let target = Target { address, key: product.api_key(tenant).await? };
    let worker = product.worker().await?;
    let mut figures = Figures::default();
    figures.note("fsync_p99_ms", fsync()?.1);
    let secret = json!({ "name": "Bench", "credential": { "sandbox": { "token": "sandbox-for-the-bench" } } });
    let credential = target.ask("POST", "/cloud-credentials", &secret.to_string()).await?;
    let credential = credential["id"].as_str().context("no id")?.to_owned();

    one_by_one(&target, &credential, &mut figures).await?;
    together(&target, &credential, &mut figures).await?;
    figures.note("worker_rss_mb", worker.peak_rss_mb()?);
    worker.stop().await?;
    state(&servers, &mut figures).await?;
    figures.note("fsync_p99_after_ms", fsync()?.1);
    figures.write(json.as_deref())?;
    api.stop().await
}

/// Asks for a server. Answers its id and its job's.
async fn asked(target: &Target, credential: &str, name: &str) -> anyhow::Result<(String, String)> {
    let wanted = json!({ "name": name, "credential_id": credential, "region": "sandbox-1", "size": "small",
                         "image": "debian-12" });
    let made = target.ask("POST", "/servers", &wanted.to_string()).await?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no id");
    Ok((text(&made["server"]["id"])?, text(&made["run"]["job_id"])?))
}

/// Waits until a server is there. Answers what is known of it.
async fn ready(target: &Target, id: &str) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let server = target.ask("GET", &format!("/servers/{id}"), "").await?;
        match server["state"].as_str() {
            Some("ready") => return Ok(server),
            Some("failed") => anyhow::bail!("{}", server["problem"]),
            _ => anyhow::ensure!(begun.elapsed() < LONGEST, "{server}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn moment(value: &Value) -> anyhow::Result<DateTime<Utc>> {
    Ok(value.as_str().context("no moment")?.parse()?)
}

/// How long one takes that has the machine for itself, and what of it is neither Terraform's nor the machine's.
async fn one_by_one(target: &Target, credential: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let (mut seconds, mut overheads) = (Vec::new(), Vec::new());
    for number in 0..ALONE {
        let (id, job) = asked(target, credential, &format!("alone-{number}")).await?;
        let server = ready(target, &id).await?;
        let took = (moment(&server["ready_at"])? - moment(&server["created_at"])?).as_seconds_f64();
        let mut result = Value::Null;
        while result.is_null() {
            result = target.ask("GET", &format!("/jobs/{job}?wait=5"), "").await?["result"].take();
        }
        let spent = |name: &str| result[name].as_f64().with_context(|| format!("no {name} in {result}"));
        seconds.push(took);
        overheads.push(took - spent("seconds_in_terraform")? - spent("seconds_by_ssh")?);
        target.ask("DELETE", &format!("/servers/{id}"), "").await?;
    }
    figures.note("ready_p50_s", percentile(&mut seconds, 50));
    figures.note("overhead_p50_s", percentile(&mut overheads, 50));
    Ok(())
}

/// Many at once; meanwhile events are posted and become webhooks.
async fn together(target: &Target, credential: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let sink = Sink::start().await?;
    let endpoint = json!({ "url": format!("http://{}/well", sink.address), "event_types": ["bench.*"] });
    target.ask("POST", "/webhook-endpoints", &endpoint.to_string()).await?;
    sink.note_times();
    let begun = Instant::now();
    let mut wanted = Vec::new();
    for number in 0..TOGETHER {
        wanted.push(asked(target, credential, &format!("together-{number}")).await?.0);
    }
    let (mut posted, mut connection) = (HashMap::new(), Connection::open(target.address).await?);
    let mut tick = tokio::time::interval(PAUSE);
    while !wanted.is_empty() {
        anyhow::ensure!(begun.elapsed() < LONGEST, "{} are not ready", wanted.len());
        tick.tick().await;
        let event = json!({ "type": "bench.happened", "payload": { "number": posted.len() } }).to_string();
        let sent = Instant::now();
        let (status, answer) = connection.exchange(&target.request("POST", "/events", &event)).await?;
        anyhow::ensure!(status == 202, "posting an event answers {status}");
        let answer: Value = serde_json::from_slice(answer)?;
        posted.insert(answer["id"].as_str().context("no id")?.to_owned(), sent);
        if posted.len() % 5 == 0
            && let Some(id) = wanted.last()
        {
            let server = target.ask("GET", &format!("/servers/{id}"), "").await?;
            anyhow::ensure!(server["state"] != "failed", "{}", server["problem"]);
            if server["state"] == "ready" {
                wanted.pop();
            }
        }
    }
    figures.note("parallel_ready", TOGETHER as f64);
    figures.note("parallel_ready_s", begun.elapsed().as_secs_f64());
    // Those that were posted last may still be on their way.
    let last = Instant::now();
    while sink.noted() < posted.len() {
        anyhow::ensure!(last.elapsed() < ARRIVAL, "{} of {} events have arrived", sink.noted(), posted.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let received = sink.times();
    let arrived = posted.iter().map(|(id, sent)| {
        let at = received.get(id).with_context(|| format!("{id} has not arrived"))?;
        Ok(at.saturating_duration_since(*sent).as_secs_f64() * 1000.0)
    });
    let mut times = arrived.collect::<anyhow::Result<Vec<f64>>>()?;
    figures.note("parallel_webhook_p50_ms", percentile(&mut times, 50));
    figures.note("parallel_webhook_p99_ms", percentile(&mut times, 99));
    Ok(())
}

/// How long a state of a megabyte takes to be packed, sealed and committed.
async fn state(of: &Servers, figures: &mut Figures) -> anyhow::Result<()> {
    let (db, keys) = (app_db(of).await?, sealing_keys()?);
    let tenant = organization(of, "States").await?;
    let mut tx = db.tenant(tenant).await?;
    let credential = Credential::Sandbox { token: "sandbox-for-the-bench".to_owned() };
    let credential = credentials::insert(&mut tx, &keys, "sandbox", &credential).await?;
    let ssh_key = keys::ensure(&mut tx, &keys).await?;
    let new = NewServer {
        name: "state",
        cloud: Cloud::Sandbox,
        credential,
        region: "sandbox-1",
        size: "small",
        image: "debian-12",
        labels: &BTreeMap::new(),
        options: &Options::default(),
    };
    let server = servers::insert(&mut tx, &new, ssh_key).await?;
    let stack = servers::find(&mut tx, server).await?.context("it was just made")?.stack;
    let run = runs::insert(&mut tx, stack, RunKind::Provision, "bench").await?;
    let fence = states::take_over(&mut tx, stack).await?;
    states::lock(&mut tx, stack, fence, "bench", &json!({ "ID": "bench" })).await?;
    tx.commit().await?;
    // As little alike as what clouds answer: ids and addresses.
    let resources: Vec<Value> = (0..14_000)
        .map(|number: u64| {
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            json!({ "name": format!("server-{number}"), "id": format!("{mixed:016x}"), "address": format!("10.{}.{}.{}", mixed % 251, mixed % 241, number % 239) })
        })
        .collect();
    let mut times = Vec::new();
    for serial in 1..=STATES {
        let state =
            json!({ "version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "bench", "outputs": {},
                            "resources": resources })
            .to_string();
        anyhow::ensure!(state.len() >= 1_000_000, "the state has {} bytes", state.len());
        let begun = Instant::now();
        let mut tx = db.tenant(tenant).await?;
        let writer = Writer { stack, fence, run, lock: Some("bench") };
        states::write(&mut tx, &keys, writer, state.as_bytes()).await?;
        tx.commit().await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    figures.note("state_write_1mb_ms", percentile(&mut times, 50));
    figures.note("state_write_1mb_p99_ms", percentile(&mut times, 99));
    Ok(())
}
