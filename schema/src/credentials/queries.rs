//! Cloud credentials in the table.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;

use serde_json::Value;

use super::accounts::{Permitted, Standing};
use super::{Cloud, Credential};
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::window::in_order;
use crate::{CloudCredentialId, JobTx as _, OrganizationId, TenantTx, Window};

/// Credentials an organization may have.
pub const MOST: i64 = 100;

/// What may be known of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: CloudCredentialId,
    /// What people call it.
    pub name: String,
    /// Of which cloud.
    pub cloud: Cloud,
    /// By what people recognise it.
    pub hint: String,
    /// Servers that were made with it, and are there.
    pub servers: i64,
    /// What the cloud said of it.
    pub standing: Standing,
    /// By what the cloud knows the account.
    pub account: Option<String>,
    /// What may be done with it, as far as the cloud says so.
    pub permitted: Vec<Permitted>,
    /// Why the cloud does not take it.
    pub problem: Option<String>,
    /// When the cloud was last asked.
    pub checked_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When another took its place under the same id.
    pub rotated_at: Option<DateTime<Utc>>,
}

/// A credential cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// It does not open, or could not be sealed.
    #[error("a sealed credential")]
    Seal(#[from] SealError),
    /// What was sealed is no credential.
    #[error("a sealed credential that cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// The database refused or went away.
    #[error("the table of credentials")]
    Database(#[from] sqlx::Error),
}

struct Row {
    id: CloudCredentialId,
    name: String,
    cloud: String,
    hint: String,
    servers: i64,
    state: String,
    account: Option<String>,
    permitted: Option<Value>,
    problem: Option<String>,
    checked_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    rotated_at: Option<DateTime<Utc>>,
}

impl Row {
    fn read(self) -> Result<Known, sqlx::Error> {
        Ok(Known {
            id: self.id,
            name: self.name,
            cloud: self.cloud.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            hint: self.hint,
            servers: self.servers,
            standing: self.state.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            account: self.account,
            permitted: self
                .permitted
                .map(serde_json::from_value)
                .transpose()
                .map_err(|error| sqlx::Error::Decode(Box::new(error)))?
                .unwrap_or_default(),
            problem: self.problem,
            checked_at: self.checked_at,
            created_at: self.created_at,
            rotated_at: self.rotated_at,
        })
    }
}

/// The one place where a credential opens.
#[must_use]
pub fn place(organization: OrganizationId, id: CloudCredentialId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "cloud_credentials", column: "secret", row: id.uuid() }
}

fn seal(
    keys: &SealingKeys,
    organization: OrganizationId,
    id: CloudCredentialId,
    credential: &Credential,
) -> Result<Vec<u8>, CredentialError> {
    let text = serde_json::to_vec(credential).map_err(CredentialError::Malformed)?;
    Ok(keys.seal(&place(organization, id), &text)?)
}

/// Adds a credential to the transaction's organization. A name that is taken violates `cloud_credentials_name_key`.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn insert(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    name: &str,
    credential: &Credential,
) -> Result<CloudCredentialId, CredentialError> {
    let (id, organization, now) = (tx.ids().mint::<CloudCredentialId>(), tx.organization(), tx.now());
    let secret = seal(keys, organization, id, credential)?;
    sqlx::query!(
        "insert into cloud_credentials (id, organization_id, name, cloud, hint, secret, created_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id.uuid(),
        organization.uuid(),
        name,
        credential.cloud().as_str(),
        credential.hint(),
        secret,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}

/// Puts another in the place of a credential of the transaction's organization; `false`: there is none, or it is of another
/// cloud.
///
/// # Errors
/// When it cannot be sealed, or the database refuses.
pub async fn replace(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    id: CloudCredentialId,
    credential: &Credential,
) -> Result<bool, CredentialError> {
    let (organization, now) = (tx.organization(), tx.now());
    let secret = seal(keys, organization, id, credential)?;
    let done = sqlx::query!(
        "update cloud_credentials set secret = $4, hint = $5, rotated_at = $6, state = 'unchecked', problem = null
          where organization_id = $1 and id = $2 and cloud = $3",
        organization.uuid(),
        id.uuid(),
        credential.cloud().as_str(),
        secret,
        credential.hint(),
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How many credentials the transaction's organization has.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from cloud_credentials where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// What may be known of a credential of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: CloudCredentialId) -> Result<Option<Known>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select c.id as "id: CloudCredentialId", c.name, c.cloud, c.hint,
                  (select count(*) from stacks s where s.credential_id = c.id) as "servers!", c.state, c.account,
                  c.permitted, c.problem, c.checked_at, c.created_at, c.rotated_at
             from cloud_credentials c where c.organization_id = $1 and c.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    row.map(Row::read).transpose()
}

/// A page of the credentials of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Known>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select c.id as "id: CloudCredentialId", c.name, c.cloud, c.hint,
                          (select count(*) from stacks s where s.credential_id = c.id) as "servers!", c.state, c.account,
                          c.permitted, c.problem, c.checked_at, c.created_at, c.rotated_at
                     from cloud_credentials c
                    where c.organization_id = $1 and c.id > $2 and c.id < $3
                    order by c.id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    let rows: Vec<Row> = in_order!(window.order, page)?;
    rows.into_iter().map(Row::read).collect()
}

/// A credential of the transaction's organization, opened.
///
/// # Errors
/// When it does not open, or the database refuses.
pub async fn open(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    id: CloudCredentialId,
) -> Result<Option<Credential>, CredentialError> {
    let organization = tx.organization();
    let sealed = sqlx::query_scalar!(
        "select secret from cloud_credentials where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let Some(sealed) = sealed else { return Ok(None) };
    let opened = keys.open(&place(organization, id), &sealed)?;
    serde_json::from_slice(opened.expose_secret()).map(Some).map_err(CredentialError::Malformed)
}

/// Removes a credential of the transaction's organization; `false`: there is none. One with which something was made that is
/// there violates `stacks_credential_fkey`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, id: CloudCredentialId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("delete from cloud_credentials where organization_id = $1 and id = $2", organization.uuid(), id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}
