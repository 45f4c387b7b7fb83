//! What people let applications do.

use chrono::{DateTime, Utc};

use super::scope::Scopes;
use crate::window::in_order;
use crate::{JobTx as _, OauthClientId, OauthGrantId, OrganizationId, PersonId, PersonTx, TenantTx, Window};

/// What a person lets an application do in one of his organizations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its id.
    pub id: OauthGrantId,
    /// Where.
    pub organization: OrganizationId,
    /// Which application.
    pub client: OauthClientId,
    /// What that is called.
    pub client_name: String,
    /// Where it is described.
    pub client_homepage: Option<String>,
    /// Who lets it.
    pub person: PersonId,
    /// What.
    pub scopes: Scopes,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// When he last said so.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    id: OauthGrantId,
    organization: OrganizationId,
    client: OauthClientId,
    client_name: String,
    client_homepage: Option<String>,
    person: PersonId,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Row> for Granted {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            organization: row.organization,
            client: row.client,
            client_name: row.client_name,
            client_homepage: row.client_homepage,
            person: row.person,
            scopes: Scopes::stored(&row.scopes),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What the person has let the application do here before.
///
/// # Errors
/// When the database refuses or went away.
pub async fn scopes(tx: &mut TenantTx, client: OauthClientId, person: PersonId) -> Result<Option<Scopes>, sqlx::Error> {
    let organization = tx.organization();
    let words = sqlx::query_scalar!(
        "select scopes from oauth_grants where organization_id = $1 and client_id = $2 and person_id = $3",
        organization.uuid(),
        client.uuid(),
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(words.map(|words| Scopes::stored(&words)))
}

/// Lets the application do this too. What it was let do before, it still is.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add(
    tx: &mut TenantTx,
    client: OauthClientId,
    person: PersonId,
    scopes: &Scopes,
) -> Result<OauthGrantId, sqlx::Error> {
    let (organization, now, id) = (tx.organization(), tx.now(), tx.ids().mint::<OauthGrantId>());
    sqlx::query_scalar!(
        r#"insert into oauth_grants (id, organization_id, client_id, person_id, scopes, created_at, updated_at)
           values ($1, $2, $3, $4, $5, $6, $6)
               on conflict (organization_id, client_id, person_id) do update
              set scopes = (select array_agg(distinct word order by word)
                              from unnest(oauth_grants.scopes || excluded.scopes) word),
                  updated_at = excluded.updated_at
        returning id as "id: OauthGrantId""#,
        id.uuid(),
        organization.uuid(),
        client.uuid(),
        person.uuid(),
        &scopes.words(),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// What the person lets applications do, anywhere; newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_person(tx: &mut PersonTx, limit: i64) -> Result<Vec<Granted>, sqlx::Error> {
    let person = tx.person();
    let rows = sqlx::query_as!(
        Row,
        r#"select g.id as "id: OauthGrantId", g.organization_id as "organization: OrganizationId",
                  g.client_id as "client: OauthClientId", c.name as client_name, c.homepage as client_homepage,
                  g.person_id as "person: PersonId", g.scopes, g.created_at, g.updated_at
             from oauth_grants g join oauth_clients c on c.id = g.client_id
            where g.person_id = $1 order by g.id desc limit $2"#,
        person.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Granted::from).collect())
}

/// Takes back what the person lets an application do, and with it every token that came of it; `false`: there is nothing
/// of the kind.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take_back(
    tx: &mut impl crate::PersonalTx,
    person: PersonId,
    id: OauthGrantId,
) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from oauth_grants where id = $1 and person_id = $2", id.uuid(), person.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// A part of what people let applications do in the organization, by id.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    client: Option<OauthClientId>,
    person: Option<PersonId>,
    window: Window,
) -> Result<Vec<Granted>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select g.id as "id: OauthGrantId", g.organization_id as "organization: OrganizationId",
                          g.client_id as "client: OauthClientId", c.name as client_name, c.homepage as client_homepage,
                          g.person_id as "person: PersonId", g.scopes, g.created_at, g.updated_at
                     from oauth_grants g join oauth_clients c on c.id = g.client_id
                    where g.organization_id = $1 and g.id > $2 and g.id < $3
                      and ($4::uuid is null or g.client_id = $4) and ($5::uuid is null or g.person_id = $5)
                    order by g.id "#
                    + $order
                    + " limit $6",
                organization.uuid(),
                window.low(),
                window.high(),
                client.map(OauthClientId::uuid),
                person.map(PersonId::uuid),
                window.limit
            )
            .fetch_all(tx.connection())
            .await?
        };
    }
    let rows = in_order!(window.order, page);
    Ok(rows.into_iter().map(Granted::from).collect())
}

/// Takes back what everybody in the organization, or one of them, lets an application do, and with it every token that
/// came of it. Answers how many people had.
///
/// # Errors
/// When the database refuses or went away.
pub async fn revoke(tx: &mut TenantTx, client: OauthClientId, person: Option<PersonId>) -> Result<u64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "delete from oauth_grants
          where organization_id = $1 and client_id = $2 and ($3::uuid is null or person_id = $3)",
        organization.uuid(),
        client.uuid(),
        person.map(PersonId::uuid)
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}
