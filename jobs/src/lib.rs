//! What may be asked of the platform: one small type per kind of job, and the ways to ask.
//!
//! 1. **Define** a kind: a payload that carries ids, and its policy.
//!
//! ```
//! use gantry_jobs::{Job, Policy, Queue};
//! use serde::{Deserialize, Serialize};
//!
//! /// Greets somebody.
//! #[derive(Debug, Serialize, Deserialize)]
//! pub struct Greet {
//!     pub name: String,
//! }
//!
//! impl Job for Greet {
//!     const KIND: &'static str = "examples.greet"; // stable for ever: it is in the table
//!     const POLICY: Policy = Policy::new(Queue::Default).attempts(3);
//! }
//! ```
//!
//! 2. **Register** it: one line in [`catalogue`], one line with its handler in `gantry_workers::registry`.
//! 3. **Enqueue** it in the transaction of the change that asks for it:
//!    `Greet { name }.request().enqueue(&mut tx, &by).await?`. It runs if, and only if, `tx` is committed.
//! 4. **Test** it: `gantry_tests` drains the ledger with a fixed clock and without Redis.

pub mod audit;
pub mod catalogue;
pub mod credentials;
pub mod diagnostics;
pub mod doorbell;
pub mod gather;
mod job;
pub mod licenses;
pub mod maintenance;
pub mod messages;
pub mod modules;
pub mod personal;
pub mod policy;
pub mod process;
pub mod request;
pub mod schedule;
pub mod servers;
pub mod signals;
pub mod webhooks;

pub use job::Job;
pub use policy::{Policy, Queue, Retry};
pub use request::{Asked, By, Request};
