//! Telling people.

mod send;
