//! What clouds said of credentials, in the tables.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::words::words;
use crate::{CloudCredentialId, EngineDb, JobTx as _, OrganizationId, TenantTx};

words! {
    /// What a cloud said of a credential.
    Standing {
        /// It was not asked yet.
        Unchecked = "unchecked",
        /// It takes it.
        Valid = "valid",
        /// It does not take it.
        Refused = "refused",
    }
}

impl std::str::FromStr for Standing {
    type Err = crate::servers::UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().copied().find(|it| it.as_str() == word);
        found.ok_or_else(|| crate::servers::UnknownWord(word.to_owned()))
    }
}

/// How often a cloud is asked again.
pub const CHECKED_EVERY: Duration = Duration::days(1);

/// Something that has to be permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permitted {
    /// The cloud's own name for it.
    pub name: String,
    /// Whether it is; `None`: the cloud does not say.
    pub held: Option<bool>,
}

/// What a cloud said.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// It takes the credential.
    Valid {
        /// By what it knows the account.
        account: &'a str,
        /// What may be done with it.
        permitted: &'a [Permitted],
    },
    /// It does not, and why.
    Refused(&'a str),
}

/// A credential of the transaction's organization was checked. Answers what was known before; `None`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn checked(
    tx: &mut TenantTx,
    id: CloudCredentialId,
    said: Said<'_>,
) -> Result<Option<Standing>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let before = sqlx::query_scalar!(
        "select state from cloud_credentials where organization_id = $1 and id = $2 for update",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(before) = before else { return Ok(None) };
    let (state, account, permitted, problem) = match said {
        Said::Valid { account, permitted } => {
            (Standing::Valid, Some(account), serde_json::to_value(permitted).ok(), None)
        }
        Said::Refused(why) => (Standing::Refused, None, None, Some(why)),
    };
    sqlx::query!(
        "update cloud_credentials set state = $3, account = coalesce($4, account), permitted = coalesce($5, permitted),
                problem = $6, checked_at = $7, check_at = $8
          where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        state.as_str(),
        account,
        permitted,
        problem,
        now,
        now + CHECKED_EVERY
    )
    .execute(tx.connection())
    .await?;
    before.parse().map(Some).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Keeps what there is to be had with a credential of the transaction's organization, in a region or in all of them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep_catalogue(
    tx: &mut TenantTx,
    id: CloudCredentialId,
    region: &str,
    catalogue: &Value,
) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into cloud_catalogues (organization_id, credential_id, region, catalogue, read_at)
         values ($1, $2, $3, $4, $5)
             on conflict (organization_id, credential_id, region) do update
            set catalogue = excluded.catalogue, read_at = excluded.read_at",
        organization.uuid(),
        id.uuid(),
        region,
        catalogue,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// What there was to be had with a credential of the transaction's organization, and when that was read; `None`: it was not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn catalogue(
    tx: &mut TenantTx,
    id: CloudCredentialId,
    region: &str,
) -> Result<Option<(Value, DateTime<Utc>)>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        "select catalogue, read_at from cloud_catalogues where organization_id = $1 and credential_id = $2 and region = $3",
        organization.uuid(),
        id.uuid(),
        region
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| (row.catalogue, row.read_at)))
}

/// Credentials of all organizations that are to be checked, the oldest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn due(db: &EngineDb, most: i64) -> Result<Vec<(OrganizationId, CloudCredentialId)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select organization_id as "organization: OrganizationId", id as "id: CloudCredentialId" from cloud_credentials
            where check_at <= $1 order by check_at limit $2"#,
        db.now(),
        most
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows.into_iter().map(|row| (row.organization, row.id)).collect())
}

/// Nobody else is to check a credential of the transaction's organization until `at`; `false`: it is not due any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_off(tx: &mut TenantTx, id: CloudCredentialId, at: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update cloud_credentials set check_at = $3 where organization_id = $1 and id = $2 and check_at <= $4",
        organization.uuid(),
        id.uuid(),
        at,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
