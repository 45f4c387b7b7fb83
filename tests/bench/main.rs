//! Benchmarks of the real thing: release build, private durable servers, every invariant in force.
//! `scripts/bench` starts the servers and calls this.

mod measure;
mod noop;
mod queue;
mod worker;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures Gantry.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The job engine: enqueue, drain, latency, fairness, history.
    Queue {
        /// Jobs per throughput measurement.
        #[arg(long, default_value_t = 200_000)]
        jobs: usize,
        /// Finished jobs to put beside the live ones.
        #[arg(long, default_value_t = 10_000_000)]
        history: i64,
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// A worker for the benchmarks; they start it themselves.
    #[command(hide = true)]
    Worker {
        /// Slots of the default queue.
        #[arg(long)]
        slots: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Filling the history takes seconds a statement, and is to.
    tracing_subscriber::fmt().with_env_filter("warn,sqlx::query=error").with_writer(std::io::stderr).init();
    match Arguments::parse().what {
        What::Queue { jobs, history, json } => queue::measure(jobs, history, json).await,
        What::Worker { slots } => worker::run(slots).await,
    }
}
