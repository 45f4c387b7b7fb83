//! Support: whoever stands above an organization acts in it for a while, for a reason, and its people see it and may end it.

use chrono::Duration;
use gantry_schema::access::support;
use gantry_schema::organizations::needed::{GiveSupport, ReadMembers};
use gantry_schema::organizations::{self, Permission};
use gantry_schema::{OrganizationId, SupportId};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on support.
#[derive(Debug, Clone, Copy)]
pub struct SupportGrants;

/// Support that was given.
#[derive(Debug, Object)]
#[oai(example)]
struct SupportGrant {
    /// Its id.
    id: SupportId,
    /// In which organization.
    organization_id: OrganizationId,
    /// To which one above it.
    granted_to: OrganizationId,
    /// Who may use it: `api_key:key_…` or `person:usr_…`.
    holder: String,
    /// What it allows besides reading.
    permissions: Vec<String>,
    /// Why it is needed.
    reason: String,
    /// Since when.
    created_at: Moment,
    /// Until when.
    expires_at: Moment,
    /// When it was ended before that.
    #[oai(skip_serializing_if_is_none)]
    ended_at: Option<Moment>,
    /// By whom.
    #[oai(skip_serializing_if_is_none)]
    ended_by: Option<String>,
}

example!(SupportGrant, {
    "id": "sup_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "granted_to": "org_01h455vb4pex5vsknk084sn03r",
    "holder": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "permissions": ["jobs:write"],
    "reason": "Ticket 4711: the nightly import hangs",
    "created_at": "2026-01-15T12:00:00Z",
    "expires_at": "2026-01-15T13:00:00Z",
});

/// Support to take.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewSupport {
    /// Why it is needed, in 1 to 500 characters: the organization's people read it.
    reason: String,
    /// For how many minutes: 1 to 1440; left out: 60.
    #[oai(validator(minimum(value = "1"), maximum(value = "1440")))]
    minutes: Option<i32>,
    /// What it is to allow besides reading; only what the caller may himself.
    #[oai(validator(min_items = 1, max_items = 100))]
    permissions: Vec<String>,
}

example!(NewSupport, { "reason": "Ticket 4711: the nightly import hangs", "minutes": 60, "permissions": ["jobs:write"] });

/// Support was given.
#[derive(ApiResponse)]
enum Given {
    /// The caller acts in the organization with `X-Organization-Id`.
    #[oai(status = 201)]
    Given(Json<SupportGrant>),
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Members")]
impl SupportGrants {
    /// Take support in an organization below
    ///
    /// From now on, and for as long as it lasts, the caller acts in the organization when it sends its id as
    /// `X-Organization-Id`. Only the caller itself, and only what is listed; reading needs no support. The organization's people
    /// see it and can end it.
    ///
    /// Refused as `forbidden` when it is the caller's own organization or more than the caller may, as `not_found` when there
    /// is no such organization below it.
    #[oai(path = "/:organization/support", method = "post", operation_id = "takeSupport")]
    async fn take(
        &self,
        caller: May<GiveSupport>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewSupport>,
    ) -> Result<Answered<Given>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        let NewSupport { reason, minutes, permissions } = body.0;
        if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
            return Err(Error::field("reason", "say why, in 1 to 500 characters; its people read it"));
        }
        let minutes = minutes.unwrap_or(60);
        if !(1..=1440).contains(&minutes) {
            return Err(Error::field("minutes", "support lasts 1 to 1440 minutes; write a number between them"));
        }
        if permissions.is_empty() || permissions.len() > 100 {
            return Err(Error::field("permissions", "write 1 to 100 of those that GET /permissions lists"));
        }
        let mut allowed = Vec::new();
        for (index, word) in permissions.iter().enumerate() {
            let field = format!("permissions[{index}]");
            let permission: Permission = word
                .parse()
                .map_err(|_| Error::field(&field, "there is no such permission; GET /permissions lists them"))?;
            if permission == Permission::OperatePlatform {
                return Err(Error::field(field, "this is never done in an organization below; leave it out"));
            }
            caller.may(permission).map_err(|refused| refused.at(field))?;
            if !allowed.contains(&permission) {
                allowed.push(permission);
            }
        }
        if own == id {
            return Err(Error::new(Code::Forbidden, "it is the caller's own organization: nobody needs support there")
                .reason("own_organization"));
        }
        let take = once.run(&caller, own, async |tx| {
            let found = organizations::find(tx, id).await?;
            if found.is_none_or(|found| found.deleted_at.is_some()) {
                return Err(Error::not_found(id));
            }
            let holder = caller.by().to_string();
            let lasts = Duration::minutes(minutes.into());
            let given = support::give(tx, id, &holder, &allowed, &reason, lasts).await?;
            let given = SupportGrant::from(given);
            tx.audit().became(None, given.to_json().as_ref());
            Ok(Given::Given(Json(given)))
        });
        take.await
    }

    /// List the support in an organization
    ///
    /// Newest first. Of the caller's own organization all that was given in it; of one below it what was given to the caller's.
    #[oai(path = "/:organization/support", method = "get", operation_id = "listSupport")]
    async fn list(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<SupportGrant>, Error> {
        let id = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(id)?;
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = support::list(&mut tx, id, window).await?;
        Ok(paging.page(id, found, |found| Place::id(found.id), SupportGrant::from))
    }

    /// End support
    ///
    /// At once: by whom it was given to, or in the organization it was given in. Ending it again changes nothing.
    #[oai(path = "/:organization/support/:support", method = "delete", operation_id = "endSupport")]
    async fn end(
        &self,
        caller: May<GiveSupport>,
        app: Data<&App>,
        once: Once,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        /// The support.
        support: Path<SupportId>,
    ) -> Result<Answered<Json<SupportGrant>>, Error> {
        let id = caller.may_for(&app.db, Some(organization.0)).await?;
        let end = once.run(&caller, caller.organization(), async |tx| {
            let ended = support::end(tx, id, support.0, &caller.by().to_string()).await?;
            Ok(Json(SupportGrant::from(ended.ok_or_else(|| Error::not_found(support.0))?)))
        });
        end.await
    }
}

impl From<support::Support> for SupportGrant {
    fn from(row: support::Support) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            granted_to: row.granted_to,
            holder: row.holder,
            permissions: row.permissions,
            reason: row.reason,
            created_at: row.created_at.into(),
            expires_at: row.expires_at.into(),
            ended_at: row.ended_at.map(Moment),
            ended_by: row.ended_by,
        }
    }
}
