//! Lockdowns in the tables. API processes hear of one as of limits, workers as of pauses.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::jobs::pause;
use crate::window::in_order;
use crate::{EngineDb, JobTx as _, LockdownId, OrganizationId, TenantTx, Window, limits};

/// A lockdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockdown {
    /// Its id.
    pub id: LockdownId,
    /// Of which organization, with all below it.
    pub organization: OrganizationId,
    /// Why.
    pub reason: String,
    /// Whose jobs are not begun meanwhile.
    pub queues: Vec<String>,
    /// Since when.
    pub started_at: DateTime<Utc>,
    /// By whom.
    pub started_by: String,
    /// When it was ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// By whom.
    pub ended_by: Option<String>,
    /// Why.
    pub end_reason: Option<String>,
}

/// Locks an organization down: the transaction's, or one below it. One that is locked down already violates
/// `lockdowns_in_force`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn start(
    tx: &mut TenantTx,
    organization: OrganizationId,
    reason: &str,
    queues: &[String],
    by: &str,
) -> Result<Lockdown, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<LockdownId>(), tx.now());
    sqlx::query!(
        "insert into lockdowns (id, organization_id, reason, queues, started_at, started_by) values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        organization.uuid(),
        reason,
        queues,
        now,
        by
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into job_holds (organization_id, queue, lockdown_id)
         select c.descendant_id, queue, $2::uuid from organization_closure c, unnest($3::text[]) as held (queue)
          where c.ancestor_id = $1",
        organization.uuid(),
        id.uuid(),
        queues
    )
    .execute(tx.connection())
    .await?;
    tell(tx).await?;
    Ok(Lockdown {
        id,
        organization,
        reason: reason.to_owned(),
        queues: queues.to_vec(),
        started_at: now,
        started_by: by.to_owned(),
        ended_at: None,
        ended_by: None,
        end_reason: None,
    })
}

/// Unlocks an organization, of the transaction or below it; `None`: it is not locked down by itself.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end(
    tx: &mut TenantTx,
    organization: OrganizationId,
    reason: &str,
    by: &str,
) -> Result<Option<Lockdown>, sqlx::Error> {
    let now = tx.now();
    let ended = sqlx::query_as!(
        Lockdown,
        r#"update lockdowns set ended_at = $2, ended_by = $3, end_reason = $4
            where organization_id = $1 and ended_at is null
        returning id as "id: LockdownId", organization_id as "organization: OrganizationId", reason, queues, started_at,
                  started_by, ended_at, ended_by, end_reason"#,
        organization.uuid(),
        now,
        by,
        reason
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(ended) = &ended {
        sqlx::query!("delete from job_holds where lockdown_id = $1", ended.id.uuid()).execute(tx.connection()).await?;
        tell(tx).await?;
    }
    Ok(ended)
}

/// Tells processes of the API, and workers.
async fn tell(tx: &mut TenantTx) -> Result<(), sqlx::Error> {
    limits::notify(tx, None).await?;
    pause::notify(tx.connection()).await
}

/// Whether, and since when, an organization is locked down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// It is, or one above it is.
    pub locked: bool,
    /// What sessions began before counts no more.
    pub sessions_from: Option<DateTime<Utc>>,
}

/// How it is with the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn state(tx: &mut TenantTx) -> Result<State, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        r#"select coalesce(bool_or(l.ended_at is null), false) as "locked!", max(l.started_at) as sessions_from
             from organization_closure c join lockdowns l on l.organization_id = c.ancestor_id
            where c.descendant_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(State { locked: row.locked, sessions_from: row.sessions_from })
}

/// The lockdowns of an organization, of the transaction or below it, in pages.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    organization: OrganizationId,
    window: Window,
) -> Result<Vec<Lockdown>, sqlx::Error> {
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Lockdown,
                r#"select id as "id: LockdownId", organization_id as "organization: OrganizationId", reason, queues,
                          started_at, started_by, ended_at, ended_by, end_reason
                     from lockdowns where organization_id = $1 and id > $2 and id < $3 order by id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}

/// The organizations whose jobs are held, by queue.
///
/// # Errors
/// When the database refuses or went away.
pub async fn holds(db: &EngineDb) -> Result<HashMap<String, Vec<Uuid>>, sqlx::Error> {
    let rows = sqlx::query!("select distinct queue, organization_id from job_holds order by queue, organization_id")
        .fetch_all(db.pool())
        .await?;
    let mut holds: HashMap<String, Vec<Uuid>> = HashMap::new();
    for row in rows {
        holds.entry(row.queue).or_default().push(row.organization_id);
    }
    Ok(holds)
}
