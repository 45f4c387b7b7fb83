//! Clouds: what is written for Terraform to make a server there, what it costs, and what is left when Terraform has lost
//! sight of it.

pub mod sandbox;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

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
    /// Who gets in, as `authorized_keys` has it.
    pub authorized_key: &'a str,
    /// Words for it.
    pub labels: &'a BTreeMap<String, String>,
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
    /// In a month, in the smallest unit of the currency.
    pub monthly_cost: i64,
    /// ISO 4217.
    pub currency: &'static str,
    /// How long it may take until it lets us in.
    pub patience: Duration,
    /// Whether it has to have Docker.
    pub needs_docker: bool,
}

impl Template {
    /// One of which nothing comes: what is there is removed.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self {
            configuration: serde_json::json!({ "terraform": { "required_version": ">= 1.5" } }),
            files: Vec::new(),
            monthly_cost: 0,
            currency: "USD",
            patience: Duration::ZERO,
            needs_docker: false,
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
