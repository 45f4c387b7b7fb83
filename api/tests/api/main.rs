//! The API as callers see it, over poem's test client: no socket, no Redis, a clock that stands still.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod accounts;
mod document;
mod errors;
mod health;
mod jobs;
mod queues;
mod schedules;
mod setup;
mod support;
mod tenancy;
mod webhooks;
