//! Requests that are sent again: what was answered to them, kept in the transaction of their effect.

mod queries;

pub use queries::{Answer, Begun, Error, KEPT, Request, begin, forget, keep};
