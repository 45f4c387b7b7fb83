//! Who belongs to which organization, and as what.

pub mod invitations;
mod queries;
mod role;

pub use queries::{Membership, State, counts, find, insert, latest, list, of_person};
pub use role::{Role, UnknownRole, permissions_of};
