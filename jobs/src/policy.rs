//! How a kind of job is run: where it waits, how often and how long it may try.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gantry_schema::licenses::{Feature, Limit};

/// Where jobs wait. A worker serves any subset of the queues, each with its own number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Queue {
    /// Whatever has no reason to be elsewhere.
    Default,
    /// Deliveries to other people's servers: many, slow at times.
    Webhooks,
    /// Making and removing servers: long, and hungry for memory.
    Provisioning,
    /// The platform's own housekeeping.
    Maintenance,
}

impl Queue {
    /// Every queue.
    pub const ALL: [Self; 4] = [Self::Default, Self::Webhooks, Self::Provisioning, Self::Maintenance];

    /// The word in the table and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Webhooks => "webhooks",
            Self::Provisioning => "provisioning",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no queue; the queues are default, webhooks, provisioning, maintenance")]
pub struct UnknownQueue(pub String);

impl FromStr for Queue {
    type Err = UnknownQueue;

    fn from_str(word: &str) -> Result<Self, UnknownQueue> {
        Self::ALL.into_iter().find(|queue| queue.as_str() == word).ok_or_else(|| UnknownQueue(word.to_owned()))
    }
}

/// How a kind of job is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Where it waits.
    pub queue: Queue,
    /// 0 first, 9 last, among the jobs of one organization.
    pub priority: i16,
    /// Counted attempts before it is discarded.
    pub max_attempts: i32,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long its worker may be silent before the job is given to another.
    pub lease: Duration,
    /// How long a handler may clean up after a cancellation or time-out before it is dropped.
    pub grace: Duration,
    /// When the next attempt follows.
    pub retry: Retry,
    /// How often its worker may fall silent under it before it is taken for poison.
    pub poison: i32,
    /// The feature that the license of its organization has to have when it starts.
    pub needs: Option<Feature>,
    /// What it adds, which has been counted: it starts only while there are no more than the license allows, and it lets
    /// more be added.
    pub adds: Option<Limit>,
}

impl Policy {
    /// The ordinary policy: five attempts of a minute each, about a quarter of an hour in all.
    #[must_use]
    pub const fn new(queue: Queue) -> Self {
        Self {
            queue,
            priority: 4,
            max_attempts: 5,
            timeout: Duration::from_mins(1),
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            retry: Retry::Exponential { base: Duration::from_secs(2), cap: Duration::from_mins(10) },
            poison: 3,
            needs: None,
            adds: None,
        }
    }

    /// Counted attempts before it is discarded.
    #[must_use]
    pub const fn attempts(mut self, max_attempts: i32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// How long one attempt may take.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long its worker may be silent.
    #[must_use]
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The feature that the license of its organization has to have when it starts.
    #[must_use]
    pub const fn needing(mut self, feature: Feature) -> Self {
        self.needs = Some(feature);
        self
    }

    /// What it adds, which has been counted.
    #[must_use]
    pub const fn adding(mut self, limit: Limit) -> Self {
        self.adds = Some(limit);
        self
    }

    /// How often its worker may fall silent under it.
    #[must_use]
    pub const fn poison(mut self, poison: i32) -> Self {
        self.poison = poison;
        self
    }

    /// How long a handler may clean up.
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// 0 first, 9 last.
    #[must_use]
    pub const fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// When the next attempt follows.
    #[must_use]
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

/// When the next attempt follows a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// A random time up to `base` · 2ⁿ, capped: full jitter, so that what failed together does not return
    /// together.
    Exponential {
        /// The bound of the first wait.
        base: Duration,
        /// The bound of every wait.
        cap: Duration,
    },
    /// The kind's own waits, each lengthened by up to a tenth; the last one repeats.
    Ladder(&'static [Duration]),
}

impl Retry {
    /// The wait after the `failed`th counted attempt (from 1), for a `random` number of [0, 1).
    #[must_use]
    pub fn wait(self, failed: i32, random: f64) -> Duration {
        let failed = failed.max(1).unsigned_abs();
        match self {
            Self::Exponential { base, cap } => {
                let bound = base.saturating_mul(1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX)).min(cap);
                bound.mul_f64(random)
            }
            Self::Ladder([]) => Duration::ZERO,
            Self::Ladder(waits) => {
                let step = usize::try_from(failed - 1).unwrap_or(usize::MAX).min(waits.len() - 1);
                waits[step].mul_f64(1.0 + random / 10.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_waits_double_up_to_the_cap() {
        let retry = Retry::Exponential { base: Duration::from_secs(2), cap: Duration::from_mins(1) };
        let longest = |failed| retry.wait(failed, 1.0);
        assert_eq!([longest(1), longest(2), longest(3)], [2, 4, 8].map(Duration::from_secs));
        assert_eq!([longest(6), longest(33), longest(i32::MAX)], [60, 60, 60].map(Duration::from_secs));
        assert_eq!(retry.wait(3, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_ladder_is_climbed_and_its_last_rung_repeats() {
        const WAITS: &[Duration] = &[Duration::from_secs(5), Duration::from_mins(5)];
        let retry = Retry::Ladder(WAITS);
        assert_eq!(retry.wait(1, 0.0), Duration::from_secs(5));
        assert_eq!(retry.wait(2, 0.0), Duration::from_mins(5));
        assert_eq!(retry.wait(9, 1.0), Duration::from_secs(330));
    }

    #[test]
    fn every_queue_is_read_back_from_its_word() {
        for queue in Queue::ALL {
            assert_eq!(queue.as_str().parse(), Ok(queue));
        }
    }
}
