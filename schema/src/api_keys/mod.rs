//! API keys: what programs authenticate with.

mod queries;
mod template;
mod token;

pub use queries::{ApiKey, Filter, NOTED, NewApiKey, authenticate, create, find, list, lock, revoke, rotate, touch};
pub use template::Template;
pub use token::{InvalidToken, Token};
