//! Modules that organizations bring: what Terraform makes their servers of, in the place of the platform's own templates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_jobs::modules::CheckModule;
use gantry_jobs::{By, Job as _};
use gantry_schema::digest::hex;
use gantry_schema::modules::queries::{self as rows, Module as Row, NewModule as New, Version};
use gantry_schema::modules::{self, ModuleState as State, Source, is_of_platform};
use gantry_schema::organizations::needed::{ManageServers, ReadServers};
use gantry_schema::{JobId, ModuleId, ModuleVersionId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::body::{Body, MIB};
use crate::caller::May;
use crate::credentials::CloudName;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::{Newest, Oldest};
use crate::tag::Tag;

/// The operations on modules.
#[derive(Debug, Clone, Copy)]
pub struct Modules;

/// Bytes of an archive.
const LARGEST_ARCHIVE: usize = MIB;

/// How far a version of a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ModuleState {
    /// It is looked at.
    Checking,
    /// Servers can be made of it.
    Ready,
    /// It is not taken.
    Refused,
}

impl From<State> for ModuleState {
    fn from(state: State) -> Self {
        match state {
            State::Checking => Self::Checking,
            State::Ready => Self::Ready,
            State::Refused => Self::Refused,
        }
    }
}

/// A git repository.
#[derive(Debug, Clone, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct GitSource {
    /// Where it is: `https://…`, without a user name or a password.
    #[oai(validator(min_length = 9, max_length = 2000))]
    url: String,
    /// A branch, a tag or a commit.
    #[oai(rename = "ref", validator(min_length = 1, max_length = 200, pattern = "^[A-Za-z0-9][A-Za-z0-9._/+-]*$"))]
    #[serde(rename = "ref")]
    reference: String,
    /// The directory in it that is the module; absent: the uppermost one.
    #[oai(validator(max_length = 200, pattern = "^[A-Za-z0-9._/-]*$"), skip_serializing_if_is_none)]
    path: Option<String>,
}

/// Where a module is from: exactly one of these.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct ModuleSource {
    /// A `.tar.gz` or a `.zip` of at most 1 MiB, as base64. Plain files and directories are taken, and nothing else.
    archive: Option<String>,
    /// A git repository, which is fetched by https.
    git: Option<GitSource>,
}

impl ModuleSource {
    fn read(self) -> Result<(Source, Option<Vec<u8>>), Error> {
        match (self.archive, self.git) {
            (Some(archive), None) => {
                let bytes = STANDARD
                    .decode(archive.trim())
                    .map_err(|_| Error::field("source.archive", "write the bytes of a .tar.gz or a .zip as base64"))?;
                if bytes.is_empty() || bytes.len() > LARGEST_ARCHIVE {
                    let detail = format!(
                        "the archive has {} bytes, and 1 to {LARGEST_ARCHIVE} are taken; leave out what the module does not need",
                        bytes.len()
                    );
                    return Err(Error::field("source.archive", detail));
                }
                Ok((Source::Archive, Some(bytes)))
            }
            (None, Some(git)) => Ok((git.read()?, None)),
            _ => Err(Error::field("source", "write exactly one of archive and git")),
        }
    }
}

impl GitSource {
    fn read(self) -> Result<Source, Error> {
        let url: Option<url::Url> = self.url.parse().ok();
        let url = url.filter(|url| {
            url.scheme() == "https"
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && self.url.len() <= 2_000
        });
        let url = url.ok_or_else(|| {
            Error::field("source.git.url", "write a URL that begins with https:// and has no user name or password")
        })?;
        let plain = |text: &str| text.bytes().all(|it| it.is_ascii_alphanumeric() || b"._/+-".contains(&it));
        let reference = self.reference;
        if reference.is_empty()
            || reference.len() > 200
            || !plain(&reference)
            || !reference.starts_with(|first: char| first.is_ascii_alphanumeric())
            || reference.contains("..")
        {
            return Err(Error::field("source.git.ref", "write the name of a branch or a tag, or a commit"));
        }
        let path = self.path.unwrap_or_default();
        let path = path.trim_matches('/');
        if path.len() > 200 || !plain(path) || path.split('/').any(|part| part == ".." || part == ".") {
            return Err(Error::field(
                "source.git.path",
                "write the path of a directory in the repository: modules/web",
            ));
        }
        let path = (!path.is_empty()).then(|| path.to_owned());
        Ok(Source::Git { url: url.into(), reference, path })
    }
}

/// Where a version of a module is from.
#[derive(Debug, Object)]
struct ModuleOrigin {
    /// It was sent as an archive.
    archive: bool,
    /// It was fetched from here.
    #[oai(skip_serializing_if_is_none)]
    git: Option<GitSource>,
}

impl From<Source> for ModuleOrigin {
    fn from(source: Source) -> Self {
        match source {
            Source::Archive => Self { archive: true, git: None },
            Source::Git { url, reference, path } => {
                Self { archive: false, git: Some(GitSource { url, reference, path }) }
            }
        }
    }
}

/// What a module asks for.
#[derive(Debug, Object)]
struct ModuleInput {
    /// Its name.
    name: String,
    /// What it takes, as Terraform writes types: `list(string)`.
    r#type: String,
    /// What it is for.
    description: String,
    /// What it is where it is not given; absent: nothing, or it is not shown because nobody may see it.
    #[oai(skip_serializing_if_is_none)]
    default: Option<Value>,
    /// Whether it has to be given.
    required: bool,
    /// Whether nobody may see it: it is kept sealed.
    sensitive: bool,
    /// Whether the platform gives it, and nobody else.
    given_by_platform: bool,
}

/// What a module answers.
#[derive(Debug, Object)]
struct ModuleOutput {
    /// Its name.
    name: String,
    /// What it is.
    description: String,
    /// Whether nobody may see it.
    sensitive: bool,
}

/// Why a module is not taken.
#[derive(Debug, Object)]
struct ModuleProblem {
    /// Why, as a word that never changes.
    code: String,
    /// Where, and what it is.
    detail: String,
    /// What to do about it.
    remedy: String,
}

/// What a module once was. A server stays what it was made of until it is given another one.
#[derive(Debug, Object)]
#[oai(example)]
struct ModuleVersion {
    /// Its id.
    id: ModuleVersionId,
    /// Of which module.
    module_id: ModuleId,
    /// Counted from one.
    version: i32,
    /// How far it is.
    state: ModuleState,
    /// Why it is not taken.
    #[oai(skip_serializing_if_is_none)]
    problem: Option<ModuleProblem>,
    /// Where it is from.
    source: ModuleOrigin,
    /// The commit that was fetched.
    #[oai(skip_serializing_if_is_none)]
    commit: Option<String>,
    /// The directory in it that is the module; absent: the uppermost one.
    #[oai(skip_serializing_if_is_none)]
    directory: Option<String>,
    /// Files it has.
    #[oai(skip_serializing_if_is_none)]
    files: Option<i32>,
    /// Bytes they have.
    #[oai(skip_serializing_if_is_none)]
    size: Option<i32>,
    /// The digest of its files and their names, in hexadecimal digits: the same for the same.
    #[oai(skip_serializing_if_is_none)]
    sha256: Option<String>,
    /// What it asks for.
    inputs: Vec<ModuleInput>,
    /// What it answers.
    outputs: Vec<ModuleOutput>,
    /// Plugins of Terraform that it uses.
    providers: Vec<String>,
    /// The job that looks at it.
    #[oai(skip_serializing_if_is_none)]
    job_id: Option<JobId>,
    /// When it was brought.
    created_at: Moment,
    /// When it was looked at.
    #[oai(skip_serializing_if_is_none)]
    checked_at: Option<Moment>,
}

example!(ModuleVersion, {
    "id": "mdv_01h455vb4pex5vsknk084sn02q",
    "module_id": "mod_01h455vb4pex5vsknk084sn02q",
    "version": 1,
    "state": "ready",
    "source": { "archive": false, "git": { "url": "https://git.example/acme/servers.git", "ref": "v1.2.0", "path": "modules/web" } },
    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "directory": "modules/web",
    "files": 3,
    "size": 2_048,
    "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "inputs": [{
        "name": "size", "type": "string", "description": "How large it is.", "default": "cx23", "required": false,
        "sensitive": false, "given_by_platform": false,
    }],
    "outputs": [{ "name": "address", "description": "", "sensitive": false }],
    "providers": ["hetznercloud/hcloud"],
    "job_id": "job_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:00Z",
    "checked_at": "2026-01-15T12:00:01Z",
});

/// A module, as it is now.
#[derive(Debug, Object)]
#[oai(example)]
struct Module {
    /// Its id.
    id: ModuleId,
    /// What people call it.
    name: String,
    /// For which cloud it is.
    cloud: CloudName,
    /// What it is for.
    description: String,
    /// Servers that are made of it, of whichever version.
    servers: i64,
    /// The version that new servers are made of, which is the newest that is taken; absent: none is.
    #[oai(skip_serializing_if_is_none)]
    ready_version: Option<i32>,
    /// The number of its newest version, which the rest is about.
    version: i32,
    /// How far that is.
    state: ModuleState,
    /// Why it is not taken.
    #[oai(skip_serializing_if_is_none)]
    problem: Option<ModuleProblem>,
    /// Where it is from.
    source: ModuleOrigin,
    /// The commit that was fetched.
    #[oai(skip_serializing_if_is_none)]
    commit: Option<String>,
    /// The digest of its files and their names, in hexadecimal digits: the same for the same.
    #[oai(skip_serializing_if_is_none)]
    sha256: Option<String>,
    /// What it asks for.
    inputs: Vec<ModuleInput>,
    /// What it answers.
    outputs: Vec<ModuleOutput>,
    /// Plugins of Terraform that it uses.
    providers: Vec<String>,
    /// The job that looks at it.
    #[oai(skip_serializing_if_is_none)]
    job_id: Option<JobId>,
    /// When it was first brought.
    created_at: Moment,
    /// When its newest version was brought.
    updated_at: Moment,
    /// When that was looked at.
    #[oai(skip_serializing_if_is_none)]
    checked_at: Option<Moment>,
}

example!(Module, {
    "id": "mod_01h455vb4pex5vsknk084sn02q",
    "name": "Web servers",
    "cloud": "hetzner",
    "description": "With our own network.",
    "servers": 1,
    "ready_version": 1,
    "version": 1,
    "state": "ready",
    "source": { "archive": false, "git": { "url": "https://git.example/acme/servers.git", "ref": "v1.2.0", "path": "modules/web" } },
    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "inputs": [{
        "name": "size", "type": "string", "description": "How large it is.", "default": "cx23", "required": false,
        "sensitive": false, "given_by_platform": false,
    }],
    "outputs": [{ "name": "address", "description": "", "sensitive": false }],
    "providers": ["hetznercloud/hcloud"],
    "job_id": "job_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:00Z",
    "updated_at": "2026-01-15T12:00:00Z",
    "checked_at": "2026-01-15T12:00:01Z",
});

/// A module to bring.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewModule {
    /// What people call it: 1 to 200 characters.
    name: Name,
    /// For which cloud it is.
    cloud: CloudName,
    /// What it is for: up to 1000 characters.
    description: Option<String>,
    /// Where it is from.
    source: ModuleSource,
}

example!(NewModule, {
    "name": "Web servers",
    "cloud": "sandbox",
    "description": "With our own network.",
    "source": { "git": { "url": "https://git.example/acme/servers.git", "ref": "v1.2.0", "path": "modules/web" } },
});

/// What a module is from now on.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct ModuleUpdate {
    /// Where it is from.
    source: ModuleSource,
}

example!(ModuleUpdate, {
    "source": { "git": { "url": "https://git.example/acme/servers.git", "ref": "v1.3.0", "path": "modules/web" } },
});

/// A job looks at it.
#[derive(ApiResponse)]
enum Brought {
    /// A job looks at it.
    #[oai(status = 202)]
    Brought(
        Json<Module>,
        /// Where the module is.
        #[oai(header = "Location")]
        String,
    ),
}

/// It was removed.
#[derive(ApiResponse)]
enum Removed {
    /// Nothing of it is kept.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/modules", tag = "Tag::Modules")]
impl Modules {
    /// List modules
    #[oai(path = "/", method = "get", operation_id = "listModules")]
    async fn list(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<Module>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), Module::from))
    }

    /// Bring a module
    ///
    /// A job fetches or unpacks it, holds it against what modules may do here, and finds out what it asks for and answers; then it is
    /// `ready`, or `refused` with a `problem`. Its outputs are `address`, `port` and `user`, and `host_key` unless it has the input
    /// `gantry_user_data`. Nothing of it runs before a server is made of it.
    ///
    /// Refused as `name_taken` when there is one of that name, as `too_many` when there are 100.
    #[oai(path = "/", method = "post", operation_id = "createModule")]
    async fn create(
        &self,
        caller: May<ManageServers>,
        once: Once,
        body: Body<NewModule, { 2 * MIB }>,
    ) -> Result<Answered<Brought>, Error> {
        let (organization, by) = (caller.organization(), caller.by());
        let NewModule { name, cloud, description, source } = body.0;
        let description = description.unwrap_or_default();
        if description.chars().count() > 1_000 || description.chars().any(|it| it.is_control() && it != '\n') {
            let detail = "a description has at most 1000 characters, none of them a control character";
            return Err(Error::field("description", detail));
        }
        let (source, archive) = source.read()?;
        let create = once.run(&caller, organization, async |tx| {
            if rows::count(tx).await? >= rows::MOST {
                return Err(Error::new(Code::TooMany, "there are 100 modules, as many as there may be; remove one"));
            }
            let new = New { name: name.as_str(), cloud: cloud.into(), description: &description };
            let made = rows::insert(tx, new).await;
            let id = made.on_constraint("modules_name_key", || {
                Error::new(Code::NameTaken, "there is a module of this name; choose another").at("name")
            })?;
            let made = brought(tx, id, &source, archive.as_deref(), by).await?;
            tx.audit().on(&id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Brought::Brought(Json(made), format!("/modules/{id}")))
        });
        create.await
    }

    /// Get a module
    #[oai(path = "/:module", method = "get", operation_id = "getModule")]
    async fn get(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The module.
        module: Path<ModuleId>,
    ) -> Result<Json<Module>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(find(&mut tx, module.0).await?))
    }

    /// List the versions of a module
    ///
    /// Newest first unless told otherwise. The last ten are kept, and those that servers are made of.
    #[oai(path = "/:module/versions", method = "get", operation_id = "listModuleVersions")]
    async fn versions(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The module.
        module: Path<ModuleId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<ModuleVersion>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        find(&mut tx, module.0).await?;
        let found = rows::versions(&mut tx, module.0, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), ModuleVersion::from))
    }

    /// Update a module
    ///
    /// What is sent, or fetched, becomes its next version when it is taken; until then, and when it is refused, new servers are made of
    /// the one before. Servers stay what they were made of.
    #[oai(path = "/:module/update", method = "post", operation_id = "updateModule")]
    async fn update(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The module.
        module: Path<ModuleId>,
        body: Body<ModuleUpdate, { 2 * MIB }>,
    ) -> Result<Answered<Brought>, Error> {
        let (organization, id, by) = (caller.organization(), module.0, caller.by());
        let (source, archive) = body.0.source.read()?;
        let update = once.run(&caller, organization, async |tx| {
            if !rows::lock(tx, id).await? {
                return Err(Error::not_found(id));
            }
            let before = find(tx, id).await?;
            let after = brought(tx, id, &source, archive.as_deref(), by).await?;
            tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Brought::Brought(Json(after), format!("/modules/{id}")))
        });
        update.await
    }

    /// Remove a module
    ///
    /// With all its versions.
    ///
    /// Refused as `in_use` while servers are there that are made of it.
    #[oai(path = "/:module", method = "delete", operation_id = "removeModule")]
    async fn remove(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The module.
        module: Path<ModuleId>,
    ) -> Result<Answered<Removed>, Error> {
        let (organization, id) = (caller.organization(), module.0);
        let remove = once.run(&caller, organization, async |tx| {
            let removed = rows::remove(tx, id).await.on_constraint("stacks_module_version_fkey", || {
                Error::new(Code::InUse, "servers are there that are made of it; destroy them first")
            })?;
            if removed { Ok(Removed::Removed) } else { Err(Error::not_found(id)) }
        });
        remove.await
    }
}

/// Keeps what was brought, and has it looked at.
async fn brought(
    tx: &mut TenantTx,
    id: ModuleId,
    source: &Source,
    archive: Option<&[u8]>,
    by: &By,
) -> Result<Module, Error> {
    let version = rows::add_version(tx, id, source, archive).await?;
    let job = CheckModule { version }.request().enqueue(tx, by).await?;
    rows::set_job(tx, version, job.id).await?;
    find(tx, id).await
}

async fn find(tx: &mut TenantTx, id: ModuleId) -> Result<Module, Error> {
    Ok(rows::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?.into())
}

impl From<modules::Input> for ModuleInput {
    fn from(input: modules::Input) -> Self {
        Self {
            given_by_platform: is_of_platform(&input.name),
            name: input.name,
            r#type: input.kind.to_string(),
            description: input.description,
            default: Some(input.default).filter(|value| !value.is_null()),
            required: input.required,
            sensitive: input.sensitive,
        }
    }
}

impl From<modules::Output> for ModuleOutput {
    fn from(output: modules::Output) -> Self {
        Self { name: output.name, description: output.description, sensitive: output.sensitive }
    }
}

impl From<(modules::ModuleProblem, String)> for ModuleProblem {
    fn from((problem, detail): (modules::ModuleProblem, String)) -> Self {
        Self { code: problem.as_str().to_owned(), detail, remedy: problem.describe().to_owned() }
    }
}

impl From<Version> for ModuleVersion {
    fn from(row: Version) -> Self {
        Self {
            id: row.id,
            module_id: row.module,
            version: row.number,
            state: row.state.into(),
            problem: row.problem.map(Into::into),
            source: row.source.into(),
            commit: row.commit,
            directory: Some(row.directory).filter(|directory| !directory.is_empty()),
            files: row.files,
            size: row.size,
            sha256: row.sha256.as_deref().map(hex),
            inputs: row.inputs.into_iter().map(Into::into).collect(),
            outputs: row.outputs.into_iter().map(Into::into).collect(),
            providers: row.providers.into_iter().map(|(_, source)| source).collect(),
            job_id: row.job,
            created_at: row.created_at.into(),
            checked_at: row.checked_at.map(Into::into),
        }
    }
}

impl From<Row> for Module {
    fn from(row: Row) -> Self {
        let newest = ModuleVersion::from(row.newest);
        Self {
            id: row.id,
            name: row.name,
            cloud: row.cloud.into(),
            description: row.description,
            servers: row.servers,
            ready_version: row.ready,
            version: newest.version,
            state: newest.state,
            problem: newest.problem,
            source: newest.source,
            commit: newest.commit,
            sha256: newest.sha256,
            inputs: newest.inputs,
            outputs: newest.outputs,
            providers: newest.providers,
            job_id: newest.job_id,
            created_at: row.created_at.into(),
            updated_at: newest.created_at,
            checked_at: newest.checked_at,
        }
    }
}
