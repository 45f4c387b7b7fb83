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

/// Lets entries of an organization's record that were sealed go on as events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRecord {}

impl Job for ForwardRecord {
    const KIND: &'static str = "audit.forward";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Drops old entries of records, as far as they were copied and nobody wants to keep them any longer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRecord {}

impl Job for DropRecord {
    const KIND: &'static str = "audit.drop";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
