//! The names under which the API may be asked: a page that made its own name point here (DNS rebinding), or a proxy
//! that passes on any name, is refused.

use std::str::FromStr;

use poem::Request;
use poem::http::header;
use poem::http::uri::Authority;

use crate::error::{Code, Error};

/// The names under which the API may be asked; empty: any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// This name.
    Exactly(String),
    /// Names that end in a dot and this.
    Below(String),
}

/// The text is no list of host names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a host; write them with commas between them and without ports, such as api.example.com or *.example.com"
)]
pub struct InvalidHost(String);

impl FromStr for Hosts {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(Pattern::read).collect::<Result<_, _>>().map(Self)
    }
}

impl Pattern {
    fn read(word: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(word.to_owned());
        let (name, below) = word.strip_prefix("*.").map_or((word, false), |name| (name, true));
        let name = name_of(name).filter(|read| read.len() == name.len()).ok_or_else(invalid)?;
        Ok(if below { Self::Below(name) } else { Self::Exactly(name) })
    }

    fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => name == host,
            // The dot is a border: evilexample.com is not below example.com, nor is example.com itself.
            Self::Below(name) => host.strip_suffix(name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl Hosts {
    /// Refuses a request that names another host, or more than one.
    ///
    /// # Errors
    /// When it does.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let known = named(request).is_some_and(|host| self.0.iter().any(|pattern| pattern.fits(&host)));
        if known {
            return Ok(());
        }
        Err(Error::new(Code::UnknownHost, "the API is not served under this name; use the URL you were given")
            .at("Host"))
    }
}

/// The name under which a request came, in lower case; `None`: it names none, or more than one.
pub(crate) fn named(request: &Request) -> Option<String> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, None) => request.uri().authority().map(Authority::as_str),
        (_, Some(_)) => None,
    };
    host.and_then(name_of)
}

/// The name of `name` or `name:port`, in lower case and without a dot at its end.
fn name_of(host: &str) -> Option<String> {
    let end = host.find(']').map_or(0, |bracket| bracket + 1);
    let (name, port) = match host.get(end..)?.rfind(':') {
        Some(colon) => host.split_at_checked(end + colon)?,
        None => (host, ":"),
    };
    let port_is_good = port.bytes().skip(1).all(|byte| byte.is_ascii_digit()) && port.len() <= 6;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let in_brackets = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let name_is_good = match in_brackets {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=253).contains(&name.len()) && name.bytes().all(allowed),
    };
    (name_is_good && port_is_good).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(hosts: &str, lines: &[&str]) -> bool {
        let hosts: Hosts = hosts.parse().unwrap();
        let builder = lines.iter().fold(Request::builder(), |builder, line| builder.header("host", *line));
        hosts.check(&builder.finish()).is_ok()
    }

    #[test]
    fn without_a_list_any_name_will_do() {
        assert!(allows("", &["whatever.example"]) && allows("", &[]) && allows("", &["a", "b"]));
    }

    #[test]
    fn names_are_compared_whole_and_in_any_case() {
        let hosts = "api.example.com, *.example.net, [::1], 127.0.0.1";
        for host in
            ["api.example.com", "API.Example.Com:8080", "api.example.com.", "a.example.net", "a.b.example.net:1"]
        {
            assert!(allows(hosts, &[host]), "{host}");
        }
        assert!(allows(hosts, &["[::1]:8080"]) && allows(hosts, &["127.0.0.1:80"]));
        for host in [
            "evil.example",
            "evilapi.example.com",
            "api.example.com.evil.example",
            "evilexample.net",
            "example.net",
            ".example.net",
            "api.example.com:80:80",
            "api.example.com@evil.example",
            "api.example.com:8o",
            "api.example.com ",
            "",
        ] {
            assert!(!allows(hosts, &[host]), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        assert!(!allows("api.example.com", &["api.example.com", "api.example.com"]));
        assert!(!allows("api.example.com", &[]));
        let hosts: Hosts = "api.example.com".parse().unwrap();
        let absolute = Request::builder().uri_str("http://api.example.com/jobs").finish();
        assert!(hosts.check(&absolute).is_ok(), "as HTTP/2 has it");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["*", "a.example, b c", "api.example.com:8080", "*.*.example", "https://a.example", "a.*.example"] {
            assert!(text.parse::<Hosts>().is_err(), "{text}");
        }
    }
}
