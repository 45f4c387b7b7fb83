//! CPU time: what a measurement costs says more than how long it took, where others use the machine too.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use gantry_tests::process::Servers;
use sqlx::{Connection as _, PgConnection};

/// The servers that are measured with: PostgreSQL with all its processes, and Redis.
#[derive(Debug, Clone, Copy)]
pub struct ServerProcesses {
    postmaster: u32,
    redis: u32,
}

impl ServerProcesses {
    /// Finds them; they must run on this machine.
    pub async fn find(servers: &Servers) -> anyhow::Result<Self> {
        let mut connection = PgConnection::connect(&servers.owner_url).await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await?;
        let postmaster = Usage::of(backend.unsigned_abs())?.parent;
        let mut redis = redis::Client::open(servers.redis_url.as_str())?.get_multiplexed_async_connection().await?;
        let told: String = redis::cmd("INFO").arg("server").query_async(&mut redis).await?;
        let redis = told.lines().find_map(|line| line.strip_prefix("process_id:")).context("Redis tells no process")?;
        Ok(Self { postmaster, redis: redis.trim().parse()? })
    }

    /// CPU time they have used, PostgreSQL first.
    pub fn cpu(self) -> anyhow::Result<(Duration, Duration)> {
        let mut postgres = 0;
        for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end while this looks.
            let Ok(usage) = Usage::of(id) else { continue };
            if id == self.postmaster {
                postgres += usage.own + usage.of_ended_children;
            } else if usage.parent == self.postmaster {
                postgres += usage.own;
            }
        }
        Ok((ticks(postgres), ticks(Usage::of(self.redis)?.own)))
    }
}

/// CPU time a process has used.
pub fn of_process(id: u32) -> anyhow::Result<Duration> {
    Ok(ticks(Usage::of(id)?.own))
}

/// What Linux says about a process, in hundredths of a second.
struct Usage {
    parent: u32,
    own: u64,
    of_ended_children: u64,
}

impl Usage {
    fn of(id: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/stat")))?;
        // The name of a program may contain anything; what follows does not.
        let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
        let number = |at: usize| fields.get(at).context("too few fields")?.parse::<u64>().context("no number");
        Ok(Self {
            parent: u32::try_from(number(1)?)?,
            own: number(11)? + number(12)?,
            of_ended_children: number(13)? + number(14)?,
        })
    }
}

const fn ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}
