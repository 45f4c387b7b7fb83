//! A request as it is sent: also one that no client would make.

use futures::stream;
use poem::http::{HeaderValue, Method};
use poem::{Body, Request};
use serde_json::Value;

use crate::documented;
use crate::support::{self, Answer};

/// A request.
#[derive(Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    query: Vec<String>,
    headers: Vec<(String, HeaderValue)>,
    pub body: Sent,
}

/// What is sent with it.
#[derive(Clone)]
pub enum Sent {
    /// Nothing.
    Nothing,
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Spaces, so many MiB, without saying how many.
    Spaces(usize),
}

impl Ask {
    pub fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), headers: Vec::new(), body: Sent::Nothing }
    }

    /// With a parameter more in the query.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        let pair = (encoded(name), encoded(value));
        self.query.push(format!("{}={}", pair.0, pair.1));
        self
    }

    /// With another value of a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), HeaderValue::from_bytes(value).unwrap()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// With this text for a body, said to be JSON.
    pub fn text(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.body = Sent::Bytes(text.into());
        self.header("Content-Type", "application/json")
    }

    pub fn json(self, body: &Value) -> Self {
        self.text(body.to_string())
    }

    /// Everything that it says, to find in it what an answer may repeat.
    pub fn said(&self) -> String {
        let body = match &self.body {
            Sent::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        };
        format!("{} {} {body}", self.path, self.query.join("&"))
    }

    fn request(&self, token: Option<&str>) -> Request {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query.join("&")) };
        let mut request = Request::builder().method(self.method.clone()).uri_str(format!("{}{query}", self.path));
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.clone());
        }
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        match &self.body {
            Sent::Nothing => request.finish(),
            Sent::Bytes(bytes) => request.body(bytes.clone()),
            Sent::Spaces(mib) => {
                let chunk = vec![b' '; 1024 * 1024];
                let chunks: Vec<Result<Vec<u8>, std::io::Error>> = (0..*mib).map(|_| Ok(chunk.clone())).collect();
                request.body(Body::from_bytes_stream(stream::iter(chunks)))
            }
        }
    }
}

/// Everything but letters and digits by its number: a URL may hold nothing else without meaning something.
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The API, that is sent what no client would send.
pub struct Api(pub support::Api);

impl Api {
    /// Sends it. The answer is one that the document knows; of one that does not end by itself, nothing is read.
    pub async fn send(&self, ask: &Ask, token: Option<&str>) -> Answer {
        let response = self.0.answer(ask.request(token)).await;
        let streams = response.content_type().is_some_and(|media_type| media_type.starts_with("text/event-stream"));
        let answer = if streams {
            let (parts, _) = response.into_parts();
            Answer { status: parts.status, headers: parts.headers, text: String::new() }
        } else {
            Answer::of(response).await
        };
        documented::check(&ask.method, &ask.path, &answer);
        answer
    }
}
