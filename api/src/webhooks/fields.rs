//! What may be said of an endpoint, checked before anything is stored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use poem::http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use url::Url;

use crate::error::Error;
use crate::field::{EventPattern, Wrong, text_type};

/// Longest URL, as the table has it.
const MAX_URL: usize = 2_048;

/// Event types one endpoint names.
const MAX_TYPES: usize = 100;

/// Channels one endpoint or event names.
pub const MAX_CHANNELS: usize = 20;

/// Headers of an endpoint's own.
const MAX_HEADERS: usize = 20;

/// Characters of such a header's value.
const MAX_HEADER_VALUE: usize = 1_024;

/// Where an event belongs, in its owner's words: a project, a customer, a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel(String);

impl FromStr for Channel {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong("a channel has 1 to 128 characters of a-z, A-Z, 0-9, _, -, . and :".into()))
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Channel, "channel", |schema| {
    schema.pattern = Some("^[A-Za-z0-9_.:-]{1,128}$".into());
    schema.example = Some("project:42".into());
});

/// The channels, each once.
///
/// # Errors
/// When there are too many.
pub fn channels(channels: Vec<Channel>) -> Result<Vec<String>, Error> {
    if channels.len() > MAX_CHANNELS {
        let detail = format!("at most {MAX_CHANNELS} channels can be named; use fewer, larger ones");
        return Err(Error::field("channels", detail));
    }
    let mut words: Vec<String> = channels.into_iter().map(|channel| channel.0).collect();
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

/// Checks where events are to be posted; `may_be_plain` says whether without TLS. Whether its address may be spoken to
/// is decided at each delivery, when the name is resolved.
///
/// # Errors
/// When it is no such URL.
pub fn receiver(text: &str, may_be_plain: impl FnOnce(&Url) -> bool) -> Result<String, Error> {
    let wrong = |detail: Cow<'static, str>| Error::field("url", detail);
    if text.len() > MAX_URL {
        return Err(wrong(
            format!("a URL has at most {MAX_URL} characters, this one {}; shorten it", text.len()).into(),
        ));
    }
    let url = Url::parse(text)
        .map_err(|error| wrong(format!("not a URL ({error}); write one such as https://example.com/hooks").into()))?;
    match url.scheme() {
        "https" => {}
        "http" if may_be_plain(&url) => {}
        "http" => return Err(wrong("http:// would show events to anybody in between; write https://".into())),
        _ => return Err(wrong("events are posted over HTTP; write a URL that begins with https://".into())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "a URL must not contain user or password; deliveries are signed, verify the signature instead".into(),
        ));
    }
    if url.fragment().is_some() {
        return Err(wrong("the part after # never reaches a server; leave it out".into()));
    }
    let url = String::from(url);
    if url.len() > MAX_URL {
        return Err(wrong(
            format!("written out, the URL has {} characters, and at most {MAX_URL} are allowed; shorten it", url.len())
                .into(),
        ));
    }
    Ok(url)
}

/// Checks what people wrote about an endpoint.
///
/// # Errors
/// When it is too long or cannot be stored.
pub fn description(text: String) -> Result<String, Error> {
    if text.chars().count() > 1_000 {
        return Err(Error::field("description", "a description has at most 1 000 characters; shorten it"));
    }
    if text.contains('\0') {
        return Err(Error::field("description", "the character U+0000 cannot be stored; leave it out"));
    }
    Ok(text)
}

/// Checks which types an endpoint wants.
///
/// # Errors
/// When there are too many.
pub fn event_types(patterns: &[EventPattern]) -> Result<Vec<String>, Error> {
    if patterns.len() > MAX_TYPES {
        let detail = format!("an endpoint names at most {MAX_TYPES} types; use beginnings such as invoice.*");
        return Err(Error::field("event_types", detail));
    }
    Ok(patterns.iter().map(ToString::to_string).collect())
}

/// Checks what a program keeps with an endpoint: up to 50 short texts by name.
///
/// # Errors
/// When there are too many, or one is too long or cannot be stored.
pub fn metadata(texts: &BTreeMap<String, String>) -> Result<Value, Error> {
    if texts.len() > 50 {
        return Err(Error::field("metadata", "at most 50 texts can be kept; leave some out"));
    }
    for (name, text) in texts {
        let field = || format!("metadata.{name}");
        if name.is_empty() || name.chars().count() > 40 {
            return Err(Error::field(field(), "a name has 1 to 40 characters; choose another"));
        }
        if text.chars().count() > 500 {
            return Err(Error::field(field(), "a text has at most 500 characters; shorten it"));
        }
        if name.contains('\0') || text.contains('\0') {
            return Err(Error::field(field(), "the character U+0000 cannot be stored; leave it out"));
        }
    }
    Ok(texts.iter().map(|(name, text)| (name.clone(), Value::String(text.clone()))).collect())
}

/// Checks the headers an endpoint's owner wants to receive. Those that frame the request, steer the connection or are
/// the platform's own are not his.
///
/// # Errors
/// When there are too many, or one cannot be sent.
pub fn headers(headers: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    const FORBIDDEN: [HeaderName; 11] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::USER_AGENT,
        HeaderName::from_static("keep-alive"),
    ];
    if headers.len() > MAX_HEADERS {
        return Err(Error::field("headers", format!("at most {MAX_HEADERS} headers can be set; leave some out")));
    }
    let mut checked = BTreeMap::new();
    for (name, value) in headers {
        let wrong = |detail: &str| Error::field(format!("headers.{name}"), detail.to_owned());
        let key =
            HeaderName::from_str(name).map_err(|_| wrong("this is no name of a header; write one like X-Team"))?;
        let ours = ["webhook-", "proxy-"].iter().any(|beginning| key.as_str().starts_with(beginning));
        if ours || FORBIDDEN.contains(&key) {
            return Err(wrong("this header is set by the platform; choose another name"));
        }
        if value.len() > MAX_HEADER_VALUE || HeaderValue::from_str(value).is_err() {
            return Err(wrong("a header's value has at most 1 024 visible ASCII characters"));
        }
        if checked.insert(key.as_str().to_owned(), value.clone()).is_some() {
            return Err(wrong("this header is there twice, in different spellings; leave one out"));
        }
    }
    Ok(checked)
}

/// Checks how many deliveries per second an endpoint takes.
///
/// # Errors
/// When it is none, or more than can be promised.
pub fn rate(per_second: i32) -> Result<i32, Error> {
    if (1..=10_000).contains(&per_second) {
        Ok(per_second)
    } else {
        let detail = "deliveries per second are 1 to 10 000; write null for no limit, enabled: false for none at all";
        Err(Error::field("rate_per_second", detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_https_unless_the_installation_allows_otherwise() {
        assert_eq!(receiver("https://Example.com", |_| false).unwrap(), "https://example.com/");
        assert!(receiver("http://127.0.0.1:9000/hook", |_| true).is_ok());
        for bad in [
            "",
            "example.com",
            "/hook",
            "http://example.com/",
            "ftp://example.com/",
            "javascript:alert(1)",
            "https://",
            "https://user@example.com/",
            "https://:secret@example.com/",
            "https://example.com/#part",
            "file:///etc/passwd",
            &format!("https://example.com/{}", "a".repeat(2048)),
            &format!("https://example.com/{}", "é".repeat(500)),
        ] {
            assert!(receiver(bad, |_| false).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_that_are_not_the_owners_are_refused() {
        let one = |name: &str, value: &str| headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(one("X-Team", "blue").unwrap(), BTreeMap::from([("x-team".to_owned(), "blue".to_owned())]));
        assert!(one("Authorization", "Bearer abc").is_ok());
        for name in ["Host", "content-length", "Webhook-Id", "Proxy-Authorization", "", "a b", "ü", "x\r\ny"] {
            assert!(one(name, "v").is_err(), "{name}");
        }
        assert!(one("x-a", "line\r\nx-b: 1").is_err() && one("x-a", &"a".repeat(1025)).is_err());
        let twice = BTreeMap::from([("X-A".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())]);
        assert!(headers(&twice).is_err());
    }
}
