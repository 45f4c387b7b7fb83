//! API keys: what programs authenticate with.

mod queries;
mod template;
mod token;

pub use queries::{
    ApiKey, Filter, NOTED, NewApiKey, Owned, authenticate, create, find, list, lock, of_person, revoke, rotate, touch,
};
pub use template::Template;
pub use token::{InvalidToken, Token};
