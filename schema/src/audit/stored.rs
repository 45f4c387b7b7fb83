//! An entry as it lies in the table, and what is hashed of it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::chain::{Hash, link};
use super::draft::Outcome;
use super::record::{Record, moment};
use super::vouching::{Sum, Vouching, is_same};
use crate::{AuditEntryId, OrganizationId};

/// An entry as it lies in the table.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: AuditEntryId,
    pub(super) organization: OrganizationId,
    pub(super) occurred_at: DateTime<Utc>,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) target: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) record: String,
    pub(super) actor_subject: Option<Uuid>,
    pub(super) target_subject: Option<Uuid>,
    pub(super) key_id: String,
    pub(super) mac: Vec<u8>,
}

/// What the installation says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vouched {
    /// It wrote it, and this is what it adds to the tallies.
    Written(Sum),
    /// It did not write it like this.
    Forged,
    /// The key that would tell is not configured.
    UnknownKey,
}

impl Stored {
    /// The link of the entry with this number behind `previous`.
    pub(super) fn link(&self, previous: &Hash, number: i64) -> Hash {
        let (number, moment, organization) =
            (number.to_string(), moment(self.occurred_at), self.organization.to_string());
        link(previous, &[&number, &moment, &organization, &self.actor, &self.action, &self.record])
    }

    /// What the installation says of it.
    pub(super) fn vouched(&self, vouching: &Vouching) -> Vouched {
        let (moment, organization) = (moment(self.occurred_at), self.organization.to_string());
        let fields = [moment.as_str(), &organization, &self.actor, &self.action, &self.record];
        match (vouching.entry(&self.key_id, &fields), vouching.sum(&self.key_id, &fields)) {
            (Some(mac), Some(sum)) if is_same(&mac, &self.mac) && self.is_as_recorded() => Vouched::Written(sum),
            (Some(_), Some(_)) => Vouched::Forged,
            _ => Vouched::UnknownKey,
        }
    }

    /// What is searched by is what was recorded.
    pub(super) fn is_as_recorded(&self) -> bool {
        let Ok(record) = serde_json::from_str::<Record>(&self.record) else { return false };
        let target = record.target.as_ref();
        record.id == self.id
            && record.outcome == self.outcome
            && target.map(|target| &target.id) == self.target.as_ref()
            && record.actor.subject_id == self.actor_subject
            && target.and_then(|target| target.subject_id) == self.target_subject
    }
}
