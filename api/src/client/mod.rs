//! Where a request comes from: the peer of its connection, or what proxies say of it that are trusted. Whoever is not
//! trusted may write into his headers what he likes, nobody reads it.

mod forwarded;
pub mod hosts;

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use poem::http::HeaderMap;
use poem::{Addr, Request};

pub use hosts::Hosts;

/// The longest chain of proxies that is followed.
const MOST_HOPS: usize = 32;

/// The header in which proxies say for whom they ask. One only: what a proxy does not write it passes on, and
/// then a stranger has written it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The text names no such header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write x-forwarded-for or forwarded")]
pub struct UnknownHeader;

impl FromStr for ProxyHeader {
    type Err = UnknownHeader;

    fn from_str(text: &str) -> Result<Self, UnknownHeader> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(UnknownHeader),
        }
    }
}

/// The proxies that are believed: none, unless the operator names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    networks: Vec<IpNet>,
    /// Peers without an address: they come over a socket of this machine.
    local: bool,
    header: ProxyHeader,
}

/// The text is no list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address and no network; write them with commas between them, such as 10.0.0.0/8, 2001:db8::/32 or unix"
)]
pub struct InvalidProxy(String);

impl FromStr for Proxies {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let mut proxies = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word == "unix" {
                proxies.local = true;
            } else {
                proxies.networks.push(network(word).ok_or_else(|| InvalidProxy(word.to_owned()))?);
            }
        }
        Ok(proxies)
    }
}

/// A network, or one address.
fn network(word: &str) -> Option<IpNet> {
    word.parse().ok().or_else(|| word.parse().map(|address: IpAddr| address.to_canonical().into()).ok())
}

impl Proxies {
    /// With the header they write.
    #[must_use]
    pub const fn writing(mut self, header: ProxyHeader) -> Self {
        self.header = header;
        self
    }

    /// Who asks; `None`: it cannot be known.
    pub(crate) fn client(&self, request: &Request) -> Option<IpAddr> {
        let peer = match &request.remote_addr().0 {
            Addr::SocketAddr(address) => Some(address.ip()),
            Addr::Unix(_) | Addr::Custom(..) => None,
        };
        self.behind(peer, request.headers())
    }

    /// From the nearest hop to the farthest, as long as the one that tells is trusted.
    fn behind(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.map(|peer| peer.to_canonical());
        let believed = peer.map_or(self.local, |peer| self.trusts(peer));
        if !believed {
            return peer;
        }
        let mut client = peer;
        for hop in forwarded::hops(self.header, headers).into_iter().rev().take(MOST_HOPS) {
            // What a trusted proxy could not or would not name is somebody nearest to it.
            let Some(hop) = hop else { break };
            client = Some(hop);
            if !self.trusts(hop) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderName, HeaderValue};

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        lines.iter().map(line).fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    fn behind(proxies: &str, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let proxies: Proxies = proxies.parse().unwrap();
        proxies.behind(Some(address(peer)), &headers(lines)).unwrap().to_string()
    }

    #[test]
    fn a_stranger_may_say_what_he_likes() {
        for lines in [
            &[("x-forwarded-for", "10.0.0.1")][..],
            &[("forwarded", "for=10.0.0.1")],
            &[("x-real-ip", "10.0.0.1"), ("x-forwarded-for", "127.0.0.1, 10.0.0.1")],
        ] {
            assert_eq!(behind("10.0.0.0/8", "203.0.113.9", lines), "203.0.113.9");
            assert_eq!(behind("", "127.0.0.1", lines), "127.0.0.1", "nobody is trusted who was not named");
        }
    }

    #[test]
    fn what_a_client_wrote_before_the_first_proxy_is_not_read() {
        // Each proxy appends the one it was asked by: what stands left of the first stranger is his own word.
        let said = |value| behind("10.0.0.0/8", "10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(said("203.0.113.9"), "203.0.113.9");
        assert_eq!(said("1.1.1.1, 203.0.113.9"), "203.0.113.9");
        assert_eq!(said("10.9.9.9, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(said("10.0.0.7, 10.0.0.2"), "10.0.0.7", "somebody inside asks");
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(behind("10.0.0.0/8", "10.0.0.1", &lines), "203.0.113.9", "lines are one list");
    }

    #[test]
    fn only_the_header_that_proxies_write_is_read() {
        let lines = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(behind("10.0.0.0/8", "10.0.0.1", &lines), "203.0.113.9");
        let proxies: Proxies = "10.0.0.0/8".parse().unwrap();
        let proxies = proxies.writing("Forwarded".parse().unwrap());
        assert_eq!(proxies.behind(Some(address("10.0.0.1")), &headers(&lines)), Some(address("1.1.1.1")));
        assert_eq!("x-real-ip".parse::<ProxyHeader>(), Err(UnknownHeader));
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain_at_who_said_it() {
        let said = |value| behind("10.0.0.0/8", "10.0.0.1", &[("x-forwarded-for", value)]);
        for nonsense in ["", "unknown", "203.0.113.9; drop table", "1.2.3", "203.0.113.9, _hidden", "999.1.1.1", "a, "]
        {
            assert_eq!(said(nonsense), "10.0.0.1", "{nonsense:?}");
        }
        assert_eq!(said("1.1.1.1, what?, 10.0.0.2"), "10.0.0.2");
        let long = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(said(&format!("203.0.113.9,{long}")), "10.0.0.2", "a chain has an end");
    }

    #[test]
    fn an_address_of_version_4_in_one_of_version_6_is_the_same() {
        assert_eq!(behind("10.0.0.0/8", "::ffff:203.0.113.9", &[]), "203.0.113.9");
        assert_eq!(behind("10.0.0.0/8", "10.0.0.1", &[("x-forwarded-for", "::ffff:203.0.113.9")]), "203.0.113.9");
        let mapped = behind("::ffff:10.0.0.1", "10.0.0.1", &[("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(mapped, "203.0.113.9", "also where it is named so");
    }

    #[test]
    fn a_peer_without_an_address_is_believed_where_that_was_said() {
        let lines = headers(&[("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(Proxies::default().behind(None, &lines), None);
        let unix: Proxies = "unix".parse().unwrap();
        assert_eq!(unix.behind(None, &lines), Some(address("203.0.113.9")));
        assert_eq!(unix.behind(Some(address("127.0.0.1")), &lines), Some(address("127.0.0.1")));
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        let wrong = |text: &str| text.parse::<Proxies>().unwrap_err().0;
        assert_eq!(wrong("10.0.0.0/8, proxy.example"), "proxy.example");
        assert_eq!((wrong("10.0.0.0/33"), wrong("*")), ("10.0.0.0/33".to_owned(), "*".to_owned()));
        assert_eq!("".parse::<Proxies>(), Ok(Proxies::default()));
    }
}
