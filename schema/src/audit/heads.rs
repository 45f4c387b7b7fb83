//! Where an organization's chain ends.

use std::sync::Arc;

use super::chain::{BEGINNING, Hash};
use super::merkle::Frontier;
use super::vouching::{Sum, Vouching, is_same};
use crate::OrganizationId;

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) organization: OrganizationId,
    pub(super) sequence: i64,
    pub(super) hash: Hash,
    pub(super) frontier: Frontier,
    pub(super) sum: Sum,
}

/// The row of a head, not yet believed.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) organization: OrganizationId,
    pub(super) sequence: i64,
    pub(super) hash: Vec<u8>,
    pub(super) frontier: Vec<u8>,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) key_id: String,
    pub(super) mac: Vec<u8>,
}

/// Why a head is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The installation did not write it like this.
    Forged,
    /// The key that would tell is not configured.
    UnknownKey,
}

impl Head {
    /// Where the chain of an organization without entries ends.
    pub(super) fn beginning(organization: OrganizationId) -> Self {
        Self { organization, sequence: 0, hash: BEGINNING, frontier: Frontier::default(), sum: Sum::default() }
    }

    /// What is vouched for.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.organization.uuid().as_bytes().to_vec();
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.sum.high.to_be_bytes());
        bytes.extend_from_slice(&self.sum.low.to_be_bytes());
        bytes.extend_from_slice(&self.frontier.bytes());
        bytes
    }

    /// The code that vouches for it.
    pub(super) fn mac(&self, vouching: &Vouching, key: &str) -> Option<Vec<u8>> {
        vouching.head(key, &self.bytes())
    }
}

impl Row {
    /// The head, if the installation wrote it.
    pub(super) fn believed(&self, vouching: &Vouching) -> Result<Head, Doubt> {
        let leaves = u64::try_from(self.sequence).map_err(|_| Doubt::Forged)?;
        let head = Head {
            organization: self.organization,
            sequence: self.sequence,
            hash: Hash::try_from(self.hash.as_slice()).map_err(|_| Doubt::Forged)?,
            frontier: Frontier::read(leaves, &self.frontier).ok_or(Doubt::Forged)?,
            sum: Sum { high: self.high, low: self.low },
        };
        let mac = head.mac(vouching, &self.key_id).ok_or(Doubt::UnknownKey)?;
        if is_same(&mac, &self.mac) { Ok(head) } else { Err(Doubt::Forged) }
    }
}

/// Heads as the columns of a statement.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) organizations: Vec<uuid::Uuid>,
    pub(super) sequences: Vec<i64>,
    pub(super) hashes: Vec<Vec<u8>>,
    pub(super) frontiers: Vec<Vec<u8>>,
    pub(super) highs: Vec<i64>,
    pub(super) lows: Vec<i64>,
    pub(super) macs: Vec<Vec<u8>>,
}

impl Columns {
    /// The columns, vouched for by the key that seals now.
    pub(super) fn of<'a>(heads: impl Iterator<Item = &'a Head>, vouching: &Arc<Vouching>) -> Self {
        let mut columns = Self::default();
        for head in heads {
            columns.organizations.push(head.organization.uuid());
            columns.sequences.push(head.sequence);
            columns.hashes.push(head.hash.to_vec());
            columns.frontiers.push(head.frontier.bytes());
            columns.highs.push(head.sum.high);
            columns.lows.push(head.sum.low);
            // The key that seals is always configured.
            columns.macs.push(head.mac(vouching, vouching.keys().current_id()).unwrap_or_default());
        }
        columns
    }
}
