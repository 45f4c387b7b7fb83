//! Clouds: what is written for Terraform to make a server there, what it costs, and what is left when Terraform has lost
//! sight of it.

pub mod account;
pub mod aws;
pub mod azure;
pub mod cloud_init;
pub mod digitalocean;
pub mod endpoints;
pub mod gcp;
pub mod hetzner;
mod known;
pub mod plausible;
pub mod price;
pub mod sandbox;
pub(crate) mod template;
#[cfg(test)]
mod templates;
#[cfg(test)]
mod testing;
mod weight;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

pub use account::{Account, Vendor};
pub use known::{Known, known, missing_permission};
pub use template::{of_nothing, template};
pub use weight::{Loss, loss};

use crate::modules::template::Laid;

/// A server that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint<'a> {
    /// What it is known by; everything that is made for it carries this.
    pub label: &'a str,
    /// What it is made by.
    pub run: &'a str,
    /// Its host name.
    pub name: &'a str,
    /// Where.
    pub region: &'a str,
    /// How large.
    pub size: &'a str,
    /// What it begins with.
    pub image: &'a str,
    /// The platform's own key, as `authorized_keys` has it.
    pub authorized_key: &'a str,
    /// Words for it.
    pub labels: &'a BTreeMap<String, String>,
    /// What else is wanted of it.
    pub options: Options<'a>,
}

impl Blueprint<'_> {
    /// Everybody who gets in, as `authorized_keys` has it.
    pub(crate) fn who_gets_in(&self) -> String {
        let keys = std::iter::once(self.authorized_key).chain(self.options.authorized_keys.iter().map(String::as_str));
        keys.flat_map(|key| [key.trim(), "\n"]).collect()
    }
}

/// What else may be wanted of a server. The sandbox keeps it, and does nothing about it but for who gets in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// Whose it is; everything that is made carries this. Empty: nobody's.
    pub organization: &'a str,
    /// Who makes it; everything that is made carries this. Empty: nobody in particular.
    pub installation: &'a str,
    /// The run that makes it, not one that changes it later: everything that is made carries this. Empty: none.
    pub run: &'a str,
    /// From where it is reached by SSH; `None`: from everywhere.
    pub ssh_sources: Option<Vec<IpNet>>,
    /// What else is let in, besides 22, 80 and 443.
    pub rules: Vec<Rule>,
    /// Its network; `None`: the usual one, or what the cloud gives.
    pub network: Option<Network>,
    /// Networks that its own must not overlap.
    pub others: Vec<Ipv4Net>,
    /// Whether its address is to stay when the machine is another.
    pub static_address: bool,
    /// How large a volume it has; `None`: it has none.
    pub volume_gib: Option<u32>,
    /// How large its disk is, where that is not part of its size; `None`: the usual.
    pub disk_gib: Option<u32>,
    /// Keys of people who get in beside the platform, as `authorized_keys` has them.
    pub authorized_keys: Vec<String>,
    /// A secret of at least 32 bytes, from which its first host key is made: the same as long as the stack is.
    pub secret: &'a [u8],
    /// Addresses from which the platform comes, where they are known.
    pub platform: Vec<IpAddr>,
}

/// Something that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// By which protocol.
    pub protocol: Protocol,
    /// To which ports, from the first to the last. ICMP has none.
    pub ports: Option<(u16, u16)>,
    /// From where.
    pub sources: Vec<IpNet>,
    /// What for.
    pub description: String,
}

/// Protocols that firewalls of all clouds know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

impl Protocol {
    /// As all of them write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// A private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// All of it.
    pub range: Ipv4Net,
    /// The part the server is in.
    pub subnet: Ipv4Net,
}

/// A file that lies beside the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub contents: String,
}

/// What Terraform is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// What is to be there, as `.tf.json` has it. Its outputs are `address`, `port`, `user` and `host_key`.
    pub configuration: Value,
    /// What lies beside it.
    pub files: Vec<File>,
    /// What Terraform finds in its environment besides: it is secret, and none of the configuration.
    pub environment: Vec<(String, String)>,
    /// In a month, in the smallest unit of the currency.
    pub monthly_cost: i64,
    /// ISO 4217.
    pub currency: &'static str,
    /// How long it may take until it lets us in.
    pub patience: Duration,
    /// Whether it has to have Docker.
    pub needs_docker: bool,
    /// Whether its host key is one that the platform made, and good for the first contact only.
    pub first_key: bool,
    /// What lies beside it, where an organization wrote what is made. Nobody knows what that costs.
    pub module: Option<Laid>,
    /// Whether Terraform is confined to its directory. Clouds need nothing else, and their plugins are written by others. The
    /// sandbox is not: it starts machines on the worker's own, which live on when the run has ended, and everything in it that
    /// is run is the platform's own.
    pub confined: bool,
}

impl Template {
    /// One of which nothing comes: what is there is removed. Nothing in it is run.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self {
            configuration: serde_json::json!({ "terraform": { "required_version": ">= 1.5" } }),
            files: Vec::new(),
            environment: Vec::new(),
            monthly_cost: 0,
            currency: "USD",
            patience: Duration::ZERO,
            needs_docker: false,
            first_key: false,
            module: None,
            confined: false,
        }
    }
}

/// Why a server cannot be made there, as far as that is known before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// There is no such region.
    Region,
    /// There is no such size.
    Size,
    /// There is no such image.
    Image,
    /// The account may have no more.
    Quota,
    /// Its name is none, or something else about it cannot be.
    Name,
    /// Its network cannot be.
    Network,
    /// The cloud has none at the moment.
    Capacity,
    /// The cloud does not say what it costs.
    Price,
    /// This installation makes none there.
    Off,
}

/// A server cannot be made there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct Refusal {
    /// Why.
    pub because: Because,
    /// What to write instead, or what there is and may be.
    pub said: String,
}
