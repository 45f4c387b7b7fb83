//! The API as callers see it, over poem's test client: no socket, no Redis, a clock that stands still.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod accounts;
mod api_keys;
mod audit;
mod conditional;
mod defence;
mod document;
mod documented;
mod dry_run;
mod edge;
mod errors;
mod factors;
mod health;
mod inspector;
mod jobs;
mod license_claims;
mod license_records;
mod licenses;
mod limits;
mod lockdowns;
mod members;
mod notices;
mod oauth;
mod once;
mod organizations;
mod paging;
mod passkeys;
mod people;
mod places;
mod processes;
mod queues;
mod record;
mod schedules;
mod schema;
mod scope;
mod sessions;
mod setup;
mod sign_ins;
mod sign_up;
mod support;
mod tenancy;
mod together;
mod usage;
mod walk;
mod webhooks;
