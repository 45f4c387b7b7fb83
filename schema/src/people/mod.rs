//! People: who signs in, whatever they are members of.

mod email;
pub mod passwords;
mod queries;

pub use email::{Email, InvalidEmail};
pub use queries::{NewPerson, Person, State, find, insert, presented};
