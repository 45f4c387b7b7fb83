//! API keys: what programs authenticate with.

mod queries;
mod token;

pub use queries::{ApiKey, Filter, authenticate, create, list, revoke};
pub use token::{InvalidToken, Token};
