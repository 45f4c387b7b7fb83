//! What both processes, api and worker, begin with: settings, logs and traces, metrics, the signal to stop.
//!
//! ```no_run
//! # async fn begin() -> Result<(), Box<dyn std::error::Error>> {
//! use gantry_jobs::process::{Program, Settings, Together as _, metrics, shutdown, telemetry};
//!
//! let settings = Settings::load(Program::Api, std::env::vars_os())?;
//! let (logs, database, redis, listen) = (
//!     telemetry::Options::of(&settings),
//!     settings.postgres("DATABASE_URL"),
//!     settings.redis("REDIS_URL"),
//!     settings.required::<std::net::SocketAddr>("LISTEN"),
//! )
//!     .together()?; // every problem at once
//! let telemetry = telemetry::init(logs)?;
//! metrics::install(settings.address_unless_off("METRICS_LISTEN")?)?;
//! let asked_to_stop = shutdown::requested()?;
//! // … serve until asked_to_stop.await …
//! telemetry.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod connections;
pub mod metrics;
mod queues;
mod receivers;
mod sealing;
mod settings;
pub mod shutdown;
mod span_fields;
pub mod telemetry;
pub mod trace;
mod variables;

pub use connections::Namespace;
pub use queues::Slots;
pub use receivers::{InvalidReceiver, Receivers};
pub use settings::{Problem, Settings, SettingsError, Together};
pub use trace::{Traceparent, continue_trace, current_traceparent};
pub use variables::{Program, ReadBy, Unset, VARIABLES, Variable, help};
