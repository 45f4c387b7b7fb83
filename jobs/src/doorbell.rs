//! The doorbell: ids of ready jobs go to Redis after the commit, so that workers wake at once.
//!
//! Redis holds nothing else. Per queue `q` of namespace `n`, all under one hash tag:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{n:q}:ready:<organization>` | sorted set | its ready jobs; score: priority, then age |
//! | `{n:q}:turns` | sorted set | the organizations that have any; score: how much each was served |
//! | `{n:q}:clock` | number | how much the last one served had been served |
//! | `{n:q}:bell` | list | one token at most; idle workers block on it |
//! | `{n:q}:limits` | hash | `queue`, `max:<organization>`, `weight:<organization>` |
//! | `{n:q}:running`, `{n:q}:running:<organization>` | sorted set | jobs running under a limit; score: end of lease |
//!
//! A member is the 16 bytes of the job's id and one byte, `c` when it must be claimed with care. Adding a
//! member that is there changes nothing, so anybody may ring for any job at any time.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_schema::db::Doorbell;
use gantry_schema::jobs::Ready;
use redis::Script;
use redis::aio::ConnectionManager;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::Queue;

/// Adds members per organization and rings if nobody has.
const RING: &str = r"
local base, added, i = KEYS[1], 0, 1
while i <= #ARGV do
    local organization, count = ARGV[i], tonumber(ARGV[i + 1])
    local pairs = {}
    for j = i + 2, i + 1 + 2 * count do
        pairs[#pairs + 1] = ARGV[j]
    end
    added = added + redis.call('ZADD', base .. ':ready:' .. organization, 'NX', unpack(pairs))
    redis.call('ZADD', base .. ':turns', 'NX', redis.call('GET', base .. ':clock') or 0, organization)
    i = i + 2 + 2 * count
end
if added > 0 and redis.call('LLEN', base .. ':bell') == 0 then
    redis.call('RPUSH', base .. ':bell', 1)
end
return added
";

/// Rings where jobs wait and nobody has: the token of a worker that died with it in its hand.
const REMIND: &str = r"
local base = KEYS[1]
if redis.call('EXISTS', base .. ':turns') == 1 and redis.call('LLEN', base .. ':bell') == 0 then
    return redis.call('RPUSH', base .. ':bell', 1)
end
return 0
";

/// Members in one call of the script: Lua unpacks fewer than 8 000 values.
const MEMBERS_PER_CALL: usize = 1_000;

/// The common beginning of a queue's keys.
#[must_use]
pub fn base_key(namespace: &str, queue: &str) -> String {
    format!("{{{namespace}:{queue}}}")
}

/// Puts ids of ready jobs where workers find them.
#[derive(Clone)]
pub struct Bell {
    redis: ConnectionManager,
    namespace: Arc<str>,
    ring: Arc<Script>,
    remind: Arc<Script>,
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Bell {
    /// A bell in this namespace.
    #[must_use]
    pub fn new(redis: ConnectionManager, namespace: &str) -> Self {
        Self {
            redis,
            namespace: namespace.into(),
            ring: Arc::new(Script::new(RING)),
            remind: Arc::new(Script::new(REMIND)),
        }
    }

    /// Rings for the jobs. Answers how many were not known yet.
    ///
    /// # Errors
    /// When Redis does not answer; the relay will find the jobs.
    pub async fn ring(&self, ready: &[Ready]) -> redis::RedisResult<u64> {
        let mut by_queue: HashMap<&str, HashMap<uuid::Uuid, Vec<&Ready>>> = HashMap::new();
        for job in ready {
            by_queue.entry(&job.queue).or_default().entry(job.organization.uuid()).or_default().push(job);
        }
        let mut added = 0;
        for (queue, organizations) in by_queue {
            let base = base_key(&self.namespace, queue);
            let mut call = self.ring.prepare_invoke();
            let mut members = 0;
            call.key(&base);
            for (organization, jobs) in organizations {
                for jobs in jobs.chunks(MEMBERS_PER_CALL) {
                    if members + jobs.len() > MEMBERS_PER_CALL {
                        added += call.invoke_async::<u64>(&mut self.redis.clone()).await?;
                        call = self.ring.prepare_invoke();
                        call.key(&base);
                        members = 0;
                    }
                    members += jobs.len();
                    call.arg(&organization.as_bytes()[..]).arg(jobs.len());
                    for job in jobs {
                        call.arg(score(job)).arg(&member(job)[..]);
                    }
                }
            }
            added += call.invoke_async::<u64>(&mut self.redis.clone()).await?;
        }
        Ok(added)
    }
}

impl Bell {
    /// Rings for queues in which jobs wait that everybody may have forgotten.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn remind(&self) -> redis::RedisResult<()> {
        for queue in Queue::ALL {
            let base = base_key(&self.namespace, queue.as_str());
            self.remind.key(base).invoke_async::<u64>(&mut self.redis.clone()).await?;
        }
        Ok(())
    }
}

/// Priority first, then age: both fit the 53 bits a score keeps exactly.
fn score(job: &Ready) -> i64 {
    i64::from(job.priority) * 10_i64.pow(14) + job.id.minted_at().timestamp_millis()
}

fn member(job: &Ready) -> [u8; 17] {
    let mut member = [0; 17];
    member[..16].copy_from_slice(job.id.uuid().as_bytes());
    member[16] = if job.careful { b'c' } else { b'p' };
    member
}

/// Batches that wait to be rung for. What does not fit is left to the relay.
const WAITING_BATCHES: usize = 10_000;

/// Rings from a task of its own, so that a commit never waits for Redis.
#[derive(Debug, Clone)]
pub struct Ringer(mpsc::Sender<Vec<Ready>>);

impl Ringer {
    /// Starts the task; it ends when the last handle is dropped and everything is rung for.
    #[must_use]
    pub fn start(bell: Bell) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Vec<Ready>>(WAITING_BATCHES);
        tokio::spawn(async move {
            let mut deaf = false;
            while let Some(mut batch) = waiting.recv().await {
                // What has gathered meanwhile goes along, up to what one script call takes.
                while batch.len() < MEMBERS_PER_CALL {
                    let Ok(more) = waiting.try_recv() else { break };
                    batch.extend(more);
                }
                match bell.ring(&batch).await {
                    Ok(_) if std::mem::take(&mut deaf) => info!("Redis takes ready jobs again"),
                    Err(error) if !std::mem::replace(&mut deaf, true) => {
                        warn!("Redis does not take ready jobs, the relay will find them: {error}");
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        });
        Self(sender)
    }
}

impl Doorbell for Ringer {
    fn ring(&self, ready: Vec<Ready>) {
        // Full or closed: the relay finds them.
        drop(self.0.try_send(ready));
    }
}

/// Opens the connection over which bells ring: it reconnects by itself, and gives up on one command soon.
///
/// # Errors
/// When the URL is none, or nobody answers.
pub async fn connect(url: &str) -> redis::RedisResult<ConnectionManager> {
    let client = redis::Client::open(url)?;
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_response_timeout(Some(std::time::Duration::from_secs(5)))
        .set_connection_timeout(Some(std::time::Duration::from_secs(5)))
        .set_number_of_retries(1);
    client.get_connection_manager_with_config(config).await
}
