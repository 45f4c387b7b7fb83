//! Locking an organization and all below it down: whoever is of it is refused, whatever he is known by, until it is
//! unlocked. Keys and tokens then work as before; sessions that began before the lockdown have ended.

use gantry_jobs::request::RequestError;
use gantry_jobs::{By, Queue, webhooks};
use gantry_schema::defence::lockdowns::{self as rows};
use gantry_schema::organizations::needed::{LockDown, ReadDefence};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{LockdownId, OrganizationId, TenantTx, notices, organizations};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::error;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on lockdowns.
#[derive(Debug, Clone, Copy)]
pub struct Lockdowns;

/// A lockdown of an organization and all below it.
#[derive(Debug, Object)]
#[oai(example)]
struct Lockdown {
    /// Its id.
    id: LockdownId,
    /// The organization.
    organization_id: OrganizationId,
    /// Why.
    reason: String,
    /// Whose jobs are not begun meanwhile.
    queues: Vec<String>,
    /// Since when.
    started_at: Moment,
    /// By whom.
    started_by: String,
    /// When it was unlocked; absent: it is in force.
    #[oai(skip_serializing_if_is_none)]
    ended_at: Option<Moment>,
    /// By whom.
    #[oai(skip_serializing_if_is_none)]
    ended_by: Option<String>,
    /// Why.
    #[oai(skip_serializing_if_is_none)]
    end_reason: Option<String>,
}

example!(Lockdown, {
    "id": "lck_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "reason": "A laptop with an owner's session was stolen",
    "queues": ["default"],
    "started_at": "2026-01-15T12:00:00Z",
    "started_by": "person:usr_01h455vb4pex5vsknk084sn02q",
});

impl From<rows::Lockdown> for Lockdown {
    fn from(row: rows::Lockdown) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            reason: row.reason,
            queues: row.queues,
            started_at: row.started_at.into(),
            started_by: row.started_by,
            ended_at: row.ended_at.map(Into::into),
            ended_by: row.ended_by,
            end_reason: row.end_reason,
        }
    }
}

/// A lockdown to begin.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewLockdown {
    /// Why, in 1 to 500 characters.
    reason: String,
    /// Queues whose jobs are not begun meanwhile; those that run are not stopped. Left out: none.
    #[oai(validator(max_items = 20))]
    queues: Option<Vec<String>>,
}

example!(NewLockdown, { "reason": "A laptop with an owner's session was stolen", "queues": ["default"] });

/// Why it is unlocked.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Unlocking {
    /// Why, in 1 to 500 characters.
    reason: String,
}

example!(Unlocking, { "reason": "The session was ended and the password changed" });

/// An organization was locked down.
#[derive(ApiResponse)]
enum Locked {
    /// It is, in every process within a second.
    #[oai(status = 201)]
    Locked(Json<Lockdown>),
}

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Defence")]
impl Lockdowns {
    /// Lock an organization down
    ///
    /// It and all below it, in an emergency: sessions in it end, and its API keys and its applications' tokens do nothing until it is
    /// unlocked, in every process of the API within a second; whoever is refused is told `locked_down`. Jobs of the queues
    /// that are named are not begun. Needs a proof of the last minutes of who one is.
    ///
    /// Refused as `insufficient_user_authentication` when that proof is older, as `wrong_state` when it is locked down already.
    #[oai(path = "/:organization/lockdown", method = "post", operation_id = "lockOrganization")]
    async fn lock(
        &self,
        caller: May<LockDown>,
        app: Data<&App>,
        once: Once,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        body: Body<NewLockdown>,
    ) -> Result<Answered<Locked>, Error> {
        caller.proven_lately(app.db.now())?;
        let (own, id) = (caller.organization(), organization.0);
        let reason = read_reason(body.0.reason)?;
        let queues = read_queues(&body.0.queues.unwrap_or_default())?;
        let (told, named) = (reason.clone(), queues.clone());
        let lock = once.run(&caller, own, async |tx| {
            organizations::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?;
            let by = caller.by().to_string();
            let started =
                rows::start(tx, id, &reason, &queues, &by).await.on_constraint("lockdowns_in_force", || {
                    Error::new(Code::WrongState, "it is locked down already; unlock it first to name other queues")
                })?;
            let facts = json!({ "organization_id": id, "reason": reason, "queues": queues });
            say(tx, id, PlatformEvent::LockdownStarted, facts, caller.by()).await?;
            let started = Lockdown::from(started);
            tx.audit().became(None, started.to_json().as_ref());
            Ok(Locked::Locked(Json(started)))
        });
        let locked = lock.await?;
        app.access_changed();
        let facts = json!({ "organization_id": id, "reason": told, "queues": named });
        tell_below(&app, own, id, PlatformEvent::LockdownStarted, facts, caller.by()).await;
        Ok(locked)
    }

    /// Unlock an organization
    ///
    /// Its keys and tokens work as before, jobs that waited are begun. Whoever had a session signs in anew. Whoever stands
    /// above it can, and in the organization itself somebody who signed in after it was locked down. Needs a proof of the
    /// last minutes of who one is.
    ///
    /// Refused as `insufficient_user_authentication` when that proof is older, as `wrong_state` when it is not locked down itself.
    #[oai(path = "/:organization/unlock", method = "post", operation_id = "unlockOrganization")]
    async fn unlock(
        &self,
        caller: May<LockDown>,
        app: Data<&App>,
        once: Once,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        body: Body<Unlocking>,
    ) -> Result<Answered<Json<Lockdown>>, Error> {
        caller.proven_lately(app.db.now())?;
        let (own, id) = (caller.organization(), organization.0);
        let reason = read_reason(body.0.reason)?;
        let told = reason.clone();
        let unlock = once.run(&caller, own, async |tx| {
            organizations::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?;
            let ended = rows::end(tx, id, &reason, &caller.by().to_string()).await?.ok_or_else(|| {
                Error::new(
                    Code::WrongState,
                    "it is not locked down itself; where one above it is, that one is unlocked",
                )
            })?;
            let facts = json!({ "organization_id": id, "reason": reason });
            say(tx, id, PlatformEvent::LockdownEnded, facts, caller.by()).await?;
            let ended = Lockdown::from(ended);
            tx.audit().became(None, ended.to_json().as_ref());
            Ok(Json(ended))
        });
        let unlocked = unlock.await?;
        app.access_changed();
        let facts = json!({ "organization_id": id, "reason": told });
        tell_below(&app, own, id, PlatformEvent::LockdownEnded, facts, caller.by()).await;
        Ok(unlocked)
    }

    /// List lockdowns
    ///
    /// Of one organization, newest first unless told otherwise.
    #[oai(path = "/:organization/lockdowns", method = "get", operation_id = "listLockdowns")]
    async fn list(
        &self,
        caller: May<ReadDefence>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Lockdown>, Error> {
        let id = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(id)?;
        let mut tx = app.db.tenant(id).await?;
        let found = rows::list(&mut tx, id, window).await?;
        Ok(paging.page(id, found, |found| Place::id(found.id), Lockdown::from))
    }
}

/// Tells the transaction's organization.
async fn say(
    tx: &mut TenantTx,
    id: OrganizationId,
    event: PlatformEvent,
    facts: Value,
    by: &By,
) -> Result<(), RequestError> {
    if event == PlatformEvent::LockdownStarted {
        notices::write(tx, event, &id.to_string(), &facts).await?;
    } else {
        notices::settle(tx, &[PlatformEvent::LockdownStarted], &id.to_string()).await?;
    }
    webhooks::emit(tx, event.name(), facts, by).await.map(drop)
}

/// Tells the organization itself, where one above it has done it. It is done whether or not this can be told.
async fn tell_below(app: &App, own: OrganizationId, id: OrganizationId, event: PlatformEvent, facts: Value, by: &By) {
    if own == id {
        return;
    }
    let told = async {
        let mut tx = app.db.tenant(id).await?;
        say(&mut tx, id, event, facts, by).await?;
        Ok::<_, RequestError>(tx.commit().await?)
    };
    match told.await {
        Ok(()) => app.tell_events(id),
        Err(error) => error!(organization.id = %id, "It was not told of its lockdown: {error}"),
    }
}

fn read_reason(reason: String) -> Result<String, Error> {
    if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
        return Err(Error::field("reason", "say why, in 1 to 500 characters"));
    }
    Ok(reason)
}

fn read_queues(words: &[String]) -> Result<Vec<String>, Error> {
    let mut queues: Vec<String> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if !Queue::ALL.iter().any(|queue| queue.as_str() == word) {
            let known: Vec<&str> = Queue::ALL.iter().map(|queue| queue.as_str()).collect();
            return Err(Error::field(
                format!("queues[{index}]"),
                format!("there is no such queue; there are {}", known.join(", ")),
            ));
        }
        if !queues.contains(word) {
            queues.push(word.clone());
        }
    }
    Ok(queues)
}
