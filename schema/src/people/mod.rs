//! People: who signs in, whatever they are members of.

mod email;
pub mod hashing;
pub mod one_time;
pub mod passwords;
mod queries;
pub mod rules;

pub use email::{Email, InvalidEmail};
pub use queries::{NewPerson, Person, PersonChange, State, change, change_email, find, insert, presented};
pub use rules::Typed;
