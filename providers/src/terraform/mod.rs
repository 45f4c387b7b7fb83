//! Terraform, or OpenTofu: found or configured, its version checked, and run in a directory of its own for each run, with
//! nothing of our environment but what it needs. Credentials reach it by its environment alone.

pub mod backend;
mod prepared;
pub mod process;
pub mod scrub;
pub mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::Sender;
use tracing::warn;

use crate::clouds::File as Prepared;
pub(crate) use prepared::MODULE;
pub use prepared::Initialized;
use process::{Ended, Finished, Program};
use scrub::Scrubber;
use stream::{Diagnostic, Event};

/// How an installation runs Terraform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The program; `None`: `terraform` or `tofu`, whichever is found first in `PATH`.
    pub program: Option<PathBuf>,
    /// Where runs have their directories, and machines of the sandbox theirs; `None`: below the system's for what is
    /// temporary.
    pub directory: Option<PathBuf>,
    /// A directory with plugins, for workers that may not fetch them.
    pub plugins: Option<PathBuf>,
    /// Whether servers may be made in the sandbox.
    pub sandbox: bool,
}

/// Why Terraform did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is none.
    #[error("neither terraform nor tofu is found in PATH; install one, or name it in GANTRY_TERRAFORM")]
    Missing,
    /// It is too old, or says nothing that can be understood.
    #[error("{0}")]
    Unusable(String),
    /// Its directory or its process cannot be made.
    #[error("running terraform")]
    System(#[from] std::io::Error),
    /// It did not end in time.
    #[error("terraform {0} did not end in time, and was interrupted")]
    Hung(&'static str),
    /// It was told to stop.
    #[error("it was told to stop")]
    Stopped,
    /// It says that something is wrong.
    #[error("{said}")]
    Failed {
        /// At what.
        stage: &'static str,
        /// What it says.
        said: String,
    },
    /// What it says cannot be understood.
    #[error("terraform {0} says nothing that can be understood")]
    Garbage(&'static str),
}

/// Terraform of this installation.
#[derive(Debug)]
pub struct Terraform {
    config: Config,
    found: OnceCell<Found>,
}

/// The program that was found.
#[derive(Debug, Clone)]
struct Found {
    path: PathBuf,
    version: String,
}

/// The lowest versions: `terraform_data`, and what plans and states look like since.
const LOWEST: (u64, u64) = (1, 5);

impl Terraform {
    /// As it is configured. The program is looked for when it is first needed.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, found: OnceCell::new() }
    }

    /// Whether servers may be made in the sandbox.
    #[must_use]
    pub const fn has_sandbox(&self) -> bool {
        self.config.sandbox
    }

    /// Where everything lies.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.config.directory.clone().unwrap_or_else(|| std::env::temp_dir().join("gantry-provisioning"))
    }

    /// The version of the program.
    ///
    /// # Errors
    /// When there is none that can be used.
    pub async fn version(&self) -> Result<String, Trouble> {
        Ok(self.found().await?.version.clone())
    }

    async fn found(&self) -> Result<&Found, Trouble> {
        self.found.get_or_try_init(|| self.look()).await
    }

    async fn look(&self) -> Result<Found, Trouble> {
        let path = match &self.config.program {
            Some(path) => path.clone(),
            None => process::find("terraform").or_else(|| process::find("tofu")).ok_or(Trouble::Missing)?,
        };
        let environment = plain_environment(&std::env::temp_dir());
        let program = Program {
            path: &path,
            arguments: &["version", "-json"],
            directory: Path::new("/"),
            environment: &environment,
            time: Duration::from_secs(20),
            grace: Duration::from_secs(2),
        };
        let shown = path.display().to_string();
        let mut said = String::new();
        let on_line = |line: &str| {
            if said.len() < 64 * 1024 {
                said.push_str(line);
            }
        };
        let finished = process::run(&program, &Scrubber::default(), on_line, std::future::pending()).await;
        let unusable = |why: &str| Trouble::Unusable(format!("{shown} cannot be used: {why}"));
        let finished = finished.map_err(|error| unusable(&format!("it cannot be started ({error})")))?;
        if finished.ended == Ended::TimedOut {
            return Err(unusable("it does not say its version within 20 s"));
        }
        let version: Value = serde_json::from_str(&said).map_err(|_| unusable("it says no version"))?;
        let version = version["terraform_version"].as_str().ok_or_else(|| unusable("it says no version"))?.to_owned();
        let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= LOWEST && major == 1 => Ok(Found { path, version }),
            _ => Err(unusable(&format!("it is version {version}, and 1.{} or a later 1.x is needed", LOWEST.1))),
        }
    }

    /// A directory for a run, with this configuration in it. It is gone when the workspace is dropped.
    ///
    /// # Errors
    /// When there is no program, or the directory cannot be made.
    pub async fn workspace(&self, new: NewWorkspace<'_>) -> Result<Workspace, Trouble> {
        let found = self.found().await?.clone();
        let runs = self.directory().join("runs");
        make_private(&runs)?;
        sweep(&runs);
        let path = runs.join(new.name);
        // A worker that is no more may have left it.
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        make_private(&path)?;
        let held = File::create(path.join(LOCK))?;
        held.lock()?;
        let workspace = Workspace {
            program: found.path,
            scrubber: Scrubber::of(new.secrets),
            environment: [plain_environment(&path), new.environment.to_vec()].concat(),
            path,
            spent: AtomicU64::new(0),
            _held: held,
        };
        let mut configuration = new.configuration.clone();
        configuration["terraform"]["backend"]["http"] = serde_json::json!({});
        std::fs::write(workspace.path.join("main.tf.json"), configuration.to_string())?;
        for file in new.files {
            std::fs::write(workspace.path.join(file.name), &file.contents)?;
        }
        let mut rc = "disable_checkpoint = true\n".to_owned();
        if let Some(plugins) = &self.config.plugins {
            let plugins = serde_json::Value::from(plugins.display().to_string());
            let mirror = format!("provider_installation {{\n  filesystem_mirror {{\n    path = {plugins}\n  }}\n}}\n");
            rc.push_str(&mirror);
        }
        std::fs::write(workspace.path.join(RC), rc)?;
        Ok(workspace)
    }
}

/// Whoever holds this file works in the directory.
const LOCK: &str = ".held";

/// Terraform's own settings.
const RC: &str = "terraform.rc";

/// A directory that nobody else looks into.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes directories in which nobody works: their workers are gone.
fn sweep(runs: &Path) {
    let Ok(entries) = std::fs::read_dir(runs) else { return };
    for path in entries.flatten().map(|entry| entry.path()).take(1_000) {
        let Ok(file) = File::open(path.join(LOCK)) else { continue };
        if file.try_lock().is_ok()
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            warn!("What a run left behind cannot be removed: {}: {error}", path.display());
        }
    }
}

/// What every run finds in its environment.
fn plain_environment(home: &Path) -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let rc = home.join(RC);
    [
        ("PATH", path.as_str()),
        ("HOME", &home.display().to_string()),
        ("TF_IN_AUTOMATION", "1"),
        ("TF_INPUT", "0"),
        ("CHECKPOINT_DISABLE", "1"),
        ("TF_CLI_CONFIG_FILE", &rc.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A directory to make.
#[derive(Debug, Clone, Copy)]
pub struct NewWorkspace<'a> {
    /// Its name: of the run.
    pub name: &'a str,
    /// What is to be there, as `.tf.json` has it.
    pub configuration: &'a Value,
    /// What lies beside it.
    pub files: &'a [Prepared],
    /// What Terraform and its plugins find in their environment.
    pub environment: &'a [(String, String)],
    /// What must not be seen anywhere.
    pub secrets: &'a [String],
}

/// The directory of a run.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    program: PathBuf,
    environment: Vec<(String, String)>,
    scrubber: Scrubber,
    spent: AtomicU64,
    _held: File,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            warn!("What a run left behind cannot be removed: {}: {error}", self.path.display());
        }
    }
}

/// The file a plan is in.
const PLAN: &str = "plan.bin";

/// What a plan comes to.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What is carried out, byte for byte.
    pub bytes: Vec<u8>,
    /// What is done with each resource of which something is done: its address, and `create`, `update`, `delete` or
    /// `replace`.
    pub changes: BTreeMap<String, String>,
    /// Resources that run programs when they are made or removed, as Terraform reads what is to be there.
    pub provisioners: Vec<String>,
}

/// A value that Terraform answers.
pub type Outputs = BTreeMap<String, String>;

impl Workspace {
    /// Takes out of a text what must not be seen.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        self.scrubber.scrub(text)
    }

    /// How long Terraform has run here so far.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_micros(self.spent.load(Ordering::Relaxed))
    }

    fn spend(&self, since: Instant) {
        let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.spent.fetch_add(micros, Ordering::Relaxed);
    }

    /// Prepares the directory: plugins, and the place of the state.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn init(&self, events: &Sender<Event>, stop: impl Future<Output = ()> + Send) -> Result<(), Trouble> {
        let time = Duration::from_mins(10);
        self.run("init", &["init", "-input=false", "-no-color"], time, events, stop).await.map(drop)
    }

    /// Works out what there is to do.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn plan(
        &self,
        destroy: bool,
        events: &Sender<Event>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Planned, Trouble> {
        let mut arguments = vec!["plan", "-json", "-input=false", "-out", PLAN];
        if destroy {
            arguments.push("-destroy");
        }
        self.run("plan", &arguments, Duration::from_mins(20), events, stop).await?;
        let bytes = std::fs::read(self.path.join(PLAN))?;
        let shown = self.read("show", &["show", "-json", PLAN]).await?;
        let changes = shown["resource_changes"].as_array().into_iter().flatten().filter_map(|change| {
            let address = change["address"].as_str()?.to_owned();
            let actions: Vec<&str> = change["change"]["actions"].as_array()?.iter().filter_map(Value::as_str).collect();
            let action = match actions[..] {
                ["no-op" | "read"] => return None,
                [one] => one,
                _ => "replace",
            };
            Some((address, action.to_owned()))
        });
        let provisioners = prepared::provisioners(&shown["configuration"]["root_module"]);
        Ok(Planned { bytes, changes: changes.collect(), provisioners })
    }

    /// Carries out what was planned, byte for byte.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn apply(
        &self,
        plan: &[u8],
        events: &Sender<Event>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Trouble> {
        std::fs::write(self.path.join(PLAN), plan)?;
        let arguments = ["apply", "-json", "-input=false", PLAN];
        self.run("apply", &arguments, Duration::from_mins(50), events, stop).await.map(drop)
    }

    /// What the configuration answers, as texts.
    ///
    /// # Errors
    /// When that does not work.
    pub async fn outputs(&self) -> Result<Outputs, Trouble> {
        let shown = self.read("output", &["output", "-json"]).await?;
        let outputs = shown.as_object().into_iter().flatten().map(|(name, output)| {
            let value = match &output["value"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (name.clone(), value)
        });
        Ok(outputs.collect())
    }

    /// Runs it, and tells what it says.
    async fn run(
        &self,
        stage: &'static str,
        arguments: &[&str],
        time: Duration,
        events: &Sender<Event>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Finished, Trouble> {
        let mut wrong: Vec<Diagnostic> = Vec::new();
        let on_line = |line: &str| {
            let Some(event) = stream::read(line) else { return };
            if let Event::Diagnostic(diagnostic) = &event
                && diagnostic.is_error()
                && wrong.len() < 20
            {
                wrong.push(diagnostic.clone());
            }
            // Whoever listens may be slow: Terraform does not wait for him.
            let _full = events.try_send(event);
        };
        let begun = Instant::now();
        let finished = process::run(&self.program(arguments, time), &self.scrubber, on_line, stop).await?;
        self.spend(begun);
        match finished.ended {
            Ended::With(0) => Ok(finished),
            Ended::TimedOut => Err(Trouble::Hung(stage)),
            Ended::Stopped => Err(Trouble::Stopped),
            Ended::With(status) => {
                let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                let mut said = if said.is_empty() { finished.complaint.trim().to_owned() } else { said.join("\n") };
                if said.is_empty() {
                    said = format!("terraform {stage} ended with status {status}");
                }
                said.truncate(said.floor_char_boundary(4_000));
                Err(Trouble::Failed { stage, said })
            }
        }
    }

    /// Runs it, and reads what it says as one value.
    async fn read(&self, stage: &'static str, arguments: &[&str]) -> Result<Value, Trouble> {
        let mut said = String::new();
        let on_line = |line: &str| {
            if said.len() < 64 * 1024 * 1024 {
                said.push_str(line);
            }
        };
        let program = self.program(arguments, Duration::from_mins(2));
        let begun = Instant::now();
        let finished = process::run(&program, &self.scrubber, on_line, std::future::pending()).await?;
        self.spend(begun);
        match finished.ended {
            Ended::With(0) => serde_json::from_str(&said).map_err(|_| Trouble::Garbage(stage)),
            Ended::With(_) => Err(Trouble::Failed { stage, said: finished.complaint.trim().to_owned() }),
            Ended::TimedOut | Ended::Stopped => Err(Trouble::Hung(stage)),
        }
    }

    fn program<'a>(&'a self, arguments: &'a [&'a str], time: Duration) -> Program<'a> {
        Program {
            path: &self.program,
            arguments,
            directory: &self.path,
            environment: &self.environment,
            time,
            grace: Duration::from_mins(1),
        }
    }
}

#[cfg(test)]
mod tests;
