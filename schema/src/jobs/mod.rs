//! The ledger of jobs: one row each, and the small tables through which what is live is found.
//!
//! Who calls what: callers [`enqueue`] and [`control`]; the engine [`claim`]s, [`settle`]s, keeps
//! [`lease`]s, [`relay`]s and decides its [`leader`]s; [`workflow`] connects jobs; [`retention`] forgets them.

pub mod claim;
pub mod control;
pub mod enqueue;
pub mod keys;
pub mod leader;
pub mod lease;
pub mod limits;
pub mod log;
pub mod pause;
pub mod relay;
pub mod retention;
pub mod row;
pub mod settle;
pub mod state;
pub mod together;
pub mod workflow;

pub use enqueue::{Concurrency, Dependency, Enqueued, Held, NewJob, OnConflict, Outcome, Unique};
pub use row::{Failure, Job};
pub use state::State;

use crate::{JobId, OrganizationId};

/// A job that may be claimed now: what the doorbell carries to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The job.
    pub id: JobId,
    /// Whose turn it uses.
    pub organization: OrganizationId,
    /// The queue it waits in.
    pub queue: String,
    /// 0 first, 9 last, among the jobs of its organization.
    pub priority: i16,
    /// Has keys, so the careful claim takes it.
    pub careful: bool,
}
