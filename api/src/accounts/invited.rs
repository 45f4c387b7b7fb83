//! Somebody accepts an invitation: with his account, or by making one with the address that was invited.

use gantry_jobs::{By, webhooks};
use gantry_schema::audit::Draft;
use gantry_schema::memberships::invitations::{self, Invitation};
use gantry_schema::memberships::{self, Role};
use gantry_schema::people::{self, Email};
use gantry_schema::token::InviteToken;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, PersonId, TenantTx, organizations};
use poem::Request;
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::sign_up::{New, closed, make};
use super::{SignUp, link, usable};
use crate::app::App;
use crate::audit::about::About;
use crate::body::Body;
use crate::caller::Me;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Locale, Name, Secret};
use crate::people::choose;
use crate::tag::Tag;

/// The operations of whoever is invited.
#[derive(Debug, Clone, Copy)]
pub struct Invited;

/// What an invitation's link carries.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Acceptance {
    /// What the link carries.
    token: Secret,
}

example!(Acceptance, { "token": "gin_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY" });

/// An account for somebody who is invited.
///
/// Refused as `weak_password` when the password is guessed too easily.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct InvitedAccount {
    /// What the link carries.
    token: Secret,
    /// What he is called: 1 to 200 characters.
    name: Name,
    /// At least 15 characters of any kind, and none that is tried first by whoever guesses.
    password: Secret,
    /// The language in which he is written to.
    locale: Option<Locale>,
}

example!(InvitedAccount, {
    "token": "gin_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "name": "Ada Lovelace",
    "password": "a sentence that nobody guesses",
});

/// That somebody belongs to an organization now.
#[derive(Debug, Object)]
#[oai(example)]
struct Joined {
    /// Who.
    person_id: PersonId,
    /// Where.
    organization_id: OrganizationId,
    /// As what.
    role: String,
}

example!(Joined, {
    "person_id": "usr_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "role": "member",
});

/// An account was made, and belongs to the organization.
#[derive(ApiResponse)]
enum JoinedAnew {
    /// Sign in with `POST /sessions`.
    #[oai(status = 201)]
    Created(Json<Joined>),
}

#[OpenApi(prefix_path = "/invitations", tag = "Tag::Accounts")]
impl Invited {
    /// Accept an invitation
    ///
    /// With the account that has the address which was invited. Who is a member already stays what he is.
    ///
    /// Refused as `link_expired` when the invitation was accepted, was taken back, has expired or never was, as
    /// `wrong_state` when another address than the account's was invited.
    #[oai(path = "/accept", method = "post", operation_id = "acceptInvitation")]
    async fn accept(
        &self,
        me: Me,
        request: &Request,
        app: Data<&App>,
        body: Body<Acceptance>,
    ) -> Result<Json<Joined>, Error> {
        let invitation = presented(&app, &read(body.0.token.expose())?).await?;
        let role = accept(&app, request, me.person(), &invitation).await?;
        let organization_id = invitation.organization;
        Ok(Json(Joined { person_id: me.person(), organization_id, role: role.to_string() }))
    }

    /// Make an account by an invitation
    ///
    /// With the address that was invited, and a member of the organization at once. Nobody is signed in by it.
    ///
    /// Refused as `link_expired` when the invitation was accepted, was taken back, has expired or never was, as
    /// `wrong_state` when there is an account with the address, as `sign_up_closed` when nobody makes accounts here.
    #[oai(path = "/sign-up", method = "post", operation_id = "signUpByInvitation")]
    async fn sign_up(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<InvitedAccount>,
    ) -> Result<JoinedAnew, Error> {
        let InvitedAccount { token, name, password, locale } = body.0;
        let invitation = presented(&app, &read(token.expose())?).await?;
        let new = New { name: &name, password: &password, locale: locale.as_ref().map(Locale::as_str) };
        let (person_id, role) = sign_up(&app, request, &invitation, &new).await?;
        let organization_id = invitation.organization;
        Ok(JoinedAnew::Created(Json(Joined { person_id, organization_id, role: role.to_string() })))
    }
}

pub(super) fn read(text: &str) -> Result<InviteToken, Error> {
    InviteToken::parse(text).map_err(|_| link::expired())
}

/// The invitation of a token, if it stands and there is somewhere to go.
pub(super) async fn presented(app: &App, token: &InviteToken) -> Result<Invitation, Error> {
    let mut tx = app.db.credential(token.hash()).await?;
    let found = invitations::presented(&mut tx).await?.ok_or_else(link::expired)?;
    drop(tx);
    let mut tx = app.db.tenant(found.organization).await?;
    let organization = organizations::find(&mut tx, found.organization).await?;
    organization.filter(|it| it.deleted_at.is_none()).map(|_| found).ok_or_else(link::expired)
}

/// Makes somebody with an account a member.
pub(super) async fn accept(
    app: &App,
    request: &Request,
    person: PersonId,
    invitation: &Invitation,
) -> Result<Role, Error> {
    let found = people::find(&mut app.db.person(person).await?, person).await?;
    let same = |one: &str, other: &str| match (one.parse::<Email>(), other.parse::<Email>()) {
        (Ok(one), Ok(other)) => one.key() == other.key(),
        _ => false,
    };
    if !found.is_some_and(|person| person.email_verified_at.is_some() && same(&person.email, &invitation.email)) {
        let detail = "another address than yours was invited; sign in with the account that has it, or be invited anew";
        return Err(Error::new(Code::WrongState, detail));
    }
    let about = About::find(request)?;
    let mut tx = app.db.tenant_for(invitation.organization, person).await?.by(about.himself(person));
    *tx.audit() = Draft::new("invitation.accept");
    let role = join(&mut tx, person, invitation).await?;
    tx.commit().await?;
    app.access_changed();
    app.tell_events(invitation.organization);
    Ok(role)
}

/// Makes an account with the address that was invited, and a member of it.
pub(super) async fn sign_up(
    app: &App,
    request: &Request,
    invitation: &Invitation,
    new: &New<'_>,
) -> Result<(PersonId, Role), Error> {
    if app.sign_up() == SignUp::Closed {
        return Err(closed(app));
    }
    let email: Email = invitation.email.parse().map_err(Error::internal)?;
    if usable(app, &email).await?.is_some() {
        let detail = "there is an account with the address that was invited; sign in, and accept with it";
        return Err(Error::new(Code::WrongState, detail));
    }
    let chosen = choose(app, new.password, &invitation.email, new.name.as_str(), "password").await?;
    let person: PersonId = app.db.ids().mint();
    let about = About::find(request)?;
    let mut tx = app.db.tenant_for(invitation.organization, person).await?.by(about.himself(person));
    *tx.audit() = Draft::new("invitation.sign_up");
    make(&mut tx, person, &invitation.email, new.name, new.locale, &chosen).await?;
    let role = join(&mut tx, person, invitation).await?;
    tx.commit().await?;
    app.access_changed();
    app.tell_events(invitation.organization);
    Ok((person, role))
}

/// Uses the invitation up, and makes the person a member in its role and in no other. Who is one already stays what he is.
async fn join(tx: &mut TenantTx, person: PersonId, invitation: &Invitation) -> Result<Role, Error> {
    // Used up in the transaction that makes the member: of two that come at once, one is.
    if !invitations::accept(tx, invitation.id, person).await? {
        return Err(link::expired());
    }
    let role = if let Some(member) = memberships::find(tx, person).await? {
        member.role
    } else {
        let role: Role = invitation.role.parse().map_err(Error::internal)?;
        let facts = json!({ "person_id": person, "role": role.as_str(), "invitation_id": invitation.id });
        webhooks::emit(tx, PlatformEvent::MemberAdded.name(), facts, &By::person(person)).await?;
        memberships::insert(tx, person, role).await?.role
    };
    tx.audit().on(&invitation.id).set("person_id", person).set("role", role.as_str());
    Ok(role)
}
