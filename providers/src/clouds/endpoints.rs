//! Where clouds are, for an installation that reaches them elsewhere than where they really are.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use super::Vendor;
use super::account::{self, Account, Key, Now, Reach};
use crate::Result;

/// Clouds that are reached elsewhere: `hetzner=https://proxy.example`, one after the other with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Endpoints(BTreeMap<&'static str, String>);

/// A text names no clouds and addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cloud and its address: write hetzner=https://host, or http://127.0.0.1:port")]
pub struct NoEndpoint(String);

impl FromStr for Endpoints {
    type Err = NoEndpoint;

    fn from_str(text: &str) -> std::result::Result<Self, NoEndpoint> {
        let mut endpoints = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || NoEndpoint(part.to_owned());
            let (vendor, at) = part.split_once('=').ok_or_else(wrong)?;
            let vendor: Vendor = vendor.trim().parse().map_err(|_| wrong())?;
            Reach::real(Arc::new(|| 0)).at(at.trim()).map_err(|_| wrong())?;
            endpoints.insert(vendor.as_str(), at.trim().to_owned());
        }
        Ok(Self(endpoints))
    }
}

impl TryFrom<String> for Endpoints {
    type Error = NoEndpoint;

    fn try_from(text: String) -> std::result::Result<Self, NoEndpoint> {
        text.parse()
    }
}

impl Endpoints {
    /// Opens an account where its cloud is reached. Nothing is asked yet.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn open(&self, key: Key, now: Now) -> Result<Arc<dyn Account>> {
        let reach = Reach::real(now);
        let reach = match self.0.get(key.vendor().as_str()) {
            Some(at) => reach.at(at)?,
            None => reach,
        };
        account::open(key, &reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_and_addresses_are_read_and_nothing_else_is() {
        let read: Endpoints = "hetzner=http://127.0.0.1:4010, aws=https://proxy.example".parse().unwrap();
        assert_eq!(read.0.len(), 2);
        assert_eq!("".parse(), Ok(Endpoints::default()));
        for bad in ["hetzner", "moon=https://a.example", "hetzner=http://a.example", "hetzner=https://a.example/v1"] {
            assert!(bad.parse::<Endpoints>().is_err(), "{bad}");
        }
    }
}
