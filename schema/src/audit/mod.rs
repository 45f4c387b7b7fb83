//! The record: who did what, on whose authority, from where, and what changed.
//!
//! A request's transaction knows its [`Author`] and has begun an entry; a handler says more of it where it matters:
//!
//! ```text
//! tx.audit().on(&key.id).called(&key.name).changed("name", &before.name, &key.name);
//! tx.record("session.revoke").on(&session.id);                  // something else that happens on the way
//! ```
//!
//! Entries are written with the commit and never changed. Within seconds [`sealing`] numbers those of each organization
//! and links them into a chain of hashes ([`chain`]) and a Merkle tree ([`merkle`]); [`checkpoints`] sign where they end.
//! Until then the installation's keys vouch for an entry ([`vouching`]). [`verify`] finds whatever was done to any of it.
//! As its [policy](policies) says, a record goes on as events, and old entries that were copied ([`archives`]) are dropped
//! ([`retention`]).

pub mod archives;
mod asking;
mod author;
pub mod chain;
mod changes;
pub mod checkpoints;
mod draft;
mod heads;
pub mod keys;
pub mod merkle;
pub mod partitions;
pub mod policies;
pub mod proofs;
pub mod queries;
pub mod receipts;
pub mod record;
pub mod retention;
pub mod sealing;
mod stored;
pub mod subjects;
pub mod verify;
pub mod vouching;
mod write;

pub(crate) use asking::asking;
pub use asking::asks_for;
pub use author::{Actor, ActorKind, Author, trace_id};
pub use changes::Change;
pub use draft::{Draft, Outcome, Target};
pub use record::Record;
pub use write::RecordError;
pub(crate) use write::{Recorder, Scope, rows_alone, write_all};
