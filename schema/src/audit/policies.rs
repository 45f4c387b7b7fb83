//! What becomes of an organization's record besides lying there: whether it goes on as events, and how long it is kept.

use crate::{AuditorTx, EngineDb, JobTx as _, OrganizationId, TenantTx};

/// Entries are kept for so many days at least.
pub const KEEP_AT_LEAST: i32 = 90;

/// Nobody plans further ahead.
pub const KEEP_AT_MOST: i32 = 36_500;

/// What holds for an organization.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Each entry is an event too, once it is sealed.
    pub forwards: bool,
    /// For how many days entries are kept at least, before what was copied of them may be dropped; `None`: for ever.
    pub keep_days: Option<i32>,
}

/// What holds for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn get(tx: &mut TenantTx) -> Result<Policy, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Policy,
        "select forwards, keep_days from audit_policies where organization_id = $1",
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.unwrap_or_default())
}

/// Lets it hold for the transaction's organization. What goes on as events begins with what is sealed after it was said to.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set(tx: &mut TenantTx, policy: Policy) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into audit_policies as policy (organization_id, forwards, forwarded, keep_days, updated_at)
         values ($1, $2, coalesce((select sequence from audit_heads where organization_id = $1), 0), $3, $4)
             on conflict (organization_id) do update
            set forwards = excluded.forwards, keep_days = excluded.keep_days, updated_at = excluded.updated_at,
                forwarded = case when policy.forwards then policy.forwarded else excluded.forwarded end",
        organization.uuid(),
        policy.forwards,
        policy.keep_days,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Up to `limit` organizations of which something sealed has yet to go on, behind `after`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn behind(
    db: &EngineDb,
    after: Option<OrganizationId>,
    limit: i64,
) -> Result<Vec<OrganizationId>, sqlx::Error> {
    let mut tx = db.auditor().await?;
    let behind = sqlx::query_scalar!(
        r#"select p.organization_id as "id: OrganizationId"
             from audit_policies p join audit_heads h on h.organization_id = p.organization_id
            where p.forwards and h.sequence > p.forwarded and ($1::uuid is null or p.organization_id > $1)
            order by p.organization_id limit $2"#,
        after.map(OrganizationId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(behind)
}

/// The number of the last entry that went on of the transaction's organization, held until the transaction ends. `None`:
/// none is to go on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forwarded(tx: &mut TenantTx) -> Result<Option<i64>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        "select forwarded from audit_policies where organization_id = $1 and forwards for update",
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Notes that everything up to this number went on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn note_forwarded(tx: &mut TenantTx, sequence: i64) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("update audit_policies set forwarded = $2 where organization_id = $1", organization.uuid(), sequence)
        .execute(tx.connection())
        .await
        .map(drop)
}

/// An organization that does not keep its record for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// Which.
    pub organization: OrganizationId,
    /// For how many days.
    pub days: i32,
}

/// Up to `limit` organizations that do not keep their records for ever, behind `after`.
pub(super) async fn keeping(
    tx: &mut AuditorTx,
    after: Option<OrganizationId>,
    limit: i64,
) -> Result<Vec<Keeps>, sqlx::Error> {
    sqlx::query_as!(
        Keeps,
        r#"select organization_id as "organization: OrganizationId", keep_days as "days!"
             from audit_policies where keep_days is not null and ($1::uuid is null or organization_id > $1)
            order by organization_id limit $2"#,
        after.map(OrganizationId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await
}
