//! Finding ready jobs the doorbell has not rung for, or whose ring was lost.
//!
//! Redis takes the same id twice without harm, so the relay may announce too much, never too little.

use std::time::Duration;

use super::Ready;
use super::claim::Paused;
use crate::{EngineDb, JobId, OrganizationId};

/// Takes up to `limit` jobs whose time has come from the timetable, to be announced.
///
/// # Errors
/// When the database refuses or went away.
pub async fn promote_due(db: &EngineDb, limit: i64) -> Result<Vec<Ready>, sqlx::Error> {
    sqlx::query_as!(
        Ready,
        r#"with due as (
               select id from job_dispatch where due_at <= $1 order by due_at limit $2 for update skip locked)
           update job_dispatch d set due_at = null from due where d.id = due.id
        returning d.id as "id: JobId", d.organization_id as "organization: OrganizationId", d.queue, d.priority,
                  d.careful"#,
        db.now(),
        limit
    )
    .fetch_all(db.pool())
    .await
}

/// A page of the ready jobs after `after`, oldest first, that were asked for at least `age` ago.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ready_after(
    db: &EngineDb,
    after: JobId,
    age: Duration,
    paused: &Paused,
    limit: i64,
) -> Result<Vec<Ready>, sqlx::Error> {
    sqlx::query_as!(
        Ready,
        r#"select id as "id: JobId", organization_id as "organization: OrganizationId", queue, priority, careful
             from job_dispatch
            where id > $1 and id < id_at($2::timestamptz - make_interval(secs => $3)) and due_at is null and not parked
              and kind <> all($4::text[]) and organization_id <> all($5::uuid[])
              and not exists (select from organizations o where o.id = organization_id and o.held_by is not null)
              and not exists (select from job_holds h
                               where h.organization_id = job_dispatch.organization_id and h.queue = job_dispatch.queue)
            order by id limit $6"#,
        after.uuid(),
        db.now(),
        age.as_secs_f64(),
        &paused.kinds,
        &paused.organizations,
        limit
    )
    .fetch_all(db.pool())
    .await
}

/// The ready jobs, by priority and age, for who does them without a doorbell.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ready(db: &EngineDb, limit: i64) -> Result<Vec<Ready>, sqlx::Error> {
    sqlx::query_as!(
        Ready,
        r#"select id as "id: JobId", organization_id as "organization: OrganizationId", queue, priority, careful
             from job_dispatch d
            where due_at is null and not parked
              and not exists (select from job_pauses p
                               where (p.subject, p.name) in (('queue', d.queue), ('kind', d.kind),
                                                             ('organization', d.organization_id::text)))
              and not exists (select from organizations o where o.id = d.organization_id and o.held_by is not null)
              and not exists (select from job_holds h where h.organization_id = d.organization_id and h.queue = d.queue)
            order by priority, id limit $1"#,
        limit
    )
    .fetch_all(db.pool())
    .await
}

/// How much is ready and scheduled in a queue, for a class of organizations with the same weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Depth {
    /// The queue.
    pub queue: String,
    /// The weight its organizations have in common.
    pub weight: i16,
    /// Jobs that wait, at most the bound of the count.
    pub ready: i64,
    /// Seconds the oldest of them waits.
    pub oldest_seconds: f64,
}

/// Depth and age per queue and weight. Counts the oldest 200 000 rows at most, so that a huge backlog does
/// not make the count itself a load.
///
/// # Errors
/// When the database refuses or went away.
pub async fn depths(db: &EngineDb) -> Result<Vec<Depth>, sqlx::Error> {
    sqlx::query_as!(
        Depth,
        r#"select d.queue, coalesce(o.weight, 1::smallint) as "weight!", count(*) as "ready!",
                  greatest(0, extract(epoch from $1 - min(('epoch'::timestamptz +
                      make_interval(secs => ('x' || left(replace(d.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)))))
                      ::float8 as "oldest_seconds!"
             from (select queue, organization_id, id from job_dispatch
                    where due_at is null order by id limit 200000) d
             left join organizations o on o.id = d.organization_id
            group by 1, 2"#,
        db.now()
    )
    .fetch_all(db.pool())
    .await
}
