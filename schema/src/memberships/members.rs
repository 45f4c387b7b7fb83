//! The members of an organization, with what each may do there, and changes of it.

use chrono::{DateTime, Utc};

use super::{Role, State};
use crate::access::{self, Behind};
use crate::organizations::Permissions;
use crate::window::in_order;
use crate::{JobTx as _, PersonId, RoleId, TenantTx, Window};

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub person: PersonId,
    /// His e-mail address, as he wrote it.
    pub email: String,
    /// What he is called.
    pub name: String,
    /// As what.
    pub role: Role,
    /// Which one of the organization's own roles, where it is one.
    pub custom_role: Option<RoleId>,
    /// What that one is called.
    pub custom_role_name: Option<String>,
    /// Whether it counts.
    pub state: State,
    /// What he may do there now.
    pub behind: Behind,
    /// What his role allows, whether or not his membership counts.
    pub role_allows: Permissions,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// As what somebody is to be a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewRole {
    /// In a role that every organization has.
    BuiltIn(Role),
    /// In one that the organization has made.
    Custom(RoleId),
}

struct Row {
    person: PersonId,
    email: String,
    name: String,
    role: String,
    custom_role: Option<RoleId>,
    custom_role_name: Option<String>,
    custom_permissions: Option<Vec<String>>,
    state: String,
    created_at: DateTime<Utc>,
}

impl Row {
    fn read(self, tx: &TenantTx) -> Member {
        let custom = self.custom_permissions.as_deref();
        let behind = |state| access::behind(tx.organization(), Some(&self.role), Some(state), custom);
        let role_allows = match behind("active") {
            Behind::Member(permissions) => permissions,
            Behind::Suspended | Behind::Left | Behind::Organization => Permissions::default(),
        };
        Member {
            behind: behind(&self.state),
            role_allows,
            person: self.person,
            email: self.email,
            name: self.name,
            role: Role::stored(&self.role),
            custom_role: self.custom_role,
            custom_role_name: self.custom_role_name,
            state: State::stored(&self.state),
            created_at: self.created_at,
        }
    }
}

/// A page of the members of the transaction's organization, by person.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, window: Window) -> Result<Vec<Member>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select m.person_id as "person: PersonId", p.email, p.name, m.role,
                          m.custom_role_id as "custom_role: RoleId", r.name as "custom_role_name?",
                          r.permissions as "custom_permissions?", m.state, m.created_at
                     from memberships m
                     join people p on p.id = m.person_id
                     left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
                    where m.organization_id = $1 and m.person_id > $2 and m.person_id < $3
                    order by m.person_id "#
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
    Ok(rows.into_iter().map(|row| row.read(tx)).collect())
}

/// Where up to `limit` owners of the transaction's organization get their mail.
///
/// # Errors
/// When the database refuses or went away.
pub async fn addresses_of_owners(tx: &mut TenantTx, limit: i64) -> Result<Vec<String>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        "select p.email from memberships m join people p on p.id = m.person_id
          where m.organization_id = $1 and m.role = 'owner' and m.state = 'active' order by m.person_id limit $2",
        organization.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// A member of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, person: PersonId) -> Result<Option<Member>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select m.person_id as "person: PersonId", p.email, p.name, m.role, m.custom_role_id as "custom_role: RoleId",
                  r.name as "custom_role_name?", r.permissions as "custom_permissions?", m.state, m.created_at
             from memberships m
             join people p on p.id = m.person_id
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where m.organization_id = $1 and m.person_id = $2"#,
        organization.uuid(),
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| row.read(tx)))
}

/// A member of the transaction's organization, held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, person: PersonId) -> Result<Option<Member>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select m.person_id as "person: PersonId", p.email, p.name, m.role, m.custom_role_id as "custom_role: RoleId",
                  r.name as "custom_role_name?", r.permissions as "custom_permissions?", m.state, m.created_at
             from memberships m
             join people p on p.id = m.person_id
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where m.organization_id = $1 and m.person_id = $2 for no key update of m"#,
        organization.uuid(),
        person.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| row.read(tx)))
}

/// Gives a member of the transaction's organization another role; `false`: there is no such member. To take an
/// organization its last owner violates `memberships_last_owner`, a role that it does not have
/// `memberships_custom_role_fkey`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_role(tx: &mut TenantTx, person: PersonId, role: NewRole) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    let (word, custom) = match role {
        NewRole::BuiltIn(role) => (role, None),
        NewRole::Custom(id) => (Role::Custom, Some(id)),
    };
    sqlx::query!(
        "update memberships set role = $3, custom_role_id = $4 where organization_id = $1 and person_id = $2",
        organization.uuid(),
        person.uuid(),
        word.as_str(),
        custom.map(RoleId::uuid)
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Lets a membership of the transaction's organization count, or count no more; `false`: there is no such member. To
/// take an organization its last owner violates `memberships_last_owner`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_state(tx: &mut TenantTx, person: PersonId, state: State) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update memberships set state = $3 where organization_id = $1 and person_id = $2",
        organization.uuid(),
        person.uuid(),
        state.as_str()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Ends a membership of the transaction's organization; `false`: there is no such member. The last owner stays:
/// `memberships_last_owner` is violated.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, person: PersonId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "delete from memberships where organization_id = $1 and person_id = $2",
        organization.uuid(),
        person.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}
