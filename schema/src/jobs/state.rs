//! Where a job is in its life.

use std::fmt;
use std::str::FromStr;

/// Where a job is in its life.
///
/// ```mermaid
/// stateDiagram-v2
///     [*] --> waiting: after other jobs
///     [*] --> scheduled: run_at ahead
///     [*] --> available
///     waiting --> available: predecessors succeeded
///     waiting --> cancelled: a predecessor did not
///     scheduled --> available: its time came
///     available --> running: claimed
///     running --> succeeded
///     running --> scheduled: retry or snooze
///     running --> available: rescued or handed back
///     running --> discarded: attempts exhausted
///     running --> cancelled
///     scheduled --> cancelled
///     available --> cancelled
///     discarded --> available: retried by hand
///     cancelled --> available: retried by hand
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "job_state", rename_all = "lowercase")]
pub enum State {
    /// For the end of other jobs.
    Waiting,
    /// For its time: asked for later, retried or snoozed.
    Scheduled,
    /// For a worker.
    Available,
    /// A worker holds it.
    Running,
    /// Done.
    Succeeded,
    /// Given up after its last attempt; kept as a dead letter.
    Discarded,
    /// Stopped on request, or what it waited for failed.
    Cancelled,
}

impl State {
    /// Every state, in the order of life.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Scheduled,
        Self::Available,
        Self::Running,
        Self::Succeeded,
        Self::Discarded,
        Self::Cancelled,
    ];

    /// The word in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Scheduled => "scheduled",
            Self::Available => "available",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens to the job by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Discarded | Self::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no job state; the states are waiting, scheduled, available, running, succeeded, discarded, cancelled"
)]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| UnknownState(word.to_owned()))
    }
}
