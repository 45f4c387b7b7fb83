//! Servers: what is asked for, the stacks of Terraform behind them, what is run on those, and the states Terraform keeps.

pub mod change;
pub mod connected;
pub mod keys;
pub mod openssh;
pub mod options;
pub mod plans;
pub mod problem;
pub mod queries;
pub mod runs;
pub mod state;
pub mod states;
pub mod warnings;
pub mod watch;

use std::str::FromStr;

pub use options::Options;
pub use problem::Problem;

use crate::words::words;

words! {
    /// Where a server is in its life.
    ServerState {
        /// It is being made, or connected.
        Provisioning = "provisioning",
        /// Somebody has to say that it may cost as much.
        AwaitingApproval = "awaiting_approval",
        /// It was looked at, and everything was as it has to be.
        Ready = "ready",
        /// It could not be made or connected, or is not as it has to be.
        Failed = "failed",
        /// It is being removed, or forgotten.
        Destroying = "destroying",
        /// It is gone, or forgotten.
        Destroyed = "destroyed",
    }
}

words! {
    /// How the platform came by a server.
    ServerKind {
        /// It was made by the platform, and is removed by it.
        Made = "made",
        /// It was there before, and was connected.
        Connected = "connected",
    }
}

words! {
    /// What becomes of what was half made when something goes wrong.
    OnFailure {
        /// It is removed again.
        Remove = "remove",
        /// It stays, to be looked at, gone on with or removed.
        Keep = "keep",
    }
}

words! {
    /// What is done with a stack.
    RunKind {
        /// Everything is made that is to be there.
        Provision = "provision",
        /// It becomes what somebody wants it to be from now on.
        Update = "update",
        /// What differs from what is to be there is found, and put right when somebody says so.
        Mend = "mend",
        /// Everything is removed that is there.
        Destroy = "destroy",
        /// Somebody gets into a machine that is there, and looks whether it is as it has to be.
        Connect = "connect",
        /// A machine that was connected is looked after no more; nothing on it is changed.
        Forget = "forget",
    }
}

words! {
    /// How far a run is.
    RunState {
        /// No worker has begun.
        Queued = "queued",
        /// It is found out what there is to do.
        Planning = "planning",
        /// Somebody has to say that it may be done.
        AwaitingApproval = "awaiting_approval",
        /// Somebody has said so.
        Approved = "approved",
        /// It is done.
        Applying = "applying",
        /// What was made is looked at.
        Verifying = "verifying",
        /// It was done.
        Succeeded = "succeeded",
        /// It could not be done.
        Failed = "failed",
        /// Something else took its place.
        Cancelled = "cancelled",
    }
}

impl RunKind {
    /// Whether a run that comes to nothing when it is so far may leave the server otherwise than it was.
    #[must_use]
    pub const fn may_spoil(self, state: RunState) -> bool {
        match self {
            Self::Provision | Self::Destroy | Self::Connect | Self::Forget => true,
            Self::Update | Self::Mend => matches!(state, RunState::Applying | RunState::Verifying),
        }
    }
}

impl RunState {
    /// Nothing more comes of it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The word is none of those that are stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of the words that are stored there")]
pub struct UnknownWord(pub String);

macro_rules! read_back {
    ($($type:ident),*) => {
        $(impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
            }
        })*
    };
}
read_back!(ServerState, ServerKind, OnFailure, RunKind, RunState);

/// Reads a word of a row.
pub(crate) fn read<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(word: &str) -> Result<T, sqlx::Error> {
    word.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Whether what costs as much in a month is made only when somebody has said that it may; `None`: anything may be made.
#[must_use]
pub fn needs_approval(monthly_cost: i64, unapproved: Option<i64>) -> bool {
    unapproved.is_some_and(|most| monthly_cost > most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for state in ServerState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert!("gone".parse::<RunKind>().is_err());
    }

    #[test]
    fn what_costs_more_than_is_made_without_asking_is_asked_about() {
        let asked = [needs_approval(500, None), needs_approval(500, Some(500)), needs_approval(501, Some(500))];
        assert_eq!(asked, [false, false, true]);
        assert!(!needs_approval(0, Some(0)));
    }
}
