//! Modules of organizations: what is written for Terraform by strangers. Archives and git repositories are read into memory,
//! what is in them is held against a policy before it ever runs, and what it asks for and answers is found out.

pub mod archive;
mod git;
mod json;
mod language;
mod policy;
mod reading;
mod settings;
pub mod template;
mod tree;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::hooks::client::Lookup;
use crate::hooks::{AddressPolicy, Reach};
use crate::terraform;
pub use git::{Fetched, Repository};
pub use policy::{provider_sources, source};
pub use reading::read;
pub use settings::{Plugins, Switch};
pub use template::{Given, template};
pub use tree::Tree;

/// How an installation takes modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it does at all.
    pub enabled: bool,
    /// Plugins that modules may use besides the usual ones: `hashicorp/dns`.
    pub providers: Vec<String>,
    /// Networks, addresses and hosts that modules may be fetched from, and their servers be at, though they are not public.
    pub hosts: Vec<String>,
    /// A file with certificates, PEM, that are trusted when one is fetched, in the place of the system's.
    pub trusted: Option<PathBuf>,
}

impl Config {
    /// What takes them.
    ///
    /// # Errors
    /// When a host is none, or nobody resolves names.
    pub fn build(&self, terraform: &terraform::Config) -> crate::Result<Modules> {
        let policy = AddressPolicy::new(Reach::Public);
        let policy = self.hosts.iter().try_fold(policy, |policy, entry| policy.allow(entry))?;
        let resolver = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
        let resolver = resolver.map_err(|source| Error::Configuration {
            what: "the system's resolver".to_owned(),
            source: source.into(),
        })?;
        let directory = terraform.directory.clone().unwrap_or_else(|| std::env::temp_dir().join("gantry-provisioning"));
        Ok(Modules { config: self.clone(), policy, lookup: Arc::new(resolver), directory: directory.join("modules") })
    }
}

/// Takes modules of organizations.
pub struct Modules {
    config: Config,
    policy: AddressPolicy,
    lookup: Arc<dyn Lookup>,
    directory: PathBuf,
}

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modules").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Modules {
    /// Whether this installation takes any.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.config.enabled
    }

    /// Plugins that they may use besides the usual ones.
    #[must_use]
    pub fn providers(&self) -> &[String] {
        &self.config.providers
    }

    /// Whether a server that one of them made may be at this address.
    #[must_use]
    pub fn may_be_at(&self, address: IpAddr) -> bool {
        self.policy.allows(address)
    }

    /// Fetches one. `name` is that of the directory it is fetched into, which is gone afterwards.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not taken.
    pub async fn fetch(
        &self,
        name: &str,
        repository: &Repository<'_>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Fetched, Refused> {
        let place = git::Place {
            directory: self.directory.join(name),
            policy: &self.policy,
            lookup: &*self.lookup,
            trusted: self.config.trusted.as_deref(),
        };
        git::fetch(&place, repository, stop).await
    }
}

/// Whether a path can be written into a configuration as it is.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    path.len() <= 200 && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

/// A tree as it is kept: JSON, its files by their paths.
#[must_use]
pub fn packed(tree: &Tree) -> Vec<u8> {
    let files: BTreeMap<&str, String> =
        tree.files().map(|(path, contents)| (path, STANDARD.encode(contents))).collect();
    serde_json::to_vec(&files).unwrap_or_default()
}

/// A tree as it was packed; `None`: it is none.
#[must_use]
pub fn unpacked(packed: &[u8]) -> Option<Tree> {
    let files: BTreeMap<String, String> = serde_json::from_slice(packed).ok()?;
    let mut tree = Tree::default();
    for (path, contents) in files {
        tree.add(&path, STANDARD.decode(contents).ok()?).ok()?;
    }
    Some(tree)
}

/// Why a module is not taken, in kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be read as an archive.
    ArchiveMalformed,
    /// Something is in it that is no plain file or directory inside of it.
    ArchiveUnsafe,
    /// It has too much in it.
    ArchiveTooLarge,
    /// It cannot be fetched.
    Fetch,
    /// There is no Terraform in it.
    Empty,
    /// It is not written as Terraform reads it.
    Malformed,
    /// It does something that modules may not do here.
    Policy,
    /// An output that is needed is missing.
    Outputs,
    /// An input cannot be given.
    Inputs,
}

/// A module is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// Where, and what it is.
    pub said: String,
}

impl Refused {
    pub(crate) const fn new(fault: Fault, said: String) -> Self {
        Self { fault, said }
    }
}

/// What a module asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it takes, as Terraform writes types in JSON: `"string"`, `["list", "string"]`.
    pub kind: Value,
    /// What it is for.
    pub description: String,
    /// What it is where it is not given; null: nothing, or what is not shown.
    pub default: Value,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether nobody may see it.
    pub sensitive: bool,
}

/// What a module answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Whether nobody may see it.
    pub sensitive: bool,
}

/// A module that is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// What it asks for, by name.
    pub inputs: Vec<Input>,
    /// What it answers, by name.
    pub outputs: Vec<Output>,
    /// Plugins that its uppermost directory uses: its name for each, and where that is.
    pub providers: Vec<(String, String)>,
}

/// What a module is told by the platform, where it asks for it.
pub const GIVEN: &[&str] =
    &["gantry_labels", "gantry_name", "gantry_server_id", "gantry_ssh_public_key", "gantry_user_data", "region"];

/// What has to be answered: where a server is reached. `host_key` as well, unless the platform gave the machine one.
pub const NEEDED: &[&str] = &["address", "port", "user"];

/// By which a machine gets the host key that the platform made, with everything else it needs.
pub const USER_DATA: &str = "gantry_user_data";
