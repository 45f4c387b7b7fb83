//! Unique and concurrency keys while jobs run and end.
//!
//! Taking a slot and freeing one both hold the key's advisory lock to the end of their transaction:
//! otherwise a job could be parked behind a slot that is freed in the same moment, and wait for ever.

use sqlx::PgConnection;

use super::Ready;
use crate::{JobId, OrganizationId};

/// Holds the advisory locks of the jobs' concurrency keys, always in the same order.
pub(super) async fn lock(connection: &mut PgConnection, jobs: &[uuid::Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock(key) from (
             select distinct hashtextextended(organization_id::text || concurrency_key, 7) as key
               from jobs j join unnest($1::uuid[]) as u (id) on j.id = u.id
              where concurrency_key is not null order by 1) keys",
        jobs
    )
    .fetch_all(connection)
    .await
    .map(drop)
}

/// Frees the slots the jobs hold, and wakes as many that are parked behind them.
/// The keys must be locked.
pub(super) async fn free(connection: &mut PgConnection, jobs: &[uuid::Uuid]) -> Result<Vec<Ready>, sqlx::Error> {
    sqlx::query_as!(
        Ready,
        r#"with freed as (
               delete from job_slots where job_id = any($1) returning organization_id, concurrency_key),
           count as (select organization_id, concurrency_key, count(*) as slots from freed group by 1, 2)
           update job_dispatch d set parked = false
             from count c
            cross join lateral (
                select id from job_dispatch p
                 where p.organization_id = c.organization_id and p.concurrency_key = c.concurrency_key and p.parked
                 order by p.priority, p.id limit c.slots) as next
            where d.id = next.id
        returning d.id as "id: JobId", d.organization_id as "organization: OrganizationId", d.queue, d.priority,
                  d.careful"#,
        jobs
    )
    .fetch_all(connection)
    .await
}

/// Frees the unique keys that are only held until the claim.
pub(super) async fn claimed(connection: &mut PgConnection, jobs: &[uuid::Uuid]) -> Result<(), sqlx::Error> {
    // In the order in which those hold them who are satisfied with a job that waits.
    sqlx::query!(
        r#"with held as materialized (
               select organization_id, kind, unique_key from job_unique where job_id = any($1) and held = 'pending'
                order by organization_id, kind collate "C", unique_key collate "C" for update)
           delete from job_unique u using held h
            where u.organization_id = h.organization_id and u.kind = h.kind and u.unique_key = h.unique_key"#,
        jobs
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Frees the unique keys of jobs that ended: a period outlives success only.
pub(super) async fn ended(connection: &mut PgConnection, jobs: &[uuid::Uuid], well: bool) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from job_unique where job_id = any($1) and (held <> 'period' or not $2)", jobs, well)
        .execute(connection)
        .await
        .map(drop)
}

/// Frees slots and keys of jobs that no longer have a right to them, and wakes what is parked behind free
/// slots. What a crash between two statements left behind ends here.
///
/// # Errors
/// When the database refuses or went away.
pub async fn mend(tx: &mut crate::EngineTx) -> Result<u64, sqlx::Error> {
    use crate::JobTx as _;
    let stale = sqlx::query_scalar!(
        r#"select s.job_id from job_slots s left join jobs j on j.id = s.job_id
            where j.state is distinct from 'running' limit 1000"#
    )
    .fetch_all(tx.connection())
    .await?;
    if !stale.is_empty() {
        lock(tx.connection(), &stale).await?;
        for ready in free(tx.connection(), &stale).await? {
            tx.announce(ready);
        }
    }
    let forgotten = sqlx::query!(
        "delete from job_unique u where ctid in (
             select u.ctid from job_unique u left join jobs j on j.id = u.job_id
              where (u.held <> 'period' and (j.id is null or j.state in ('succeeded', 'discarded', 'cancelled')))
                 or u.until <= now() limit 1000)"
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    // Parked although there is room: whose turn it was did not take it, or every holder is gone.
    let woken = sqlx::query_as!(
        Ready,
        r#"with keys as (
               select distinct organization_id, concurrency_key from job_dispatch where parked limit 1000),
           room as (
               select k.*, first.concurrency_limit - (
                          select count(*) from job_slots s
                           where s.organization_id = k.organization_id and s.concurrency_key = k.concurrency_key) as slots
                 from keys k
                cross join lateral (
                    select j.concurrency_limit from job_dispatch p join jobs j on j.id = p.id
                     where p.organization_id = k.organization_id and p.concurrency_key = k.concurrency_key and p.parked
                     order by p.priority, p.id limit 1) as first)
           update job_dispatch d set parked = false
             from room r
            cross join lateral (
                select id from job_dispatch p
                 where p.organization_id = r.organization_id and p.concurrency_key = r.concurrency_key and p.parked
                 order by p.priority, p.id limit greatest(r.slots, 0)) as next
            where d.id = next.id
        returning d.id as "id: JobId", d.organization_id as "organization: OrganizationId", d.queue, d.priority,
                  d.careful"#
    )
    .fetch_all(tx.connection())
    .await?;
    let mended = stale.len() as u64 + forgotten + woken.len() as u64;
    for ready in woken {
        tx.announce(ready);
    }
    Ok(mended)
}
