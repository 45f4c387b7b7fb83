//! API keys in the table.

use chrono::{DateTime, Utc};

use super::Token;
use crate::organizations::Permission;
use crate::window::in_order;
use crate::{ApiKeyId, CredentialTx, JobTx, OrganizationId, TenantTx, Window};

/// A key, without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// Its first characters.
    pub hint: String,
    /// What it allows.
    pub scopes: Vec<Permission>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

struct Row {
    id: ApiKeyId,
    organization_id: OrganizationId,
    name: String,
    hint: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            organization: row.organization_id,
            name: row.name,
            hint: row.hint,
            // A word this release does not know allows nothing.
            scopes: row.scopes.iter().filter_map(|word| word.parse().ok()).collect(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// Stores a key for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn create(
    tx: &mut TenantTx,
    name: &str,
    token: &Token,
    scopes: &[Permission],
    expires_at: Option<DateTime<Utc>>,
) -> Result<ApiKey, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<ApiKeyId>(), tx.organization(), tx.now());
    let words: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "insert into api_keys (id, organization_id, name, hint, hash, scopes, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        id.uuid(),
        organization.uuid(),
        name,
        token.hint(),
        &token.hash()[..],
        &words,
        now,
        expires_at
    )
    .execute(tx.connection())
    .await?;
    Ok(ApiKey {
        id,
        organization,
        name: name.to_owned(),
        hint: token.hint(),
        scopes: scopes.to_vec(),
        created_at: now,
        expires_at,
        revoked_at: None,
    })
}

/// The key the transaction presents, if it exists and works now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn authenticate(tx: &mut CredentialTx) -> Result<Option<ApiKey>, sqlx::Error> {
    let now = tx.now();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: ApiKeyId", organization_id as "organization_id: OrganizationId", name, hint, scopes,
                  created_at, expires_at, revoked_at
             from api_keys
            where hash = decode(current_setting('gantry.presented_key', true), 'hex')
              and revoked_at is null and (expires_at is null or expires_at > $1)"#,
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(ApiKey::from))
}

/// Which keys a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those that were revoked, or were not.
    pub revoked: Option<bool>,
}

/// A page of the organization's keys.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: Filter, window: Window) -> Result<Vec<ApiKey>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select id as "id: ApiKeyId", organization_id as "organization_id: OrganizationId", name, hint, scopes,
                          created_at, expires_at, revoked_at
                     from api_keys
                    where organization_id = $1 and id > $2 and id < $3
                      and ($4::boolean is null or $4 = (revoked_at is not null))
                    order by id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                window.low(),
                window.high(),
                filter.revoked,
                window.limit
            )
            .fetch_all(tx.connection())
            .await?
        };
    }
    let rows = in_order!(window.order, page);
    Ok(rows.into_iter().map(ApiKey::from).collect())
}

/// Makes the key useless; `false`: there is no such key.
///
/// # Errors
/// When the database refuses or went away.
pub async fn revoke(tx: &mut TenantTx, id: ApiKeyId) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update api_keys set revoked_at = coalesce(revoked_at, $3) where organization_id = $1 and id = $2",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
