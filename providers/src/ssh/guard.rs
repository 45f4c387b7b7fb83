//! Which machines may be contacted where a stranger says at which address they are: the same as receivers of webhooks may be,
//! looked at whenever they are contacted, at the very addresses that are then dialled.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{Place, Session, SshError, connect};
use crate::Result;
use crate::hooks::client::{Lookup, system_resolver};
use crate::hooks::{AddressPolicy, Reach};

/// Addresses of a name that are tried, one after the other.
const TRIED: usize = 4;

/// Which machines may be contacted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Networks, addresses and hosts that may be contacted though they are not public.
    pub allow: Vec<String>,
}

/// Gets into machines whose addresses strangers say.
pub struct Guard {
    policy: AddressPolicy,
    lookup: Arc<dyn Lookup>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Guard {
    /// One that resolves names as the system's configuration says.
    ///
    /// # Errors
    /// When something that is listed is no network, address or host, or the system's configuration cannot be read.
    pub fn new(config: &Config) -> Result<Self> {
        Self::with_lookup(config, Arc::new(system_resolver()?))
    }

    /// One that asks `lookup` for the addresses of names.
    ///
    /// # Errors
    /// When something that is listed is no network, address or host.
    pub fn with_lookup(config: &Config, lookup: Arc<dyn Lookup>) -> Result<Self> {
        let nothing = AddressPolicy::new(Reach::Public);
        let policy = config.allow.iter().try_fold(nothing, |policy, entry| policy.allow(entry))?;
        Ok(Self { policy, lookup })
    }

    /// Where a host is, if all of that may be contacted.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, SshError> {
        let refused = || SshError::Address { address: host.to_owned() };
        if let Ok(address) = host.parse::<IpAddr>() {
            return if self.policy.allows(address) { Ok(vec![address]) } else { Err(refused()) };
        }
        let unreachable = |why: String| SshError::Unreachable { address: host.to_owned(), port, why };
        let found = self.lookup.addresses(host).await.map_err(|why| unreachable(why.to_string()))?;
        if found.is_empty() {
            return Err(unreachable("the name has no address".to_owned()));
        }
        self.policy.check_resolved(host, &found).map_err(|_| refused())?;
        Ok(found)
    }

    /// Gets in, as [`connect`] does, if the machine may be contacted.
    ///
    /// # Errors
    /// When it may not, or as [`connect`].
    pub async fn connect(&self, place: Place<'_>, seed: &[u8], within: Duration) -> Result<Session, SshError> {
        let end = Instant::now() + within;
        let late = || SshError::Unreachable {
            address: place.address.to_owned(),
            port: place.port,
            why: format!("not within {} s", within.as_secs()),
        };
        let found = timeout_at(end, self.addresses(place.address, place.port)).await.map_err(|_| late())??;
        let mut why = late();
        let mut left = u32::try_from(found.len().min(TRIED)).unwrap_or(1);
        for address in found.into_iter().take(TRIED) {
            let share = end.saturating_duration_since(Instant::now()) / left.max(1);
            left -= 1;
            let address = address.to_canonical().to_string();
            match connect(Place { address: &address, ..place }, seed, share).await {
                Err(error @ SshError::Unreachable { .. }) => why = error,
                entered => return entered,
            }
        }
        Err(why)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::error::Cause;

    struct Names;

    #[async_trait]
    impl Lookup for Names {
        async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Cause> {
            let found = match host {
                "good.example" => vec!["192.0.3.7", "2606:4700::1111"],
                "mixed.example" => vec!["192.0.3.7", "10.0.0.7"],
                "inside.example" => vec!["10.1.2.3"],
                "metadata.example" => vec!["169.254.169.254"],
                "empty.example" => vec![],
                _ => return Err("no such name".into()),
            };
            Ok(found.into_iter().map(|address| address.parse().unwrap()).collect())
        }
    }

    async fn verdict(allow: &[&str], host: &str) -> &'static str {
        let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
        let guard = Guard::with_lookup(&Config { allow }, Arc::new(Names)).unwrap();
        match guard.addresses(host, 22).await {
            Ok(_) => "contacted",
            Err(SshError::Address { .. }) => "refused",
            Err(_) => "unreachable",
        }
    }

    #[tokio::test]
    async fn nobody_scans_the_network_of_the_operator() {
        for (host, expected) in [
            ("192.0.3.7", "contacted"),
            ("good.example", "contacted"),
            ("127.0.0.1", "refused"),
            ("::1", "refused"),
            ("::ffff:10.0.0.1", "refused"),
            ("192.168.1.1", "refused"),
            ("169.254.169.254", "refused"),
            ("fd00:ec2::254", "refused"),
            ("0.0.0.0", "refused"),
            ("mixed.example", "refused"),
            ("inside.example", "refused"),
            ("metadata.example", "refused"),
            ("empty.example", "unreachable"),
            ("unknown.example", "unreachable"),
        ] {
            assert_eq!(verdict(&[], host).await, expected, "{host}");
        }
    }

    #[tokio::test]
    async fn what_the_operator_lists_is_contacted_and_nothing_beside_it() {
        let allow = ["10.1.0.0/16", "metadata.example", "127.0.0.1"];
        for (host, expected) in [
            ("inside.example", "contacted"),
            ("metadata.example", "contacted"),
            ("127.0.0.1", "contacted"),
            ("127.0.0.2", "refused"),
            ("mixed.example", "refused"),
            ("10.2.0.1", "refused"),
        ] {
            assert_eq!(verdict(&allow, host).await, expected, "{host}");
        }
    }

    #[tokio::test]
    async fn whoever_is_refused_is_not_dialled_and_not_told_the_address() {
        let guard = Guard::with_lookup(&Config::default(), Arc::new(Names)).unwrap();
        let host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
        let place = Place { address: "inside.example", port: 22, username: "root", host_key };
        let error = guard.connect(place, &[7; 32], Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, SshError::Address { .. }) && !error.may_pass());
        assert!(!error.to_string().contains("10.1"), "{error}");
    }
}
