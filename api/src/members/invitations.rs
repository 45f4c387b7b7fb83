//! Inviting somebody: he is told by mail, and whoever is not known yet makes an account on the way.

use gantry_jobs::messages;
use gantry_schema::memberships::{self, invitations as rows};
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::{Recipient, templates};
use gantry_schema::organizations::Permissions;
use gantry_schema::organizations::needed::{ManageMembers, ReadMembers};
use gantry_schema::people::Email;
use gantry_schema::token::InviteToken;
use gantry_schema::{InvitationId, JobTx as _, OrganizationId, TenantTx, organizations, people};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use super::{BuiltInRole, no_more_than_oneself};
use crate::accounts::link;
use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{EmailAddress, Moment};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on invitations.
#[derive(Debug, Clone, Copy)]
pub struct Invitations;

/// Somebody to invite.
///
/// Refused as `too_many` when too many invitations stand.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewInvitation {
    /// His e-mail address.
    email: EmailAddress,
    /// As what he is to be a member.
    role: BuiltInRole,
}

example!(NewInvitation, { "email": "grace@example.com", "role": "viewer" });

/// An invitation.
#[derive(Debug, Object)]
#[oai(example)]
struct Invitation {
    /// Its id.
    id: InvitationId,
    /// Where to.
    organization_id: OrganizationId,
    /// Who, by his address.
    email: String,
    /// As what.
    role: String,
    /// Who invited him: `person:usr_…`, `api_key:key_…`.
    invited_by: String,
    /// When.
    created_at: Moment,
    /// Until when it can be accepted.
    expires_at: Moment,
    /// When it was accepted.
    #[oai(skip_serializing_if_is_none)]
    accepted_at: Option<Moment>,
    /// When it was taken back, or replaced.
    #[oai(skip_serializing_if_is_none)]
    revoked_at: Option<Moment>,
}

example!(Invitation, {
    "id": "inv_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "email": "grace@example.com",
    "role": "viewer",
    "invited_by": "person:usr_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:00Z",
    "expires_at": "2026-01-22T12:00:00Z",
});

impl From<rows::Invitation> for Invitation {
    fn from(row: rows::Invitation) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            email: row.email,
            role: row.role,
            invited_by: row.invited_by,
            created_at: row.created_at.into(),
            expires_at: row.expires_at.into(),
            accepted_at: row.accepted_at.map(Into::into),
            revoked_at: row.revoked_at.map(Into::into),
        }
    }
}

/// An invitation was sent.
#[derive(ApiResponse)]
enum Invited {
    /// He is told by mail.
    #[oai(status = 201)]
    Created(Json<Invitation>),
}

/// An invitation was taken back.
#[derive(ApiResponse)]
enum Revoked {
    /// Its link is good for nothing.
    #[oai(status = 204)]
    Revoked,
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Members")]
impl Invitations {
    /// Invite somebody
    ///
    /// The caller's own. A link is sent to the address, good for seven days, by which its owner becomes a member, and makes
    /// an account if he has none; whether he has is not told. One that stands for the address is replaced. Nobody gives a
    /// role that allows more than he may himself: the `reason` is then `escalation`.
    #[oai(path = "/:organization/invitations", method = "post", operation_id = "createInvitation")]
    async fn create(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewInvitation>,
    ) -> Result<Answered<Invited>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let (email, role) = (body.0.email.email(), memberships::Role::from(body.0.role));
        no_more_than_oneself(&caller, allows(role, id), "the role")?;
        let create = once.run(&caller, id, async |tx| {
            if rows::standing(tx).await? >= rows::MAX_STANDING {
                let detail = format!("at most {} invitations stand at a time; take back some", rows::MAX_STANDING);
                return Err(Error::new(Code::TooMany, detail));
            }
            let token = InviteToken::generate(&mut rand::rng());
            let made = rows::create(tx, &email, role, &token, &caller.by().to_string()).await?;
            send(&app, tx, &caller, &made, &token).await?;
            tx.audit().on(&made.id).set("role", role.as_str()).set("expires_at", made.expires_at);
            Ok(Invited::Created(Json(made.into())))
        });
        create.await
    }

    /// List invitations
    ///
    /// The caller's own. Newest first unless told otherwise, whatever became of them.
    #[oai(path = "/:organization/invitations", method = "get", operation_id = "listInvitations")]
    async fn list(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        /// Only those that can be accepted, or cannot.
        standing: Query<Option<bool>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Invitation>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::page(&mut tx, standing.0, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), Invitation::from))
    }

    /// Take an invitation back
    ///
    /// The caller's own. Its link is good for nothing from now on. One that was accepted stays, and so does the member.
    #[oai(path = "/:organization/invitations/:invitation", method = "delete", operation_id = "revokeInvitation")]
    async fn revoke(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The invitation.
        invitation: Path<InvitationId>,
    ) -> Result<Answered<Revoked>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let revoke = once.run(&caller, id, async |tx| {
            find(tx, invitation.0).await?;
            rows::revoke(tx, invitation.0).await?;
            Ok(Revoked::Revoked)
        });
        revoke.await
    }

    /// Send an invitation again
    ///
    /// The caller's own. With another link in place of the one before, and seven days from now. Nobody sends one for a role
    /// that allows more than he may himself: the `reason` is then `escalation`.
    ///
    /// Refused as `wrong_state` when it was accepted or taken back.
    #[oai(path = "/:organization/invitations/:invitation/resend", method = "post", operation_id = "resendInvitation")]
    async fn resend(
        &self,
        caller: May<ManageMembers>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// The invitation.
        invitation: Path<InvitationId>,
    ) -> Result<Answered<Json<Invitation>>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let resend = once.run(&caller, id, async |tx| {
            let before = find(tx, invitation.0).await?;
            let role: memberships::Role = before.role.parse().map_err(Error::internal)?;
            no_more_than_oneself(&caller, allows(role, id), "the role")?;
            let token = InviteToken::generate(&mut rand::rng());
            let ended = || Error::new(Code::WrongState, "it was accepted or taken back; invite the address anew");
            let renewed = rows::renew(tx, invitation.0, &token).await?.ok_or_else(ended)?;
            send(&app, tx, &caller, &renewed, &token).await?;
            tx.audit().changed("expires_at", before.expires_at, renewed.expires_at);
            Ok(Json(renewed.into()))
        });
        resend.await
    }
}

fn allows(role: memberships::Role, organization: OrganizationId) -> Permissions {
    memberships::permissions_of(role, organization).into_iter().collect()
}

async fn find(tx: &mut TenantTx, id: InvitationId) -> Result<rows::Invitation, Error> {
    rows::find(tx, id).await?.ok_or_else(|| Error::not_found(id))
}

/// Tells whoever is invited, in the name of the organization.
async fn send(
    app: &App,
    tx: &mut TenantTx,
    caller: &Caller,
    invitation: &rows::Invitation,
    token: &InviteToken,
) -> Result<(), Error> {
    let email: Email = invitation.email.parse().map_err(Error::internal)?;
    let organization = organizations::find(tx, invitation.organization).await?;
    let organization = organization.ok_or_else(|| Error::not_found(invitation.organization))?;
    let inviter = match caller.person() {
        Some(person) => people::find(tx, person).await?.map(|person| person.name),
        None => None,
    };
    let brand = messages::brand(tx).await?;
    let link = link::to_invitation(app.public_url(), token);
    let content = templates::invitation(&brand, &organization.name, inviter.as_deref(), &invitation.role, &link);
    let (expires_at, reference) = (Some(tx.now() + rows::LASTS), Some(invitation.id.to_string()));
    let new = NewMessage { kind: "invitation", to: &Recipient::Mail(email), content: &content, reference, expires_at };
    messages::send(tx, &app.sealing, &new, caller.by()).await?;
    Ok(())
}
