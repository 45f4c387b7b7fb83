//! What clients of clouds have in common: bounded answers, a deadline, and refusals that say whether to try again.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::Known;
use super::account::{Now, Reach};
use crate::error::Cause;
use crate::http::{self, Client, Meter, System, TooMuch};
use crate::{Error, Result};

/// What is read of an answer. Lists of what a cloud sells have a few MiB in a page.
const LARGEST: usize = 16 * 1024 * 1024;

/// Pages that are asked for, one after another. Who has more is up to no good, or has more than anybody chooses from.
pub(super) const PAGES: usize = 60;

/// How long anybody waits because a cloud says so.
const LONGEST_WAIT: i64 = 3_600;

/// A client of one account.
pub(super) struct Wire {
    client: Client<System>,
    deadline: Duration,
    now: Now,
    /// What is taken out of whatever the cloud says.
    secrets: Vec<String>,
}

/// What is asked.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn new(method: Method, url: impl Into<String>) -> Self {
        Self { method, url: url.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn get(url: impl Into<String>) -> Self {
        Self::new(Method::GET, url)
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header(header::AUTHORIZATION, format!("Bearer {token}"))
    }

    pub(super) fn json(self, body: &serde_json::Value) -> Self {
        let asked = self.header(header::CONTENT_TYPE, "application/json");
        Self { body: body.to_string().into(), ..asked }
    }

    pub(super) fn form(self, members: &[(String, String)]) -> Self {
        let asked = self.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8");
        Self { body: form(members).into(), ..asked }
    }
}

/// Members as a form has them.
pub(super) fn form(members: &[(String, String)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in members {
        form.append_pair(name, value);
    }
    form.finish()
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    wait: Option<Duration>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads it. What does not fit is not repeated: it may be a token.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let why = format!("line {} column {} is not what it is to be", error.line(), error.column());
            Error::Protocol(why.into())
        })
    }
}

/// What a cloud's refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who asks.
    Credential,
    /// What is asked.
    Refused,
    /// The moment.
    Moment,
    /// There is no such thing.
    Missing,
}

impl Kind {
    /// By the status alone.
    pub(super) const fn of(status: u16) -> Self {
        match status {
            401 => Self::Credential,
            404 | 410 => Self::Missing,
            408 | 409 | 412 | 423 | 425 | 429 | 500.. => Self::Moment,
            _ => Self::Refused,
        }
    }

    /// By what it says, where that is known; otherwise by the status.
    pub(super) fn said(status: u16, code: &str, said: &str) -> Self {
        match super::known(code).or_else(|| super::known(said)) {
            Some(Known::Credential) => Self::Credential,
            Some(Known::RateLimit) => Self::Moment,
            Some(Known::Quota | Known::Permission | Known::NameTaken | Known::Network | Known::InvalidName) => {
                Self::Refused
            }
            Some(Known::Capacity | Known::State) | None => Self::of(status),
        }
    }
}

impl Wire {
    pub(super) fn new(reach: &Reach, secrets: &[&str]) -> Result<Self> {
        let client = http::client(System, Vec::new()).map_err(|source| unusable("the client of a cloud", source))?;
        // What is in JSON or in an address looks otherwise; a member of a key file is looked for line by line.
        let parts = secrets.iter().flat_map(|secret| secret.split(['\n', '\\', '"'])).filter(|part| part.len() >= 12);
        let secrets = parts.map(str::to_owned).collect();
        Ok(Self { client, deadline: reach.deadline, now: reach.now.clone(), secrets })
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        (self.now)()
    }

    /// Asks, and reads the whole answer, whatever its status.
    pub(super) async fn send(&self, ask: Ask) -> Result<Answer> {
        timeout(self.deadline, self.exchange(ask)).await.map_err(|_| Error::Timeout(self.deadline))?
    }

    async fn exchange(&self, ask: Ask) -> Result<Answer> {
        let mut request =
            Request::builder().method(ask.method).uri(ask.url).header(header::USER_AGENT, http::USER_AGENT);
        for (name, value) in ask.headers {
            let mut value =
                HeaderValue::try_from(value).map_err(|error| unusable("the credential of a cloud", error))?;
            value.set_sensitive(name == header::AUTHORIZATION);
            request = request.header(name, value);
        }
        let request = request.header(header::ACCEPT, "application/json, application/xml");
        let request = request.body(Full::new(ask.body)).map_err(|error| unusable("the address of a cloud", error))?;
        let mut answer = self.client.request(request).await.map_err(|error| {
            let reason = last(&error).into();
            if error.is_connect() { Error::Connect(reason) } else { Error::Reset(reason) }
        })?;
        let wait = self.wait(&answer);
        let status = answer.status().as_u16();
        let meter = answer.extensions_mut().remove::<Meter>().unwrap_or_default();
        let body = read(&mut answer, &meter).await?;
        Ok(Answer { status, body, wait })
    }

    /// How long to wait, where the cloud says so in one of the ways clouds do.
    fn wait(&self, answer: &Response<Incoming>) -> Option<Duration> {
        let number = |name: &str| answer.headers().get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
        let none_left = || number("ratelimit-remaining") == Some(0);
        let seconds = number("retry-after").or_else(|| {
            let reset = none_left().then(|| number("ratelimit-reset")).flatten()?;
            Some(reset.saturating_sub(self.now()))
        })?;
        u64::try_from(seconds.clamp(1, LONGEST_WAIT)).ok().map(Duration::from_secs)
    }

    /// What a refusal comes to.
    pub(super) fn refusal(&self, kind: Kind, answer: &Answer, code: &str, said: &str) -> Error {
        let clean = |text: &str, most: usize| self.clean(text).chars().take(most).collect::<String>();
        let code = if code.is_empty() { format!("HTTP {}", answer.status) } else { clean(code, 100) };
        let reason = if said.is_empty() { "no reason was given".to_owned() } else { clean(said, 400) };
        match kind {
            Kind::Credential => Error::CredentialRefused { code, reason },
            Kind::Refused | Kind::Missing => Error::Rejected { code, reason },
            Kind::Moment => Error::PutOff { code, reason, wait: answer.wait },
        }
    }

    fn clean(&self, text: &str) -> String {
        let mut text: String = text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "[REDACTED]");
        }
        text
    }
}

/// Reads a body frame by frame: the connection's meter counts what comes between them, and this what is in them.
async fn read(answer: &mut Response<Incoming>, meter: &Meter) -> Result<Bytes> {
    let mut body = BytesMut::new();
    meter.restart();
    while let Some(frame) = answer.body_mut().frame().await {
        let frame = frame.map_err(|error| {
            let causes = std::iter::successors(Some(&error as &(dyn StdError + 'static)), |&it| it.source());
            let is_too_much = |it: &(dyn StdError + 'static)| {
                let inner = it.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
                it.is::<TooMuch>() || inner.is_some_and(<dyn StdError + Send + Sync>::is::<TooMuch>)
            };
            if causes.into_iter().any(is_too_much) {
                Error::TooLong(TooMuch.into())
            } else {
                Error::Reset(last(&error).into())
            }
        })?;
        meter.restart();
        let Ok(chunk) = frame.into_data() else { continue };
        if body.len() + chunk.len() > LARGEST {
            return Err(Error::TooLong(format!("more than {} MiB came", LARGEST / 1024 / 1024).into()));
        }
        body.extend_from_slice(&chunk);
    }
    meter.restart();
    Ok(body.freeze())
}

pub(super) fn unusable(what: &str, source: impl Into<Cause>) -> Error {
    Error::Configuration { what: what.to_owned(), source: source.into() }
}

/// A list that does not end.
pub(super) fn endless() -> Error {
    Error::Protocol(format!("there are more than {PAGES} pages of it").into())
}

/// One segment of an address, or a value of its query, of whatever text.
pub(super) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn last(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}
