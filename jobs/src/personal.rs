//! What people are entitled to.

use std::time::Duration;

use gantry_schema::jobs::{Held, OnConflict, Unique};
use gantry_schema::{ErasureId, ExportId, PersonId};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Makes a copy of what is known of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPerson {
    /// The copy.
    pub export: ExportId,
    /// Of whom.
    pub person: PersonId,
}

impl Job for ExportPerson {
    const KIND: &'static str = "personal.export";
    const POLICY: Policy = Policy::new(Queue::Default).timeout(Duration::from_mins(10));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: self.export.to_string(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Forgets somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasePerson {
    /// That he is to be forgotten.
    pub erasure: ErasureId,
    /// Who.
    pub person: PersonId,
}

impl Job for ErasePerson {
    const KIND: &'static str = "personal.erase";
    const POLICY: Policy = Policy::new(Queue::Default).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: self.person.to_string(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
