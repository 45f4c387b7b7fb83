//! That somebody is to be forgotten, what became of it, and the certificate. The platform's own organization keeps it, and nothing
//! in it says who he was.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::audit::receipts::Receipt;
use crate::audit::record::moment;
use crate::{AuditKeyId, ErasureId, JobId, JobTx as _, OrganizationId, PersonId, TenantTx};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is being done.
    Pending,
    /// Meanwhile he had become the last owner of an organization; nothing was done.
    Refused,
    /// Nothing of him is left.
    Done,
}

impl State {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Done => "done",
        }
    }

    fn stored(word: &str) -> Self {
        match word {
            "pending" => Self::Pending,
            "done" => Self::Done,
            _ => Self::Refused,
        }
    }
}

/// That somebody is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: ErasureId,
    /// Who; of somebody who was forgotten nothing but this id is left.
    pub person: PersonId,
    /// The job that does it.
    pub job: JobId,
    /// When he asked for it.
    pub asked_at: DateTime<Utc>,
    /// What became of it.
    pub state: State,
    /// When.
    pub ended_at: Option<DateTime<Utc>>,
    /// What the platform signed of it.
    pub certificate: Option<Receipt>,
}

struct Row {
    id: ErasureId,
    person: PersonId,
    job: JobId,
    asked_at: DateTime<Utc>,
    state: String,
    ended_at: Option<DateTime<Utc>>,
    statement: Option<String>,
    key: Option<AuditKeyId>,
    public_key: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

impl From<Row> for Erasure {
    fn from(row: Row) -> Self {
        let certificate = match (row.statement, row.key, row.public_key, row.signature) {
            (Some(statement), Some(key), Some(public_key), Some(signature)) => {
                Some(Receipt { statement, key, public_key, signature })
            }
            _ => None,
        };
        Self {
            id: row.id,
            person: row.person,
            job: row.job,
            asked_at: row.asked_at,
            state: State::stored(&row.state),
            ended_at: row.ended_at,
            certificate,
        }
    }
}

/// What is signed of it: that his key was shredded in the records of these organizations, which can be looked at as long as there
/// are any.
#[must_use]
pub fn statement(erasure: &Erasure, organizations: &BTreeSet<OrganizationId>, at: DateTime<Utc>) -> String {
    let (asked_at, at) = (moment(erasure.asked_at), moment(at));
    let places: String =
        organizations.iter().flat_map(|organization| [organization.to_string(), "\n".to_owned()]).collect();
    format!("gantry erasure 1\n{}\n{}\n{asked_at}\n{at}\n{places}", erasure.id, erasure.person)
}

/// Notes that somebody is to be forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ask(tx: &mut TenantTx, person: PersonId, id: ErasureId, job: JobId) -> Result<Erasure, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into erasures (id, organization_id, person_id, job_id, asked_at) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        organization.uuid(),
        person.uuid(),
        job.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(Erasure { id, person, job, asked_at: now, state: State::Pending, ended_at: None, certificate: None })
}

/// One of them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: ErasureId) -> Result<Option<Erasure>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: ErasureId", person_id as "person: PersonId", job_id as "job: JobId", asked_at, state, ended_at,
                  statement, key_id as "key: AuditKeyId", public_key, signature
             from erasures where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(Erasure::from))
}

/// The one of this person that is being done.
///
/// # Errors
/// When the database refuses or went away.
pub async fn pending(tx: &mut TenantTx, person: PersonId) -> Result<Option<Erasure>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: ErasureId", person_id as "person: PersonId", job_id as "job: JobId", asked_at, state, ended_at,
                  statement, key_id as "key: AuditKeyId", public_key, signature
             from erasures where organization_id = $1 and person_id = $2 and state = 'pending'"#,
        organization.uuid(),
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(Erasure::from))
}

/// Nothing was done, for he is the last owner of an organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn refused(tx: &mut TenantTx, id: ErasureId) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update erasures set state = 'refused', ended_at = $3
          where organization_id = $1 and id = $2 and state = 'pending'",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// It was done, and this certifies it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn done(
    tx: &mut TenantTx,
    id: ErasureId,
    certificate: &Receipt,
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update erasures set state = 'done', ended_at = $3, statement = $4, key_id = $5, public_key = $6, signature = $7
          where organization_id = $1 and id = $2 and state = 'pending'",
        organization.uuid(),
        id.uuid(),
        at,
        certificate.statement,
        certificate.key.uuid(),
        certificate.public_key,
        certificate.signature
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
