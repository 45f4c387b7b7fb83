//! Factors in the table.

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use zeroize::Zeroizing;

use crate::db::EngineDb;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{FactorId, OrganizationId, PersonId, PersonalTx};

/// How long somebody has to show that what he enrols works.
const TO_CONFIRM: Duration = Duration::hours(1);

/// Wrong codes in a row after which none of a device is right any more (NIST SP 800-63B-4, 3.2.2).
pub const MAX_FAILURES: i32 = 100;

/// What somebody proves himself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A device that shows codes by the time.
    Totp,
    /// A passkey, or a security key (WebAuthn).
    Passkey,
    /// Codes that are sent to a telephone.
    Sms,
    /// Codes that are sent by mail.
    Email,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Totp, Self::Passkey, Self::Sms, Self::Email];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::Sms => "sms",
            Self::Email => "email",
        }
    }

    /// From its word.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A factor, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: FactorId,
    /// What it is.
    pub kind: Kind,
    /// What its owner calls it.
    pub name: String,
    /// When it was begun.
    pub created_at: DateTime<Utc>,
    /// When it was shown to work; `None`: it counts for nothing yet.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When it was used last.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Of a passkey: it has left the device it was made on.
    pub backed_up: bool,
    /// Of a passkey: when its count went backwards, as that of a copy would.
    pub suspected_at: Option<DateTime<Utc>>,
    /// Where codes are sent to.
    pub address: Option<String>,
}

struct Row {
    id: FactorId,
    kind: String,
    name: String,
    created_at: DateTime<Utc>,
    confirmed_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    backed_up: bool,
    suspected_at: Option<DateTime<Utc>>,
    address: Option<String>,
}

impl TryFrom<Row> for Factor {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let unknown = || sqlx::Error::Decode(format!("{:?} is no kind of factor", row.kind).into());
        Ok(Self {
            id: row.id,
            kind: Kind::read(&row.kind).ok_or_else(unknown)?,
            name: row.name,
            created_at: row.created_at,
            confirmed_at: row.confirmed_at,
            last_used_at: row.last_used_at,
            backed_up: row.backed_up,
            suspected_at: row.suspected_at,
            address: row.address,
        })
    }
}

/// Where a TOTP device's secret is sealed.
#[must_use]
pub fn place(id: FactorId) -> SealContext<'static> {
    SealContext { organization: OrganizationId::PLATFORM.uuid(), table: "factors", column: "secret", row: id.uuid() }
}

/// Everything the person has, what is not confirmed and has not expired too; there are few.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut impl PersonalTx, person: PersonId) -> Result<Vec<Factor>, sqlx::Error> {
    let now = tx.now();
    let rows = sqlx::query_as!(
        Row,
        r#"select id as "id: FactorId", kind, name, created_at, confirmed_at, last_used_at, backed_up, suspected_at,
                  address
             from factors where person_id = $1 and (expires_at is null or expires_at > $2) order by id"#,
        person.uuid(),
        now
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter().map(Factor::try_from).collect()
}

/// What the person can prove himself with.
///
/// # Errors
/// When the database refuses or went away.
pub async fn confirmed(tx: &mut impl PersonalTx, person: PersonId) -> Result<Vec<Factor>, sqlx::Error> {
    let mut all = list(tx, person).await?;
    all.retain(|factor| factor.confirmed_at.is_some());
    Ok(all)
}

/// One of the person's.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut impl PersonalTx, person: PersonId, id: FactorId) -> Result<Option<Factor>, sqlx::Error> {
    Ok(list(tx, person).await?.into_iter().find(|factor| factor.id == id))
}

/// How many the person has, what is not confirmed too.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut impl PersonalTx, person: PersonId) -> Result<i64, sqlx::Error> {
    let now = tx.now();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from factors where person_id = $1 and (expires_at is null or expires_at > $2)"#,
        person.uuid(),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// Begins to enrol a TOTP device of the person the transaction acts for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert_totp(
    tx: &mut impl PersonalTx,
    person: PersonId,
    id: FactorId,
    name: &str,
    sealed: &[u8],
) -> Result<Factor, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into factors (id, person_id, kind, name, secret, created_at, expires_at)
         values ($1, $2, 'totp', $3, $4, $5, $6)",
        id.uuid(),
        person.uuid(),
        name,
        sealed,
        now,
        now + TO_CONFIRM
    )
    .execute(tx.connection())
    .await?;
    Ok(Factor {
        id,
        kind: Kind::Totp,
        name: name.to_owned(),
        created_at: now,
        confirmed_at: None,
        last_used_at: None,
        backed_up: false,
        suspected_at: None,
        address: None,
    })
}

/// Begins to enrol a telephone or an address that codes are sent to.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert_address(
    tx: &mut impl PersonalTx,
    person: PersonId,
    kind: Kind,
    name: &str,
    address: &str,
) -> Result<Factor, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<FactorId>(), tx.now());
    sqlx::query!(
        "insert into factors (id, person_id, kind, name, address, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id.uuid(),
        person.uuid(),
        kind.as_str(),
        name,
        address,
        now,
        now + TO_CONFIRM
    )
    .execute(tx.connection())
    .await?;
    Ok(Factor {
        id,
        kind,
        name: name.to_owned(),
        created_at: now,
        confirmed_at: None,
        last_used_at: None,
        backed_up: false,
        suspected_at: None,
        address: Some(address.to_owned()),
    })
}

/// A TOTP device with its secret.
pub struct Totp {
    /// Its id.
    pub id: FactorId,
    /// What its codes follow from.
    pub secret: Zeroizing<Vec<u8>>,
    /// The step of the last code that was used.
    pub last_step: Option<i64>,
}

impl fmt::Debug for Totp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Totp").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A TOTP device could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    /// Its secret does not open.
    #[error("opening the secret of {0}")]
    Seal(FactorId, #[source] SealError),
    /// The database refused or went away.
    #[error("reading a TOTP device")]
    Database(#[from] sqlx::Error),
}

/// The person's TOTP devices, for whoever checks a code of them: nobody else does until the transaction ends. Those that
/// were tried too often are none. With an id that device alone, which need not be confirmed; without, the confirmed ones.
///
/// # Errors
/// When the database refuses, or a secret does not open.
pub async fn totp_devices(
    tx: &mut impl PersonalTx,
    person: PersonId,
    only: Option<FactorId>,
    keys: &SealingKeys,
) -> Result<Vec<Totp>, TotpError> {
    use secrecy::ExposeSecret as _;
    let now = tx.now();
    let rows = sqlx::query!(
        r#"select id as "id: FactorId", secret as "secret!", last_step from factors
            where person_id = $1 and kind = 'totp' and failures < $4
              and (id = $2 and (expires_at is null or expires_at > $3) or $2 is null and confirmed_at is not null)
            order by id for update"#,
        person.uuid(),
        only.map(FactorId::uuid),
        now,
        MAX_FAILURES
    )
    .fetch_all(tx.connection())
    .await?;
    rows.into_iter()
        .map(|row| {
            let opened = keys.open(&place(row.id), &row.secret).map_err(|error| TotpError::Seal(row.id, error))?;
            let secret = Zeroizing::new(opened.expose_secret().to_vec());
            Ok(Totp { id: row.id, secret, last_step: row.last_step })
        })
        .collect()
}

/// A code of this step was right. It is not again.
///
/// # Errors
/// When the database refuses or went away.
pub async fn used_totp(tx: &mut impl PersonalTx, id: FactorId, step: i64) -> Result<(), sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update factors set last_step = greatest(last_step, $2), last_used_at = $3, failures = 0 where id = $1",
        id.uuid(),
        step,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A wrong code was typed that might have been of any of the person's devices of this kind.
///
/// # Errors
/// When the database refuses or went away.
pub async fn failed(tx: &mut impl PersonalTx, person: PersonId, kind: Kind) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update factors set failures = failures + 1 where person_id = $1 and kind = $2 and failures < $3",
        person.uuid(),
        kind.as_str(),
        MAX_FAILURES
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// It works, and counts from now on; `false`: it did already, or there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn confirm(tx: &mut impl PersonalTx, person: PersonId, id: FactorId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update factors set confirmed_at = $3, expires_at = null
          where id = $1 and person_id = $2 and confirmed_at is null and expires_at > $3",
        id.uuid(),
        person.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Calls it otherwise; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn rename(tx: &mut impl PersonalTx, person: PersonId, id: FactorId, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query!("update factors set name = $3 where id = $1 and person_id = $2", id.uuid(), person.uuid(), name)
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Forgets one; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut impl PersonalTx, person: PersonId, id: FactorId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from factors where id = $1 and person_id = $2", id.uuid(), person.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Forgets everything the person proves himself with beside his password. Answers how many factors that were.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove_all(tx: &mut impl PersonalTx, person: PersonId) -> Result<u64, sqlx::Error> {
    super::recovery::remove_all(tx, person).await?;
    let done = sqlx::query!("delete from factors where person_id = $1", person.uuid()).execute(tx.connection()).await?;
    Ok(done.rows_affected())
}

/// Forgets up to `limit` of each that expired: what was never confirmed, sign-ins that were not completed, challenges, codes
/// that were sent, copies of what is known of people.
/// Answers how many; repeat while that is not 0.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, now: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    let factors = sqlx::query!(
        "delete from factors where id in (select id from factors where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let sign_ins = sqlx::query!(
        "delete from pending_sign_ins where id in (select id from pending_sign_ins where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let challenges = sqlx::query!(
        "delete from passkey_challenges
          where id in (select id from passkey_challenges where expires_at <= $1 limit $2)",
        now,
        limit
    );
    // How many were sent lately is counted, so they stay a while.
    let codes = sqlx::query!(
        "delete from sent_codes where id in (select id from sent_codes where expires_at <= $1 limit $2)",
        now - Duration::days(1),
        limit
    );
    let exports = sqlx::query!(
        "delete from personal_exports where id in (select id from personal_exports where expires_at <= $1 limit $2)",
        now,
        limit
    );
    let mut forgotten = 0;
    for statement in [factors, sign_ins, challenges, codes, exports] {
        forgotten += statement.execute(db.pool()).await?.rows_affected();
    }
    Ok(forgotten)
}
