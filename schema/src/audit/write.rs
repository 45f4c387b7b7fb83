//! Writing entries down, all of a transaction in one statement, the last one before its commit.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::author::{Actor, Author};
use super::draft::{Draft, Outcome};
use super::record::{Record, moment, to_micros, without_zeros};
use super::subjects::{self, DataKey, DataKeys, SubjectError};
use super::vouching::{Sum, Vouching};
use crate::seal::{SealError, SealingKeys};
use crate::{AuditEntryId, Db, IdMint, JobTx as _, OrganizationId};

/// Entries of one transaction.
const MAX_ENTRIES: usize = 10_000;

/// Entries of one statement.
const AT_ONCE: usize = 1_000;

/// How long a person's key is believed without looking: a shredded one is used no longer than this, and what is written
/// with it by then opens for nobody.
const BELIEVED: TimeDelta = TimeDelta::seconds(60);

/// Keys of people that are remembered.
const REMEMBERED: usize = 10_000;

/// Entries cannot be written down, so what they are about must not happen.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The process was put together without them.
    #[error("entries of the record need the installation's sealing keys: give them with Db::recording")]
    NoKeys,
    /// One transaction has too many.
    #[error("a transaction has at most {MAX_ENTRIES} entries in the record")]
    TooMany,
    /// A record is no JSON.
    #[error("an entry of the record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// Something cannot be encrypted.
    #[error("sealing an entry of the record")]
    Seal(#[from] SealError),
}

impl From<RecordError> for sqlx::Error {
    fn from(error: RecordError) -> Self {
        Self::Encode(Box::new(error))
    }
}

impl From<SubjectError> for sqlx::Error {
    fn from(error: SubjectError) -> Self {
        match error {
            SubjectError::Database(error) => error,
            SubjectError::Seal(error) => RecordError::Seal(error).into(),
        }
    }
}

/// What writing entries needs in a process.
#[derive(Debug)]
pub(crate) struct Recorder {
    vouching: Vouching,
    people: Mutex<HashMap<(OrganizationId, Uuid), Believed>>,
}

/// A person's key, and when it was looked at.
type Believed = (Arc<DataKey>, DateTime<Utc>);

impl Recorder {
    pub(crate) fn with(keys: Arc<SealingKeys>) -> Self {
        Self { vouching: Vouching::with(keys), people: Mutex::default() }
    }

    /// The keys of people that are believed, if those of all are.
    fn believed(&self, organization: OrganizationId, people: &BTreeSet<Uuid>, now: DateTime<Utc>) -> Option<DataKeys> {
        let known = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |person: &Uuid| {
            let (key, at) = known.get(&(organization, *person))?;
            ((TimeDelta::zero()..BELIEVED).contains(&(now - *at))).then(|| (*person, Arc::clone(key)))
        };
        people.iter().map(key).collect()
    }

    pub(crate) fn believe(&self, organization: OrganizationId, keys: &DataKeys, now: DateTime<Utc>) {
        if keys.is_empty() {
            return;
        }
        let mut known = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + keys.len() > REMEMBERED {
            known.clear();
        }
        known.extend(keys.iter().map(|(person, key)| ((organization, *person), (Arc::clone(key), now))));
    }

    pub(crate) fn forget(&self, organization: OrganizationId, person: Uuid) {
        self.people.lock().unwrap_or_else(PoisonError::into_inner).remove(&(organization, person));
    }
}

/// Entries as the columns of a statement.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) moments: Vec<DateTime<Utc>>,
    pub(crate) actors: Vec<String>,
    pub(crate) actions: Vec<String>,
    pub(crate) targets: Vec<Option<String>>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) records: Vec<String>,
    pub(crate) actor_subjects: Vec<Option<Uuid>>,
    pub(crate) target_subjects: Vec<Option<Uuid>>,
    pub(crate) macs: Vec<Vec<u8>>,
    pub(crate) key: String,
    pub(crate) sum: Sum,
}

impl Rows {
    pub(crate) fn len(&self) -> i64 {
        i64::try_from(self.ids.len()).unwrap_or(i64::MAX)
    }
}

/// Turns drafts into rows.
pub(crate) fn rows(
    recorder: &Recorder,
    organization: OrganizationId,
    drafts: Vec<(Draft, Arc<Author>)>,
    people: &DataKeys,
    ids: &IdMint,
    now: DateTime<Utc>,
) -> Result<Rows, RecordError> {
    let vouching = &recorder.vouching;
    let key = vouching.keys().current_id();
    let mut rows = Rows { key: key.to_owned(), ..Rows::default() };
    let (at, organization) = (to_micros(now), organization.to_string());
    let moment = moment(at);
    for (draft, author) in drafts {
        let (actor_subject, target_subject) =
            (author.actor.subject, draft.target.as_ref().and_then(|target| target.subject));
        let (action, outcome, id) = (draft.action.clone().into_owned(), draft.outcome, ids.mint::<AuditEntryId>());
        let record = Record::of(id, draft, &author, people).map_err(|_| SealError::Seal)?;
        let target = record.target.as_ref().map(|target| target.id.clone());
        let record = serde_json::to_string(&record)?;
        let actor = without_zeros(author.actor.id.clone());
        let fields = [moment.as_str(), &organization, &actor, &action, &record];
        let mac = vouching.entry(key, &fields).ok_or(RecordError::NoKeys)?;
        rows.sum = rows.sum.and(vouching.sum(key, &fields).ok_or(RecordError::NoKeys)?);
        rows.ids.push(id.uuid());
        rows.moments.push(at);
        rows.actors.push(actor);
        rows.actions.push(action);
        rows.targets.push(target);
        rows.outcomes.push(outcome);
        rows.records.push(record);
        rows.actor_subjects.push(actor_subject);
        rows.target_subjects.push(target_subject);
        rows.macs.push(mac);
    }
    Ok(rows)
}

/// Where a transaction writes its entries: it acts for this organization.
pub(crate) struct Scope<'a> {
    pub(crate) connection: &'a mut PgConnection,
    pub(crate) organization: OrganizationId,
    pub(crate) db: &'a Db,
}

/// Writes down what a transaction recorded. Answers the keys of people that may be believed once it is committed.
pub(crate) async fn write_all(
    scope: &mut Scope<'_>,
    recorder: &Recorder,
    drafts: Vec<Draft>,
    author: Option<Arc<Author>>,
) -> Result<DataKeys, sqlx::Error> {
    if drafts.len() > MAX_ENTRIES {
        return Err(RecordError::TooMany.into());
    }
    let author = author.unwrap_or_else(|| Arc::new(Author::new(Actor::system())));
    let by = |mut draft: Draft| {
        let author = draft.author.take().unwrap_or_else(|| Arc::clone(&author));
        (draft, author)
    };
    let mut drafts: Vec<(Draft, Arc<Author>)> = drafts.into_iter().map(by).collect();
    on_whose_behalf(scope.connection, &mut drafts).await?;
    let subjects: BTreeSet<Uuid> = drafts.iter().flat_map(|(draft, author)| draft.subjects(author)).collect();
    let (organization, now) = (scope.organization, scope.db.now());
    let people = match recorder.believed(organization, &subjects, now) {
        Some(people) => people,
        None => subjects::make_in(scope.connection, organization, recorder.vouching.keys(), &subjects, now).await?,
    };
    while !drafts.is_empty() {
        let some = drafts.drain(..drafts.len().min(AT_ONCE)).collect();
        let rows = rows(recorder, organization, some, &people, scope.db.ids(), now)?;
        write(scope.connection, organization, &rows).await?;
    }
    Ok(people)
}

/// Entries of a transaction of their own, as rows of a statement that also does what they are about.
pub(crate) async fn rows_alone(
    db: &Db,
    organization: OrganizationId,
    drafts: Vec<(Draft, Arc<Author>)>,
) -> Result<Rows, sqlx::Error> {
    let recorder = db.recorder().ok_or(RecordError::NoKeys)?;
    let subjects: BTreeSet<Uuid> = drafts.iter().flat_map(|(draft, author)| draft.subjects(author)).collect();
    let now = db.now();
    let people = if let Some(people) = recorder.believed(organization, &subjects, now) {
        people
    } else {
        let mut tx = db.tenant(organization).await?;
        let keys = recorder.vouching.keys();
        let people = subjects::make_in(tx.connection(), organization, keys, &subjects, now).await?;
        tx.commit().await?;
        recorder.believe(organization, &people, now);
        people
    };
    Ok(rows(recorder, organization, drafts, &people, db.ids(), now)?)
}

/// Handlers act for whoever asked for their job.
async fn on_whose_behalf(
    connection: &mut PgConnection,
    drafts: &mut [(Draft, Arc<Author>)],
) -> Result<(), sqlx::Error> {
    for (_, author) in drafts {
        let (Some(job), None) = (author.job, &author.actor.on_behalf_of) else { continue };
        let asked = sqlx::query_scalar!("select requested_by from jobs where id = $1", job.uuid())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(asked) = asked {
            Arc::make_mut(author).actor.on_behalf_of = Some(asked);
        }
    }
    Ok(())
}

async fn write(connection: &mut PgConnection, organization: OrganizationId, rows: &Rows) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/audit/write.sql",
        organization.uuid(),
        &rows.ids,
        &rows.moments,
        &rows.actors,
        &rows.actions,
        &rows.targets as _,
        &rows.outcomes as _,
        &rows.records,
        &rows.actor_subjects as _,
        &rows.target_subjects as _,
        &rows.macs,
        rows.key,
        rows.len(),
        rows.sum.high,
        rows.sum.low
    )
    .execute(connection)
    .await
    .map(drop)
}
