//! Verification: whether an organization's record is what was written, nothing changed, removed, put in or put elsewhere.
//! What was sealed is told by the chain, its signed checkpoints and what the platform's own record witnessed of them; what
//! was not yet, by the codes of the installation's keys and the tallies.

use std::collections::HashMap;
use std::fmt;

use super::chain::{BEGINNING, Hash};
use super::checkpoints::{self, Checkpoint, WITNESS, Witnessed};
use super::draft::Outcome;
use super::heads::{Doubt, Head, Row};
use super::keys::PublicKeys;
use super::merkle::{Frontier, leaf};
use super::record::Record;
use super::retention;
use super::stored::{Stored, Vouched};
use super::vouching::{Sum, Vouching};
use crate::digest::hex;
use crate::{AuditEntryId, Db, JobTx as _, OrganizationId, TenantTx};

/// Entries read at once.
const PAGE: u16 = 1_000;

/// How often a record is walked along when it begins elsewhere at the end.
const MAX_TRIES: usize = 3;

/// Problems that are named; of more it is said how many there are.
const MAX_PROBLEMS: usize = 1_000;

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// An entry is not what was sealed under its number.
    Changed {
        /// The entry.
        entry: AuditEntryId,
        /// Its number.
        sequence: i64,
    },
    /// An entry was sealed and is gone.
    Removed {
        /// The entry.
        entry: AuditEntryId,
        /// Its number.
        sequence: i64,
    },
    /// Numbers are missing.
    Gap {
        /// The first.
        from: i64,
        /// The last.
        to: i64,
    },
    /// The installation did not write the entry like this: it was put in, or changed.
    Forged {
        /// The entry.
        entry: AuditEntryId,
        /// Its number, if it has one.
        sequence: Option<i64>,
    },
    /// There are entries, and nothing says where the chain ends.
    NoHead,
    /// Where the chain ends was written by somebody else.
    ForgedHead,
    /// What the record begins with, where old entries were dropped, was written by somebody else.
    ForgedBeginning,
    /// The chain ends elsewhere than it was sealed: entries were cut off, or appended.
    OtherEnd {
        /// The last number that was sealed.
        sealed: i64,
        /// The last number that is there.
        found: i64,
    },
    /// A checkpoint does not fit the record: entries that it covers were rewritten.
    OtherCheckpoint {
        /// The last entry it covers.
        sequence: i64,
        /// Where the checkpoint is from.
        source: Source,
    },
    /// A checkpoint covers more than there is: entries were cut off.
    Truncated {
        /// The last entry that it covers.
        sequence: i64,
        /// The last number that is there.
        found: i64,
        /// Where the checkpoint is from.
        source: Source,
    },
    /// A checkpoint was not signed by a key of this installation.
    ForgedCheckpoint {
        /// The last entry it covers.
        sequence: i64,
        /// Where the checkpoint is from.
        source: Source,
    },
    /// Entries that were written and not yet sealed are gone, or others were put in.
    OtherTally {
        /// How many were written.
        written: i64,
        /// How many are there.
        found: i64,
    },
    /// A key that is needed to tell is not configured.
    UnknownKey {
        /// Its id.
        key: String,
    },
    /// There is nothing, where there should be something.
    Empty,
    /// Problems that are not named.
    More {
        /// How many.
        count: usize,
    },
}

/// Where a checkpoint is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The database.
    Database,
    /// The platform's own record.
    Witness,
    /// Somebody who kept it.
    Kept,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "the checkpoint",
            Self::Witness => "the checkpoint that the platform's record witnessed",
            Self::Kept => "the checkpoint that was kept elsewhere",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { entry, sequence } => {
                write!(
                    f,
                    "{entry}, number {sequence}, is not what was sealed there: it was changed, or put there in place of another"
                )
            }
            Self::Removed { entry, sequence } => write!(f, "{entry}, number {sequence}, was removed"),
            Self::Gap { from, to } if from == to => write!(f, "number {from} was removed"),
            Self::Gap { from, to } => write!(f, "numbers {from} to {to} were removed"),
            Self::Forged { entry, sequence: Some(sequence) } => {
                write!(
                    f,
                    "{entry}, number {sequence}, was not written like this by this installation: it was changed or put in"
                )
            }
            Self::Forged { entry, sequence: None } => {
                write!(
                    f,
                    "{entry}, not sealed yet, was not written like this by this installation: it was changed or put in"
                )
            }
            Self::NoHead => f.write_str("nothing says where the chain ends: the row in audit_heads was removed"),
            Self::ForgedHead => f.write_str("where the chain ends was not written like this by this installation"),
            Self::ForgedBeginning => f.write_str(
                "what it begins with was not written like this by this installation: entries were cut off before",
            ),
            Self::OtherEnd { sealed, found } if found < sealed => {
                write!(f, "it was sealed up to number {sealed} and ends at number {found}: entries were cut off")
            }
            Self::OtherEnd { sealed, found } => {
                write!(f, "it was sealed up to number {sealed} and ends at number {found}: the end was rewritten")
            }
            Self::OtherCheckpoint { sequence, source } => {
                write!(f, "{source} at number {sequence} does not fit: something it covers was rewritten")
            }
            Self::Truncated { sequence, found, source } => {
                write!(
                    f,
                    "{source} covers number {sequence}, and the record ends at number {found}: entries were cut off"
                )
            }
            Self::ForgedCheckpoint { sequence, source } => {
                write!(f, "{source} at number {sequence} was not signed by a key of this installation")
            }
            Self::OtherTally { written, found } if written == found => {
                write!(f, "of {written} entries that were written some were exchanged before they were sealed")
            }
            Self::OtherTally { written, found } if found < written => {
                write!(
                    f,
                    "{written} entries were written and {found} are there: some were removed before they were sealed"
                )
            }
            Self::OtherTally { written, found } => {
                write!(
                    f,
                    "{written} entries were written and {found} are there: the tallies were changed, or entries put in"
                )
            }
            Self::UnknownKey { key } => write!(
                f,
                "the sealing key {key} is needed to tell, and is not configured; add it to GANTRY_SEALING_KEYS_OLDER"
            ),
            Self::Empty => f.write_str("nothing is recorded here"),
            Self::More { count } => write!(f, "and {count} more"),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whose record.
    pub organization: OrganizationId,
    /// The number of the last entry that was dropped for its age; 0: none was.
    pub dropped: i64,
    /// The number of the last sealed entry.
    pub last: i64,
    /// Sealed entries that were looked at.
    pub sealed: i64,
    /// Entries that wait to be sealed.
    pub unsealed: i64,
    /// Checkpoints that were compared.
    pub checkpoints: usize,
    /// What is wrong; empty: nothing is.
    pub problems: Vec<Problem>,
}

impl Verdict {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }

    /// There is nothing, and never was as far as can be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems == [Problem::Empty]
    }

    fn note(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        } else if let Some(Problem::More { count }) = self.problems.last_mut() {
            *count += 1;
        } else {
            self.problems.push(Problem::More { count: 1 });
        }
    }

    /// Once is enough.
    fn note_key(&mut self, key: &str) {
        let problem = Problem::UnknownKey { key: key.to_owned() };
        if !self.problems.contains(&problem) {
            self.note(problem);
        }
    }
}

/// What the record is compared with, beside itself.
#[derive(Debug, Default)]
pub struct Against<'a> {
    /// The newest checkpoint that the platform's own record witnessed.
    pub witness: Option<&'a Witnessed>,
    /// Checkpoints that somebody kept.
    pub kept: &'a [Checkpoint],
}

/// Where the walk along the chain is.
struct Walk {
    verdict: Verdict,
    /// What is said to have been dropped, believed or not.
    begins_after: i64,
    previous: Hash,
    frontier: Frontier,
    sum: Sum,
    /// The sum cannot be told any more.
    sum_is_unknown: bool,
}

/// A link, and the entry it is of, as far as it is there.
pub(super) struct Sealed {
    pub(super) sequence: i64,
    entry: AuditEntryId,
    pub(super) hash: Vec<u8>,
    pub(super) stored: Option<Stored>,
}

/// Verifies the record of an organization. Nothing is locked; what is written meanwhile is looked at or not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn organization(
    db: &Db,
    vouching: &Vouching,
    public_keys: &PublicKeys,
    organization: OrganizationId,
    against: &Against<'_>,
) -> Result<Verdict, sqlx::Error> {
    let mut tries = 0;
    loop {
        let (verdict, began) = walked(db, vouching, public_keys, organization, against).await?;
        tries += 1;
        // What was dropped for its age meanwhile was taken for missing.
        if began == Began::Where || tries == MAX_TRIES {
            return Ok(verdict);
        }
    }
}

/// Whether the record begins where it did when the walk began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Began {
    Where,
    Later,
}

async fn walked(
    db: &Db,
    vouching: &Vouching,
    public_keys: &PublicKeys,
    organization: OrganizationId,
    against: &Against<'_>,
) -> Result<(Verdict, Began), sqlx::Error> {
    let verdict =
        Verdict { organization, dropped: 0, last: 0, sealed: 0, unsealed: 0, checkpoints: 0, problems: Vec::new() };
    let mut walk = Walk {
        verdict,
        begins_after: 0,
        previous: BEGINNING,
        frontier: Frontier::default(),
        sum: Sum::default(),
        sum_is_unknown: false,
    };
    let mut tx = db.tenant(organization).await?;
    walk.begin(&mut tx, vouching).await?;
    tx.rollback().await?;
    loop {
        let mut tx = db.tenant(organization).await?;
        let more = walk.on(&mut tx, vouching, public_keys, against).await?;
        tx.rollback().await?;
        if !more {
            break;
        }
    }
    // The rest at one moment, or what is sealed in between would be taken for missing.
    let mut tx = db.tenant_snapshot(organization).await?;
    while walk.on(&mut tx, vouching, public_keys, against).await? {}
    walk.end(&mut tx, vouching, public_keys, against).await?;
    let began = if retention::begins_after(&mut tx).await? == walk.begins_after { Began::Where } else { Began::Later };
    tx.rollback().await?;
    Ok((walk.verdict, began))
}

impl Walk {
    /// Where older entries were dropped, the walk begins behind them.
    async fn begin(&mut self, tx: &mut TenantTx, vouching: &Vouching) -> Result<(), sqlx::Error> {
        let Some(row) = retention::beginning(tx).await? else { return Ok(()) };
        self.begins_after = row.sequence;
        match row.believed(vouching) {
            Ok(beginning) => {
                (self.verdict.dropped, self.verdict.last) = (beginning.head.sequence, beginning.head.sequence);
                self.previous = beginning.head.hash;
                self.frontier = beginning.head.frontier;
                self.sum = beginning.head.sum;
                self.sum_is_unknown = beginning.sum_is_unknown;
            }
            Err(Doubt::Forged) => self.verdict.note(Problem::ForgedBeginning),
            Err(Doubt::UnknownKey) => self.verdict.note_key(&row.key_id),
        }
        Ok(())
    }

    /// The next page. Answers whether there may be another.
    async fn on(
        &mut self,
        tx: &mut TenantTx,
        vouching: &Vouching,
        public_keys: &PublicKeys,
        against: &Against<'_>,
    ) -> Result<bool, sqlx::Error> {
        let page = sealed(tx, self.verdict.last).await?;
        let (Some(last), more) = (page.last().map(|last| last.sequence), page.len() == usize::from(PAGE)) else {
            return Ok(false);
        };
        let checkpoints = checkpoints::between(tx, self.verdict.last, last).await?;
        let mut checkpoints = checkpoints.iter().peekable();
        for sealed in &page {
            self.step(sealed, vouching);
            while let Some(checkpoint) = checkpoints.next_if(|checkpoint| checkpoint.sequence <= sealed.sequence) {
                self.compare(checkpoint, Source::Database, public_keys);
            }
            for kept in against.kept.iter().filter(|kept| kept.sequence == sealed.sequence) {
                self.compare(kept, Source::Kept, public_keys);
            }
            if let Some(witness) = against.witness.filter(|witness| witness.sequence == sealed.sequence) {
                self.verdict.checkpoints += 1;
                if witness.hash != hex(&sealed.hash) {
                    let (sequence, source) = (sealed.sequence, Source::Witness);
                    self.verdict.note(Problem::OtherCheckpoint { sequence, source });
                }
            }
        }
        Ok(more)
    }

    fn step(&mut self, sealed: &Sealed, vouching: &Vouching) {
        let expected = self.verdict.last + 1;
        if sealed.sequence > expected {
            self.verdict.note(Problem::Gap { from: expected, to: sealed.sequence - 1 });
            self.sum_is_unknown = true;
        }
        let (entry, sequence) = (sealed.entry, sealed.sequence);
        let hash = Hash::try_from(sealed.hash.as_slice()).unwrap_or_default();
        match &sealed.stored {
            None => {
                self.verdict.note(Problem::Removed { entry, sequence });
                self.sum_is_unknown = true;
            }
            Some(stored) => {
                let linked = stored.link(&self.previous, sequence) == hash;
                // Behind a gap nothing can be said of the link itself.
                let changed = (!linked && sequence == expected) || !stored.is_as_recorded();
                if changed {
                    self.verdict.note(Problem::Changed { entry, sequence });
                }
                match stored.vouched(vouching) {
                    Vouched::Written(sum) => self.sum = self.sum.and(sum),
                    Vouched::Forged => {
                        if !changed {
                            self.verdict.note(Problem::Forged { entry, sequence: Some(sequence) });
                        }
                        self.sum_is_unknown = true;
                    }
                    // The chain vouches for it by now.
                    Vouched::UnknownKey => self.sum_is_unknown = true,
                }
            }
        }
        self.verdict.last = sequence;
        self.verdict.sealed += 1;
        self.previous = hash;
        self.frontier.push(leaf(&hash), |_, _| {});
    }

    fn compare(&mut self, checkpoint: &Checkpoint, source: Source, public_keys: &PublicKeys) {
        self.verdict.checkpoints += 1;
        let sequence = checkpoint.sequence;
        let known = public_keys.get(&checkpoint.key);
        if !known.is_some_and(|key| checkpoint.is_signed_by(key)) {
            self.verdict.note(Problem::ForgedCheckpoint { sequence, source });
        }
        let fits = checkpoint.sequence == self.verdict.last
            && checkpoint.hash == self.previous
            && checkpoint.root == self.frontier.root()
            && checkpoint.organization == self.verdict.organization;
        if !fits {
            self.verdict.note(Problem::OtherCheckpoint { sequence, source });
        }
    }

    /// What lies behind the chain: its head, checkpoints that cover more, and what is not sealed yet.
    async fn end(
        &mut self,
        tx: &mut TenantTx,
        vouching: &Vouching,
        public_keys: &PublicKeys,
        against: &Against<'_>,
    ) -> Result<(), sqlx::Error> {
        let found = self.verdict.last;
        for checkpoint in checkpoints::between(tx, found, i64::MAX).await? {
            let (sequence, source) = (checkpoint.sequence, Source::Database);
            let genuine = public_keys.get(&checkpoint.key).is_some_and(|key| checkpoint.is_signed_by(key));
            self.verdict.note(if genuine {
                Problem::Truncated { sequence, found, source }
            } else {
                Problem::ForgedCheckpoint { sequence, source }
            });
        }
        for kept in against.kept.iter().filter(|kept| kept.sequence > found) {
            self.verdict.note(Problem::Truncated { sequence: kept.sequence, found, source: Source::Kept });
        }
        if let Some(witness) = against.witness.filter(|witness| witness.sequence > found) {
            self.verdict.note(Problem::Truncated { sequence: witness.sequence, found, source: Source::Witness });
        }
        let head = self.head(tx, vouching).await?;
        self.unsealed(tx, vouching, head.as_ref()).await
    }

    async fn head(&mut self, tx: &mut TenantTx, vouching: &Vouching) -> Result<Option<Head>, sqlx::Error> {
        let found = self.verdict.last;
        let Some(row) = head(tx).await? else {
            if found > 0 {
                self.verdict.note(Problem::NoHead);
            }
            return Ok(None);
        };
        let head = match row.believed(vouching) {
            Ok(head) => head,
            Err(Doubt::Forged) => {
                self.verdict.note(Problem::ForgedHead);
                return Ok(None);
            }
            Err(Doubt::UnknownKey) => {
                self.verdict.note_key(&row.key_id);
                return Ok(None);
            }
        };
        if head.sequence != found || head.hash != self.previous || head.frontier != self.frontier {
            self.verdict.note(Problem::OtherEnd { sealed: head.sequence, found });
        } else if !self.sum_is_unknown && head.sum != self.sum {
            self.verdict.note(Problem::ForgedHead);
        }
        Ok(Some(head))
    }

    async fn unsealed(
        &mut self,
        tx: &mut TenantTx,
        vouching: &Vouching,
        head: Option<&Head>,
    ) -> Result<(), sqlx::Error> {
        let tally = tally(tx).await?;
        let (mut sum, mut unknown, mut after) = (head.map_or_else(Sum::default, |head| head.sum), false, None);
        loop {
            let page = unsealed(tx, after).await?;
            for entry in &page {
                self.verdict.unsealed += 1;
                match entry.vouched(vouching) {
                    Vouched::Written(more) => sum = sum.and(more),
                    Vouched::Forged => {
                        self.verdict.note(Problem::Forged { entry: entry.id, sequence: None });
                        unknown = true;
                    }
                    Vouched::UnknownKey => {
                        self.verdict.note_key(&entry.key_id);
                        unknown = true;
                    }
                }
            }
            after = page.last().map(|last| last.id);
            if page.len() < usize::from(PAGE) {
                break;
            }
        }
        let nothing = self.verdict.last == 0 && self.verdict.unsealed == 0;
        if nothing && tally.entries == 0 && head.is_none() {
            if self.verdict.is_fine() {
                self.verdict.note(Problem::Empty);
            }
            return Ok(());
        }
        let sealed = head.map_or(self.verdict.last, |head| head.sequence);
        let found = sealed + self.verdict.unsealed;
        // Without a head that is believed, the sum says nothing.
        let other = tally.entries != found || (!unknown && head.is_some() == (sealed > 0) && tally.sum != sum);
        if other {
            self.verdict.note(Problem::OtherTally { written: tally.entries, found });
        }
        Ok(())
    }
}

struct Tally {
    entries: i64,
    sum: Sum,
}

async fn tally(tx: &mut TenantTx) -> Result<Tally, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        r#"select coalesce(sum(entries), 0)::bigint as "entries!", coalesce(bit_xor(high), 0) as "high!",
                  coalesce(bit_xor(low), 0) as "low!"
             from audit_tallies where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(Tally { entries: row.entries, sum: Sum { high: row.high, low: row.low } })
}

async fn head(tx: &mut TenantTx) -> Result<Option<Row>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, frontier, high, low, key_id, mac
             from audit_heads where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Sealed entries behind this number, with their seals.
pub(super) async fn sealed(tx: &mut TenantTx, after: i64) -> Result<Vec<Sealed>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select s.sequence, s.entry_id as "entry: AuditEntryId", s.hash, e.id is not null as "there!",
                  e.occurred_at as "occurred_at?", e.actor as "actor?", e.action as "action?", e.target,
                  e.outcome as "outcome?: Outcome", e.record as "record?", e.actor_subject, e.target_subject,
                  e.key_id as "key_id?", e.mac as "mac?"
             from audit_seals s
             left join audit_entries e on e.organization_id = s.organization_id and e.id = s.entry_id
            where s.organization_id = $1 and s.sequence > $2 order by s.sequence limit $3"#,
        organization.uuid(),
        after,
        i64::from(PAGE)
    )
    .fetch_all(tx.connection())
    .await?;
    let sealed = rows.into_iter().map(|row| {
        let stored = match (row.occurred_at, row.outcome) {
            (Some(occurred_at), Some(outcome)) if row.there => Some(Stored {
                id: row.entry,
                organization,
                occurred_at,
                actor: row.actor.unwrap_or_default(),
                action: row.action.unwrap_or_default(),
                target: row.target,
                outcome,
                record: row.record.unwrap_or_default(),
                actor_subject: row.actor_subject,
                target_subject: row.target_subject,
                key_id: row.key_id.unwrap_or_default(),
                mac: row.mac.unwrap_or_default(),
            }),
            _ => None,
        };
        Sealed { sequence: row.sequence, entry: row.entry, hash: row.hash, stored }
    });
    Ok(sealed.collect())
}

/// Entries without a seal, behind this id.
async fn unsealed(tx: &mut TenantTx, after: Option<AuditEntryId>) -> Result<Vec<Stored>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Stored,
        r#"select e.id as "id: AuditEntryId", e.organization_id as "organization: OrganizationId", e.occurred_at, e.actor,
                  e.action, e.target, e.outcome as "outcome: Outcome", e.record, e.actor_subject, e.target_subject,
                  e.key_id, e.mac
             from audit_entries e
            where e.organization_id = $1 and ($2::uuid is null or e.id > $2)
              and not exists (select from audit_seals s where s.organization_id = e.organization_id and s.entry_id = e.id)
            order by e.id limit $3"#,
        organization.uuid(),
        after.map(AuditEntryId::uuid),
        i64::from(PAGE)
    )
    .fetch_all(tx.connection())
    .await
}

/// The newest checkpoint of each organization that the platform's own record witnessed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn witnesses(db: &Db, vouching: &Vouching) -> Result<HashMap<OrganizationId, Witnessed>, sqlx::Error> {
    let mut newest: HashMap<OrganizationId, Witnessed> = HashMap::new();
    let mut before: Option<AuditEntryId> = None;
    loop {
        let mut tx = db.tenant(OrganizationId::PLATFORM).await?;
        let page = sqlx::query_as!(
            Stored,
            r#"select id as "id: AuditEntryId", organization_id as "organization: OrganizationId", occurred_at, actor,
                      action, target, outcome as "outcome: Outcome", record, actor_subject, target_subject, key_id, mac
                 from audit_entries
                where organization_id = $1 and action = $2 and ($3::uuid is null or id < $3)
                order by id desc limit $4"#,
            OrganizationId::PLATFORM.uuid(),
            WITNESS,
            before.map(AuditEntryId::uuid),
            i64::from(PAGE)
        )
        .fetch_all(tx.connection())
        .await?;
        tx.rollback().await?;
        for entry in page.iter().filter(|entry| entry.vouched(vouching) != Vouched::Forged) {
            let Ok(record) = serde_json::from_str::<Record>(&entry.record) else { continue };
            for change in record.changes {
                let witnessed = change.after.and_then(|after| serde_json::from_value::<Witnessed>(after).ok());
                let (Ok(organization), Some(witnessed)) = (change.path.parse(), witnessed) else { continue };
                newest.entry(organization).or_insert(witnessed);
            }
        }
        before = page.last().map(|last| last.id);
        if page.len() < usize::from(PAGE) {
            return Ok(newest);
        }
    }
}
