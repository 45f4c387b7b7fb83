//! Attempts to prove who one is: passwords, codes, recovery. They are counted before anything else is done, by address,
//! by account, and by account from one network; one is a failure until it is said to have succeeded.
//!
//! ```text
//! let attempt = app.attempts().begin("password", info.address, email).await?;   // 429, or 503 while Redis is away
//! if password_is_right { attempt.succeeded().await } else { attempt.failed().await }
//! ```
//!
//! Redis holds digests of accounts, never their names.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_schema::digest::sha256;
use gantry_schema::limits::{FREE_FAILURES, LONGEST_DELAY, Rate};
use redis::Script;
use redis::aio::ConnectionManager;

use super::script::in_time;
use super::{network, prefix, rate};
use crate::app::App;
use crate::error::{Code, Error};

/// How long a network is known from which an account was proven.
const KNOWN_FOR: Duration = Duration::from_hours(90 * 24);

/// Networks that are known of an account; the oldest is forgotten.
const KNOWN: usize = 20;

/// How long wrong guesses in a row are remembered after the last one.
const SERIES: Duration = Duration::from_hours(1);

/// Accounts and addresses are counted over this one and the one before.
const WINDOW: Duration = Duration::from_mins(10);

/// KEYS: the address' bucket, the account's bucket, its wrong guesses from this network, its known networks, then three
/// counts: accounts of the address, accounts of the network, networks of the account (window and the one before are
/// appended). ARGV: the present (0: Redis' own), what is done (begin, fail, succeed), microseconds per cell and cells of
/// the address' bucket and of the account's, the network, the account, free failures, the longest delay, the seconds a series,
/// a window and a known network last, and how many are known.
///
/// Answers the microseconds to wait, which of the three it is that refuses, and the three counts.
const ATTEMPT: &str = r"
local now, act = tonumber(ARGV[1]), ARGV[2]
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local network, account = ARGV[7], ARGV[8]
local known = redis.call('ZSCORE', KEYS[4], network)
local window = tonumber(ARGV[12])
local slot = math.floor(now / 1000000 / window)
local function slots(key)
    return key .. ':' .. string.format('%.0f', slot), key .. ':' .. string.format('%.0f', slot - 1)
end
local function bucket(at)
    local interval, capacity = tonumber(ARGV[2 * at + 1]), tonumber(ARGV[2 * at + 2])
    local full_at = math.max(tonumber(redis.call('GET', KEYS[at]) or 0), now)
    return full_at, interval, full_at + interval - capacity * interval - now
end
local function put(key, full_at)
    if full_at > now then
        redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    else
        redis.call('DEL', key)
    end
end
local address_full, address_interval, address_wait = bucket(1)
local account_full, account_interval, account_wait = bucket(2)
local wait, reason = 0, 0
if act == 'begin' then
    local series = redis.call('HMGET', KEYS[3], 'failures', 'until')
    local failures, series_wait = tonumber(series[1] or 0), tonumber(series[2] or 0) - now
    if known then account_wait = 0 end
    for i, each in ipairs({address_wait, account_wait, series_wait}) do
        if each > wait then wait, reason = each, i end
    end
    if wait == 0 then
        failures = failures + 1
        local delay = 0
        if failures > tonumber(ARGV[9]) then
            delay = math.min(2 ^ (failures - tonumber(ARGV[9]) - 1), tonumber(ARGV[10]))
        end
        redis.call('HSET', KEYS[3], 'failures', failures, 'until', string.format('%.0f', now + delay * 1000000))
        redis.call('EXPIRE', KEYS[3], math.ceil(delay) + tonumber(ARGV[11]))
        put(KEYS[1], address_full + address_interval)
        put(KEYS[2], account_full + account_interval)
    end
elseif act == 'fail' then
    for i, member in ipairs({account, account, network}) do
        local key = slots(KEYS[4 + i])
        redis.call('PFADD', key, member)
        redis.call('EXPIRE', key, 2 * window)
    end
else
    redis.call('DEL', KEYS[3])
    put(KEYS[1], address_full - address_interval)
    put(KEYS[2], account_full - account_interval)
    redis.call('ZADD', KEYS[4], now, network)
    redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - tonumber(ARGV[13]) * 1000000)
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[14]))
    redis.call('EXPIRE', KEYS[4], ARGV[13])
end
local counts = {}
for i = 1, 3 do
    counts[i] = redis.call('PFCOUNT', slots(KEYS[4 + i]))
end
return {math.ceil(wait), reason, counts[1], counts[2], counts[3], known and 1 or 0}
";

/// Counts attempts.
#[derive(Debug)]
pub struct Attempts<'a>(&'a App);

/// An attempt that was let through.
#[derive(Debug)]
#[must_use = "say what came of it"]
pub struct Attempt {
    counting: Counting,
    asked: Asked,
    seen: Seen,
}

/// What was tried lately, in the last ten to twenty minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Accounts that were tried in vain from the address.
    pub accounts_of_address: u32,
    /// Accounts that were tried in vain from its network (/24, or /48 of version 6).
    pub accounts_of_network: u32,
    /// Networks from which the account was tried in vain.
    pub networks_of_account: u32,
    /// The account was proven from this network before.
    pub known_network: bool,
}

impl App {
    /// Counts attempts to prove who one is.
    #[must_use]
    pub const fn attempts(&self) -> Attempts<'_> {
        Attempts(self)
    }
}

impl Attempts<'_> {
    /// Begins an attempt of a kind (`password`, `totp`, …) for an account: whatever names it, as the sender wrote it but
    /// for its case, whether there is one or not. It counts as failed until it has [succeeded](Attempt::succeeded).
    ///
    /// # Errors
    /// When there were too many, with how long to wait; and while they cannot be counted.
    pub async fn begin(&self, kind: &'static str, address: Option<IpAddr>, account: &str) -> Result<Attempt, Error> {
        let rules = self.0.standings.rules(&self.0.db).await?;
        let (redis, namespace) = self.0.limiter.redis();
        let counting = Counting {
            redis: redis.clone(),
            namespace: namespace.to_owned(),
            by_address: rate(&rules, "attempts_by_address"),
            by_account: rate(&rules, "attempts_by_account"),
        };
        let asked = Asked::new(kind, address, account);
        let answer = counting.call(&asked, Act::Begin, None).await.map_err(cannot_count)?;
        let Some(refused_by) = answer.refused_by else {
            return Ok(Attempt { counting, asked, seen: answer.seen });
        };
        metrics::counter!("gantry_api_attempts_refused_total", "kind" => kind, "by" => refused_by.as_str())
            .increment(1);
        let whose = match refused_by {
            Reason::Address => "came from your address",
            Reason::Account | Reason::Series => "were made for this account",
        };
        let detail = format!("too many attempts {whose}; wait as long as Retry-After says");
        Err(Error::new(Code::TooManyRequests, detail).after(answer.wait).violating(&["attempts"]))
    }
}

impl Attempt {
    /// What was tried before it.
    #[must_use]
    pub const fn seen(&self) -> Seen {
        self.seen
    }

    /// It was wrong. Answers what was tried lately, this one included.
    pub async fn failed(self) -> Seen {
        self.counting.call(&self.asked, Act::Fail, None).await.map_or(self.seen, |answer| answer.seen)
    }

    /// It was right: it is not counted, those before it are forgotten, and its network is known of the account.
    pub async fn succeeded(self) {
        // If Redis went away at this moment, it stays counted.
        drop(self.counting.call(&self.asked, Act::Succeed, None).await);
    }
}

fn cannot_count(error: redis::RedisError) -> Error {
    let detail =
        "nobody can prove who he is at the moment; who is signed in goes on working, try again in a few seconds";
    Error::new(Code::Unavailable, detail).because(error).after(Duration::from_secs(5))
}

/// Where attempts are counted, and how many there may be a minute.
#[derive(Clone)]
struct Counting {
    redis: ConnectionManager,
    namespace: String,
    by_address: Rate,
    by_account: Rate,
}

impl std::fmt::Debug for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counting").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Asked {
    kind: &'static str,
    /// `None`: it cannot be known.
    address: Option<IpAddr>,
    account: String,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Begin,
    Fail,
    Succeed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Address,
    Account,
    Series,
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    wait: Duration,
    refused_by: Option<Reason>,
    seen: Seen,
}

impl Act {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Fail => "fail",
            Self::Succeed => "succeed",
        }
    }
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Account => "account",
            Self::Series => "series",
        }
    }
}

impl Asked {
    fn new(kind: &'static str, address: Option<IpAddr>, account: &str) -> Self {
        let digest = sha256(&[kind.as_bytes(), account.trim().to_lowercase().as_bytes()]);
        let account = URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or(&digest));
        Self { kind, address: address.map(prefix), account }
    }
}

impl Counting {
    /// `now` in microseconds; `None`: by Redis' clock.
    async fn call(&self, asked: &Asked, act: Act, now: Option<u64>) -> redis::RedisResult<Answer> {
        let Asked { kind, address, account } = asked;
        let named =
            |address: Option<IpAddr>| address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let (network, address_name) = (named(address.map(|address| network(address, 24, 48))), named(*address));
        let key = |rest: String| format!("{{{}:attempts}}:{rest}", self.namespace);
        let script = Script::new(ATTEMPT);
        let mut call = script.prepare_invoke();
        call.key(key(format!("address:{address_name}")))
            .key(key(format!("{kind}:account:{account}")))
            .key(key(format!("{kind}:series:{account}:{network}")))
            .key(key(format!("{kind}:known:{account}")))
            .key(key(format!("accounts-of:{address_name}")))
            .key(key(format!("accounts-of-network:{network}")))
            .key(key(format!("networks-of:{account}")))
            .arg(now.unwrap_or(0))
            .arg(act.as_str());
        // Those whose addresses cannot be told apart are counted by their accounts.
        let by_address = if address.is_some() { self.by_address } else { Rate::per_minute(6_000_000, 6_000_000) };
        for rate in [by_address, self.by_account] {
            call.arg(rate.interval()).arg(rate.capacity());
        }
        call.arg(network)
            .arg(account)
            .arg(FREE_FAILURES)
            .arg(LONGEST_DELAY.as_secs())
            .arg(SERIES.as_secs())
            .arg(WINDOW.as_secs())
            .arg(KNOWN_FOR.as_secs())
            .arg(KNOWN);
        let mut redis = self.redis.clone();
        let answer: (u64, u8, u32, u32, u32, u8) = in_time(call.invoke_async(&mut redis)).await?;
        let (wait, reason, accounts_of_address, accounts_of_network, networks_of_account, known) = answer;
        let refused_by = match reason {
            0 => None,
            1 => Some(Reason::Address),
            2 => Some(Reason::Account),
            _ => Some(Reason::Series),
        };
        let known_network = known == 1;
        let seen = Seen { accounts_of_address, accounts_of_network, networks_of_account, known_network };
        Ok(Answer { wait: Duration::from_micros(wait), refused_by, seen })
    }
}

#[cfg(test)]
mod tests {
    use gantry_schema::limits::delay;
    use gantry_schema::{IdMint, SystemClock};

    use super::*;

    /// Attempts of a test, at moments of its own. They are so late that no key expires before its time.
    struct Tried(Counting);

    impl Tried {
        fn new(by_address: u32, by_account: u32) -> Self {
            let url = std::env::var("GANTRY_TEST_REDIS_URL").expect("scripts/test says where Redis is");
            let unique: uuid::Uuid = IdMint::new(std::sync::Arc::new(SystemClock)).mint();
            Self(Counting {
                redis: crate::app::connect(&url).unwrap(),
                namespace: format!("test-{}", unique.simple()),
                by_address: Rate::per_minute(by_address, by_address),
                by_account: Rate::per_minute(by_account, by_account),
            })
        }

        async fn act(&self, act: Act, address: &str, account: &str, second: u64) -> Answer {
            let asked = Asked::new("password", Some(address.parse().unwrap()), account);
            let now = 4_000_000_000_000_000 + second * 1_000_000;
            self.0.call(&asked, act, Some(now)).await.unwrap()
        }

        async fn begin(&self, address: &str, account: &str, second: u64) -> Option<(Reason, Duration)> {
            let answer = self.act(Act::Begin, address, account, second).await;
            answer.refused_by.map(|reason| (reason, answer.wait))
        }
    }

    #[tokio::test]
    async fn each_wrong_guess_of_an_account_from_one_network_makes_the_next_one_wait_longer() {
        let tried = Tried::new(6_000_000, 6_000_000);
        let mut now = 0;
        for failures in 1..=14 {
            assert_eq!(tried.begin("203.0.113.9", "a@example.com", now).await, None, "{failures}");
            let wait = delay(failures).as_secs();
            if wait > 0 {
                let early = tried.begin("203.0.113.77", "A@example.com ", now + wait - 1).await;
                assert_eq!(early, Some((Reason::Series, Duration::from_secs(1))), "a neighbour after {failures}");
                assert_eq!(tried.begin("203.0.113.9", "b@example.com", now).await, None, "another account");
                tried.act(Act::Succeed, "203.0.113.9", "b@example.com", now).await;
                assert_eq!(tried.begin("198.51.100.1", "a@example.com", now).await, None, "from elsewhere");
                tried.act(Act::Succeed, "198.51.100.1", "a@example.com", now).await;
            }
            now += wait;
        }
        assert!(now > 900, "{now}");
        tried.act(Act::Succeed, "203.0.113.9", "a@example.com", now).await;
        for _ in 0..3 {
            assert_eq!(tried.begin("203.0.113.9", "a@example.com", now).await, None, "all is forgiven");
        }
    }

    #[tokio::test]
    async fn guesses_at_once_are_counted_before_any_of_them_is_known_to_be_wrong() {
        let tried = Tried::new(6_000_000, 6_000_000);
        let all = futures::future::join_all((0..50).map(|_| tried.begin("203.0.113.9", "a@example.com", 0))).await;
        assert_eq!(all.iter().filter(|refused| refused.is_none()).count(), 3);
    }

    #[tokio::test]
    async fn an_address_has_so_many_failures_whatever_accounts_it_tries() {
        let tried = Tried::new(5, 6_000_000);
        for number in 0..5 {
            assert_eq!(tried.begin("2001:db8::1", &format!("{number}@example.com"), 0).await, None);
        }
        let refused = tried.begin("2001:db8::ffff", "5@example.com", 0).await;
        assert_eq!(refused, Some((Reason::Address, Duration::from_secs(12))), "its whole /64");
        assert_eq!(tried.begin("2001:db8:0:1::1", "5@example.com", 0).await, None);
        assert_eq!(tried.begin("2001:db8::1", "5@example.com", 12).await, None);
    }

    #[tokio::test]
    async fn whoever_guesses_does_not_lock_out_who_signed_in_from_his_network_before() {
        let tried = Tried::new(6_000_000, 5);
        assert_eq!(tried.begin("203.0.113.9", "a@example.com", 0).await, None);
        tried.act(Act::Succeed, "203.0.113.9", "a@example.com", 0).await;
        for number in 0..5 {
            assert_eq!(tried.begin(&format!("198.51.{number}.1"), "a@example.com", 1).await, None);
        }
        let refused = tried.begin("198.51.99.1", "a@example.com", 1).await.unwrap();
        assert_eq!(refused.0, Reason::Account);
        assert_eq!(tried.begin("203.0.113.9", "a@example.com", 1).await, None, "he is known there");
        let later = 91 * 24 * 3_600;
        tried.act(Act::Succeed, "192.0.2.1", "a@example.com", later).await;
        let answer = tried.act(Act::Begin, "203.0.113.9", "a@example.com", later).await;
        assert!(!answer.seen.known_network, "not for ever");
    }

    #[tokio::test]
    async fn what_is_tried_in_vain_is_counted_by_address_network_and_account() {
        let tried = Tried::new(6_000_000, 6_000_000);
        let fail = async |address, account: &str, second| tried.act(Act::Fail, address, account, second).await.seen;
        for number in 0..20 {
            fail("203.0.113.9", &format!("{number}@example.com"), 0).await;
        }
        let seen = fail("203.0.113.10", "20@example.com", 1).await;
        assert_eq!((seen.accounts_of_address, seen.networks_of_account), (1, 1));
        assert!((20..=22).contains(&seen.accounts_of_network), "{seen:?}");
        assert_eq!(fail("198.51.100.1", "20@example.com", 2).await.networks_of_account, 2);
        // Over this window and the one before, no longer.
        assert!(fail("203.0.113.10", "x@example.com", 600).await.accounts_of_network >= 20);
        assert_eq!(fail("203.0.113.10", "x@example.com", 1_800).await.accounts_of_network, 1);
    }
}
