//! The platform's own housekeeping.

mod forget_answers;
mod forget_jobs;
