//! Recurring jobs: when they are due, and the table they are kept in.

pub mod cron;
pub mod queries;

pub use queries::Schedule;
