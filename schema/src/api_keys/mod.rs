//! API keys: what programs authenticate with.

mod queries;
mod token;

pub use queries::{ApiKey, authenticate, create, list, revoke};
pub use token::{InvalidToken, Token};
