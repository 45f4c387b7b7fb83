//! Jobs that do nothing, so that only the engine is measured.

use gantry_jobs::{Job, Policy, Queue};
use gantry_workers::{Context, Done, Failure, Run};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Noop {
    pub number: usize,
    pub text: String,
}

impl Noop {
    /// About 75 bytes of payload, as the systems compared with had.
    pub fn numbered(number: usize) -> Self {
        Self { number, text: "a payload of a size that payloads usually have".to_owned() }
    }
}

impl Job for Noop {
    const KIND: &'static str = "bench.noop";
    const POLICY: Policy = Policy::new(Queue::Default);
}

impl Run for Noop {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        Ok(Done::Quietly)
    }
}

/// Tells when it was begun.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stamp {}

impl Job for Stamp {
    const KIND: &'static str = "bench.stamp";
    const POLICY: Policy = Policy::new(Queue::Default);
}

impl Run for Stamp {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        Ok(Done::With(json!(cx.now().timestamp_micros())))
    }
}

/// Takes a while.
#[derive(Debug, Serialize, Deserialize)]
pub struct Nap {
    pub milliseconds: u64,
}

impl Job for Nap {
    const KIND: &'static str = "bench.nap";
    const POLICY: Policy = Policy::new(Queue::Default);
}

impl Run for Nap {
    async fn run(&self, _cx: &Context) -> Result<Done, Failure> {
        tokio::time::sleep(std::time::Duration::from_millis(self.milliseconds)).await;
        Ok(Done::Quietly)
    }
}
