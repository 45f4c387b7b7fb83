//! The tenants, in a tree.

mod permissions;
mod queries;

pub use permissions::{Permission, UnknownPermission};
pub use queries::{Organization, create, find, ids, list};
