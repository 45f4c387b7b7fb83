//! What is done with servers: how far it is, what was planned, and saying that it may be done.

use gantry_jobs::Job as _;
use gantry_jobs::servers::ProvisionServer;
use gantry_schema::digest::hex;
use gantry_schema::jobs::control::{self, Change};
use gantry_schema::organizations::needed::{ApproveServers, ManageServers, ReadServers};
use gantry_schema::servers::runs::{self as rows, Run};
use gantry_schema::servers::warnings::Warned;
use gantry_schema::servers::{RunState as State, plans};
use gantry_schema::{JobId, RunId, ServerId, TenantTx, servers};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Deserialize;

use super::ServerProblem;
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on what is done with servers.
#[derive(Debug, Clone, Copy)]
pub struct ServerRuns;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ServerRunKind {
    /// Everything is made that is to be there.
    Provision,
    /// It becomes what somebody wants it to be from now on.
    Update,
    /// What differs from what is to be there is found, and put right when somebody approves it.
    Mend,
    /// Everything is removed that is there.
    Destroy,
    /// Somebody gets into a machine that is there already, and looks at it.
    Connect,
    /// A machine that was connected is looked after no more; nothing on it is changed.
    Forget,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ServerRunState {
    /// No worker has begun.
    Queued,
    /// It is found out what there is to do.
    Planning,
    /// Somebody has to say that it may be done.
    AwaitingApproval,
    /// Somebody has said so.
    Approved,
    /// It is done.
    Applying,
    /// What was made is looked at.
    Verifying,
    /// It was done.
    Succeeded,
    /// It could not be done.
    Failed,
    /// Something else took its place.
    Cancelled,
}

impl From<State> for ServerRunState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Planning => Self::Planning,
            State::AwaitingApproval => Self::AwaitingApproval,
            State::Approved => Self::Approved,
            State::Applying => Self::Applying,
            State::Verifying => Self::Verifying,
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

/// One thing that is made, changed or removed.
#[derive(Debug, Object)]
pub(super) struct PlannedChange {
    /// Its address in the configuration.
    address: String,
    /// `create`, `update`, `delete` or `replace`.
    action: String,
}

/// What there is to do.
#[derive(Debug, Object)]
struct ServerPlan {
    /// Things that are made.
    add: u32,
    /// Things that are changed.
    change: u32,
    /// Things that are removed.
    remove: u32,
    /// Which.
    changes: Vec<PlannedChange>,
    /// The digest of what is carried out, in hexadecimal digits.
    sha256: String,
    /// What it comes to in a month, in the smallest unit of the currency; absent: nobody knows, for a module of the organization's
    /// own makes it. Traffic and backups are not in it.
    #[oai(skip_serializing_if_is_none)]
    monthly_cost: Option<i64>,
    /// ISO 4217.
    #[oai(skip_serializing_if_is_none)]
    currency: Option<String>,
    /// The server itself is removed, or another takes its place: its disk is lost.
    loses_machine: bool,
    /// A volume is removed, or another takes its place: what is on it is lost.
    loses_volume: bool,
}

/// Something to be thought about, for which nothing is refused.
#[derive(Debug, Object)]
pub(super) struct ServerWarning {
    /// What, as a word that never changes: `no_ssh`, `platform_locked_out`, `private_ssh_only`, `open_ssh`, `network_overlap`.
    code: String,
    /// In words.
    detail: String,
}

impl From<Warned> for ServerWarning {
    fn from(Warned { code, detail }: Warned) -> Self {
        Self { code, detail }
    }
}

/// What Terraform says of a plan.
#[derive(Debug, Object)]
#[oai(example)]
struct ServerPlanText {
    /// Of which run.
    run_id: RunId,
    /// What is done, in Terraform's own words, without secrets: up to 256 KiB.
    text: String,
}

example!(ServerPlanText, {
    "run_id": "run_01h455vb4pex5vsknk084sn02q",
    "text": "Terraform will perform the following actions:\n\n  # terraform_data.machine will be created",
});

/// Something that is done with a server.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct ServerRun {
    /// Its id.
    id: RunId,
    /// With which server.
    server_id: ServerId,
    /// What is done.
    kind: ServerRunKind,
    /// How far it is.
    state: ServerRunState,
    /// The job that does it: its progress and its log lines tell what happens.
    #[oai(skip_serializing_if_is_none)]
    job_id: Option<JobId>,
    /// Who asked for it.
    requested_by: String,
    /// What is to be thought about.
    warnings: Vec<ServerWarning>,
    /// What there is to do, when that is known.
    #[oai(skip_serializing_if_is_none)]
    plan: Option<ServerPlan>,
    /// Who said that it may be done.
    #[oai(skip_serializing_if_is_none)]
    approved_by: Option<String>,
    /// Why it came to nothing.
    #[oai(skip_serializing_if_is_none)]
    problem: Option<ServerProblem>,
    /// When it was asked for.
    created_at: Moment,
    /// When a worker began.
    #[oai(skip_serializing_if_is_none)]
    started_at: Option<Moment>,
    /// When it ended.
    #[oai(skip_serializing_if_is_none)]
    finished_at: Option<Moment>,
}

example!(ServerRun, {
    "id": "run_01h455vb4pex5vsknk084sn02q",
    "server_id": "srv_01h455vb4pex5vsknk084sn02q",
    "kind": "provision",
    "state": "awaiting_approval",
    "job_id": "job_01h455vb4pex5vsknk084sn02q",
    "requested_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "warnings": [],
    "plan": {
        "add": 1,
        "change": 0,
        "remove": 0,
        "changes": [{ "address": "terraform_data.machine", "action": "create" }],
        "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        "monthly_cost": 500,
        "currency": "USD",
        "loses_machine": false,
        "loses_volume": false,
    },
    "created_at": "2026-01-15T12:00:00Z",
    "started_at": "2026-01-15T12:00:00Z",
});

/// What is approved: exactly this.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct ServerApproval {
    /// The digest of the plan: 64 hexadecimal digits.
    plan_sha256: String,
    /// What it comes to in a month, in the smallest unit of the currency; absent where the plan has none.
    #[oai(validator(minimum(value = "0")))]
    monthly_cost: Option<i64>,
}

example!(ServerApproval, {
    "plan_sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "monthly_cost": 500,
});

#[OpenApi(prefix_path = "/servers", tag = "Tag::Servers")]
impl ServerRuns {
    /// List what was done with a server
    ///
    /// Newest first unless told otherwise.
    #[oai(path = "/:server/runs", method = "get", operation_id = "listServerRuns")]
    async fn list(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The server.
        server: Path<ServerId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<ServerRun>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let server = super::find(&mut tx, server.0).await?;
        let found = rows::list(&mut tx, server.stack, window).await?;
        Ok(paging.page(organization, found, |run| Place::id(run.id), ServerRun::from))
    }

    /// Get something that was done with a server
    #[oai(path = "/:server/runs/:run", method = "get", operation_id = "getServerRun")]
    async fn get(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The server.
        server: Path<ServerId>,
        /// What was done.
        run: Path<RunId>,
    ) -> Result<Json<ServerRun>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(find(&mut tx, server.0, run.0).await?.into()))
    }

    /// Get what Terraform says of a plan
    ///
    /// It stays when the run has ended. What is sensitive is not in it.
    ///
    /// Refused as `not_found` when nothing was planned, or not yet.
    #[oai(path = "/:server/runs/:run/plan", method = "get", operation_id = "getServerPlan")]
    async fn plan(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The server.
        server: Path<ServerId>,
        /// What was, or is to be, done.
        run: Path<RunId>,
    ) -> Result<Json<ServerPlanText>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let run = find(&mut tx, server.0, run.0).await?;
        let text = plans::text(&mut tx, &app.sealing, run.id).await.map_err(Error::internal)?;
        let text = text.ok_or_else(|| Error::not_found(format!("plan of {}", run.id)))?;
        Ok(Json(ServerPlanText { run_id: run.id, text }))
    }

    /// Approve what is planned for a server
    ///
    /// Exactly this plan at this cost: its digest and its cost are those that `plan` showed.
    ///
    /// Refused as `wrong_state` when it does not wait for an approval, or something else is planned by now.
    #[oai(path = "/:server/runs/:run/approve", method = "post", operation_id = "approveServerRun")]
    async fn approve(
        &self,
        caller: May<ApproveServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
        /// What is to be done.
        run: Path<RunId>,
        body: Body<ServerApproval>,
    ) -> Result<Answered<Json<ServerRun>>, Error> {
        let (organization, server, id) = (caller.organization(), server.0, run.0);
        let (by, who) = (caller.by(), caller.by().to_string());
        let sha256 = digest(&body.0.plan_sha256)?;
        let approve = once.run(&caller, organization, async |tx| {
            let before = find(tx, server, id).await?;
            if !rows::approve(tx, id, &who, &sha256, body.0.monthly_cost).await? {
                let detail = if before.state == State::AwaitingApproval {
                    "something else is planned than what was approved; look at the plan again"
                } else {
                    "it does not wait for an approval"
                };
                return Err(Error::new(Code::WrongState, detail));
            }
            // What is there already goes on as it is until it is really changed.
            if before.kind == servers::RunKind::Provision {
                servers::queries::set_state(tx, server, servers::ServerState::Provisioning).await?;
            }
            let job = ProvisionServer { run: id, stack: before.stack }.request().enqueue(tx, by).await?;
            rows::set_job(tx, id, job.id).await?;
            let (before, after) = (ServerRun::from(before), ServerRun::from(find(tx, server, id).await?));
            tx.audit().became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        approve.await
    }

    /// Cancel what is done with a server
    ///
    /// At once where no worker has begun; else Terraform is interrupted, saves what it has made, and the run ends a moment later.
    /// The server is then `failed` with the code `cancelled`, with what was made by then: `POST /servers/{id}/retry` goes on from
    /// there, `DELETE /servers/{id}` removes it.
    ///
    /// Refused as `wrong_state` when it has ended.
    #[oai(path = "/:server/runs/:run/cancel", method = "post", operation_id = "cancelServerRun")]
    async fn cancel(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
        /// What is not to be done any more.
        run: Path<RunId>,
    ) -> Result<Answered<Json<ServerRun>>, Error> {
        let (organization, server, id) = (caller.organization(), server.0, run.0);
        let who = caller.by().to_string();
        let cancel = once.run(&caller, organization, async |tx| {
            servers::queries::lock(tx, server).await?;
            let before = find(tx, server, id).await?;
            if before.state.has_ended() {
                return Err(Error::new(Code::WrongState, "it has ended"));
            }
            let stopped = match before.job {
                Some(job) => control::cancel(tx, job, &who).await?,
                None => Change::Unknown,
            };
            // Where a worker has it, that worker ends it.
            if stopped != Change::Asked {
                cancelled(tx, &before).await?;
            }
            let after = ServerRun::from(find(tx, server, id).await?);
            tx.audit().became(ServerRun::from(before).to_json().as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        cancel.await
    }
}

/// Ends a run that no worker has, with what it was for.
async fn cancelled(tx: &mut TenantTx, run: &Run) -> Result<(), Error> {
    if rows::advance(tx, run.id, State::Cancelled).await? && run.kind.may_spoil(run.state) {
        let said = "the run was cancelled before it came to its end";
        servers::queries::failed(tx, run.server, servers::Problem::Cancelled, said).await?;
    }
    Ok(())
}

/// 32 bytes, written in hexadecimal digits.
fn digest(text: &str) -> Result<Vec<u8>, Error> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pair = |pair: &[u8; 2]| {
        let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()))?;
        u8::from_str_radix(digits, 16).ok()
    };
    let bytes: Option<Vec<u8>> = pairs.iter().map(pair).collect();
    match bytes.filter(|bytes| bytes.len() == 32 && rest.is_empty()) {
        Some(bytes) => Ok(bytes),
        None => Err(Error::field("plan_sha256", "write the 64 hexadecimal digits that the plan shows as `sha256`")),
    }
}

pub(super) async fn find(tx: &mut TenantTx, server: ServerId, run: RunId) -> Result<Run, Error> {
    let found = rows::find(tx, run).await?.filter(|found| found.server == server);
    found.ok_or_else(|| Error::not_found(run))
}

impl From<plans::Change> for PlannedChange {
    fn from(change: plans::Change) -> Self {
        Self { address: change.address, action: change.action }
    }
}

impl From<Run> for ServerRun {
    fn from(run: Run) -> Self {
        let plan = match (run.plan, run.plan_sha256) {
            (Some(plan), Some(sha256)) => Some(ServerPlan {
                add: plan.add,
                change: plan.change,
                remove: plan.remove,
                changes: plan.changes.into_iter().map(Into::into).collect(),
                sha256: hex(&sha256),
                monthly_cost: run.monthly_cost,
                currency: run.currency,
                loses_machine: plan.loses_machine,
                loses_volume: plan.loses_volume,
            }),
            _ => None,
        };
        Self {
            id: run.id,
            server_id: run.server,
            kind: match run.kind {
                servers::RunKind::Provision => ServerRunKind::Provision,
                servers::RunKind::Update => ServerRunKind::Update,
                servers::RunKind::Mend => ServerRunKind::Mend,
                servers::RunKind::Destroy => ServerRunKind::Destroy,
                servers::RunKind::Connect => ServerRunKind::Connect,
                servers::RunKind::Forget => ServerRunKind::Forget,
            },
            state: run.state.into(),
            job_id: run.job,
            requested_by: run.requested_by,
            warnings: run.warnings.into_iter().map(Into::into).collect(),
            plan,
            approved_by: run.approved_by,
            problem: run.problem.map(Into::into),
            created_at: run.created_at.into(),
            started_at: run.started_at.map(Into::into),
            finished_at: run.finished_at.map(Into::into),
        }
    }
}
