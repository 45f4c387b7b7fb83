//! Somebody lost what he proves himself with. One who may asks that it be removed, another one agrees within a day, and whose it is
//! is told both times.

use chrono::SecondsFormat;
use gantry_jobs::{messages, webhooks};
use gantry_schema::audit::Target;
use gantry_schema::factors::resets::{self, Reset, State};
use gantry_schema::factors::{self, pending};
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::templates::{self, Brand};
use gantry_schema::messages::{Content, Recipient};
use gantry_schema::organizations::needed::{ManageMembers, ReadMembers};
use gantry_schema::people::{self, Person};
use gantry_schema::sessions::{self, Ended};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{FactorResetId, OrganizationId, PersonId, TenantTx, organizations};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::no_more_than_oneself;
use crate::app::App;
use crate::body::Body;
use crate::caller::{InPerson, May};
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::Moment;
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::people::moment;
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on removing somebody's second factors.
#[derive(Debug, Clone, Copy)]
pub struct FactorResets;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum FactorResetState {
    /// Somebody else is to agree; after its time it is over.
    Pending,
    /// Somebody else agreed, and it was done.
    Approved,
    /// It is not to be done.
    Withdrawn,
}

impl From<State> for FactorResetState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Approved => Self::Approved,
            State::Withdrawn => Self::Withdrawn,
        }
    }
}

/// That somebody's second factors are to be removed.
#[derive(Debug, Object)]
#[oai(example)]
struct FactorReset {
    /// Its id.
    id: FactorResetId,
    /// Whose.
    person_id: PersonId,
    /// Why.
    reason: String,
    /// By whom it was asked for.
    asked_by: PersonId,
    /// When.
    asked_at: Moment,
    /// Until when somebody else can agree.
    expires_at: Moment,
    /// What became of it.
    state: FactorResetState,
    /// Who decided.
    #[oai(skip_serializing_if_is_none)]
    decided_by: Option<PersonId>,
    /// When.
    #[oai(skip_serializing_if_is_none)]
    decided_at: Option<Moment>,
}

example!(FactorReset, {
    "id": "frs_01h455vb4pex5vsknk084sn02q",
    "person_id": "usr_01h455vb4pex5vsknk084sn02q",
    "reason": "His telephone was stolen, and the recovery codes with it",
    "asked_by": "usr_01h455vb4pex5vsknk084sn02r",
    "asked_at": "2026-01-15T12:00:00Z",
    "expires_at": "2026-01-16T12:00:00Z",
    "state": "pending",
});

impl From<Reset> for FactorReset {
    fn from(row: Reset) -> Self {
        Self {
            id: row.id,
            person_id: row.person,
            reason: row.reason,
            asked_by: row.asked_by,
            asked_at: row.asked_at.into(),
            expires_at: row.expires_at.into(),
            state: row.state.into(),
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(Into::into),
        }
    }
}

/// Whose second factors are to be removed, and why.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewFactorReset {
    /// The member.
    person_id: PersonId,
    /// Why, in 1 to 500 characters. He reads it.
    reason: String,
}

example!(NewFactorReset, {
    "person_id": "usr_01h455vb4pex5vsknk084sn02q",
    "reason": "His telephone was stolen, and the recovery codes with it",
});

/// It was asked for.
#[derive(ApiResponse)]
enum ResetAsked {
    /// It is done when somebody else agrees.
    #[oai(status = 201)]
    Created(Json<FactorReset>),
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Members")]
impl FactorResets {
    /// Ask that a member's second factors be removed
    ///
    /// He lost them and his recovery codes, and cannot sign in. It is done when somebody else with the permission agrees, within a
    /// day: `POST …/approve`. He is told by mail, the organization by the event `security.factor_reset_requested`. Only a
    /// person asks, who proved within the last minutes who he is, and not about himself; nobody about somebody who may more than he, there or
    /// anywhere below: the `reason` is then `escalation`. Of somebody who is a member elsewhere too, whoever stands above all
    /// of these organizations asks: the `reason` is then `member_elsewhere`.
    ///
    /// Refused as `insufficient_user_authentication` when the proof is older, as `wrong_state` when it was asked for already, or
    /// he has no second factor, as `not_found` when he is no member of the organization or one below it.
    #[oai(path = "/:organization/factor-resets", method = "post", operation_id = "requestFactorReset")]
    async fn ask(
        &self,
        caller: InPerson<ManageMembers>,
        app: Data<&App>,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewFactorReset>,
    ) -> Result<ResetAsked, Error> {
        caller.proven_lately(app.db.now())?;
        let id = caller.inside(&app.db, organization.0).await?;
        let NewFactorReset { person_id: whose, reason } = body.0;
        if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
            return Err(Error::field("reason", "say why, in 1 to 500 characters; he reads it"));
        }
        let mut tx = begun(&app, &caller, id, whose).await?;
        let person = allowed(&mut tx, &caller, whose).await.map_err(|error| match error.code() {
            Code::NotFound => error.at("person_id"),
            _ => error,
        })?;
        if factors::confirmed(&mut tx, whose).await?.is_empty() {
            return Err(Error::new(Code::WrongState, "he has no second factor that could be removed"));
        }
        let asked =
            resets::ask(&mut tx, whose, caller.id(), &reason).await.on_constraint("factor_resets_pending", || {
                Error::new(Code::WrongState, "it was asked for already; somebody else is to agree, or withdraw it")
            })?;
        let facts = json!({
            "factor_reset_id": asked.id,
            "person_id": whose,
            "asked_by": caller.id(),
            "reason": reason,
            "expires_at": asked.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
        webhooks::emit(&mut tx, PlatformEvent::FactorResetRequested.name(), facts, caller.by()).await?;
        let until = asked.expires_at.format("%Y-%m-%d %H:%M UTC").to_string();
        tell(&app, &mut tx, &caller, &person, |brand, name| {
            templates::factors_to_be_reset(brand, name, &reason, &until)
        })
        .await?;
        tx.audit()
            .target(Target::of(&asked.id).identifying(whose.uuid()))
            .set("person_id", whose)
            .set("reason", &reason);
        tx.commit().await?;
        app.tell_events(id);
        Ok(ResetAsked::Created(Json(asked.into())))
    }

    /// List what was asked of second factors
    ///
    /// Whose were to be removed, why, and what became of it. Newest first unless told otherwise.
    #[oai(path = "/:organization/factor-resets", method = "get", operation_id = "listFactorResets")]
    async fn list(
        &self,
        caller: May<ReadMembers>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<FactorReset>, Error> {
        let id = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(id)?;
        let mut tx = app.db.tenant(id).await?;
        let found = resets::page(&mut tx, window).await?;
        Ok(paging.page(id, found, |found| Place::id(found.id), FactorReset::from))
    }

    /// Agree that a member's second factors be removed
    ///
    /// All of them and his recovery codes are, and he is signed out everywhere: he signs in with his password and enrols others. He
    /// is told by mail, the organization by the event `security.factors_reset`. Only a person agrees, who proved within the last
    /// minutes who he is; neither who asked nor whose they are: the `reason` is then `four_eyes`. Nobody agrees about somebody
    /// who may more than he: the `reason` is then `escalation`.
    ///
    /// Refused as `insufficient_user_authentication` when the proof is older, as `wrong_state` when it was decided already, or
    /// was asked for more than a day ago.
    #[oai(path = "/:organization/factor-resets/:reset/approve", method = "post", operation_id = "approveFactorReset")]
    async fn approve(
        &self,
        caller: InPerson<ManageMembers>,
        app: Data<&App>,
        /// The organization.
        organization: Path<OrganizationId>,
        /// What was asked for.
        reset: Path<FactorResetId>,
    ) -> Result<Json<FactorReset>, Error> {
        caller.proven_lately(app.db.now())?;
        let id = caller.inside(&app.db, organization.0).await?;
        let whose = whose(&app, id, reset.0).await?;
        let mut tx = begun(&app, &caller, id, whose).await?;
        let asked = resets::lock(&mut tx, reset.0).await?.ok_or_else(|| Error::not_found(reset.0))?;
        if asked.asked_by == caller.id() || whose == caller.id() {
            let detail =
                "two people remove somebody's second factors: somebody else than who asked, and than whose they are";
            return Err(Error::new(Code::Forbidden, detail).reason("four_eyes"));
        }
        let person = allowed(&mut tx, &caller, whose).await?;
        let approved = resets::decide(&mut tx, reset.0, State::Approved, caller.id()).await?.ok_or_else(over)?;
        let count = factors::remove_all(&mut tx, whose).await?;
        sessions::end_others(&mut tx, whose, None, Ended::Changed).await?;
        pending::end_all(&mut tx, whose).await?;
        let facts = json!({
            "factor_reset_id": approved.id,
            "person_id": whose,
            "asked_by": approved.asked_by,
            "approved_by": caller.id(),
        });
        webhooks::emit(&mut tx, PlatformEvent::FactorsReset.name(), facts, caller.by()).await?;
        let when = moment(&app);
        tell(&app, &mut tx, &caller, &person, |brand, name| templates::factors_reset(brand, name, &when)).await?;
        tx.audit()
            .target(Target::of(&approved.id).identifying(whose.uuid()))
            .set("person_id", whose)
            .set("asked_by", approved.asked_by)
            .set("factors", count);
        tx.commit().await?;
        app.sessions.forget();
        app.tell_events(id);
        Ok(Json(approved.into()))
    }

    /// Withdraw what was asked of second factors
    ///
    /// They stay. Whoever has the permission withdraws it, whoever asked.
    ///
    /// Refused as `wrong_state` when it was decided already, or was asked for more than a day ago.
    #[oai(path = "/:organization/factor-resets/:reset/withdraw", method = "post", operation_id = "withdrawFactorReset")]
    async fn withdraw(
        &self,
        caller: InPerson<ManageMembers>,
        app: Data<&App>,
        /// The organization.
        organization: Path<OrganizationId>,
        /// What was asked for.
        reset: Path<FactorResetId>,
    ) -> Result<Json<FactorReset>, Error> {
        let id = caller.inside(&app.db, organization.0).await?;
        let whose = whose(&app, id, reset.0).await?;
        let mut tx = begun(&app, &caller, id, whose).await?;
        let withdrawn = resets::decide(&mut tx, reset.0, State::Withdrawn, caller.id()).await?.ok_or_else(over)?;
        tx.audit().target(Target::of(&withdrawn.id).identifying(whose.uuid())).set("person_id", whose);
        tx.commit().await?;
        Ok(Json(withdrawn.into()))
    }
}

fn over() -> Error {
    Error::new(Code::WrongState, "it was decided already, or was asked for more than a day ago; ask anew")
}

/// Whose second factors it is about.
async fn whose(app: &App, organization: OrganizationId, id: FactorResetId) -> Result<PersonId, Error> {
    let mut tx = app.db.tenant(organization).await?;
    Ok(resets::lock(&mut tx, id).await?.ok_or_else(|| Error::not_found(id))?.person)
}

/// A transaction of the organization that acts for whose factors it is about, by the caller.
async fn begun(
    app: &App,
    caller: &InPerson<ManageMembers>,
    organization: OrganizationId,
    whose: PersonId,
) -> Result<TenantTx, Error> {
    let about = caller.about();
    let mut tx = app.db.tenant_for(organization, whose).await?.by(about.author(caller));
    *tx.audit() = about.draft();
    Ok(tx)
}

/// The member, if the caller may have his factors removed.
async fn allowed(tx: &mut TenantTx, caller: &InPerson<ManageMembers>, whose: PersonId) -> Result<Person, Error> {
    let standings = resets::standings(tx, whose).await?;
    if !standings.iter().any(|standing| standing.within) {
        return Err(Error::not_found(whose));
    }
    if whose == caller.id() {
        let detail =
            "nobody has his own second factors removed like this; remove them with DELETE /me/factors/{factor}";
        return Err(Error::new(Code::Forbidden, detail).reason("four_eyes"));
    }
    if standings.iter().any(|standing| !standing.within) {
        let detail = "he is a member of organizations elsewhere, into which he signs in with the same factors; ask whoever stands \
                      above all of them";
        return Err(Error::new(Code::Forbidden, detail).reason("member_elsewhere"));
    }
    for standing in &standings {
        no_more_than_oneself(caller, standing.allows, "the member")?;
    }
    people::find(tx, whose).await?.ok_or_else(|| Error::not_found(whose))
}

/// Tells whose factors it is about, in the name of the organization.
async fn tell(
    app: &App,
    tx: &mut TenantTx,
    caller: &InPerson<ManageMembers>,
    person: &Person,
    content: impl FnOnce(&Brand, &str) -> Content,
) -> Result<(), Error> {
    let organization = tx.organization();
    let named = organizations::find(tx, organization).await?.ok_or_else(|| Error::not_found(organization))?;
    let content = content(&messages::brand(tx).await?, &named.name);
    let to = Recipient::Mail(person.email.parse().map_err(Error::internal)?);
    let new = NewMessage { kind: "factor_reset", to: &to, content: &content, reference: None, expires_at: None };
    messages::send(tx, &app.sealing, &new, caller.by()).await?;
    Ok(())
}
