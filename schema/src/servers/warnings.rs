//! What may be meant of a server, and probably is not: said before anything is made, and nothing is refused for it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::Options;
use super::options::Protocol;
use crate::credentials::Cloud;
use crate::{JobTx as _, ServerId, TenantTx};

/// Where private networks are.
const PRIVATE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Servers whose networks are compared, at most.
const MOST_COMPARED: i64 = 1_000;

/// Something that may be meant, and probably is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Warning {
    /// Nobody gets in by SSH.
    NoSsh,
    /// The platform does not get in by SSH from where it is known to come.
    PlatformLockedOut,
    /// Only private addresses get in by SSH.
    PrivateSshOnly,
    /// SSH is open to everybody.
    OpenSsh,
    /// Another server has the same addresses in its network.
    NetworkOverlap,
}

impl Warning {
    /// The word programs compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSsh => "no_ssh",
            Self::PlatformLockedOut => "platform_locked_out",
            Self::PrivateSshOnly => "private_ssh_only",
            Self::OpenSsh => "open_ssh",
            Self::NetworkOverlap => "network_overlap",
        }
    }

    /// In words.
    #[must_use]
    pub const fn said(self) -> &'static str {
        match self {
            Self::NoSsh => {
                "no source may reach port 22: the platform will not get in, and the server will not become ready"
            }
            Self::PlatformLockedOut => {
                "the platform's own addresses may not reach port 22: the server will not become ready"
            }
            Self::PrivateSshOnly => {
                "only private addresses may reach port 22: the platform gets in only if it is in the same network"
            }
            Self::OpenSsh => "port 22 is open to everybody; name the sources that need it",
            Self::NetworkOverlap => {
                "another server has the same addresses in its network: the two can never be connected"
            }
        }
    }
}

/// A warning as it is kept and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// The word programs compare with.
    pub code: String,
    /// In words.
    pub detail: String,
}

impl From<Warning> for Warned {
    fn from(warning: Warning) -> Self {
        Self { code: warning.as_str().to_owned(), detail: warning.said().to_owned() }
    }
}

/// What is to be thought about, going by who is let in. `platform`: addresses from which the platform comes, where they are
/// known.
#[must_use]
pub fn of(options: &Options, platform: &[IpAddr]) -> Vec<Warning> {
    let to_ssh = options.rules.iter().filter(|rule| {
        rule.protocol == Protocol::Tcp && rule.ports.is_some_and(|(first, last)| (first..=last).contains(&22))
    });
    let everywhere = [IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))];
    let chosen = options.ssh_sources.as_deref().unwrap_or(&everywhere);
    let sources: Vec<IpNet> = chosen.iter().chain(to_ssh.flat_map(|rule| &rule.sources)).copied().collect();
    if sources.is_empty() {
        return vec![Warning::NoSsh];
    }
    let mut warnings = Vec::new();
    let gets_in = |address: &IpAddr| sources.iter().any(|source| source.contains(address));
    if !platform.is_empty() && !platform.iter().any(gets_in) && options.ssh_sources.is_some() {
        warnings.push(Warning::PlatformLockedOut);
    }
    let is_private = |source: &IpNet| match source {
        IpNet::V4(source) => PRIVATE.iter().any(|private| private.contains(source)),
        IpNet::V6(source) => source.addr().is_unique_local() || source.addr().is_unicast_link_local(),
    };
    if sources.iter().all(is_private) {
        warnings.push(Warning::PrivateSshOnly);
    }
    if sources.iter().any(|source| source.prefix_len() == 0) {
        warnings.push(Warning::OpenSsh);
    }
    warnings
}

/// What is to be thought about of a server of the transaction's organization, its network among those of the others at the same
/// cloud included.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_server(
    tx: &mut TenantTx,
    id: ServerId,
    cloud: Cloud,
    options: &Options,
) -> Result<Vec<Warned>, sqlx::Error> {
    let mut warned: Vec<Warned> = match cloud {
        // Its machines have no firewall.
        Cloud::Sandbox => Vec::new(),
        _ => of(options, &[]).into_iter().map(Into::into).collect(),
    };
    let Some(network) = options.network else { return Ok(warned) };
    let organization = tx.organization();
    let others = sqlx::query!(
        r#"select name, options -> 'network' ->> 'range' as "range!" from servers
            where organization_id = $1 and id <> $2 and cloud = $3 and destroyed_at is null
              and options -> 'network' ->> 'range' is not null
            order by id limit $4"#,
        organization.uuid(),
        id.uuid(),
        cloud.as_str(),
        MOST_COMPARED
    )
    .fetch_all(tx.connection())
    .await?;
    let overlaps = |range: &str| {
        range.parse::<Ipv4Net>().is_ok_and(|other| other.contains(&network.range) || network.range.contains(&other))
    };
    if let Some(other) = others.iter().find(|other| overlaps(&other.range)) {
        let detail = format!(
            "{} overlaps {}, the network of the server {}: the two can never be connected",
            network.range, other.range, other.name
        );
        warned.push(Warned { code: Warning::NetworkOverlap.as_str().to_owned(), detail });
    }
    Ok(warned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::options::Rule;

    #[test]
    fn who_locks_himself_out_is_warned() {
        let warned = |sources: Option<&[&str]>, rules: Vec<Rule>, platform: &[&str]| {
            let options = Options {
                ssh_sources: sources.map(|all| all.iter().map(|it| it.parse().unwrap()).collect()),
                rules,
                ..Options::default()
            };
            let platform: Vec<IpAddr> = platform.iter().map(|it| it.parse().unwrap()).collect();
            of(&options, &platform)
        };
        assert_eq!(warned(None, vec![], &["192.0.2.1"]), [Warning::OpenSsh]);
        assert_eq!(warned(Some(&[]), vec![], &[]), [Warning::NoSsh]);
        assert_eq!(warned(Some(&["198.51.100.0/24"]), vec![], &["192.0.2.1"]), [Warning::PlatformLockedOut]);
        assert_eq!(warned(Some(&["10.0.0.0/8", "fd00::/8"]), vec![], &[]), [Warning::PrivateSshOnly]);
        assert_eq!(warned(Some(&["192.0.2.0/24"]), vec![], &["192.0.2.1"]), []);
        let rule = Rule {
            protocol: Protocol::Tcp,
            ports: Some((20, 30)),
            sources: vec!["192.0.2.0/24".parse().unwrap()],
            description: String::new(),
        };
        assert_eq!(warned(Some(&[]), vec![rule], &["192.0.2.1"]), []);
    }
}
