//! Which web pages of other origins may call the API from a browser: none, unless the operator names them. An API key
//! is sent by a page's own code, never by the browser of itself, so credentials are not allowed and not needed.

use std::str::FromStr;

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use poem::{IntoResponse as _, Request, Response};
use url::Url;

/// What pages may read of an answer besides its body.
const EXPOSED: &str = "ETag, Location, Link, Retry-After, X-Request-Id, Idempotency-Replayed, Preference-Applied, \
     Gantry-Version, Deprecation, Sunset, RateLimit, RateLimit-Policy, X-License-Tier, X-License-Status, X-License-Expires, X-License-Days-Remaining, X-Usage-Servers, X-Usage-Applications, X-Usage-Domains, X-Usage-Users, X-Usage-Cloud-Accounts, \
     X-Usage-Concurrent-Provisioning, X-Usage-Child-Organizations, X-Usage-Deployments-Per-Month, X-RateLimit-Limit, X-RateLimit-Remaining, \
     X-RateLimit-Reset, traceparent";

/// What pages may send.
const SENT: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, \
     Gantry-Version, X-Organization-Id, X-Request-Id, traceparent";

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";

/// The origins whose pages may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

/// The text is no list of origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin; write * or origins with commas between them, such as https://console.example.com")]
pub struct InvalidOrigin(String);

impl FromStr for Origins {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let mut origins = Self::default();
        for origin in text.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            if origin == "*" {
                origins.any = true;
                continue;
            }
            let url = Url::parse(origin).map_err(|_| InvalidOrigin(origin.to_owned()))?;
            let pattern = origin.contains('*');
            if pattern || !matches!(url.scheme(), "http" | "https") || url.origin().ascii_serialization() != origin {
                return Err(InvalidOrigin(origin.to_owned()));
            }
            origins.listed.push(origin.to_owned());
        }
        Ok(origins)
    }
}

impl Origins {
    /// What a page of this origin is told, if it may call.
    fn allow(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        let origin = origin?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// The answer to a browser that asks beforehand, if its page may call.
    pub(crate) fn preflight(&self, request: &Request) -> Option<Response> {
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allow(request.headers().get(header::ORIGIN)).is_none() {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, SENT),
            (header::ACCESS_CONTROL_MAX_AGE, "3600"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }

    /// Lets the page read the answer, if it may call.
    pub(crate) fn decorate(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
        if !self.any && self.listed.is_empty() {
            return;
        }
        // Also where the origin may not: what lies in a cache was made for one origin.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(allowed) = self.allow(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            let exposed: HeaderName = header::ACCESS_CONTROL_EXPOSE_HEADERS;
            headers.insert(exposed, HeaderValue::from_static(EXPOSED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed_exactly() {
        let origins: Origins = "https://console.example.com, http://localhost:5173".parse().unwrap();
        let allowed = |origin: &'static str| origins.allow(Some(&HeaderValue::from_static(origin))).is_some();
        assert!(allowed("https://console.example.com") && allowed("http://localhost:5173"));
        for other in
            ["https://example.com", "http://console.example.com", "https://console.example.com.evil.net", "null"]
        {
            assert!(!allowed(other), "{other}");
        }
        assert!(origins.allow(None).is_none() && "".parse::<Origins>().unwrap() == Origins::default());
        for bad in
            ["example.com", "https://a.example/", "https://a.example/path", "ftp://a.example", "https://*.example.com"]
        {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}
