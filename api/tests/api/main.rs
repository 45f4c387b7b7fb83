//! The API as callers see it, over poem's test client: no socket, no Redis, a clock that stands still.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod accounts;
mod audit;
mod conditional;
mod document;
mod documented;
mod dry_run;
mod edge;
mod errors;
mod health;
mod inspector;
mod jobs;
mod limits;
mod notices;
mod once;
mod organizations;
mod paging;
mod people;
mod queues;
mod schedules;
mod schema;
mod sessions;
mod setup;
mod support;
mod tenancy;
mod together;
mod walk;
mod webhooks;
