//! Suspending, resuming, deleting and restoring organizations.

use gantry_schema::OrganizationId;
use gantry_schema::organizations::needed::{DeleteOrganizations, ManageOrganizations};
use gantry_schema::organizations::{lifecycle, tree};
use gantry_schema::webhooks::event_types::PlatformEvent;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::{Organization, find, find_to_change, from_above, placed, tell};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, Tagged};
use crate::error::{Code, Error};
use crate::example::example;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on the life of organizations.
#[derive(Debug, Clone, Copy)]
pub struct Lifecycle;

/// Why an organization is suspended.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Suspension {
    /// What its people are told: 1 to 500 characters.
    reason: String,
}

example!(Suspension, { "reason": "Unpaid since March" });

/// What becomes of the organizations directly below one that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum Children {
    /// Where there are some, nothing is deleted.
    Refuse,
    /// They are put below its parent, with all that is below them.
    Reparent,
}

/// An organization was deleted.
#[derive(ApiResponse)]
enum Deleted {
    /// For 30 days it can be restored.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Organizations")]
impl Lifecycle {
    /// Suspend an organization
    ///
    /// From now on nothing is done in it and below it: API keys are refused with the reason, jobs are not begun, schedules do
    /// not tick. Jobs that run are not stopped. Only one above it can; suspending it again changes nothing.
    #[oai(path = "/:organization/suspend", method = "post", operation_id = "suspendOrganization")]
    async fn suspend(
        &self,
        caller: May<ManageOrganizations>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<Suspension>,
    ) -> Result<Answered<Tagged<Organization>>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        from_above(own, id)?;
        let reason = body.0.reason;
        if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
            return Err(Error::field("reason", "say why, in 1 to 500 characters; its people are told"));
        }
        let suspend = once.run(&caller, own, async |tx| {
            tree::take_turn(tx).await?;
            if_match.check(&Organization::from(find_to_change(tx, id).await?))?;
            if lifecycle::suspend(tx, id, &reason).await? {
                let facts = json!({ "organization_id": id, "reason": reason });
                tell(tx, PlatformEvent::OrganizationSuspended, facts, &caller).await?;
            }
            Ok(Tagged::of(find(tx, id).await?.into()))
        });
        let suspended = suspend.await?;
        app.access_changed();
        Ok(suspended)
    }

    /// Resume an organization
    ///
    /// It goes on, unless one above it is suspended too: jobs that waited are begun, schedules go on by their policy. Resuming
    /// one that is not suspended itself changes nothing.
    #[oai(path = "/:organization/resume", method = "post", operation_id = "resumeSuspendedOrganization")]
    async fn resume(
        &self,
        caller: May<ManageOrganizations>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Tagged<Organization>>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        from_above(own, id)?;
        let resume = once.run(&caller, own, async |tx| {
            tree::take_turn(tx).await?;
            if_match.check(&Organization::from(find_to_change(tx, id).await?))?;
            if lifecycle::resume(tx, id).await? {
                let facts = json!({ "organization_id": id });
                tell(tx, PlatformEvent::OrganizationResumed, facts, &caller).await?;
            }
            Ok(Tagged::of(find(tx, id).await?.into()))
        });
        let resumed = resume.await?;
        app.access_changed();
        Ok(resumed)
    }

    /// Delete an organization
    ///
    /// Refused while there are others below it, unless they are to be put below its parent, and while it has what runs or costs
    /// something, such as schedules that are not paused. For 30 days one above it can restore it; then everything of it is
    /// removed. An organization may delete itself.
    ///
    /// Refused as `in_use` when something needs it, as `name_taken` when one that would be put below its parent has the slug of
    /// another there.
    #[oai(path = "/:organization", method = "delete", operation_id = "deleteOrganization")]
    async fn delete(
        &self,
        caller: May<DeleteOrganizations>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        /// What becomes of those directly below it; left out: `refuse`.
        children: Query<Option<Children>>,
    ) -> Result<Answered<Deleted>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        if children.0 == Some(Children::Reparent) || id == OrganizationId::PLATFORM {
            from_above(own, id)?;
        }
        let delete = once.run(&caller, own, async |tx| {
            tree::take_turn(tx).await?;
            let before = find_to_change(tx, id).await?;
            let parent = before.parent.ok_or_else(|| Error::not_found(id))?;
            if_match.check(&Organization::from(before))?;
            if children.0 == Some(Children::Reparent) {
                placed(tree::put_children_below(tx, id, parent).await, parent, "children")?;
            }
            let kept_by = lifecycle::kept_by(tx, id).await?;
            if !kept_by.is_empty() {
                let what: Vec<String> = kept_by.iter().map(|count| format!("{} {}", count.own, count.kind)).collect();
                return Err(Error::new(
                    Code::InUse,
                    format!(
                        "it has {}; remove or pause them first, or say children=reparent to put organizations below its \
                         parent",
                        what.join(", ")
                    ),
                ));
            }
            lifecycle::delete(tx, id).await?;
            tell(tx, PlatformEvent::OrganizationDeleted, json!({ "organization_id": id }), &caller).await?;
            Ok(Deleted::Deleted)
        });
        let deleted = delete.await?;
        app.access_changed();
        Ok(deleted)
    }

    /// Restore an organization
    ///
    /// Within 30 days of its deletion: everything is as it was, but for others that were put below its parent. Restoring one that
    /// is not deleted changes nothing.
    ///
    /// Refused as `wrong_state` when it is too late or the one above it is deleted too, as `name_taken` when another one
    /// beside it has its slug by now, as `license_limit` when a license above allows no more, as `license_state` when one is
    /// not in force.
    #[oai(path = "/:organization/restore", method = "post", operation_id = "restoreOrganization")]
    async fn restore(
        &self,
        caller: May<DeleteOrganizations>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Tagged<Organization>>, Error> {
        let (own, id) = (caller.organization(), organization.0);
        from_above(own, id)?;
        let restore = once.run(&caller, own, async |tx| {
            tree::take_turn(tx).await?;
            let before = find(tx, id).await?;
            if before.deleted_at.is_some() {
                let above = before.parent.unwrap_or(own);
                if !placed(lifecycle::restore(tx, id).await, above, "organization")? {
                    return Err(Error::new(
                        Code::WrongState,
                        "it was deleted more than 30 days ago, and is being removed",
                    ));
                }
                tell(tx, PlatformEvent::OrganizationRestored, json!({ "organization_id": id }), &caller).await?;
            }
            Ok(Tagged::of(find(tx, id).await?.into()))
        });
        let restored = restore.await?;
        app.access_changed();
        Ok(restored)
    }
}
