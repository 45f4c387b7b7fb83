//! What a server has to be like to be ready: asked in one command, and judged by rules.

use chrono::{DateTime, Utc};
use gantry_schema::servers::queries::Check;

/// Asks everything at once; parts are divided by a line of their own.
pub(crate) const ASK: &str = "\
(. /etc/os-release && echo \"$PRETTY_NAME\") 2>/dev/null; echo --; \
df -Pm / 2>/dev/null | tail -n 1; echo --; \
grep MemTotal /proc/meminfo 2>/dev/null; echo --; \
date +%s; echo --; \
docker version --format '{{.Server.Version}}' 2>&1; echo --; \
s=${DOCKER_HOST:-unix:///var/run/docker.sock}; test -S \"${s#unix://}\" && echo socket";

/// Free space that a deployment needs, in MiB.
const DISK: u64 = 512;

/// Memory that a deployment needs, in MiB.
const MEMORY: u64 = 256;

/// Seconds by which its clock may be wrong: signatures and certificates are good for longer.
const CLOCK: i64 = 60;

/// The oldest Docker that will do: what Debian 12 ships.
const DOCKER: (u32, u32) = (20, 10);

/// What a server said, as it may be kept and shown: nobody knows who wrote it.
pub(crate) fn plain(said: &str) -> String {
    said.chars().filter(|it| !it.is_control() || *it == '\n').collect()
}

/// Whether a version is none that is too old.
fn will_do(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    matches!((parts.next().flatten(), parts.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= DOCKER)
}

/// Judges what was answered.
pub(crate) fn judge(answer: &str, needs_docker: bool, now: DateTime<Utc>) -> Vec<Check> {
    let answer = plain(answer);
    let mut parts = answer.split("--\n").map(str::trim);
    let mut next = || parts.next().unwrap_or_default();
    let (system, disk, memory, clock, docker, socket) = (next(), next(), next(), next(), next(), next());
    let check = |name: &str, passed: bool, found: String| Check { name: name.to_owned(), passed, found };
    let free = disk.split_whitespace().nth(3).and_then(|text| text.parse::<u64>().ok());
    let kib = memory.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    let behind = clock.parse::<i64>().ok().map(|seconds| now.timestamp() - seconds);
    let has_docker = docker.starts_with(|first: char| first.is_ascii_digit());
    let or_nothing = |found: Option<String>| found.unwrap_or_else(|| "it does not say".to_owned());
    let first_line = |text: &str| text.lines().next().unwrap_or_default().chars().take(200).collect::<String>();
    let mut checks = vec![
        check("system", !system.is_empty(), or_nothing((!system.is_empty()).then(|| first_line(system)))),
        check("disk", free.is_some_and(|free| free >= DISK), or_nothing(free.map(|free| format!("{free} MiB free")))),
        check(
            "memory",
            kib.is_some_and(|kib| kib / 1024 >= MEMORY),
            or_nothing(kib.map(|kib| format!("{} MiB", kib / 1024))),
        ),
        check(
            "clock",
            behind.is_some_and(|behind| behind.abs() <= CLOCK),
            or_nothing(behind.map(|behind| format!("{behind} s behind"))),
        ),
    ];
    if needs_docker {
        let wanted = if has_docker && !will_do(docker) { "; 20.10 or later is needed" } else { "" };
        checks.push(check("docker", will_do(docker), format!("{}{wanted}", first_line(docker))));
        let found = if socket == "socket" { "it is there" } else { "there is none" };
        checks.push(check("docker_socket", socket == "socket", found.to_owned()));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "Debian GNU/Linux 12 (bookworm)\n--\n/dev/sda1 20000 5000 15000 25% /\n--\n\
                          MemTotal: 1048576 kB\n--\n1772442000\n--\n20.10.24\n--\nsocket\n";

    fn failed(answer: &str, needs_docker: bool) -> Vec<String> {
        let now = DateTime::from_timestamp(1_772_442_030, 0).unwrap();
        judge(answer, needs_docker, now).into_iter().filter(|it| !it.passed).map(|it| it.name).collect()
    }

    #[test]
    fn what_a_server_says_can_be_kept_whoever_wrote_it() {
        assert_eq!(plain("a\0b\u{1b}[31m\r\nc"), "ab[31m\nc");
    }

    #[test]
    fn a_server_is_ready_when_all_of_it_is_as_it_has_to_be() {
        assert!(failed(ANSWER, true).is_empty());
        assert_eq!(failed(&ANSWER.replace("15000", "100"), true), ["disk"]);
        assert_eq!(failed(&ANSWER.replace("1048576", "100000"), true), ["memory"]);
        assert_eq!(failed(&ANSWER.replace("1772442000", "1772441000"), true), ["clock"]);
        let without = ANSWER.replace("20.10.24", "sh: docker: not found").replace("socket", "");
        assert_eq!(failed(&without, true), ["docker", "docker_socket"]);
        assert!(failed(&without, false).is_empty());
        assert_eq!(failed(&ANSWER.replace("20.10.24", "19.03.15"), true), ["docker"]);
        for newer in ["20.10.0+dfsg1", "24.0.7", "29.1"] {
            assert!(failed(&ANSWER.replace("20.10.24", newer), true).is_empty(), "{newer}");
        }
        assert_eq!(failed("", true).len(), 6);
    }
}
