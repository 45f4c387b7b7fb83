//! The record of the caller's organization, and of those below it.

pub(crate) mod about;
pub(crate) mod refusals;

pub use refusals::flush_every_minute;
