//! API keys in the table.

use std::net::IpAddr;

use chrono::{DateTime, Duration, Utc};
use ipnet::IpNet;

use super::{Template, Token};
use crate::access::{self, Behind};
use crate::organizations::Permission;
use crate::window::in_order;
use crate::{ApiKeyId, CredentialTx, JobTx, OrganizationId, PersonId, TenantTx, Window};

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
    /// Who made it; `None`: the organization.
    pub owner: Option<PersonId>,
    /// What whoever is behind it may do now.
    pub behind: Behind,
    /// The template its scopes were made of.
    pub template: Option<Template>,
    /// From where it may be used; none: from anywhere.
    pub networks: Vec<IpNet>,
    /// The key that takes its place.
    pub replaced_by: Option<ApiKeyId>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// From where, where that is known.
    pub last_used_from: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it may be used from an address; `None`: it cannot be known from where.
    #[must_use]
    pub fn may_come_from(&self, address: Option<IpAddr>) -> bool {
        let within = |address: IpAddr| self.networks.iter().any(|network| network.contains(&address.to_canonical()));
        self.networks.is_empty() || address.is_some_and(within)
    }

    /// Whether it works at a moment.
    #[must_use]
    pub fn works(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

struct Row {
    id: ApiKeyId,
    organization_id: OrganizationId,
    name: String,
    hint: String,
    scopes: Vec<String>,
    owner: Option<PersonId>,
    role: Option<String>,
    state: Option<String>,
    custom: Option<Vec<String>>,
    template: Option<String>,
    networks: Vec<String>,
    replaced_by: Option<ApiKeyId>,
    last_used_at: Option<DateTime<Utc>>,
    last_used_from: Option<String>,
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
            owner: row.owner,
            behind: match row.owner {
                None => Behind::Organization,
                Some(_) => access::behind(
                    row.organization_id,
                    row.role.as_deref(),
                    row.state.as_deref(),
                    row.custom.as_deref(),
                ),
            },
            template: row.template.as_deref().and_then(Template::stored),
            // PostgreSQL writes them as they are read.
            networks: row.networks.iter().filter_map(|network| network.parse().ok()).collect(),
            replaced_by: row.replaced_by,
            last_used_at: row.last_used_at,
            last_used_from: row.last_used_from,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// A key to make.
#[derive(Debug, Clone)]
pub struct NewApiKey<'a> {
    /// What people call it.
    pub name: &'a str,
    /// What it allows.
    pub scopes: &'a [Permission],
    /// Who is behind it: it allows no more than he may; `None`: the organization.
    pub owner: Option<PersonId>,
    /// The template its scopes were made of.
    pub template: Option<Template>,
    /// From where it may be used; none: from anywhere.
    pub networks: &'a [IpNet],
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

impl<'a> NewApiKey<'a> {
    /// A key of the organization itself that works until it is revoked.
    #[must_use]
    pub const fn of_organization(name: &'a str, scopes: &'a [Permission]) -> Self {
        Self { name, scopes, owner: None, template: None, networks: &[], expires_at: None }
    }
}

/// Stores a key for the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn create(tx: &mut TenantTx, token: &Token, new: &NewApiKey<'_>) -> Result<ApiKey, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<ApiKeyId>(), tx.organization(), tx.now());
    let words: Vec<String> = new.scopes.iter().map(ToString::to_string).collect();
    let networks: Vec<String> = new.networks.iter().map(|network| network.trunc().to_string()).collect();
    sqlx::query!(
        "insert into api_keys (id, organization_id, name, hint, hash, scopes, owner_id, created_at, expires_at, template,
                               networks)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text[]::cidr[])",
        id.uuid(),
        organization.uuid(),
        new.name,
        token.hint(),
        &token.hash()[..],
        &words,
        new.owner.map(PersonId::uuid),
        now,
        new.expires_at,
        new.template.map(Template::as_str),
        &networks
    )
    .execute(tx.connection())
    .await?;
    find(tx, id).await?.ok_or(sqlx::Error::RowNotFound)
}

/// A key of the transaction's organization, whether or not it works.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<ApiKey>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.organization_id as "organization_id: OrganizationId", k.name, k.hint, k.scopes,
                  k.owner_id as "owner: PersonId", m.role as "role?", m.state as "state?", r.permissions as "custom?",
                  k.template, k.networks::text[] as "networks!", k.replaced_by as "replaced_by: ApiKeyId", k.last_used_at,
                  host(k.last_used_from) as last_used_from, k.created_at, k.expires_at, k.revoked_at
             from api_keys k
             left join memberships m on m.organization_id = k.organization_id and m.person_id = k.owner_id
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where k.organization_id = $1 and k.id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(ApiKey::from))
}

/// As [`find`], held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: ApiKeyId) -> Result<Option<ApiKey>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "select id from api_keys where organization_id = $1 and id = $2 for no key update",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    find(tx, id).await
}

/// The key the transaction presents, if it exists and works now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn authenticate(tx: &mut CredentialTx) -> Result<Option<ApiKey>, sqlx::Error> {
    let now = tx.now();
    let row = sqlx::query_as!(
        Row,
        r#"select k.id as "id: ApiKeyId", k.organization_id as "organization_id: OrganizationId", k.name, k.hint, k.scopes,
                  k.owner_id as "owner: PersonId", m.role as "role?", m.state as "state?", r.permissions as "custom?",
                  k.template, k.networks::text[] as "networks!", k.replaced_by as "replaced_by: ApiKeyId", k.last_used_at,
                  host(k.last_used_from) as last_used_from, k.created_at, k.expires_at, k.revoked_at
             from api_keys k
             left join memberships m on m.organization_id = k.organization_id and m.person_id = k.owner_id
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where k.hash = presented_key() and k.revoked_at is null and (k.expires_at is null or k.expires_at > $1)"#,
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
                r#"select k.id as "id: ApiKeyId", k.organization_id as "organization_id: OrganizationId", k.name, k.hint, k.scopes,
                          k.owner_id as "owner: PersonId", m.role as "role?", m.state as "state?",
                          r.permissions as "custom?", k.template, k.networks::text[] as "networks!",
                          k.replaced_by as "replaced_by: ApiKeyId", k.last_used_at,
                          host(k.last_used_from) as last_used_from, k.created_at, k.expires_at, k.revoked_at
                     from api_keys k
                     left join memberships m on m.organization_id = k.organization_id and m.person_id = k.owner_id
                     left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
                    where k.organization_id = $1 and k.id > $2 and k.id < $3
                      and ($4::boolean is null or $4 = (k.revoked_at is not null))
                    order by k.id "#
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

/// A key that somebody made, as he may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: ApiKeyId,
    /// What he calls it.
    pub name: String,
    /// When he made it.
    pub created_at: DateTime<Utc>,
    /// When it was used last.
    pub last_used_at: Option<DateTime<Utc>>,
    /// From where.
    pub last_used_from: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The keys of the transaction's organization that somebody made, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_person(tx: &mut TenantTx, person: PersonId, limit: i64) -> Result<Vec<Owned>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Owned,
        r#"select id as "id: ApiKeyId", name, created_at, last_used_at, host(last_used_from) as last_used_from, revoked_at
             from api_keys where organization_id = $1 and owner_id = $2 order by id desc limit $3"#,
        organization.uuid(),
        person.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// How exactly it is noted when a key was used last.
pub const NOTED: Duration = Duration::minutes(1);

/// Notes that a key was used, unless that was noted a moment ago.
///
/// # Errors
/// When the database refuses or went away.
pub async fn touch(tx: &mut TenantTx, id: ApiKeyId, from: Option<IpAddr>) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    // Of many who would note the same, one does.
    sqlx::query!(
        "update api_keys set last_used_at = $3, last_used_from = $4::text::inet
          where (organization_id, id) = (select organization_id, id from api_keys
                                          where organization_id = $1 and id = $2
                                            and (last_used_at is null or last_used_at <= $5) for no key update skip locked)",
        organization.uuid(),
        id.uuid(),
        now,
        from.map(|from| from.to_string()),
        now - NOTED
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Makes a key that takes the place of another one of the transaction's organization: it allows the same, from the same
/// networks, and lasts as long as that one did. The other one works for as long as `overlap`, and no longer.
///
/// # Errors
/// When the database refuses or went away.
pub async fn rotate(tx: &mut TenantTx, old: &ApiKey, token: &Token, overlap: Duration) -> Result<ApiKey, sqlx::Error> {
    let now = tx.now();
    let new = NewApiKey {
        name: &old.name,
        scopes: &old.scopes,
        owner: old.owner,
        template: old.template,
        networks: &old.networks,
        expires_at: old.expires_at.map(|expires_at| now + (expires_at - old.created_at)),
    };
    let made = create(tx, token, &new).await?;
    let organization = tx.organization();
    sqlx::query!(
        "update api_keys
            set replaced_by = $3, expires_at = least(coalesce(expires_at, $4), $4),
                revoked_at = case when $4 <= $5 then $5 else revoked_at end
          where organization_id = $1 and id = $2",
        organization.uuid(),
        old.id.uuid(),
        made.id.uuid(),
        now + overlap,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(made)
}
