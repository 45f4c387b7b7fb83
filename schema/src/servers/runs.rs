//! What is run on stacks, in the table.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::change::Wanted;
use super::plans::Summary;
use super::warnings::Warned;
use super::{Problem, RunKind, RunState, read};
use crate::window::in_order;
use crate::{JobId, JobTx as _, RunId, ServerId, StackId, TenantTx, Window};

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Of which stack.
    pub stack: StackId,
    /// Of which server.
    pub server: ServerId,
    /// What is done.
    pub kind: RunKind,
    /// How far it is.
    pub state: RunState,
    /// The job that does it.
    pub job: Option<JobId>,
    /// Who asked for it.
    pub requested_by: String,
    /// What the server is to be like, where it is changed.
    pub wanted: Option<Wanted>,
    /// What is to be thought about before it is done.
    pub warnings: Vec<Warned>,
    /// What there is to do; `None`: that is not known yet.
    pub plan: Option<Summary>,
    /// The digest of what is carried out.
    pub plan_sha256: Option<Vec<u8>>,
    /// What it comes to in a month, in the smallest unit of the currency.
    pub monthly_cost: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// Who said that it may be done.
    pub approved_by: Option<String>,
    /// Why it came to nothing, and what was said about it.
    pub problem: Option<(Problem, String)>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a worker began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

struct Row {
    id: RunId,
    stack: StackId,
    server: ServerId,
    kind: String,
    state: String,
    job: Option<JobId>,
    requested_by: String,
    wanted: Option<Value>,
    warnings: Option<Value>,
    plan_summary: Option<Value>,
    plan_sha256: Option<Vec<u8>>,
    monthly_cost: Option<i64>,
    currency: Option<String>,
    approved_by: Option<String>,
    problem_code: Option<String>,
    problem: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<Run, sqlx::Error> {
        let json = |error| sqlx::Error::Decode(Box::new(error));
        let problem = match self.problem_code {
            Some(code) => Some((read(&code)?, self.problem.unwrap_or_default())),
            None => None,
        };
        Ok(Run {
            id: self.id,
            stack: self.stack,
            server: self.server,
            kind: read(&self.kind)?,
            state: read(&self.state)?,
            job: self.job,
            requested_by: self.requested_by,
            wanted: self.wanted.map(serde_json::from_value).transpose().map_err(json)?,
            warnings: self.warnings.map(serde_json::from_value).transpose().map_err(json)?.unwrap_or_default(),
            plan: self.plan_summary.map(serde_json::from_value).transpose().map_err(json)?,
            plan_sha256: self.plan_sha256,
            monthly_cost: self.monthly_cost,
            currency: self.currency,
            approved_by: self.approved_by,
            problem,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

/// Writes down that something is to be done with a stack of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(
    tx: &mut TenantTx,
    stack: StackId,
    kind: RunKind,
    requested_by: &str,
) -> Result<RunId, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<RunId>(), tx.organization(), tx.now());
    sqlx::query!(
        "insert into runs (id, organization_id, stack_id, kind, state, requested_by, created_at)
         values ($1, $2, $3, $4, 'queued', $5, $6)",
        id.uuid(),
        organization.uuid(),
        stack.uuid(),
        kind.as_str(),
        requested_by,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// What a server is to be like when a run of the transaction's organization has changed it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_wanted(tx: &mut TenantTx, id: RunId, wanted: &Wanted) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update runs set wanted = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        serde_json::to_value(wanted).unwrap_or_default()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// What is to be thought about before a run of the transaction's organization is done.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_warnings(tx: &mut TenantTx, id: RunId, warnings: &[Warned]) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update runs set warnings = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        serde_json::to_value(warnings).unwrap_or_default()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// This job does a run of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_job(tx: &mut TenantTx, id: RunId, job: JobId) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update runs set job_id = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        job.uuid()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A run of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: RunId) -> Result<Option<Run>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select r.id as "id: RunId", r.stack_id as "stack: StackId", s.server_id as "server: ServerId", r.kind, r.state,
                  r.job_id as "job: JobId", r.requested_by, r.wanted, r.warnings, r.plan_summary, r.plan_sha256, r.monthly_cost,
                  r.currency, r.approved_by, r.problem_code, r.problem, r.created_at, r.started_at, r.finished_at
             from runs r join stacks s on s.id = r.stack_id
            where r.organization_id = $1 and r.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(Row::read).transpose()
}

/// A page of the runs of a stack of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, stack: StackId, window: Window) -> Result<Vec<Run>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select r.id as "id: RunId", r.stack_id as "stack: StackId", s.server_id as "server: ServerId", r.kind,
                          r.state, r.job_id as "job: JobId", r.requested_by, r.wanted, r.warnings, r.plan_summary,
                          r.plan_sha256, r.monthly_cost, r.currency, r.approved_by, r.problem_code, r.problem, r.created_at, r.started_at, r.finished_at
                     from runs r join stacks s on s.id = r.stack_id
                    where r.organization_id = $1 and r.stack_id = $2 and r.id > $3 and r.id < $4
                    order by r.id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                stack.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    let rows: Vec<Row> = in_order!(window.order, page)?;
    rows.into_iter().map(Row::read).collect()
}

/// Moves a run of the transaction's organization on; `false`: it has ended already.
///
/// # Errors
/// When the database refuses or went away.
pub async fn advance(tx: &mut TenantTx, id: RunId, state: RunState) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update runs set state = $3, started_at = coalesce(started_at, $4),
                finished_at = case when $5 then $4 end, plan = case when $5 then null else plan end
          where organization_id = $1 and id = $2 and state not in ('succeeded', 'failed', 'cancelled')",
        organization.uuid(),
        id.uuid(),
        state.as_str(),
        now,
        state.has_ended()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// A run of the transaction's organization came to nothing; `false`: it has ended already.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut TenantTx, id: RunId, problem: Problem, said: &str) -> Result<bool, sqlx::Error> {
    if !advance(tx, id, RunState::Failed).await? {
        return Ok(false);
    }
    let organization = tx.organization();
    sqlx::query!(
        "update runs set problem_code = $3, problem = $4 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        problem.as_str(),
        said
    )
    .execute(tx.connection())
    .await?;
    Ok(true)
}

/// Somebody says that a run which waits for that may be done: what was planned, byte for byte, at this cost, or at one that
/// nobody knows. `false`: it does not wait, or something else was planned.
///
/// # Errors
/// When the database refuses or went away.
pub async fn approve(
    tx: &mut TenantTx,
    id: RunId,
    by: &str,
    plan_sha256: &[u8],
    monthly_cost: impl Into<Option<i64>>,
) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update runs set state = 'approved', approved_by = $3, approved_at = $4
          where organization_id = $1 and id = $2 and state = 'awaiting_approval' and plan_sha256 = $5
            and monthly_cost is not distinct from $6",
        organization.uuid(),
        id.uuid(),
        by,
        now,
        plan_sha256,
        monthly_cost.into()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Whatever else was to be done with a stack of the transaction's organization is not done any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn cancel_others(tx: &mut TenantTx, stack: StackId, than: RunId) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update runs set state = 'cancelled', finished_at = $4, plan = null
          where organization_id = $1 and stack_id = $2 and id < $3 and state not in ('succeeded', 'failed', 'cancelled')",
        organization.uuid(),
        stack.uuid(),
        than.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Whether another run of the transaction's organization may work beside those that do, of which there may be so many. Whoever
/// asks is counted when he moves his run on, in the same transaction: two that ask at once do not both get the last place.
///
/// # Errors
/// When the database refuses or went away.
pub async fn has_room(tx: &mut TenantTx, id: RunId, most: u64) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    sqlx::query!("select id from organizations where id = $1 for no key update", organization.uuid())
        .fetch_optional(tx.connection())
        .await?;
    sqlx::query_scalar!(
        r#"select count(*) < $3 as "room!" from runs
            where organization_id = $1 and id <> $2 and state in ('planning', 'applying', 'verifying')
              and kind not in ('connect', 'forget')"#,
        organization.uuid(),
        id.uuid(),
        most
    )
    .fetch_one(tx.connection())
    .await
}

/// Whether somebody works on a stack of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn is_worked_on(tx: &mut TenantTx, stack: StackId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select exists (select from runs where organization_id = $1 and stack_id = $2
                             and state in ('planning', 'applying', 'verifying')) as "is!""#,
        organization.uuid(),
        stack.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Whether something is to be done with a stack of the transaction's organization, or waits to be approved.
///
/// # Errors
/// When the database refuses or went away.
pub async fn under_way(tx: &mut TenantTx, stack: StackId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select exists (select from runs where organization_id = $1 and stack_id = $2 and finished_at is null) as "is!""#,
        organization.uuid(),
        stack.uuid()
    )
    .fetch_one(tx.connection())
    .await
}
