//! The tenants, in a tree.

mod permissions;
mod queries;

pub use permissions::{Needed, Permission, Permissions, UnknownPermission, needed};
pub use queries::{Organization, create, find, ids, list};
