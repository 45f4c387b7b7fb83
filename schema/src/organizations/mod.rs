//! The tenants, in a tree: an organization sees itself and those below it.

mod counts;
pub mod hosts;
mod kind;
pub mod lifecycle;
mod permissions;
mod queries;
pub mod settings;
mod slug;
pub mod tree;

pub use counts::{COUNTED, Count, Counted};
pub use kind::{OrganizationType, UnknownType};
pub use permissions::{Needed, Permission, Permissions, UnknownPermission, needed};
pub use queries::{Change, NewOrganization, Organization, create, find, ids, list, lock, update};
pub use slug::{InvalidSlug, Slug};
