//! Events and outgoing webhooks: what receivers are told, and how they know it was us.
//!
//! ```text
//!  event ─► fan out ─┬─► one job per endpoint that can take it now
//!                    └─► backlog of an endpoint that is ordered, limited or does not answer ─► one job at a time
//! ```

pub mod attempts;
pub mod backlog;
pub mod endpoints;
pub mod event_types;
pub mod events;
pub mod fan_out;
pub mod health;
pub mod secrets;
pub mod signature;

pub use attempts::Attempt;
pub use endpoints::Endpoint;
pub use events::Event;
