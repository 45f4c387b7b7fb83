//! Measuring: percentiles, the disk's own speed, counting ended jobs.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use gantry_jobs::signals;
use gantry_tests::percentile::percentile;
use gantry_tests::process::Servers;

/// What was measured, by name.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Prints a figure, and keeps it.
    pub fn note(&mut self, name: &str, value: f64) {
        println!("{name:<28} {value:>12.3}");
        self.0.insert(name.to_owned(), (value * 1000.0).round() / 1000.0);
    }

    /// Writes them down, where somebody wants them.
    pub fn write(&self, path: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = path else { return Ok(()) };
        Ok(std::fs::write(path, serde_json::to_string_pretty(&self.0)? + "\n")?)
    }
}

/// The middle of some repeats.
pub fn median(values: &[f64]) -> f64 {
    percentile(&mut values.to_vec(), 50)
}

/// Per second.
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The disk's own fdatasync, in milliseconds: median and 99th percentile of 500.
pub fn fsync() -> anyhow::Result<(f64, f64)> {
    let directory = std::env::var("BENCH_DISK").unwrap_or_else(|_| ".".to_owned());
    let mut file = tempfile::tempfile_in(directory)?;
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[7; 8192])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((percentile(&mut times, 50), percentile(&mut times, 99)))
}

/// Counts jobs as they end, by the signals workers send.
pub struct Ended {
    count: Arc<AtomicUsize>,
}

impl Ended {
    /// Begins to count.
    pub async fn count(servers: &Servers) -> anyhow::Result<Self> {
        let mut subscription = redis::Client::open(servers.redis_url.as_str())?.get_async_pubsub().await?;
        subscription.subscribe(signals::ended_channel(&servers.namespace)).await?;
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            let mut messages = subscription.into_on_message();
            while let Some(message) = messages.next().await {
                counter.fetch_add(message.get_payload_bytes().len() / 16, Ordering::Relaxed);
            }
        });
        Ok(Self { count })
    }

    /// Waits until so many have ended.
    pub async fn reach(&self, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_mins(5);
        while self.count.load(Ordering::Relaxed) < wanted {
            anyhow::ensure!(
                Instant::now() < deadline,
                "only {} of {wanted} jobs ended within 300 s",
                self.count.load(Ordering::Relaxed)
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
