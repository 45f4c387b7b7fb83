//! How jobs are done: the engine that carries them out, and one file per kind of job under its feature.
//!
//! - [`engine`] moves jobs from the ledger to handlers and their outcomes back. apalis appears there only.
//! - [`registry`] joins kinds and handlers, one line each.
//! - A handler implements [`Run`] for its payload and gets a [`Context`].

mod audit;
mod context;
mod credentials;
pub mod diagnostics;
pub mod drain;
pub mod engine;
mod execute;
mod failure;
mod licenses;
pub mod maintenance;
mod messages;
mod modules;
mod personal;
pub mod registry;
mod servers;
mod shared;
pub mod webhooks;

pub use context::Context;
pub use execute::Runtime;
pub use failure::Failure;
pub use registry::{Registry, Run};
pub use shared::Shared;

/// How a handler ended well.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// Nothing more to say.
    Quietly,
    /// With a result, to be read by callers and by later steps.
    With(serde_json::Value),
    /// The handler has committed its work and the job's end together, see [`Context::complete`].
    Committed,
}
