//! Making servers, looking after them and removing them.

use std::time::Duration;

use gantry_schema::jobs::{Concurrency, Held, OnConflict, Unique};
use gantry_schema::licenses::{Feature, Limit};
use gantry_schema::servers::Options;
use gantry_schema::{CloudCredentialId, RunId, ServerId, StackId};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue, Retry};

/// What Terraform does takes its time, and is to save what it did when it is stopped. It takes memory as well: that a worker
/// falls silent under it says little of it.
const POLICY: Policy = Policy::new(Queue::Provisioning)
    .attempts(10)
    .poison(10)
    .timeout(Duration::from_hours(1))
    .grace(Duration::from_mins(2))
    .retry(Retry::Exponential { base: Duration::from_secs(2), cap: Duration::from_mins(5) });

/// One run at a time for each stack.
fn one_for(stack: StackId) -> Concurrency {
    Concurrency { key: format!("servers.stack:{stack}"), limit: 1 }
}

/// Makes a server, or puts it right: plans, has it approved where that is needed, makes it, and looks at it. A run that waits
/// for approval goes on with another job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionServer {
    /// What is done.
    pub run: RunId,
    /// With what.
    pub stack: StackId,
}

impl Job for ProvisionServer {
    const KIND: &'static str = "servers.provision";
    const POLICY: Policy = POLICY.needing(Feature::ServerProvisioning).adding(Limit::Servers);

    fn concurrency(&self) -> Option<Concurrency> {
        Some(one_for(self.stack))
    }
}

/// Finds out whether a server could be made, and what it would cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstimateServer {
    /// With what.
    pub credential: CloudCredentialId,
    /// Its host name.
    pub name: String,
    /// Where.
    pub region: String,
    /// How large.
    pub size: String,
    /// What it begins with.
    pub image: String,
    /// What else is wanted of it.
    #[serde(default)]
    pub options: Options,
}

impl Job for EstimateServer {
    const KIND: &'static str = "servers.estimate";
    const POLICY: Policy = Policy::new(Queue::Default).attempts(3);
}

/// Removes a server and everything that was made for it. One that was connected is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestroyServer {
    /// What is done.
    pub run: RunId,
    /// With what.
    pub stack: StackId,
}

impl Job for DestroyServer {
    const KIND: &'static str = "servers.destroy";
    const POLICY: Policy = POLICY;

    fn concurrency(&self) -> Option<Concurrency> {
        Some(one_for(self.stack))
    }
}

/// Connects a machine that is there: gets in, and looks whether it is as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectServer {
    /// What is done.
    pub run: RunId,
    /// With what.
    pub stack: StackId,
}

impl Job for ConnectServer {
    const KIND: &'static str = "servers.connect";
    const POLICY: Policy = Policy::new(Queue::Provisioning)
        .attempts(5)
        .timeout(Duration::from_mins(15))
        .retry(Retry::Exponential { base: Duration::from_secs(2), cap: Duration::from_mins(1) })
        .adding(Limit::Servers);

    fn concurrency(&self) -> Option<Concurrency> {
        Some(one_for(self.stack))
    }
}

/// Looks at a server: whether somebody gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookAtServer {
    /// Which.
    pub server: ServerId,
}

impl Job for LookAtServer {
    const KIND: &'static str = "servers.look";
    // Whoever looks after all of them asks for another soon enough.
    const POLICY: Policy = Policy::new(Queue::Default).attempts(1);

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: self.server.to_string(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Asks for what is due: servers are looked at, and compared with what is to be there; and what nobody goes on with is ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchServers {}

impl Job for WatchServers {
    const KIND: &'static str = "servers.watch";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Compares an account with the record: what carries our labels there, and belongs to no server any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindOrphans {
    /// Which account.
    pub credential: CloudCredentialId,
    /// Whether what is found is removed; without, the organization's settings say so.
    #[serde(default)]
    pub remove: bool,
}

impl Job for FindOrphans {
    const KIND: &'static str = "servers.find_orphans";
    const POLICY: Policy = Policy::new(Queue::Default).attempts(5).timeout(Duration::from_mins(30));

    fn unique(&self) -> Option<Unique> {
        let key = format!("{} {}", self.credential, self.remove);
        Some(Unique { key, held: Held::Alive, on_conflict: OnConflict::Existing })
    }

    fn concurrency(&self) -> Option<Concurrency> {
        Some(Concurrency { key: format!("servers.orphans:{}", self.credential), limit: 1 })
    }
}

/// Has all accounts compared with the record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchOrphans {}

impl Job for WatchOrphans {
    const KIND: &'static str = "servers.orphans";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(30));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
