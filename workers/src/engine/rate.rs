//! Rates of the outside world: a job over its rate gets a place in the future and waits there, in the
//! ledger, not in a slot.

use std::time::Duration;

use gantry_schema::JobId;
use redis::Script;
use redis::aio::ConnectionManager;

/// Generic cell rate algorithm with reservation. ARGV: the job, the milliseconds between two jobs, the burst's
/// milliseconds, the present. Answers the milliseconds to wait; a job that waited is not charged again.
const RESERVE: &str = r"
local key, job = KEYS[1], ARGV[1]
local interval, burst, now = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local place = key .. ':place:' .. job
local reserved = redis.call('GET', place)
if reserved then
    if tonumber(reserved) <= now then
        redis.call('DEL', place)
        return 0
    end
    return tonumber(reserved) - now
end
local next_free = math.max(tonumber(redis.call('GET', key) or now), now)
redis.call('SET', key, next_free + interval, 'PX', math.ceil(next_free + interval - now + burst + 1000))
local allowed = next_free - burst
if allowed <= now then return 0 end
redis.call('SET', place, allowed, 'PX', math.ceil(allowed - now + 3600000))
return math.ceil(allowed - now)
";

/// A rate that must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub amount: i32,
    pub period: Duration,
    pub burst: i32,
}

/// Uses up a place for the job, now (`None`) or after the answered wait.
pub(super) async fn reserve(
    redis: &mut ConnectionManager,
    namespace: &str,
    key: &str,
    rate: Rate,
    job: JobId,
    now_milliseconds: i64,
) -> redis::RedisResult<Option<Duration>> {
    let interval = rate.period.as_millis() as f64 / f64::from(rate.amount.max(1));
    let wait: u64 = Script::new(RESERVE)
        .key(format!("{{{namespace}:rate:{key}}}"))
        .arg(job.to_string())
        .arg(interval)
        .arg(interval * f64::from(rate.burst.max(1) - 1))
        .arg(now_milliseconds)
        .invoke_async(redis)
        .await?;
    Ok((wait > 0).then(|| Duration::from_millis(wait)))
}
