//! What stories, benchmarks and torture have in common.
//!
//! A story gets a database of its own and tells what happens on a [`Platform`] whose clock stands still:
//!
//! ```no_run
//! use chrono::Duration;
//! use gantry_jobs::webhooks::DeliverWebhook;
//! use gantry_tests::Platform;
//! use sqlx::PgPool;
//!
//! #[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
//! async fn an_event_is_delivered(pool: PgPool) {
//!     let platform = Platform::new(pool).await;
//!     let acme = platform.organization("acme").await;
//!     acme.endpoint("https://receiver.example/hooks").await;
//!     acme.event("invoice.paid", serde_json::json!({ "amount": 12 })).await;
//!
//!     platform.run_jobs().await;
//!     platform.assert_ran::<DeliverWebhook>(1);
//! }
//! ```
//!
//! No Redis is needed for that; a story about the engine itself takes a [`Live`] one.

pub mod actor;
pub mod faults;
pub mod kinds;
pub mod live;
pub mod percentile;
pub mod platform;
pub mod process;

pub use actor::{Actor, Receiver};
pub use live::Live;
pub use platform::Platform;
