//! The outside world: one trait for each kind of system, one file for each vendor, a sandbox beside them.
//!
//! This is the only crate that opens connections to others. It knows no table and no organization: what it is given and
//! gives back are plain texts, bytes and URLs. Workers build [`Providers`] once from their configuration and call it
//! from their handlers; an [`Error`] says by itself whether to try again.
//!
//! ```
//! # async fn example() -> gantry_providers::Result<()> {
//! use gantry_providers::{Config, Providers, hooks::HookRequest};
//!
//! let providers = Providers::new(&Config::default())?;
//! let request = HookRequest::new("https://hooks.example/gantry".parse().expect("a URL"), r#"{"type":"webhook.ping"}"#)
//!     .header("content-type", "application/json");
//! let answer = providers.hooks.send(request).await?;
//! println!("{} after {:?}", answer.status, answer.latency);
//! # Ok(())
//! # }
//! ```

pub mod clouds;
pub mod error;
pub mod hooks;
mod http;
pub mod mail;
pub mod modules;
mod secret;
pub mod sms;
pub mod ssh;
pub mod terraform;

use std::sync::Arc;

use serde::Deserialize;

use clouds::endpoints::Endpoints;
pub use error::{Error, Result};
use hooks::HookSender;
use mail::MailSender;
use modules::Modules;
pub use secret::Secret;
use sms::SmsSender;
use terraform::Terraform;

/// Which provider of each kind an installation uses, and how.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Outgoing webhooks.
    pub hooks: hooks::Config,
    /// Mail.
    pub mail: mail::Config,
    /// Text messages.
    pub sms: sms::Config,
    /// Servers.
    pub terraform: terraform::Config,
    /// Machines that are there already.
    pub ssh: ssh::Config,
    /// Modules of organizations.
    pub modules: modules::Config,
    /// Where clouds are, if elsewhere than where they really are.
    pub clouds: Endpoints,
}

/// One provider of each kind, cheap to clone.
#[derive(Clone)]
pub struct Providers {
    /// Delivers webhooks.
    pub hooks: Arc<dyn HookSender>,
    /// Sends mail.
    pub mail: Arc<dyn MailSender>,
    /// Sends text messages.
    pub sms: Arc<dyn SmsSender>,
    /// Makes servers.
    pub terraform: Arc<Terraform>,
    /// Opens accounts at clouds.
    pub clouds: Arc<Endpoints>,
    /// Gets into machines that are there already.
    pub machines: Arc<ssh::Guard>,
    /// Takes modules of organizations.
    pub modules: Arc<Modules>,
}

impl Providers {
    /// Builds the providers that are configured.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            hooks: config.hooks.build()?,
            mail: config.mail.build()?,
            sms: config.sms.build()?,
            terraform: Arc::new(Terraform::new(config.terraform.clone())),
            clouds: Arc::new(config.clouds.clone()),
            machines: Arc::new(ssh::Guard::new(&config.ssh)?),
            modules: Arc::new(config.modules.build(&config.terraform)?),
        })
    }
}
