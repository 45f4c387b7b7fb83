//! Looking after credentials of clouds.

use gantry_schema::CloudCredentialId;
use gantry_schema::jobs::{Held, OnConflict, Unique};
use serde::{Deserialize, Serialize};

use crate::{Job, Policy, Queue};

/// Asks a cloud whose account a credential opens, what that permits, and what there is to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckCredential {
    /// Which.
    pub credential: CloudCredentialId,
    /// Where, for clouds that say what there is region by region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl Job for CheckCredential {
    const KIND: &'static str = "credentials.check";
    const POLICY: Policy = Policy::new(Queue::Default).timeout(std::time::Duration::from_mins(5));

    fn unique(&self) -> Option<Unique> {
        let key = format!("{} {}", self.credential, self.region.as_deref().unwrap_or_default());
        Some(Unique { key, held: Held::Alive, on_conflict: OnConflict::Existing })
    }
}
