//! Who belongs to which organization, and as what.

pub mod invitations;
mod queries;
mod role;

pub use queries::{Membership, State, find, insert, list, of_person};
pub use role::{Role, UnknownRole, permissions_of};
