//! Organizations: the caller's and those below it.

use gantry_jobs::webhooks;
use gantry_schema::OrganizationId;
use gantry_schema::organizations::needed::{ManageOrganizations, ReadOrganizations};
use gantry_schema::organizations::{self, Permission};
use gantry_schema::webhooks::event_types::PlatformEvent;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfNoneMatch, Tagged};
use crate::error::Error;
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

/// The operations on organizations.
#[derive(Debug, Clone, Copy)]
pub struct Organizations;

/// A tenant.
#[derive(Debug, Object)]
#[oai(example)]
struct Organization {
    /// Its id.
    id: OrganizationId,
    /// The one above it.
    #[oai(skip_serializing_if_is_none)]
    parent_id: Option<OrganizationId>,
    /// What people call it.
    name: String,
    /// Its share of a queue while others wait too.
    weight: i16,
    /// Jobs it may have running at the same time; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    max_running: Option<i32>,
    /// When it was made.
    created_at: Moment,
}

example!(Organization, {
    "id": "org_01h455vb4pex5vsknk084sn02q",
    "parent_id": "org_01h455vb4pex5vsknk084sn03r",
    "name": "Acme",
    "weight": 1,
    "max_running": 50,
    "created_at": "2026-01-15T12:00:00Z",
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
    /// Its share of a queue while others wait too: 1 to 100; left out: 1. Set by the platform only.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    weight: Option<i16>,
    /// Jobs it may have running at the same time; left out: no limit. Set by the platform only.
    #[oai(validator(minimum(value = "1")))]
    max_running: Option<i32>,
}

example!(NewOrganization, { "name": "Acme" });

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
    ),
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Organizations {
    /// List organizations
    ///
    /// The caller's and those below it, oldest first.
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
    /// The caller's, or one below it.
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
    /// Refused as `not_found` when there is no such parent here.
    #[oai(path = "/", method = "post", operation_id = "createOrganization")]
    async fn create(
        &self,
        caller: May<ManageOrganizations>,
        once: Once,
        body: Body<NewOrganization>,
    ) -> Result<Answered<Created>, Error> {
        let own = caller.organization();
        let NewOrganization { name, parent_id, weight, max_running } = body.0;
        if weight.is_some() || max_running.is_some() {
            // Who could set its own share would take the others'.
            caller.may(Permission::OperatePlatform)?;
        }
        let weight = weight.unwrap_or(1);
        if !(1..=100).contains(&weight) {
            return Err(Error::field("weight", "a weight is 1 to 100; write a number between them"));
        }
        if max_running.is_some_and(|max| max < 1) {
            return Err(Error::field(
                "max_running",
                "at least one job must be allowed to run; leave it out for no limit",
            ));
        }
        let parent = parent_id.unwrap_or(own);
        once.run(&caller, own, async |tx| {
            if organizations::find(tx, parent).await?.is_none() {
                return Err(Error::not_found(parent).at("parent_id"));
            }
            let made = organizations::create(tx, parent, name.as_str(), weight, max_running).await?;
            let facts = json!({ "organization_id": made.id, "name": made.name });
            webhooks::emit(tx, PlatformEvent::OrganizationCreated.name(), facts, caller.by()).await?;
            let (location, made) = (format!("/organizations/{}", made.id), Organization::from(made));
            tx.audit().on(&made.id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Created::Created(Json(made), location))
        })
        .await
    }
}

impl From<organizations::Organization> for Organization {
    fn from(row: organizations::Organization) -> Self {
        Self {
            id: row.id,
            parent_id: row.parent,
            name: row.name,
            weight: row.weight,
            max_running: row.max_running,
            created_at: row.created_at.into(),
        }
    }
}
