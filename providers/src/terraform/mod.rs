//! Terraform, or OpenTofu: found or configured, its version checked, and run in a directory of its own for each run, with
//! nothing of our environment but what it needs. Credentials reach it by its environment alone.

pub mod backend;
mod confinement;
mod prepared;
pub mod process;
pub mod scrub;
pub mod stream;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Mutex, OnceCell};
use tracing::{info, warn};

use crate::clouds::File as Prepared;
use confinement::{Cell, Confinement};
pub use confinement::{Isolation, Level, Limits, NotConfined, User};
pub use prepared::Initialized;
pub(crate) use prepared::MODULE;
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
    /// Whether runs are confined.
    pub isolation: Isolation,
    /// As whom they run, where the worker is root.
    pub user: User,
    /// What they may take.
    pub limits: Limits,
}

/// Why Terraform did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is none.
    #[error("neither terraform nor tofu is found in PATH; install one, or name it in GANTRY_TERRAFORM")]
    Missing,
    /// It was there, or was to be.
    #[error("{} is not there", .0.display())]
    Gone(PathBuf),
    /// It would not be confined, and has to be.
    #[error("runs are to be confined (GANTRY_TERRAFORM_ISOLATION=required), and cannot be here")]
    Unconfined,
    /// It is too old, or says nothing that can be understood.
    #[error("{0}")]
    Unusable(String),
    /// Its directory or its process cannot be made.
    #[error("running terraform")]
    System(#[from] io::Error),
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
    /// It says more than anybody reads.
    #[error("terraform {0} said more than anybody reads, and was interrupted")]
    Flooded(&'static str),
    /// Somebody or something ended it.
    #[error("terraform {stage} was ended by signal {signal}")]
    Killed {
        /// At what.
        stage: &'static str,
        /// By which signal.
        signal: i32,
    },
    /// It has no more memory.
    #[error("terraform {0} needs more memory than it may have")]
    OutOfMemory(&'static str),
}

/// Terraform of this installation.
#[derive(Debug)]
pub struct Terraform {
    config: Config,
    found: Mutex<Option<Found>>,
    confinement: OnceCell<Confinement>,
    bubblewrap: Option<PathBuf>,
}

/// The program that was found.
#[derive(Debug, Clone)]
struct Found {
    path: PathBuf,
    version: String,
    /// Which file that was.
    file: (u64, u64, u64, i64, i64),
}

/// Which file it is: another one in its place is another version, as long as it has not said otherwise.
fn file(path: &Path) -> io::Result<(u64, u64, u64, i64, i64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// The lowest versions: `terraform_data`, and what plans and states look like since.
const LOWEST: (u64, u64) = (1, 5);

impl Terraform {
    /// As it is configured. The program is looked for when it is first needed, and what it is confined by.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_bubblewrap(config, process::find("bwrap"))
    }

    fn with_bubblewrap(config: Config, bubblewrap: Option<PathBuf>) -> Self {
        Self { config, found: Mutex::default(), confinement: OnceCell::new(), bubblewrap }
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
        Ok(self.found().await?.version)
    }

    /// How far runs are confined here that can be.
    pub async fn isolation(&self) -> Level {
        self.confinement().await.level
    }

    /// Whether what strangers wrote may be run: in a sandbox, or where the operator has said that nothing is to be confined.
    pub async fn may_run_strangers(&self) -> bool {
        self.config.isolation == Isolation::Off || self.isolation().await == Level::Sandbox
    }

    async fn confinement(&self) -> &Confinement {
        let look = || async {
            let found = Confinement::look(&self.config, &self.directory(), self.bubblewrap.clone()).await;
            match found.level {
                Level::Sandbox => info!("Runs of Terraform are confined by bubblewrap"),
                Level::User => warn!("Runs of Terraform are confined as users of their own only: {}", found.why),
                Level::Limits => warn!("Runs of Terraform are not confined, and have limits only: {}", found.why),
            }
            found
        };
        self.confinement.get_or_init(look).await
    }

    /// The program. Where it is another one than it was, it is asked for its version again.
    async fn found(&self) -> Result<Found, Trouble> {
        let mut known = self.found.lock().await;
        if let Some(found) = known.as_ref().filter(|it| file(&it.path).is_ok_and(|file| file == it.file)) {
            return Ok(found.clone());
        }
        *known = None;
        let found = self.look().await?;
        *known = Some(found.clone());
        Ok(found)
    }

    async fn look(&self) -> Result<Found, Trouble> {
        let path = match &self.config.program {
            Some(path) => path.clone(),
            None => process::find("terraform").or_else(|| process::find("tofu")).ok_or(Trouble::Missing)?,
        };
        // Where it leads to: in a sandbox there may be nothing on the way.
        let path = path.canonicalize().map_err(|_| Trouble::Gone(path))?;
        let file = file(&path).map_err(|_| Trouble::Gone(path.clone()))?;
        let through = self.confinement().await.loosely();
        let environment = [("PATH", path_variable()), ("TF_CLI_CONFIG_FILE", "/dev/null".to_owned())];
        let environment = environment.into_iter().chain(settled()).map(|(name, value)| (name.to_owned(), value));
        let environment: Vec<(String, String)> = environment.collect();
        let program = Program {
            through: &through,
            path: &path,
            arguments: &["version", "-json"],
            directory: Path::new("/"),
            environment: &environment,
            time: self.config.limits.version,
            grace: Duration::from_secs(2),
            said: 1024 * 1024,
            line: process::LINE,
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
        match finished.ended {
            Ended::With(0) => {}
            Ended::TimedOut => {
                let seconds = self.config.limits.version.as_secs();
                return Err(unusable(&format!("it does not say its version within {seconds} s")));
            }
            Ended::By(signal) => return Err(unusable(&format!("it was ended by signal {signal}"))),
            Ended::With(126 | 127) => return Err(unusable("it cannot be started")),
            Ended::With(_) | Ended::Stopped | Ended::Flooded => return Err(unusable("it says no version")),
        }
        let version: Value = serde_json::from_str(&said).map_err(|_| unusable("it says no version"))?;
        let version = version["terraform_version"].as_str().ok_or_else(|| unusable("it says no version"))?.to_owned();
        let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= LOWEST && major == 1 => Ok(Found { path, version, file }),
            _ => Err(unusable(&format!("it is version {version}, and 1.{} or a later 1.x is needed", LOWEST.1))),
        }
    }

    /// A directory for a run, with this configuration in it. It is gone when the workspace is dropped.
    ///
    /// # Errors
    /// When there is no program, the directory cannot be made, or the run would have to be confined and cannot be.
    pub async fn workspace(&self, new: NewWorkspace<'_>) -> Result<Workspace, Trouble> {
        let confinement = self.confinement().await;
        if new.confined && self.config.isolation == Isolation::Required && confinement.level != Level::Sandbox {
            return Err(Trouble::Unconfined);
        }
        let found = self.found().await?;
        let root = self.directory();
        confinement::sweep(&root);
        let plugins = self.config.plugins.as_deref();
        let cell = confinement.cell(&root, new.name, &found.path, plugins, new.confined)?;
        let own = [("TF_CLI_CONFIG_FILE", cell.seen(RC))].into_iter().chain(settled());
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let environment = cell.environment().into_iter().chain(own).chain(new.environment.iter().cloned());
        let workspace = Workspace {
            program: found.path,
            scrubber: Scrubber::of(new.secrets),
            environment: environment.collect(),
            limits: self.config.limits.clone(),
            cell,
            spent: AtomicU64::new(0),
        };
        let cell = &workspace.cell;
        let mut configuration = new.configuration.clone();
        configuration["terraform"]["backend"]["http"] = serde_json::json!({});
        cell.write("main.tf.json", configuration.to_string().as_bytes())?;
        for file in new.files {
            cell.write(file.name, file.contents.as_bytes())?;
        }
        let mut rc = "disable_checkpoint = true\n".to_owned();
        if let Some(plugins) = &cell.plugins {
            let plugins = serde_json::Value::from(plugins.display().to_string());
            let mirror = format!("provider_installation {{\n  filesystem_mirror {{\n    path = {plugins}\n  }}\n}}\n");
            rc.push_str(&mirror);
        }
        cell.write(RC, rc.as_bytes())?;
        Ok(workspace)
    }
}

/// Terraform's own settings.
const RC: &str = "terraform.rc";

fn path_variable() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

/// Nobody is asked anything, and nobody is told that it runs.
fn settled() -> impl Iterator<Item = (&'static str, String)> {
    [("TF_IN_AUTOMATION", "1"), ("TF_INPUT", "0"), ("CHECKPOINT_DISABLE", "1")]
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
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
    /// Whether it is confined to its directory, as far as that is possible here. What is not has to be the platform's own, with
    /// nothing in it that a customer has written but texts.
    pub confined: bool,
}

/// The directory of a run.
#[derive(Debug)]
pub struct Workspace {
    cell: Cell,
    /// As it is found here, which may be elsewhere than where it is seen from there.
    program: PathBuf,
    environment: Vec<(String, String)>,
    scrubber: Scrubber,
    limits: Limits,
    spent: AtomicU64,
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
    /// What Terraform says of it to people, without secrets. No more than [`LARGEST_TEXT`] of it.
    pub text: String,
    /// Resources that run programs when they are made or removed, as Terraform reads what is to be there.
    pub provisioners: Vec<String>,
}

/// Bytes that are kept of what Terraform says of a plan to people.
pub const LARGEST_TEXT: usize = 256 * 1024;

/// A value that Terraform answers.
pub type Outputs = BTreeMap<String, String>;

impl Workspace {
    /// Takes out of a text what must not be seen.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        self.scrubber.scrub(text)
    }

    /// How far what runs here is confined.
    #[must_use]
    pub const fn isolation(&self) -> Level {
        self.cell.level
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
        self.run("init", &["init", "-input=false", "-no-color"], self.limits.init, events, stop).await
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
        self.run("plan", &arguments, self.limits.plan, events, stop).await?;
        // It says that it has planned, and has not.
        let bytes = self.cell.read(PLAN).map_err(|_| Trouble::Garbage("plan"))?;
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
        let text = self.text(&["show", "-no-color", PLAN]).await?;
        Ok(Planned { bytes, changes: changes.collect(), text, provisioners })
    }

    /// Runs it, and keeps what it says to people, up to [`LARGEST_TEXT`].
    async fn text(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let mut text = String::new();
        let on_line = |line: &str| {
            if text.len() < LARGEST_TEXT {
                text.push_str(line);
                text.push('\n');
            }
        };
        let bounds = (self.limits.read, process::LINE);
        let finished = self.start(arguments, bounds, on_line, std::future::pending()).await?;
        self.judge("show", &finished, &[])?;
        text.truncate(text.floor_char_boundary(LARGEST_TEXT));
        Ok(text.trim().to_owned())
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
        self.cell.write(PLAN, plan)?;
        let arguments = ["apply", "-json", "-input=false", PLAN];
        self.run("apply", &arguments, self.limits.apply, events, stop).await
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
    ) -> Result<(), Trouble> {
        let (mut wrong, mut lines): (Vec<Diagnostic>, usize) = (Vec::new(), 0);
        let on_line = |line: &str| {
            let Some(mut event) = stream::read(line) else { return };
            if let Event::Line(line) = &mut event {
                lines += 1;
                match lines.cmp(&LINES) {
                    std::cmp::Ordering::Less => {}
                    std::cmp::Ordering::Equal => "what it says further is not told".clone_into(line),
                    std::cmp::Ordering::Greater => return,
                }
            }
            if let Event::Diagnostic(diagnostic) = &event
                && diagnostic.is_error()
                && wrong.len() < 20
            {
                wrong.push(diagnostic.clone());
            }
            // Whoever listens may be slow: Terraform does not wait for him.
            let _full = events.try_send(event);
        };
        let finished = self.start(arguments, (time, process::LINE), on_line, stop).await?;
        self.judge(stage, &finished, &wrong)
    }

    async fn start(
        &self,
        arguments: &[&str],
        (time, line): (Duration, usize),
        on_line: impl FnMut(&str) + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Finished, Trouble> {
        if !self.program.is_file() {
            return Err(Trouble::Gone(self.program.clone()));
        }
        let program = Program {
            through: &self.cell.through,
            path: &self.cell.program,
            arguments,
            directory: &self.cell.work,
            environment: &self.environment,
            time,
            grace: self.limits.grace,
            said: self.limits.said,
            line,
        };
        let begun = Instant::now();
        let finished = process::run(&program, &self.scrubber, on_line, stop).await?;
        self.spend(begun);
        Ok(finished)
    }

    /// What it means how it ended.
    fn judge(&self, stage: &'static str, finished: &Finished, wrong: &[Diagnostic]) -> Result<(), Trouble> {
        let status = match finished.ended {
            Ended::With(0) => return Ok(()),
            Ended::With(status) => status,
            Ended::By(signal) => return Err(Trouble::Killed { stage, signal }),
            Ended::TimedOut => return Err(Trouble::Hung(stage)),
            Ended::Stopped => return Err(Trouble::Stopped),
            Ended::Flooded => return Err(Trouble::Flooded(stage)),
        };
        if !self.program.is_file() {
            return Err(Trouble::Gone(self.program.clone()));
        }
        let complaint = finished.complaint.trim();
        if OUT_OF_MEMORY.iter().any(|it| complaint.contains(it)) {
            return Err(Trouble::OutOfMemory(stage));
        }
        let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        let mut said = if said.is_empty() { complaint.to_owned() } else { said.join("\n") };
        if said.is_empty() {
            said = format!("terraform {stage} ended with status {status}");
        }
        said.truncate(said.floor_char_boundary(4_000));
        Err(Trouble::Failed { stage, said })
    }

    /// Runs it, and reads what it says as one value.
    async fn read(&self, stage: &'static str, arguments: &[&str]) -> Result<Value, Trouble> {
        let mut said = String::new();
        let on_line = |line: &str| {
            if said.len() < LARGEST_VALUE {
                said.push_str(line);
            }
        };
        let bounds = (self.limits.read, LARGEST_VALUE);
        let finished = self.start(arguments, bounds, on_line, std::future::pending()).await?;
        self.judge(stage, &finished, &[])?;
        serde_json::from_str(&said).map_err(|_| Trouble::Garbage(stage))
    }
}

/// Lines for people that are told of one thing it does: there has to be room for what comes of it.
const LINES: usize = 1_500;

/// Bytes of a value that are read. It is one line.
const LARGEST_VALUE: usize = 64 * 1024 * 1024;

/// What Go says when it gets no memory.
const OUT_OF_MEMORY: &[&str] =
    &["runtime: out of memory", "runtime: cannot allocate memory", "failed to create new OS thread"];

#[cfg(test)]
mod tests;
