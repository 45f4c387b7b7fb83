//! What every run of Terraform works with, and what is done with it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_providers::Secret;
use gantry_providers::clouds::{Account, Blueprint, Loss, Options, Template, loss, sandbox};
use gantry_providers::terraform::backend::Backend;
use gantry_providers::terraform::{Level, NewWorkspace, Planned, Workspace};
use gantry_schema::credentials::{Credential, queries as credentials};
use gantry_schema::jobs::control;
use gantry_schema::servers::change::Wanted;
use gantry_schema::servers::keys::{self, SshKey};
use gantry_schema::servers::plans::{Change, Summary};
use gantry_schema::servers::queries::{self as servers, Server};
use gantry_schema::servers::runs::{self, Run};
use gantry_schema::servers::states::{self, StateError};
use gantry_schema::servers::{Problem, RunState};
use gantry_schema::{CloudCredentialId, RunId, StackId, installation};
use rand::RngExt as _;

use super::clouds;
use super::setback::Setback;
use super::store::Store;
use super::tell_failed;
use super::teller::Teller;
use crate::modules::{MadeOf, judge_preparation};
use crate::{Context, Failure};

/// A run, and everything that belongs to it.
pub(crate) struct Work {
    pub run: Run,
    pub server: Server,
    pub credential: Option<Credential>,
    pub ssh_key: SshKey,
    /// Who makes things: this installation.
    installation: String,
    /// What it is made of, where that is no template of the platform's own.
    made_of: Option<MadeOf>,
    /// With which the state is written.
    fence: i64,
}

/// Where Terraform works, and where its state lies as long.
pub(crate) struct Place {
    pub workspace: Workspace,
    _backend: Backend,
}

impl Place {
    /// Prepares the directory.
    pub(crate) async fn init(&self, cx: &Context, template: &Template, teller: &Teller) -> Result<(), Setback> {
        self.workspace.init(teller.events(), cx.stopped()).await?;
        match &template.module {
            Some(laid) => judge_preparation(&self.workspace, laid),
            None => Ok(()),
        }
    }
}

impl Work {
    /// Takes a run on; `None`: nothing more comes of it.
    pub(crate) async fn take(cx: &Context, run: RunId, stack: StackId) -> Result<Option<Self>, Setback> {
        let keys = cx.sealing_keys();
        let mut tx = cx.begin().await?;
        let Some(run) = runs::find(&mut tx, run).await?.filter(|run| !run.state.has_ended()) else { return Ok(None) };
        let Some(mut server) = servers::find(&mut tx, run.server).await? else { return Ok(None) };
        if let Some(Wanted { size, labels, options }) = run.wanted.clone() {
            (server.size, server.labels, server.options) = (size, labels, options);
        }
        let credential = match server.credential {
            Some(id) => credentials::open(&mut tx, keys, id).await?,
            None => None,
        };
        let ssh_key = match server.ssh_key {
            Some(id) => keys::open(&mut tx, keys, id).await?,
            None => None,
        };
        let ssh_key = ssh_key.ok_or_else(|| Failure::cancel("the SSH key of the stack is gone"))?;
        let made_of = match &server.module {
            Some(used) => Some(MadeOf::read(cx, &mut tx, stack, used).await?),
            None => None,
        };
        let installation = installation::id(&mut tx).await?.to_string();
        // Whoever worked on it before is no more, or is to write no more.
        let fence = states::take_over(&mut tx, stack).await?;
        tx.commit().await?;
        Ok(Some(Self { run, server, credential, ssh_key, installation, made_of, fence }))
    }

    /// What is written for Terraform, and whether the account may have what it makes.
    pub(crate) async fn template(&self, cx: &Context) -> Result<Template, Setback> {
        let (label, run, organization) = (self.label(), self.run.id.to_string(), cx.organization().to_string());
        // What is made keeps the label of what it was made by, whatever changes it later.
        let first = self.server.made_by.map(|run| run.to_string()).unwrap_or_default();
        let blueprint = Blueprint {
            label: &label,
            run: &run,
            name: &self.server.name,
            region: &self.server.region,
            size: &self.server.size,
            image: &self.server.image,
            authorized_key: &self.ssh_key.public,
            labels: &self.server.labels,
            options: Options {
                installation: &self.installation,
                ..clouds::options(&self.server.options, &organization, &first, &self.ssh_key)
            },
        };
        if let Some(made_of) = &self.made_of {
            return made_of.template(cx, self.server.cloud, &blueprint);
        }
        let Some(vendor) = self.server.cloud.and_then(clouds::vendor) else {
            return Ok(sandbox::template(&cx.providers().terraform, &blueprint)?);
        };
        let (id, account) = self.account(cx)?;
        let read = clouds::catalogue(cx, id, Some(&account), blueprint.region).await?;
        let template = gantry_providers::clouds::template(vendor, &blueprint, &read.catalogue)?;
        // Once it is begun, what it needs is taken.
        let headroom = match self.run.state {
            RunState::Queued | RunState::Planning if self.server.ready_at.is_none() => {
                clouds::headroom(&account, &read.catalogue, &blueprint).await?
            }
            _ => None,
        };
        match headroom.and_then(|headroom| headroom.refusal()) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(template),
        }
    }

    /// What is written for Terraform where nothing is to be.
    pub(crate) fn nothing(&self) -> Template {
        match self.server.cloud.and_then(clouds::vendor) {
            Some(vendor) => gantry_providers::clouds::of_nothing(vendor, &self.server.region),
            None => Template::of_nothing(),
        }
    }

    /// The account at the cloud, and what it is opened with.
    pub(crate) fn account(&self, cx: &Context) -> Result<(CloudCredentialId, Arc<dyn Account>), Setback> {
        let gone = || Setback::from(Failure::cancel("the credential is gone"));
        let (id, credential) = self.server.credential.zip(self.credential.as_ref()).ok_or_else(gone)?;
        let account = clouds::account(cx, credential)?.ok_or_else(gone)?;
        Ok((id, account))
    }

    /// What everything that is made for the server carries.
    pub(crate) fn label(&self) -> String {
        self.server.id.to_string()
    }

    /// Where Terraform works.
    pub(crate) async fn place(&self, cx: &Context, teller: &Teller, template: &Template) -> Result<Place, Setback> {
        let store = Store { cx: cx.clone(), stack: self.run.stack, run: self.run.id, fence: self.fence };
        let token: [u8; 32] = rand::rng().random();
        let token = URL_SAFE_NO_PAD.encode(token);
        let backend = Backend::start(Arc::new(store), Secret::new(token.clone())).await.map_err(Failure::retry)?;
        let key = self.credential.as_ref().map(clouds::key).transpose()?.flatten();
        let named = if let Some(key) = key {
            key.environment(&self.server.region)
        } else {
            let members = self.credential.iter().flat_map(Credential::members);
            members.map(|(name, value)| (format!("SANDBOX_{}", name.to_ascii_uppercase()), value.to_owned())).collect()
        };
        let given = template.environment.iter().cloned();
        let environment: Vec<(String, String)> = named.into_iter().chain(backend.environment()).chain(given).collect();
        let members = self.credential.iter().flat_map(Credential::members).map(|(_, value)| value.to_owned());
        let given = template.environment.iter().map(|(_, value)| value.clone());
        let of_module = template.module.iter().flat_map(|laid| laid.secrets.iter().cloned());
        let secrets: Vec<String> = members.chain([token]).chain(given).chain(of_module).collect();
        // Whoever worked on it before may still clear its own directory away.
        let name = format!("{}-{}", self.run.id, self.fence);
        let new = NewWorkspace {
            name: &name,
            configuration: &template.configuration,
            files: &template.files,
            environment: &environment,
            secrets: &secrets,
            confined: template.confined,
        };
        let terraform = &cx.providers().terraform;
        if template.module.is_some() && !terraform.may_run_strangers().await {
            let said = "nothing here would keep what a module runs apart from the machine".to_owned();
            return Err(Setback::Problem(Problem::ModuleUnconfined, said));
        }
        let workspace = terraform.workspace(new).await?;
        if let Some(laid) = &template.module {
            workspace.lay(&laid.tree)?;
        }
        teller.say(isolation(workspace.isolation()));
        Ok(Place { workspace, _backend: backend })
    }
}

/// How far a run is confined, in words.
const fn isolation(level: Level) -> &'static str {
    match level {
        Level::Sandbox => "isolation: Terraform is confined by bubblewrap, and has limits",
        Level::User => "isolation: Terraform runs as a user of its own, and has limits",
        Level::Limits => "isolation: Terraform has limits, and is not confined",
    }
}

/// What a plan comes to.
pub(crate) fn summary(planned: &Planned) -> Summary {
    let mut summary = Summary::default();
    for (address, action) in &planned.changes {
        match action.as_str() {
            "create" => summary.add += 1,
            "delete" => summary.remove += 1,
            "replace" => {
                summary.add += 1;
                summary.remove += 1;
            }
            _ => summary.change += 1,
        }
        match loss(address, action) {
            Some(Loss::Machine) => summary.loses_machine = true,
            Some(Loss::Volume) => summary.loses_volume = true,
            None => {}
        }
        summary.changes.push(Change { address: address.clone(), action: action.clone() });
    }
    summary
}

/// What comes of a setback, for the run and for the job.
pub(crate) async fn settle(cx: &Context, work: &Work, teller: &Teller, setback: Setback) -> Result<Failure, Failure> {
    let (problem, said) = match setback.weighed(cx.is_last_attempt()) {
        Setback::Problem(problem, said) | Setback::Passing(problem, said, _) => (problem, said),
        Setback::Failure(failure) if cx.is_stopped() => {
            // Another worker goes on, unless nobody wants it to.
            if !is_cancelled(cx).await? {
                return Ok(failure);
            }
            (Problem::Cancelled, "the job was cancelled".to_owned())
        }
        Setback::Failure(failure @ Failure::Cancel(_)) => (Problem::GaveUp, failure.describe()),
        Setback::Failure(failure @ (Failure::Retry(_) | Failure::RetryAfter(..))) if cx.is_last_attempt() => {
            (Problem::GaveUp, failure.describe())
        }
        Setback::Failure(failure) => return Ok(failure),
    };
    teller.say(format!("{}: {said}", problem.as_str()));
    let mut tx = cx.begin().await?;
    let came_to = runs::find(&mut tx, work.run.id).await?.map_or(work.run.state, |run| run.state);
    // Terraform that was ended did not unlock it. Whoever has taken over holds his own.
    match states::unlock(&mut tx, work.run.stack, work.fence, None).await {
        Ok(()) | Err(StateError::Overtaken) => {}
        Err(StateError::Database(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::cancel(error)),
    }
    let ended = if problem == Problem::Cancelled {
        runs::advance(&mut tx, work.run.id, RunState::Cancelled).await?
    } else {
        runs::failed(&mut tx, work.run.id, problem, &said).await?
    };
    if ended && work.run.kind.may_spoil(came_to) {
        servers::failed(&mut tx, work.server.id, problem, &said).await?;
        tx.record("server.failed").on(&work.server.id).called(&work.server.name);
        tell_failed(cx, &mut tx, &work.server, problem, &said).await?;
    }
    tx.commit().await?;
    Ok(Failure::cancel(format!("{}: {said}", problem.as_str())))
}

async fn is_cancelled(cx: &Context) -> Result<bool, Failure> {
    let mut tx = cx.begin().await?;
    let job = control::find(&mut tx, cx.job()).await?;
    tx.commit().await?;
    Ok(job.is_some_and(|job| job.cancel_requested_at.is_some()))
}
