//! Stories across the whole platform. Each runs on a database of its own, in any order.

#![expect(clippy::unwrap_used, reason = "a story fails by panicking")]

mod attempts;
mod audit;
mod backlogs;
mod connected_servers;
mod controls;
mod enqueue;
mod feed;
mod keys;
mod kit;
mod ledger;
mod licenses;
mod messages;
mod modules;
mod personal;
mod provisioning;
mod queue;
mod receivers;
mod resealing;
mod retention;
mod schedules;
mod servers;
mod stand_in;
mod tenancy;
mod tree;
mod webhooks;
mod workflows;
