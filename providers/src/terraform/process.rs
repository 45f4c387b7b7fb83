//! A program with bounds: an environment of its own, a group of its own that ends with it, an end to its time and to what
//! it says. It does not outlive whoever started it.

use std::future::Future;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

use super::scrub::Scrubber;

/// Bytes of a line that people read.
pub const LINE: usize = 1024 * 1024;

/// Bytes of what it complains that are kept: the first ones.
const COMPLAINT: usize = 64 * 1024;

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// Through what it is started: programs and what they are told, the outermost first, each of which becomes the next.
    pub through: &'a [String],
    /// The program.
    pub path: &'a Path,
    /// What it is told.
    pub arguments: &'a [&'a str],
    /// Where it works.
    pub directory: &'a Path,
    /// Everything it finds in its environment.
    pub environment: &'a [(String, String)],
    /// How long it may take.
    pub time: Duration,
    /// How long it may take to end when it is told to.
    pub grace: Duration,
    /// Bytes that it may say.
    pub said: u64,
    /// Bytes of a line that are read; what follows in it is not.
    pub line: usize,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    With(i32),
    /// By this signal, which was not ours.
    By(i32),
    /// It was told to, because its time was over.
    TimedOut,
    /// It was told to, because nobody wants it any more.
    Stopped,
    /// It was ended, because it said more than anybody reads.
    Flooded,
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub ended: Ended,
    /// What it complained, without secrets.
    pub complaint: String,
}

/// The group of a program: gone when this is dropped, whatever happened.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        if let Some(pid) = self.0 {
            let _gone = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Ends the group of a program when we do, however that happens: also what the program has started would go on, without
/// anybody to keep what it does.
struct Watcher(Option<Child>);

impl Watcher {
    /// It waits until what it reads ends, for nobody writes to it, and it is ours.
    #[expect(clippy::disallowed_methods, reason = "it ends with us")]
    fn of(group: &Group) -> std::io::Result<Self> {
        let Some(pid) = group.0 else { return Ok(Self(None)) };
        let watcher = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -KILL \"-$1\"", "watcher"])
            .arg(pid.as_raw_nonzero().to_string())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self(Some(watcher)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // Before what it reads ends: the number of the group may be another's by then.
        if let Some(watcher) = &mut self.0 {
            let _gone = watcher.start_kill();
        }
    }
}

/// A file of this name that can be started, in the folders of `PATH` and where systems keep programs of administrators.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Starts a program and reads what it says, a line at a time, until it ends. When `stop` resolves it is interrupted, as by
/// a person at a terminal, and killed where that does not help.
///
/// # Errors
/// When it cannot be started.
pub async fn run(
    program: &Program<'_>,
    scrubber: &Scrubber,
    mut on_line: impl FnMut(&str) + Send,
    stop: impl Future<Output = ()> + Send,
) -> std::io::Result<Finished> {
    let mut child = start(program)?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let _watcher = Watcher::of(&group)?;
    let said = child.stdout.take().expect("it was asked for");
    let complained = child.stderr.take().expect("it was asked for");
    let too_much = tokio::sync::Notify::new();
    let reading = async {
        let mut lines = Lines::new(said, program, scrubber.longest());
        while let Some(line) = lines.next().await {
            on_line(&scrubber.scrub(&line));
        }
        if lines.count > lines.all {
            too_much.notify_one();
            lines.drain().await;
        }
    };
    let listening = kept(complained, COMPLAINT, scrubber.longest());
    // Its buffers are nothing for a stack that others have theirs on.
    let mut whole = Box::pin(async {
        let ((), complaint) = tokio::join!(reading, listening);
        (child.wait().await, complaint)
    });
    let mut stop = std::pin::pin!(stop);
    let (mut deadline, mut told) = (Instant::now() + program.time, None);
    let (status, complaint) = loop {
        tokio::select! {
            biased;
            ended = &mut whole => break ended,
            () = &mut stop, if told.is_none() => {
                told = Some(Ended::Stopped);
                group.signal(Signal::INT);
                deadline = Instant::now() + program.grace;
            }
            () = too_much.notified(), if told.is_none() => {
                told = Some(Ended::Flooded);
                group.signal(Signal::INT);
                deadline = Instant::now() + program.grace;
            }
            () = sleep_until(deadline) => {
                if told.is_some() {
                    group.signal(Signal::KILL);
                    // What it started may hold its output open in a group of its own.
                    let nothing = (Err(std::io::Error::other("it was killed")), String::new());
                    break tokio::time::timeout(Duration::from_secs(5), &mut whole).await.unwrap_or(nothing);
                }
                told = Some(Ended::TimedOut);
                group.signal(Signal::INT);
                deadline = Instant::now() + program.grace;
            }
        }
    };
    let complaint = scrubber.scrub(&complaint);
    let ended = match (told, status) {
        (Some(told), _) => told,
        (None, Ok(status)) => match (status.signal(), status.code()) {
            (Some(signal), _) => Ended::By(signal),
            // What stood between says so.
            (None, Some(code @ 129..160)) => Ended::By(code - 128),
            (None, code) => Ended::With(code.unwrap_or(-1)),
        },
        (None, Err(error)) => return Err(error),
    };
    Ok(Finished { ended, complaint })
}

#[expect(clippy::disallowed_methods, reason = "the place that bounds what programs may take")]
fn start(program: &Program<'_>) -> std::io::Result<Child> {
    let mut command = match program.through.split_first() {
        Some((first, others)) => {
            let mut command = Command::new(first);
            command.args(others).arg(program.path);
            command
        }
        None => Command::new(program.path),
    };
    command
        .args(program.arguments)
        .current_dir(program.directory)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The first bytes of what is read; the rest is read and dropped, so that nobody waits. Of what is cut off the end goes as
/// well, for it may be the beginning of a secret.
async fn kept(mut from: impl AsyncRead + Unpin, most: usize, longest: usize) -> String {
    let (mut kept, mut part, mut whole) = (Vec::new(), [0; 8192], true);
    while let Ok(count @ 1..) = from.read(&mut part).await {
        whole &= count <= most - kept.len();
        kept.extend_from_slice(&part[..count.min(most - kept.len())]);
    }
    if !whole {
        kept.truncate(most.saturating_sub(longest));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Lines, of which none is longer than it may be. The end of one that is cut off may be the beginning of a secret, and
/// goes as well.
struct Lines<R> {
    from: R,
    most: usize,
    /// Bytes of all of them; more are not read.
    all: u64,
    /// How long a secret may be.
    longest: usize,
    /// Bytes that were read.
    count: u64,
    read: Vec<u8>,
    /// Where the search for the end of a line goes on.
    looked: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(from: R, of: &Program<'_>, longest: usize) -> Self {
        Self { from, most: of.line, all: of.said, longest, count: 0, read: Vec::new(), looked: 0, ended: false }
    }

    fn text(&self, bytes: &[u8]) -> String {
        let bytes = if bytes.len() < self.most { bytes } else { &bytes[..self.most.saturating_sub(self.longest)] };
        String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned()
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read[self.looked..].iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(self.looked + at + 1);
                let line = std::mem::replace(&mut self.read, rest);
                self.looked = 0;
                return Some(self.text(&line[..line.len() - 1]));
            }
            self.looked = self.read.len();
            if self.read.len() > self.most {
                // It goes on, and nobody reads it: the next end of a line is where it ends.
                self.read.truncate(self.most);
                self.looked = self.most;
            }
            if self.count > self.all {
                return None;
            }
            if self.ended {
                let line = std::mem::take(&mut self.read);
                self.looked = 0;
                return (!line.is_empty()).then(|| self.text(&line));
            }
            let mut part = [0; 8192];
            match self.from.read(&mut part).await {
                Ok(count @ 1..) => {
                    self.count += count as u64;
                    self.read.extend_from_slice(&part[..count]);
                }
                Ok(0) | Err(_) => self.ended = true,
            }
        }
    }

    /// Reads the rest for nobody, so that whoever writes it is not waited for.
    async fn drain(&mut self) {
        let mut part = [0; 8192];
        while let Ok(1..) = self.from.read(&mut part).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, time: Duration, stop: impl Future<Output = ()> + Send) -> (Finished, Vec<String>) {
        let mut lines = Vec::new();
        // Where tests run in the background of a shell, interrupts are ignored.
        let through = ["/usr/bin/env", "--default-signal=INT"].map(str::to_owned);
        let environment =
            [("PATH".to_owned(), "/usr/bin:/bin".to_owned()), ("TOKEN".to_owned(), "hunter22".to_owned())];
        let program = Program {
            through: &through,
            path: Path::new("/bin/sh"),
            arguments: &["-c", script],
            directory: Path::new("/"),
            environment: &environment,
            time,
            grace: Duration::from_secs(5),
            said: 8 * 1024 * 1024,
            line: LINE,
        };
        let scrubber = Scrubber::of(["hunter22"]);
        let finished = run(&program, &scrubber, |line| lines.push(line.to_owned()), stop).await.unwrap();
        (finished, lines)
    }

    #[tokio::test]
    async fn what_it_says_is_read_without_secrets_and_nothing_is_inherited() {
        let script = "echo one; echo \"$TOKEN two\"; echo ${HOME-none}; echo \"no $TOKEN\" >&2; exit 3";
        let (finished, lines) = shell(script, Duration::from_mins(1), std::future::pending()).await;
        assert_eq!((finished.ended, finished.complaint.as_str()), (Ended::With(3), "no [REDACTED]\n"));
        assert_eq!(lines, ["one", "[REDACTED] two", "none"]);
    }

    #[tokio::test]
    async fn it_is_interrupted_first_so_that_it_may_save_what_it_did() {
        let script = "trap 'echo saved; exit 0' INT; echo ready; sleep 60 >/dev/null 2>&1 & wait";
        let (finished, lines) = shell(script, Duration::from_secs(1), std::future::pending()).await;
        assert_eq!((finished.ended, lines), (Ended::TimedOut, vec!["ready".to_owned(), "saved".to_owned()]));
        let stopped = tokio::time::sleep(Duration::from_secs(1));
        let (finished, lines) = shell(script, Duration::from_mins(1), stopped).await;
        assert_eq!((finished.ended, lines.last().map(String::as_str)), (Ended::Stopped, Some("saved")));
    }

    #[tokio::test]
    async fn a_line_without_end_and_a_flood_are_bounded() {
        let script = "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; echo after; head -c 200000 /dev/zero >&2";
        let (finished, lines) = shell(script, Duration::from_mins(1), std::future::pending()).await;
        assert!(lines[0].len() <= LINE, "{}", lines[0].len());
        assert_eq!((lines.len(), lines[1].as_str()), (2, "after"));
        assert!(finished.complaint.len() <= 3 * COMPLAINT);
        let (finished, lines) = shell("yes", Duration::from_mins(1), std::future::pending()).await;
        assert!(finished.ended == Ended::Flooded && lines.len() <= 4 * 1024 * 1024 + 8_192, "{finished:?}");
        let (finished, lines) = shell("cat /dev/zero", Duration::from_mins(1), std::future::pending()).await;
        assert!(finished.ended == Ended::Flooded && lines.is_empty(), "{finished:?}");
        let (finished, lines) = shell("printf 'without end'", Duration::from_mins(1), std::future::pending()).await;
        assert_eq!((finished.ended, lines), (Ended::With(0), vec!["without end".to_owned()]));
    }

    #[tokio::test]
    async fn a_signal_that_is_not_ours_is_told() {
        for script in ["kill -SEGV $$", "sh -c 'kill -SEGV $$'; exit $?"] {
            let (finished, _) = shell(script, Duration::from_mins(1), std::future::pending()).await;
            assert_eq!(finished.ended, Ended::By(11), "{script}");
        }
    }

    #[tokio::test]
    async fn the_beginning_of_a_secret_is_not_seen_where_what_is_said_is_cut_off() {
        let script = "head -c 65530 /dev/zero | tr '\\0' ' ' >&2; echo \"$TOKEN\" >&2; \
                      head -c 1048570 /dev/zero | tr '\\0' ' '; echo \"$TOKEN\"";
        let (finished, lines) = shell(script, Duration::from_mins(1), std::future::pending()).await;
        assert!(!finished.complaint.contains("hunt"), "{}", finished.complaint.trim());
        assert!(lines.len() == 1 && !lines[0].contains("hunt"), "{}", lines[0].trim());
    }
}
