//! The cookie of a browser's session, and what keeps other sites' pages from using it.
//!
//! Its name begins with `__Host-`, so browsers take it over TLS only, for this host only, and no other host can set it
//! (draft-ietf-httpbis-rfc6265bis, 4.1.3.2). Browsers take `localhost` and 127.0.0.1 for as good as TLS.
//!
//! A browser sends it with every request, whoever's page asks for one. So a request that changes something has to come
//! from a page of this origin, as the browser itself says (`Sec-Fetch-Site`, `Origin`), and has to carry a token that
//! only such a page can know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use gantry_schema::digest::{constant_time_eq, sha256};
use gantry_schema::token::CookieToken;
use poem::Request;
use poem::http::{HeaderMap, Method, header};
use url::{Host, Url};

use crate::app::App;
use crate::error::{Code, Error};

/// What browsers know it by.
pub(crate) const NAME: &str = "__Host-gantry-session";

/// The header that carries the token.
pub(crate) const CSRF_TOKEN: &str = "X-CSRF-Token";

/// The header with which a browser is given its session.
pub(super) fn set(token: &CookieToken, lasts: Duration) -> String {
    format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", token.expose(), lasts.num_seconds().max(0))
}

/// The header with which it is taken away.
pub(crate) fn removed() -> String {
    format!("{NAME}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// The session's cookie, if the request has one.
pub(crate) fn presented(headers: &HeaderMap) -> Option<CookieToken> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == NAME).then_some(value)
    });
    let token = CookieToken::parse(values.next()?).ok()?;
    // Two of them: somebody put one there, and nobody knows which.
    if values.next().is_some() { None } else { Some(token) }
}

/// What a page of this origin sends along. It follows from the cookie, which pages cannot read, and nothing follows
/// from it.
pub(crate) fn csrf_token(token: &CookieToken) -> String {
    URL_SAFE_NO_PAD.encode(sha256(&[b"gantry csrf", token.expose().as_bytes()]))
}

/// Refuses to hand a cookie to a browser that would not keep it, or would show it to everybody on the way.
pub(super) fn check_host(app: &App) -> Result<(), Error> {
    let url = Url::parse(app.public_url()).ok();
    let is_local = |url: &Url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.is_some_and(|url| url.scheme() == "https" || is_local(&url)) {
        return Ok(());
    }
    Err(Error::new(
        Code::WrongState,
        "browsers are signed in over https:// only, and here GANTRY_PUBLIC_URL is not; put TLS before the API, or reach \
         it as http://localhost",
    ))
}

/// Whether a page of another origin may be behind a request: its browser says so, or says nothing.
fn crosses(app: &App, headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => !matches!(site.as_bytes(), b"same-origin" | b"none"),
        None => match headers.get(header::ORIGIN) {
            Some(origin) => {
                let own = Url::parse(app.public_url()).map(|url| url.origin().ascii_serialization());
                own.is_ok_and(|own| own.as_bytes() != origin.as_bytes())
            }
            // No browser: those say one of both with whatever changes something.
            None => false,
        },
    }
}

/// Refuses a sign-in that another origin's page sends: it would make somebody work in a session of the attacker's.
pub(crate) fn check_origin(app: &App, request: &Request) -> Result<(), Error> {
    if crosses(app, request.headers()) { Err(refused("it comes from a page of another origin")) } else { Ok(()) }
}

/// Refuses a request by cookie that changes something and may come from another origin's page.
pub(crate) fn check(app: &App, request: &Request, token: &CookieToken) -> Result<(), Error> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    check_origin(app, request)?;
    let sent = request.header(CSRF_TOKEN).unwrap_or_default();
    if constant_time_eq(sent.as_bytes(), csrf_token(token).as_bytes()) {
        Ok(())
    } else {
        Err(refused("it does not carry the csrf_token of GET /sessions/current").at(CSRF_TOKEN))
    }
}

fn refused(why: &str) -> Error {
    Error::new(Code::CrossSiteRequest, format!("a browser's request that changes something is refused when {why}"))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn token() -> CookieToken {
        CookieToken::generate(&mut rand::rngs::StdRng::seed_from_u64(1))
    }

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    #[test]
    fn the_cookie_is_bound_to_its_host_and_kept_from_pages() {
        let header = set(&token(), Duration::hours(1));
        for attribute in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=3600"] {
            assert!(header.contains(attribute), "{header}");
        }
        assert!(!header.contains("Domain"));
        assert!(removed().contains("Max-Age=0"));
    }

    #[test]
    fn the_cookie_is_found_among_others_and_two_of_it_are_none() {
        let (token, name) = (token(), NAME);
        let text = token.expose();
        let found = |cookie: &str| presented(&headers(cookie)).map(|found| found.hash());
        assert_eq!(found(&format!("a=b; {name}={text}; c=d")), Some(token.hash()));
        for none in [
            "",
            "a=b",
            &format!("{name}="),
            &format!("x{name}={text}"),
            &format!("gantry-session={text}"),
            &format!("{name}={text}; {name}={text}"),
            &format!("{name}={}", "a".repeat(100_000)),
        ] {
            assert_eq!(found(none), None);
        }
    }

    #[test]
    fn the_csrf_token_shows_nothing_of_the_cookie() {
        let (token, other) = (token(), CookieToken::generate(&mut rand::rngs::StdRng::seed_from_u64(2)));
        assert_eq!(csrf_token(&token), csrf_token(&token));
        assert_ne!(csrf_token(&token), csrf_token(&other));
        assert!(!token.expose().contains(&csrf_token(&token)));
    }
}
