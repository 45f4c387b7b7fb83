//! Keeping the record.

use std::time::Duration;

use gantry_schema::OrganizationId;
use gantry_schema::jobs::{Held, OnConflict, Unique};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Numbers and links what was recorded since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealRecord {}

impl Job for SealRecord {
    const KIND: &'static str = "audit.seal";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Signs where records end that grew since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Only of this organization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<OrganizationId>,
}

impl Job for CheckpointRecord {
    const KIND: &'static str = "audit.checkpoint";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        let key = self.organization.map_or_else(|| "all".to_owned(), |organization| organization.to_string());
        Some(Unique { key, held: Held::Pending, on_conflict: OnConflict::Existing })
    }
}
