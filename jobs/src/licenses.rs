//! Looking after licenses.

use std::time::Duration;

use gantry_schema::jobs::{Held, OnConflict, Unique};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Tells of licenses that end soon, and of limits that are nearly used up, and notes what was used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchLicenses {}

impl Job for WatchLicenses {
    const KIND: &'static str = "licenses.watch";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_mins(30));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}

/// Counts what licenses limit again, from what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecountLicenses {}

impl Job for RecountLicenses {
    const KIND: &'static str = "licenses.recount";
    const POLICY: Policy = Policy::new(Queue::Maintenance).timeout(Duration::from_hours(1));

    fn unique(&self) -> Option<Unique> {
        Some(Unique { key: "all".to_owned(), held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
