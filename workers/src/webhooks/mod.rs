//! Telling receivers what happened.
//!
//! ```text
//!  deliver ─► desk: load with others ─► gate ─► send ─► desk: write down with others
//!                                        │ full, open
//!                                        └─► park ─► backlog ─► drain: one job per endpoint, at its pace
//! ```

mod deliver;
mod desk;
mod drain;
mod gate;
mod message;
mod outcome;
mod replay;
mod together;
