//! What a server is made of, where an organization wrote it: what is given to it, and whether Terraform reads it as we did.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_providers::clouds::{Blueprint, Template};
use gantry_providers::modules::template::Laid;
use gantry_providers::modules::{self, Given, Tree};
use gantry_providers::terraform::{Planned, Workspace};
use gantry_schema::credentials::Cloud;
use gantry_schema::modules::Used;
use gantry_schema::modules::queries::{self, Version};
use gantry_schema::servers::{Problem, state};
use gantry_schema::{StackId, TenantTx};
use serde_json::Value;

use crate::servers::clouds;
use crate::servers::setback::Setback;
use crate::{Context, Failure};

/// Bytes that a module has as it is kept: its files as base64, and their names.
const LARGEST: usize = 16 * 1024 * 1024;

/// A module, and what a server gives it.
pub(crate) struct MadeOf {
    version: Version,
    tree: Arc<Tree>,
    plain: BTreeMap<String, Value>,
    secret: BTreeMap<String, Value>,
}

impl MadeOf {
    /// Of a stack.
    pub(crate) async fn read(cx: &Context, tx: &mut TenantTx, stack: StackId, used: &Used) -> Result<Self, Setback> {
        let gone = || Setback::from(Failure::cancel("the module of the server is gone, or was changed"));
        let (version, _) = queries::version(tx, used.version).await?.ok_or_else(gone)?;
        let content = queries::content(tx, used.version).await?.ok_or_else(gone)?;
        let tree = state::unpacked(&content, LARGEST).and_then(|packed| modules::unpacked(&packed)).ok_or_else(gone)?;
        let secret = queries::secrets(tx, cx.sealing_keys(), stack).await.map_err(Failure::cancel)?;
        Ok(Self { version, tree: Arc::new(tree), plain: used.inputs.clone(), secret })
    }

    /// What is written for Terraform.
    pub(crate) fn template(
        &self,
        cx: &Context,
        cloud: Option<Cloud>,
        wanted: &Blueprint<'_>,
    ) -> Result<Template, Setback> {
        let takes = &cx.providers().modules;
        if !takes.enabled() {
            let said = "this installation runs no modules".to_owned();
            return Err(Setback::Problem(Problem::ModulesOff, said));
        }
        if cloud == Some(Cloud::Sandbox) && !cx.providers().terraform.has_sandbox() {
            return Err(Setback::Problem(Problem::SandboxOff, "this installation has no sandbox".to_owned()));
        }
        let given = Given {
            tree: Arc::clone(&self.tree),
            directory: &self.version.directory,
            vendor: cloud.and_then(clouds::vendor),
            asks: self.version.inputs.iter().map(|input| input.name.as_str()).collect(),
            answers: self.version.outputs.iter().map(|output| output.name.as_str()).collect(),
            providers: &self.version.providers,
            plain: &self.plain,
            secret: &self.secret,
            more: takes.providers(),
        };
        Ok(modules::template(wanted, &given)?)
    }
}

/// Whether Terraform fetched nothing that is not taken.
pub(crate) fn judge_preparation(workspace: &Workspace, laid: &Laid) -> Result<(), Setback> {
    let initialized = workspace.initialized()?;
    let other = initialized.providers.iter().find(|source| !laid.providers.contains(&modules::source(source)));
    if let Some(other) = other.or(initialized.fetched.first()) {
        let said = format!("terraform reads that the module uses {other}, which is not taken");
        return Err(Setback::Problem(Problem::ModulePolicy, said));
    }
    Ok(())
}

/// Whether what Terraform planned runs no programs.
pub(crate) fn judge_plan(planned: &Planned) -> Result<(), Setback> {
    match planned.provisioners.first() {
        Some(address) => {
            let said = format!("terraform reads that {address} has a provisioner, which is not taken");
            Err(Setback::Problem(Problem::ModulePolicy, said))
        }
        None => Ok(()),
    }
}

/// Whether a server may be where a module says that it is: somebody else's machine, or one beside ours, is none of it.
pub(crate) fn judge_place(cx: &Context, cloud: Option<Cloud>, address: &str) -> Result<(), Setback> {
    let unfit = |why: &str| {
        let said = format!("the module's output address is {:?}, {why}", address.chars().take(100).collect::<String>());
        Err(Setback::Problem(Problem::ModuleOutputs, said))
    };
    let Ok(address) = address.parse::<IpAddr>() else { return unfit("which is no IP address") };
    let may_be =
        if cloud == Some(Cloud::Sandbox) { address.is_loopback() } else { cx.providers().modules.may_be_at(address) };
    if may_be { Ok(()) } else { unfit("where no server of this cloud may be") }
}
