//! Proofs that an entry is in the record that a checkpoint signed (RFC 6962, 2.1.1), put together from the hashes that
//! sealing keeps: a proof in a record of any size reads a few hundred of them.

use super::chain::Hash;
use super::checkpoints::{self, Checkpoint};
use super::merkle::{Range, Subtree, inclusion, leaf, node};
use super::sealing::KEPT_LEVELS;
use crate::{JobTx as _, TenantTx};

/// That an entry is in what a checkpoint signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The first checkpoint that covers the entry.
    pub checkpoint: Checkpoint,
    /// The hashes beside the way from the entry's leaf to the root, the lowest first.
    pub path: Vec<Hash>,
}

/// The proof that the entry with this number is in the record of the transaction's organization. `None`: no checkpoint
/// covers it yet, or what the proof is made of is not there.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_entry(tx: &mut TenantTx, sequence: i64) -> Result<Option<Proof>, sqlx::Error> {
    let Some(checkpoint) = checkpoints::covering(tx, sequence).await? else { return Ok(None) };
    let (index, leaves) = ((sequence - 1).cast_unsigned(), checkpoint.sequence.cast_unsigned());
    let mut path = Vec::new();
    for range in inclusion(index, leaves) {
        let Some(hash) = root(tx, range).await? else { return Ok(None) };
        path.push(hash);
    }
    Ok(Some(Proof { checkpoint, path }))
}

/// The root over these leaves.
async fn root(tx: &mut TenantTx, mut range: Range) -> Result<Option<Hash>, sqlx::Error> {
    let mut roots = Vec::new();
    loop {
        let (left, right) = match range.whole() {
            Some(whole) => (Some(whole), None),
            None => (range.halves().0.whole(), Some(range.halves().1)),
        };
        let Some(left) = left else { return Ok(None) };
        let Some(hash) = subtree(tx, left).await? else { return Ok(None) };
        roots.push(hash);
        match right {
            Some(right) => range = right,
            None => break,
        }
    }
    Ok(roots.into_iter().rev().reduce(|right, left| node(&left, &right)))
}

/// The root of a whole subtree, from those of the largest ones in it that are kept.
async fn subtree(tx: &mut TenantTx, Subtree { level, number }: Subtree) -> Result<Option<Hash>, sqlx::Error> {
    let kept = level - level % KEPT_LEVELS;
    let (first, count) = (number << (level - kept), 1_u64 << (level - kept));
    let organization = tx.organization().uuid();
    let (from, to) = (first.cast_signed(), (first + count).cast_signed());
    let rows = if kept == 0 {
        let links = sqlx::query_scalar!(
            "select hash from audit_seals where organization_id = $1 and sequence > $2 and sequence <= $3 order by sequence",
            organization,
            from,
            to
        );
        links.fetch_all(tx.connection()).await?.iter().map(|link| leaf(link).to_vec()).collect()
    } else {
        sqlx::query_scalar!(
            "select hash from audit_nodes
              where organization_id = $1 and level = $2 and number >= $3 and number < $4 order by number",
            organization,
            i16::from(kept),
            from,
            to
        )
        .fetch_all(tx.connection())
        .await?
    };
    let mut hashes: Vec<Hash> = rows.iter().filter_map(|row| Hash::try_from(row.as_slice()).ok()).collect();
    if hashes.len() as u64 != count {
        return Ok(None);
    }
    while hashes.len() > 1 {
        hashes = hashes.as_chunks::<2>().0.iter().map(|[left, right]| node(left, right)).collect();
    }
    Ok(hashes.pop())
}
