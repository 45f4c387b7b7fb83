//! What surrounds every operation: the request's id and trace, its span and metrics, the time it may take,
//! and an answer whatever happens.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use gantry_jobs::process::continue_trace;
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use poem::{Endpoint, Request, Response};
use tracing::{Instrument as _, debug, error, field, info_span};

use crate::app::App;
use crate::audit::about::About;
use crate::error::{self, Code, Error};
use crate::jobs::wait;
use crate::load::Weight;
use crate::once;
use crate::rate::{self, Visit};
use crate::routes::{self, Route};
use crate::usage::{self, Call};
use crate::version;

/// How long an operation may take, apart from the time its caller asked it to wait.
const TIME_LIMIT: Duration = Duration::from_secs(30);

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What operations know of their request.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Its id.
    pub id: String,
    /// Its place in its trace.
    pub traceparent: String,
    /// Where it comes from; `None`: that cannot be known.
    pub address: Option<IpAddr>,
}

/// All operations, with what surrounds them.
pub struct Edge {
    app: App,
    operations: BoxEndpoint<'static, Response>,
}

impl Edge {
    /// Surrounds the operations.
    #[must_use]
    pub fn around(app: App, operations: BoxEndpoint<'static, Response>) -> Self {
        Self { app, operations }
    }

    async fn answer(&self, mut request: Request) -> Response {
        let began = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let id = request_id(request.headers()).unwrap_or_else(|| {
            let id: uuid::Uuid = self.app.db.ids().mint();
            format!("req_{}", id.simple())
        });
        let span = info_span!(
            "http.request",
            otel.name = field::Empty,
            otel.kind = "server",
            http.request.method = %method,
            url.path = path,
            request.id = id,
            trace.id = field::Empty,
            http.response.status_code = field::Empty,
        );
        let header = request.headers().get(&TRACEPARENT).and_then(|value| value.to_str().ok());
        let traceparent = continue_trace(&span, header).to_string();
        let address = self.app.surface.proxies.client(&request);
        let info = RequestInfo { id, traceparent, address };
        request.set_data(info.clone());
        let visit = Visit::default();
        request.set_data(visit.clone());

        let received = usage::received(request.headers());

        let route = routes::find(&method, &path);
        let about = About::of(&request, route, &info);
        request.set_data(about.clone());
        let (operation_id, origin) =
            (route.map_or("none", |route| route.id), request.headers().get(header::ORIGIN).cloned());
        let version = version::asked_for(request.headers());
        let patience = wait::asked_for(&request);
        let limit = TIME_LIMIT + patience;
        let operation = AssertUnwindSafe(self.admit_and_call(request, route, patience, &visit)).catch_unwind();
        let outcome = tokio::time::timeout(limit, operation.instrument(span.clone())).await;
        let mut response = span.in_scope(|| match outcome {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) => refuse(error, &info, &path),
            Ok(Err(panic)) => {
                error!(panic = %said(&*panic), "An operation panicked");
                let error = Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again");
                error.response(&info.id, &path)
            }
            Err(_) => {
                error!("An operation took longer than {limit:?}");
                let detail = format!(
                    "it was given up after {} s, and may have happened all the same; look before you try again",
                    limit.as_secs()
                );
                Error::new(Code::TimedOut, detail).response(&info.id, &path)
            }
        });

        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = routes::allowed(&path).and_then(|methods| HeaderValue::from_str(&methods).ok())
        {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        if response.status() == StatusCode::FORBIDDEN {
            let refused = self.app.refusals.note(&self.app.db, &about, &response);
            refused.instrument(span.clone()).await;
        }
        let status = response.status();
        span.record("otel.name", operation_id).record("http.response.status_code", status.as_u16());
        let took = began.elapsed();
        let labels = [("operation", operation_id.to_owned()), ("status", status.as_u16().to_string())];
        metrics::counter!("gantry_api_requests_total", &labels).increment(1);
        metrics::histogram!("gantry_api_request_seconds", "operation" => operation_id).record(took);
        span.in_scope(|| debug!(took_seconds = took.as_secs_f64(), "{method} {path} {status}"));
        if let (Some(route), Some((organization, credential))) = (route, visit.caller()) {
            let call = Call { organization, credential, operation: route.id, status, took, received };
            response = self.app.usage.count(call, self.app.db.now(), response);
        }
        if !status.is_server_error() && !is_uncounted(&path) {
            rate::count_late(&self.app, &visit, info.address).await;
        }
        let headers = response.headers_mut();
        decorate(headers, &info, path.starts_with("/docs"));
        visit.decorate(headers, self.app.db.now().timestamp());
        if let (Some(route), Ok(version)) = (route, version) {
            version::decorate(headers, version, route.id);
        }
        let surface = &self.app.surface;
        surface.origins.decorate(headers, origin.as_ref());
        let tls_only = surface.tls_only_seconds.map(|seconds| format!("max-age={seconds}; includeSubDomains"));
        if let Some(tls_only) = tls_only.and_then(|tls_only| HeaderValue::from_str(&tls_only).ok()) {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, tls_only);
        }
        response
    }

    /// Lets a request in if there is room and it is in order, and does what it asks for.
    async fn admit_and_call(
        &self,
        mut request: Request,
        route: Option<&Route>,
        patience: Duration,
        visit: &Visit,
    ) -> poem::Result<Response> {
        if let Some(answer) = self.app.surface.origins.preflight(&request) {
            return Ok(answer);
        }
        if !request.uri().path().starts_with("/health/") {
            // Whoever asks how the process is asks by its address.
            self.app.surface.hosts.check(&request)?;
        }
        let waits = !patience.is_zero() || route.is_some_and(|route| route.streams);
        let weight = match request.uri().path() {
            path if path.starts_with("/health/") => Weight::None,
            // A bin may be set to answer late.
            path if path.starts_with("/inspect/") => Weight::Waiting,
            _ if waits => Weight::Waiting,
            _ => Weight::Work,
        };
        let admitted = self.app.load.admit(weight)?;
        if is_nobodys(&request) {
            rate::admit_stranger(&self.app, visit, address(&request)).await?;
        }
        request.set_data(route.map(|route| route.charge).unwrap_or_default());
        version::asked_for(request.headers())?;
        if let Some(route) = route {
            route.check_query(request.uri().query().unwrap_or_default())?;
            route.check_headers(request.headers())?;
        }
        request.set_data(self.app.load.room());
        once::prepare(&mut request);
        Ok(admitted.until_sent(self.operations.call(request).await?))
    }
}

impl Endpoint for Edge {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.answer(request).await)
    }
}

/// Somebody asks who does not say who he is.
fn is_nobodys(request: &Request) -> bool {
    let says = [header::AUTHORIZATION, header::COOKIE].iter().any(|name| request.headers().contains_key(name));
    !says && !is_uncounted(request.uri().path())
}

/// Health is answered whatever happens, and bins count by themselves.
fn is_uncounted(path: &str) -> bool {
    path.starts_with("/health/") || path.starts_with("/inspect/")
}

fn address(request: &Request) -> Option<IpAddr> {
    request.data::<RequestInfo>().and_then(|info| info.address)
}

/// The problem document of a refused request; what is our own fault is logged, once, here.
fn refuse(refused: poem::Error, info: &RequestInfo, path: &str) -> Response {
    let ours = match refused.downcast_ref::<Error>() {
        Some(ours) => ours,
        None => match &error::from_poem(&refused) {
            Some(translated) => return translated.response(&info.id, path),
            None => &Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again")
                .because(refused.to_string()),
        },
    };
    // What is shed is counted; logging it would be work as well.
    if ours.code().status().is_server_error() && ours.code() != Code::Overloaded {
        error!(code = ours.code().as_str(), cause = causes(ours), "A request failed: {ours}");
    }
    ours.response(&info.id, path)
}

fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(error.source(), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("something that is no text")
}

/// The caller's id for the request, if it can be logged and repeated safely.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(&REQUEST_ID)?.to_str().ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ((1..=100).contains(&id.len()) && id.bytes().all(allowed)).then(|| id.to_owned())
}

/// The page of documentation carries its script and style in itself.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn decorate(headers: &mut HeaderMap, info: &RequestInfo, docs: bool) {
    // Both are made of characters that headers may have.
    if let (Ok(id), Ok(traceparent)) = (HeaderValue::from_str(&info.id), HeaderValue::from_str(&info.traceparent)) {
        headers.insert(REQUEST_ID.clone(), id);
        headers.insert(TRACEPARENT.clone(), traceparent);
    }
    let policy = if docs { DOCS_POLICY } else { "default-src 'none'; frame-ancestors 'none'" };
    // A page knows best what it runs.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(policy));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
