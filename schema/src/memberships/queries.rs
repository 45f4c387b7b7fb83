//! Memberships in the table.

use chrono::{DateTime, Utc};

use super::Role;
use crate::{JobTx as _, OrganizationId, PersonId, PersonTx, TenantTx};

/// Whether a membership counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It does.
    Active,
    /// It does not until it is let count again.
    Suspended,
}

impl State {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    /// From its stored word. Whatever else a later release may say, it does not count here.
    pub(super) fn stored(word: &str) -> Self {
        if word == "active" { Self::Active } else { Self::Suspended }
    }
}

/// Somebody belongs to an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Where.
    pub organization: OrganizationId,
    /// Who.
    pub person: PersonId,
    /// As what.
    pub role: Role,
    /// Whether it counts.
    pub state: State,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

struct Row {
    organization: OrganizationId,
    person: PersonId,
    role: String,
    state: String,
    created_at: DateTime<Utc>,
}

impl From<Row> for Membership {
    fn from(row: Row) -> Self {
        Self {
            organization: row.organization,
            person: row.person,
            role: Role::stored(&row.role),
            state: State::stored(&row.state),
            created_at: row.created_at,
        }
    }
}

/// Makes a person a member of the transaction's organization, or gives him another role; what he is afterwards.
///
/// # Errors
/// When the database refuses, also because there is no such person.
pub async fn insert(tx: &mut TenantTx, person: PersonId, role: Role) -> Result<Membership, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query_as!(
        Row,
        r#"insert into memberships (organization_id, person_id, role, created_at) values ($1, $2, $3, $4)
               on conflict (organization_id, person_id) do update
                  set role = excluded.role, custom_role_id = null, state = 'active'
           returning organization_id as "organization: OrganizationId", person_id as "person: PersonId", role, state,
                     created_at"#,
        organization.uuid(),
        person.uuid(),
        role.as_str(),
        now
    )
    .fetch_one(tx.connection())
    .await
    .map(Membership::from)
}

/// What somebody is in the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, person: PersonId) -> Result<Option<Membership>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", person_id as "person: PersonId", role, state,
                  created_at
             from memberships where organization_id = $1 and person_id = $2"#,
        organization.uuid(),
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await
    .map(|row| row.map(Membership::from))
}

/// Whether the transaction's organization has an owner.
///
/// # Errors
/// When the database refuses or went away.
pub async fn has_owner(tx: &mut TenantTx) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select exists (select from memberships
                           where organization_id = $1 and role = 'owner' and state = 'active') as "has!""#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// The members of the transaction's organization after `after`, by id.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, after: Option<PersonId>, limit: i64) -> Result<Vec<Membership>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", person_id as "person: PersonId", role, state,
                  created_at
             from memberships
            where organization_id = $1 and ($2::uuid is null or person_id > $2)
            order by person_id limit $3"#,
        organization.uuid(),
        after.map(PersonId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Membership::from).collect())
}

/// Where the transaction's person belongs, after `after`, by organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_person(
    tx: &mut PersonTx,
    after: Option<OrganizationId>,
    limit: i64,
) -> Result<Vec<Membership>, sqlx::Error> {
    let person = tx.person();
    let rows = sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", person_id as "person: PersonId", role, state,
                  created_at
             from memberships
            where person_id = $1 and ($2::uuid is null or organization_id > $2)
            order by organization_id limit $3"#,
        person.uuid(),
        after.map(OrganizationId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Membership::from).collect())
}

/// Whether the person the transaction acts for is a member there, and that counts.
///
/// # Errors
/// When the database refuses or went away.
pub async fn counts(
    tx: &mut impl crate::PersonalTx,
    person: PersonId,
    organization: OrganizationId,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from memberships where person_id = $1 and organization_id = $2 and state = 'active')
                  as "counts!""#,
        person.uuid(),
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Of the organizations that the person the transaction acts for is a member of, the one he acted for last.
///
/// # Errors
/// When the database refuses or went away.
pub async fn latest(tx: &mut impl crate::PersonalTx, person: PersonId) -> Result<Option<OrganizationId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select m.organization_id as "organization: OrganizationId" from memberships m
            where m.person_id = $1 and m.state = 'active'
            order by (select max(s.last_used_at) from sessions s
                       where s.person_id = $1 and s.organization_id = m.organization_id) desc nulls last,
                     m.created_at, m.organization_id
            limit 1"#,
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}
