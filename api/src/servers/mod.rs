//! Servers: asked for, looked at, destroyed. Jobs make them; see `runs` for how far those are.

mod connect;
mod made_of;
mod offered;
mod options;
mod runs;
mod states;
mod update;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use gantry_jobs::servers::{ConnectServer, DestroyServer, EstimateServer, ProvisionServer};
use gantry_jobs::{By, Job as _};
use gantry_schema::modules::queries as modules;
use gantry_schema::organizations::Slug;
use gantry_schema::organizations::needed::{ManageServers, ReadServers};
use gantry_schema::servers::change::Wanted;
use gantry_schema::servers::queries::{self as rows, Filter, NewServer as New};
use gantry_schema::servers::runs as run_rows;
use gantry_schema::servers::{self, Problem, RunKind, keys, warnings, watch};
use gantry_schema::{CloudCredentialId, ServerId, SshKeyId, TenantTx, credentials};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, ToJSON as _};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{Etag, IfMatch, IfNoneMatch, Tagged};
use crate::credentials::CloudName;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::{Moment, Wrong, text_type};
use crate::jobs::{Asked as AskedJob, Prefer, Receipt, asked as asked_job};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

pub use connect::ConnectedServers;
pub use runs::ServerRuns;
pub use states::ServerStates;
pub use update::ServerChanges;

use made_of::{NewServerModule, ServerModule};
use offered::CloudWord;
use options::ServerOptions;
use runs::{PlannedChange, ServerRun};

/// The operations on servers.
#[derive(Debug, Clone, Copy)]
pub struct Servers;

/// A label of a host name: 1 to 63 of a-z, 0-9 and -.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostLabel(Slug);

impl FromStr for HostLabel {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let label = text.parse().map(Self);
        label.map_err(|_| {
            Wrong("a server's name is a host name: 1 to 63 of a-z, 0-9 and -, with - at neither end".into())
        })
    }
}

impl fmt::Display for HostLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

text_type!(HostLabel, "host-label", |schema| {
    schema.min_length = Some(1);
    schema.max_length = Some(63);
    schema.example = Some("web-1".into());
});

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum ServerState {
    /// It is being made, or connected.
    Provisioning,
    /// Somebody has to say that it may cost as much.
    AwaitingApproval,
    /// It was looked at, and everything was as it has to be.
    Ready,
    /// It could not be made or connected, or is not as it has to be.
    Failed,
    /// It is being removed, or forgotten.
    Destroying,
    /// It is gone, or forgotten.
    Destroyed,
}

impl From<servers::ServerState> for ServerState {
    fn from(state: servers::ServerState) -> Self {
        match state {
            servers::ServerState::Provisioning => Self::Provisioning,
            servers::ServerState::AwaitingApproval => Self::AwaitingApproval,
            servers::ServerState::Ready => Self::Ready,
            servers::ServerState::Failed => Self::Failed,
            servers::ServerState::Destroying => Self::Destroying,
            servers::ServerState::Destroyed => Self::Destroyed,
        }
    }
}

impl From<ServerState> for servers::ServerState {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Provisioning => Self::Provisioning,
            ServerState::AwaitingApproval => Self::AwaitingApproval,
            ServerState::Ready => Self::Ready,
            ServerState::Failed => Self::Failed,
            ServerState::Destroying => Self::Destroying,
            ServerState::Destroyed => Self::Destroyed,
        }
    }
}

/// What becomes of what was half made when something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum ServerOnFailure {
    /// It is removed again.
    Remove,
    /// It stays: `POST /servers/{id}/retry` goes on from there, `DELETE /servers/{id}` removes it.
    Keep,
}

impl From<servers::OnFailure> for ServerOnFailure {
    fn from(kept: servers::OnFailure) -> Self {
        match kept {
            servers::OnFailure::Remove => Self::Remove,
            servers::OnFailure::Keep => Self::Keep,
        }
    }
}

/// How the platform came by a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ServerKind {
    /// It was made by the platform, and is removed by it.
    Made,
    /// It was there before, and was connected.
    Connected,
}

impl From<servers::ServerKind> for ServerKind {
    fn from(kind: servers::ServerKind) -> Self {
        match kind {
            servers::ServerKind::Made => Self::Made,
            servers::ServerKind::Connected => Self::Connected,
        }
    }
}

impl From<ServerOnFailure> for servers::OnFailure {
    fn from(wanted: ServerOnFailure) -> Self {
        match wanted {
            ServerOnFailure::Remove => Self::Remove,
            ServerOnFailure::Keep => Self::Keep,
        }
    }
}

impl From<ServerKind> for servers::ServerKind {
    fn from(kind: ServerKind) -> Self {
        match kind {
            ServerKind::Made => Self::Made,
            ServerKind::Connected => Self::Connected,
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Object)]
struct ServerCheck {
    /// What: `system`, `disk`, `memory`, `clock`, `docker`, `docker_socket`; `install` is what was missing and was installed.
    name: String,
    /// Whether it is as it has to be.
    passed: bool,
    /// What was found.
    found: String,
}

/// Why something came to nothing.
#[derive(Debug, Object)]
struct ServerProblem {
    /// Why, as a word that never changes.
    code: String,
    /// What was said about it.
    detail: String,
    /// What to do about it.
    remedy: String,
}

impl From<(Problem, String)> for ServerProblem {
    fn from((problem, detail): (Problem, String)) -> Self {
        Self { code: problem.as_str().to_owned(), detail, remedy: problem.remedy().to_owned() }
    }
}

/// A server.
#[derive(Debug, Object)]
#[oai(example)]
struct Server {
    /// Its id.
    id: ServerId,
    /// Its host name.
    name: String,
    /// How the platform came by it. One that was connected has no cloud, region, size and image.
    kind: ServerKind,
    /// Where it was made.
    #[oai(skip_serializing_if_is_none)]
    cloud: Option<CloudName>,
    /// Where there.
    #[oai(skip_serializing_if_is_none)]
    region: Option<String>,
    /// How large it is; absent: its module says so.
    #[oai(skip_serializing_if_is_none)]
    size: Option<String>,
    /// What it began with; absent: its module says so.
    #[oai(skip_serializing_if_is_none)]
    image: Option<String>,
    /// What it is made of; absent: of the platform's own template, or it is gone.
    #[oai(skip_serializing_if_is_none)]
    module: Option<ServerModule>,
    /// The organization's own words for it.
    labels: BTreeMap<String, String>,
    /// What else was wanted of it.
    options: ServerOptions,
    /// What becomes of it when it is half made and something goes wrong.
    on_failure: ServerOnFailure,
    /// Where it is in its life.
    state: ServerState,
    /// Its address, when that is known.
    #[oai(skip_serializing_if_is_none)]
    address: Option<String>,
    /// The port of its SSH server.
    #[oai(skip_serializing_if_is_none)]
    port: Option<u16>,
    /// As whom one gets in.
    #[oai(skip_serializing_if_is_none)]
    username: Option<String>,
    /// The host key that is believed, as `known_hosts` has it.
    #[oai(skip_serializing_if_is_none)]
    host_key: Option<String>,
    /// What was looked at, and found.
    checks: Vec<ServerCheck>,
    /// Why it is not as it has to be.
    #[oai(skip_serializing_if_is_none)]
    problem: Option<ServerProblem>,
    /// What it costs in a month, in the smallest unit of the currency, when that is known. Traffic and backups are not in it.
    #[oai(skip_serializing_if_is_none)]
    monthly_cost: Option<i64>,
    /// ISO 4217.
    #[oai(skip_serializing_if_is_none)]
    currency: Option<String>,
    /// With what it was made; absent: it is gone.
    #[oai(skip_serializing_if_is_none)]
    credential_id: Option<CloudCredentialId>,
    /// With what the platform gets in, see `GET /ssh-keys`; absent: it is gone.
    #[oai(skip_serializing_if_is_none)]
    ssh_key_id: Option<SshKeyId>,
    /// Somebody works on it: nobody is told that it cannot be reached.
    maintenance: bool,
    /// When the platform was last in.
    #[oai(skip_serializing_if_is_none)]
    reached_at: Option<Moment>,
    /// Since when the platform does not get in.
    #[oai(skip_serializing_if_is_none)]
    unreachable_since: Option<Moment>,
    /// What differed from what is to be there when that was last looked at, which is once a day; absent: nothing did.
    #[oai(skip_serializing_if_is_none)]
    drift: Option<Vec<PlannedChange>>,
    /// When it was asked for.
    created_at: Moment,
    /// When it was ready.
    #[oai(skip_serializing_if_is_none)]
    ready_at: Option<Moment>,
    /// When it was gone.
    #[oai(skip_serializing_if_is_none)]
    destroyed_at: Option<Moment>,
}

example!(Server, {
    "id": "srv_01h455vb4pex5vsknk084sn02q",
    "name": "web-1",
    "kind": "made",
    "cloud": "sandbox",
    "region": "sandbox-1",
    "size": "small",
    "image": "debian-12",
    "labels": { "team": "shop" },
    "options": { "ssh_sources": ["203.0.113.0/24"], "static_address": false },
    "on_failure": "remove",
    "state": "ready",
    "address": "127.0.0.1",
    "port": 40_022,
    "username": "gantry",
    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    "checks": [{ "name": "disk", "passed": true, "found": "15000 MiB free" }],
    "monthly_cost": 500,
    "currency": "USD",
    "credential_id": "crd_01h455vb4pex5vsknk084sn02q",
    "ssh_key_id": "ssk_01h455vb4pex5vsknk084sn02q",
    "maintenance": false,
    "reached_at": "2026-01-15T12:05:04Z",
    "created_at": "2026-01-15T12:00:00Z",
    "ready_at": "2026-01-15T12:00:04Z",
});

/// A server to make.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewServer {
    /// Its host name; no other server of the organization has it.
    name: HostLabel,
    /// With what it is made; the credential says on which cloud.
    credential_id: CloudCredentialId,
    /// Where there: in the sandbox `sandbox-1` or `sandbox-2`.
    region: CloudWord,
    /// How large: in the sandbox `small`, `medium` or `large`. Absent where it is made of a module.
    size: Option<CloudWord>,
    /// What it begins with: in the sandbox `debian-12` or `ubuntu-24.04`. Absent where it is made of a module.
    image: Option<CloudWord>,
    /// What it is made of; absent: of the platform's own template.
    module: Option<NewServerModule>,
    /// With what the platform gets in; left out: with the organization's default key, which is made if there is none.
    ssh_key_id: Option<SshKeyId>,
    /// The organization's own words for it: up to 20, each with up to 40 characters and a text of up to 100.
    labels: Option<BTreeMap<String, String>>,
    /// What else is wanted of it.
    options: Option<ServerOptions>,
    /// What becomes of what was half made when something goes wrong; left out: it is removed again.
    on_failure: Option<ServerOnFailure>,
}

example!(NewServer, {
    "name": "web-1",
    "credential_id": "crd_01h455vb4pex5vsknk084sn02q",
    "region": "sandbox-1",
    "size": "small",
    "image": "debian-12",
    "labels": { "team": "shop" },
});

/// A server that is being made, and what makes it.
#[derive(Debug, Object)]
#[oai(example)]
struct AskedServer {
    /// What is known of it.
    server: Server,
    /// What makes it. `GET /jobs/{id}/events` follows its job.
    run: ServerRun,
}

impl Example for AskedServer {
    fn example() -> Self {
        Self { server: Server::example(), run: ServerRun::example() }
    }
}

/// It is made.
#[derive(ApiResponse)]
enum Asked {
    /// A job makes it.
    #[oai(status = 202)]
    Asked(
        Json<AskedServer>,
        /// Where the server is.
        #[oai(header = "Location")]
        String,
    ),
}

/// Something is done with it.
#[derive(ApiResponse)]
enum Begun {
    /// A job does it.
    #[oai(status = 202)]
    Begun(Json<ServerRun>),
}

#[OpenApi(prefix_path = "/servers", tag = "Tag::Servers")]
impl Servers {
    /// List servers
    ///
    /// Newest first unless told otherwise; those that are gone included.
    #[oai(path = "/", method = "get", operation_id = "listServers")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// Only those in this state.
        state: Query<Option<ServerState>>,
        /// Only those that were made there.
        cloud: Query<Option<CloudName>>,
        /// Only those that the platform came by like this.
        kind: Query<Option<ServerKind>>,
        /// Only those with this label: `team`, or `team=shop`.
        label: Query<Option<String>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Server>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let label = label.0.unwrap_or_default();
        if label.contains('\0') {
            return Err(Error::parameter("label", "the character U+0000 is in no label; leave it out"));
        }
        let filter = Filter {
            state: state.0.map(Into::into),
            cloud: cloud.0.map(Into::into),
            kind: kind.0.map(Into::into),
            label: match label.split_once('=') {
                Some((label, text)) => Some((label, Some(text))),
                None => Some((label.as_str(), None)).filter(|(label, _)| !label.is_empty()),
            },
        };
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, &filter, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), Server::from))
    }

    /// Make a server
    ///
    /// A job plans it with Terraform, makes it, and looks at it by SSH; then it is `ready`. Where it costs more than the
    /// setting `servers.unapproved_cost`, it waits in between until somebody has approved the plan; so does one that is made of a module,
    /// unless the setting `servers.unapproved_modules` is true. What is half made when something goes wrong is removed again, unless
    /// `on_failure` says that it is kept, and `problem` says why. `warnings` of the run say what is to be thought about.
    ///
    /// Refused as `wrong_state` when no version of the module is taken, as `name_taken` when there is a server of that name, as `license_limit` when the license allows no more, as
    /// `license_state` when it is not in force.
    #[oai(path = "/", method = "post", operation_id = "createServer")]
    async fn create(
        &self,
        caller: May<ManageServers>,
        app: Data<&App>,
        once: Once,
        body: Body<NewServer>,
    ) -> Result<Answered<Asked>, Error> {
        let organization = caller.organization();
        let body = body.0;
        let labels = labels(body.labels.unwrap_or_default())?;
        let options = body.options.unwrap_or_default().read()?;
        let (size, image) = sized(body.size.as_ref(), body.image.as_ref(), body.module.as_ref())?;
        let by = caller.by();
        let create = once.run(&caller, organization, async |tx| {
            let credential = credentials::queries::find(tx, body.credential_id).await?;
            let credential = credential.ok_or_else(|| Error::not_found(body.credential_id).at("credential_id"))?;
            let made_of = match &body.module {
                Some(module) => Some(module.read(tx, credential.cloud).await?),
                None => None,
            };
            let wanted = offered::Wanted {
                region: body.region.as_str(),
                size: body.size.as_ref().map(CloudWord::as_str),
                image: body.image.as_ref().map(CloudWord::as_str),
            };
            offered::check(tx, credential.id, wanted).await?;
            let ssh_key = ssh_key(tx, &app, body.ssh_key_id).await?;
            let (name, region) = (body.name.to_string(), body.region.as_str());
            let new = New {
                name: &name,
                cloud: credential.cloud,
                credential: credential.id,
                region,
                size,
                image,
                labels: &labels,
                options: &options,
            };
            let made = rows::insert(tx, &new, ssh_key).await;
            let id = made.on_constraint("servers_name_key", || {
                Error::new(Code::NameTaken, "there is a server of this name; choose another").at("name")
            })?;
            if let Some((version, given)) = &made_of {
                let stack = find(tx, id).await?.stack;
                modules::give(tx, &app.sealing, stack, *version, given).await?;
            }
            if let Some(wanted) = body.on_failure {
                rows::set_on_failure(tx, id, wanted.into()).await?;
            }
            let server = find(tx, id).await?;
            let run = asked(tx, &server, RunKind::Provision, by, None).await?;
            let server = Server::from(server);
            tx.audit().on(&id).called(&name).became(None, server.to_json().as_ref());
            Ok(Asked::Asked(Json(AskedServer { server, run }), format!("/servers/{id}")))
        });
        create.await
    }

    /// Estimate a server
    ///
    /// A job finds out whether it could be made, going by what the cloud says of its catalogue and of the account's quotas, and what
    /// it would cost. Its `result` has `possible`; then `currency`, `hourly`, `monthly`, `parts`, `not_included`, `quotas`,
    /// `warnings` and `prices_read_at`, or else `code`, `detail` and `remedy`. With the header `Prefer: wait=10` the answer comes
    /// when the job ended, with it. Nothing is made or reserved.
    #[oai(path = "/estimate", method = "post", operation_id = "estimateServer")]
    async fn estimate(
        &self,
        caller: May<ManageServers>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        body: Body<NewServer>,
    ) -> Result<Answered<AskedJob<Receipt>>, Error> {
        let (organization, by, body) = (caller.organization(), caller.by(), body.0);
        if body.module.is_some() {
            let detail =
                "nobody knows what a module makes costs before it is planned; ask for the server, and look at its plan";
            return Err(Error::field("module", detail));
        }
        let (size, image) = sized(body.size.as_ref(), body.image.as_ref(), None)?;
        let job = EstimateServer {
            credential: body.credential_id,
            name: body.name.to_string(),
            region: body.region.into(),
            size: size.to_owned(),
            image: image.to_owned(),
            options: body.options.unwrap_or_default().read()?,
        };
        labels(body.labels.unwrap_or_default())?;
        let key = body.ssh_key_id;
        let estimate = once.run(&caller, organization, async |tx| {
            known_key(tx, key).await?;
            let known = credentials::queries::find(tx, job.credential).await?;
            known.ok_or_else(|| Error::not_found(job.credential).at("credential_id"))?;
            let asked_for = job.clone().request().enqueue(tx, by).await?;
            tx.audit().called(&job.name);
            Ok(asked_job(asked_for))
        });
        prefer.wait(&app, organization, estimate.await?).await
    }

    /// Get a server
    #[oai(path = "/:server", method = "get", operation_id = "getServer")]
    async fn get(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Tagged<Server>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let server = Server::from(find(&mut tx, server.0).await?);
        let etag = server.etag();
        Ok(if_none_match.answer_as(server, etag))
    }

    /// Destroy a server
    ///
    /// With everything that was made for it. Whatever else was to be done with it is not done any more. One that was connected is
    /// only forgotten: nothing on the machine is changed, and the public key that it was told to let in stays there.
    ///
    /// Refused as `wrong_state` when it is gone.
    #[oai(path = "/:server", method = "delete", operation_id = "destroyServer")]
    async fn destroy(
        &self,
        caller: May<ManageServers>,
        once: Once,
        if_match: IfMatch,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Answered<Begun>, Error> {
        let destroy = begin(&caller, once, server.0, Some(&if_match), |server| match (server.state, server.kind) {
            (servers::ServerState::Destroyed, _) => Err(Error::new(Code::WrongState, "the server is gone already")),
            (_, servers::ServerKind::Made) => Ok(RunKind::Destroy),
            (_, servers::ServerKind::Connected) => Ok(RunKind::Forget),
        });
        destroy.await
    }

    /// Try again to make or connect a server
    ///
    /// From where it stands: what was made already stays, what is missing is made, and it is looked at once more.
    ///
    /// Refused as `wrong_state` when it has not failed.
    #[oai(path = "/:server/retry", method = "post", operation_id = "retryServer")]
    async fn retry(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Answered<Begun>, Error> {
        let retry =
            begin(&caller, once, server.0, None, |server| match (server.state, server.kind, server.credential) {
                (servers::ServerState::Failed, servers::ServerKind::Made, Some(_)) => Ok(RunKind::Provision),
                (servers::ServerState::Failed, servers::ServerKind::Connected, _) => Ok(RunKind::Connect),
                _ => Err(Error::new(Code::WrongState, "it has not failed; only what failed is tried again")),
            });
        retry.await
    }

    /// Compare a server with what is to be there
    ///
    /// As it is done once a day by itself. Where something differs, the run waits in `awaiting_approval` with a plan that puts it
    /// right; nothing is changed before somebody approves it.
    ///
    /// Refused as `wrong_state` when it is not ready, or something is being done with it; as `not_made_here` when it was connected.
    #[oai(path = "/:server/compare", method = "post", operation_id = "compareServer")]
    async fn compare(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Answered<Begun>, Error> {
        let compare = begin(&caller, once, server.0, None, |server| {
            made_here(server, "nobody planned it, and there is nothing to compare it with")?;
            match server.state {
                servers::ServerState::Ready => Ok(RunKind::Mend),
                _ => Err(Error::new(Code::WrongState, "it is not ready; wait until it is")),
            }
        });
        compare.await
    }

    /// Begin to work on a server
    ///
    /// Until that ends, nobody is told that it cannot be reached.
    #[oai(path = "/:server/maintenance", method = "post", operation_id = "beginServerMaintenance")]
    async fn begin_maintenance(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Answered<Json<Server>>, Error> {
        maintain(&caller, once, server.0, true).await
    }

    /// End the work on a server
    ///
    /// Where it cannot be reached by then, that is told when it is next looked at.
    #[oai(path = "/:server/maintenance", method = "delete", operation_id = "endServerMaintenance")]
    async fn end_maintenance(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Answered<Json<Server>>, Error> {
        maintain(&caller, once, server.0, false).await
    }
}

/// Refuses what is done with servers that were made, where one was connected.
fn made_here(server: &rows::Server, because: &str) -> Result<(), Error> {
    match server.kind {
        servers::ServerKind::Made => Ok(()),
        servers::ServerKind::Connected => Err(Error::new(Code::NotMadeHere, format!("it was connected: {because}"))),
    }
}

/// Has a job do something with a server, where that may be done as it is.
async fn begin(
    caller: &May<ManageServers>,
    once: Once,
    id: ServerId,
    if_match: Option<&IfMatch>,
    what: fn(&rows::Server) -> Result<RunKind, Error>,
) -> Result<Answered<Begun>, Error> {
    let by = caller.by();
    let begin = once.run(caller, caller.organization(), async |tx| {
        rows::lock(tx, id).await?;
        let server = find(tx, id).await?;
        if let Some(if_match) = if_match {
            if_match.check_tag(&Server::from(server.clone()).etag())?;
        }
        let kind = what(&server)?;
        // Whatever else was to be done with what is removed is not done any more.
        if !matches!(kind, RunKind::Destroy | RunKind::Forget) {
            not_under_way(tx, &server).await?;
        }
        if matches!(kind, RunKind::Provision | RunKind::Connect) {
            rows::set_state(tx, id, servers::ServerState::Provisioning).await?;
        }
        let run = asked(tx, &server, kind, by, None).await?;
        tx.audit().called(&server.name);
        Ok(Begun::Begun(Json(run)))
    });
    begin.await
}

/// Has a job do something with a server, which is to be like this from then on where that is something else.
async fn asked(
    tx: &mut TenantTx,
    server: &rows::Server,
    kind: RunKind,
    by: &By,
    wanted: Option<&Wanted>,
) -> Result<ServerRun, Error> {
    let stack = server.stack;
    let run = run_rows::insert(tx, stack, kind, &by.to_string()).await?;
    if let Some(wanted) = wanted {
        run_rows::set_wanted(tx, run, wanted).await?;
    }
    if matches!(kind, RunKind::Provision | RunKind::Update) {
        let options = wanted.map_or(&server.options, |wanted| &wanted.options);
        let warned = match server.cloud {
            Some(cloud) => warnings::of_server(tx, server.id, cloud, options).await?,
            None => Vec::new(),
        };
        run_rows::set_warnings(tx, run, &warned).await?;
    }
    let asked = match kind {
        RunKind::Destroy | RunKind::Forget => DestroyServer { run, stack }.request().enqueue(tx, by).await?,
        RunKind::Connect => ConnectServer { run, stack }.request().enqueue(tx, by).await?,
        RunKind::Provision | RunKind::Update | RunKind::Mend => {
            ProvisionServer { run, stack }.request().enqueue(tx, by).await?
        }
    };
    run_rows::set_job(tx, run, asked.id).await?;
    Ok(runs::find(tx, server.id, run).await?.into())
}

/// The key with which the platform is to get in: the one that was chosen, or the default.
async fn ssh_key(tx: &mut TenantTx, app: &App, chosen: Option<SshKeyId>) -> Result<SshKeyId, Error> {
    known_key(tx, chosen).await?;
    match chosen {
        Some(id) => Ok(id),
        None => Ok(keys::ensure(tx, &app.sealing).await?),
    }
}

async fn known_key(tx: &mut TenantTx, chosen: Option<SshKeyId>) -> Result<(), Error> {
    match chosen {
        Some(id) if keys::find(tx, id).await?.is_none() => Err(Error::not_found(id).at("ssh_key_id")),
        _ => Ok(()),
    }
}

/// How large a server is and with what it begins, where that is not for a module to say.
fn sized<'a>(
    size: Option<&'a CloudWord>,
    image: Option<&'a CloudWord>,
    module: Option<&NewServerModule>,
) -> Result<(&'a str, &'a str), Error> {
    let of_module = "the module says so; leave it out, or make it an input of the module";
    match (size, image, module) {
        (Some(size), Some(image), None) => Ok((size.as_str(), image.as_str())),
        (None, None, Some(_)) => Ok(("", "")),
        (Some(_), _, Some(_)) => Err(Error::field("size", of_module)),
        (None, Some(_), Some(_)) => Err(Error::field("image", of_module)),
        (None, _, None) => Err(Error::field("size", "write how large it is, or which module it is made of")),
        (Some(_), None, None) => Err(Error::field("image", "write with what it begins, or which module it is made of")),
    }
}

async fn not_under_way(tx: &mut TenantTx, server: &rows::Server) -> Result<(), Error> {
    if run_rows::under_way(tx, server.stack).await? {
        let detail = "something is being done with it, or waits to be approved; see its runs";
        return Err(Error::new(Code::WrongState, detail));
    }
    Ok(())
}

async fn maintain(
    caller: &May<ManageServers>,
    once: Once,
    id: ServerId,
    maintenance: bool,
) -> Result<Answered<Json<Server>>, Error> {
    let maintain = once.run(caller, caller.organization(), async |tx| {
        rows::lock(tx, id).await?;
        let before = Server::from(find(tx, id).await?);
        watch::set_maintenance(tx, id, maintenance).await?;
        let after = Server::from(find(tx, id).await?);
        tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
        Ok(Json(after))
    });
    maintain.await
}

async fn find(tx: &mut TenantTx, id: ServerId) -> Result<rows::Server, Error> {
    rows::find(tx, id).await?.ok_or_else(|| Error::not_found(id))
}

/// Checks an organization's own words for something.
fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    if labels.len() > 20 {
        return Err(Error::field("labels", "at most 20 labels can be kept; leave some out"));
    }
    for (name, text) in &labels {
        let field = || format!("labels.{name}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
            return Err(Error::field(field(), "a label is 1 to 40 of letters, digits, _, -, . and /; choose another"));
        }
        if text.chars().count() > 100 || text.chars().any(char::is_control) {
            return Err(Error::field(
                field(),
                "a label's text has at most 100 characters, none of them a control character",
            ));
        }
    }
    Ok(labels)
}

impl Server {
    /// The tag of what can be changed about it and what became of it. When the platform was last in is not part of it: that is
    /// another time every minute.
    fn etag(&self) -> Etag {
        let mut shown = self.to_json();
        if let Some(Value::Object(members)) = &mut shown {
            members.remove("reached_at");
        }
        Etag::of(&shown)
    }
}

impl From<rows::Server> for Server {
    fn from(row: rows::Server) -> Self {
        let (address, port, username, host_key) = match row.place {
            Some(at) => (Some(at.address), Some(at.port), Some(at.username), Some(at.host_key)),
            None => (None, None, None, None),
        };
        let made = |word: String| (row.kind == servers::ServerKind::Made).then_some(word);
        let check = |it: rows::Check| ServerCheck { name: it.name, passed: it.passed, found: it.found };
        Self {
            id: row.id,
            name: row.name,
            kind: row.kind.into(),
            cloud: row.cloud.map(Into::into),
            region: made(row.region),
            size: made(row.size),
            image: made(row.image),
            module: row.module.map(Into::into),
            labels: row.labels,
            options: row.options.into(),
            on_failure: row.on_failure.into(),
            state: row.state.into(),
            address,
            port,
            username,
            host_key,
            checks: row.checks.into_iter().map(check).collect(),
            problem: row.problem.map(Into::into),
            monthly_cost: row.monthly_cost,
            currency: row.currency,
            credential_id: row.credential,
            ssh_key_id: row.ssh_key,
            maintenance: row.maintenance,
            reached_at: row.reached_at.map(Into::into),
            unreachable_since: row.unreachable_since.map(Into::into),
            drift: row.drift.map(|drift| drift.changes.into_iter().map(Into::into).collect()),
            created_at: row.created_at.into(),
            ready_at: row.ready_at.map(Into::into),
            destroyed_at: row.destroyed_at.map(Into::into),
        }
    }
}
