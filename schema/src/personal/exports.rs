//! Copies of what is known of people. There is one of a person, sealed, and not for long.

use chrono::{DateTime, Duration, Utc};
use secrecy::ExposeSecret as _;

use crate::audit::receipts::Receipt;
use crate::digest::hex;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{AuditKeyId, ExportId, JobId, OrganizationId, PersonId, PersonalTx};

/// How long a copy can be fetched.
pub const LASTS: Duration = Duration::days(7);

/// The largest copy that is made.
pub const MOST_BYTES: usize = 32 * 1024 * 1024;

/// A copy that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its id.
    pub id: ExportId,
    /// Of what is known of whom.
    pub person: PersonId,
    /// The job that makes it.
    pub job: JobId,
    /// When it was asked for.
    pub asked_at: DateTime<Utc>,
    /// When it is forgotten.
    pub expires_at: DateTime<Utc>,
    /// What there is, as soon as it was made.
    pub made: Option<Made>,
}

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// When.
    pub at: DateTime<Utc>,
    /// Its length.
    pub bytes: i64,
    /// What the platform signed of it.
    pub receipt: Receipt,
}

/// A copy cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It does not open, or could not be sealed.
    #[error("a sealed copy of what is known of somebody")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("the table of copies")]
    Database(#[from] sqlx::Error),
}

struct Row {
    id: ExportId,
    person: PersonId,
    job: JobId,
    asked_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    made_at: Option<DateTime<Utc>>,
    bytes: Option<i64>,
    statement: Option<String>,
    key: Option<AuditKeyId>,
    public_key: Option<Vec<u8>>,
    signature: Option<Vec<u8>>,
}

impl From<Row> for Export {
    fn from(row: Row) -> Self {
        let made = match (row.made_at, row.bytes, row.statement, row.key, row.public_key, row.signature) {
            (Some(at), Some(bytes), Some(statement), Some(key), Some(public_key), Some(signature)) => {
                Some(Made { at, bytes, receipt: Receipt { statement, key, public_key, signature } })
            }
            _ => None,
        };
        Self { id: row.id, person: row.person, job: row.job, asked_at: row.asked_at, expires_at: row.expires_at, made }
    }
}

/// The one place where a copy opens.
#[must_use]
pub fn place(id: ExportId) -> SealContext<'static> {
    SealContext {
        organization: OrganizationId::PLATFORM.uuid(),
        table: "personal_exports",
        column: "content",
        row: id.uuid(),
    }
}

/// What is signed of a copy.
#[must_use]
pub fn statement(id: ExportId, person: PersonId, content: &[u8], at: DateTime<Utc>) -> String {
    let (sha256, at) = (hex(&crate::digest::sha256_alone(content)), crate::audit::record::moment(at));
    format!("gantry personal export 1\n{id}\n{person}\n{sha256}\n{}\n{at}\n", content.len())
}

/// Notes that the person the transaction acts for wants a copy. The one before is gone.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ask(tx: &mut impl PersonalTx, person: PersonId, id: ExportId, job: JobId) -> Result<Export, sqlx::Error> {
    let now = tx.now();
    sqlx::query!("delete from personal_exports where person_id = $1", person.uuid()).execute(tx.connection()).await?;
    sqlx::query!(
        "insert into personal_exports (id, person_id, job_id, asked_at, expires_at) values ($1, $2, $3, $4, $5)",
        id.uuid(),
        person.uuid(),
        job.uuid(),
        now,
        now + LASTS
    )
    .execute(tx.connection())
    .await?;
    Ok(Export { id, person, job, asked_at: now, expires_at: now + LASTS, made: None })
}

/// The copy of the person the transaction acts for that was asked for last, until it is forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn latest(tx: &mut impl PersonalTx, person: PersonId) -> Result<Option<Export>, sqlx::Error> {
    let now = tx.now();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: ExportId", person_id as "person: PersonId", job_id as "job: JobId", asked_at, expires_at,
                  made_at, bytes, statement, key_id as "key: AuditKeyId", public_key, signature
             from personal_exports where person_id = $1 and expires_at > $2"#,
        person.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(Export::from))
}

/// What is in a copy of the person the transaction acts for; `None`: it was not made yet, or is gone.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn content(
    tx: &mut impl PersonalTx,
    keys: &SealingKeys,
    person: PersonId,
    id: ExportId,
) -> Result<Option<Vec<u8>>, ExportError> {
    let now = tx.now();
    let sealed = sqlx::query_scalar!(
        "select content from personal_exports where id = $1 and person_id = $2 and expires_at > $3",
        id.uuid(),
        person.uuid(),
        now
    )
    .fetch_optional(tx.connection())
    .await?
    .flatten();
    let Some(sealed) = sealed else { return Ok(None) };
    Ok(Some(keys.open(&place(id), &sealed)?.expose_secret().to_vec()))
}

/// Keeps a copy that was made, and the receipt of it; it lasts from now on. `false`: another one was asked for, or it was made
/// already.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn keep(
    tx: &mut impl PersonalTx,
    keys: &SealingKeys,
    id: ExportId,
    content: &[u8],
    receipt: &Receipt,
    at: DateTime<Utc>,
) -> Result<bool, ExportError> {
    let sealed = keys.seal(&place(id), content)?;
    let done = sqlx::query!(
        "update personal_exports
            set content = $2, bytes = $3, made_at = $4, expires_at = $5, statement = $6, key_id = $7, public_key = $8,
                signature = $9
          where id = $1 and made_at is null",
        id.uuid(),
        sealed,
        i64::try_from(content.len()).unwrap_or(i64::MAX),
        at,
        at + LASTS,
        receipt.statement,
        receipt.key.uuid(),
        receipt.public_key,
        receipt.signature
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}
