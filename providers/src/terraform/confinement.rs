//! How far a run of Terraform is kept from all that is not its own. Every run has limits. Where the worker is root it has a
//! user of its own besides, and where bubblewrap can make a sandbox it sees nothing but its own directory and the system's
//! programs, and all of it ends with the worker.
//!
//! What is found is tried out once, by a program that writes a file where a run would.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Resource, getegid, geteuid, getrlimit};
use serde::Deserialize;
use tracing::warn;

use super::process::{self, Ended, Program};
use super::scrub::Scrubber;

/// Whether runs are confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// As far as that is possible here.
    #[default]
    Auto,
    /// By bubblewrap, or nothing is begun.
    Required,
    /// They run as the worker does, with their limits.
    Off,
}

/// A text says nothing of how runs are confined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotConfined {
    /// No word of [`Isolation`].
    #[error("{0:?} is not auto, required or off")]
    Isolation(String),
    /// Nobody.
    #[error("{0:?} is no unprivileged user: write a name of /etc/passwd, a number, or numbers from-to")]
    User(String),
}

impl FromStr for Isolation {
    type Err = NotConfined;

    fn from_str(text: &str) -> Result<Self, NotConfined> {
        match text {
            "auto" => Ok(Self::Auto),
            "required" => Ok(Self::Required),
            "off" => Ok(Self::Off),
            _ => Err(NotConfined::Isolation(text.to_owned())),
        }
    }
}

/// As whom runs of a worker that is root run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum User {
    /// All of them as one.
    One {
        /// His number.
        user: u32,
        /// His group's.
        group: u32,
    },
    /// Each as another, of these numbers: nobody else uses them.
    Each {
        /// The first.
        first: u32,
        /// The last.
        last: u32,
    },
}

/// Numbers that neither Debian nor systemd gives to anybody.
impl Default for User {
    fn default() -> Self {
        Self::Each { first: 60_700, last: 60_899 }
    }
}

/// Numbers that one worker tries at most.
const MOST_USERS: u32 = 10_000;

impl FromStr for User {
    type Err = NotConfined;

    fn from_str(text: &str) -> Result<Self, NotConfined> {
        let wrong = || NotConfined::User(text.to_owned());
        let number = |text: &str| text.parse::<u32>().ok().filter(|it| (1..u32::MAX).contains(it));
        if let Some(user) = number(text) {
            return Ok(Self::One { user, group: user });
        }
        if let Some((first, last)) = text.split_once('-')
            && let (Some(first), Some(last)) = (number(first.trim()), number(last.trim()))
        {
            return if first <= last && last - first < MOST_USERS {
                Ok(Self::Each { first, last })
            } else {
                Err(wrong())
            };
        }
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = known.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_his = fields.first().is_some_and(|name| *name == text);
            is_his.then(|| Some((number(fields.get(2)?)?, number(fields.get(3)?)?))).flatten()
        });
        found.map(|(user, group)| Self::One { user, group }).ok_or_else(wrong)
    }
}

impl TryFrom<String> for User {
    type Error = NotConfined;

    fn try_from(text: String) -> Result<Self, NotConfined> {
        text.parse()
    }
}

/// What a run may take, each of its processes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory that it writes to. What Go only reserves does not count.
    pub memory: u64,
    /// Bytes of a file.
    pub file: u64,
    /// Open files.
    pub files: u64,
    /// Processes and threads of its user. They do not count for root.
    pub processes: u64,
    /// Bytes that it says.
    pub said: u64,
    /// How long it may take to say its version.
    pub version: Duration,
    /// How long `init` may take.
    pub init: Duration,
    /// How long `plan` may take.
    pub plan: Duration,
    /// How long `apply` may take.
    pub apply: Duration,
    /// How long `show` and `output` may take.
    pub read: Duration,
    /// How long it may take to end when it is told to.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest plugin takes one gigabyte.
            memory: 4 << 30,
            file: 2 << 30,
            files: 4_096,
            processes: 4_096,
            said: 256 << 20,
            version: Duration::from_secs(20),
            init: Duration::from_mins(10),
            plan: Duration::from_mins(20),
            apply: Duration::from_mins(50),
            read: Duration::from_mins(2),
            grace: Duration::from_mins(1),
        }
    }
}

/// How far a run is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// By limits.
    Limits,
    /// As a user of its own.
    User,
    /// In a sandbox.
    Sandbox,
}

/// What runs are confined by.
#[derive(Debug)]
pub(super) struct Confinement {
    tools: Tools,
    limits: Limits,
    user: Option<User>,
    pub(super) level: Level,
    /// Why not further.
    pub(super) why: String,
}

/// Programs through which others are started.
#[derive(Debug, Default)]
struct Tools {
    prlimit: Option<PathBuf>,
    setpriv: Option<PathBuf>,
    env: Option<PathBuf>,
    bubblewrap: Option<PathBuf>,
}

/// Makes names of directories in which something is tried.
static PROBES: AtomicU64 = AtomicU64::new(0);

/// Where a run sees its directory in a sandbox.
const INSIDE: &str = "/run/terraform";

/// Where it sees Terraform there, if that is no program of the system.
const PROGRAM_INSIDE: &str = "/run/program";

/// Where it sees plugins there.
const PLUGINS_INSIDE: &str = "/run/plugins";

/// What a run has of `/etc`: where names lead to, and whose certificates are believed.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
];

impl Confinement {
    /// Looks at what there is, and tries it.
    pub(super) async fn look(config: &super::Config, root: &Path, bubblewrap: Option<PathBuf>) -> Self {
        let tools = Tools {
            prlimit: process::find("prlimit"),
            setpriv: process::find("setpriv"),
            env: process::find("env"),
            bubblewrap,
        };
        let limits = config.limits.clone();
        let mut found = Self { tools, limits, user: None, level: Level::Limits, why: String::new() };
        if config.isolation == Isolation::Off {
            "GANTRY_TERRAFORM_ISOLATION is off".clone_into(&mut found.why);
            return found;
        }
        found.user = geteuid().is_root().then_some(config.user);
        found.level = Level::Sandbox;
        let no_sandbox = match found.works(root).await {
            Ok(()) => return found,
            Err(why) => why,
        };
        found.level = Level::User;
        let no_user = match found.works(root).await {
            Ok(()) => {
                found.why = no_sandbox;
                return found;
            }
            Err(why) => why,
        };
        Self { level: Level::Limits, user: None, why: format!("{no_sandbox}; {no_user}"), ..found }
    }

    /// Tries it, or says why it does not work.
    async fn works(&self, root: &Path) -> Result<(), String> {
        let what = match self.level {
            Level::Limits => return Ok(()),
            Level::User if self.user.is_none() => {
                return Err("the worker is not root, and nobody else can run".to_owned());
            }
            Level::User => "nobody else can run here",
            Level::Sandbox if self.tools.bubblewrap.is_none() => return Err("bubblewrap is not installed".to_owned()),
            Level::Sandbox => "bubblewrap makes no sandbox here",
        };
        let name = format!("probe-{}-{}", std::process::id(), PROBES.fetch_add(1, Ordering::Relaxed));
        let shell = Path::new("/bin/sh");
        let cell = self.cell(root, &name, shell, None, true).map_err(|error| format!("{what}: {error}"))?;
        let script = ": >\"$HOME/probe\" && : >\"$TMPDIR/probe\"";
        let program = Program {
            through: &cell.through,
            path: shell,
            arguments: &["-c", script],
            directory: &cell.work,
            environment: &cell.environment(),
            time: Duration::from_secs(10),
            grace: Duration::from_secs(1),
            said: 64 * 1024,
            line: process::LINE,
        };
        let finished = process::run(&program, &Scrubber::default(), |_| {}, std::future::pending()).await;
        match finished {
            Ok(finished) if finished.ended == Ended::With(0) => Ok(()),
            Ok(finished) => Err(format!("{what}: {}", finished.complaint.trim())),
            Err(error) => Err(format!("{what}: {error}")),
        }
    }

    /// Through what a program is started that is the platform's own, or lives on: it has its limits.
    pub(super) fn loosely(&self) -> Vec<String> {
        let mut through = self.limited();
        if let Some(setpriv) = &self.tools.setpriv {
            through.extend([
                shown(setpriv),
                "--pdeathsig=KILL".to_owned(),
                "--no-new-privs".to_owned(),
                "--".to_owned(),
            ]);
        }
        through.extend(self.interruptible());
        through
    }

    fn limited(&self) -> Vec<String> {
        let Some(prlimit) = &self.tools.prlimit else { return Vec::new() };
        // Nobody but root gets more than he has.
        let most = |of: Resource, wanted: u64| getrlimit(of).maximum.map_or(wanted, |ours| ours.min(wanted));
        let limits = &self.limits;
        vec![
            shown(prlimit),
            "--core=0".to_owned(),
            format!("--data={}", most(Resource::Data, limits.memory)),
            format!("--fsize={}", most(Resource::Fsize, limits.file)),
            format!("--nofile={}", most(Resource::Nofile, limits.files)),
            format!("--nproc={}", most(Resource::Nproc, limits.processes)),
            "--".to_owned(),
        ]
    }

    /// Whatever a shell starts in its background begins with interrupts ignored, and so would this.
    fn interruptible(&self) -> Vec<String> {
        self.tools.env.iter().flat_map(|env| [shown(env), "--default-signal=INT".to_owned()]).collect()
    }

    /// A place for a run.
    pub(super) fn cell(
        &self,
        root: &Path,
        name: &str,
        program: &Path,
        plugins: Option<&Path>,
        confined: bool,
    ) -> io::Result<Cell> {
        let level = if confined { self.level } else { Level::Limits };
        make_private(root)?;
        let runs = root.join("runs");
        make_private(&runs)?;
        let path = runs.join(name);
        // A worker that is no more may have left it.
        if path.exists() {
            remove(&path)?;
        }
        make_private(&path)?;
        let held = File::create(path.join(HELD))?;
        held.lock()?;
        let (work, temporary) = (path.join("work"), path.join("tmp"));
        let mut cell = Cell {
            through: self.loosely(),
            level,
            program: program.to_owned(),
            plugins: plugins.map(Path::to_owned),
            home: work.clone(),
            temporary: temporary.clone(),
            work: work.clone(),
            path,
            owner: None,
            user: None,
            killer: Vec::new(),
            _held: held,
        };
        make_private(&work)?;
        make_private(&temporary)?;
        if level == Level::Limits {
            return Ok(cell);
        }
        if let Some(user) = self.user {
            let (user, group, taken) = take(root, user)?;
            (cell.owner, cell.user) = (Some((user, group)), taken);
            for directory in [&work, &temporary] {
                std::os::unix::fs::chown(directory, Some(user), Some(group))?;
            }
        }
        if level == Level::User {
            // It has to get there.
            for directory in [root, &runs, &cell.path] {
                std::fs::set_permissions(directory, Permissions::from_mode(0o711))?;
            }
            cell.through = self.as_user(cell.owner)?;
            if cell.user.is_some() {
                cell.killer.clone_from(&cell.through);
            }
        } else {
            cell.inside(self)?;
        }
        Ok(cell)
    }

    fn unprivileged(&self, (user, group): (u32, u32)) -> io::Result<Vec<String>> {
        let setpriv = self.tools.setpriv.as_deref().ok_or_else(|| io::Error::other("setpriv is not installed"))?;
        Ok([
            shown(setpriv),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
            "--inh-caps=-all".to_owned(),
            "--bounding-set=-all".to_owned(),
            "--no-new-privs".to_owned(),
        ]
        .into())
    }

    fn as_user(&self, owner: Option<(u32, u32)>) -> io::Result<Vec<String>> {
        let owner = owner.ok_or_else(|| io::Error::other("there is nobody else"))?;
        let mut through = self.limited();
        through.extend(self.unprivileged(owner)?);
        through.extend(["--pdeathsig=KILL".to_owned(), "--".to_owned()]);
        through.extend(self.interruptible());
        Ok(through)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Whoever holds this file works in the directory.
const HELD: &str = "held";

/// Files of a run that are read are no larger.
const LARGEST: u64 = 256 << 20;

/// The place of a run: a directory of its own, and what it is started through. Gone when it is dropped.
#[derive(Debug)]
pub(super) struct Cell {
    path: PathBuf,
    /// Its directory, as we see it.
    pub(super) work: PathBuf,
    pub(super) level: Level,
    pub(super) through: Vec<String>,
    /// The program, as it is seen from there.
    pub(super) program: PathBuf,
    pub(super) plugins: Option<PathBuf>,
    /// Its directory, as it is seen from there.
    home: PathBuf,
    temporary: PathBuf,
    /// Whose files are.
    owner: Option<(u32, u32)>,
    /// Held, where the user is of this run alone.
    user: Option<File>,
    /// Through what all processes of the user are ended; empty: nothing is left of them anyway.
    killer: Vec<String>,
    _held: File,
}

impl Cell {
    /// Through bubblewrap.
    fn inside(&mut self, by: &Confinement) -> io::Result<()> {
        let missing = |what: &str| io::Error::other(format!("{what} is not installed"));
        let bubblewrap = by.tools.bubblewrap.as_deref().ok_or_else(|| missing("bubblewrap"))?;
        let env = by.tools.env.as_deref().ok_or_else(|| missing("env"))?;
        let setpriv = by.tools.setpriv.as_deref().ok_or_else(|| missing("setpriv"))?;
        let mut through = by.limited();
        through.extend([shown(setpriv), "--pdeathsig=KILL".to_owned(), "--".to_owned()]);
        // It would end at once when the run is interrupted, and take along whoever has to save what he made.
        through.extend([shown(env), "--ignore-signal=INT".to_owned(), shown(bubblewrap)]);
        let mut tell = |arguments: &[&str]| through.extend(arguments.iter().map(|it| (*it).to_owned()));
        tell(&["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"]);
        tell(&["--ro-bind", "/usr", "/usr"]);
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].map(|name| Path::new("/").join(name)) {
            match std::fs::read_link(&name) {
                Ok(target) => tell(&["--symlink", &shown(&target), &shown(&name)]),
                Err(_) if name.is_dir() => tell(&["--ro-bind", &shown(&name), &shown(&name)]),
                Err(_) => {}
            }
        }
        tell(&["--dir", "/etc"]);
        for name in ETC.iter().map(|name| Path::new("/etc").join(name)) {
            tell(&["--ro-bind-try", &shown(&name), &shown(&name)]);
        }
        // Nobody else is known there.
        let (user, group) = self.owner.unwrap_or_else(|| (geteuid().as_raw(), getegid().as_raw()));
        for (name, line) in [
            ("passwd", format!("terraform:x:{user}:{group}::{INSIDE}:/bin/sh\n")),
            ("group", format!("terraform:x:{group}:\n")),
        ] {
            let file = self.path.join(name);
            std::fs::write(&file, line)?;
            std::fs::set_permissions(&file, Permissions::from_mode(0o644))?;
            tell(&["--ro-bind", &shown(&file), &format!("/etc/{name}")]);
        }
        tell(&["--proc", "/proc", "--dev", "/dev"]);
        // Not the terminal that a worker may have been started at.
        tell(&["--dev-bind", "/dev/null", "/dev/tty"]);
        tell(&["--bind", &shown(&self.temporary), "/tmp"]);
        tell(&["--dir", "/run", "--bind", &shown(&self.work), INSIDE]);
        if !self.program.starts_with("/usr") && !self.program.starts_with("/bin") {
            let inside = Path::new(PROGRAM_INSIDE).join(self.program.file_name().unwrap_or_default());
            tell(&["--dir", PROGRAM_INSIDE, "--ro-bind", &shown(&self.program), &shown(&inside)]);
            self.program = inside;
        }
        if let Some(plugins) = &mut self.plugins {
            tell(&["--ro-bind", &shown(plugins), PLUGINS_INSIDE]);
            *plugins = PLUGINS_INSIDE.into();
        }
        tell(&["--remount-ro", "/dev", "--remount-ro", "/"]);
        if let Some(owner) = self.owner {
            tell(&["--cap-drop", "ALL"]);
            for needed in ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"] {
                tell(&["--cap-add", needed]);
            }
            tell(&["--"]);
            through.extend(by.unprivileged(owner)?);
        }
        through.extend(["--".to_owned(), shown(env), format!("--chdir={INSIDE}"), "--default-signal=INT".to_owned()]);
        (self.home, self.temporary, self.through) = (INSIDE.into(), "/tmp".into(), through);
        Ok(())
    }

    /// A file in its directory, as we see it.
    fn file(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// A file in its directory, as the program sees it.
    pub(super) fn seen(&self, name: &str) -> String {
        shown(&self.home.join(name))
    }

    /// What every program finds in its environment there.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let (home, temporary) = (shown(&self.home), shown(&self.temporary));
        [("PATH", path), ("HOME", home), ("TMPDIR", temporary)].map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Writes a file there. What a run has put in its place is replaced, wherever it leads to.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let path = self.file(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => remove(&path)?,
            Ok(_) => std::fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(contents)?;
        match self.owner {
            Some((user, group)) => std::os::unix::fs::fchown(&file, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Makes what lies in a directory there the run's own. Nothing has run there yet.
    pub(super) fn give(&self, directory: &Path) -> io::Result<()> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        std::os::unix::fs::chown(directory, Some(user), Some(group))?;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.give(&entry.path())?;
            } else {
                std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
            }
        }
        Ok(())
    }

    /// Reads a file that a run has written there: one of its own, and no larger than anybody needs.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        // What is no file would not let go of us.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.file(name))?;
        let is_its_own = |found: &Metadata| {
            let owned = self.owner.is_none_or(|(user, _)| found.uid() == user);
            found.is_file() && found.nlink() == 1 && owned
        };
        if !is_its_own(&file.metadata()?) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of the run"));
        }
        let mut contents = Vec::new();
        file.take(LARGEST).read_to_end(&mut contents)?;
        Ok(contents)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if !self.killer.is_empty() {
            end_all(&self.killer);
        }
        if let Err(error) = remove(&self.path) {
            warn!("What a run left behind cannot be removed: {}: {error}", self.path.display());
        }
    }
}

/// Ends everything that runs as a user of one run alone, wherever it went.
#[expect(clippy::disallowed_methods, reason = "a program that ends at once, where nothing can be awaited")]
fn end_all(through: &[String]) {
    let Some((first, others)) = through.split_first() else { return };
    let mut killer = std::process::Command::new(first);
    killer.args(others).args(["/bin/sh", "-c", "kill -KILL -1"]).env_clear().stdin(std::process::Stdio::null());
    if let Err(error) = killer.status() {
        warn!("What a run has started cannot be ended: {error}");
    }
}

/// Takes a user whom nobody else runs as.
fn take(root: &Path, user: User) -> io::Result<(u32, u32, Option<File>)> {
    let (first, last) = match user {
        User::One { user, group } => return Ok((user, group, None)),
        User::Each { first, last } => (first, last),
    };
    // Of the whole machine, for whoever is let go takes all along that runs as he did; or of this directory at least.
    let users = Path::new("/run/gantry/users");
    let own = root.join("users");
    let users = if make_private(users).is_ok() { users } else { &own };
    make_private(users)?;
    for number in first..=last {
        let file = File::options().write(true).create(true).truncate(false).open(users.join(number.to_string()))?;
        if file.try_lock().is_ok() {
            return Ok((number, number, Some(file)));
        }
    }
    Err(io::Error::other(format!("all users from {first} to {last} run something (GANTRY_TERRAFORM_USER)")))
}

/// A directory that nobody else looks into.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let owner = std::fs::symlink_metadata(path)?.uid();
    if owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} belongs to somebody else, of number {owner}", path.display())))
}

/// Removes a directory, also where a run has made some that nothing can be removed from.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path, 64);
            std::fs::remove_dir_all(path)
        }
        done => done,
    }
}

fn open_up(path: &Path, depth: u32) {
    // What cannot be opened up cannot be removed, and that is told.
    let _refused = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path(), depth - 1);
        }
    }
}

/// Removes directories in which nobody works: their workers are gone.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root.join("runs")) else { return };
    for path in entries.flatten().map(|entry| entry.path()).take(1_000) {
        let Ok(file) = File::open(path.join(HELD)) else { continue };
        if file.try_lock().is_ok()
            && let Err(error) = remove(&path)
        {
            warn!("What a run left behind cannot be removed: {}: {error}", path.display());
        }
    }
}
