//! Which addresses a stranger may have us call.
//!
//! The guard has two halves that use the same rules. The URL is checked before anything is done, for a literal address is
//! never resolved. A name is checked when it is resolved: all its addresses must be allowed, and the connection is made
//! to exactly those, so a name cannot change between the check and the call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};

use crate::{Error, Result};

/// How far deliveries may go without being listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses, over https.
    #[default]
    Public,
    /// Also private and loopback addresses, and http. For installations whose organizations are all trusted.
    Private,
}

/// What may be called: a reach, and the networks and hosts that the operator lists beyond it.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    reach: Reach,
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

impl AddressPolicy {
    /// A policy with nothing listed.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { reach, ..Self::default() }
    }

    /// Lists a network (`10.1.0.0/16`), an address (`10.1.2.3`) or a host (`hooks.internal`).
    ///
    /// What is listed may be called over http and on any port. A listed host may be at any address, so its name should
    /// be under the operator's control.
    pub fn allow(mut self, entry: &str) -> Result<Self> {
        if let Ok(network) = entry.parse::<IpNet>() {
            self.networks.push(network.trunc());
        } else if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.push(address.to_canonical().into());
        } else {
            match Host::parse(entry) {
                Ok(Host::Domain(name)) => self.hosts.push(normal(&name)),
                Ok(_) => return Err(not_listable(entry, "write the address in its usual form".into())),
                Err(reason) => return Err(not_listable(entry, reason.into())),
            }
        }
        Ok(self)
    }

    /// Whether the URL may be called, as far as can be said before its host is resolved.
    pub fn check_url(&self, url: &Url) -> Result<()> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Error::InvalidUrl("it must begin with https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::InvalidUrl("it must not contain a user name or password"));
        }
        let listed = match url.host().ok_or(Error::InvalidUrl("it has no host"))? {
            Host::Ipv4(address) => self.check_literal(address.into(), url)?,
            Host::Ipv6(address) => self.check_literal(address.into(), url)?,
            Host::Domain(name) => self.lists_host(name),
        };
        let port = url.port_or_known_default().unwrap_or(0);
        if port == 0 {
            return Err(Error::InvalidUrl("it has port 0"));
        }
        if listed || self.reach == Reach::Private {
            return Ok(());
        }
        if url.scheme() != "https" {
            return Err(Error::InvalidUrl("it must begin with https"));
        }
        if !is_port_for_web(port) {
            return Err(Error::InvalidUrl("its port belongs to another kind of service"));
        }
        Ok(())
    }

    /// Whether a name that resolved to `addresses` may be called: only if each of them may be.
    pub fn check_resolved(&self, host: &str, addresses: &[IpAddr]) -> Result<()> {
        if self.lists_host(host) {
            return Ok(());
        }
        match addresses.iter().find(|address| !self.allows(**address)) {
            Some(address) => {
                tracing::warn!(host, %address, "Refused to call {host}: it resolves to an address that is not allowed");
                Err(Error::RefusedAddress { host: host.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Whether the address may be called.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        self.lists_network(address)
            || match kind(address) {
                Kind::Public => true,
                Kind::Private => self.reach == Reach::Private,
                Kind::Special => false,
            }
    }

    fn check_literal(&self, address: IpAddr, url: &Url) -> Result<bool> {
        if self.allows(address) {
            return Ok(self.lists_network(address));
        }
        Err(Error::RefusedAddress { host: url.host_str().unwrap_or_default().to_owned() })
    }

    fn lists_host(&self, host: &str) -> bool {
        let host = normal(host);
        self.hosts.contains(&host)
    }

    fn lists_network(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

fn not_listable(entry: &str, source: crate::error::Cause) -> Error {
    Error::Configuration { what: format!("the allowed address {entry:?}"), source }
}

fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Reachable by anybody.
    Public,
    /// A host of one's own network or machine.
    Private,
    /// Nothing that a webhook could sensibly be at: cloud metadata, link-local, multicast, tunnels, documentation.
    Special,
}

fn kind(address: IpAddr) -> Kind {
    match address.to_canonical() {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let within = |networks: &[Ipv4Net]| networks.iter().any(|network| network.contains(&address));
    if within(&SPECIAL_V4) {
        Kind::Special
    } else if within(&PRIVATE_V4) {
        Kind::Private
    } else {
        Kind::Public
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let within = |networks: &[Ipv6Net]| networks.iter().any(|network| network.contains(&address));
    if within(&SPECIAL_V6) {
        Kind::Special
    } else if within(&PRIVATE_V6) {
        Kind::Private
    } else if GLOBAL_V6.contains(&address) {
        Kind::Public
    } else {
        Kind::Special
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const fn v6_host(a: u16, b: u16, h: u16) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, h), 128)
}

const PRIVATE_V4: [Ipv4Net; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10), // carrier-grade NAT
    v4(127, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
];

const SPECIAL_V4: [Ipv4Net; 13] = [
    v4(0, 0, 0, 0, 8),          // "this" network; 0.0.0.0 reaches this machine
    v4(100, 100, 100, 200, 32), // metadata of Alibaba Cloud
    v4(168, 63, 129, 16, 32),   // the host agent of Azure, though the address looks public
    v4(169, 254, 0, 0, 16),     // link-local, and the metadata of most clouds
    v4(192, 0, 0, 0, 24),       // protocol assignments, and the metadata of Oracle
    v4(192, 0, 2, 0, 24),       // documentation
    v4(192, 88, 99, 0, 24),     // 6to4 relays
    v4(198, 18, 0, 0, 15),      // benchmarks
    v4(198, 51, 100, 0, 24),    // documentation
    v4(203, 0, 113, 0, 24),     // documentation
    v4(224, 0, 0, 0, 4),        // multicast
    v4(240, 0, 0, 0, 4),        // reserved
    v4(255, 255, 255, 255, 32), // broadcast
];

const PRIVATE_V6: [Ipv6Net; 2] = [v6_host(0, 0, 1), v6(0xfc00, 0, 0, 7)];

/// What is given out to hosts. All else that is not private (NAT64, mapped and compatible IPv4, link-local, multicast) is special.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

const SPECIAL_V6: [Ipv6Net; 6] = [
    v6(0x2001, 0, 0, 23),          // protocol assignments, among them Teredo
    v6(0x2001, 0xdb8, 0, 32),      // documentation
    v6(0x2002, 0, 0, 16),          // 6to4
    v6(0x3fff, 0, 0, 20),          // documentation
    v6_host(0xfd00, 0xec2, 0x254), // metadata of AWS
    v6_host(0xfd20, 0xce, 0x254),  // metadata of Google Cloud
];

/// Ports above the well-known ones that browsers refuse too, because something else than the web answers there.
const OTHER_SERVICES: [u16; 19] =
    [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080];

fn is_port_for_web(port: u16) -> bool {
    matches!(port, 80 | 443) || (port >= 1024 && !OTHER_SERVICES.contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public() -> AddressPolicy {
        AddressPolicy::new(Reach::Public)
    }

    fn check(policy: &AddressPolicy, url: &str) -> &'static str {
        match policy.check_url(&url.parse().unwrap()) {
            Ok(()) => "allowed",
            Err(error) => error.code(),
        }
    }

    #[test]
    fn public_https_addresses_may_be_called() {
        for url in [
            "https://hooks.example/x?y=z#part",
            "https://HOOKS.example.",
            "https://8.8.8.8/",
            "https://hooks.example:8443/",
            "https://[2606:4700::1111]/",
            "https://[::ffff:8.8.8.8]/",
        ] {
            assert_eq!(check(&public(), url), "allowed", "{url}");
        }
    }

    #[test]
    fn no_spelling_of_a_private_address_is_let_through() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "017700000001",
            "%31%32%37.0.0.1",
            "①②⑦.0.0.1",
            "0",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "192.88.99.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
            "[fe80::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[100::1]",
            "[2001:db8::1]",
            "[3fff::1]",
            "[5f00::1]",
        ] {
            let url = format!("https://{host}/");
            assert_eq!(check(&public(), &url), "refused_address", "{url}");
        }
    }

    #[test]
    fn the_networks_end_where_they_should() {
        for address in [
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7::",
            "2001:db9::",
            "2003::",
            "3ffe::1",
        ] {
            assert!(public().allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_url_that_is_no_webhook_is_refused_with_the_reason() {
        for url in [
            "http://hooks.example/",
            "ftp://hooks.example/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "data:text/plain,x",
        ] {
            assert_eq!(check(&public(), url), "invalid_url", "{url}");
        }
        for url in
            ["https://user@hooks.example/", "https://user:secret@hooks.example/", "https://:secret@hooks.example/"]
        {
            assert_eq!(check(&public(), url), "invalid_url", "{url}");
        }
        for port in [0, 22, 25, 53, 465, 5060, 6667] {
            assert_eq!(check(&public(), &format!("https://hooks.example:{port}/")), "invalid_url", "{port}");
        }
    }

    #[test]
    fn a_private_reach_never_includes_metadata_link_local_or_multicast() {
        let policy = AddressPolicy::new(Reach::Private);
        for url in
            ["http://127.0.0.1:3000/", "http://10.1.2.3/", "https://[::1]/", "http://[fd12::1]:22/", "http://anything/"]
        {
            assert_eq!(check(&policy, url), "allowed", "{url}");
        }
        for host in [
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fe80::1]",
            "224.0.0.1",
            "0.0.0.0",
        ] {
            assert_eq!(check(&policy, &format!("http://{host}/")), "refused_address", "{host}");
        }
        assert_eq!(check(&policy, "http://user@10.1.2.3/"), "invalid_url");
        assert_eq!(check(&policy, "http://10.1.2.3:0/"), "invalid_url");
    }

    #[test]
    fn what_the_operator_lists_may_be_called_and_nothing_beside_it() {
        let policy = public()
            .allow("10.1.0.0/16")
            .unwrap()
            .allow("192.168.1.5")
            .unwrap()
            .allow("Hooks.Internal")
            .unwrap()
            .allow("fd12::/64")
            .unwrap();
        for url in [
            "http://10.1.2.3/",
            "https://10.1.255.255:22/",
            "http://192.168.1.5/",
            "http://hooks.internal/",
            "http://hooks.internal./",
            "http://[fd12::7]/",
            "http://[::ffff:10.1.2.3]/",
        ] {
            assert_eq!(check(&policy, url), "allowed", "{url}");
        }
        for url in ["http://10.2.0.1/", "http://192.168.1.6/", "http://[fd13::7]/"] {
            assert_eq!(check(&policy, url), "refused_address", "{url}");
        }
        assert_eq!(check(&policy, "http://other.hooks.internal/"), "invalid_url");
        for entry in ["", "10.0.0.0/33", "0x7f000001", "a b", "http://hooks.internal"] {
            assert_eq!(public().allow(entry).unwrap_err().code(), "configuration", "{entry}");
        }
    }

    #[test]
    fn one_forbidden_address_among_many_refuses_the_name_without_telling_the_address() {
        let good = "8.8.8.8".parse().unwrap();
        let error = public().check_resolved("hooks.example", &[good, "10.9.8.7".parse().unwrap()]).unwrap_err();
        assert_eq!(error.code(), "refused_address");
        assert!(!error.is_transient());
        assert!(!error.explain().contains("10.9"));
        assert!(public().check_resolved("hooks.example", &[good]).is_ok());
        let listed = public().allow("hooks.example").unwrap();
        assert!(listed.check_resolved("HOOKS.example.", &["10.9.8.7".parse().unwrap()]).is_ok());
    }
}
