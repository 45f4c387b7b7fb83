//! Stories across the whole platform. Each runs on a database of its own, in any order.

mod webhooks;
