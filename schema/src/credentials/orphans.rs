//! What clouds have that carries our labels and belongs to no server any more.
//!
//! What is made is on record before it is made: a server has its id, which is the label of everything that is made for it, and
//! a row, before any cloud is asked. So whatever carries a label of no living server was left behind.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};

use super::Cloud;
use crate::{CloudCredentialId, EngineDb, JobTx as _, OrganizationId, ServerId, TenantTx};

/// How long after its beginning, or its end, something of a server may still be on its way at its cloud.
pub const SETTLES: Duration = Duration::hours(1);

/// Orphans that are kept of an account, at most.
pub const MOST: usize = 1_000;

/// Regions in which is looked, at most.
const MOST_REGIONS: i64 = 50;

/// Something that was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// What it is, in the cloud's word.
    pub kind: String,
    /// By what the cloud knows it.
    pub id: String,
    /// By what people know it.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// The server it was made for.
    pub server: String,
    /// When it was first seen.
    pub found_at: DateTime<Utc>,
}

/// Whether what was made for a server was left behind. `by_label`: it says itself that we made it, and for whom; without, it is
/// only called so. `record`: what is known of the server, and there when it was destroyed.
#[must_use]
pub fn is_left_behind(
    server: ServerId,
    by_label: bool,
    record: Option<Option<DateTime<Utc>>>,
    now: DateTime<Utc>,
) -> bool {
    match record {
        // It is there, or is about to be.
        Some(None) => false,
        Some(Some(destroyed_at)) => destroyed_at + SETTLES <= now,
        // Nothing is known of it. What is only called so may be another installation's.
        None => by_label && made_at(server).is_some_and(|made_at| made_at + SETTLES <= now),
    }
}

/// When an id was made.
fn made_at(server: ServerId) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = server.uuid().get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

/// What is known of servers of the transaction's organization: those that are known, each with when it was destroyed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn record(
    tx: &mut TenantTx,
    servers: &[ServerId],
) -> Result<HashMap<ServerId, Option<DateTime<Utc>>>, sqlx::Error> {
    let organization = tx.organization();
    let ids: Vec<uuid::Uuid> = servers.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select id as "id: ServerId", destroyed_at from servers where organization_id = $1 and id = any($2)"#,
        organization.uuid(),
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.destroyed_at)).collect())
}

/// Where the transaction's organization has, or had, servers at a cloud.
///
/// # Errors
/// When the database refuses or went away.
pub async fn regions(tx: &mut TenantTx, cloud: Cloud) -> Result<Vec<String>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select distinct region as "region!" from servers where organization_id = $1 and cloud = $2 order by 1 limit $3"#,
        organization.uuid(),
        cloud.as_str(),
        MOST_REGIONS
    )
    .fetch_all(tx.connection())
    .await
}

/// What was left behind at an account of the transaction's organization is this, and nothing else. Answers how much of it was
/// not known; `None`: there is no such credential.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut TenantTx,
    credential: CloudCredentialId,
    orphans: &[Orphan],
) -> Result<Option<u64>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let looked = sqlx::query!(
        "update cloud_credentials set orphans_at = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        credential.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    if looked.rows_affected() == 0 {
        return Ok(None);
    }
    let orphans = orphans.get(..MOST).unwrap_or(orphans);
    let all = |of: fn(&Orphan) -> &String| orphans.iter().map(|it| of(it).clone()).collect::<Vec<String>>();
    let (kinds, ids, regions) = (all(|it| &it.kind), all(|it| &it.id), all(|it| &it.region));
    sqlx::query!(
        "delete from cloud_orphans where organization_id = $1 and credential_id = $2
            and (region, kind, thing_id) not in (select * from unnest($3::text[], $4::text[], $5::text[]))",
        organization.uuid(),
        credential.uuid(),
        &regions,
        &kinds,
        &ids
    )
    .execute(tx.connection())
    .await?;
    let new = sqlx::query!(
        "insert into cloud_orphans (organization_id, credential_id, kind, thing_id, name, region, server, found_at)
         select $1, $2, kind, thing_id, name, region, server, $8
           from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) as it (kind, thing_id, name, region, server)
             on conflict do nothing",
        organization.uuid(),
        credential.uuid(),
        &kinds,
        &ids,
        &all(|it| &it.name),
        &regions,
        &all(|it| &it.server),
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(Some(new.rows_affected()))
}

/// What was left behind at an account of the transaction's organization, when it was last looked, and when that was; `None`: it
/// was not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    credential: CloudCredentialId,
) -> Result<(Option<DateTime<Utc>>, Vec<Orphan>), sqlx::Error> {
    let organization = tx.organization();
    let looked_at = sqlx::query_scalar!(
        "select orphans_at from cloud_credentials where organization_id = $1 and id = $2",
        organization.uuid(),
        credential.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let orphans = sqlx::query_as!(
        Orphan,
        "select kind, thing_id as id, name, region, server, found_at from cloud_orphans
          where organization_id = $1 and credential_id = $2 order by found_at, region, kind, thing_id limit $3",
        organization.uuid(),
        credential.uuid(),
        i64::try_from(MOST).unwrap_or(i64::MAX)
    )
    .fetch_all(tx.connection())
    .await?;
    Ok((looked_at.flatten(), orphans))
}

/// Credentials of all organizations that a cloud was asked about, after this one in the order of their ids, up to `most`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn accounts(
    db: &EngineDb,
    after: CloudCredentialId,
    most: i64,
) -> Result<Vec<(OrganizationId, CloudCredentialId)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select organization_id as "organization: OrganizationId", id as "id: CloudCredentialId" from cloud_credentials
            where check_at is not null and id > $1 order by id limit $2"#,
        after.uuid(),
        most
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows.into_iter().map(|row| (row.organization, row.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind_that_is_there_or_on_its_way_or_may_be_somebody_elses() {
        let server: ServerId = "srv_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        let made = made_at(server).unwrap();
        let (later, soon) = (made + SETTLES, made + Duration::minutes(59));
        assert!(!is_left_behind(server, true, Some(None), later + Duration::days(9)), "it is there");
        assert!(!is_left_behind(server, true, Some(Some(made)), soon), "its cloud may not be done yet");
        assert!(is_left_behind(server, true, Some(Some(made)), later));
        assert!(is_left_behind(server, false, Some(Some(made)), later), "we made it, whatever it says");
        assert!(!is_left_behind(server, true, None, soon));
        assert!(is_left_behind(server, true, None, later));
        assert!(!is_left_behind(server, false, None, later), "anybody may have made it");
    }
}
