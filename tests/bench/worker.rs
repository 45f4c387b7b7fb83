//! The worker the benchmarks drive: the product's engine with the benchmarks' kinds, in a process of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use gantry_tests::process::{Servers, runtime};
use gantry_workers::{engine, registry};
use tokio::process::{Child, Command};

use crate::noop::{Nap, Noop, Stamp};

/// Runs the worker until SIGTERM.
pub async fn run(slots: usize) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let registry = registry::standard().with::<Noop>().with::<Stamp>().with::<Nap>();
    let runtime = runtime(&servers, registry).await?;
    let queues = vec![(gantry_jobs::Queue::Default, slots)];
    let config = engine::Config::new(queues, servers.redis_url.clone(), servers.namespace.clone());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    engine::run(runtime, config, async move {
        terminate.recv().await;
    })
    .await?;
    Ok(())
}

/// A running worker process.
pub struct Worker(Child);

impl Worker {
    /// Starts one.
    #[expect(clippy::disallowed_methods, reason = "the benchmark starts its own worker")]
    pub fn start(slots: usize) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["worker", "--slots", &slots.to_string()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the worker")?;
        Ok(Self(child))
    }

    /// Its largest resident memory so far, in megabytes.
    pub fn peak_rss_mb(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// CPU time it has used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.0.id().context("the worker has ended")
    }

    /// Ends it in good order.
    #[expect(clippy::disallowed_methods, reason = "the benchmark stops its own worker")]
    pub async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.id()?.to_string()]).status().await?;
        self.0.wait().await?;
        Ok(())
    }
}
