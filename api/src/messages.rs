//! Messages to people, as whoever runs an organization sees them: that there was one, and what became of it. What it says
//! is shown only where it reached nobody: links in it open accounts.

use gantry_schema::MessageId;
use gantry_schema::messages::{self as rows, queries};
use gantry_schema::organizations::needed::ReadMessages;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};

use crate::app::App;
use crate::caller::May;
use crate::error::Error;
use crate::example::example;
use crate::field::Moment;
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on messages.
#[derive(Debug, Clone, Copy)]
pub struct Messages;

/// How a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case", rename = "MessageChannel")]
enum Channel {
    /// By mail.
    Mail,
    /// By a text message to a telephone.
    Sms,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case", rename = "MessageState")]
enum State {
    /// It is to be sent.
    Queued,
    /// It was taken by whoever carries it on.
    Sent,
    /// It was not, and will not be.
    Failed,
}

/// What a message says.
#[derive(Debug, Object)]
#[oai(rename = "MessageContent", example)]
struct Content {
    /// What a letter is about.
    #[oai(skip_serializing_if_is_none)]
    subject: Option<String>,
    /// All of it, in plain text.
    text: String,
    /// The same in HTML, of a letter.
    #[oai(skip_serializing_if_is_none)]
    html: Option<String>,
}

example!(Content, {
    "subject": "Set a new password at Gantry",
    "text": "Somebody, most likely you, wants to set a new password.",
    "html": "<p>Somebody, most likely you, wants to set a new password.</p>",
});

/// A message to somebody.
#[derive(Debug, Object)]
#[oai(example)]
struct Message {
    /// Its id.
    id: MessageId,
    /// What it tells: `invitation`, `reset_password`, `new_device`, …
    kind: String,
    /// How it goes.
    channel: Channel,
    /// The address, or the number.
    recipient: String,
    /// What it is about: an id.
    #[oai(skip_serializing_if_is_none)]
    reference: Option<String>,
    /// What became of it.
    state: State,
    /// Who took it: `smtp`, `twilio`, or `sandbox`, from where it reaches nobody.
    #[oai(skip_serializing_if_is_none)]
    provider: Option<String>,
    /// What he knows it by.
    #[oai(skip_serializing_if_is_none)]
    provider_reference: Option<String>,
    /// Why nobody took it.
    #[oai(skip_serializing_if_is_none)]
    error: Option<String>,
    /// What it says: only of what the sandbox took.
    #[oai(skip_serializing_if_is_none)]
    content: Option<Content>,
    /// When it was written.
    created_at: Moment,
    /// When it is of no use any more, and not sent.
    #[oai(skip_serializing_if_is_none)]
    expires_at: Option<Moment>,
    /// When it was taken.
    #[oai(skip_serializing_if_is_none)]
    sent_at: Option<Moment>,
}

example!(Message, {
    "id": "msg_01h455vb4pex5vsknk084sn02q",
    "kind": "reset_password",
    "channel": "mail",
    "recipient": "ada@example.com",
    "state": "sent",
    "provider": "smtp",
    "provider_reference": "2.0.0 Ok: queued as 4F2B1",
    "created_at": "2026-01-15T12:00:00Z",
    "expires_at": "2026-01-15T13:00:00Z",
    "sent_at": "2026-01-15T12:00:01Z",
});

impl From<State> for rows::State {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Sent => Self::Sent,
            State::Failed => Self::Failed,
        }
    }
}

impl From<queries::Message> for Message {
    fn from(row: queries::Message) -> Self {
        // What waits to be sent is about to reach somebody.
        let content = row.content.filter(|_| row.state == rows::State::Sent);
        Self {
            id: row.id,
            kind: row.kind,
            channel: match row.channel {
                rows::Channel::Mail => Channel::Mail,
                rows::Channel::Sms => Channel::Sms,
            },
            recipient: row.recipient,
            reference: row.reference,
            state: match row.state {
                rows::State::Queued => State::Queued,
                rows::State::Sent => State::Sent,
                rows::State::Failed => State::Failed,
            },
            provider: row.provider,
            provider_reference: row.provider_reference,
            error: row.error,
            content: content.map(|rows::Content { subject, text, html, .. }| Content { subject, text, html }),
            created_at: row.created_at.into(),
            expires_at: row.expires_at.map(Into::into),
            sent_at: row.sent_at.map(Into::into),
        }
    }
}

#[OpenApi(prefix_path = "/messages", tag = "Tag::Messages")]
impl Messages {
    /// List messages
    ///
    /// Newest first unless told otherwise. They are forgotten after 30 days. Messages about people's own accounts are the
    /// platform's.
    #[oai(path = "/", method = "get", operation_id = "listMessages")]
    async fn list(
        &self,
        caller: May<ReadMessages>,
        app: Data<&App>,
        /// Only those of which this became.
        state: Query<Option<State>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Message>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::list(&mut tx, &app.sealing, state.0.map(Into::into), window).await?;
        Ok(paging.page(organization, found, |message| Place::id(message.id), Message::from))
    }

    /// Get a message
    ///
    /// What it says is there only where the sandbox took it, in an installation that sends nothing: once it was handed to
    /// somebody who carries it on, nothing of it is kept.
    #[oai(path = "/:message", method = "get", operation_id = "getMessage")]
    async fn get(
        &self,
        caller: May<ReadMessages>,
        app: Data<&App>,
        /// The message.
        message: Path<MessageId>,
    ) -> Result<Json<Message>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = queries::find(&mut tx, &app.sealing, message.0).await?;
        found.map(|message| Json(message.into())).ok_or_else(|| Error::not_found(message.0))
    }
}
