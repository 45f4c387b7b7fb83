//! Modules in the tables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{Given, Input, ModuleProblem, ModuleState, Output, Source};
use crate::credentials::Cloud;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::servers::read;
use crate::window::in_order;
use crate::{JobId, JobTx as _, ModuleId, ModuleVersionId, OrganizationId, StackId, TenantTx, Window};

/// Modules an organization may have.
pub const MOST: i64 = 100;

/// Versions of a module that are kept, besides those that servers are made of.
pub const MOST_VERSIONS: i32 = 10;

/// A module to keep.
#[derive(Debug, Clone, Copy)]
pub struct NewModule<'a> {
    /// What people call it.
    pub name: &'a str,
    /// For which cloud.
    pub cloud: Cloud,
    /// What it is for.
    pub description: &'a str,
}

/// A version of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its id.
    pub id: ModuleVersionId,
    /// Of which module.
    pub module: ModuleId,
    /// Counted from one.
    pub number: i32,
    /// How far it is.
    pub state: ModuleState,
    /// Where it is from.
    pub source: Source,
    /// The directory in it that is the module.
    pub directory: String,
    /// Files it has.
    pub files: Option<i32>,
    /// Bytes they have.
    pub size: Option<i32>,
    /// The digest of its files and their names.
    pub sha256: Option<Vec<u8>>,
    /// The commit it was fetched from.
    pub commit: Option<String>,
    /// What it asks for.
    pub inputs: Vec<Input>,
    /// What it answers.
    pub outputs: Vec<Output>,
    /// The plugins it uses: its name for each, and where that is.
    pub providers: Vec<(String, String)>,
    /// Why it is not taken.
    pub problem: Option<(ModuleProblem, String)>,
    /// The job that looks at it.
    pub job: Option<JobId>,
    /// When it was brought.
    pub created_at: DateTime<Utc>,
    /// When it was looked at.
    pub checked_at: Option<DateTime<Utc>>,
}

/// A module.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its id.
    pub id: ModuleId,
    /// What people call it.
    pub name: String,
    /// For which cloud.
    pub cloud: Cloud,
    /// What it is for.
    pub description: String,
    /// When it was first brought.
    pub created_at: DateTime<Utc>,
    /// Servers that are made of it.
    pub servers: i64,
    /// The number of the version that servers are made of; `None`: of none yet.
    pub ready: Option<i32>,
    /// What it is now.
    pub newest: Version,
}

/// What was found out about a version that is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken<'a> {
    /// Its files, packed.
    pub content: &'a [u8],
    /// The directory among them that is the module.
    pub directory: &'a str,
    /// Files it has.
    pub files: usize,
    /// Bytes they have.
    pub size: usize,
    /// The digest of its files and their names.
    pub sha256: [u8; 32],
    /// The commit it was fetched from.
    pub commit: Option<&'a str>,
    /// What it asks for.
    pub inputs: &'a [Input],
    /// What it answers.
    pub outputs: &'a [Output],
    /// The plugins it uses.
    pub providers: &'a [(String, String)],
}

/// What a module is given cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It does not open, or could not be sealed.
    #[error("sealed inputs of a module")]
    Seal(#[from] SealError),
    /// What was sealed is none.
    #[error("sealed inputs of a module that cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// The database refused or went away.
    #[error("the table of stacks")]
    Database(#[from] sqlx::Error),
}

struct VersionRow {
    id: ModuleVersionId,
    module: ModuleId,
    number: i32,
    state: String,
    source: Value,
    directory: Option<String>,
    files: Option<i32>,
    size: Option<i32>,
    sha256: Option<Vec<u8>>,
    resolved_commit: Option<String>,
    inputs: Option<Value>,
    outputs: Option<Value>,
    providers: Option<Value>,
    problem_code: Option<String>,
    problem: Option<String>,
    job: Option<JobId>,
    created_at: DateTime<Utc>,
    checked_at: Option<DateTime<Utc>>,
}

fn json<T: serde::de::DeserializeOwned + Default>(value: Option<Value>) -> Result<T, sqlx::Error> {
    let read = value.map(serde_json::from_value).transpose();
    Ok(read.map_err(|error| sqlx::Error::Decode(Box::new(error)))?.unwrap_or_default())
}

impl VersionRow {
    fn read(self) -> Result<Version, sqlx::Error> {
        let problem = match (self.problem_code, self.problem) {
            (Some(code), said) => Some((read(&code)?, said.unwrap_or_default())),
            (None, _) => None,
        };
        Ok(Version {
            id: self.id,
            module: self.module,
            number: self.number,
            state: read(&self.state)?,
            source: serde_json::from_value(self.source).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            directory: self.directory.unwrap_or_default(),
            files: self.files,
            size: self.size,
            sha256: self.sha256,
            commit: self.resolved_commit,
            inputs: json(self.inputs)?,
            outputs: json(self.outputs)?,
            providers: json(self.providers)?,
            problem,
            job: self.job,
            created_at: self.created_at,
            checked_at: self.checked_at,
        })
    }
}

struct Row {
    name: String,
    cloud: String,
    description: String,
    module_created_at: DateTime<Utc>,
    servers: i64,
    ready: Option<i32>,
    id: ModuleVersionId,
    module: ModuleId,
    number: i32,
    state: String,
    source: Value,
    directory: Option<String>,
    files: Option<i32>,
    size: Option<i32>,
    sha256: Option<Vec<u8>>,
    resolved_commit: Option<String>,
    inputs: Option<Value>,
    outputs: Option<Value>,
    providers: Option<Value>,
    problem_code: Option<String>,
    problem: Option<String>,
    job: Option<JobId>,
    created_at: DateTime<Utc>,
    checked_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<Module, sqlx::Error> {
        let newest = VersionRow {
            id: self.id,
            module: self.module,
            number: self.number,
            state: self.state,
            source: self.source,
            directory: self.directory,
            files: self.files,
            size: self.size,
            sha256: self.sha256,
            resolved_commit: self.resolved_commit,
            inputs: self.inputs,
            outputs: self.outputs,
            providers: self.providers,
            problem_code: self.problem_code,
            problem: self.problem,
            job: self.job,
            created_at: self.created_at,
            checked_at: self.checked_at,
        };
        Ok(Module {
            id: self.module,
            name: self.name,
            cloud: self.cloud.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            description: self.description,
            created_at: self.module_created_at,
            servers: self.servers,
            ready: self.ready,
            newest: newest.read()?,
        })
    }
}

/// The one place where what a module is given opens.
#[must_use]
pub fn place(organization: OrganizationId, stack: StackId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "stacks", column: "module_secrets", row: stack.uuid() }
}

/// How many modules the transaction's organization has.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(r#"select count(*) as "count!" from modules where organization_id = $1"#, organization.uuid())
        .fetch_one(tx.connection())
        .await
}

/// Keeps a module of the transaction's organization, which has no version yet. A name that is taken violates
/// `modules_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, new: NewModule<'_>) -> Result<ModuleId, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<ModuleId>(), tx.organization(), tx.now());
    sqlx::query!(
        "insert into modules (id, organization_id, name, cloud, description, created_at) values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        organization.uuid(),
        new.name,
        new.cloud.as_str(),
        new.description,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// Holds a module of the transaction's organization until the transaction ends; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: ModuleId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        "select id from modules where organization_id = $1 and id = $2 for update",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
    .map(|found| found.is_some())
}

/// Keeps another version of a module of the transaction's organization, which is to be looked at. Old ones that nothing is made
/// of are forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add_version(
    tx: &mut TenantTx,
    module: ModuleId,
    source: &Source,
    archive: Option<&[u8]>,
) -> Result<ModuleVersionId, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<ModuleVersionId>(), tx.organization(), tx.now());
    sqlx::query!(
        "delete from module_versions v
          where v.organization_id = $1 and v.module_id = $2
            and v.number <= (select max(number) from module_versions where module_id = $2) - $3
            and v.number < coalesce((select max(number) from module_versions where module_id = $2 and state = 'ready'), 0)
            and not exists (select from stacks s where s.module_version_id = v.id)",
        organization.uuid(),
        module.uuid(),
        MOST_VERSIONS
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into module_versions (id, organization_id, module_id, number, state, source, archive, created_at)
         select $1, $2, $3, coalesce(max(number), 0) + 1, 'checking', $4, $5, $6 from module_versions where module_id = $3",
        id.uuid(),
        organization.uuid(),
        module.uuid(),
        serde_json::to_value(source).unwrap_or_default(),
        archive,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// This job looks at a version of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_job(tx: &mut TenantTx, id: ModuleVersionId, job: JobId) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update module_versions set job_id = $3 where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        job.uuid()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A module of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: ModuleId) -> Result<Option<Module>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select m.name, m.cloud, m.description, m.created_at as module_created_at,
                  (select count(*) from stacks s join module_versions o on o.id = s.module_version_id
                    where o.module_id = m.id) as "servers!",
                  (select max(number) from module_versions o where o.module_id = m.id and o.state = 'ready') as ready,
                  v.id as "id: ModuleVersionId", v.module_id as "module: ModuleId", v.number, v.state, v.source, v.directory,
                  v.files, v.size, v.sha256, v.resolved_commit, v.inputs, v.outputs, v.providers, v.problem_code, v.problem,
                  v.job_id as "job: JobId", v.created_at, v.checked_at
             from modules m join module_versions v on v.module_id = m.id
            where m.organization_id = $1 and m.id = $2
            order by v.number desc limit 1"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(Row::read).transpose()
}

/// A page of the modules of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Module>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select m.name, m.cloud, m.description, m.created_at as module_created_at,
                          (select count(*) from stacks s join module_versions o on o.id = s.module_version_id
                            where o.module_id = m.id) as "servers!",
                          (select max(number) from module_versions o where o.module_id = m.id and o.state = 'ready') as ready,
                          v.id as "id: ModuleVersionId", v.module_id as "module: ModuleId", v.number, v.state, v.source,
                          v.directory, v.files, v.size, v.sha256, v.resolved_commit, v.inputs, v.outputs, v.providers,
                          v.problem_code, v.problem, v.job_id as "job: JobId", v.created_at, v.checked_at
                     from modules m join module_versions v on v.module_id = m.id
                    where m.organization_id = $1 and m.id > $2 and m.id < $3
                      and v.number = (select max(number) from module_versions o where o.module_id = m.id)
                    order by m.id "#
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
    let rows: Vec<Row> = in_order!(window.order, page)?;
    rows.into_iter().map(Row::read).collect()
}

/// A page of the versions of a module of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn versions(tx: &mut TenantTx, module: ModuleId, window: Window) -> Result<Vec<Version>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                VersionRow,
                r#"select id as "id: ModuleVersionId", module_id as "module: ModuleId", number, state, source, directory, files,
                          size, sha256, resolved_commit, inputs, outputs, providers, problem_code, problem,
                          job_id as "job: JobId", created_at, checked_at
                     from module_versions
                    where organization_id = $1 and module_id = $2 and id > $3 and id < $4
                    order by id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                module.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    let rows: Vec<VersionRow> = in_order!(window.order, page)?;
    rows.into_iter().map(VersionRow::read).collect()
}

/// A version of a module of the transaction's organization, and the cloud it is for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn version(tx: &mut TenantTx, id: ModuleVersionId) -> Result<Option<(Version, Cloud)>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        VersionRow,
        r#"select id as "id: ModuleVersionId", module_id as "module: ModuleId", number, state, source, directory, files,
                  size, sha256, resolved_commit, inputs, outputs, providers, problem_code, problem,
                  job_id as "job: JobId", created_at, checked_at
             from module_versions where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(version) = row.map(VersionRow::read).transpose()? else { return Ok(None) };
    let cloud = sqlx::query_scalar!("select cloud from modules where id = $1", version.module.uuid())
        .fetch_one(tx.connection())
        .await?;
    let cloud = cloud.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Some((version, cloud)))
}

/// The version of a module of the transaction's organization that servers are made of: the newest that is taken, or the one
/// with this number if that is. It is there until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ready(tx: &mut TenantTx, module: ModuleId, number: Option<i32>) -> Result<Option<Version>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        VersionRow,
        r#"select id as "id: ModuleVersionId", module_id as "module: ModuleId", number, state, source, directory, files,
                  size, sha256, resolved_commit, inputs, outputs, providers, problem_code, problem,
                  job_id as "job: JobId", created_at, checked_at
             from module_versions
            where organization_id = $1 and module_id = $2 and state = 'ready' and ($3::int is null or number = $3)
            order by number desc limit 1 for key share"#,
        organization.uuid(),
        module.uuid(),
        number
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(VersionRow::read).transpose()
}

/// What was sent as a version of the transaction's organization, while nobody has read it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn archive(tx: &mut TenantTx, id: ModuleVersionId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let organization = tx.organization();
    let found = sqlx::query_scalar!(
        "select archive from module_versions where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid()
    );
    found.fetch_optional(tx.connection()).await.map(Option::flatten)
}

/// The files of a version of the transaction's organization, packed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn content(tx: &mut TenantTx, id: ModuleVersionId) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let organization = tx.organization();
    let found = sqlx::query_scalar!(
        "select content from module_versions where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid()
    );
    found.fetch_optional(tx.connection()).await.map(Option::flatten)
}

/// A version of the transaction's organization is taken; `false`: it was looked at before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn taken(tx: &mut TenantTx, id: ModuleVersionId, taken: &Taken<'_>) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update module_versions
            set state = 'ready', archive = null, content = $3, directory = $4, files = $5, size = $6, sha256 = $7,
                resolved_commit = $8, inputs = $9, outputs = $10, providers = $11, checked_at = $12
          where organization_id = $1 and id = $2 and state = 'checking'",
        organization.uuid(),
        id.uuid(),
        taken.content,
        taken.directory,
        i32::try_from(taken.files).unwrap_or(i32::MAX),
        i32::try_from(taken.size).unwrap_or(i32::MAX),
        &taken.sha256[..],
        taken.commit,
        serde_json::to_value(taken.inputs).unwrap_or_default(),
        serde_json::to_value(taken.outputs).unwrap_or_default(),
        serde_json::to_value(taken.providers).unwrap_or_default(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// A version of the transaction's organization is not taken; `false`: it was looked at before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn refused(
    tx: &mut TenantTx,
    id: ModuleVersionId,
    problem: ModuleProblem,
    said: &str,
) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update module_versions set state = 'refused', archive = null, problem_code = $3, problem = $4, checked_at = $5
          where organization_id = $1 and id = $2 and state = 'checking'",
        organization.uuid(),
        id.uuid(),
        problem.as_str(),
        said,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes a module of the transaction's organization with its versions; `false`: there is none. One that something is made of
/// violates `stacks_module_version_fkey`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, id: ModuleId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("delete from modules where organization_id = $1 and id = $2", organization.uuid(), id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// A stack of the transaction's organization is made of a version, which is given this.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn give(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    stack: StackId,
    version: ModuleVersionId,
    given: &Given,
) -> Result<(), GivenError> {
    let organization = tx.organization();
    let sealed = if given.secret.is_empty() {
        None
    } else {
        let text = serde_json::to_vec(&given.secret).map_err(GivenError::Malformed)?;
        Some(keys.seal(&place(organization, stack), &text)?)
    };
    sqlx::query!(
        "update stacks set module_version_id = $3, module_inputs = $4, module_secrets = $5
          where organization_id = $1 and id = $2",
        organization.uuid(),
        stack.uuid(),
        version.uuid(),
        serde_json::to_value(&given.plain).unwrap_or_default(),
        sealed
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// What the module of a stack of the transaction's organization is given and nobody may see.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn secrets(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    stack: StackId,
) -> Result<BTreeMap<String, Value>, GivenError> {
    let organization = tx.organization();
    let sealed = sqlx::query_scalar!(
        "select module_secrets from stacks where organization_id = $1 and id = $2",
        organization.uuid(),
        stack.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(sealed) = sealed.flatten() else { return Ok(BTreeMap::new()) };
    let opened = keys.open(&place(organization, stack), &sealed)?;
    serde_json::from_slice(opened.expose_secret()).map_err(GivenError::Malformed)
}
