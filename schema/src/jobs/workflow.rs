//! Jobs that wait for others, and what undoes finished steps when a later one fails.
//!
//! A job that others wait for is marked under its row lock, and whoever ends it reads the mark in the same
//! statement: so either the waiting job sees the end, or the end sees the waiting job. The step after that,
//! waking it, is repeated by [`mend`] should a worker die in between.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;

use super::enqueue::{Dependency, EnqueueError, NewJob};
use super::{Ready, State, enqueue};
use crate::{EngineDb, JobId, JobTx, OrganizationId, TenantTx};

/// What undoes a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compensation {
    /// The kind of job that undoes it.
    pub kind: String,
    /// Its queue.
    pub queue: String,
    /// Its priority.
    pub priority: i16,
    /// Its attempts.
    pub max_attempts: i32,
    /// Its lease.
    pub lease_seconds: i32,
    /// Its payload.
    pub payload: Value,
}

/// Makes `job` wait for others. Answers it, if there is nothing to wait for any more.
pub(super) async fn wait_for(
    connection: &mut PgConnection,
    organization: OrganizationId,
    job: JobId,
    after: &[Dependency],
    now: DateTime<Utc>,
) -> Result<Option<Ready>, EnqueueError> {
    let predecessors: Vec<uuid::Uuid> = after.iter().map(|dependency| dependency.job.uuid()).collect();
    let steps: Vec<&str> = after.iter().map(|dependency| dependency.step.as_str()).collect();
    let found = sqlx::query_scalar!(
        r#"update jobs set has_dependents = true where id = any($1) and organization_id = $2
        returning id as "id: JobId""#,
        &predecessors,
        organization.uuid()
    )
    .fetch_all(&mut *connection)
    .await?;
    if let Some(unknown) = after.iter().find(|dependency| !found.contains(&dependency.job)) {
        return Err(EnqueueError::UnknownPredecessor(unknown.job));
    }
    sqlx::query!(
        "insert into job_dependencies (job_id, depends_on, organization_id, step)
         select $1, u.depends_on, $2, u.step from unnest($3::uuid[], $4::text[]) as u (depends_on, step)
             on conflict do nothing",
        job.uuid(),
        organization.uuid(),
        &predecessors,
        &steps as _
    )
    .execute(&mut *connection)
    .await?;
    Ok(wake(connection, &[job.uuid()], now).await?.ready.pop())
}

#[derive(Default)]
struct Woken {
    ready: Vec<Ready>,
    /// Cancelled, because a predecessor did not succeed; others may wait for these in turn.
    cancelled: Vec<JobId>,
}

/// Moves on those of the waiting jobs that have nothing to wait for any more.
async fn wake(connection: &mut PgConnection, jobs: &[uuid::Uuid], now: DateTime<Utc>) -> Result<Woken, sqlx::Error> {
    // Locked before their predecessors are looked at, so that the last two predecessors to end cannot both
    // believe that the other is still to come.
    sqlx::query!("select id from jobs where id = any($1) and state = 'waiting' order by id for update", jobs)
        .fetch_all(&mut *connection)
        .await?;
    let moved = sqlx::query_file!("src/jobs/wake.sql", jobs, now).fetch_all(connection).await?;
    let mut woken = Woken::default();
    for job in moved {
        if job.state == State::Cancelled {
            woken.cancelled.push(job.id);
        } else if job.state == State::Available {
            woken.ready.push(Ready {
                id: job.id,
                organization: job.organization,
                queue: job.queue,
                priority: job.priority,
                careful: job.careful,
            });
        }
    }
    Ok(woken)
}

/// Moves on what waited for jobs that have ended, and undoes the workflows that failed.
///
/// # Errors
/// When the database refuses or went away; repeating the call is harmless.
pub async fn advance(db: &EngineDb, ended: &[JobId]) -> Result<(), sqlx::Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    advance_in(&mut tx, ended).await?;
    tx.commit().await
}

/// As [`advance`], in the transaction that ends the jobs.
pub(super) async fn advance_in(tx: &mut impl JobTx, ended: &[JobId]) -> Result<(), sqlx::Error> {
    let mut ended = ended.to_vec();
    // Each round goes one step down a graph without cycles: a job can only wait for older ones.
    while !ended.is_empty() {
        let ids: Vec<uuid::Uuid> = ended.iter().map(|job| job.uuid()).collect();
        let waiting = sqlx::query_scalar!(
            "select distinct job_id from job_dependencies where depends_on = any($1) and not resolved",
            &ids
        )
        .fetch_all(tx.connection())
        .await?;
        let now = tx.now();
        let woken = wake(tx.connection(), &waiting, now).await?;
        for ready in woken.ready {
            tx.announce(ready);
        }
        compensate(tx, &ids).await?;
        ended = woken.cancelled;
    }
    Ok(())
}

/// Asks for the undoing of every finished step of the jobs' workflows, last first, where a step has failed.
async fn compensate(tx: &mut impl JobTx, ended: &[uuid::Uuid]) -> Result<(), sqlx::Error> {
    let steps = sqlx::query!(
        r#"select s.job_id, s.organization_id as "organization: OrganizationId", s.workflow_id, s.compensation as "compensation!"
             from job_steps s join jobs j on j.id = s.job_id
            where s.workflow_id in (
                      select failed.workflow_id from job_steps failed join jobs f on f.id = failed.job_id
                       where f.state in ('discarded', 'cancelled') and failed.workflow_id in (
                           select workflow_id from job_steps where job_id = any($1)))
              and j.state = 'succeeded' and s.compensation is not null and s.compensated_by is null
            order by s.workflow_id, j.finished_at desc, j.id desc for update of s"#,
        ended
    )
    .fetch_all(tx.connection())
    .await?;
    let mut previous: Option<(uuid::Uuid, JobId)> = None;
    for step in steps {
        let compensation: Compensation =
            serde_json::from_value(step.compensation).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let after = match previous {
            Some((workflow, job)) if workflow == step.workflow_id => {
                vec![Dependency { step: "previous".to_owned(), job }]
            }
            _ => Vec::new(),
        };
        let job = NewJob {
            kind: compensation.kind,
            queue: compensation.queue,
            priority: compensation.priority,
            max_attempts: compensation.max_attempts,
            lease_seconds: compensation.lease_seconds,
            run_at: None,
            expires_at: None,
            unique: None,
            concurrency: None,
            rate_key: None,
            payload: compensation.payload.to_string(),
            after,
            traceparent: None,
            requested_by: format!("workflow:{}", JobId::from_uuid(step.job_id)),
        };
        let asked = enqueue::enqueue(tx, step.organization, vec![job]).await.map_err(|error| match error {
            EnqueueError::Database(error) => error,
            unknown @ EnqueueError::UnknownPredecessor(_) => sqlx::Error::Protocol(unknown.to_string()),
        })?;
        let Some(asked) = asked.first() else { continue };
        sqlx::query!("update job_steps set compensated_by = $2 where job_id = $1", step.job_id, asked.id.uuid())
            .execute(tx.connection())
            .await?;
        previous = Some((step.workflow_id, asked.id));
    }
    Ok(())
}

/// Makes jobs the steps of one workflow: when one fails for good, those that succeeded are undone.
///
/// # Errors
/// When the database refuses or went away.
pub async fn steps(
    tx: &mut TenantTx,
    workflow: uuid::Uuid,
    steps: &[(JobId, String, Option<Compensation>)],
) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let ids: Vec<uuid::Uuid> = steps.iter().map(|(job, ..)| job.uuid()).collect();
    let names: Vec<&str> = steps.iter().map(|(_, name, _)| name.as_str()).collect();
    let compensations: Vec<Option<Value>> = steps
        .iter()
        .map(|(.., compensation)| compensation.as_ref().map(|it| serde_json::to_value(it).unwrap_or_default()))
        .collect();
    sqlx::query!(
        "insert into job_steps (job_id, workflow_id, organization_id, step, compensation)
         select u.id, $1, $2, u.step, u.compensation
           from unnest($3::uuid[], $4::text[], $5::jsonb[]) as u (id, step, compensation)",
        workflow,
        organization.uuid(),
        &ids,
        &names as _,
        &compensations as _
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!("update jobs set has_dependents = true where id = any($1)", &ids)
        .execute(tx.connection())
        .await
        .map(drop)
}

/// The results of what a job waited for, by step.
///
/// # Errors
/// When the database refuses or went away.
pub async fn results(tx: &mut TenantTx, job: JobId) -> Result<Vec<(String, Option<Value>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select d.step, j.result from job_dependencies d join jobs j on j.id = d.depends_on where d.job_id = $1",
        job.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| (row.step, row.result)).collect())
}

/// Finds jobs whose predecessors have ended without anybody waking them, and failed workflows with finished
/// steps nobody undoes; and moves them on.
///
/// # Errors
/// When the database refuses or went away.
pub async fn mend(db: &EngineDb) -> Result<usize, sqlx::Error> {
    let ended = sqlx::query_scalar!(
        r#"select distinct d.depends_on as "id: JobId" from job_dependencies d join jobs p on p.id = d.depends_on
            where not d.resolved and p.state in ('succeeded', 'discarded', 'cancelled')
              and not exists (select from job_dependencies other join jobs o on o.id = other.depends_on
                               where other.job_id = d.job_id and p.state = 'succeeded'
                                 and o.state not in ('succeeded', 'discarded', 'cancelled'))
            limit 1000"#
    )
    .fetch_all(db.pool())
    .await?;
    let failed = sqlx::query_scalar!(
        r#"select distinct f.job_id as "id: JobId"
             from job_unsuccessful u
             join job_steps f on f.job_id = u.id
             join job_steps s on s.workflow_id = f.workflow_id
             join jobs j on j.id = s.job_id
            where u.finished_at > $1 and s.compensation is not null and s.compensated_by is null
              and j.state = 'succeeded' limit 1000"#,
        db.now() - chrono::Duration::days(1)
    )
    .fetch_all(db.pool())
    .await?;
    let stuck = [ended, failed].concat();
    advance(db, &stuck).await?;
    Ok(stuck.len())
}
