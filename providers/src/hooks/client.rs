//! Delivers webhooks over HTTP.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hickory_resolver::{ResolverBuilder, TokioResolver, config::ResolverOpts};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{self, HeaderValue},
};
use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::{AddressPolicy, HookRequest, HookResponse, HookSender, KEPT_BODY, KEPT_HEADERS, READ_BODY, Reach};
use crate::{
    Error, Result,
    error::Cause,
    http::{self, Addresses, Client, Meter, TooMuch},
};

/// How webhooks are delivered.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The time for one delivery, in seconds.
    pub deadline_seconds: u64,
    /// Whether private addresses and http may be used by every organization.
    pub allow_private: bool,
    /// Networks, addresses and hosts that may be called though they are not public.
    pub allow: Vec<String>,
    /// Certificates in PEM that are trusted beside the system's, for receivers with a private authority.
    pub trusted_roots_pem: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { deadline_seconds: 15, allow_private: false, allow: Vec::new(), trusted_roots_pem: None }
    }
}

impl Config {
    fn policy(&self) -> Result<AddressPolicy> {
        let reach = if self.allow_private { Reach::Private } else { Reach::Public };
        self.allow.iter().try_fold(AddressPolicy::new(reach), |policy, entry| policy.allow(entry))
    }

    fn trusted_roots(&self) -> Result<Vec<CertificateDer<'static>>> {
        let pem = self.trusted_roots_pem.as_deref().unwrap_or_default();
        let roots = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        roots.map_err(|source| unusable("trusted_roots_pem", source.to_string()))
    }
}

fn unusable(what: &str, source: impl Into<Cause>) -> Error {
    Error::Configuration { what: what.to_owned(), source: source.into() }
}

/// Finds the addresses of a host.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// All addresses, in the order in which they should be tried.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause>;
}

#[async_trait]
impl Lookup for TokioResolver {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
        Ok(self.lookup_ip(host).await?.iter().collect())
    }
}

/// How long an answer about a name is believed, however long it says that it is good for: a receiver that moves is found
/// again soon, and who once controlled a name does not choose its address for days.
const LONGEST_BELIEF: Duration = Duration::from_mins(1);

fn believing(options: &mut ResolverOpts, longest: Duration) {
    options.positive_max_ttl = Some(longest);
    options.negative_max_ttl = Some(longest);
}

/// Resolves names as the system's configuration says, and asks again after a minute.
pub(crate) fn system_resolver() -> Result<TokioResolver> {
    let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
        believing(builder.options_mut(), LONGEST_BELIEF);
        ResolverBuilder::build(builder)
    });
    resolver.map_err(|source| unusable("the system's resolver", source))
}

/// Delivers webhooks over HTTP, with one pool of connections for all receivers.
pub struct HttpHookSender {
    client: Client<CheckingResolver>,
    policy: Arc<AddressPolicy>,
    deadline: Duration,
}

impl HttpHookSender {
    /// A sender that resolves names as the system's configuration says, and asks again after a minute.
    pub fn new(config: &Config) -> Result<Self> {
        Self::with_lookup(config, Arc::new(system_resolver()?))
    }

    /// A sender that asks `lookup` for the addresses of names.
    pub fn with_lookup(config: &Config, lookup: Arc<dyn Lookup>) -> Result<Self> {
        let policy = Arc::new(config.policy()?);
        let resolver = CheckingResolver { lookup, policy: Arc::clone(&policy) };
        let client = http::client(resolver, config.trusted_roots()?);
        let client = client.map_err(|source| unusable("the webhook client", source))?;
        Ok(Self { client, policy, deadline: Duration::from_secs(config.deadline_seconds) })
    }

    async fn exchange(&self, request: HookRequest) -> Result<HookResponse> {
        let started = Instant::now();
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let answer = self.client.request(call(request)?).await;
        let mut answer = answer.map_err(|error| classify(&error, error.is_connect(), &host))?;
        let meter = answer.extensions_mut().remove::<Meter>().unwrap_or_default();
        meter.restart();
        let (body, truncated) = read_body(&mut answer).await.map_err(|error| classify(&error, false, &host))?;
        meter.restart();
        Ok(HookResponse {
            status: answer.status().as_u16(),
            headers: kept_headers(&answer),
            body,
            truncated,
            latency: started.elapsed(),
        })
    }
}

/// The request, as it is sent.
fn call(request: HookRequest) -> Result<Request<Full<Bytes>>> {
    let uri = request.url.as_str().parse();
    let uri: Uri = uri.map_err(|_| Error::InvalidUrl("it has characters that must be escaped"))?;
    let mut headers = request.header_map()?;
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(http::USER_AGENT));
    let mut call = Request::new(Full::new(request.body));
    (*call.method_mut(), *call.uri_mut(), *call.headers_mut()) = (Method::POST, uri, headers);
    Ok(call)
}

#[async_trait]
impl HookSender for HttpHookSender {
    async fn send(&self, request: HookRequest) -> Result<HookResponse> {
        self.policy.check_url(&request.url)?;
        let deadline = request.deadline.unwrap_or(self.deadline);
        timeout(deadline, self.exchange(request)).await.map_err(|_| Error::Timeout(deadline))?
    }
}

/// Reads no more than [`READ_BODY`], or what of it a [`Meter`] lets come: what comes after is dropped, with the connection
/// it would come on.
async fn read_body(answer: &mut Response<Incoming>) -> hyper::Result<(Bytes, bool)> {
    let mut kept = BytesMut::new();
    let mut read = 0;
    while read < READ_BODY {
        let Some(frame) = answer.body_mut().frame().await else { break };
        let frame = match frame {
            Err(error) if is_too_much(&error) => return Ok((kept.freeze(), true)),
            frame => frame?,
        };
        // Trailers are of no interest.
        let Ok(chunk) = frame.into_data() else { continue };
        read += chunk.len();
        let wanted = chunk.len().min(KEPT_BODY - kept.len());
        kept.extend_from_slice(&chunk[..wanted]);
    }
    Ok((kept.freeze(), read > KEPT_BODY))
}

fn kept_headers(answer: &Response<Incoming>) -> Vec<(String, String)> {
    let mut room = KEPT_HEADERS;
    let lines = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    lines
        .take_while(|(name, value)| {
            let fits = room.checked_sub(name.len() + value.len());
            room = fits.unwrap_or(0);
            fits.is_some()
        })
        .collect()
}

/// Resolves a name, and gives the connection only addresses that were all found to be allowed.
#[derive(Clone)]
struct CheckingResolver {
    lookup: Arc<dyn Lookup>,
    policy: Arc<AddressPolicy>,
}

impl Service<Name> for CheckingResolver {
    type Response = Addresses;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Addresses, Cause>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (lookup, policy) = (Arc::clone(&self.lookup), Arc::clone(&self.policy));
        Box::pin(async move {
            let addresses = lookup.addresses(name.as_str()).await.map_err(Unusable::Unknown)?;
            if addresses.is_empty() {
                return Err(Unusable::Unknown("the name has no address".into()).into());
            }
            policy.check_resolved(name.as_str(), &addresses).map_err(|_| Unusable::Refused)?;
            let addresses: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Why a name gives no address to connect to, as it finds its way through the client's errors.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("an address is not allowed")]
    Refused,
    #[error("{0}")]
    Unknown(Cause),
}

/// Finds the one reason that matters in the client's chain of errors, and leaves the chain, which repeats the URL, behind.
fn classify(error: &(dyn StdError + 'static), connecting: bool, host: &str) -> Error {
    let last = || reasons(error).last().map_or_else(|| "the client gives no reason".to_owned(), ToString::to_string);
    if is_too_much(error) {
        return Error::TooLarge(TooMuch.into());
    }
    match find::<Unusable>(error) {
        Some(Unusable::Refused) => return Error::RefusedAddress { host: host.to_owned() },
        Some(Unusable::Unknown(reason)) => {
            let reason = reasons(reason.as_ref()).last().map_or_else(|| reason.to_string(), ToString::to_string);
            return Error::Dns { host: host.to_owned(), source: reason.into() };
        }
        None => {}
    }
    if let Some(reason) = find::<io::Error>(error) {
        return classify_io(reason, connecting);
    }
    match find::<hyper::Error>(error) {
        _ if connecting => Error::Connect(last().into()),
        Some(reason) if reason.is_parse_too_large() => Error::TooLarge(last().into()),
        Some(reason) if reason.is_parse() => Error::Protocol(last().into()),
        _ => Error::Reset(last().into()),
    }
}

/// An error and what it says it comes from, down to the first.
fn reasons<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&reason| reason.source())
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    reasons(error).find_map(|reason| reason.downcast_ref())
}

/// Whether a [`Meter`] ended it. Streams put errors of the streams beneath them into their own.
fn is_too_much(error: &(dyn StdError + 'static)) -> bool {
    let mut reason = find::<io::Error>(error);
    while let Some(error) = reason {
        let Some(inner) = error.get_ref() else { return false };
        if inner.is::<TooMuch>() {
            return true;
        }
        reason = inner.downcast_ref();
    }
    false
}

fn classify_io(error: &io::Error, connecting: bool) -> Error {
    if let Some(inner) = error.get_ref() {
        if let Some(reason) = inner.downcast_ref::<rustls::Error>() {
            return Error::Tls(reason.to_string().into());
        }
        if let Some(reason) = inner.downcast_ref::<io::Error>() {
            return classify_io(reason, connecting);
        }
    }
    let reason = error.to_string().into();
    match error.kind() {
        _ if connecting => Error::Connect(reason),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::Protocol(reason),
        _ => Error::Reset(reason),
    }
}

#[cfg(test)]
mod dns_tests;
#[cfg(test)]
mod tests;
