//! Text messages to telephones.

#[cfg(test)]
mod contract;
pub mod sandbox;
pub mod twilio;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

pub use sandbox::SandboxSms;
pub use twilio::TwilioSms;

use crate::{Error, Result};

/// Characters that vendors take in one message, however many parts they make of it.
pub const LONGEST: usize = 1_600;

/// Sends text messages.
#[async_trait]
pub trait SmsSender: Send + Sync {
    /// What it is called where it is written down who took a message.
    fn name(&self) -> &'static str;

    /// Hands a message over. Vendors know no repetition: what is sent again may arrive twice.
    async fn send(&self, text: &Text) -> Result<Accepted>;
}

/// A text message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Which one: the sandbox keeps each once.
    pub id: String,
    /// The number, as E.164 writes it: `+` and up to 15 digits.
    pub to: String,
    /// What it says.
    pub body: String,
}

impl Text {
    fn check(&self) -> Result<()> {
        let digits = self.to.strip_prefix('+').unwrap_or_default();
        let is_number = (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let rejected =
            |code: &str, reason: &str| Err(Error::Rejected { code: code.to_owned(), reason: reason.to_owned() });
        if !is_number {
            return rejected("21211", "the number is none");
        }
        match self.body.chars().count() {
            0 => rejected("21602", "the message is empty"),
            1..=LONGEST => Ok(()),
            _ => rejected("21617", "the message is too long"),
        }
    }
}

/// That a message was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What the vendor knows it by.
    pub reference: String,
}

/// Who sends text messages.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum Config {
    /// Nobody: messages are refused.
    #[default]
    None,
    /// Twilio, or whoever speaks as it does.
    Twilio(twilio::Config),
    /// To nobody: messages are kept in this process.
    Sandbox,
}

impl Config {
    /// Reads what an installation says in one line: `https://ACCOUNT:TOKEN@api.twilio.com`, `sandbox:`.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn of_url(url: Option<&Url>, from: Option<&str>) -> Result<Self> {
        match url {
            None => Ok(Self::None),
            Some(url) if url.scheme() == "sandbox" => Ok(Self::Sandbox),
            Some(url) => twilio::Config::of_url(url, from).map(Self::Twilio),
        }
    }

    /// Builds the sender.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn build(&self) -> Result<Arc<dyn SmsSender>> {
        Ok(match self {
            Self::None => Arc::new(Nobody),
            Self::Twilio(config) => Arc::new(TwilioSms::new(config)?),
            Self::Sandbox => Arc::new(SandboxSms::default()),
        })
    }
}

/// Refuses every message.
struct Nobody;

#[async_trait]
impl SmsSender for Nobody {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn send(&self, _: &Text) -> Result<Accepted> {
        Err(Error::NotConfigured("sender of text messages"))
    }
}
