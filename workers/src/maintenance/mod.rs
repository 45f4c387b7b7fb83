//! The platform's own housekeeping.

mod forget_answers;
mod forget_authorizations;
mod forget_events;
mod forget_jobs;
mod forget_messages;
mod forget_sign_ins;
mod forget_usage;
mod purge_organizations;
mod reseal;
