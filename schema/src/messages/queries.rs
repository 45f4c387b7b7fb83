//! Messages in the table.

use std::str::FromStr;

use chrono::{DateTime, Duration, Utc};
use secrecy::ExposeSecret as _;

use super::{Channel, Content, Recipient, State};
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::window::in_order;
use crate::{EngineDb, JobTx as _, MessageId, OrganizationId, TenantTx, Window};

/// How long it is known that there was a message.
const KEPT: Duration = Duration::days(30);

/// A message to write down.
#[derive(Debug, Clone)]
pub struct NewMessage<'a> {
    /// What it tells: `invitation`, `password_changed`.
    pub kind: &'a str,
    /// Whom it is for.
    pub to: &'a Recipient,
    /// What it says.
    pub content: &'a Content,
    /// What it is about: an id, as people see it.
    pub reference: Option<String>,
    /// When it is of no use any more; `None`: never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// What it tells.
    pub kind: String,
    /// How it goes.
    pub channel: Channel,
    /// The address, or the number.
    pub recipient: String,
    /// What it says; gone when somebody who carries it on has taken it.
    pub content: Option<Content>,
    /// What it is about.
    pub reference: Option<String>,
    /// What became of it.
    pub state: State,
    /// Who took it.
    pub provider: Option<String>,
    /// What he knows it by.
    pub provider_reference: Option<String>,
    /// Why nobody did.
    pub error: Option<String>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
    /// When it is of no use any more.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was taken.
    pub sent_at: Option<DateTime<Utc>>,
}

/// A message cannot be written down or read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It does not open, or could not be sealed.
    #[error("a sealed message")]
    Seal(#[from] SealError),
    /// What was sealed is not what is sealed there.
    #[error("a sealed message that cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// The database refused or went away.
    #[error("the table of messages")]
    Database(#[from] sqlx::Error),
}

struct Row {
    id: MessageId,
    kind: String,
    channel: String,
    recipient: Vec<u8>,
    content: Option<Vec<u8>>,
    reference: Option<String>,
    state: String,
    provider: Option<String>,
    provider_reference: Option<String>,
    error: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
}

/// The one place where whom a message is for opens, or what it says.
#[must_use]
pub fn place(organization: OrganizationId, column: &'static str, id: MessageId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "messages", column, row: id.uuid() }
}

impl FromStr for State {
    type Err = sqlx::Error;

    fn from_str(word: &str) -> Result<Self, sqlx::Error> {
        let unknown = || sqlx::Error::Decode(format!("{word:?} is no state of a message").into());
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(unknown)
    }
}

impl Row {
    fn open(self, organization: OrganizationId, keys: &SealingKeys) -> Result<Message, MessageError> {
        let recipient = keys.open(&place(organization, "recipient", self.id), &self.recipient)?;
        let content = match &self.content {
            Some(sealed) => {
                let opened = keys.open(&place(organization, "content", self.id), sealed)?;
                Some(serde_json::from_slice(opened.expose_secret()).map_err(MessageError::Malformed)?)
            }
            None => None,
        };
        Ok(Message {
            id: self.id,
            kind: self.kind,
            channel: if self.channel == Channel::Sms.as_str() { Channel::Sms } else { Channel::Mail },
            recipient: String::from_utf8_lossy(recipient.expose_secret()).into_owned(),
            content,
            reference: self.reference,
            state: self.state.parse()?,
            provider: self.provider,
            provider_reference: self.provider_reference,
            error: self.error,
            created_at: self.created_at,
            expires_at: self.expires_at,
            sent_at: self.sent_at,
        })
    }
}

/// Writes a message down for the transaction's organization.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn insert(tx: &mut TenantTx, keys: &SealingKeys, new: &NewMessage<'_>) -> Result<MessageId, MessageError> {
    let (id, organization, now) = (tx.ids().mint::<MessageId>(), tx.organization(), tx.now());
    let recipient = keys.seal(&place(organization, "recipient", id), new.to.as_str().as_bytes())?;
    let content = serde_json::to_vec(new.content).map_err(MessageError::Malformed)?;
    let content = keys.seal(&place(organization, "content", id), &content)?;
    sqlx::query!(
        "insert into messages (id, organization_id, kind, channel, recipient, content, reference, created_at, expires_at,
                               keep_until)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        id.uuid(),
        organization.uuid(),
        new.kind,
        new.to.channel().as_str(),
        recipient,
        content,
        new.reference,
        now,
        new.expires_at,
        now + KEPT
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// A message of the transaction's organization.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn find(tx: &mut TenantTx, keys: &SealingKeys, id: MessageId) -> Result<Option<Message>, MessageError> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: MessageId", kind, channel, recipient, content, reference, state, provider,
                  provider_reference, error, created_at, expires_at, sent_at
             from messages where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(|row| row.open(organization, keys)).transpose()
}

/// A page of the organization's messages; with `state`, only of those.
///
/// # Errors
/// When one does not open, or the database refuses.
pub async fn list(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    state: Option<State>,
    window: Window,
) -> Result<Vec<Message>, MessageError> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select id as "id: MessageId", kind, channel, recipient, content, reference, state, provider,
                          provider_reference, error, created_at, expires_at, sent_at
                     from messages
                    where organization_id = $1 and id > $2 and id < $3 and ($4::text is null or state = $4)
                    order by id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                window.low(),
                window.high(),
                state.map(State::as_str),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    let rows: Vec<Row> = in_order!(window.order, page)?;
    rows.into_iter().map(|row| row.open(organization, keys)).collect()
}

/// Somebody took the message. What it says is kept only where that reached nobody else.
///
/// # Errors
/// When the database refuses or went away.
pub async fn sent(
    tx: &mut TenantTx,
    id: MessageId,
    provider: &str,
    reference: Option<&str>,
    keep_content: bool,
) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let reference: Option<String> = reference.map(|text| text.chars().take(200).collect());
    sqlx::query!(
        "update messages set state = 'sent', sent_at = $3, provider = $4, provider_reference = $5, error = null,
                content = case when $6 then content end
          where organization_id = $1 and id = $2 and state = 'queued'",
        organization.uuid(),
        id.uuid(),
        now,
        provider,
        reference,
        keep_content
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Nobody takes the message, for this reason. What it says is of no use any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut TenantTx, id: MessageId, provider: &str, error: &str) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let error: String = error.chars().take(500).collect();
    sqlx::query!(
        "update messages set state = 'failed', provider = $3, error = $4, content = null
          where organization_id = $1 and id = $2 and state = 'queued'",
        organization.uuid(),
        id.uuid(),
        provider,
        error
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Forgets messages that have been kept long enough, of everybody, up to `limit`. Answers how many.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, now: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    sqlx::query!(
        "delete from messages where id in (select id from messages where keep_until < $1 order by keep_until limit $2)",
        now,
        limit
    )
    .execute(db.pool())
    .await
    .map(|done| done.rows_affected())
}
