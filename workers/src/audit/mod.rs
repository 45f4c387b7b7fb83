//! Keeping the record.

mod checkpoint;
mod drop;
mod forward;
mod seal;
