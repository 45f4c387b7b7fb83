//! What can go wrong on the way to the outside world.

use std::time::Duration;

/// The result of a call to the outside world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason beneath an [`Error`].
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call to the outside world brought no answer.
///
/// An answer that says "no" is not an error here. The messages are fit for the person who gave the address: they never
/// name an address that a host name resolved to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration of this installation cannot be used.
    #[error("the configuration of {what} cannot be used")]
    Configuration {
        /// The setting at fault.
        what: String,
        /// Why it cannot be used.
        #[source]
        source: Cause,
    },
    /// The URL is not one that is called.
    #[error("the URL is refused: {0}")]
    InvalidUrl(&'static str),
    /// A header cannot be sent, or is not the caller's to set.
    #[error("the header {0:?} cannot be sent")]
    InvalidHeader(String),
    /// The host is, or resolves to, an address that must not be reached from here.
    #[error("{host} is not at a public address")]
    RefusedAddress {
        /// The host of the URL.
        host: String,
    },
    /// The host's name does not resolve.
    #[error("{host} could not be resolved")]
    Dns {
        /// The host of the URL.
        host: String,
        /// What the resolver says.
        #[source]
        source: Cause,
    },
    /// No connection could be made.
    #[error("no connection could be made")]
    Connect(#[source] Cause),
    /// The other side's certificate is not trusted, or no common encryption was found.
    #[error("no trusted encrypted connection could be made")]
    Tls(#[source] Cause),
    /// The whole answer did not arrive in time.
    #[error("there was no complete answer within {0:?}")]
    Timeout(Duration),
    /// The connection ended before the answer was complete.
    #[error("the connection was closed before the answer was complete")]
    Reset(#[source] Cause),
    /// The answer's head is larger than is read.
    #[error("the head of the answer is too large")]
    TooLarge(#[source] Cause),
    /// The answer is longer than is read.
    #[error("the answer is longer than is read")]
    TooLong(#[source] Cause),
    /// The answer is not what the other side's protocol has.
    #[error("the answer is not in order")]
    Protocol(#[source] Cause),
    /// This installation has no such provider.
    #[error("no {0} is configured")]
    NotConfigured(&'static str),
    /// The vendor does not know who asks, or not any more.
    #[error("the credential is refused with {code}: {reason}")]
    CredentialRefused {
        /// The vendor's own code.
        code: String,
        /// What the vendor says, without the credential.
        reason: String,
    },
    /// The vendor does not take it, and will not later either.
    #[error("it was refused with {code}: {reason}")]
    Rejected {
        /// The vendor's own code.
        code: String,
        /// What the vendor says, without what it was asked for.
        reason: String,
    },
    /// The vendor does not take it now.
    #[error("it was put off with {code}: {reason}")]
    PutOff {
        /// The vendor's own code.
        code: String,
        /// What the vendor says, without what it was asked for.
        reason: String,
        /// How long to wait, where the vendor says so.
        wait: Option<Duration>,
    },
}

impl Error {
    /// The stable name of what happened, for records and for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Configuration { .. } => "configuration",
            Self::InvalidUrl(_) => "invalid_url",
            Self::InvalidHeader(_) => "invalid_header",
            Self::RefusedAddress { .. } => "refused_address",
            Self::Dns { .. } => "dns",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Reset(_) => "reset",
            Self::TooLarge(_) | Self::TooLong(_) => "too_large",
            Self::Protocol(_) => "protocol",
            Self::NotConfigured(_) => "not_configured",
            Self::CredentialRefused { .. } => "credential_refused",
            Self::Rejected { .. } => "rejected",
            Self::PutOff { .. } => "put_off",
        }
    }

    /// Whether the same call may succeed later. What is refused on our side stays refused; the rest of the world changes.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Configuration { .. }
            | Self::InvalidUrl(_)
            | Self::InvalidHeader(_)
            | Self::RefusedAddress { .. }
            | Self::NotConfigured(_)
            | Self::CredentialRefused { .. }
            | Self::Rejected { .. } => false,
            Self::Dns { .. }
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Timeout(_)
            | Self::Reset(_)
            | Self::TooLarge(_)
            | Self::TooLong(_)
            | Self::Protocol(_)
            | Self::PutOff { .. } => true,
        }
    }

    /// The message and the reasons beneath it in one line.
    #[must_use]
    pub fn explain(&self) -> String {
        with_causes(self)
    }
}

/// An error and the reasons beneath it in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        line.push_str(": ");
        line.push_str(&reason.to_string());
        source = reason.source();
    }
    line
}
