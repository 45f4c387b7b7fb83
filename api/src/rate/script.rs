//! Taking cells from buckets in Redis, all of a subject's in one round trip.

use std::time::Duration;

use redis::Script;
use redis::aio::ConnectionManager;

use super::subject::{BUCKETS, Plan, Subject};

/// ARGV: the present in microseconds (0: Redis' own), cells wanted, cells given back, and for each bucket microseconds
/// per cell and cells of a full one. A bucket's value is the moment at which it will be full. Answers how many cells are
/// granted, the same from each, and for each bucket the microseconds until it will be full.
const TAKE: &str = r"
local now, granted, back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local full = {}
for i, key in ipairs(KEYS) do
    local interval, capacity = tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[3 + 2 * i])
    local full_at = math.max((tonumber(redis.call('GET', key) or 0)) - back * interval, now)
    granted = math.min(granted, math.floor((capacity * interval - (full_at - now)) / interval))
    full[i] = full_at
end
granted = math.max(granted, 0)
local answer = {granted}
for i, key in ipairs(KEYS) do
    local full_at = full[i] + granted * tonumber(ARGV[2 + 2 * i])
    if full_at > now then
        redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    elseif back > 0 then
        redis.call('DEL', key)
    end
    answer[i + 1] = full_at - now
end
return answer
";

/// Longer than this nobody waits for Redis to count him.
const PATIENCE: Duration = Duration::from_millis(500);

/// What Redis answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    pub cells: u64,
    /// For each bucket, in microseconds.
    pub until_full: [u64; BUCKETS],
}

/// The script, known to Redis by its digest.
#[derive(Debug)]
pub(super) struct Take(Script);

impl Default for Take {
    fn default() -> Self {
        Self(Script::new(TAKE))
    }
}

impl Take {
    /// Takes as many cells as there are, up to those wanted, after giving some back. `now` in microseconds; `None`: by
    /// Redis' clock, which all processes share.
    pub(super) async fn call(
        &self,
        redis: &ConnectionManager,
        namespace: &str,
        (subject, plan): (Subject, Plan),
        (wanted, back): (u64, u64),
        now: Option<u64>,
    ) -> redis::RedisResult<Granted> {
        let mut call = self.0.prepare_invoke();
        call.arg(now.unwrap_or(0)).arg(wanted).arg(back);
        for (key, rate) in subject.keys(namespace).into_iter().zip(plan.rates()) {
            call.key(key).arg(rate.interval()).arg(rate.capacity());
        }
        let mut redis = redis.clone();
        let answer: Vec<u64> = in_time(call.invoke_async(&mut redis)).await?;
        let mut answer = answer.into_iter();
        let cells = answer.next().unwrap_or(0);
        let mut until_full = [0; BUCKETS];
        until_full.iter_mut().zip(answer).for_each(|(place, until)| *place = until);
        Ok(Granted { cells, until_full })
    }
}

/// Gives a call up that takes too long.
pub(super) async fn in_time<T>(call: impl Future<Output = redis::RedisResult<T>>) -> redis::RedisResult<T> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_elapsed| Err(redis::RedisError::from((redis::ErrorKind::Io, "no answer in time"))))
}

#[cfg(test)]
mod tests {
    use gantry_schema::OrganizationId;
    use gantry_schema::limits::{Class, Rate};
    use uuid::Uuid;

    use super::super::subject::{Counted, Owner};
    use super::*;

    /// Redis, and keys of the test's own.
    async fn redis() -> (ConnectionManager, String) {
        let url = std::env::var("GANTRY_TEST_REDIS_URL").expect("scripts/test says where Redis is");
        let ids = gantry_schema::IdMint::new(std::sync::Arc::new(gantry_schema::SystemClock));
        let unique: Uuid = ids.mint();
        (crate::app::connect(&url).unwrap(), format!("test-{}", unique.simple()))
    }

    fn subject(key: bool) -> Subject {
        let owner = Owner::Organization(OrganizationId::PLATFORM);
        Subject { owner, counted: Counted::Class(Class::Read), key: key.then(Uuid::nil), address: None }
    }

    /// So long that no key expires while the test runs.
    const SLOW: Rate = Rate::per_minute(1, 3);

    /// Moments of the test, in microseconds.
    const fn minutes(minutes: u64) -> u64 {
        1_000_000_000_000 + minutes * 60_000_000
    }

    #[tokio::test]
    async fn the_script_does_as_the_rule_says() {
        let (redis, namespace) = redis().await;
        let (take, plan) = (Take::default(), Plan { whole: SLOW, key: None, address: None });
        // As the vectors of the rule, with 60 seconds for 600 milliseconds. Moment, wanted, then granted and the minutes
        // until full.
        for (at, wanted, granted, until_full) in [
            (0, 1, 1, 1),
            (0, 1, 1, 2),
            (0, 1, 1, 3),
            (0, 1, 0, 3),
            (1, 1, 1, 3),
            (1, 1, 0, 3),
            (3, 1, 1, 2),
            (5, 1, 1, 1),
            (5, 9, 2, 3),
            (100, 0, 0, 0),
        ] {
            let answer =
                take.call(&redis, &namespace, (subject(false), plan), (wanted, 0), Some(minutes(at))).await.unwrap();
            let expected = Granted { cells: granted, until_full: [until_full * 60_000_000, 0, 0] };
            assert_eq!(answer, expected, "{wanted} at {at}");
            assert_eq!(plan.wait(&answer.until_full, 1) > 0, until_full == 3, "{wanted} at {at}");
        }
    }

    #[tokio::test]
    async fn a_moment_before_there_is_a_cell_there_is_none() {
        let (redis, namespace) = redis().await;
        let (take, plan) = (Take::default(), Plan { whole: SLOW, key: None, address: None });
        let call = async |wanted, now| {
            take.call(&redis, &namespace, (subject(false), plan), (wanted, 0), Some(now)).await.unwrap()
        };
        call(3, minutes(0)).await;
        let before = call(1, minutes(1) - 1).await;
        assert_eq!((before.cells, plan.wait(&before.until_full, 1)), (0, 1));
        assert_eq!(call(1, minutes(1)).await.cells, 1);
    }

    #[tokio::test]
    async fn all_buckets_grant_the_same_and_the_emptiest_decides() {
        let (redis, namespace) = redis().await;
        let plan = Plan { whole: SLOW, key: Some(Rate::per_minute(1, 2)), address: None };
        let take = Take::default();
        let call = async |subject, plan, wanted, back| {
            take.call(&redis, &namespace, (subject, plan), (wanted, back), Some(minutes(0))).await.unwrap()
        };
        let of_key = call(subject(true), plan, 3, 0).await;
        assert_eq!(of_key, Granted { cells: 2, until_full: [120_000_000, 120_000_000, 0] });
        let others = call(subject(false), Plan { key: None, ..plan }, 3, 0).await;
        assert_eq!((others.cells, others.until_full[0]), (1, 180_000_000), "what the key left");
        let given_back = call(subject(true), plan, 0, 2).await;
        assert_eq!(given_back, Granted { cells: 0, until_full: [60_000_000, 0, 0] });
        assert_eq!(call(subject(true), plan, 9, 0).await.cells, 2);
    }

    #[tokio::test]
    async fn a_bucket_that_is_full_again_is_forgotten() {
        let (redis, namespace) = redis().await;
        let (take, plan) = (Take::default(), Plan { whole: SLOW, key: None, address: None });
        take.call(&redis, &namespace, (subject(false), plan), (2, 0), None).await.unwrap();
        let key = subject(false).keys(&namespace).remove(0);
        let lives: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis.clone()).await.unwrap();
        assert!((1..=120_000).contains(&lives), "{lives}");
        take.call(&redis, &namespace, (subject(false), plan), (0, 2), None).await.unwrap();
        let there: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut redis.clone()).await.unwrap();
        assert!(!there);
    }
}
