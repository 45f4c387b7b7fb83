//! Roles: those that every organization has, and those it makes itself of entries of the catalogue.

use gantry_jobs::webhooks;
use gantry_schema::memberships::{self, CustomRole, Role as BuiltIn, custom};
use gantry_schema::organizations::needed::{ManageMembers, ReadMembers};
use gantry_schema::organizations::{Permission, Permissions};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, RoleId};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::no_more_than_oneself;
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::Name;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on roles.
#[derive(Debug, Clone, Copy)]
pub struct Roles;

/// A role.
#[derive(Debug, Object)]
#[oai(example)]
struct Role {
    /// The id of one of the organization's own; absent: every organization has it.
    #[oai(skip_serializing_if_is_none)]
    id: Option<RoleId>,
    /// What people call it.
    name: String,
    /// What it is for.
    description: String,
    /// What it allows.
    permissions: Vec<String>,
}

example!(Role, {
    "id": "rol_01h455vb4pex5vsknk084sn02q",
    "name": "Deployer",
    "description": "Asks for jobs, and sees nothing else",
    "permissions": ["jobs:read", "jobs:write"],
});

/// The roles of an organization.
#[derive(Debug, Object)]
struct RoleList {
    /// Those that every organization has, then its own by name.
    items: Vec<Role>,
}

/// A role to make.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewRole {
    /// What people call it: 1 to 100 characters.
    name: Name,
    /// What it is for: at most 500 characters.
    description: Option<String>,
    /// What it allows; `GET /permissions` lists what there is. Only what the caller may himself.
    #[oai(validator(min_items = 1, max_items = 100))]
    permissions: Vec<String>,
}

example!(NewRole, { "name": "Deployer", "permissions": ["jobs:read", "jobs:write"] });

/// What to change about a role; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct RoleChange {
    /// What people call it: 1 to 100 characters.
    name: Option<Name>,
    /// What it is for: at most 500 characters.
    description: Option<String>,
    /// What it allows from now on, for everybody who has it. Only what the caller may himself.
    #[oai(validator(min_items = 1, max_items = 100))]
    permissions: Option<Vec<String>>,
}

example!(RoleChange, { "description": "Asks for jobs", "permissions": ["jobs:read", "jobs:write", "events:read"] });

/// A role was made.
#[derive(ApiResponse)]
enum Created {
    /// Members may have it.
    #[oai(status = 201)]
    Created(Json<Role>),
}

/// A role was removed.
#[derive(ApiResponse)]
enum Removed {
    /// Nobody had it.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Members")]
impl Roles {
    /// List roles
    ///
    /// The caller's own. Those that every organization has, and those it has made.
    #[oai(path = "/:organization/roles", method = "get", operation_id = "listRoles")]
    async fn list(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
    ) -> Result<Json<RoleList>, Error> {
        let id = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut tx = app.db.tenant(id).await?;
        let built_in = BuiltIn::ALL.into_iter().map(|role| Role::built_in(role, id));
        Ok(Json(RoleList { items: built_in.chain(custom::list(&mut tx).await?.into_iter().map(Role::from)).collect() }))
    }

    /// Make a role
    ///
    /// The caller's own. Nobody makes a role that allows more than he may himself: the `reason` is then `escalation`.
    ///
    /// Refused as `name_taken` when there is one of that name, as `too_many` when there are 100.
    #[oai(path = "/:organization/roles", method = "post", operation_id = "createRole")]
    async fn create(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewRole>,
    ) -> Result<Answered<Created>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let NewRole { name, description, permissions } = body.0;
        let (name, description) = (short(&name)?, described(description)?.unwrap_or_default());
        let permissions = read(&permissions)?;
        no_more_than_oneself(&caller, permissions.iter().copied().collect(), "the role")?;
        let create = once.run(&caller, id, async |tx| {
            if custom::list(tx).await?.len() >= usize::try_from(custom::MOST).unwrap_or(usize::MAX) {
                return Err(Error::new(Code::TooMany, "there are 100 roles, as many as there may be; remove one"));
            }
            let made = custom::create(tx, &name, &description, &permissions).await;
            let made = made.on_constraint("custom_roles_name_key", name_taken)?;
            let id = made.id;
            let made = Role::from(made);
            let facts = json!({ "role_id": id, "name": made.name, "permissions": made.permissions });
            webhooks::emit(tx, PlatformEvent::RoleCreated.name(), facts, caller.by()).await?;
            tx.audit().on(&id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Created::Created(Json(made)))
        });
        create.await
    }

    /// Change a role
    ///
    /// The caller's own. For everybody who has it, within a second. Nobody changes a role that allows more than he may himself,
    /// before or after: the `reason` is then `escalation`.
    ///
    /// Refused as `name_taken` when there is another one of that name.
    #[oai(path = "/:organization/roles/:role", method = "patch", operation_id = "updateRole")]
    async fn update(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The role.
        role: Path<RoleId>,
        body: Body<RoleChange>,
    ) -> Result<Answered<Json<Role>>, Error> {
        let (id, role) = (caller.inside(&app.db, organization.0).await?, role.0);
        let RoleChange { name, description, permissions } = body.0;
        let (name, description) = (name.as_ref().map(short).transpose()?, described(description)?);
        let permissions = permissions.as_deref().map(read).transpose()?;
        let update = once.run(&caller, id, async |tx| {
            let before = custom::lock(tx, role).await?.ok_or_else(|| Error::not_found(role))?;
            no_more_than_oneself(&caller, before.allows(), "the role")?;
            if let Some(permissions) = &permissions {
                no_more_than_oneself(&caller, permissions.iter().copied().collect(), "the role")?;
            }
            let changed =
                custom::update(tx, role, name.as_deref(), description.as_deref(), permissions.as_deref()).await;
            let changed = changed.on_constraint("custom_roles_name_key", name_taken)?;
            let (before, changed) = (Role::from(before), Role::from(changed.ok_or_else(|| Error::not_found(role))?));
            let facts = json!({ "role_id": role, "name": changed.name, "permissions": changed.permissions });
            webhooks::emit(tx, PlatformEvent::RoleUpdated.name(), facts, caller.by()).await?;
            tx.audit().became(before.to_json().as_ref(), changed.to_json().as_ref());
            Ok(Json(changed))
        });
        let updated = update.await?;
        app.access_changed();
        Ok(updated)
    }

    /// Remove a role
    ///
    /// The caller's own.
    ///
    /// Refused as `in_use` when members have it.
    #[oai(path = "/:organization/roles/:role", method = "delete", operation_id = "removeRole")]
    async fn remove(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The role.
        role: Path<RoleId>,
    ) -> Result<Answered<Removed>, Error> {
        let (id, role) = (caller.inside(&app.db, organization.0).await?, role.0);
        let remove = once.run(&caller, id, async |tx| {
            let removed = custom::remove(tx, role).await.on_constraint("memberships_custom_role_fkey", || {
                Error::new(Code::InUse, "members have this role; give them another one first")
            })?;
            if !removed {
                return Err(Error::not_found(role));
            }
            let facts = json!({ "role_id": role });
            webhooks::emit(tx, PlatformEvent::RoleRemoved.name(), facts, caller.by()).await?;
            Ok(Removed::Removed)
        });
        remove.await
    }
}

fn short(name: &Name) -> Result<String, Error> {
    match name.as_str() {
        name if name.chars().count() <= 100 => Ok(name.to_owned()),
        _ => Err(Error::field("name", "a role's name has at most 100 characters; shorten it")),
    }
}

fn described(text: Option<String>) -> Result<Option<String>, Error> {
    match text {
        Some(text) if text.chars().count() > 500 || text.contains('\0') => {
            Err(Error::field("description", "write at most 500 characters, without U+0000"))
        }
        text => Ok(text),
    }
}

/// Reads permissions that a role is to allow, each once.
fn read(words: &[String]) -> Result<Vec<Permission>, Error> {
    if words.is_empty() || words.len() > 100 {
        return Err(Error::field("permissions", "write 1 to 100 of those that GET /permissions lists"));
    }
    let mut permissions = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let permission: Permission = word.parse().map_err(|_| {
            Error::field(format!("permissions[{index}]"), "there is no such permission; GET /permissions lists them")
        })?;
        if !permissions.contains(&permission) {
            permissions.push(permission);
        }
    }
    Ok(permissions)
}

fn name_taken() -> Error {
    Error::new(Code::NameTaken, "the organization has a role of this name; choose another").at("name")
}

impl Role {
    fn built_in(role: BuiltIn, organization: OrganizationId) -> Self {
        let allows: Permissions = memberships::permissions_of(role, organization).into_iter().collect();
        Self {
            id: None,
            name: role.as_str().to_owned(),
            description: role.describe().to_owned(),
            permissions: allows.words(),
        }
    }
}

impl From<CustomRole> for Role {
    fn from(role: CustomRole) -> Self {
        Self { id: Some(role.id), permissions: role.allows().words(), name: role.name, description: role.description }
    }
}
