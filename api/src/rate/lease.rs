//! Counting requests in Redis, and a few of a busy caller's ahead.
//!
//! Requests that come while Redis is asked for the same subject go with the next question. What is asked for ahead grows
//! while it is used up at once, and what is not used within a second is given back with the next question.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionManager;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::local::Local;
use super::script::{Granted, Take, in_time};
use super::subject::{BUCKETS, Counts, Plan, Refused, Subject};

/// How long cells that were taken ahead may be used.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// Who asks again sooner than this takes more ahead, who later than four times this takes less.
const SOON: Duration = Duration::from_millis(50);

/// At most this part of a full bucket is taken ahead.
const PART: u64 = 200;

/// And at most so many cells.
const MOST_AHEAD: u64 = 1_000;

/// Subjects that are remembered; beyond that, each counts by itself in this process.
const REMEMBERED: usize = 50_000;

/// Requests of a subject that wait for one answer.
const MOST_WAITING: usize = 10_000;

/// How often Redis is looked for while it is away.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Counts requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Limiter(Arc<Inner>);

struct Inner {
    redis: ConnectionManager,
    namespace: String,
    script: Take,
    local: Local,
    away: AtomicBool,
    taps: Mutex<HashMap<Subject, Tap>>,
}

/// What is known here of a subject's buckets.
struct Tap {
    plan: Plan,
    /// Taken ahead, and not used yet.
    ahead: u64,
    /// How many are taken ahead next time.
    size: u64,
    /// When Redis answered.
    at: Instant,
    /// What it said; `None`: nothing yet.
    until_full: Option<[u64; BUCKETS]>,
    /// Somebody asks at this moment.
    asking: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    cost: u64,
    answer: oneshot::Sender<Result<Counts, Box<Refused>>>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("away", &self.0.away).finish_non_exhaustive()
    }
}

/// What is done with a request.
enum Step {
    Answered(Result<Counts, Box<Refused>>),
    Wait(oneshot::Receiver<Result<Counts, Box<Refused>>>),
    Alone,
}

impl Limiter {
    /// Counts in this Redis, under keys of this namespace.
    pub(crate) fn new(redis: ConnectionManager, namespace: &str) -> Self {
        Self(Arc::new(Inner {
            redis,
            namespace: namespace.to_owned(),
            script: Take::default(),
            local: Local::default(),
            away: AtomicBool::new(false),
            taps: Mutex::default(),
        }))
    }

    /// Redis does not answer, and this process counts by itself.
    pub(super) fn is_alone(&self) -> bool {
        self.0.away.load(Ordering::Relaxed)
    }

    /// What Redis is asked with.
    pub(super) fn redis(&self) -> (&ConnectionManager, &str) {
        (&self.0.redis, &self.0.namespace)
    }

    /// Counts a request.
    pub(super) async fn take(&self, subject: Subject, plan: Plan, cost: u64) -> Result<Counts, Box<Refused>> {
        let cost = cost.clamp(1, plan.most());
        if self.is_alone() {
            return self.0.local.take(subject, plan, cost);
        }
        match self.step(subject, plan, cost) {
            Step::Answered(outcome) => outcome,
            Step::Wait(answer) => match answer.await {
                Ok(outcome) => outcome,
                // Who asked is gone: a panic. It costs nobody his request.
                Err(_gone) => self.0.local.take(subject, plan, cost),
            },
            Step::Alone => self.0.local.take(subject, plan, cost),
        }
    }

    /// Whether it is known here, without asking, that nothing is left.
    pub(super) fn is_empty(&self, subject: Subject) -> Option<Refused> {
        self.taps().get(&subject)?.refuse(subject, 1)
    }

    fn step(&self, subject: Subject, plan: Plan, cost: u64) -> Step {
        let mut taps = self.taps();
        if taps.len() >= REMEMBERED && !taps.contains_key(&subject) {
            taps.retain(|_, tap| tap.is_used());
            if taps.len() >= REMEMBERED {
                return Step::Alone;
            }
        }
        let tap = taps.entry(subject).or_insert_with(|| Tap::new(plan));
        tap.plan = plan;
        if tap.waiting.is_empty() {
            if let Some(counts) = tap.use_ahead(subject, cost) {
                if tap.ahead < tap.size / 2 && !std::mem::replace(&mut tap.asking, true) {
                    self.ask(subject);
                }
                return Step::Answered(Ok(counts));
            }
            if let Some(refused) = tap.refuse(subject, cost) {
                return Step::Answered(Err(Box::new(refused)));
            }
        }
        if tap.waiting.len() >= MOST_WAITING {
            return Step::Alone;
        }
        let (answer, receiver) = oneshot::channel();
        tap.waiting.push_back(Waiting { cost, answer });
        if !std::mem::replace(&mut tap.asking, true) {
            self.ask(subject);
        }
        Step::Wait(receiver)
    }

    /// Asks for a subject until nobody waits.
    fn ask(&self, subject: Subject) {
        let asker = Asker { limiter: self.clone(), subject };
        tokio::spawn(asker.ask_all());
    }

    /// From now on this process counts by itself, until Redis answers.
    fn lose(&self, error: &redis::RedisError) {
        if self.0.away.swap(true, Ordering::Relaxed) {
            return;
        }
        warn!("Redis does not count requests, this process counts by itself meanwhile: {error}");
        metrics::gauge!("gantry_api_counts_alone").set(1.0);
        let limiter = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                let Some(inner) = limiter.upgrade() else { return };
                let mut redis = inner.redis.clone();
                // One that can be read but not written to counts nobody.
                let mut probe = redis::cmd("SET");
                probe.arg(format!("{{{}:rate:probe}}", inner.namespace)).arg(1).arg("PX").arg(1_000);
                if in_time(probe.exec_async(&mut redis)).await.is_ok() {
                    // What was known before is of another time.
                    inner.taps.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, tap| tap.asking);
                    inner.away.store(false, Ordering::Relaxed);
                    metrics::gauge!("gantry_api_counts_alone").set(0.0);
                    info!("Redis counts requests again");
                    return;
                }
            }
        });
    }

    fn taps(&self) -> MutexGuard<'_, HashMap<Subject, Tap>> {
        self.0.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    fn new(plan: Plan) -> Self {
        Self { plan, ahead: 0, size: 0, at: Instant::now(), until_full: None, asking: false, waiting: VecDeque::new() }
    }

    /// Something would be lost if it were forgotten.
    fn is_used(&self) -> bool {
        self.asking || !self.waiting.is_empty() || self.at.elapsed() < GOOD_FOR
    }

    /// What Redis said, by now.
    fn until_full(&self) -> [u64; BUCKETS] {
        let elapsed = u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.until_full.unwrap_or_default().map(|until_full| until_full.saturating_sub(elapsed))
    }

    fn counts(&self, subject: Subject) -> Counts {
        self.plan.counts(subject.counted, &self.until_full(), self.ahead)
    }

    /// Uses cells that were taken ahead.
    fn use_ahead(&mut self, subject: Subject, cost: u64) -> Option<Counts> {
        if self.ahead < cost || self.at.elapsed() >= GOOD_FOR {
            return None;
        }
        self.ahead -= cost;
        Some(self.counts(subject))
    }

    /// Refuses where asking would only be told the same again.
    fn refuse(&self, subject: Subject, cost: u64) -> Option<Refused> {
        self.until_full?;
        let wait = self.plan.wait(&self.until_full(), cost);
        // What Redis said may be old: others may have taken since, but nobody puts back more than was taken ahead.
        if wait == 0 || self.ahead > 0 {
            return None;
        }
        Some(Refused { counts: self.counts(subject), cost, wait: Duration::from_micros(wait) })
    }

    /// What Redis is asked for: cells for those who wait and some ahead, and what is given back.
    fn question(&mut self) -> Question {
        let back = if self.at.elapsed() >= GOOD_FOR { std::mem::take(&mut self.ahead) } else { 0 };
        if self.at.elapsed() < SOON && self.until_full.is_some() {
            self.size = (self.size * 2).max(1);
        } else if self.at.elapsed() > SOON * 4 {
            self.size /= 2;
        }
        self.size = self.size.min(self.plan.most() / PART).min(MOST_AHEAD);
        let waiting: Vec<Waiting> = self.waiting.drain(..).filter(|waiting| !waiting.answer.is_closed()).collect();
        let needed: u64 = waiting.iter().map(|waiting| waiting.cost).sum();
        let wanted = (needed + self.size).saturating_sub(self.ahead);
        Question { plan: self.plan, wanted, back, waiting }
    }

    /// Shares out what was granted. A request that is too dear does not keep a cheaper one from being done.
    fn share(&mut self, subject: Subject, granted: Granted, waiting: Vec<Waiting>) {
        self.at = Instant::now();
        self.until_full = Some(granted.until_full);
        self.ahead += granted.cells;
        for Waiting { cost, answer } in waiting {
            let outcome = if let Some(counts) = self.use_ahead(subject, cost) {
                Ok(counts)
            } else {
                let wait = self.plan.wait(&granted.until_full, cost.saturating_sub(self.ahead)).max(1);
                Err(Box::new(Refused { counts: self.counts(subject), cost, wait: Duration::from_micros(wait) }))
            };
            // Who stopped waiting has asked for nothing.
            if let Err(Ok(_)) = answer.send(outcome) {
                self.ahead += cost;
            }
        }
    }
}

struct Question {
    plan: Plan,
    wanted: u64,
    back: u64,
    waiting: Vec<Waiting>,
}

/// Asks Redis for one subject, for whoever waits.
struct Asker {
    limiter: Limiter,
    subject: Subject,
}

impl Asker {
    async fn ask_all(self) {
        loop {
            // Requests that were read from their sockets already come along.
            tokio::task::yield_now().await;
            let Some(question) = self.question() else { return };
            let Question { plan, wanted, back, waiting } = question;
            let inner = &self.limiter.0;
            let asked = (self.subject, plan);
            match inner.script.call(&inner.redis, &inner.namespace, asked, (wanted, back), None).await {
                Ok(granted) => {
                    let mut taps = self.limiter.taps();
                    if let Some(tap) = taps.get_mut(&self.subject) {
                        tap.share(self.subject, granted, waiting);
                        if tap.waiting.is_empty() {
                            tap.asking = false;
                            return;
                        }
                    }
                }
                Err(error) => {
                    self.limiter.lose(&error);
                    for Waiting { cost, answer } in waiting {
                        // Who stopped waiting does not want to know.
                        drop(answer.send(inner.local.take(self.subject, plan, cost)));
                    }
                    let mut taps = self.limiter.taps();
                    // Those who came meanwhile are answered by the next round, or by themselves once it is known.
                    if taps.get(&self.subject).is_none_or(|tap| tap.waiting.is_empty()) {
                        taps.remove(&self.subject);
                        return;
                    }
                }
            }
        }
    }

    /// `None`: nobody asks any more.
    fn question(&self) -> Option<Question> {
        Some(self.limiter.taps().get_mut(&self.subject)?.question())
    }
}

/// After a panic nobody else would ask for those who wait: they are told so, and the next one begins anew.
impl Drop for Asker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.limiter.taps().remove(&self.subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use gantry_schema::limits::{Class, Rate};
    use gantry_schema::{IdMint, OrganizationId, SystemClock};

    use super::super::subject::{Counted, Owner};
    use super::*;

    const SUBJECT: Subject = Subject {
        owner: Owner::Organization(OrganizationId::PLATFORM),
        counted: Counted::Class(Class::Read),
        key: None,
        address: None,
    };

    const fn plan(burst: u32) -> Plan {
        // So slow that nothing flows in while the test runs.
        Plan { whole: Rate::per_minute(1, burst), key: None, address: None }
    }

    /// As many processes as wanted, on one Redis.
    fn processes(count: usize) -> Vec<Limiter> {
        let url = std::env::var("GANTRY_TEST_REDIS_URL").expect("scripts/test says where Redis is");
        let unique: uuid::Uuid = IdMint::new(Arc::new(SystemClock)).mint();
        let process = |_| Limiter::new(crate::app::connect(&url).unwrap(), &format!("test-{}", unique.simple()));
        (0..count).map(process).collect()
    }

    #[tokio::test]
    async fn below_200_a_minute_what_is_said_to_be_left_is_what_is_left() {
        let processes = processes(2);
        for number in 0..100 {
            let counts = processes[number % 2].take(SUBJECT, plan(100), 1).await.unwrap();
            assert_eq!(counts.0[0].unwrap().remaining, 99 - number as u64);
        }
        for process in processes {
            let refused = process.take(SUBJECT, plan(100), 1).await.unwrap_err();
            assert!(refused.wait > Duration::from_secs(30) && refused.wait <= Duration::from_mins(1), "{refused:?}");
            assert_eq!(refused.violated().collect::<Vec<_>>(), ["read"]);
        }
    }

    #[tokio::test]
    async fn however_many_ask_at_once_no_more_than_the_limit_is_let_through_and_nearly_as_many() {
        let processes = processes(3);
        let asks = (0..9_000).map(|number| processes[number % 3].take(SUBJECT, plan(6_000), 1));
        let let_through = join_all(asks).await.into_iter().flatten().count();
        // What two processes have ahead, the third does not get.
        let most_ahead = 2 * 6_000 / usize::try_from(PART).unwrap();
        assert!((6_000 - most_ahead..=6_000).contains(&let_through), "{let_through}");
    }

    #[tokio::test]
    async fn a_busy_caller_asks_redis_now_and_then() {
        let process = processes(1).remove(0);
        for _ in 0..3_000 {
            process.take(SUBJECT, plan(1_000_000), 1).await.unwrap();
        }
        let ahead = process.taps()[&SUBJECT].size;
        assert_eq!(ahead, MOST_AHEAD, "as much as there may be");
        let left = process.take(SUBJECT, plan(1_000_000), 1).await.unwrap().0[0].unwrap().remaining;
        assert_eq!(left, 1_000_000 - 3_001, "one process alone says what is");
    }

    #[tokio::test]
    async fn who_is_refused_once_is_refused_again_without_asking() {
        let process = processes(1).remove(0);
        assert!(process.is_empty(SUBJECT).is_none(), "nothing is known");
        process.take(SUBJECT, plan(1), 1).await.unwrap();
        assert!(process.is_empty(SUBJECT).is_some());
        let at = process.taps()[&SUBJECT].at;
        process.take(SUBJECT, plan(1), 1).await.unwrap_err();
        assert_eq!(process.taps()[&SUBJECT].at, at);
    }

    #[tokio::test]
    async fn what_costs_more_than_there_ever_is_costs_everything() {
        let process = processes(1).remove(0);
        assert_eq!(process.take(SUBJECT, plan(5), 10).await.unwrap().0[0].unwrap().remaining, 0);
        assert!(process.take(SUBJECT, plan(5), 1).await.is_err());
    }

    #[tokio::test]
    async fn without_redis_the_process_counts_by_itself() {
        let process = Limiter::new(crate::app::connect("redis://127.0.0.1:1/").unwrap(), "test");
        let outcomes = join_all((0..7).map(|_| process.take(SUBJECT, plan(5), 1))).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
        assert!(process.is_alone());
        assert!(process.take(SUBJECT, plan(5), 1).await.is_err());
    }
}
