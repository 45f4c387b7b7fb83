//! Stories across the whole platform. Each runs on a database of its own, in any order.

mod attempts;
mod controls;
mod enqueue;
mod keys;
mod retention;
mod schedules;
mod webhooks;
mod workflows;
