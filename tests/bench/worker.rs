//! The worker the benchmark of the queue drives: the product's engine with the benchmark's kinds, in a process of
//! its own.

use gantry_tests::process::{Servers, runtime};
use gantry_workers::{engine, registry};
use tokio::process::Command;

use crate::noop::{Nap, Noop, Stamp};
use crate::program::Program;

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

/// Starts one in a process of its own.
#[expect(clippy::disallowed_methods, reason = "the benchmark starts its own worker")]
pub fn start(slots: usize) -> anyhow::Result<Program> {
    Program::spawn(Command::new(std::env::current_exe()?).args(["worker", "--slots", &slots.to_string()]))
}
