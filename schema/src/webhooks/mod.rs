//! Outgoing webhooks: what receivers are told, and how they know it was us.

pub mod signature;
