//! Which receivers of webhooks inside the network the operator lets through.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::Host;

/// Receivers that may be called though they are not public, and over `http://`: `10.1.0.0/16,hooks.internal`. The guard
/// of the one who calls decides by the same entries; this tells beforehand what it will say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receivers {
    entries: Vec<String>,
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

/// The text is no list of receivers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no network, address or host; write such as 10.1.0.0/16, 192.168.1.5 or hooks.internal with commas between \
     them, without http:// and port"
)]
pub struct InvalidReceiver(String);

impl FromStr for Receivers {
    type Err = InvalidReceiver;

    fn from_str(text: &str) -> Result<Self, InvalidReceiver> {
        let mut receivers = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            if let Ok(network) = entry.parse::<IpNet>() {
                receivers.networks.push(network.trunc());
            } else if let Ok(address) = entry.parse::<IpAddr>() {
                receivers.networks.push(address.to_canonical().into());
            } else {
                match Host::parse(entry) {
                    Ok(Host::Domain(name)) if is_name(&name) => receivers.hosts.push(normal(&name)),
                    _ => return Err(InvalidReceiver(entry.to_owned())),
                }
            }
            receivers.entries.push(entry.to_owned());
        }
        Ok(receivers)
    }
}

impl Receivers {
    /// As they were written, one by one.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Whether a host, as a URL names it, is listed. A name that only leads to a listed network is not.
    #[must_use]
    pub fn lists(&self, host: &Host<&str>) -> bool {
        let lists = |address: IpAddr| {
            let address = address.to_canonical();
            self.networks.iter().any(|network| network.contains(&address))
        };
        match host {
            Host::Domain(name) => self.hosts.contains(&normal(name)),
            Host::Ipv4(address) => lists((*address).into()),
            Host::Ipv6(address) => lists((*address).into()),
        }
    }
}

/// A URL may name hosts of stranger characters, but a star here would be meant as a pattern.
fn is_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn what_is_listed_is_found_in_every_spelling_and_nothing_beside_it() {
        let receivers: Receivers = "10.1.2.3/16, 192.168.1.5,Hooks.Internal,fd12::/64,".parse().unwrap();
        assert_eq!(receivers.entries(), ["10.1.2.3/16", "192.168.1.5", "Hooks.Internal", "fd12::/64"]);
        let lists = |url: &str| receivers.lists(&Url::parse(url).unwrap().host().unwrap());
        for url in [
            "http://10.1.255.255/",
            "http://0x0a010203:22/",
            "http://192.168.1.5/",
            "http://HOOKS.internal./",
            "http://[fd12::7]/",
            "http://[::ffff:10.1.2.3]/",
        ] {
            assert!(lists(url), "{url}");
        }
        for url in ["http://10.2.0.1/", "http://other.hooks.internal/", "http://[fd13::7]/", "http://1.1.1.1/"] {
            assert!(!lists(url), "{url}");
        }
        assert!(!Receivers::default().lists(&Host::Domain("hooks.internal")));
    }

    #[test]
    fn what_is_no_receiver_is_named() {
        for entry in ["10.0.0.0/33", "0x7f000001", "a b", "http://hooks.internal", "hooks.internal:80", "*"] {
            let error = format!("hooks.internal,{entry}").parse::<Receivers>().unwrap_err();
            assert_eq!(error, InvalidReceiver(entry.to_owned()));
        }
    }
}
