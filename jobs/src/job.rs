use serde::Serialize;
use serde::de::DeserializeOwned;

use gantry_schema::jobs::{Concurrency, Unique};

use crate::{Policy, Request};

/// A kind of job: what it is asked with, and how it is to be run. Who does it is in `gantry-workers`.
///
/// A payload carries ids, not records, and never secrets. A payload that changes gets new fields with
/// `#[serde(default)]`, or a new kind: jobs of the previous release must still be understood.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `feature.verb`. Stable for ever: it is in the table.
    const KIND: &'static str;

    /// Queue, attempts, time-out, retries.
    const POLICY: Policy;

    /// The key that at most one such job holds.
    fn unique(&self) -> Option<Unique> {
        None
    }

    /// The key under which only so many such jobs run at a time.
    fn concurrency(&self) -> Option<Concurrency> {
        None
    }

    /// The rate it uses up: the name of a provider's limit.
    fn rate(&self) -> Option<String> {
        None
    }

    /// Begins to ask for it.
    fn request(&self) -> Request<'_, Self>
    where
        Self: Sized,
    {
        Request::new(self)
    }
}
