//! Telling people: a message is written down, and its sending is asked for, in one transaction.
//!
//! ```text
//! let brand = messages::brand(tx).await?;
//! let content = templates::code_by_mail(&brand, &code, 10);
//! let new = NewMessage { kind: "sign_in_code", to: &Recipient::Mail(email), content: &content, reference: None, expires_at };
//! messages::send(tx, &app.sealing, &new, &by).await?;
//! ```

use std::time::Duration;

use gantry_schema::messages::queries::{self, MessageError, NewMessage};
use gantry_schema::messages::templates::Brand;
use gantry_schema::organizations::settings;
use gantry_schema::seal::SealingKeys;
use gantry_schema::{MessageId, TenantTx};
use serde::{Deserialize, Serialize};

use crate::request::RequestError;
use crate::{By, Job, Policy, Queue, Retry};

/// Sends one message. Whom to, and what it says, lies sealed in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessage {
    /// Which one.
    pub message: MessageId,
}

/// Somebody waits for a code or a link: the first repetitions come soon. Mail servers put strangers off for minutes
/// (greylisting), and are away for hours.
const LADDER: Retry = Retry::Ladder(&[
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(5),
    Duration::from_mins(15),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(6),
]);

impl Job for SendMessage {
    const KIND: &'static str = "messages.send";
    const POLICY: Policy = Policy::new(Queue::Default).priority(1).attempts(9).retry(LADDER);
}

/// A message cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It cannot be written down.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Its job cannot be asked for.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Writes a message of the transaction's organization down, and asks for it to be sent: it is, if and only if the
/// transaction is committed. Answers its id. One that nobody needs after a moment is not sent after that.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn send(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    new: &NewMessage<'_>,
    by: &By,
) -> Result<MessageId, SendError> {
    let message = queries::insert(tx, keys, new).await?;
    SendMessage { message }.request().enqueue(tx, by).await?;
    Ok(message)
}

/// As whom the transaction's organization speaks.
///
/// # Errors
/// When the database refuses or went away.
pub async fn brand(tx: &mut TenantTx) -> Result<Brand, sqlx::Error> {
    Ok(Brand::of(&settings::all(tx).await?))
}
