//! The platform's own housekeeping.

mod forget_jobs;
