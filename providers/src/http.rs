//! The one way to make an HTTP client.

use std::time::Duration;

use reqwest::{ClientBuilder, redirect::Policy};

/// What every request says it is from.
pub(crate) const USER_AGENT: &str = concat!("Gantry/", env!("CARGO_PKG_VERSION"));

/// A connection that is not made by then is given up, whatever time the caller has left.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Long enough to carry one burst to the next, short enough not to hold thousands of receivers' sockets open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as one busy receiver is called at a time: fewer would reconnect under load.
const IDLE_PER_HOST: usize = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A peer that sends more is up to no good; both bounds are well above what servers send.
const MAX_HEADERS: usize = 256;
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// A client that verifies certificates, follows no redirect and heeds no proxy of the environment.
///
/// A redirect or a proxy would lead to an address that nobody checked.
#[expect(clippy::disallowed_methods, reason = "the one place where clients are made")]
pub(crate) fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .tcp_keepalive(KEEP_ALIVE)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
}
