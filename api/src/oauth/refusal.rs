//! Refusals in the form that OAuth gives them: `error` and `error_description` (RFC 6749, 5.2; RFC 6750, 3).
//!
//! What has nothing to do with the protocol (too many requests, no database) stays a problem document.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse as _, Response};
use serde_json::json;

use crate::error::Error;

/// Why an application is refused, by the word that its RFC has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) error: &'static str,
    pub(crate) description: String,
    status: StatusCode,
    challenge: Option<&'static str>,
}

impl Refusal {
    /// A refusal with what to do about it.
    pub(super) fn new(error: &'static str, description: impl Into<String>) -> Self {
        // RFC 6749, 5.2: printable ASCII without quotes and backslashes.
        let plain = |character: char| match character {
            '"' => '\'',
            '\\' => '/',
            ' '..='~' => character,
            _ => '?',
        };
        let description = description.into().chars().take(500).map(plain).collect();
        Self { error, description, status: StatusCode::BAD_REQUEST, challenge: None }
    }

    /// Something about the request itself is wrong.
    pub(super) fn request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// The code, token or person's word is not good, whatever the reason.
    pub(super) fn grant(description: impl Into<String>) -> Self {
        Self::new("invalid_grant", description)
    }

    /// It is not known who asks. Who tried by the header is told by the header.
    pub(super) fn client(description: impl Into<String>, by_header: bool) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: by_header.then_some("Basic realm=\"gantry\", charset=\"UTF-8\""),
            ..Self::new("invalid_client", description)
        }
    }

    /// The access token does not work.
    pub(super) fn token(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: Some("Bearer error=\"invalid_token\""),
            ..Self::new("invalid_token", description)
        }
    }

    /// The access token does not have what is needed.
    pub(super) fn insufficient(description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            challenge: Some("Bearer error=\"insufficient_scope\", scope=\"openid\""),
            ..Self::new("insufficient_scope", description)
        }
    }

    fn response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description }).to_string();
        let mut response = unkept(body.with_content_type("application/json").with_status(self.status).into_response());
        let challenge = self.challenge.map(|challenge| (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        response.headers_mut().extend(challenge);
        response
    }
}

/// Why there is no answer as it was asked for.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The protocol says so.
    Refused(Refusal),
    /// Something else does.
    Failed(Error),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The answer to an application.
pub(super) fn answered(outcome: Result<Response, Stop>) -> poem::Result<Response> {
    match outcome {
        Ok(response) => Ok(unkept(response)),
        Err(Stop::Refused(refusal)) => Ok(refusal.response()),
        Err(Stop::Failed(error)) => Err(error.into()),
    }
}

/// Nothing on the way keeps it.
fn unkept(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}
