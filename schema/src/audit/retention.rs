//! Dropping what is old enough, was signed, and was copied by somebody who has the copy: the record then begins later, and
//! the installation's keys vouch for what it begins with, so that no more is missing than was dropped.

use std::sync::Arc;

use chrono::{DateTime, Days, Utc};

use super::chain::Hash;
use super::checkpoints::{self, Checkpoint};
use super::heads::{Doubt, Head};
use super::keys::PublicKeys;
use super::merkle::{Frontier, leaf};
use super::policies::{self, Keeps};
use super::sealing::KEPT_LEVELS;
use super::stored::Vouched;
use super::verify;
use super::vouching::{Sum, Vouching, is_same};
use crate::{AuditorTx, Db, EngineDb, JobTx as _, OrganizationId, TenantTx};

/// Links below the lowest subtree of which the root is kept.
const LEAVES: i64 = 1 << KEPT_LEVELS;

/// Entries that are dropped in one transaction, unless the next checkpoint lies further on.
const AT_ONCE: i64 = 50_000;

/// What a record begins with since older entries were dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beginning {
    /// The last entry that was dropped, the tree and the sum up to it.
    pub(super) head: Head,
    /// Keys that vouched for some of it are not configured any more: what it added to the tallies is not known.
    pub(super) sum_is_unknown: bool,
}

/// The row of a beginning, not yet believed.
#[derive(Debug)]
pub(super) struct Row {
    organization: OrganizationId,
    pub(super) sequence: i64,
    hash: Vec<u8>,
    frontier: Vec<u8>,
    high: Option<i64>,
    low: Option<i64>,
    pub(super) key_id: String,
    mac: Vec<u8>,
}

impl Beginning {
    fn mac(&self, vouching: &Vouching, key: &str) -> Option<Vec<u8>> {
        let mut bytes = self.head.bytes();
        bytes.push(u8::from(self.sum_is_unknown));
        vouching.beginning(key, &bytes)
    }
}

impl Row {
    /// The beginning, if the installation wrote it.
    pub(super) fn believed(&self, vouching: &Vouching) -> Result<Beginning, Doubt> {
        let leaves = u64::try_from(self.sequence).map_err(|_| Doubt::Forged)?;
        let beginning = Beginning {
            head: Head {
                organization: self.organization,
                sequence: self.sequence,
                hash: Hash::try_from(self.hash.as_slice()).map_err(|_| Doubt::Forged)?,
                frontier: Frontier::read(leaves, &self.frontier).ok_or(Doubt::Forged)?,
                sum: Sum { high: self.high.unwrap_or_default(), low: self.low.unwrap_or_default() },
            },
            sum_is_unknown: self.high.is_none(),
        };
        let mac = beginning.mac(vouching, &self.key_id).ok_or(Doubt::UnknownKey)?;
        if is_same(&mac, &self.mac) { Ok(beginning) } else { Err(Doubt::Forged) }
    }
}

/// The number of the last entry of the transaction's organization that was dropped; 0: none was.
///
/// # Errors
/// When the database refuses or went away.
pub async fn begins_after(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    let sequence =
        sqlx::query_scalar!("select sequence from audit_beginnings where organization_id = $1", organization.uuid())
            .fetch_optional(tx.connection())
            .await?;
    Ok(sequence.unwrap_or_default())
}

/// What the record of the transaction's organization begins with; `None`: with its first entry.
pub(super) async fn beginning(tx: &mut TenantTx) -> Result<Option<Row>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, frontier, high, low, key_id, mac
             from audit_beginnings where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Up to `limit` organizations that do not keep their records for ever, behind `after`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keeping(db: &EngineDb, after: Option<OrganizationId>, limit: i64) -> Result<Vec<Keeps>, sqlx::Error> {
    let mut tx = db.auditor().await?;
    let keeping = policies::keeping(&mut tx, after, limit).await?;
    tx.commit().await?;
    Ok(keeping)
}

/// The number of the entry up to which an organization's record may be dropped now, part by part: that of a checkpoint that is
/// old enough, which a copy covers of which somebody told the digest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn droppable(db: &EngineDb, keeps: Keeps) -> Result<Option<i64>, sqlx::Error> {
    let mut tx = db.auditor().await?;
    let before = before(tx.now(), keeps.days);
    let through = sqlx::query_scalar!(
        r#"with began as (
               select coalesce((select sequence from audit_beginnings where organization_id = $1), 0) as sequence),
           old as (
               select c.sequence, c.sequence <= began.sequence + $3 as near
                 from began join audit_checkpoints c on c.organization_id = $1 and c.sequence > began.sequence
                where c.made_at < $2
                  and c.sequence <= (select max(a.through) from audit_archives a
                                      where a.organization_id = $1 and a.confirmed_at is not null
                                        and a.first <= began.sequence + 1))
           select coalesce(max(sequence) filter (where near), min(sequence)) from old"#,
        keeps.organization.uuid(),
        before,
        AT_ONCE
    )
    .fetch_one(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(through)
}

fn before(now: DateTime<Utc>, days: i32) -> DateTime<Utc> {
    let days = Days::new(u64::from(days.max(policies::KEEP_AT_LEAST).unsigned_abs()));
    now.checked_sub_days(days).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Nothing is dropped of a record that is not in order.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// An entry is not what was sealed, or is gone already.
    #[error(
        "entry number {sequence} of the record of {organization} is not as it was sealed; see `gantry-api audit verify`"
    )]
    Broken {
        /// Whose record.
        organization: OrganizationId,
        /// Which.
        sequence: i64,
    },
    /// The record is not what was signed.
    #[error(
        "the checkpoint at number {sequence} does not fit the record of {organization}; see `gantry-api audit verify`"
    )]
    OtherCheckpoint {
        /// Whose record.
        organization: OrganizationId,
        /// Which.
        sequence: i64,
    },
    /// What the record begins with was written by somebody else.
    #[error("what the record of {0} begins with was not written like this by this installation")]
    ForgedBeginning(OrganizationId),
    /// A key that is needed is not configured.
    #[error("the sealing key {0} is needed, and is not configured; add it to GANTRY_SEALING_KEYS_OLDER")]
    UnknownKey(String),
    /// The database refused or went away.
    #[error("dropping old entries of the record")]
    Database(#[from] sqlx::Error),
}

/// What was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The number of the first entry.
    pub first: i64,
    /// The checkpoint that covers the last one.
    pub checkpoint: Checkpoint,
}

/// Drops the entries of an organization up to number `through`, which is a checkpoint's, and lets the record begin behind
/// them. Everything is verified before anything is dropped. `None`: somebody else dropped it meanwhile.
///
/// # Errors
/// When something is not in order; then nothing is dropped.
pub async fn drop_through(
    db: &Db,
    ledger: &EngineDb,
    vouching: &Arc<Vouching>,
    public_keys: &PublicKeys,
    organization: OrganizationId,
    through: i64,
) -> Result<Option<Dropped>, DropError> {
    let mut tx = db.tenant(organization).await?;
    let mut begins = match beginning(&mut tx).await? {
        None => Beginning { head: Head::beginning(organization), sum_is_unknown: false },
        Some(row) => row.believed(vouching).map_err(|doubt| match doubt {
            Doubt::Forged => DropError::ForgedBeginning(organization),
            Doubt::UnknownKey => DropError::UnknownKey(row.key_id.clone()),
        })?,
    };
    let from = begins.head.sequence;
    while begins.head.sequence < through {
        let page = verify::sealed(&mut tx, begins.head.sequence).await?;
        if page.is_empty() {
            return Err(DropError::Broken { organization, sequence: begins.head.sequence + 1 });
        }
        for sealed in page.into_iter().take_while(|sealed| sealed.sequence <= through) {
            begins.step(sealed, vouching)?;
        }
    }
    let checkpoint = checkpoints::between(&mut tx, through - 1, through).await?.pop();
    tx.rollback().await?;
    let other = DropError::OtherCheckpoint { organization, sequence: through };
    let Some(checkpoint) = checkpoint.filter(|checkpoint| {
        public_keys.get(&checkpoint.key).is_some_and(|key| checkpoint.is_signed_by(key))
            && checkpoint.organization == organization
            && checkpoint.hash == begins.head.hash
            && checkpoint.root == begins.head.frontier.root()
    }) else {
        return Err(other);
    };
    let mut tx = ledger.auditor().await?;
    let now = sqlx::query_scalar!(
        r#"select coalesce((select sequence from audit_beginnings where organization_id = $1), 0) as "sequence!"
             from audit_sealing for update"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await?;
    if now != from {
        return Ok(None);
    }
    write(&mut tx, &begins, vouching).await?;
    sqlx::query!(
        "delete from audit_entries e using audit_seals s
          where s.organization_id = $1 and s.sequence > $2 and s.sequence <= $3
            and e.organization_id = $1 and e.id = s.entry_id",
        organization.uuid(),
        from,
        through
    )
    .execute(tx.connection())
    .await?;
    // Proofs of what is kept need the links of the subtree in which it begins.
    sqlx::query!(
        "delete from audit_seals where organization_id = $1 and sequence <= $2",
        organization.uuid(),
        through - through % LEAVES
    )
    .execute(tx.connection())
    .await?;
    tx.commit().await?;
    Ok(Some(Dropped { first: from + 1, checkpoint }))
}

impl Beginning {
    fn step(&mut self, sealed: verify::Sealed, vouching: &Vouching) -> Result<(), DropError> {
        let (organization, sequence) = (self.head.organization, sealed.sequence);
        let broken = || DropError::Broken { organization, sequence };
        let hash = Hash::try_from(sealed.hash.as_slice()).map_err(|_| broken())?;
        let stored = sealed.stored.filter(|_| sequence == self.head.sequence + 1).ok_or_else(broken)?;
        if stored.link(&self.head.hash, sequence) != hash {
            return Err(broken());
        }
        match stored.vouched(vouching) {
            Vouched::Written(sum) => self.head.sum = self.head.sum.and(sum),
            Vouched::Forged => return Err(broken()),
            // The checkpoint vouches for it by now.
            Vouched::UnknownKey => self.sum_is_unknown = true,
        }
        self.head.sequence = sequence;
        self.head.hash = hash;
        self.head.frontier.push(leaf(&hash), |_, _| {});
        Ok(())
    }
}

async fn write(tx: &mut AuditorTx, begins: &Beginning, vouching: &Vouching) -> Result<(), sqlx::Error> {
    let (now, key, head) = (tx.now(), vouching.keys().current_id(), &begins.head);
    let known = |half: i64| (!begins.sum_is_unknown).then_some(half);
    let mut begins = begins.clone();
    if begins.sum_is_unknown {
        begins.head.sum = Sum::default();
    }
    sqlx::query!(
        "insert into audit_beginnings (organization_id, sequence, hash, frontier, high, low, dropped_at, key_id, mac)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             on conflict (organization_id) do update
            set sequence = excluded.sequence, hash = excluded.hash, frontier = excluded.frontier, high = excluded.high,
                low = excluded.low, dropped_at = excluded.dropped_at, key_id = excluded.key_id, mac = excluded.mac",
        head.organization.uuid(),
        head.sequence,
        head.hash.as_slice(),
        head.frontier.bytes(),
        known(head.sum.high),
        known(head.sum.low),
        now,
        key,
        // The key that seals is always configured.
        begins.mac(vouching, key).unwrap_or_default()
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Lets the key that seals now vouch for beginnings for which an older one does, so that the older one can be forgotten.
/// Answers how many, at most `limit`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn vouch_again(db: &EngineDb, vouching: &Arc<Vouching>, limit: i64) -> Result<u64, sqlx::Error> {
    let mut tx = db.auditor().await?;
    let older = sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, frontier, high, low, key_id, mac
             from audit_beginnings where key_id <> $1 limit $2 for update"#,
        vouching.keys().current_id(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let believed: Vec<Beginning> = older.iter().filter_map(|row| row.believed(vouching).ok()).collect();
    for begins in &believed {
        write(&mut tx, begins, vouching).await?;
    }
    tx.commit().await?;
    Ok(believed.len() as u64)
}
