//! Jobs for finding out whether everything works.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue, Retry};

/// A job that does nothing but show the engine at work: it takes some steps, tells how far it is, writes log
/// lines, and fails as often as it is told to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// How many steps to take, at most 1 000.
    #[serde(default)]
    pub steps: u16,
    /// How long a step takes, at most 10 000.
    #[serde(default)]
    pub step_milliseconds: u16,
    /// So many attempts fail before one succeeds.
    #[serde(default)]
    pub failures: u16,
    /// Any text; it is the job's result.
    #[serde(default)]
    pub message: String,
}

impl Job for Probe {
    const KIND: &'static str = "diagnostics.probe";
    const POLICY: Policy = Policy::new(Queue::Default)
        .timeout(Duration::from_mins(10))
        .retry(Retry::Exponential { base: Duration::from_secs(1), cap: Duration::from_secs(30) });
}
