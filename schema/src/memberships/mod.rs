//! Who belongs to which organization, and as what.

pub mod custom;
pub mod invitations;
pub mod members;
mod queries;
mod role;

pub use custom::CustomRole;
pub use queries::{Membership, State, counts, find, has_owner, insert, latest, list, of_person};
pub use role::{Role, UnknownRole, permissions_of};
