//! Torture of the real thing: a load of thousands of jobs, real worker processes, real servers, and
//! faults all the time. Afterwards nothing may be missing and nothing may have happened twice.
//! `scripts/torture` starts the servers and calls this.
//!
//! - [`kinds`] what the jobs do, and how they leave a trace that can be judged
//! - [`load`] asks for jobs, and remembers which were accepted
//! - [`faults`] what is broken when, chosen by a seed
//! - [`proxy`] the network between a worker and its servers
//! - [`pack`] the worker processes
//! - [`servers`] the same of provisioning, with the real Terraform
//! - [`verdict`] what must hold in the end

mod dice;
mod faults;
mod kinds;
mod load;
mod pack;
mod proxy;
mod scene;
mod servers;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks everything around the job engine, and proves that no job is lost or done twice.
#[derive(Debug, Parser)]
#[command(name = "torture")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs a load under faults and judges the outcome.
    Run(Plan),
    /// Kills a worker while it makes and removes servers of the sandbox, and judges the outcome.
    Servers(servers::Plan),
    /// A worker for the torture; it starts them itself.
    #[command(hide = true)]
    Worker,
    /// A worker that provisions; the torture starts it itself.
    #[command(hide = true)]
    Provisioner {
        /// Where everything lies.
        #[arg(long)]
        servers: PathBuf,
    },
}

/// What is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Plan {
    /// How long faults go on.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Chooses the faults: the same seed, the same faults in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many workers share the load.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Only these faults, by name: to find the cause of something.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where to write the figures.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The directory of the private servers, as `scripts/servers` knows them.
    #[arg(long, default_value = ".gantry/torture")]
    servers: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match Arguments::parse().what {
        What::Worker => pack::work().await.map(|()| ExitCode::SUCCESS),
        What::Provisioner { servers } => servers::work(&servers).await.map(|()| ExitCode::SUCCESS),
        What::Run(plan) => until_interrupted(scene::play(plan)).await,
        What::Servers(plan) => until_interrupted(servers::play(plan)).await,
    }
}

async fn until_interrupted(play: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<ExitCode> {
    let holds = tokio::select! {
        holds = play => holds?,
        // Dropping the play kills the workers; the script stops the servers.
        signal = interrupted() => anyhow::bail!("stopped by {}", signal?),
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn interrupted() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
