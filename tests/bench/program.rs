//! The processes that are measured: started by the benchmark, looked at from outside, ended in good order.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use gantry_schema::OrganizationId;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::cpu;

/// A running process.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts a command.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.stdout(Stdio::null()).kill_on_drop(true).spawn().context("starting a process to measure")?))
    }

    /// Its resident memory now, in megabytes.
    pub fn rss_mb(&self) -> anyhow::Result<f64> {
        self.memory("VmRSS:")
    }

    /// Its largest resident memory so far, in megabytes.
    pub fn peak_rss_mb(&self) -> anyhow::Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, which: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let line = status.lines().find(|line| line.starts_with(which)).with_context(|| format!("no {which}"))?;
        let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    /// CPU time it has used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu::of_process(self.id()?)
    }

    fn id(&self) -> anyhow::Result<u32> {
        self.0.id().context("the process has ended")
    }

    /// Ends it in good order.
    #[expect(clippy::disallowed_methods, reason = "the benchmark stops what it started")]
    pub async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.id()?.to_string()]).status().await?;
        self.0.wait().await?;
        Ok(())
    }
}

/// The product's own programs, from the directory this program was built into.
#[derive(Debug)]
pub struct Product {
    directory: PathBuf,
    logs: PathBuf,
}

impl Product {
    /// Finds them.
    pub fn beside_this() -> anyhow::Result<Self> {
        let here = std::env::current_exe()?;
        let directory = here.parent().context("this program lies nowhere")?.to_owned();
        for name in ["gantry-api", "gantry-worker"] {
            anyhow::ensure!(directory.join(name).exists(), "{name} was not built; run scripts/bench");
        }
        let logs = std::env::var_os("BENCH_DISK").map_or_else(std::env::temp_dir, PathBuf::from);
        // Machines of the sandbox are told where they lie, wherever they are started from.
        let logs = std::path::absolute(logs)?;
        Ok(Self { directory, logs })
    }

    #[expect(clippy::disallowed_methods, reason = "the benchmark starts what it measures")]
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.directory.join(name));
        command
            .env("GANTRY_SEALING_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .env("GANTRY_WEBHOOKS_ALLOW_PRIVATE", "true")
            .env("GANTRY_DRAIN_SECONDS", "2")
            .env("GANTRY_SANDBOX_CLOUD", "true")
            .env("GANTRY_PROVISIONING_DIRECTORY", self.logs.join("provisioning"))
            .stdin(Stdio::null());
        command
    }

    /// What is logged goes beside the servers' data: read it when a benchmark failed.
    fn logged(&self, command: &mut Command, name: &str) -> anyhow::Result<Program> {
        let log = std::fs::File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")))?;
        Program::spawn(command.stderr(log))
    }

    /// Applies the migrations and grants, as an operator does.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        self.answer(&["migrate"]).await.map(drop)
    }

    /// Makes an API key that may do everything for the organization.
    pub async fn api_key(&self, organization: OrganizationId) -> anyhow::Result<String> {
        let id = organization.to_string();
        let said =
            self.answer(&["api-key", "create", "--organization", &id, "--name", "bench", "--all-scopes"]).await?;
        Ok(said.lines().last().context("no key was printed")?.trim().to_owned())
    }

    /// Lets the organization ask as often as it can: what counting costs is measured with the rest.
    pub async fn unlimit(&self, organization: OrganizationId) -> anyhow::Result<()> {
        let id = organization.to_string();
        self.answer(&["limits", "--organization", &id, "--per-minute", "6000000"]).await.map(drop)
    }

    async fn answer(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command("gantry-api").args(arguments).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "gantry-api {}: {said}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Serves the API, and waits until it answers.
    pub async fn api(&self) -> anyhow::Result<(Program, SocketAddr)> {
        let (address, metrics) = (free_address().await?, free_address().await?);
        let mut command = self.command("gantry-api");
        command.env("GANTRY_LISTEN", address.to_string()).env("GANTRY_METRICS_LISTEN", metrics.to_string());
        let program = self.logged(&mut command, "api")?;
        for _ in 0..500 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok((program, address));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!("the API does not listen; see {}", self.log_of("api").display())
    }

    /// A worker as it is configured by default.
    pub async fn worker(&self) -> anyhow::Result<Program> {
        let metrics = free_address().await?;
        self.logged(self.command("gantry-worker").env("GANTRY_METRICS_LISTEN", metrics.to_string()), "worker")
    }

    fn log_of(&self, name: &str) -> PathBuf {
        Path::new(&self.logs).join(format!("{name}.log"))
    }
}

/// An address nobody listens at. Somebody else may take it before it is used; then the program says so.
async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?)
}
