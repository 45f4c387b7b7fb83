//! What may be wanted of a server besides where it is, how large it is and with what it begins.

use std::ops::RangeInclusive;

use gantry_schema::servers::openssh::PublicKey;
use gantry_schema::servers::options::{self as kept, Options};
use ipnet::Ipv4Net;
use poem_openapi::{Enum, Object};
use serde::Deserialize;

use crate::api_keys::read_networks;
use crate::error::Error;

/// Sources of a rule, at most.
const MOST_SOURCES: usize = 20;

/// Rules, at most.
const MOST_RULES: usize = 40;

/// What else is wanted of a server. The sandbox keeps it, and does nothing about it but for who gets in.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub(super) struct ServerOptions {
    /// Addresses and networks from which it is reached by SSH, up to 20; left out: from everywhere.
    #[oai(skip_serializing_if_is_none, validator(max_items = 20))]
    ssh_sources: Option<Vec<String>>,
    /// What else is let in besides SSH, HTTP and HTTPS.
    #[oai(skip_serializing_if_is_none, validator(max_items = 40))]
    rules: Option<Vec<FirewallRule>>,
    /// Its private network; left out: the usual one.
    #[oai(skip_serializing_if_is_none)]
    network: Option<PrivateNetwork>,
    /// Whether its address is to stay when the machine is another.
    #[oai(skip_serializing_if_is_none)]
    static_address: Option<bool>,
    /// How large a volume it has; left out: it has none.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "10"), maximum(value = "10000")))]
    volume_gib: Option<u32>,
    /// How large its disk is, where that is not part of its size.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "10"), maximum(value = "2000")))]
    disk_gib: Option<u32>,
    /// Public keys of people who get in beside the platform, up to 20 and 8192 characters together: lines of `.pub` files, of
    /// the kinds ssh-ed25519, ecdsa-sha2-…, ssh-rsa with 2048 bits or more, and sk-….
    #[oai(skip_serializing_if_is_none, validator(max_items = 20))]
    authorized_keys: Option<Vec<String>>,
}

/// What else is wanted of a server from now on; what is left out stays as it is. Its network and its disk stay.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields)]
pub(super) struct ServerOptionsChange {
    /// Addresses and networks from which it is reached by SSH, up to 20: `0.0.0.0/0` and `::/0` for everywhere.
    #[oai(validator(max_items = 20))]
    ssh_sources: Option<Vec<String>>,
    /// What else is let in besides SSH, HTTP and HTTPS, all of it.
    #[oai(validator(max_items = 40))]
    rules: Option<Vec<FirewallRule>>,
    /// Whether its address is to stay when the machine is another.
    static_address: Option<bool>,
    /// How large a volume it has: no smaller than it is.
    #[oai(validator(minimum(value = "10"), maximum(value = "10000")))]
    volume_gib: Option<u32>,
}

impl ServerOptionsChange {
    /// What is kept of it, changed so.
    ///
    /// # Errors
    /// Names the member that cannot be.
    pub(super) fn of(self, kept: Options) -> Result<Options, Error> {
        let Self { ssh_sources, rules, static_address, volume_gib } = self;
        let (new_sources, new_rules) = (ssh_sources.is_some(), rules.is_some());
        let given =
            ServerOptions { ssh_sources, rules, static_address, volume_gib, ..ServerOptions::default() }.read()?;
        if let (Some(wanted), Some(now)) = (volume_gib, kept.volume_gib)
            && wanted < now
        {
            let detail = format!("it has {now} GiB, and a volume only grows; write {now} or more");
            return Err(Error::field("options.volume_gib", detail));
        }
        Ok(Options {
            ssh_sources: if new_sources { given.ssh_sources } else { kept.ssh_sources },
            rules: if new_rules { given.rules } else { kept.rules },
            static_address: static_address.unwrap_or(kept.static_address),
            volume_gib: given.volume_gib.or(kept.volume_gib),
            ..kept
        })
    }
}

/// Something that is let in.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct FirewallRule {
    /// By which protocol.
    protocol: FirewallProtocol,
    /// To which port, or the first of them; ICMP has none.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    from_port: Option<u16>,
    /// The last port; left out: there is one.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "1")))]
    to_port: Option<u16>,
    /// Addresses and networks that are let in, 1 to 20.
    #[oai(validator(min_items = 1, max_items = 20))]
    sources: Vec<String>,
    /// What for.
    #[oai(skip_serializing_if_is_none, validator(max_length = 100))]
    description: Option<String>,
}

/// Protocols that firewalls of all clouds know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum FirewallProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// A private network.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct PrivateNetwork {
    /// All of it: `10.20.0.0/16`.
    range: String,
    /// The part the server is in: `10.20.1.0/24`.
    subnet: String,
}

impl ServerOptions {
    /// What is kept of it.
    ///
    /// # Errors
    /// Names the member that cannot be.
    pub(super) fn read(self) -> Result<Options, Error> {
        within("options.volume_gib", self.volume_gib, 10..=10_000)?;
        within("options.disk_gib", self.disk_gib, 10..=2_000)?;
        let rules = self.rules.unwrap_or_default();
        if rules.len() > MOST_RULES {
            return Err(Error::field("options.rules", format!("at most {MOST_RULES} rules can be listed")));
        }
        let rules = rules.into_iter().enumerate();
        let network = |at: PrivateNetwork| {
            Ok::<_, Error>(kept::Network {
                range: network("options.network.range", &at.range)?,
                subnet: network("options.network.subnet", &at.subnet)?,
            })
        };
        Ok(Options {
            ssh_sources: self
                .ssh_sources
                .map(|words| read_networks("options.ssh_sources", &words, MOST_SOURCES))
                .transpose()?,
            rules: rules
                .map(|(index, rule)| rule.read(&format!("options.rules[{index}]")))
                .collect::<Result<_, _>>()?,
            network: self.network.map(network).transpose()?,
            static_address: self.static_address.unwrap_or_default(),
            volume_gib: self.volume_gib,
            disk_gib: self.disk_gib,
            authorized_keys: authorized_keys(self.authorized_keys.unwrap_or_default())?,
        })
    }
}

/// Whoever gets in beside the platform.
fn authorized_keys(lines: Vec<String>) -> Result<Vec<String>, Error> {
    const FIELD: &str = "options.authorized_keys";
    if lines.len() > kept::MOST_KEYS {
        return Err(Error::field(FIELD, format!("at most {} keys can be listed", kept::MOST_KEYS)));
    }
    let read = |(index, line): (usize, String)| {
        let key = PublicKey::parse(&line).map(|key| key.to_string());
        key.map_err(|wrong| Error::field(format!("{FIELD}[{index}]"), wrong.to_string()))
    };
    let keys: Vec<String> = lines.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
    if keys.iter().map(String::len).sum::<usize>() > kept::LONGEST_KEYS {
        let detail =
            format!("all keys together have at most {} characters; Ed25519 keys are short", kept::LONGEST_KEYS);
        return Err(Error::field(FIELD, detail));
    }
    Ok(keys)
}

fn within(field: &str, size: Option<u32>, gib: RangeInclusive<u32>) -> Result<(), Error> {
    if size.is_some_and(|size| !gib.contains(&size)) {
        return Err(Error::field(field, format!("write from {} to {} GiB", gib.start(), gib.end())));
    }
    Ok(())
}

fn network(field: &str, word: &str) -> Result<Ipv4Net, Error> {
    word.parse().map_err(|_| Error::field(field, "this is no network; write one such as 10.20.0.0/16"))
}

impl FirewallRule {
    fn read(self, field: &str) -> Result<kept::Rule, Error> {
        let (protocol, ports) = match (self.protocol, self.from_port) {
            (FirewallProtocol::Icmp, None) if self.to_port.is_none() => (kept::Protocol::Icmp, None),
            (FirewallProtocol::Icmp, _) => {
                return Err(Error::field(format!("{field}.from_port"), "ICMP has no ports; leave them out"));
            }
            (_, None) => {
                let detail = "a rule for TCP or UDP names its port, or the first and the last";
                return Err(Error::field(format!("{field}.from_port"), detail));
            }
            (protocol, Some(first)) => {
                let last = self.to_port.unwrap_or(first);
                if last < first {
                    return Err(Error::field(format!("{field}.to_port"), "the last port is not below the first"));
                }
                let protocol =
                    if protocol == FirewallProtocol::Tcp { kept::Protocol::Tcp } else { kept::Protocol::Udp };
                (protocol, Some((first, last)))
            }
        };
        let description = self.description.unwrap_or_default();
        if description.chars().count() > 100 || description.chars().any(char::is_control) {
            return Err(Error::field(
                format!("{field}.description"),
                "it is one line of up to 100 characters; shorten it, and leave control characters out",
            ));
        }
        if self.sources.is_empty() {
            return Err(Error::field(
                format!("{field}.sources"),
                "a rule names who is let in; write 0.0.0.0/0 for everybody",
            ));
        }
        let sources = read_networks(&format!("{field}.sources"), &self.sources, MOST_SOURCES)?;
        Ok(kept::Rule { protocol, ports, sources, description })
    }
}

impl From<Options> for ServerOptions {
    fn from(kept: Options) -> Self {
        let text = |networks: Vec<ipnet::IpNet>| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
        let network = |at: kept::Network| PrivateNetwork { range: at.range.to_string(), subnet: at.subnet.to_string() };
        let rule = |rule: kept::Rule| FirewallRule {
            protocol: match rule.protocol {
                kept::Protocol::Tcp => FirewallProtocol::Tcp,
                kept::Protocol::Udp => FirewallProtocol::Udp,
                kept::Protocol::Icmp => FirewallProtocol::Icmp,
            },
            from_port: rule.ports.map(|(first, _)| first),
            to_port: rule.ports.map(|(_, last)| last),
            sources: text(rule.sources),
            description: (!rule.description.is_empty()).then_some(rule.description),
        };
        Self {
            ssh_sources: kept.ssh_sources.map(text),
            rules: (!kept.rules.is_empty()).then(|| kept.rules.into_iter().map(rule).collect()),
            network: kept.network.map(network),
            static_address: Some(kept.static_address),
            volume_gib: kept.volume_gib,
            disk_gib: kept.disk_gib,
            authorized_keys: (!kept.authorized_keys.is_empty()).then_some(kept.authorized_keys),
        }
    }
}
