//! Idempotency keys in the table.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};

use crate::seal::{SealContext, SealError, SealingKeys, SecretBytes};
use uuid::Uuid;

use crate::{EngineDb, JobTx as _, TenantTx};

/// How long an answer is kept.
pub const KEPT: Duration = Duration::hours(24);

/// A request that may be sent again.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What its sender calls it.
    pub key: &'a str,
    /// Who sends it.
    pub sender: Uuid,
    /// Method and path, for people.
    pub operation: &'a str,
    /// The digest of all that makes it this request and no other.
    pub fingerprint: [u8; 32],
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers that belong to it.
    pub headers: BTreeMap<String, String>,
    /// The body; `None`: it was too large to be kept.
    pub body: Option<SecretBytes>,
}

/// What a request with a key comes to.
#[derive(Debug)]
pub enum Begun {
    /// Nothing is known of it: it may have its effect in this transaction.
    New,
    /// It runs at this moment, in another transaction.
    InFlight,
    /// The key belongs to another request.
    Reused,
    /// It was answered.
    Answered(Answer),
}

/// Why a request cannot be begun or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or went away.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The answer cannot be sealed, or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Holds the key until the transaction ends, and looks what was answered before.
///
/// # Errors
/// When the database refuses or went away, or what was answered does not open.
pub async fn begin(tx: &mut TenantTx, request: &Request<'_>, sealing: &SealingKeys) -> Result<Begun, Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let held = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1::text || ' ' || $2::text, 11)) as "held!""#,
        organization.uuid().to_string(),
        request.key
    )
    .fetch_one(tx.connection())
    .await?;
    if !held {
        return Ok(Begun::InFlight);
    }
    // A statement of its own: it sees what was committed by whoever held the key before.
    let row = sqlx::query!(
        "select id, api_key_id, fingerprint, status, headers, body from idempotency_keys
          where organization_id = $1 and key = $2 and created_at > $3",
        organization.uuid(),
        request.key,
        now - KEPT
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(row) = row else { return Ok(Begun::New) };
    if row.api_key_id != request.sender || row.fingerprint != request.fingerprint {
        return Ok(Begun::Reused);
    }
    let context = context(organization.uuid(), row.id);
    Ok(Begun::Answered(Answer {
        status: u16::try_from(row.status).unwrap_or_default(),
        headers: serde_json::from_value(row.headers).map_err(|error| sqlx::Error::Decode(error.into()))?,
        body: row.body.map(|body| sealing.open(&context, &body)).transpose()?,
    }))
}

/// Keeps the answer, in the transaction of the effect. `body` is `None` where it is too large.
///
/// # Errors
/// When the database refuses or went away, or the body cannot be sealed.
pub async fn keep(
    tx: &mut TenantTx,
    request: &Request<'_>,
    status: u16,
    headers: &BTreeMap<&str, &str>,
    body: Option<&[u8]>,
    sealing: &SealingKeys,
) -> Result<(), Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let id: Uuid = tx.ids().mint();
    let body = body.map(|body| sealing.seal(&context(organization.uuid(), id), body)).transpose()?;
    let headers = serde_json::to_value(headers).map_err(|error| sqlx::Error::Encode(error.into()))?;
    // A row that is there is older than a day and not yet forgotten.
    sqlx::query!(
        "insert into idempotency_keys
                (organization_id, key, id, api_key_id, operation, fingerprint, status, headers, body, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             on conflict (organization_id, key) do update
            set id = excluded.id, api_key_id = excluded.api_key_id, operation = excluded.operation,
                fingerprint = excluded.fingerprint, status = excluded.status, headers = excluded.headers,
                body = excluded.body, created_at = excluded.created_at",
        organization.uuid(),
        request.key,
        id,
        request.sender,
        request.operation,
        &request.fingerprint,
        i16::try_from(status).unwrap_or_default(),
        headers,
        body,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

fn context<'a>(organization: Uuid, row: Uuid) -> SealContext<'a> {
    SealContext { organization, table: "idempotency_keys", column: "body", row }
}

/// Forgets up to `limit` answers whose time is over. Answers how many; repeat while that is `limit`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, now: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    sqlx::query!(
        "delete from idempotency_keys where (organization_id, key) in (
             select organization_id, key from idempotency_keys where created_at <= $1 limit $2)",
        now - KEPT,
        limit
    )
    .execute(db.pool())
    .await
    .map(|done| done.rows_affected())
}
