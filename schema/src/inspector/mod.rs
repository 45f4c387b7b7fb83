//! Receiving bins, so that webhooks can be tried without a server of one's own.

pub mod queries;
mod token;

pub use queries::{Bin, Inspected};
pub use token::{BinToken, InvalidToken};
