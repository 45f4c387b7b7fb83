//! Roles that an organization makes itself, of entries of the catalogue.

use chrono::{DateTime, Utc};

use crate::access::read_permissions;
use crate::organizations::{Permission, Permissions};
use crate::{JobTx as _, OrganizationId, RoleId, TenantTx};

/// Roles an organization may have made.
pub const MOST: i64 = 100;

/// A role that an organization has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomRole {
    /// Its id.
    pub id: RoleId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it allows, in the words of the catalogue.
    pub permissions: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl CustomRole {
    /// What it allows; words that this release does not know allow nothing.
    #[must_use]
    pub fn allows(&self) -> Permissions {
        read_permissions(&self.permissions)
    }
}

/// Makes a role for the transaction's organization. A name that is taken violates `custom_roles_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn create(
    tx: &mut TenantTx,
    name: &str,
    description: &str,
    permissions: &[Permission],
) -> Result<CustomRole, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<RoleId>(), tx.organization(), tx.now());
    sqlx::query_as!(
        CustomRole,
        r#"insert into custom_roles (id, organization_id, name, description, permissions, created_at, updated_at)
           values ($1, $2, $3, $4, $5, $6, $6)
        returning id as "id: RoleId", organization_id as "organization: OrganizationId", name, description, permissions,
                  created_at, updated_at"#,
        id.uuid(),
        organization.uuid(),
        name,
        description,
        &words(permissions),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// A role of the transaction's organization, held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: RoleId) -> Result<Option<CustomRole>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        CustomRole,
        r#"select id as "id: RoleId", organization_id as "organization: OrganizationId", name, description, permissions,
                  created_at, updated_at
             from custom_roles where organization_id = $1 and id = $2 for update"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// The roles of the transaction's organization, by name; there are at most [`MOST`].
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<CustomRole>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        CustomRole,
        r#"select id as "id: RoleId", organization_id as "organization: OrganizationId", name, description, permissions,
                  created_at, updated_at
             from custom_roles where organization_id = $1 order by lower(name), id limit $2"#,
        organization.uuid(),
        MOST
    )
    .fetch_all(tx.connection())
    .await
}

/// Changes a role of the transaction's organization; `None`: there is no such role. A name that is taken violates
/// `custom_roles_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(
    tx: &mut TenantTx,
    id: RoleId,
    name: Option<&str>,
    description: Option<&str>,
    permissions: Option<&[Permission]>,
) -> Result<Option<CustomRole>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let permissions = permissions.map(words);
    sqlx::query_as!(
        CustomRole,
        r#"update custom_roles
              set name = coalesce($3, name), description = coalesce($4, description),
                  permissions = coalesce($5, permissions), updated_at = $6
            where organization_id = $1 and id = $2
        returning id as "id: RoleId", organization_id as "organization: OrganizationId", name, description, permissions,
                  created_at, updated_at"#,
        organization.uuid(),
        id.uuid(),
        name,
        description,
        permissions.as_deref(),
        now
    )
    .fetch_optional(tx.connection())
    .await
}

/// Removes a role of the transaction's organization; `false`: there is none. One that members have violates
/// `memberships_custom_role_fkey`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn remove(tx: &mut TenantTx, id: RoleId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!("delete from custom_roles where organization_id = $1 and id = $2", organization.uuid(), id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

fn words(permissions: &[Permission]) -> Vec<String> {
    permissions.iter().map(ToString::to_string).collect()
}
