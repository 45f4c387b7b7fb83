//! Stories across the whole platform. Each runs on a database of its own, in any order.

mod attempts;
mod controls;
mod enqueue;
mod keys;
mod ledger;
mod queue;
mod retention;
mod schedules;
mod tenancy;
mod webhooks;
mod workflows;
