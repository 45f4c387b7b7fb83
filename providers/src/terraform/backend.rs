//! Where Terraform keeps its state: its `http` backend, spoken by us on loopback for one run, in front of whatever keeps it.
//!
//! Whoever asks has the run's token, which is good for as long as the run lasts. A refused lock is answered with what its
//! holder says of himself, so that Terraform can say who it is.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, warn};
use url::form_urlencoded;

use crate::Secret;

/// Bytes of a request that are read.
const LARGEST: usize = 64 * 1024 * 1024;

/// Terraform has one or two.
const MOST_CONNECTIONS: usize = 8;

/// Why a state is not read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum StateRefusal {
    /// Somebody else holds the lock; this is what he says of himself.
    #[error("somebody else holds the lock")]
    Locked(Value),
    /// It may not follow what is kept.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done now.
    #[error("the state cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What keeps the state of one stack, for one run.
#[async_trait]
pub trait StateStore: Send + Sync + 'static {
    /// The state; `None`: there is none yet.
    async fn read(&self) -> Result<Option<Vec<u8>>, StateRefusal>;
    /// Keeps the next one; `lock`: the lock that the writer says he holds.
    async fn write(&self, state: &[u8], lock: Option<&str>) -> Result<(), StateRefusal>;
    /// Locks it.
    async fn lock(&self, id: &str, info: &Value) -> Result<(), StateRefusal>;
    /// Unlocks it; without an id, whoever holds it.
    async fn unlock(&self, id: Option<&str>) -> Result<(), StateRefusal>;
}

/// A backend for one run; it ends when this is dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    token: Secret,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// Listens on a free port of loopback for whoever has the token.
    ///
    /// # Errors
    /// When there is no such port.
    pub async fn start(store: Arc<dyn StateStore>, token: Secret) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let wanted = format!("Basic {}", STANDARD.encode(format!("run:{}", token.expose())));
        let desk = Arc::new(Desk { store, wanted });
        let task = tokio::spawn(serve(listener, desk));
        Ok(Self { address, token, task })
    }

    /// What Terraform finds in its environment to reach it.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let url = format!("http://{}/state", self.address);
        let named = |name: &str, value: &str| (format!("TF_HTTP_{name}"), value.to_owned());
        vec![
            named("ADDRESS", &url),
            named("LOCK_ADDRESS", &url),
            named("UNLOCK_ADDRESS", &url),
            named("USERNAME", "run"),
            named("PASSWORD", self.token.expose()),
            named("RETRY_MAX", "5"),
            named("RETRY_WAIT_MIN", "1"),
            named("RETRY_WAIT_MAX", "5"),
        ]
    }
}

struct Desk {
    store: Arc<dyn StateStore>,
    wanted: String,
}

async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    // Connections end with the run: they are tasks of this one.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("A connection to the state of a run was not taken: {error}");
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            let _place = place;
            let answer = service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
                debug!("A connection to the state of a run ended: {error}");
            }
        });
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let sent = request.headers().get(AUTHORIZATION).map(hyper::header::HeaderValue::as_bytes).unwrap_or_default();
        if !same(sent, self.wanted.as_bytes()) {
            let mut refused = plain(StatusCode::UNAUTHORIZED, "the token of the run is needed");
            refused.headers_mut().insert(WWW_AUTHENTICATE, hyper::header::HeaderValue::from_static("Basic"));
            return refused;
        }
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let lock =
            form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ID").map(|(_, id)| id.into_owned());
        let Ok(body) = Limited::new(body, LARGEST).collect().await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "a state has at most 64 MiB");
        };
        let body = body.to_bytes();
        let done = match parts.method.as_str() {
            "GET" => match self.store.read().await {
                Ok(Some(state)) => return json(StatusCode::OK, state.into()),
                Ok(None) => return plain(StatusCode::NO_CONTENT, ""),
                Err(refusal) => Err(refusal),
            },
            "POST" | "PUT" => self.store.write(&body, lock.as_deref()).await,
            "LOCK" => match read_lock(&body) {
                Some((id, info)) => self.store.lock(&id, &info).await,
                None => return plain(StatusCode::BAD_REQUEST, "a lock says its ID"),
            },
            // Terraform's `force-unlock` sends nothing.
            "UNLOCK" => self.store.unlock(read_lock(&body).map(|(id, _)| id).as_deref()).await,
            _ => return plain(StatusCode::METHOD_NOT_ALLOWED, "GET, POST, LOCK and UNLOCK are answered"),
        };
        match done {
            Ok(()) => plain(StatusCode::OK, ""),
            Err(StateRefusal::Locked(holder)) => json(StatusCode::LOCKED, holder.to_string().into()),
            Err(StateRefusal::Conflict(said)) => plain(StatusCode::CONFLICT, &said),
            Err(error @ StateRefusal::Unavailable(_)) => {
                warn!("The state of a run: {}", crate::error::with_causes(&error));
                plain(StatusCode::SERVICE_UNAVAILABLE, "the state cannot be reached at the moment")
            }
        }
    }
}

/// A lock as Terraform describes it, and its id.
fn read_lock(body: &[u8]) -> Option<(String, Value)> {
    if body.len() > 16 * 1024 {
        return None;
    }
    let info: Value = serde_json::from_slice(body).ok()?;
    let id = info["ID"].as_str().filter(|id| !id.is_empty() && id.len() <= 200)?.to_owned();
    Some((id, info))
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
