//! Telling receivers what happened.

mod deliver;
