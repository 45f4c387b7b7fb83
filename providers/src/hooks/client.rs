//! Delivers webhooks over HTTP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hickory_resolver::{ResolverBuilder, TokioResolver, config::ResolverOpts};
use reqwest::{
    Certificate, Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{AddressPolicy, HookRequest, HookResponse, HookSender, KEPT_BODY, KEPT_HEADERS, READ_BODY, Reach};
use crate::{Error, Result, error::Cause, http};

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

    fn trusted_roots(&self) -> Result<Vec<Certificate>> {
        match &self.trusted_roots_pem {
            Some(pem) => {
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|source| unusable("trusted_roots_pem", source))
            }
            None => Ok(Vec::new()),
        }
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

/// Delivers webhooks over HTTP, with one pool of connections for all receivers.
pub struct HttpHookSender {
    client: Client,
    policy: Arc<AddressPolicy>,
    deadline: Duration,
}

impl HttpHookSender {
    /// A sender that resolves names as the system's configuration says, and asks again after a minute.
    pub fn new(config: &Config) -> Result<Self> {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            believing(builder.options_mut(), LONGEST_BELIEF);
            ResolverBuilder::build(builder)
        });
        Self::with_lookup(config, Arc::new(resolver.map_err(|source| unusable("the system's resolver", source))?))
    }

    /// A sender that asks `lookup` for the addresses of names.
    pub fn with_lookup(config: &Config, lookup: Arc<dyn Lookup>) -> Result<Self> {
        let policy = Arc::new(config.policy()?);
        let client = http::builder()
            .dns_resolver(CheckingResolver { lookup, policy: Arc::clone(&policy) })
            .tls_certs_merge(config.trusted_roots()?)
            .build()
            .map_err(|source| unusable("the webhook client", source))?;
        Ok(Self { client, policy, deadline: Duration::from_secs(config.deadline_seconds) })
    }

    async fn exchange(&self, request: HookRequest) -> Result<HookResponse> {
        let started = Instant::now();
        let headers = request.header_map()?;
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let call = self.client.post(request.url).headers(headers).body(request.body);
        let mut response = call.send().await.map_err(|error| classify(&error, &host))?;
        let (body, truncated) = read_body(&mut response).await.map_err(|error| classify(&error, &host))?;
        Ok(HookResponse {
            status: response.status().as_u16(),
            headers: kept_headers(&response),
            body,
            truncated,
            latency: started.elapsed(),
        })
    }
}

#[async_trait]
impl HookSender for HttpHookSender {
    async fn send(&self, request: HookRequest) -> Result<HookResponse> {
        self.policy.check_url(&request.url)?;
        let deadline = request.deadline.unwrap_or(self.deadline);
        timeout(deadline, self.exchange(request)).await.map_err(|_| Error::Timeout(deadline))?
    }
}

/// Reads no more than [`READ_BODY`]: what comes after is dropped, with the connection it would come on.
async fn read_body(response: &mut Response) -> reqwest::Result<(Bytes, bool)> {
    let mut kept = BytesMut::new();
    let mut read = 0;
    while read < READ_BODY {
        let Some(chunk) = response.chunk().await? else { break };
        read += chunk.len();
        let wanted = chunk.len().min(KEPT_BODY - kept.len());
        kept.extend_from_slice(&chunk[..wanted]);
    }
    Ok((kept.freeze(), read > KEPT_BODY))
}

fn kept_headers(response: &Response) -> Vec<(String, String)> {
    let mut room = KEPT_HEADERS;
    let lines = response
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
struct CheckingResolver {
    lookup: Arc<dyn Lookup>,
    policy: Arc<AddressPolicy>,
}

impl Resolve for CheckingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, policy) = (Arc::clone(&self.lookup), Arc::clone(&self.policy));
        Box::pin(async move {
            let addresses = lookup.addresses(name.as_str()).await?;
            if addresses.is_empty() {
                return Err("the name has no address".into());
            }
            policy.check_resolved(name.as_str(), &addresses).map_err(|_| Refused)?;
            // The port is put in place of 0 by the connector.
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// How the resolver's refusal finds its way through the client's errors.
#[derive(Debug, thiserror::Error)]
#[error("an address is not allowed")]
struct Refused;

/// Finds the one reason that matters in the client's chain of errors, and leaves the chain, which repeats the URL, behind.
fn classify(error: &reqwest::Error, host: &str) -> Error {
    let reasons: Vec<_> = std::iter::successors(std::error::Error::source(error), |reason| reason.source()).collect();
    let last = || reasons.last().map_or_else(|| "the client gives no reason".to_owned(), ToString::to_string).into();

    if reasons.iter().any(|reason| reason.is::<Refused>()) {
        Error::RefusedAddress { host: host.to_owned() }
    } else if error.is_dns() {
        Error::Dns { host: host.to_owned(), source: last() }
    } else if let Some(reason) = reasons.iter().find_map(|reason| reason.downcast_ref::<io::Error>()) {
        classify_io(reason, error.is_connect())
    } else if error.is_connect() {
        Error::Connect(last())
    } else {
        match reasons.iter().find_map(|reason| reason.downcast_ref::<hyper::Error>()) {
            Some(reason) if reason.is_parse_too_large() => Error::TooLarge(last()),
            Some(reason) if reason.is_parse() => Error::Protocol(last()),
            _ => Error::Reset(last()),
        }
    }
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
