//! Reading the record.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::asking::ASKING;
use super::draft::Outcome;
use super::record::Record;
use super::subjects::{self, SubjectError};
use crate::seal::SealingKeys;
use crate::window::in_order;
use crate::{AuditEntryId, JobId, JobTx as _, Order, OrganizationId, TenantTx, Window};

/// An entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: AuditEntryId,
    /// Whose record it is in.
    pub organization: OrganizationId,
    /// When it was recorded.
    pub occurred_at: DateTime<Utc>,
    /// The id of who did it, or a word.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Its number in the chain; `None`: it is not sealed yet.
    pub sequence: Option<i64>,
    /// Its link of the chain.
    pub hash: Option<Vec<u8>>,
    /// The text that is hashed.
    pub text: String,
    /// What it says, with everything opened that opens.
    pub record: Record,
    /// Something identified a person whose key was shredded, and says nothing any more.
    pub erased: bool,
}

/// Which entries; what is left out does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// By whom: the id.
    pub actor: Option<String>,
    /// To what: the id, or `kind:name`.
    pub target: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// Not before this moment.
    pub from: Option<DateTime<Utc>>,
    /// Before this moment.
    pub to: Option<DateTime<Utc>>,
}

/// Entries cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The keys of people cannot be had.
    #[error(transparent)]
    Subjects(#[from] SubjectError),
    /// The database refused or went away.
    #[error("reading the record")]
    Database(#[from] sqlx::Error),
    /// The text of an entry is none that a release wrote.
    #[error("the entry {0} cannot be read")]
    Text(AuditEntryId, #[source] serde_json::Error),
}

struct Row {
    id: AuditEntryId,
    organization: OrganizationId,
    occurred_at: DateTime<Utc>,
    actor: String,
    action: String,
    record: String,
    sequence: Option<i64>,
    hash: Option<Vec<u8>>,
}

/// How long after a job's id was made the entry about it may have been.
const ASKED_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// How far the moment in an entry's id may be from the entry's own.
const APART: TimeDelta = TimeDelta::minutes(5);

/// The parameters of one search.
struct Search<'a> {
    filter: &'a Filter,
    target: Option<&'a str>,
    /// Only entries that ask for jobs and name this one.
    mentions: Option<&'a str>,
    window: Window,
}

impl Search<'_> {
    async fn rows(&self, tx: &mut TenantTx) -> Result<Vec<Row>, sqlx::Error> {
        macro_rules! search {
            ($direction:literal) => {
                sqlx::query_as!(
                    Row,
                    r#"select e.id as "id: AuditEntryId", e.organization_id as "organization: OrganizationId",
                              e.occurred_at, e.actor, e.action, e.record, s.sequence as "sequence?", s.hash as "hash?"
                         from audit_entries e
                         left join audit_seals s on s.organization_id = e.organization_id and s.entry_id = e.id
                        where e.organization_id = $1 and e.id > $2 and e.id < $3
                          and ($4::text is null or e.actor = $4) and ($5::text is null or e.target = $5)
                          and ($6::text is null or e.action = $6) and ($7::audit_outcome is null or e.outcome = $7)
                          and ($8::timestamptz is null or e.occurred_at >= $8)
                          and ($9::timestamptz is null or e.occurred_at < $9)
                          and ($10::text is null or (e.action = any($11::text[]) and strpos(e.record, $10) > 0))
                        order by e.id "#
                        + $direction
                        + " limit $12",
                    tx.organization().uuid(),
                    self.window.low(),
                    self.window.high(),
                    self.filter.actor,
                    self.target,
                    self.filter.action,
                    self.filter.outcome as Option<Outcome>,
                    self.filter.from,
                    self.filter.to,
                    self.mentions,
                    &ASKING[..] as _,
                    self.window.limit
                )
                .fetch_all(tx.connection())
                .await
            };
        }
        in_order!(self.window.order, search)
    }
}

/// Entries of the transaction's organization that the filter selects, as far as the window shows them.
///
/// # Errors
/// When they cannot be read.
pub async fn list(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    filter: &Filter,
    window: Window,
) -> Result<Vec<Entry>, ReadError> {
    // What is not searched by must not be in the plan, or no index of what is would be used.
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(tx.connection()).await?;
    let from = filter.from.map(|from| from.checked_sub_signed(APART).unwrap_or(from));
    let to = filter.to.map(|to| to.checked_add_signed(APART).unwrap_or(to));
    let window = window.within(from, to);
    let search = Search { filter, target: filter.target.as_deref(), mentions: None, window };
    let mut rows = search.rows(tx).await?;
    // Jobs that were asked for in one request or together are named in the text of one entry.
    if let Some(job) = filter.target.as_ref().and_then(|target| target.parse::<JobId>().ok()) {
        let window = window.within(Some(job.minted_at()), Some(job.minted_at() + ASKED_WITHIN));
        rows.extend(Search { target: None, mentions: filter.target.as_deref(), window, ..search }.rows(tx).await?);
        rows.sort_by_key(|row| row.id);
        rows.dedup_by_key(|row| row.id);
        if window.order == Order::Descending {
            rows.reverse();
        }
        rows.truncate(usize::try_from(window.limit).unwrap_or(usize::MAX));
    }
    read(tx, keys, rows).await
}

/// An entry of the transaction's organization.
///
/// # Errors
/// When it cannot be read.
pub async fn find(tx: &mut TenantTx, keys: &SealingKeys, id: AuditEntryId) -> Result<Option<Entry>, ReadError> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select e.id as "id: AuditEntryId", e.organization_id as "organization: OrganizationId", e.occurred_at,
                  e.actor, e.action, e.record, s.sequence as "sequence?", s.hash as "hash?"
             from audit_entries e
             left join audit_seals s on s.organization_id = e.organization_id and s.entry_id = e.id
            where e.organization_id = $1 and e.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(read(tx, keys, row.into_iter().collect()).await?.pop())
}

/// The sealed entries of the transaction's organization behind this number, in order.
///
/// # Errors
/// When they cannot be read.
pub async fn sealed_after(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    sequence: i64,
    limit: i64,
) -> Result<Vec<Entry>, ReadError> {
    let organization = tx.organization();
    let rows = sqlx::query_as!(
        Row,
        r#"select e.id as "id: AuditEntryId", e.organization_id as "organization: OrganizationId", e.occurred_at,
                  e.actor, e.action, e.record, s.sequence as "sequence?", s.hash as "hash?"
             from audit_seals s
             join audit_entries e on e.organization_id = s.organization_id and e.id = s.entry_id
            where s.organization_id = $1 and s.sequence > $2 order by s.sequence limit $3"#,
        organization.uuid(),
        sequence,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    read(tx, keys, rows).await
}

/// A part of what identifies a person: entries that he made or that are about him, oldest first, with everything opened.
///
/// # Errors
/// When they cannot be read.
pub async fn of_person(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    person: Uuid,
    after: Option<AuditEntryId>,
    limit: i64,
) -> Result<Vec<Entry>, ReadError> {
    let organization = tx.organization();
    let rows = sqlx::query_as!(
        Row,
        r#"select e.id as "id!: AuditEntryId", e.organization_id as "organization!: OrganizationId",
                  e.occurred_at as "occurred_at!", e.actor as "actor!", e.action as "action!", e.record as "record!",
                  s.sequence as "sequence?", s.hash as "hash?"
             from (select * from audit_entries where organization_id = $1 and actor_subject = $2
                    union select * from audit_entries where organization_id = $1 and target_subject = $2) e
             left join audit_seals s on s.organization_id = e.organization_id and s.entry_id = e.id
            where $3::uuid is null or e.id > $3 order by e.id limit $4"#,
        organization.uuid(),
        person,
        after.map(AuditEntryId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    read(tx, keys, rows).await
}

/// Opens what opens.
async fn read(tx: &mut TenantTx, keys: &SealingKeys, rows: Vec<Row>) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let record: Record = serde_json::from_str(&row.record).map_err(|error| ReadError::Text(row.id, error))?;
        entries.push(Entry {
            id: row.id,
            organization: row.organization,
            occurred_at: row.occurred_at,
            actor: row.actor,
            action: row.action,
            sequence: row.sequence,
            hash: row.hash,
            text: row.record,
            record,
            erased: false,
        });
    }
    let mut people: Vec<Uuid> = entries.iter().flat_map(|entry| entry.record.subjects()).collect();
    people.sort_unstable();
    people.dedup();
    let people = subjects::find(tx, keys, &people).await?;
    for entry in &mut entries {
        entry.erased = entry.record.open(&people);
    }
    Ok(entries)
}
