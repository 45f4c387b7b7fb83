//! Where a browser is sent back to. A code goes only to a URI that the application registered, compared character by
//! character (RFC 9700, 4.1.3); programs on somebody's own machine choose their port when they begin to listen (RFC
//! 8252, 7.3).

use url::{Host, Url};

/// The longest URI.
pub const MAX_LENGTH: usize = 2_000;

/// Why a URI cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedirect {
    /// It is longer than is stored.
    #[error("a redirect URI has at most {MAX_LENGTH} characters")]
    TooLong,
    /// It cannot be read, or would be read differently by somebody else.
    #[error("this is no absolute URI of visible ASCII characters; write for example https://app.example/callback")]
    Malformed,
    /// A fragment would be lost.
    #[error("a redirect URI has no fragment; leave out everything from #")]
    Fragment,
    /// `https://shop.example@evil.example/`.
    #[error("a redirect URI has no user and no password; leave them out")]
    User,
    /// Somebody on the way reads the code.
    #[error(
        "http:// is for programs on the person's own machine only, as http://127.0.0.1/… or http://[::1]/…; write https://"
    )]
    Plain,
    /// `javascript:`, `data:`, or a scheme that anybody may have.
    #[error(
        "a scheme of one's own is a domain read backwards, as com.example.app:/callback (RFC 8252, 7.1); or write https://"
    )]
    Scheme,
    /// Any program of the machine may take the scheme for itself, so no secret is safe behind it.
    #[error("a scheme of one's own is for applications that keep no secret; write https://, or register it as public")]
    OwnScheme,
}

/// Whether an application may register the URI.
///
/// # Errors
/// When a code sent there could reach somebody else.
pub fn check(uri: &str, confidential: bool) -> Result<(), InvalidRedirect> {
    if uri.len() > MAX_LENGTH {
        return Err(InvalidRedirect::TooLong);
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !uri.bytes().all(is_plain) {
        return Err(InvalidRedirect::Malformed);
    }
    if uri.contains('#') {
        return Err(InvalidRedirect::Fragment);
    }
    let url = Url::parse(uri).map_err(|_| InvalidRedirect::Malformed)?;
    if !url.username().is_empty() || url.password().is_some() || authority(uri).is_some_and(|part| part.contains('@')) {
        return Err(InvalidRedirect::User);
    }
    match url.scheme() {
        "https" if url.host().is_some_and(|host| !is_empty(&host)) && uri.starts_with("https://") => Ok(()),
        "http" if split_loopback(uri).is_some() => Ok(()),
        "https" => Err(InvalidRedirect::Malformed),
        "http" => Err(InvalidRedirect::Plain),
        scheme if scheme.contains('.') && confidential => Err(InvalidRedirect::OwnScheme),
        scheme if scheme.contains('.') => Ok(()),
        _ => Err(InvalidRedirect::Scheme),
    }
}

/// Whether the URI is one of those that were registered.
#[must_use]
pub fn is_registered(registered: &[String], uri: &str) -> bool {
    uri.len() <= MAX_LENGTH
        && registered.iter().any(|known| {
            known == uri || split_loopback(known).zip(split_loopback(uri)).is_some_and(|(known, asked)| known == asked)
        })
}

/// The URI with the answer in its query.
#[must_use]
pub fn with_answer(uri: &str, answer: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(answer);
    let joint = match uri.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{uri}{joint}{}", query.finish())
}

/// What a page has to allow so that its form may lead there: the origin, or the scheme (CSP, `form-action`).
#[must_use]
pub fn source(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => "'none'".to_owned(),
    }
}

fn is_empty(host: &Host<&str>) -> bool {
    matches!(host, Host::Domain(""))
}

fn authority(uri: &str) -> Option<&str> {
    uri.split_once("://")?.1.split(['/', '?']).next()
}

/// A URI of the machine itself, without its port: where it is, and what follows.
fn split_loopback(uri: &str) -> Option<(&str, &str)> {
    let (host, rest) =
        ["http://127.0.0.1", "http://[::1]"].into_iter().find_map(|host| Some((host, uri.strip_prefix(host)?)))?;
    let rest = match rest.strip_prefix(':') {
        Some(port) => {
            let after = port.trim_start_matches(|character: char| character.is_ascii_digit());
            let digits = port.strip_suffix(after)?;
            digits.parse::<u16>().ok()?;
            after
        }
        None => rest,
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some((host, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_registered() {
        for good in [
            "https://app.example/callback",
            "https://app.example",
            "https://app.example:8443/callback?tenant=1",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:8000/callback",
            "http://[::1]/callback",
        ] {
            assert_eq!(check(good, true), Ok(()), "{good}");
        }
        assert_eq!(check("com.example.app:/callback", false), Ok(()));
        let cases = [
            ("com.example.app:/callback", InvalidRedirect::OwnScheme),
            ("javascript:alert(1)//", InvalidRedirect::Scheme),
            ("data:text/html,x", InvalidRedirect::Scheme),
            ("myapp://callback", InvalidRedirect::Scheme),
            ("http://app.example/callback", InvalidRedirect::Plain),
            ("http://localhost/callback", InvalidRedirect::Plain),
            ("http://127.0.0.1.evil.example/", InvalidRedirect::Plain),
            ("https://app.example/#fragment", InvalidRedirect::Fragment),
            ("https://app.example@evil.example/", InvalidRedirect::User),
            ("https://@evil.example/", InvalidRedirect::User),
            ("/callback", InvalidRedirect::Malformed),
            ("https:/app.example", InvalidRedirect::Malformed),
            ("https://app.example\\@evil.example/", InvalidRedirect::Malformed),
            ("https://app.example/ callback", InvalidRedirect::Malformed),
            ("https://app.example/\r\nSet-Cookie: a=b", InvalidRedirect::Malformed),
            ("https://äpp.example/", InvalidRedirect::Malformed),
            ("", InvalidRedirect::Malformed),
        ];
        for (bad, why) in cases {
            assert_eq!(check(bad, true), Err(why), "{bad}");
        }
        assert_eq!(
            check(&format!("https://a.example/{}", "a".repeat(MAX_LENGTH)), true),
            Err(InvalidRedirect::TooLong)
        );
    }

    #[test]
    fn a_uri_fits_character_by_character_but_for_the_port_of_the_machine_itself() {
        let registered: Vec<String> =
            ["https://app.example/callback", "http://127.0.0.1/callback", "http://[::1]:1/back?a=b"]
                .map(str::to_owned)
                .into();
        let fits = |uri: &str| is_registered(&registered, uri);
        for good in [
            "https://app.example/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:51234/callback",
            "http://[::1]/back?a=b",
            "http://[::1]:65535/back?a=b",
        ] {
            assert!(fits(good), "{good}");
        }
        for open_redirect in [
            "https://app.example/callback/",
            "https://app.example/callback?x=1",
            "https://app.example/callback#x",
            "https://APP.example/callback",
            "https://app.example:443/callback",
            "https://app.example/callback/../evil",
            "https://app.example.evil.example/callback",
            "https://evil.example/callback",
            "http://app.example/callback",
            "http://127.0.0.1:51234/callback/more",
            "http://127.0.0.1:51234@evil.example/callback",
            "http://127.0.0.1:99999/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.2/callback",
            "http://localhost/callback",
            "http://[::1]/back",
            "",
        ] {
            assert!(!fits(open_redirect), "{open_redirect}");
        }
    }

    #[test]
    fn the_answer_joins_what_the_uri_has_already() {
        let answered = |uri: &str| with_answer(uri, &[("code", "a b&c"), ("state", "ü")]);
        assert_eq!(answered("https://a.example/"), "https://a.example/?code=a+b%26c&state=%C3%BC");
        assert_eq!(answered("https://a.example/?x=1"), "https://a.example/?x=1&code=a+b%26c&state=%C3%BC");
        assert_eq!(answered("com.example:/?"), "com.example:/?code=a+b%26c&state=%C3%BC");
        assert_eq!(source("https://a.example/x"), "https://a.example");
        assert_eq!(source("http://127.0.0.1:1/x"), "http://127.0.0.1:1");
        assert_eq!(source("com.example.app:/x"), "com.example.app:");
    }
}
