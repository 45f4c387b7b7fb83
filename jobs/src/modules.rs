//! Modules that organizations bring.

use gantry_schema::ModuleVersionId;
use gantry_schema::jobs::{Held, OnConflict, Unique};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Looks at a version of a module: fetches or unpacks it, holds it against the policy, and finds out what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckModule {
    /// Which.
    pub version: ModuleVersionId,
}

impl Job for CheckModule {
    const KIND: &'static str = "modules.check";
    const POLICY: Policy = Policy::new(Queue::Default).attempts(3).timeout(std::time::Duration::from_mins(3));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: self.version.to_string(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
