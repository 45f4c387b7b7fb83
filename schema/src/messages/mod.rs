//! Messages to people: mail and text messages. One is written down with what it tells, and a job sends it.

mod phone;
pub mod queries;
pub mod templates;

use serde::{Deserialize, Serialize};

pub use phone::{InvalidPhone, Phone};

use crate::people::Email;

/// How a message reaches somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// By mail.
    Mail,
    /// By a text message to his telephone.
    Sms,
}

impl Channel {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Sms => "sms",
        }
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is to be sent.
    Queued,
    /// It was taken by whoever carries it on.
    Sent,
    /// It was not, and will not be.
    Failed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queued, Self::Sent, Self::Failed];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sent => "sent",
            Self::Failed => "failed",
        }
    }
}

/// Whom a message is for.
#[derive(Debug, Clone)]
pub enum Recipient {
    /// Whoever reads the mail of this address.
    Mail(Email),
    /// Whoever has this telephone.
    Sms(Phone),
}

impl Recipient {
    /// How it reaches him.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Mail(_) => Channel::Mail,
            Self::Sms(_) => Channel::Sms,
        }
    }

    /// The address, or the number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Mail(email) => email.as_str(),
            Self::Sms(phone) => phone.as_str(),
        }
    }
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What a letter is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// All of it, as everybody can read it.
    pub text: String,
    /// The same in HTML, of a letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// What the sender of a letter is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
    /// Where answers to a letter go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
}
