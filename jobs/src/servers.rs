//! Making servers and removing them.

use std::time::Duration;

use gantry_schema::jobs::Concurrency;
use gantry_schema::{RunId, StackId};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue, Retry};

/// What Terraform does takes its time, and is to save what it did when it is stopped. It takes memory as well: that a worker
/// falls silent under it says little of it.
const POLICY: Policy = Policy::new(Queue::Provisioning)
    .attempts(10)
    .poison(10)
    .timeout(Duration::from_hours(1))
    .grace(Duration::from_mins(2))
    .retry(Retry::Exponential { base: Duration::from_secs(2), cap: Duration::from_mins(5) });

/// One run at a time for each stack.
fn one_for(stack: StackId) -> Concurrency {
    Concurrency { key: format!("servers.stack:{stack}"), limit: 1 }
}

/// Makes a server: plans, has it approved where that is needed, makes it, and looks at it. A run that waits for approval goes
/// on with another job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionServer {
    /// What is done.
    pub run: RunId,
    /// With what.
    pub stack: StackId,
}

impl Job for ProvisionServer {
    const KIND: &'static str = "servers.provision";
    const POLICY: Policy = POLICY;

    fn concurrency(&self) -> Option<Concurrency> {
        Some(one_for(self.stack))
    }
}

/// Removes a server and everything that was made for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyServer {
    /// What is done.
    pub run: RunId,
    /// With what.
    pub stack: StackId,
}

impl Job for DestroyServer {
    const KIND: &'static str = "servers.destroy";
    const POLICY: Policy = POLICY;

    fn concurrency(&self) -> Option<Concurrency> {
        Some(one_for(self.stack))
    }
}
