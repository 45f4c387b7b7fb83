//! Mail: one letter to one address, in plain text and HTML.

#[cfg(test)]
mod contract;
pub mod sandbox;
pub mod smtp;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use serde::Deserialize;
use url::Url;

pub use sandbox::SandboxMail;
pub use smtp::SmtpMail;

use crate::{Error, Result};

/// Sends mail.
#[async_trait]
pub trait MailSender: Send + Sync {
    /// What it is called where it is written down who took a letter.
    fn name(&self) -> &'static str;

    /// Hands a letter over. Sent again, it is the same letter: it has the same Message-ID.
    async fn send(&self, letter: &Letter) -> Result<Accepted>;
}

/// A letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// What it is known by: the first part of its Message-ID.
    pub id: String,
    /// Whom it is for.
    pub to: String,
    /// What its sender is called; the address is the installation's.
    pub from_name: Option<String>,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// What it is about.
    pub subject: String,
    /// As everybody can read it.
    pub text: String,
    /// As it is shown where that can be shown.
    pub html: String,
    /// When it was written.
    pub written_at: SystemTime,
}

impl Letter {
    /// Whether it can be sent as it is: what would end a header is no part of one.
    fn check(&self) -> Result<()> {
        let headers = [
            ("subject", Some(&self.subject)),
            ("to", Some(&self.to)),
            ("from", self.from_name.as_ref()),
            ("reply-to", self.reply_to.as_ref()),
            ("message-id", Some(&self.id)),
        ];
        match headers.iter().find(|(_, text)| text.is_some_and(|text| text.chars().any(char::is_control))) {
            Some((name, _)) => Err(Error::InvalidHeader((*name).to_owned())),
            None => Ok(()),
        }
    }
}

/// That a letter was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What the other side knows it by, where it says so.
    pub reference: Option<String>,
}

/// Who sends mail.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "provider", rename_all = "snake_case")]
pub enum Config {
    /// Nobody: letters are refused.
    #[default]
    None,
    /// A mail server.
    Smtp(smtp::Config),
    /// To nobody: letters are kept in this process.
    Sandbox,
}

impl Config {
    /// Reads what an installation says in one line: `smtps://user:password@host` (TLS from the beginning),
    /// `smtp://user:password@host` (STARTTLS, or nothing is sent), `smtp://host?tls=none`, `sandbox:`.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn of_url(url: Option<&Url>, from: Option<&str>) -> Result<Self> {
        match url {
            None => Ok(Self::None),
            Some(url) if url.scheme() == "sandbox" => Ok(Self::Sandbox),
            Some(url) => smtp::Config::of_url(url, from).map(Self::Smtp),
        }
    }

    /// Builds the sender.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn build(&self) -> Result<Arc<dyn MailSender>> {
        Ok(match self {
            Self::None => Arc::new(Nobody),
            Self::Smtp(config) => Arc::new(SmtpMail::new(config)?),
            Self::Sandbox => Arc::new(SandboxMail::default()),
        })
    }
}

/// Refuses every letter.
struct Nobody;

#[async_trait]
impl MailSender for Nobody {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn send(&self, _: &Letter) -> Result<Accepted> {
        Err(Error::NotConfigured("mail server"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_mail_server_letters_are_refused() {
        let sender = Config::of_url(None, None).unwrap().build().unwrap();
        let error = sender.send(&contract::letter("msg_1")).await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), ("not_configured", false));
    }

    #[test]
    fn a_mail_server_is_said_in_one_line() {
        let read = |url: &str| Config::of_url(Some(&url.parse().unwrap()), Some("Gantry <no-reply@cloud.example>"));
        let smtp = |url: &str| match read(url).unwrap() {
            Config::Smtp(config) => (config.host, config.port, config.security, config.username),
            other => panic!("{other:?}"),
        };
        let starttls = ("mail.example".to_owned(), 587, smtp::Security::Starttls, None);
        assert_eq!(smtp("smtp://mail.example"), starttls);
        let user = Some("me@cloud.example".to_owned());
        let tls = ("mail.example".to_owned(), 465, smtp::Security::Tls, user);
        assert_eq!(smtp("smtps://me%40cloud.example:p%2Fw@mail.example"), tls);
        let plain = ("127.0.0.1".to_owned(), 2525, smtp::Security::None, None);
        assert_eq!(smtp("smtp://127.0.0.1:2525?tls=none"), plain);
        assert!(matches!(read("sandbox:").unwrap(), Config::Sandbox));
        for bad in ["http://mail.example", "smtp://mail.example?tls=maybe", "smtps://mail.example?tls=none", "smtp:x"] {
            assert_eq!(read(bad).unwrap_err().code(), "configuration", "{bad}");
        }
        let nobody = Config::of_url(Some(&"smtp://mail.example".parse().unwrap()), None).unwrap_err();
        assert!(nobody.explain().contains("GANTRY_MAIL_FROM"), "{}", nobody.explain());
        let shown = format!("{:?}", read("smtps://me:hunter2@mail.example").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
