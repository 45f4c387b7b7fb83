//! The platform's own housekeeping.

use std::time::Duration;

use gantry_schema::jobs::{Held, OnConflict, Unique};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Forgets finished jobs whose time is over, and prepares the coming days' partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetJobs {}

impl Job for ForgetJobs {
    const KIND: &'static str = "maintenance.forget_jobs";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets what was answered to requests with an `Idempotency-Key` more than a day ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAnswers {}

impl Job for ForgetAnswers {
    const KIND: &'static str = "maintenance.forget_answers";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets events, and attempts to deliver them, whose time is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetEvents {}

impl Job for ForgetEvents {
    const KIND: &'static str = "maintenance.forget_events";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Removes everything of organizations that were deleted too long ago to be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeOrganizations {}

impl Job for PurgeOrganizations {
    const KIND: &'static str = "maintenance.purge_organizations";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets what applications were given and has expired: authorizations, their tokens, devices that waited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetAuthorizations {}

impl Job for ForgetAuthorizations {
    const KIND: &'static str = "maintenance.forget_authorizations";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets what was called, when its time is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetUsage {}

impl Job for ForgetUsage {
    const KIND: &'static str = "maintenance.forget_usage";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets messages to people that have been kept long enough.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetMessages {}

impl Job for ForgetMessages {
    const KIND: &'static str = "maintenance.forget_messages";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets what was begun and never completed: sign-ins, factors that were not confirmed, challenges of passkeys; and what is kept
/// for a while only: codes that were sent, copies of what is known of people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetSignIns {}

impl Job for ForgetSignIns {
    const KIND: &'static str = "maintenance.forget_sign_ins";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Seals again, with the current key, whatever an older one sealed; afterwards the older one can be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reseal {}

impl Job for Reseal {
    const KIND: &'static str = "maintenance.reseal";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
