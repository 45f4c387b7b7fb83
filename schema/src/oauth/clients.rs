//! Applications, and what they prove themselves with.

use chrono::{DateTime, Duration, Utc};

use super::scope::Scopes;
use crate::digest::constant_time_eq;
use crate::token::ClientSecretToken;
use crate::window::in_order;
use crate::{CredentialTx, JobTx as _, OauthClientId, OauthClientSecretId, OrganizationId, TenantTx, Window};

/// Applications an organization may have.
pub const MAX_CLIENTS: i64 = 1_000;

/// How long a replaced secret goes on working when nobody says otherwise.
pub const OVERLAP: Duration = Duration::hours(24);

/// How long it may.
pub const MAX_OVERLAP: Duration = Duration::days(30);

/// Replaced secrets that may work still.
pub const MAX_OLD: usize = 5;

/// By which flow an application gets tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// A person lets it, in his browser.
    AuthorizationCode,
    /// It acts for itself.
    ClientCredentials,
    /// A person lets it, in the browser of another machine.
    DeviceCode,
}

impl Grant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AuthorizationCode, Self::ClientCredentials, Self::DeviceCode];

    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::DeviceCode => "device_code",
        }
    }
}

/// An application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id, which it calls its `client_id`.
    pub id: OauthClientId,
    /// Who registered it. It works there and below.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What people should know about it.
    pub description: String,
    /// Where it is described.
    pub homepage: Option<String>,
    /// It can keep a secret.
    pub confidential: bool,
    /// Where browsers are sent back to.
    pub redirect_uris: Vec<String>,
    /// How it gets tokens.
    pub grants: Vec<Grant>,
    /// The most it can be given.
    pub scopes: Scopes,
    /// It gets tokens, and those it has work.
    pub enabled: bool,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

impl Client {
    /// Whether it may use the flow.
    #[must_use]
    pub fn uses(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }
}

/// What is to change; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// What people call it.
    pub name: Option<String>,
    /// What people should know about it.
    pub description: Option<String>,
    /// Where it is described; `Some(None)` forgets it.
    pub homepage: Option<Option<String>>,
    /// Where browsers are sent back to.
    pub redirect_uris: Option<Vec<String>>,
    /// How it gets tokens.
    pub grants: Option<Vec<Grant>>,
    /// The most it can be given.
    pub scopes: Option<Scopes>,
    /// It gets tokens, and those it has work.
    pub enabled: Option<bool>,
}

/// A secret, without itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub id: OauthClientSecretId,
    /// Its first characters.
    pub hint: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working; `None`: it is the current one.
    pub expires_at: Option<DateTime<Utc>>,
}

struct Row {
    id: OauthClientId,
    organization: OrganizationId,
    name: String,
    description: String,
    homepage: Option<String>,
    confidential: bool,
    redirect_uris: Vec<String>,
    grants: Vec<String>,
    scopes: Vec<String>,
    enabled: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Client {
    fn from(row: Row) -> Self {
        let grant = |word: &String| Grant::ALL.into_iter().find(|grant| grant.as_str() == word);
        Self {
            id: row.id,
            organization: row.organization,
            name: row.name,
            description: row.description,
            homepage: row.homepage,
            confidential: row.confidential,
            redirect_uris: row.redirect_uris,
            // Words this release does not know allow nothing.
            grants: row.grants.iter().filter_map(grant).collect(),
            scopes: Scopes::stored(&row.scopes),
            enabled: row.enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

fn words(grants: &[Grant]) -> Vec<String> {
    let mut grants = grants.to_vec();
    grants.sort_unstable();
    grants.dedup();
    grants.into_iter().map(|grant| grant.as_str().to_owned()).collect()
}

/// Stores a new application.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, client: &Client) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into oauth_clients (id, organization_id, name, description, homepage, confidential, redirect_uris, grants,
                                    scopes, enabled, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
        client.id.uuid(),
        client.organization.uuid(),
        client.name,
        client.description,
        client.homepage,
        client.confidential,
        &client.redirect_uris,
        &words(&client.grants),
        &client.scopes.words(),
        client.enabled,
        client.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// How many applications the organization has.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from oauth_clients where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// An application of the organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: OauthClientId) -> Result<Option<Client>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Row,
        r#"select id as "id: OauthClientId", organization_id as "organization: OrganizationId", name, description,
                  homepage, confidential, redirect_uris, grants, scopes, enabled, created_at, updated_at
             from oauth_clients where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
    .map(|row| row.map(Client::from))
}

/// An application that nobody else changes until the end of the transaction.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: OauthClientId) -> Result<Option<Client>, sqlx::Error> {
    sqlx::query_scalar!("select 1 as one from oauth_clients where id = $1 for no key update", id.uuid())
        .fetch_optional(tx.connection())
        .await?;
    find(tx, id).await
}

/// The application that the transaction presents.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Client>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"select id as "id: OauthClientId", organization_id as "organization: OrganizationId", name, description,
                  homepage, confidential, redirect_uris, grants, scopes, enabled, created_at, updated_at
             from oauth_clients where id = presented_client()"#
    )
    .fetch_optional(tx.connection())
    .await
    .map(|row| row.map(Client::from))
}

/// A part of the organization's applications, by id.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Client>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select id as "id: OauthClientId", organization_id as "organization: OrganizationId", name, description,
                          homepage, confidential, redirect_uris, grants, scopes, enabled, created_at, updated_at
                     from oauth_clients
                    where organization_id = $1 and id > $2 and id < $3
                    order by id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await?
        };
    }
    let rows = in_order!(window.order, page);
    Ok(rows.into_iter().map(Client::from).collect())
}

/// Changes what may change; `false`: there is no such application.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(tx: &mut TenantTx, id: OauthClientId, change: &Change) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let grants = change.grants.as_deref().map(words);
    let scopes = change.scopes.as_ref().map(Scopes::words);
    sqlx::query!(
        "update oauth_clients
            set name = coalesce($2, name), description = coalesce($3, description),
                homepage = case when $4 then $5 else homepage end,
                redirect_uris = coalesce($6, redirect_uris), grants = coalesce($7, grants),
                scopes = coalesce($8, scopes), enabled = coalesce($9, enabled), updated_at = $10
          where id = $1",
        id.uuid(),
        change.name,
        change.description,
        change.homepage.is_some(),
        change.homepage.clone().flatten(),
        change.redirect_uris.as_deref(),
        grants.as_deref(),
        scopes.as_deref(),
        change.enabled,
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes an application with whatever it was given; `false`: there is no such application.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, id: OauthClientId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from oauth_clients where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Makes this the application's current secret. The one before goes on working for `overlap`; with none, every old one
/// stops at once.
///
/// # Errors
/// When the database refuses or went away.
pub async fn give_secret(
    tx: &mut TenantTx,
    client: OauthClientId,
    secret: &ClientSecretToken,
    overlap: Duration,
) -> Result<(), sqlx::Error> {
    let (organization, now, id) = (tx.organization(), tx.now(), tx.ids().mint::<OauthClientSecretId>());
    sqlx::query!(
        "delete from oauth_client_secrets where client_id = $1 and (expires_at <= $2 or $3)",
        client.uuid(),
        now,
        overlap <= Duration::zero()
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "update oauth_client_secrets set expires_at = $2 where client_id = $1 and expires_at is null",
        client.uuid(),
        now + overlap
    )
    .execute(tx.connection())
    .await?;
    let hint: String = secret.expose().chars().take(10).collect();
    sqlx::query!(
        "insert into oauth_client_secrets (id, organization_id, client_id, hint, hash, created_at)
         values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        organization.uuid(),
        client.uuid(),
        hint,
        &secret.hash()[..],
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// The secrets that work now, the current one first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn secrets(tx: &mut TenantTx, client: OauthClientId) -> Result<Vec<Secret>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Secret,
        r#"select id as "id: OauthClientSecretId", hint, created_at, expires_at from oauth_client_secrets
            where client_id = $1 and (expires_at is null or expires_at > $2) order by created_at desc, id desc"#,
        client.uuid(),
        now
    )
    .fetch_all(tx.connection())
    .await
}

/// Whether it is one of the application's secrets.
///
/// # Errors
/// When the database refuses or went away.
pub async fn knows(tx: &mut TenantTx, client: OauthClientId, secret: &ClientSecretToken) -> Result<bool, sqlx::Error> {
    let (now, hash) = (tx.now(), secret.hash());
    let known = sqlx::query_scalar!(
        "select hash from oauth_client_secrets where client_id = $1 and (expires_at is null or expires_at > $2)",
        client.uuid(),
        now
    )
    .fetch_all(tx.connection())
    .await?;
    // All of them, so that the time does not tell which one was nearly right.
    Ok(known.iter().fold(false, |found, each| constant_time_eq(each, &hash) | found))
}

/// Those of the organizations in which the applications of the transaction's organization may act, with their names: it
/// and those below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn may_act_in(
    tx: &mut TenantTx,
    organizations: &[OrganizationId],
) -> Result<Vec<(OrganizationId, String)>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = organizations.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"select id as "id: OrganizationId", name from organizations where id = any($1) order by name, id"#,
        &ids
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
}
