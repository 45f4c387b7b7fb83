//! Which queues a worker serves.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use crate::Queue;

/// More slots than this in one process are a slip of the finger.
const MAX_SLOTS: usize = 100_000;

/// The queues a worker serves, and how many jobs of each it runs at a time: `webhooks=50,default=20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots(Vec<(Queue, NonZeroUsize)>);

impl Slots {
    /// In the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = (Queue, NonZeroUsize)> + '_ {
        self.0.iter().copied()
    }

    /// How many jobs of a queue; none where it is not served.
    pub fn of(&self, queue: Queue) -> usize {
        self.iter().find(|(served, _)| *served == queue).map_or(0, |(_, slots)| slots.get())
    }

    /// How many jobs in all.
    pub fn total(&self) -> usize {
        self.iter().map(|(_, slots)| slots.get()).sum()
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (queue, slots)) in self.iter().enumerate() {
            write!(f, "{}{queue}={slots}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Why a text does not say which queues are served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSlots {
    /// No `=`.
    #[error("{0:?} is not queue=number")]
    Shape(String),
    /// No such queue.
    #[error(transparent)]
    Queue(#[from] crate::policy::UnknownQueue),
    /// Not a number that makes sense.
    #[error("{1:?} jobs of queue {0} at a time: a number from 1 to {MAX_SLOTS} is needed")]
    Number(Queue, String),
    /// Named twice.
    #[error("queue {0} is named twice")]
    Twice(Queue),
}

impl FromStr for Slots {
    type Err = NotSlots;

    fn from_str(text: &str) -> Result<Self, NotSlots> {
        let mut slots: Vec<(Queue, NonZeroUsize)> = Vec::new();
        for part in text.split(',') {
            let (queue, number) = part.split_once('=').ok_or_else(|| NotSlots::Shape(part.trim().to_owned()))?;
            let queue: Queue = queue.trim().parse()?;
            if slots.iter().any(|(named, _)| *named == queue) {
                return Err(NotSlots::Twice(queue));
            }
            let number = match number.trim().parse::<NonZeroUsize>() {
                Ok(number) if number.get() <= MAX_SLOTS => number,
                _ => return Err(NotSlots::Number(queue, number.trim().to_owned())),
            };
            slots.push((queue, number));
        }
        Ok(Self(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::settings::tests::settings;

    #[test]
    fn a_worker_serves_the_queues_it_is_told_and_no_others() {
        let slots: Slots = "webhooks=50, default=20".parse().unwrap();
        assert_eq!((slots.of(Queue::Webhooks), slots.of(Queue::Default), slots.of(Queue::Maintenance)), (50, 20, 0));
        assert_eq!((slots.total(), slots.to_string()), (70, "webhooks=50,default=20".to_owned()));
    }

    #[test]
    fn every_queue_is_served_by_default() {
        let slots: Slots = settings(&[]).required("QUEUES").unwrap();
        assert!(Queue::ALL.into_iter().all(|queue| slots.of(queue) > 0), "{slots}");
    }

    #[test]
    fn a_text_that_serves_nothing_known_is_refused_with_the_reason() {
        for (text, reason) in [
            ("webhooks", r#""webhooks" is not queue=number"#),
            ("webhooks=50,", r#""" is not queue=number"#),
            ("web=50", r#""web" is no queue; the queues are default, webhooks, provisioning, maintenance"#),
            ("webhooks=0", r#""0" jobs of queue webhooks at a time: a number from 1 to 100000 is needed"#),
            ("webhooks=-1", r#""-1" jobs of queue webhooks at a time: a number from 1 to 100000 is needed"#),
            ("default=1,default=2", "queue default is named twice"),
        ] {
            assert_eq!(text.parse::<Slots>().unwrap_err().to_string(), reason);
        }
    }
}
