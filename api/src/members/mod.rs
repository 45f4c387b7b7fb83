//! The members of an organization: who, as what; giving them another role, and letting them go.

mod factor_resets;
mod invitations;
mod roles;
mod support;

use gantry_jobs::{By, webhooks};
use gantry_schema::access::Behind;
use gantry_schema::memberships::members::{self, NewRole};
use gantry_schema::memberships::{self, custom};
use gantry_schema::organizations::needed::{ManageMembers, ReadMembers};
use gantry_schema::organizations::{Permission, Permissions};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, PersonId, RoleId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

pub use factor_resets::FactorResets;
pub use invitations::Invitations;
pub use roles::Roles;
pub use support::SupportGrants;

/// The operations on members.
#[derive(Debug, Clone, Copy)]
pub struct Members;

/// A role that every organization has; each may all that those after it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum BuiltInRole {
    /// Everything. There is always at least one.
    Owner,
    /// Everything but what ends the organization or concerns its bills and licenses.
    Admin,
    /// The daily work.
    Member,
    /// Look at the daily work.
    Viewer,
}

impl From<BuiltInRole> for memberships::Role {
    fn from(role: BuiltInRole) -> Self {
        match role {
            BuiltInRole::Owner => Self::Owner,
            BuiltInRole::Admin => Self::Admin,
            BuiltInRole::Member => Self::Member,
            BuiltInRole::Viewer => Self::Viewer,
        }
    }
}

/// Whether a membership counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum MembershipState {
    /// It does.
    Active,
    /// It does not, until it is made active again; nor do the keys that he made.
    Suspended,
}

/// A member.
#[derive(Debug, Object)]
#[oai(example)]
struct Member {
    /// Who.
    person_id: PersonId,
    /// His e-mail address.
    email: String,
    /// What he is called.
    name: String,
    /// `owner`, `admin`, `member`, `viewer`, or `custom`: one of the organization's own.
    role: String,
    /// Which one of the organization's own.
    #[oai(skip_serializing_if_is_none)]
    role_id: Option<RoleId>,
    /// What that one is called.
    #[oai(skip_serializing_if_is_none)]
    role_name: Option<String>,
    /// Whether it counts.
    state: MembershipState,
    /// What he may do.
    permissions: Vec<String>,
    /// Since when.
    created_at: Moment,
}

example!(Member, {
    "person_id": "usr_01h455vb4pex5vsknk084sn02q",
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "role": "viewer",
    "state": "active",
    "permissions": ["organizations:read", "jobs:read"],
    "created_at": "2026-01-15T12:00:00Z",
});

/// What to change about a member; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct MemberChange {
    /// A role that every organization has.
    role: Option<BuiltInRole>,
    /// One of the organization's own roles; not together with `role`.
    role_id: Option<RoleId>,
    /// Whether the membership counts.
    state: Option<MembershipState>,
}

example!(MemberChange, { "role": "viewer" });

/// Somebody is a member no more.
#[derive(ApiResponse)]
enum Removed {
    /// What he made stays; keys that he made allow nothing any more.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Members")]
impl Members {
    /// List members
    ///
    /// The caller's own. With what each may do.
    #[oai(path = "/:organization/members", method = "get", operation_id = "listMembers")]
    async fn list(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<Member>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = members::page(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.person), Member::from))
    }

    /// Change a member
    ///
    /// The caller's own. Nobody gives a role that allows more than he may himself, nor changes somebody who may more than he:
    /// the `reason` is then `escalation`. Keys that the member made allow no more than his new role, within a second.
    ///
    /// Refused as `last_owner` when the organization would have no owner, as `not_found` when there is no such member or role.
    #[oai(path = "/:organization/members/:person", method = "patch", operation_id = "changeMember")]
    async fn change(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The member.
        person: Path<PersonId>,
        body: Body<MemberChange>,
    ) -> Result<Answered<Json<Member>>, Error> {
        let (id, person) = (caller.inside(&app.db, organization.0).await?, person.0);
        let MemberChange { role, role_id, state } = body.0;
        let role = match (role, role_id) {
            (Some(_), Some(_)) => {
                return Err(Error::field("role_id", "a member has one role; leave `role` or `role_id` out"));
            }
            (Some(role), None) => Some(NewRole::BuiltIn(role.into())),
            (None, Some(role)) => Some(NewRole::Custom(role)),
            (None, None) => None,
        };
        let change = once.run(&caller, id, async |tx| {
            let before = find(tx, person).await?;
            no_more_than_oneself(&caller, before.role_allows, "the member")?;
            if let Some(role) = role {
                let allows = match role {
                    NewRole::BuiltIn(role) => memberships::permissions_of(role, id).into_iter().collect(),
                    NewRole::Custom(role) => {
                        let found = custom::lock(tx, role).await?;
                        found.ok_or_else(|| Error::not_found(role).at("role_id"))?.allows()
                    }
                };
                no_more_than_oneself(&caller, allows, "the role")?;
                members::set_role(tx, person, role).await.on_constraint("memberships_last_owner", last_owner)?;
            }
            if let Some(state) = state {
                let changed = members::set_state(tx, person, state.into()).await;
                changed.on_constraint("memberships_last_owner", last_owner)?;
            }
            let after = find(tx, person).await?;
            tell_of_change(tx, &before, &after, caller.by()).await?;
            let (before, member) = (Member::from(before), Member::from(after));
            tx.audit().became(before.to_json().as_ref(), member.to_json().as_ref());
            Ok(Json(member))
        });
        let changed = change.await?;
        app.access_changed();
        app.tell_events(id);
        Ok(changed)
    }

    /// Remove a member
    ///
    /// The caller's own. Keys that he made allow nothing any more, within a second. Nobody removes somebody who may more than
    /// he: the `reason` is then `escalation`.
    ///
    /// Refused as `last_owner` when the organization would have no owner, as `not_found` when there is no such member.
    #[oai(path = "/:organization/members/:person", method = "delete", operation_id = "removeMember")]
    async fn remove(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The member.
        person: Path<PersonId>,
    ) -> Result<Answered<Removed>, Error> {
        let (id, person) = (caller.inside(&app.db, organization.0).await?, person.0);
        let remove = once.run(&caller, id, async |tx| {
            no_more_than_oneself(&caller, find(tx, person).await?.role_allows, "the member")?;
            members::remove(tx, person).await.on_constraint("memberships_last_owner", last_owner)?;
            let facts = json!({ "person_id": person, "reason": "removed" });
            webhooks::emit(tx, PlatformEvent::MemberRemoved.name(), facts, caller.by()).await?;
            Ok(Removed::Removed)
        });
        let removed = remove.await?;
        app.access_changed();
        app.tell_events(id);
        Ok(removed)
    }
}

/// Tells the organization what is different about a member.
async fn tell_of_change(
    tx: &mut TenantTx,
    before: &members::Member,
    after: &members::Member,
    by: &By,
) -> Result<(), Error> {
    let person = after.person;
    if (before.role, before.custom_role) != (after.role, after.custom_role) {
        let facts = json!({ "person_id": person, "role": after.role.as_str(), "previous_role": before.role.as_str() });
        webhooks::emit(tx, PlatformEvent::MemberRoleChanged.name(), facts, by).await?;
    }
    if before.state != after.state {
        let event = match after.state {
            memberships::State::Active => PlatformEvent::MemberResumed,
            memberships::State::Suspended => PlatformEvent::MemberSuspended,
        };
        webhooks::emit(tx, event.name(), json!({ "person_id": person }), by).await?;
    }
    Ok(())
}

async fn find(tx: &mut TenantTx, person: PersonId) -> Result<members::Member, Error> {
    members::lock(tx, person).await?.ok_or_else(|| Error::not_found(person))
}

/// Refuses what would give, or take from, somebody more than the caller may himself.
pub(crate) fn no_more_than_oneself(caller: &Caller, allows: Permissions, what: &str) -> Result<(), Error> {
    let beyond: Vec<&str> = Permission::ALL
        .iter()
        .filter(|one| allows.contain(**one) && !caller.has(**one))
        .map(|one| one.as_str())
        .take(5)
        .collect();
    if beyond.is_empty() {
        return Ok(());
    }
    let detail = format!("{what} may do what you may not ({}); ask somebody who may", beyond.join(", "));
    Err(Error::new(Code::Forbidden, detail).reason("escalation"))
}

fn last_owner() -> Error {
    Error::new(Code::LastOwner, "an organization keeps an owner; make somebody else one first")
}

impl From<MembershipState> for memberships::State {
    fn from(state: MembershipState) -> Self {
        match state {
            MembershipState::Active => Self::Active,
            MembershipState::Suspended => Self::Suspended,
        }
    }
}

impl From<members::Member> for Member {
    fn from(member: members::Member) -> Self {
        let may = match member.behind {
            Behind::Member(permissions) => permissions,
            Behind::Suspended | Behind::Left | Behind::Organization => Permissions::default(),
        };
        Self {
            person_id: member.person,
            email: member.email,
            name: member.name,
            role: member.role.as_str().to_owned(),
            role_id: member.custom_role,
            role_name: member.custom_role_name,
            state: match member.state {
                memberships::State::Active => MembershipState::Active,
                memberships::State::Suspended => MembershipState::Suspended,
            },
            permissions: may.words(),
            created_at: member.created_at.into(),
        }
    }
}
