//! Organizations: the caller's and those below it.
//!
//! Whoever stands above an organization sees to it as a whole: makes it, names it, moves, suspends and deletes it. What
//! is done inside it is its own business.

mod hosts;
mod lifecycle;
mod settings;
mod tree;

use gantry_jobs::webhooks;
use gantry_schema::organizations::needed::{ManageOrganizations, ReadOrganizations};
use gantry_schema::organizations::{self, OrganizationType, Permission, Slug};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::{MaybeUndefined, ToJSON as _};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::conditional::{Etag, IfMatch, IfNoneMatch, Tagged};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

pub use hosts::Hosts;
pub use lifecycle::Lifecycle;
pub use settings::Settings;
pub use tree::Tree;

/// The operations on organizations.
#[derive(Debug, Clone, Copy)]
pub struct Organizations;

/// What an organization is; each ranks below the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case", rename = "OrganizationType")]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The operator's own, above all others; there is one.
    Platform,
    /// A branch of its own, directly below the platform.
    TopBranch,
    /// A reseller; below the platform, a top branch or another reseller.
    MasterBranch,
    /// A customer that may have others below it; below any of the above or another of its kind.
    SubUser,
    /// A customer with nothing below it.
    EndUser,
}

/// Whether anything is done in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case", rename = "OrganizationState")]
enum State {
    /// It works.
    Active,
    /// It was suspended, or one above it was: keys are refused, jobs are not begun, schedules do not tick.
    Suspended,
    /// It was deleted; for 30 days it can be restored.
    Deleted,
}

/// A tenant.
#[derive(Debug, Object)]
#[oai(example)]
struct Organization {
    /// Its id.
    id: OrganizationId,
    /// The one above it.
    #[oai(skip_serializing_if_is_none)]
    parent_id: Option<OrganizationId>,
    /// What it is.
    r#type: Kind,
    /// What people call it.
    name: String,
    /// Its name in URLs; no two that are below the same one have the same.
    slug: String,
    /// Whether anything is done in it.
    state: State,
    /// The topmost that is suspended or deleted, of itself and those above it; absent: none is.
    #[oai(skip_serializing_if_is_none)]
    held_by: Option<OrganizationId>,
    /// Why it was suspended.
    #[oai(skip_serializing_if_is_none)]
    suspended_reason: Option<String>,
    /// Since when it is suspended itself.
    #[oai(skip_serializing_if_is_none)]
    suspended_at: Option<Moment>,
    /// Since when it is deleted.
    #[oai(skip_serializing_if_is_none)]
    deleted_at: Option<Moment>,
    /// Its share of a queue while others wait too.
    weight: i16,
    /// Jobs it may have running at the same time; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    max_running: Option<i32>,
    /// When it was made.
    created_at: Moment,
    /// When its name, its place or its state was last changed.
    updated_at: Moment,
}

example!(Organization, {
    "id": "org_01h455vb4pex5vsknk084sn02q",
    "parent_id": "org_01h455vb4pex5vsknk084sn03r",
    "type": "master_branch",
    "name": "Acme Hosting",
    "slug": "acme-hosting",
    "state": "active",
    "weight": 1,
    "max_running": 50,
    "created_at": "2026-01-15T12:00:00Z",
    "updated_at": "2026-01-15T12:00:00Z",
});

/// An organization to make.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewOrganization {
    /// What people call it: 1 to 200 characters.
    name: Name,
    /// The one above it: the caller's or one below it; left out: the caller's.
    parent_id: Option<OrganizationId>,
    /// What it is; left out: the type that ranks next below its parent's.
    r#type: Option<Kind>,
    /// Its name in URLs: 1 to 63 of a-z, 0-9 and -; left out: made of its name.
    slug: Option<String>,
    /// Its share of a queue while others wait too: 1 to 100; left out: 1. Set by the platform only.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    weight: Option<i16>,
    /// Jobs it may have running at the same time; left out: no limit. Set by the platform only.
    #[oai(validator(minimum(value = "1")))]
    max_running: Option<i32>,
}

example!(NewOrganization, { "name": "Acme Hosting", "type": "master_branch", "slug": "acme-hosting" });

/// What to change; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct OrganizationChange {
    /// What people call it: 1 to 200 characters.
    name: Option<Name>,
    /// Its name in URLs: 1 to 63 of a-z, 0-9 and -.
    slug: Option<String>,
    /// What it is. Changed from above only, and where it fits both above it and below it.
    r#type: Option<Kind>,
    /// Its share of a queue while others wait too: 1 to 100. Set by the platform only.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    weight: Option<i16>,
    /// Jobs it may have running at the same time; null: no limit. Set by the platform only.
    #[oai(validator(minimum(value = "1")))]
    max_running: MaybeUndefined<i32>,
}

example!(OrganizationChange, { "name": "Acme Hosting AG", "slug": "acme" });

/// An organization was made.
#[derive(ApiResponse)]
enum Created {
    /// It is there.
    #[oai(status = 201)]
    Created(
        Json<Organization>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
        /// The tag of what it looks like, for the next change.
        #[oai(header = "ETag")]
        Etag,
    ),
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Organizations {
    /// List organizations
    ///
    /// The caller's and those below it, oldest first, without those that were deleted.
    #[oai(path = "/", method = "get", operation_id = "listOrganizations")]
    async fn list(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<Organization>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = organizations::list(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), Organization::from))
    }

    /// Get an organization
    ///
    /// The caller's, or one below it; also one that was deleted and can be restored.
    #[oai(path = "/:organization", method = "get", operation_id = "getOrganization")]
    async fn get(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Tagged<Organization>, Error> {
        let own = caller.organization();
        let mut tx = app.db.tenant(own).await?;
        let found = organizations::find(&mut tx, organization.0).await?;
        Ok(if_none_match.answer(found.ok_or_else(|| Error::not_found(organization.0))?.into()))
    }

    /// Make an organization
    ///
    /// Below the caller's, or below one of those below it. Its `weight` and `max_running` need the permission
    /// `platform:operate` besides.
    ///
    /// Refused as `not_found` when there is no such parent here, as `wrong_place` when its type may not stand there, as
    /// `name_taken` when another one there has the slug, as `license_limit` when a license allows no more below it, as
    /// `license_state` when one is not in force.
    #[oai(path = "/", method = "post", operation_id = "createOrganization")]
    async fn create(
        &self,
        caller: May<ManageOrganizations>,
        once: Once,
        body: Body<NewOrganization>,
    ) -> Result<Answered<Created>, Error> {
        let own = caller.organization();
        let NewOrganization { name, parent_id, r#type, slug, weight, max_running } = body.0;
        shares(&caller, weight, max_running.map_or(MaybeUndefined::Undefined, MaybeUndefined::Value))?;
        let new = organizations::NewOrganization {
            parent: parent_id.unwrap_or(own),
            name: name.as_str(),
            r#type: r#type.map(OrganizationType::from),
            slug: slug.as_deref().map(read_slug).transpose()?,
            weight: weight.unwrap_or(1),
            max_running,
        };
        once.run(&caller, own, async |tx| {
            if organizations::find(tx, new.parent).await?.is_none_or(|parent| parent.deleted_at.is_some()) {
                return Err(Error::not_found(new.parent).at("parent_id"));
            }
            let made = placed(organizations::create(tx, &new).await, new.parent, "parent_id")?;
            let facts = json!({ "organization_id": made.id, "name": made.name });
            webhooks::emit(tx, PlatformEvent::OrganizationCreated.name(), facts, caller.by()).await?;
            let location = format!("/organizations/{}", made.id);
            let made = Organization::from(made);
            tx.audit().on(&made.id).called(&made.name).became(None, made.to_json().as_ref());
            let etag = Etag::of(&made);
            Ok(Created::Created(Json(made), location, etag))
        })
        .await
    }

    /// Change an organization
    ///
    /// What is left out stays as it is. The caller's own, or one below it; its type is changed from above only. `weight` and
    /// `max_running` need the permission `platform:operate` besides.
    ///
    /// Refused as `wrong_place` when the type does not fit above or below it, as `name_taken` when another one beside it has
    /// the slug.
    #[oai(path = "/:organization", method = "patch", operation_id = "updateOrganization")]
    async fn update(
        &self,
        caller: May<ManageOrganizations>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<OrganizationChange>,
    ) -> Result<Answered<Tagged<Organization>>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        let OrganizationChange { name, slug, r#type, weight, max_running } = body.0;
        shares(&caller, weight, max_running)?;
        if r#type.is_some() {
            from_above(own, id)?;
        }
        let slug = slug.as_deref().map(read_slug).transpose()?;
        let change = organizations::Change {
            name: name.as_ref().map(Name::as_str),
            r#type: r#type.map(OrganizationType::from),
            slug: slug.as_ref(),
            weight,
            max_running: max_running.into(),
        };
        let update = once.run(&caller, own, async |tx| {
            let before = find_to_change(tx, id).await?;
            if_match.check(&Organization::from(before))?;
            placed(organizations::update(tx, id, &change).await, id, "type")?;
            tell(tx, PlatformEvent::OrganizationUpdated, json!({ "organization_id": id }), &caller).await?;
            Ok(Tagged::of(find(tx, id).await?.into()))
        });
        update.await
    }
}

/// Who could set its own share would take the others'.
fn shares(caller: &Caller, weight: Option<i16>, max_running: MaybeUndefined<i32>) -> Result<(), Error> {
    if weight.is_some() || !max_running.is_undefined() {
        caller.may(Permission::OperatePlatform)?;
    }
    if weight.is_some_and(|weight| !(1..=100).contains(&weight)) {
        return Err(Error::field("weight", "a weight is 1 to 100; write a number between them"));
    }
    if max_running.value().is_some_and(|max| *max < 1) {
        return Err(Error::field("max_running", "at least one job must be allowed to run; leave it out for no limit"));
    }
    Ok(())
}

/// What only one above an organization does with it.
fn from_above(own: OrganizationId, id: OrganizationId) -> Result<(), Error> {
    if own == id {
        return Err(Error::new(
            Code::Forbidden,
            "an organization does not do this to itself; one above it can, or the platform",
        ));
    }
    Ok(())
}

fn read_slug(text: &str) -> Result<Slug, Error> {
    text.parse().map_err(|error| Error::field("slug", format!("{error}; write one like acme-hosting")))
}

/// Says what is wrong with a place in the tree where the database has refused it.
fn placed<T>(done: Result<T, sqlx::Error>, below: OrganizationId, field: &str) -> Result<T, Error> {
    let type_does_not_fit = || {
        Error::new(
            Code::WrongPlace,
            "an organization of this type may not stand there: a type ranks lower than its parent's (top_branch, \
             master_branch, sub_user, end_user), master_branch and sub_user also stand below their own kind, and nothing \
             below end_user; choose another type or another place",
        )
        .at(field)
    };
    let slug_taken = || {
        Error::new(Code::NameTaken, "another organization below the same one has this slug; choose another").at("slug")
    };
    let violated = match &done {
        Err(sqlx::Error::Database(error)) => error.constraint().map(str::to_owned),
        _ => None,
    };
    match violated.as_deref() {
        Some("organizations_place_check") => Err(type_does_not_fit()),
        Some("organizations_slug_key") => Err(slug_taken()),
        Some("organizations_no_cycle") => {
            Err(Error::new(Code::WrongPlace, "an organization cannot be below itself; choose another place").at(field))
        }
        Some("organizations_parent_deleted") => Err(Error::new(
            Code::WrongState,
            format!("{below} was deleted, and nothing is put below it; restore it first, or choose another place"),
        )
        .at(field)),
        _ => Ok(done?),
    }
}

/// Tells the caller's organization of something.
async fn tell(tx: &mut TenantTx, event: PlatformEvent, facts: Value, caller: &Caller) -> Result<(), Error> {
    webhooks::emit(tx, event.name(), facts, caller.by()).await?;
    Ok(())
}

async fn find(tx: &mut TenantTx, id: OrganizationId) -> Result<organizations::Organization, Error> {
    organizations::find(tx, id).await?.ok_or_else(|| Error::not_found(id))
}

/// The organization, held until the transaction ends: nobody else changes it in between.
async fn find_to_change(tx: &mut TenantTx, id: OrganizationId) -> Result<organizations::Organization, Error> {
    let found = organizations::lock(tx, id).await?;
    found.filter(|found| found.deleted_at.is_none()).ok_or_else(|| Error::not_found(id))
}

impl From<OrganizationType> for Kind {
    fn from(r#type: OrganizationType) -> Self {
        match r#type {
            OrganizationType::Platform => Self::Platform,
            OrganizationType::TopBranch => Self::TopBranch,
            OrganizationType::MasterBranch => Self::MasterBranch,
            OrganizationType::SubUser => Self::SubUser,
            OrganizationType::EndUser => Self::EndUser,
        }
    }
}

impl From<Kind> for OrganizationType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Platform => Self::Platform,
            Kind::TopBranch => Self::TopBranch,
            Kind::MasterBranch => Self::MasterBranch,
            Kind::SubUser => Self::SubUser,
            Kind::EndUser => Self::EndUser,
        }
    }
}

impl From<organizations::Organization> for Organization {
    fn from(row: organizations::Organization) -> Self {
        let state = match (row.deleted_at, row.held_by) {
            (Some(_), _) => State::Deleted,
            (None, Some(_)) => State::Suspended,
            (None, None) => State::Active,
        };
        Self {
            id: row.id,
            parent_id: row.parent,
            r#type: row.r#type.into(),
            name: row.name,
            slug: row.slug,
            state,
            held_by: row.held_by,
            suspended_reason: row.suspended_reason,
            suspended_at: row.suspended_at.map(Moment),
            deleted_at: row.deleted_at.map(Moment),
            weight: row.weight,
            max_running: row.max_running,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}
