//! Outgoing webhooks: one signed request to an address that somebody else chose.
//!
//! Because a stranger chose the address, [`AddressPolicy`] decides what may be reached, and everything that comes back
//! is bounded in size and time.

pub mod address;
pub mod client;
#[cfg(test)]
pub(crate) mod contract;
pub mod sandbox;
#[cfg(test)]
pub(crate) mod testing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

pub use address::{AddressPolicy, Reach};
pub use client::HttpHookSender;
pub use sandbox::SandboxHooks;

use crate::{Error, Result};

/// How much of an answer's body is kept.
pub const KEPT_BODY: usize = 1024;
/// How much of an answer's body is read before the connection is dropped.
pub const READ_BODY: usize = 64 * 1024;
/// How much of an answer's headers, names and values together, is kept.
pub const KEPT_HEADERS: usize = 8 * 1024;

/// Delivers one webhook.
#[async_trait]
pub trait HookSender: Send + Sync {
    /// Posts the body once and tells what was answered. Any status is an answer, a redirect too: it is not followed.
    async fn send(&self, request: HookRequest) -> Result<HookResponse>;
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRequest {
    /// Where to.
    pub url: Url,
    /// Sent as they are, beside `user-agent`.
    pub headers: Vec<(String, String)>,
    /// Sent as it is.
    pub body: Bytes,
    /// The time for connecting, the answer's head and its body together; the sender's own if there is none.
    pub deadline: Option<Duration>,
}

impl HookRequest {
    /// A delivery without headers.
    pub fn new(url: Url, body: impl Into<Bytes>) -> Self {
        Self { url, headers: Vec::new(), body: body.into(), deadline: None }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The headers, if each may be sent. Those that frame the request or steer the connection are not the caller's.
    fn header_map(&self) -> Result<HeaderMap> {
        let mut map = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let invalid = || Error::InvalidHeader(name.clone());
            let key = HeaderName::try_from(name).map_err(|_| invalid())?;
            let value = HeaderValue::try_from(value).map_err(|_| invalid())?;
            if RESERVED.contains(&key) || key.as_str().starts_with("proxy-") || map.len() >= MAX_HEADERS {
                return Err(invalid());
            }
            map.append(key, value);
        }
        Ok(map)
    }
}

const MAX_HEADERS: usize = 100;
const RESERVED: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// What the receiver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookResponse {
    /// The status, of any kind.
    pub status: u16,
    /// The first [`KEPT_HEADERS`] bytes of headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The first [`KEPT_BODY`] bytes of the body.
    pub body: Bytes,
    /// Whether the body was longer than what is kept.
    pub truncated: bool,
    /// The time from the call to the end of what was read.
    pub latency: Duration,
}

impl HookResponse {
    /// Whether the receiver took the delivery.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of that name, which is given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Who delivers webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum Config {
    /// Over HTTP, to the world.
    Http(client::Config),
    /// To nobody: deliveries are recorded in this process.
    Sandbox,
}

impl Default for Config {
    fn default() -> Self {
        Self::Http(client::Config::default())
    }
}

impl Config {
    /// Builds the sender.
    pub fn build(&self) -> Result<Arc<dyn HookSender>> {
        Ok(match self {
            Self::Http(config) => Arc::new(HttpHookSender::new(config)?),
            Self::Sandbox => Arc::new(SandboxHooks::default()),
        })
    }
}
