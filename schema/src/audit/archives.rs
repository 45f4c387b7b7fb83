//! Copies of everything that was sealed, up to a checkpoint. Who tells the digest of one has it; then what is in it may be
//! dropped when it is old enough.

use chrono::{DateTime, Utc};

use super::checkpoints::{self, Checkpoint};
use super::retention;
use crate::{AuditArchiveId, JobTx as _, TenantTx};

/// A copy that was taken to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its id.
    pub id: AuditArchiveId,
    /// The number of the first entry in it.
    pub first: i64,
    /// The number of the last one.
    pub through: i64,
    /// SHA-256 of all of its bytes.
    pub sha256: Vec<u8>,
    /// When it was taken.
    pub made_at: DateTime<Utc>,
    /// When somebody told its digest.
    pub confirmed_at: Option<DateTime<Utc>>,
}

/// What a copy of everything has in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The number of the first entry.
    pub first: i64,
    /// The checkpoint that covers the last one.
    pub checkpoint: Checkpoint,
}

/// What a copy of everything of the transaction's organization would have in it now; `None`: nothing was signed that was
/// not dropped.
///
/// # Errors
/// When the database refuses or went away.
pub async fn extent(tx: &mut TenantTx) -> Result<Option<Extent>, sqlx::Error> {
    let first = retention::begins_after(tx).await? + 1;
    let newest = checkpoints::list(tx, None, 1).await?.pop();
    Ok(newest.filter(|checkpoint| checkpoint.sequence >= first).map(|checkpoint| Extent { first, checkpoint }))
}

/// Writes down that a copy was taken to its end.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, archive: &Archive) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "insert into audit_archives (organization_id, id, first, through, sha256, made_at) values ($1, $2, $3, $4, $5, $6)",
        organization.uuid(),
        archive.id.uuid(),
        archive.first,
        archive.through,
        archive.sha256,
        archive.made_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A copy of the transaction's organization, held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: AuditArchiveId) -> Result<Option<Archive>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Archive,
        r#"select id as "id: AuditArchiveId", first, through, sha256, made_at, confirmed_at
             from audit_archives where organization_id = $1 and id = $2 for update"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Writes down that somebody told its digest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn confirm(tx: &mut TenantTx, id: AuditArchiveId) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update audit_archives set confirmed_at = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
