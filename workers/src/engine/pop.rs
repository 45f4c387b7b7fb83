//! Taking ids of ready jobs from Redis: whose turn it is, and how many a limit allows.

use std::sync::Arc;

use gantry_jobs::Queue;
use gantry_jobs::doorbell::base_key;
use redis::Script;
use redis::aio::ConnectionManager;

/// Takes up to ARGV[1] members. Organizations take turns by how much they were served for their weight, so
/// each gets its share while others wait too, and everything when nobody else does. One that is over its
/// limit is passed over. ARGV[2] is the present in milliseconds, ARGV[3] how long a place under a limit is
/// held before it must be renewed.
///
/// Answers whether more could be taken, then the members.
const POP: &str = r"
local base, want, now, hold = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local turns, clock, limits = base .. ':turns', base .. ':clock', base .. ':limits'
local limited = redis.call('EXISTS', limits) == 1

local function room(key, limit)
    if not limit then return want end
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    return tonumber(limit) - redis.call('ZCARD', key)
end

local queue_limit = limited and redis.call('HGET', limits, 'queue')
if queue_limit then
    want = math.min(want, room(base .. ':running', queue_limit))
end

local taken, saturated, passed = {}, {}, 0
while #taken < want and passed < 1000 do
    local turn = redis.call('ZRANGE', turns, passed, passed, 'WITHSCORES')
    local organization, served = turn[1], tonumber(turn[2])
    if not organization then break end
    local weight, limit = 1, false
    if limited then
        weight = tonumber(redis.call('HGET', limits, 'weight:' .. organization) or 1)
        limit = redis.call('HGET', limits, 'max:' .. organization)
    end
    local rivals = redis.call('ZCARD', turns) - passed
    local count = want - #taken
    if rivals > 1 then
        count = math.min(count, math.max(1, math.floor(want / rivals)) * weight)
    end
    if limit then
        count = math.min(count, room(base .. ':running:' .. organization, limit))
    end
    if count <= 0 then
        passed = passed + 1
        saturated[passed] = organization
    else
        local ready = base .. ':ready:' .. organization
        local members = redis.call('ZPOPMIN', ready, count)
        local got = #members / 2
        for i = 1, #members, 2 do
            local job = members[i]:sub(1, 16)
            taken[#taken + 1] = members[i]
            -- Another worker's place of the same job, rung for once more, stays as it is.
            if limit then
                taken[#taken] = members[i] .. organization
                redis.call('ZADD', base .. ':running:' .. organization, 'NX', now + hold, job)
            end
            if queue_limit then redis.call('ZADD', base .. ':running', 'NX', now + hold, job) end
        end
        if got < count or redis.call('EXISTS', ready) == 0 then
            redis.call('ZREM', turns, organization)
        else
            redis.call('ZADD', turns, served + got / weight, organization)
        end
        redis.call('SET', clock, served)
    end
end

-- Who is at its limit goes behind the others, who would otherwise be found only after passing it each time.
if passed > 0 then
    local last = redis.call('ZREVRANGE', turns, 0, 0, 'WITHSCORES')[2]
    for i = 1, passed do redis.call('ZADD', turns, 'XX', last, saturated[i]) end
end

local more = redis.call('ZCARD', turns) > passed
if queue_limit and more then
    more = room(base .. ':running', queue_limit) > 0
end
if more and #taken > 0 and redis.call('LLEN', base .. ':bell') == 0 then
    redis.call('RPUSH', base .. ':bell', 1)
end
table.insert(taken, 1, more and 1 or 0)
return taken
";

/// An id as it was popped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Popped {
    pub id: uuid::Uuid,
    pub careful: bool,
    /// Whose limit it has a place under.
    pub limited: Option<uuid::Uuid>,
    /// Until when its places are held.
    pub until: i64,
}

/// Takes ids of one queue.
#[derive(Clone)]
pub(super) struct Popper {
    redis: ConnectionManager,
    base: Arc<str>,
    script: Arc<Script>,
}

/// How long a place under a limit is held without being renewed.
pub(super) const HOLD_MILLISECONDS: i64 = 30_000;

impl Popper {
    pub(super) fn new(redis: ConnectionManager, namespace: &str, queue: Queue) -> Self {
        Self { redis, base: base_key(namespace, queue.as_str()).into(), script: Arc::new(Script::new(POP)) }
    }

    /// Takes up to `want` ids.
    pub(super) async fn pop(&mut self, want: usize, now_milliseconds: i64) -> redis::RedisResult<Vec<Popped>> {
        let answer: Vec<redis::Value> = self
            .script
            .key(&*self.base)
            .arg(want)
            .arg(now_milliseconds)
            .arg(HOLD_MILLISECONDS)
            .invoke_async(&mut self.redis)
            .await?;
        let until = now_milliseconds + HOLD_MILLISECONDS;
        Ok(answer.into_iter().skip(1).filter_map(|member| read(&member, until)).collect())
    }

    /// The key idle workers block on.
    pub(super) fn bell(&self) -> String {
        format!("{}:bell", self.base)
    }
}

fn read(member: &redis::Value, until: i64) -> Option<Popped> {
    let redis::Value::BulkString(bytes) = member else { return None };
    let (id, rest) = bytes.split_at_checked(16)?;
    let (careful, organization) = rest.split_first()?;
    Some(Popped {
        id: uuid::Uuid::from_slice(id).ok()?,
        careful: *careful == b'c',
        limited: uuid::Uuid::from_slice(organization).ok(),
        until,
    })
}
