//! When a server is looked at again, when somebody is told that it cannot be reached, and what is due.

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;

use super::plans::Summary;
use crate::{EngineDb, JobTx as _, OrganizationId, RunId, ServerId, TenantTx};

/// How often in a row nobody gets in before it counts: one connection may be lost on the way.
pub const MISSES: i32 = 3;

/// What a look at a server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is as before.
    None,
    /// Nobody gets in any more.
    Unreachable,
    /// Somebody gets in again.
    Recovered,
}

/// What it means that a server was reached or not, after so many misses in a row; `down`: it counts as unreachable.
#[must_use]
pub const fn judge(reached: bool, misses: i32, down: bool) -> Change {
    match (reached, down) {
        (true, true) => Change::Recovered,
        (false, false) if misses + 1 >= MISSES => Change::Unreachable,
        _ => Change::None,
    }
}

/// When it is looked at again, after so many misses in a row: soon while it is in doubt, and less and less often when it is
/// known to be gone.
#[must_use]
pub fn next(misses: i32) -> Duration {
    match misses {
        0 => Duration::seconds(60),
        1..=MISSES => Duration::seconds(10),
        more => Duration::seconds(60 << (more - MISSES).min(4)),
    }
}

/// How often it is compared with what is to be there.
pub const COMPARED_EVERY: Duration = Duration::days(1);

/// Servers that are due, and runs whose jobs have ended without them, each with its organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// To be looked at.
    pub look: Vec<(OrganizationId, ServerId)>,
    /// To be compared with what is to be there.
    pub compare: Vec<(OrganizationId, ServerId)>,
    /// Nobody goes on with them.
    pub stranded: Vec<(OrganizationId, RunId)>,
}

/// What is due of all organizations, the oldest first, up to `most` of each.
///
/// # Errors
/// When the database refuses or went away.
pub async fn due(db: &EngineDb, most: i64) -> Result<Due, sqlx::Error> {
    let now = db.now();
    let look = sqlx::query!(
        r#"select organization_id as "organization: OrganizationId", id as "id: ServerId" from servers
            where watch_at <= $1 order by watch_at limit $2"#,
        now,
        most
    )
    .fetch_all(db.pool())
    .await?;
    let compare = sqlx::query!(
        r#"select organization_id as "organization: OrganizationId", id as "id: ServerId" from servers
            where compare_at <= $1 order by compare_at limit $2"#,
        now,
        most
    )
    .fetch_all(db.pool())
    .await?;
    let stranded = sqlx::query!(
        r#"select r.organization_id as "organization: OrganizationId", r.id as "id: RunId" from runs r
            where r.finished_at is null and r.state <> 'awaiting_approval' and r.job_id is not null
              and not exists (select from jobs j where j.id = r.job_id and j.finished_at is null)
            order by r.id limit $1"#,
        most
    )
    .fetch_all(db.pool())
    .await?;
    Ok(Due {
        look: look.into_iter().map(|row| (row.organization, row.id)).collect(),
        compare: compare.into_iter().map(|row| (row.organization, row.id)).collect(),
        stranded: stranded.into_iter().map(|row| (row.organization, row.id)).collect(),
    })
}

/// How a server did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// How often in a row nobody got in.
    pub misses: i32,
    /// It counts as unreachable.
    pub down: bool,
    /// Somebody works on it.
    pub maintenance: bool,
}

/// How a server of the transaction's organization did so far, held until the transaction ends; `None`: it is not ready.
///
/// # Errors
/// When the database refuses or went away.
pub async fn hold(tx: &mut TenantTx, id: ServerId) -> Result<Option<Watched>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Watched,
        r#"select misses, unreachable_since is not null as "down!", maintenance from servers
            where organization_id = $1 and id = $2 and state = 'ready' for update"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Nobody else is to look at a server of the transaction's organization until `at`; `false`: it is not due any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_off(tx: &mut TenantTx, id: ServerId, at: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update servers set watch_at = $3 where organization_id = $1 and id = $2 and watch_at <= $4",
        organization.uuid(),
        id.uuid(),
        at,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The same of comparing it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_off_comparing(tx: &mut TenantTx, id: ServerId, at: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update servers set compare_at = $3 where organization_id = $1 and id = $2 and compare_at <= $4",
        organization.uuid(),
        id.uuid(),
        at,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// A ready server of the transaction's organization was looked at, which means this. It is looked at again in a while.
///
/// # Errors
/// When the database refuses or went away.
pub async fn looked(
    tx: &mut TenantTx,
    id: ServerId,
    before: Watched,
    reached: bool,
    change: Change,
) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let misses = if reached { 0 } else { before.misses.saturating_add(1) };
    sqlx::query!(
        "update servers set misses = $3, watch_at = $4, reached_at = case when $5 then $6 else reached_at end,
                unreachable_since = case when $7 then $6 when $5 then null else unreachable_since end
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        misses,
        now + next(misses),
        reached,
        now,
        change == Change::Unreachable
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Somebody works on a server of the transaction's organization, or does no longer.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_maintenance(tx: &mut TenantTx, id: ServerId, maintenance: bool) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set maintenance = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        maintenance
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A server of the transaction's organization was compared with what is to be there, and this differs; `None`: nothing does.
///
/// # Errors
/// When the database refuses or went away.
pub async fn compared(tx: &mut TenantTx, id: ServerId, drift: Option<&Summary>) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let drift: Option<Value> = drift.map(|summary| serde_json::to_value(summary).unwrap_or_default());
    sqlx::query!(
        "update servers set drift = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        drift
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_miss_is_none_three_are_told_once_and_so_is_the_recovery() {
        let (mut misses, mut down, mut told) = (0, false, Vec::new());
        for reached in [true, false, true, false, false, false, false, true, true] {
            let change = judge(reached, misses, down);
            misses = if reached { 0 } else { misses + 1 };
            down = match change {
                Change::Unreachable => true,
                Change::Recovered => false,
                Change::None => down,
            };
            told.push(change);
        }
        use Change::{None, Recovered, Unreachable};
        assert_eq!(told, [None, None, None, None, None, Unreachable, None, Recovered, None]);
    }

    #[test]
    fn it_is_looked_at_soon_while_in_doubt_and_less_and_less_often_when_gone() {
        let waits: Vec<i64> = [0, 1, 3, 4, 5, 7, 100].map(|misses| next(misses).num_seconds()).into();
        assert_eq!(waits, [60, 10, 10, 120, 240, 960, 960]);
    }
}
