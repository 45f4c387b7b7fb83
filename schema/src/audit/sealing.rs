//! Sealing: entries that were written since the last time are numbered, linked, and put into the tree, for all
//! organizations in one transaction. One process at a time does it; writers do not notice.
//!
//! What is new is found by the number of its transaction: every transaction before `low` has ended and was seen to.
//! Entries of later ones are sealed as soon as they are seen, and told from sealed ones by their seals.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::chain::Hash;
use super::draft::Outcome;
use super::heads::{Columns, Head, Row};
use super::merkle::{Subtree, leaf};
use super::stored::{Stored, Vouched};
use super::vouching::Vouching;
use crate::{AuditEntryId, AuditorTx, EngineDb, OrganizationId};

/// Subtrees of 2^8, 2^16, … leaves are kept, so that proofs need few hashes.
pub(super) const KEPT_LEVELS: u8 = 8;

/// What was sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// The numbers of the new last entries, by organization.
    pub heads: BTreeMap<OrganizationId, i64>,
    /// How many entries.
    pub entries: usize,
    /// Entries that the installation did not write like this. They stay unsealed, and verification names them.
    pub forged: Vec<AuditEntryId>,
    /// Organizations of which the end of the chain was changed by somebody else: nothing is added to it.
    pub broken: Vec<OrganizationId>,
    /// There may be more.
    pub more: bool,
}

struct New {
    entry: Stored,
    position: String,
}

/// Seals up to `limit` entries.
///
/// # Errors
/// When the database refuses or went away; then nothing was sealed.
pub async fn seal(db: &EngineDb, vouching: &Arc<Vouching>, limit: i64) -> Result<Sealed, sqlx::Error> {
    let mut tx = db.auditor().await?;
    let progress = sqlx::query!(
        r#"select low::text as "low!", pg_snapshot_xmin(pg_current_snapshot())::text as "next!",
                  pg_snapshot_xmin(pg_current_snapshot()) < low as "restored!"
             from audit_sealing for update"#
    )
    .fetch_one(tx.connection())
    .await?;
    // Where the database was restored from a dump, its transactions are counted anew: everything is looked through once.
    let low = if progress.restored { "0" } else { &progress.low };
    let new = unsealed(&mut tx, low, progress.restored, limit).await?;
    let mut sealed = Sealed { more: i64::try_from(new.len()).is_ok_and(|found| found == limit), ..Sealed::default() };
    let position = new.last().map(|last| last.position.clone()).filter(|_| sealed.more);

    let mut heads = heads(&mut tx, vouching, &new, &mut sealed).await?;
    let mut seals = Seals::default();
    for New { entry, .. } in new {
        let Some(head) = heads.get_mut(&entry.organization) else { continue };
        let Vouched::Written(sum) = entry.vouched(vouching) else {
            sealed.forged.push(entry.id);
            continue;
        };
        head.sequence += 1;
        head.hash = entry.link(&head.hash, head.sequence);
        head.sum = head.sum.and(sum);
        seals.add(&entry, head);
        sealed.heads.insert(entry.organization, head.sequence);
        sealed.entries += 1;
    }
    seals.write(&mut tx).await?;
    let grown = heads.values().filter(|head| sealed.heads.contains_key(&head.organization));
    write_heads(&mut tx, &Columns::of(grown, vouching), vouching).await?;
    sqlx::query!(
        "update audit_sealing set low = case when $2::text is null then $1::text::xid8
                                             else least($1::text::xid8, $2::text::xid8) end",
        progress.next,
        position
    )
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(sealed)
}

async fn unsealed(tx: &mut AuditorTx, low: &str, restored: bool, limit: i64) -> Result<Vec<New>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select e.organization_id as "organization: OrganizationId", e.id as "id: AuditEntryId",
                  e.position::text as "position!", e.occurred_at, e.actor, e.action, e.target,
                  e.outcome as "outcome: Outcome", e.record, e.actor_subject, e.target_subject, e.key_id, e.mac
             from audit_entries e
            where e.position >= $1::text::xid8
              -- Behind it are only entries of a database that this one was restored from.
              and ($2 or e.position < pg_snapshot_xmax(pg_current_snapshot()))
              and not exists (select from audit_seals s where s.organization_id = e.organization_id and s.entry_id = e.id)
            order by e.position, e.id limit $3"#,
        low,
        restored,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| New {
            entry: Stored {
                id: row.id,
                organization: row.organization,
                occurred_at: row.occurred_at,
                actor: row.actor,
                action: row.action,
                target: row.target,
                outcome: row.outcome,
                record: row.record,
                actor_subject: row.actor_subject,
                target_subject: row.target_subject,
                key_id: row.key_id,
                mac: row.mac,
            },
            position: row.position,
        })
        .collect())
}

/// The heads of the organizations that have new entries, as far as they can be believed.
async fn heads(
    tx: &mut AuditorTx,
    vouching: &Arc<Vouching>,
    new: &[New],
    sealed: &mut Sealed,
) -> Result<BTreeMap<OrganizationId, Head>, sqlx::Error> {
    let wanted: HashSet<OrganizationId> = new.iter().map(|new| new.entry.organization).collect();
    let ids: Vec<Uuid> = wanted.iter().map(|organization| organization.uuid()).collect();
    let rows = sqlx::query!(
        r#"select w.id as "organization!: OrganizationId", h.sequence as "sequence?", h.hash as "hash?",
                  h.frontier as "frontier?", h.high as "high?", h.low as "low?", h.key_id as "key_id?", h.mac as "mac?",
                  exists (select from audit_seals s
                           where s.organization_id = w.id and s.sequence > coalesce(h.sequence, 0)) as "beyond!"
             from unnest($1::uuid[]) as w (id) left join audit_heads h on h.organization_id = w.id"#,
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    let mut heads = BTreeMap::new();
    for row in rows {
        let known = match (row.sequence, row.hash, row.frontier, row.high, row.low, row.key_id, row.mac) {
            (Some(sequence), Some(hash), Some(frontier), Some(high), Some(low), Some(key_id), Some(mac)) => {
                Row { organization: row.organization, sequence, hash, frontier, high, low, key_id, mac }
                    .believed(vouching)
                    .ok()
            }
            _ => Some(Head::beginning(row.organization)),
        };
        match known.filter(|_| !row.beyond) {
            Some(head) => drop(heads.insert(row.organization, head)),
            None => sealed.broken.push(row.organization),
        }
    }
    Ok(heads)
}

/// Seals as the columns of a statement.
#[derive(Default)]
struct Seals {
    organizations: Vec<Uuid>,
    sequences: Vec<i64>,
    entries: Vec<Uuid>,
    hashes: Vec<Vec<u8>>,
    nodes: Vec<(Uuid, Subtree, Hash)>,
}

impl Seals {
    fn add(&mut self, entry: &Stored, head: &mut Head) {
        self.organizations.push(entry.organization.uuid());
        self.sequences.push(head.sequence);
        self.entries.push(entry.id.uuid());
        self.hashes.push(head.hash.to_vec());
        let nodes = &mut self.nodes;
        head.frontier.push(leaf(&head.hash), |subtree, hash| {
            if subtree.level.is_multiple_of(KEPT_LEVELS) {
                nodes.push((entry.organization.uuid(), subtree, hash));
            }
        });
    }

    async fn write(self, tx: &mut AuditorTx) -> Result<(), sqlx::Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "insert into audit_seals (organization_id, sequence, entry_id, hash)
             select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bytea[])",
            &self.organizations,
            &self.sequences,
            &self.entries,
            &self.hashes
        )
        .execute(tx.connection())
        .await?;
        if self.nodes.is_empty() {
            return Ok(());
        }
        let organizations: Vec<Uuid> = self.nodes.iter().map(|(organization, ..)| *organization).collect();
        let levels: Vec<i16> = self.nodes.iter().map(|(_, subtree, _)| i16::from(subtree.level)).collect();
        let numbers: Vec<i64> = self.nodes.iter().map(|(_, subtree, _)| subtree.number.cast_signed()).collect();
        let hashes: Vec<Vec<u8>> = self.nodes.iter().map(|(.., hash)| hash.to_vec()).collect();
        sqlx::query!(
            "insert into audit_nodes (organization_id, level, number, hash)
             select * from unnest($1::uuid[], $2::smallint[], $3::bigint[], $4::bytea[])",
            &organizations,
            &levels,
            &numbers,
            &hashes
        )
        .execute(tx.connection())
        .await
        .map(drop)
    }
}

async fn write_heads(tx: &mut AuditorTx, heads: &Columns, vouching: &Vouching) -> Result<(), sqlx::Error> {
    if heads.organizations.is_empty() {
        return Ok(());
    }
    let now = tx.now();
    sqlx::query!(
        "insert into audit_heads as head (organization_id, sequence, hash, frontier, high, low, mac, key_id, sealed_at)
         select new.*, $8, $9 from unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[],
                                          $7::bytea[]) as new
             on conflict (organization_id) do update
            set sequence = excluded.sequence, hash = excluded.hash, frontier = excluded.frontier, high = excluded.high,
                low = excluded.low, mac = excluded.mac, key_id = excluded.key_id, sealed_at = excluded.sealed_at",
        &heads.organizations,
        &heads.sequences,
        &heads.hashes,
        &heads.frontiers,
        &heads.highs,
        &heads.lows,
        &heads.macs,
        vouching.keys().current_id(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Lets the key that seals now vouch for heads for which an older one does, so that the older one can be forgotten.
/// Answers how many, at most `limit`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn vouch_again(db: &EngineDb, vouching: &Arc<Vouching>, limit: i64) -> Result<u64, sqlx::Error> {
    let mut tx = db.auditor().await?;
    sqlx::query!("select one from audit_sealing for update").fetch_one(tx.connection()).await?;
    let older = sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, frontier, high, low, key_id, mac
             from audit_heads where key_id <> $1 limit $2"#,
        vouching.keys().current_id(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let heads: Vec<Head> = older.iter().filter_map(|row| row.believed(vouching).ok()).collect();
    write_heads(&mut tx, &Columns::of(heads.iter(), vouching), vouching).await?;
    tx.commit().await?;
    Ok(heads.len() as u64)
}
