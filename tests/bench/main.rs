//! Benchmarks of the real thing: release build, private durable servers, every invariant in force.
//! `scripts/bench` starts the servers and calls this.

mod access;
mod api;
mod cpu;
mod http;
mod licenses;
mod measure;
mod noop;
mod program;
mod provision;
mod queue;
mod sink;
mod webhooks;
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
    /// The API: single jobs, bulks, looking at jobs, pages, streams.
    Api {
        /// Connections at once, to the API and to PostgreSQL.
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// How often everything is measured; the figures are medians.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Clients that follow a job.
        #[arg(long, default_value_t = 1_000)]
        followers: usize,
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Access: knowing who asks, pages of a large tree, revoking a key.
    Access {
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Licenses: evaluating one, what a limit costs, and many that want the last places at once.
    Licenses {
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Servers of the sandbox: how soon one is ready, many at once beside webhooks, and keeping a state.
    Provision {
        /// Where to write the figures.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Webhooks: deliveries to a local receiver, beside a dead and a slow one, and how soon one arrives.
    Webhooks {
        /// Deliveries per throughput measurement.
        #[arg(long, default_value_t = 15_000)]
        deliveries: usize,
        /// How often they are measured in turns; the figures are medians.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
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

fn main() -> anyhow::Result<()> {
    // Filling the history takes seconds a statement, and is to.
    tracing_subscriber::fmt().with_env_filter("warn,sqlx::query=error").with_writer(std::io::stderr).init();
    let what = Arguments::parse().what;
    let mut runtime = match what {
        // The load is to leave the cores to what it loads, so it has one thread.
        What::Access { .. }
        | What::Api { .. }
        | What::Licenses { .. }
        | What::Provision { .. }
        | What::Webhooks { .. } => tokio::runtime::Builder::new_current_thread(),
        What::Queue { .. } | What::Worker { .. } => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        match what {
            What::Queue { jobs, history, json } => queue::measure(jobs, history, json).await,
            What::Api { connections, rounds, followers, json } => {
                api::measure(connections, rounds, followers, json).await
            }
            What::Access { json } => access::measure(json).await,
            What::Licenses { json } => licenses::measure(json).await,
            What::Provision { json } => provision::measure(json).await,
            What::Webhooks { deliveries, rounds, json } => webhooks::measure(deliveries, rounds, json).await,
            What::Worker { slots } => worker::run(slots).await,
        }
    })
}
