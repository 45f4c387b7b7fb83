//! Servers and their stacks in the tables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plans::{Cost, Summary};
use super::{OnFailure, Options, Problem, ServerKind, ServerState, read, watch};
use crate::credentials::Cloud;
use crate::modules::Used;
use crate::window::in_order;
use crate::{
    CloudCredentialId, JobTx as _, ModuleId, ModuleVersionId, RunId, ServerId, SshKeyId, StackId, TenantTx, Window,
};

/// Something that was looked at when a server was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it has to be.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Where a server is reached, and who answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: String,
    /// The port of its SSH server.
    pub port: u16,
    /// As whom one gets in.
    pub username: String,
    /// The host key that is believed, as `known_hosts` has it.
    pub host_key: String,
}

/// A server to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer<'a> {
    /// Its host name.
    pub name: &'a str,
    /// Where.
    pub cloud: Cloud,
    /// With what.
    pub credential: CloudCredentialId,
    /// Where there.
    pub region: &'a str,
    /// How large.
    pub size: &'a str,
    /// What it begins with.
    pub image: &'a str,
    /// The organization's own words for it.
    pub labels: &'a BTreeMap<String, String>,
    /// What else is wanted of it.
    pub options: &'a Options,
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its host name.
    pub name: String,
    /// How the platform came by it.
    pub kind: ServerKind,
    /// Where it was made; `None`: it was connected.
    pub cloud: Option<Cloud>,
    /// Where there; empty: it was connected.
    pub region: String,
    /// How large it is; empty: it was connected.
    pub size: String,
    /// What it began with; empty: it was connected.
    pub image: String,
    /// The organization's own words for it.
    pub labels: BTreeMap<String, String>,
    /// What else is wanted of it.
    pub options: Options,
    /// What becomes of it when it is half made and something goes wrong.
    pub on_failure: OnFailure,
    /// Where it is in its life.
    pub state: ServerState,
    /// Where it is reached; `None`: that is not known yet.
    pub place: Option<Place>,
    /// What was looked at, and found.
    pub checks: Vec<Check>,
    /// Why it is not as it has to be, and what was said about it.
    pub problem: Option<(Problem, String)>,
    /// What it costs in a month, in the smallest unit of the currency.
    pub monthly_cost: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// What looks after it.
    pub stack: StackId,
    /// The run that makes it, or made it.
    pub made_by: Option<RunId>,
    /// With what it was made; `None`: it is gone.
    pub credential: Option<CloudCredentialId>,
    /// With what the platform gets in; `None`: it is gone.
    pub ssh_key: Option<SshKeyId>,
    /// What is missing on it may be installed.
    pub install: bool,
    /// Somebody works on it.
    pub maintenance: bool,
    /// When somebody was last in.
    pub reached_at: Option<DateTime<Utc>>,
    /// Since when nobody gets in; `None`: somebody did the last time.
    pub unreachable_since: Option<DateTime<Utc>>,
    /// What differs from what is to be there; `None`: nothing did when that was last looked at.
    pub drift: Option<Summary>,
    /// What it is made of, where that is no template of the platform's own.
    pub module: Option<Used>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was ready.
    pub ready_at: Option<DateTime<Utc>>,
    /// When it was gone.
    pub destroyed_at: Option<DateTime<Utc>>,
}

struct Row {
    id: ServerId,
    name: String,
    kind: String,
    cloud: Option<String>,
    region: Option<String>,
    size: Option<String>,
    image: Option<String>,
    labels: Value,
    options: Value,
    on_failure: String,
    state: String,
    address: Option<String>,
    port: Option<i32>,
    username: Option<String>,
    host_key: Option<String>,
    checks: Option<Value>,
    problem_code: Option<String>,
    problem: Option<String>,
    monthly_cost: Option<i64>,
    currency: Option<String>,
    stack: StackId,
    made_by: Option<RunId>,
    credential: Option<CloudCredentialId>,
    ssh_key: Option<SshKeyId>,
    install: bool,
    maintenance: bool,
    reached_at: Option<DateTime<Utc>>,
    unreachable_since: Option<DateTime<Utc>>,
    drift: Option<Value>,
    module: Option<ModuleId>,
    module_version: Option<ModuleVersionId>,
    module_number: Option<i32>,
    module_inputs: Option<Value>,
    created_at: DateTime<Utc>,
    ready_at: Option<DateTime<Utc>>,
    destroyed_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<Server, sqlx::Error> {
        let json = |error| sqlx::Error::Decode(Box::new(error));
        let place = match (self.address, self.port, self.username, self.host_key) {
            (Some(address), Some(port), Some(username), Some(host_key)) => {
                let port = u16::try_from(port).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
                Some(Place { address, port, username, host_key })
            }
            _ => None,
        };
        let problem = match (self.problem_code, self.problem) {
            (Some(code), problem) => Some((read(&code)?, problem.unwrap_or_default())),
            (None, _) => None,
        };
        let module = match (self.module, self.module_version, self.module_number) {
            (Some(module), Some(version), Some(number)) => {
                let inputs = self.module_inputs.map(serde_json::from_value).transpose().map_err(json)?;
                Some(Used { module, version, number, inputs: inputs.unwrap_or_default() })
            }
            _ => None,
        };
        Ok(Server {
            id: self.id,
            name: self.name,
            kind: read(&self.kind)?,
            cloud: self.cloud.map(|cloud| read(&cloud)).transpose()?,
            region: self.region.unwrap_or_default(),
            size: self.size.unwrap_or_default(),
            image: self.image.unwrap_or_default(),
            labels: serde_json::from_value(self.labels).map_err(json)?,
            options: serde_json::from_value(self.options).map_err(json)?,
            on_failure: read(&self.on_failure)?,
            state: read(&self.state)?,
            place,
            checks: self.checks.map(serde_json::from_value).transpose().map_err(json)?.unwrap_or_default(),
            problem,
            monthly_cost: self.monthly_cost,
            currency: self.currency,
            stack: self.stack,
            made_by: self.made_by,
            credential: self.credential,
            ssh_key: self.ssh_key,
            install: self.install,
            maintenance: self.maintenance,
            reached_at: self.reached_at,
            unreachable_since: self.unreachable_since,
            drift: self.drift.map(serde_json::from_value).transpose().map_err(json)?,
            module,
            created_at: self.created_at,
            ready_at: self.ready_at,
            destroyed_at: self.destroyed_at,
        })
    }
}

/// Writes down that the transaction's organization wants a server. A name that is taken violates `servers_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, new: &NewServer<'_>, ssh_key: SshKeyId) -> Result<ServerId, sqlx::Error> {
    let (id, stack) = (tx.ids().mint::<ServerId>(), tx.ids().mint::<StackId>());
    let (organization, now) = (tx.organization(), tx.now());
    let labels = serde_json::to_value(new.labels).unwrap_or_default();
    sqlx::query!(
        "insert into servers (id, organization_id, name, cloud, region, size, image, labels, options, state, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'provisioning', $10)",
        id.uuid(),
        organization.uuid(),
        new.name,
        new.cloud.as_str(),
        new.region,
        new.size,
        new.image,
        labels,
        serde_json::to_value(new.options).unwrap_or_default(),
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into stacks (id, organization_id, server_id, credential_id, ssh_key_id, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        stack.uuid(),
        organization.uuid(),
        id.uuid(),
        new.credential.uuid(),
        ssh_key.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// Says what becomes of a server of the transaction's organization when it is half made and something goes wrong.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_on_failure(tx: &mut TenantTx, id: ServerId, on_failure: OnFailure) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set on_failure = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        on_failure.as_str()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A server of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: ServerId) -> Result<Option<Server>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select v.id as "id: ServerId", v.name, v.kind, v.cloud, v.region, v.size, v.image, v.labels, v.options, v.on_failure, v.state,
                  v.address, v.port,
                  v.username, v.host_key, v.checks, v.problem_code, v.problem, v.monthly_cost, v.currency,
                  s.id as "stack: StackId",
                  (select r.id from runs r where r.stack_id = s.id order by r.id limit 1) as "made_by: RunId",
                  s.credential_id as "credential: CloudCredentialId",
                  s.ssh_key_id as "ssh_key: SshKeyId", v.install, v.maintenance, v.reached_at, v.unreachable_since,
                  v.drift, m.module_id as "module?: ModuleId", m.id as "module_version?: ModuleVersionId",
                  m.number as "module_number?", s.module_inputs, v.created_at, v.ready_at, v.destroyed_at
             from servers v join stacks s on s.server_id = v.id
             left join module_versions m on m.id = s.module_version_id
            where v.organization_id = $1 and v.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(Row::read).transpose()
}

/// Holds a server of the transaction's organization until the transaction ends; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: ServerId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        "select id from servers where organization_id = $1 and id = $2 for update",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
    .map(|found| found.is_some())
}

/// Which servers are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Only those.
    pub state: Option<ServerState>,
    /// Only there.
    pub cloud: Option<Cloud>,
    /// Only those that the platform came by like this.
    pub kind: Option<ServerKind>,
    /// Only those with this label, and with this value where one is said.
    pub label: Option<(&'a str, Option<&'a str>)>,
}

/// A page of the servers of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: &Filter<'_>, window: Window) -> Result<Vec<Server>, sqlx::Error> {
    let organization = tx.organization();
    let (label, value) = filter.label.map_or((None, None), |(label, value)| (Some(label), value));
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select v.id as "id: ServerId", v.name, v.kind, v.cloud, v.region, v.size, v.image, v.labels, v.options, v.on_failure, v.state,
                          v.address, v.port, v.username, v.host_key, v.checks, v.problem_code, v.problem, v.monthly_cost, v.currency,
                          s.id as "stack: StackId",
                          (select r.id from runs r where r.stack_id = s.id order by r.id limit 1) as "made_by: RunId",
                          s.credential_id as "credential: CloudCredentialId",
                          s.ssh_key_id as "ssh_key: SshKeyId", v.install, v.maintenance, v.reached_at, v.unreachable_since,
                          v.drift, m.module_id as "module?: ModuleId", m.id as "module_version?: ModuleVersionId",
                          m.number as "module_number?", s.module_inputs, v.created_at, v.ready_at, v.destroyed_at
                     from servers v join stacks s on s.server_id = v.id
                     left join module_versions m on m.id = s.module_version_id
                    where v.organization_id = $1 and v.id > $2 and v.id < $3
                      and ($5::text is null or v.state = $5) and ($6::text is null or v.cloud = $6)
                      and ($7::text is null or (v.labels ? $7 and ($8::text is null or v.labels ->> $7 = $8)))
                      and ($9::text is null or v.kind = $9)
                    order by v.id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit,
                filter.state.map(ServerState::as_str),
                filter.cloud.map(Cloud::as_str),
                label,
                value,
                filter.kind.map(ServerKind::as_str)
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    let rows: Vec<Row> = in_order!(window.order, page)?;
    rows.into_iter().map(Row::read).collect()
}

/// Moves a server of the transaction's organization to another state; what was wrong with it is forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_state(tx: &mut TenantTx, id: ServerId, state: ServerState) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set state = $3, problem_code = null, problem = null, watch_at = null, compare_at = null
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        state.as_str()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A server of the transaction's organization is not as it has to be.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut TenantTx, id: ServerId, problem: Problem, said: &str) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set state = 'failed', problem_code = $3, problem = $4, watch_at = null, compare_at = null
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        problem.as_str(),
        said
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Where a server of the transaction's organization is reached is known.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_place(tx: &mut TenantTx, id: ServerId, place: &Place) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set address = $3, port = $4, username = $5, host_key = $6 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        place.address,
        i32::from(place.port),
        place.username,
        place.host_key
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// What a server of the transaction's organization costs is known; `None`: nobody knows.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_cost(tx: &mut TenantTx, id: ServerId, cost: Option<Cost<'_>>) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update servers set monthly_cost = $3, currency = $4 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        cost.map(|cost| cost.monthly),
        cost.map(|cost| cost.currency)
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A server of the transaction's organization was looked at, and this was found; `ready`: all of it is as it has to be.
///
/// # Errors
/// When the database refuses or went away.
pub async fn checked(tx: &mut TenantTx, id: ServerId, checks: &[Check], ready: bool) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let checks = serde_json::to_value(checks).unwrap_or_default();
    sqlx::query!(
        "update servers set checks = $3, state = case when $4 then 'ready' else state end,
                ready_at = case when $4 then coalesce(ready_at, $5) else ready_at end,
                reached_at = $5, unreachable_since = null, misses = 0, watch_at = case when $4 then $6::timestamptz end,
                compare_at = case when $4 and kind = 'made' then $7::timestamptz end, drift = null,
                problem_code = case when $4 then null else problem_code end, problem = case when $4 then null else problem end
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        checks,
        ready,
        now,
        now + watch::next(0),
        now + watch::COMPARED_EVERY
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A server of the transaction's organization is gone; its name, its credential and its key are free.
///
/// # Errors
/// When the database refuses or went away.
pub async fn destroyed(tx: &mut TenantTx, id: ServerId) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update servers set state = 'destroyed', destroyed_at = $3, problem_code = null, problem = null, watch_at = null,
                compare_at = null
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "update stacks set credential_id = null, ssh_key_id = null, module_version_id = null, module_inputs = null, module_secrets = null
          where organization_id = $1 and server_id = $2",
        organization.uuid(),
        id.uuid()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
