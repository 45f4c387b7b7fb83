//! Counting in this process alone, while Redis is away.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::subject::{Counts, Owner, Plan, Refused, Subject};

/// Buckets that are remembered; beyond that, strangers share one.
const REMEMBERED: usize = 50_000;

/// The buckets of this process.
#[derive(Debug)]
pub(super) struct Local {
    begun: Instant,
    /// When each will be full, in microseconds.
    full_at: Mutex<HashMap<Subject, u64>>,
}

impl Default for Local {
    fn default() -> Self {
        Self { begun: Instant::now(), full_at: Mutex::default() }
    }
}

impl Local {
    /// Takes cells of all of the subject's buckets, or of none.
    pub(super) fn take(&self, subject: Subject, plan: Plan, cost: u64) -> Result<Counts, Box<Refused>> {
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let subject = if buckets.len() >= REMEMBERED && !buckets.contains_key(&subject) {
            Subject { owner: Owner::Others, key: None, address: None, ..subject }
        } else {
            subject
        };
        let (mut until_full, mut wait) = (Vec::with_capacity(3), 0);
        for (bucket, rate) in subject.buckets().zip(plan.rates()) {
            let until = buckets.get(&bucket).map_or(0, |full_at| full_at.saturating_sub(now));
            wait = wait.max(rate.take(now + until, now, cost).err().unwrap_or(0));
            until_full.push(until);
        }
        if wait > 0 {
            let counts = plan.counts(subject.counted, &until_full, 0);
            return Err(Box::new(Refused { counts, cost, wait: Duration::from_micros(wait) }));
        }
        for ((bucket, rate), until) in subject.buckets().zip(plan.rates()).zip(&mut until_full) {
            *until += cost * rate.interval();
            buckets.insert(bucket, now + *until);
        }
        Ok(plan.counts(subject.counted, &until_full, 0))
    }
}

#[cfg(test)]
mod tests {
    use gantry_schema::limits::Rate;

    use super::super::subject::Counted;
    use super::*;

    fn stranger(number: u32) -> Subject {
        Subject::of_address(std::net::Ipv4Addr::from_bits(number).into(), Counted::Anonymous)
    }

    const PLAN: Plan = Plan { whole: Rate::per_minute(60, 2), key: None, address: None };

    #[tokio::test(start_paused = true)]
    async fn what_is_used_up_flows_in_again() {
        let local = Local::default();
        let take = |cost| local.take(stranger(1), PLAN, cost);
        assert_eq!(take(2).unwrap().0[0].unwrap().remaining, 0);
        assert_eq!(take(1).unwrap_err().wait, Duration::from_secs(1));
        assert!(local.take(stranger(2), PLAN, 1).is_ok(), "another is not concerned");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(take(1).is_ok() && take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_bucket_refuses_costs_the_others_nothing() {
        let local = Local::default();
        let subject = Subject { address: Some(std::net::Ipv4Addr::LOCALHOST.into()), ..stranger(1) };
        let plan = Plan { address: Some(Rate::per_minute(60, 1)), ..PLAN };
        assert!(local.take(subject, plan, 1).is_ok() && local.take(subject, plan, 1).is_err());
        assert!(local.take(stranger(1), PLAN, 1).is_ok(), "the second cell is still there");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_beyond_those_that_can_be_remembered_share_a_bucket() {
        let local = Local::default();
        let many = u32::try_from(REMEMBERED).unwrap();
        assert!((0..many).all(|number| local.take(stranger(number), PLAN, 1).is_ok()));
        assert!((many..many + 2).all(|number| local.take(stranger(number), PLAN, 1).is_ok()));
        assert!(local.take(stranger(many + 2), PLAN, 1).is_err() && local.take(stranger(1), PLAN, 1).is_ok());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(local.take(stranger(many + 3), PLAN, 1).is_ok());
        assert_eq!(local.full_at.lock().unwrap().len(), 1, "those that are full again are forgotten");
    }
}
