//! Outgoing webhooks: what receivers are told, and how they know it was us.

pub mod queries;
pub mod signature;

pub use queries::{Attempt, Endpoint, Event};
