//! An organization's life: suspended and resumed, deleted, restored or purged.

use chrono::{DateTime, Duration, Utc};
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection as _};

use super::{COUNTED, Count, tree};
use crate::access::Hold;
use crate::{EngineDb, JobTx, OrganizationId, TenantTx};

/// How long a deleted organization can be restored.
pub const RESTORABLE: Duration = Duration::days(30);

/// Lets nothing be done in it and below it any more: keys are refused, jobs are not begun, schedules do not tick.
/// `false`: there is none, or it is suspended already.
///
/// # Errors
/// When the database refuses or went away.
pub async fn suspend(tx: &mut TenantTx, id: OrganizationId, reason: &str) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set suspended_at = $2, suspended_reason = $3, updated_at = $2
          where id = $1 and suspended_at is null",
        id.uuid(),
        now,
        reason
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Lets it go on, unless one above it is suspended too. `false`: there is none, or it was not suspended.
///
/// # Errors
/// When the database refuses or went away.
pub async fn resume(tx: &mut TenantTx, id: OrganizationId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set suspended_at = null, suspended_reason = null, updated_at = $2
          where id = $1 and suspended_at is not null",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Why nothing is done in the transaction's organization, with what was said about it; `None`: it works. What was said of
/// one above it is told to that one only.
///
/// # Errors
/// When the database refuses or went away.
pub async fn held(tx: &mut TenantTx) -> Result<Option<(Hold, Option<String>)>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        "select deleted_at, held_by, suspended_reason from organizations where id = $1 and held_by is not null",
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| {
        let hold = if row.deleted_at.is_some() { Hold::Deleted } else { Hold::Suspended };
        (hold, row.suspended_reason)
    }))
}

/// What an organization has that keeps it from being deleted: children, and what runs or costs something. It stays
/// like that until the transaction ends, as far as the tree is concerned.
///
/// # Errors
/// When the database refuses or went away.
pub async fn kept_by(tx: &mut TenantTx, id: OrganizationId) -> Result<Vec<Count>, sqlx::Error> {
    tree::take_turn(tx).await?;
    let counts = tree::counts_of(tx, id).await?.unwrap_or_default();
    let keeps = |kind: &str| kind == "organizations" || COUNTED.iter().any(|it| it.kind == kind && it.keeps);
    Ok(counts.into_iter().filter(|count| count.own > 0 && keeps(count.kind)).collect())
}

/// Deletes an organization; for a while it can be restored. `false`: there is none, or it is deleted already. One that
/// has others below it violates `organizations_has_children`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, id: OrganizationId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set deleted_at = $2, updated_at = $2 where id = $1 and deleted_at is null",
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Takes a deletion back; `false`: there is no such organization, it was not deleted, or it is too late. Below a
/// deleted one it violates `organizations_parent_deleted`, beside one with its slug `organizations_slug_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn restore(tx: &mut TenantTx, id: OrganizationId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set deleted_at = null, updated_at = $2 where id = $1 and deleted_at > $3",
        id.uuid(),
        now,
        now - RESTORABLE
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Organizations that can be restored no longer, the lowest first; the transaction's or below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn to_purge(tx: &mut TenantTx, limit: i64) -> Result<Vec<OrganizationId>, sqlx::Error> {
    let (root, before): (_, DateTime<Utc>) = (tx.organization(), tx.now() - RESTORABLE);
    sqlx::query_scalar!(
        r#"select o.id as "id: OrganizationId"
             from organizations o join organization_closure c on c.descendant_id = o.id and c.ancestor_id = $1
            where o.deleted_at <= $2 order by c.depth desc, o.id limit $3"#,
        root.uuid(),
        before,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Tables whose rows outlive their organization.
pub const OUTLIVING: &[&str] = &[
    "audit_beginnings",
    "audit_checkpoints",
    "audit_entries",
    "audit_heads",
    "audit_nodes",
    "audit_seals",
    "audit_subjects",
    "audit_tallies",
];

/// Removes up to `limit` rows of each table of the transaction's organization that requests and handlers may remove
/// rows from. Answers how many.
///
/// # Errors
/// When the database refuses or went away.
pub async fn purge_some(tx: &mut TenantTx, limit: i64) -> Result<u64, sqlx::Error> {
    let organization = tx.organization();
    let outliving: Vec<String> = OUTLIVING.iter().map(ToString::to_string).collect();
    let tables = sqlx::query_scalar!(
        r#"select format('%I', c.relname) as "name!" from pg_class c join pg_attribute a on a.attrelid = c.oid
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
              and a.attname = 'organization_id' and not a.attisdropped and c.relname <> all($1::text[])
              and has_table_privilege(c.oid, 'delete')
            order by c.relname"#,
        &outliving
    )
    .fetch_all(tx.connection())
    .await?;
    let (mut removed, mut in_use) = (0, None);
    for table in tables {
        let statement =
            format!("delete from {table} where ctid in (select ctid from {table} where organization_id = $1 limit $2)");
        let mut part = tx.connection().begin().await?;
        let done =
            sqlx::query(AssertSqlSafe(statement)).bind(organization.uuid()).bind(limit).execute(&mut *part).await;
        match done {
            Ok(done) => {
                part.commit().await?;
                removed += done.rows_affected();
            }
            // What refers to them goes first; then their turn comes.
            Err(error) if error.as_database_error().is_some_and(DatabaseError::is_foreign_key_violation) => {
                part.rollback().await?;
                in_use = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match in_use {
        Some(error) if removed == 0 => Err(error),
        _ => Ok(removed),
    }
}

/// Removes up to `limit` jobs of an organization that is gone, and the log lines of as many. Answers how many rows.
///
/// # Errors
/// When the database refuses or went away.
pub async fn purge_some_jobs(db: &EngineDb, id: OrganizationId, limit: i64) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin().await?;
    let lines = sqlx::query!(
        "delete from job_logs where organization_id = $1
            and job_id = any (array(select job_id from job_logs where organization_id = $1 limit $2))",
        id.uuid(),
        limit
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    let jobs = sqlx::query!(
        "delete from jobs where organization_id = $1
            and id = any (array(select id from jobs where organization_id = $1 limit $2))",
        id.uuid(),
        limit
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(lines + jobs)
}

/// Removes a deleted organization of which nothing is left; `false`: there is none.
///
/// # Errors
/// When something is left, or the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, id: OrganizationId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from organizations where id = $1 and deleted_at is not null", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}
