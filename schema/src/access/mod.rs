//! Who may do what: the rules that every request is decided by, and what they look at.

mod queries;
mod rules;
pub mod support;

/// Where PostgreSQL tells API processes that the keys and members of an organization may do something else: its uuid.
pub const CHANNEL: &str = "gantry_access";

pub use queries::{Reached, reach};
pub(crate) use queries::{behind, permissions_of_member, read as read_permissions};
pub use rules::{Behind, Check, Hold, Reach, Reason, Subject};
