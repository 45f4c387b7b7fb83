//! Keeping the record.

mod checkpoint;
mod seal;
