//! The worker processes: the product's engine with the torture's kinds, each behind a network of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use gantry_tests::process::{Servers, runtime};
use gantry_workers::engine;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::kinds;
use crate::proxy::Proxy;

/// Slots of a worker.
const SLOTS: usize = 50;

/// Runs a worker until SIGTERM, or until nobody holds its standard input any more.
pub async fn work() -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    end_with_standard_input();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let runtime = runtime(&servers, kinds::all()).await?;
    let queues = vec![(gantry_jobs::Queue::Default, SLOTS)];
    let mut config = engine::Config::new(queues, servers.redis_url.clone(), servers.namespace.clone());
    config.drain = Duration::from_secs(3);
    engine::run(runtime, config, async move {
        terminate.recv().await;
    })
    .await?;
    Ok(())
}

/// Nobody who was killed leaves a worker behind.
pub fn end_with_standard_input() {
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        orphaned();
    });
}

#[expect(clippy::disallowed_methods, reason = "whoever started this worker has died without a word")]
fn orphaned() {
    std::process::exit(1);
}

/// Sends a signal to a process.
#[expect(clippy::disallowed_methods, reason = "the torture signals its own workers")]
pub async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status().await?;
    anyhow::ensure!(status.success(), "the process {pid} has gone");
    Ok(())
}

/// A worker that is started again whenever it ended.
pub struct Wolf {
    number: usize,
    environment: Vec<(&'static str, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    /// Its network to PostgreSQL.
    pub postgres: Proxy,
    /// Its network to Redis.
    pub redis: Proxy,
}

impl Wolf {
    /// Starts a worker whose servers are at these addresses.
    pub async fn start(
        number: usize,
        servers: &Servers,
        password: &str,
        postgres: SocketAddr,
        redis: SocketAddr,
        logs: &std::path::Path,
    ) -> anyhow::Result<Arc<Self>> {
        let (postgres, redis) = (Proxy::to(postgres).await?, Proxy::to(redis).await?);
        let at = format!("{password}@127.0.0.1:{}/gantry?sslmode=disable", postgres.port);
        let environment = vec![
            ("GANTRY_DATABASE_URL", format!("postgres://gantry_app:{at}")),
            ("GANTRY_ENGINE_DATABASE_URL", format!("postgres://gantry_engine:{at}")),
            ("GANTRY_REDIS_URL", format!("redis://127.0.0.1:{}/", redis.port)),
            ("GANTRY_REDIS_NAMESPACE", servers.namespace.clone()),
            ("RUST_LOG", "warn,gantry_workers::engine=info".to_owned()),
        ];
        let log = logs.join(format!("worker-{number}.log"));
        drop(std::fs::remove_file(&log));
        let wolf = Arc::new(Self { number, environment, log, child: Mutex::new(None), postgres, redis });
        wolf.raise().await?;
        Ok(wolf)
    }

    /// Starts the process if there is none.
    #[expect(clippy::disallowed_methods, reason = "the torture starts its own workers")]
    pub async fn raise(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if let Some(child) = &mut *child
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let started = Command::new(std::env::current_exe()?)
            .arg("worker")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting a worker")?;
        *child = Some(started);
        Ok(())
    }

    /// The process, if one lives.
    pub async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Kills the process.
    pub async fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Asks the process to end, and waits for it. `false`: it did not within `patience`, and was killed.
    pub async fn terminate(&self, patience: Duration) -> anyhow::Result<bool> {
        let Some(mut child) = self.child.lock().await.take() else { return Ok(true) };
        if let Some(pid) = child.id() {
            drop(signal(pid, "TERM").await);
        }
        let ended = tokio::time::timeout(patience, child.wait()).await.is_ok();
        if !ended {
            eprintln!("worker {} did not end within {patience:?} of SIGTERM", self.number);
            child.kill().await?;
        }
        Ok(ended)
    }
}

/// Starts workers again that ended, for whatever reason, for ever.
pub async fn keep(wolves: Vec<Arc<Wolf>>) {
    loop {
        tokio::time::sleep(Duration::from_millis(700)).await;
        for wolf in &wolves {
            if let Err(error) = wolf.raise().await {
                eprintln!("worker {} cannot be started: {error:#}", wolf.number);
            }
        }
    }
}
