//! The one way to make an HTTP client.

mod connection;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client as Pooled, connect::dns::Name},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::CertificateDer};
use rustls_platform_verifier::Verifier;
use tower_service::Service;

use crate::error::Cause;
use connection::Connector;
pub(crate) use connection::{Meter, TooMuch};

/// What every request says it is from.
pub(crate) const USER_AGENT: &str = concat!("Gantry/", env!("CARGO_PKG_VERSION"));

/// Long enough to carry one burst to the next, short enough not to hold thousands of receivers' sockets open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as one busy receiver is called at a time: fewer would reconnect under load.
const IDLE_PER_HOST: usize = 256;
/// A peer that sends more is up to no good; both bounds are well above what servers send.
const MAX_HEADERS: usize = 256;
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// A client of HTTP/1.1, with one pool of connections.
pub(crate) type Client<R> = Pooled<Connector<R>, Full<Bytes>>;

/// Addresses of a name, with port 0: the connector puts the port in its place.
pub(crate) type Addresses = std::vec::IntoIter<SocketAddr>;

/// Resolves names as the system does: for hosts that the installation itself chose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Service<Name> for System {
    type Response = Addresses;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Addresses, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(addresses.into_iter())
        })
    }
}

/// A client that verifies certificates, follows no redirect and heeds no proxy of the environment: either would lead to an
/// address that nobody checked. It trusts `roots` beside the system's.
///
/// It speaks HTTP/1.1 and nothing newer, in which what a peer may send before and as its answer can be counted: many
/// answers share a connection of HTTP/2, and a [`Meter`] could not tell whose bytes they are.
#[expect(clippy::disallowed_methods, reason = "the one place where clients are made")]
pub(crate) fn client<R>(resolver: R, roots: Vec<CertificateDer<'static>>) -> Result<Client<R>, rustls::Error>
where
    R: Service<Name, Response = Addresses, Error = Cause, Future: Send> + Clone + Send + Sync + 'static,
{
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Pooled::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .http1_max_headers(MAX_HEADERS)
        .http1_max_buf_size(MAX_HEADER_BYTES)
        .build(Connector::new(resolver, tls)))
}
