//! API keys: what programs authenticate with.

use std::net::IpAddr;

use chrono::Duration;
use gantry_jobs::webhooks;
use gantry_schema::api_keys::{self, NewApiKey as NewRow, Token};
use gantry_schema::organizations::Permission;
use gantry_schema::organizations::needed::{ManageApiKeys, ReadApiKeys};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::webhooks::fan_out::NewEvent;
use gantry_schema::{ApiKeyId, JobTx as _, OrganizationId, PersonId};
use ipnet::IpNet;
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, ToJSON as _};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::members::no_more_than_oneself;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

/// Scopes that one key lists.
const MAX_SCOPES: usize = 100;

/// Networks that one key lists.
const MAX_NETWORKS: usize = 50;

/// The operations on API keys.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeys;

/// A key, without its secret.
#[derive(Debug, Object)]
#[oai(example)]
struct ApiKey {
    /// Its id.
    id: ApiKeyId,
    /// Whose it is.
    organization_id: OrganizationId,
    /// What people call it.
    name: String,
    /// Its first characters.
    hint: String,
    /// What it allows, within what whoever made it may himself.
    scopes: Vec<String>,
    /// The template its scopes were made of.
    #[oai(skip_serializing_if_is_none)]
    template: Option<Template>,
    /// From where it may be used; empty: from anywhere.
    networks: Vec<String>,
    /// Who made it: it allows no more than he may at the moment; absent: the organization itself.
    #[oai(skip_serializing_if_is_none)]
    owner_id: Option<PersonId>,
    /// The key that takes its place.
    #[oai(skip_serializing_if_is_none)]
    replaced_by: Option<ApiKeyId>,
    /// When it was used last, to the minute.
    #[oai(skip_serializing_if_is_none)]
    last_used_at: Option<Moment>,
    /// From which address.
    #[oai(skip_serializing_if_is_none)]
    last_used_from: Option<String>,
    /// When it was made.
    created_at: Moment,
    /// When it stops working.
    #[oai(skip_serializing_if_is_none)]
    expires_at: Option<Moment>,
    /// When it was revoked.
    #[oai(skip_serializing_if_is_none)]
    revoked_at: Option<Moment>,
}

example!(ApiKey, {
    "id": "key_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "name": "Billing",
    "hint": "gk_lOhIPU",
    "scopes": ["events:write", "jobs:read"],
    "networks": ["203.0.113.0/24"],
    "last_used_at": "2026-02-01T08:30:00Z",
    "last_used_from": "203.0.113.9",
    "created_at": "2026-01-15T12:00:00Z",
    "expires_at": "2027-01-01T00:00:00Z",
});

/// A key to make.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewApiKey {
    /// What people call it: 1 to 200 characters.
    name: Name,
    /// What it allows: `jobs:read`, `jobs:write`, …; only what the caller may. Either these or a template.
    #[oai(validator(min_items = 1, max_items = 100))]
    scopes: Option<Vec<String>>,
    /// Scopes that belong together, of which the key gets those that the caller has.
    template: Option<Template>,
    /// From where it may be used: addresses and networks, such as `203.0.113.0/24`; left out: from anywhere.
    #[oai(validator(max_items = 50))]
    networks: Option<Vec<String>>,
    /// When it stops working; left out: never.
    expires_at: Option<Moment>,
    /// Whose it is: the caller's organization, or one below it; left out: the caller's.
    organization_id: Option<OrganizationId>,
}

example!(NewApiKey, { "name": "Billing", "scopes": ["events:write", "jobs:read"], "expires_at": "2027-01-01T00:00:00Z" });

/// Scopes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case", rename = "ApiKeyTemplate")]
#[serde(rename_all = "snake_case")]
enum Template {
    /// To look.
    ReadOnly,
    /// To look, and to do the daily work: jobs, schedules, webhooks, events.
    ReadWrite,
    /// To have something done, and to see what became of it.
    Deploy,
    /// Everything that the caller has.
    Full,
}

/// How a key is replaced.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct Rotation {
    /// For how many seconds the old key goes on working: 0 to 604800; left out: a day.
    #[oai(validator(minimum(value = "0"), maximum(value = "604800")))]
    overlap_seconds: Option<i32>,
}

example!(Rotation, { "overlap_seconds": 3600 });

/// A key that was made.
#[derive(Debug, Object)]
#[oai(example)]
struct MadeApiKey {
    /// The key itself: `gk_…`. Shown this once; only its hash is kept.
    token: String,
    /// What will be known of it.
    api_key: ApiKey,
}

impl Example for MadeApiKey {
    fn example() -> Self {
        Self { token: "gk_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY2QkXm2".to_owned(), api_key: ApiKey::example() }
    }
}

/// A key has taken the place of another.
#[derive(ApiResponse)]
enum Rotated {
    /// Both work until the overlap is over.
    #[oai(status = 201)]
    Rotated(Json<MadeApiKey>),
}

/// A key was made.
#[derive(ApiResponse)]
enum Created {
    /// It works.
    #[oai(status = 201)]
    Created(Json<MadeApiKey>),
}

/// A key was revoked.
#[derive(ApiResponse)]
enum Revoked {
    /// It stops working within a second.
    #[oai(status = 204)]
    Revoked,
}

#[OpenApi(prefix_path = "/api-keys", tag = "Tag::ApiKeys")]
impl ApiKeys {
    /// List API keys
    ///
    /// Oldest first, revoked ones included, without their secrets.
    ///
    /// Refused as `not_found` when there is no such organization here.
    #[oai(path = "/", method = "get", operation_id = "listApiKeys")]
    async fn list(
        &self,
        caller: May<ReadApiKeys>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// Only those that were revoked, or were not.
        revoked: Query<Option<bool>>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<ApiKey>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let (filter, window) = (api_keys::Filter { revoked: revoked.0 }, paging.window(organization)?);
        let mut tx = app.db.tenant(organization).await?;
        let keys = api_keys::list(&mut tx, filter, window).await?;
        Ok(paging.page(organization, keys, |key| Place::id(key.id), ApiKey::from))
    }

    /// Make an API key
    ///
    /// For the caller's organization or one below it. The answer shows the key; nothing shows it again. Nobody passes on
    /// what he does not have himself.
    ///
    /// Refused as `not_found` when there is no such organization here.
    #[oai(path = "/", method = "post", operation_id = "createApiKey")]
    async fn create(
        &self,
        caller: May<ManageApiKeys>,
        app: Data<&App>,
        once: Once,
        body: Body<NewApiKey>,
    ) -> Result<Answered<Created>, Error> {
        let wanted = body.0.organization_id;
        let organization = caller
            .inside(&app.db, wanted.unwrap_or_else(|| caller.organization()))
            .await
            .map_err(|error| if error.code() == Code::NotFound { error.at("organization_id") } else { error })?;
        let NewApiKey { name, scopes, template, networks, expires_at, .. } = body.0;
        let template = template.map(api_keys::Template::from);
        let scopes = match (scopes, template) {
            (Some(words), None) => read_scopes(&words, &caller, organization)?,
            (None, Some(template)) => of_template(template, &caller, organization)?,
            _ => return Err(Error::field("scopes", "write either scopes or a template, and leave the other out")),
        };
        let networks = read_networks("networks", &networks.unwrap_or_default(), MAX_NETWORKS)?;
        let expires_at = expires_at.map(|moment| moment.0);
        if expires_at.is_some_and(|at| at <= app.db.now()) {
            return Err(Error::field(
                "expires_at",
                "the key would have expired already; write a moment ahead, or leave it out",
            ));
        }
        let token = Token::generate(&mut rand::rng());
        // Of a person it allows no more than he may; where he is no member, it is the organization's.
        let owner = caller.person().filter(|_| organization == caller.organization() && caller.is_inside());
        let new = NewRow { name: name.as_str(), scopes: &scopes, owner, template, networks: &networks, expires_at };
        once.run(&caller, organization, async |tx| {
            let key = api_keys::create(tx, &token, &new).await?;
            let words: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            let facts = json!({ "api_key_id": key.id, "name": key.name, "scopes": words });
            webhooks::emit(tx, PlatformEvent::ApiKeyCreated.name(), facts, caller.by()).await?;
            let api_key = ApiKey::from(key);
            let draft = tx.audit().on(&api_key.id).called(&api_key.name).became(None, api_key.to_json().as_ref());
            // What he calls it is his.
            if let Some(owner) = owner {
                draft.identifying(owner);
            }
            Ok(Created::Created(Json(MadeApiKey { token: token.expose().to_owned(), api_key })))
        })
        .await
    }

    /// Replace an API key
    ///
    /// With a new one that allows the same, from the same networks, and lasts as long; it is in the answer, and nothing shows
    /// it again. The old one goes on working for the overlap, so that it can be changed wherever it is used. Nobody replaces a
    /// key that allows what he may not himself: the `reason` is then `escalation`.
    ///
    /// Refused as `wrong_state` when the key works no more or has been replaced.
    #[oai(path = "/:api_key/rotate", method = "post", operation_id = "rotateApiKey")]
    async fn rotate(
        &self,
        caller: May<ManageApiKeys>,
        app: Data<&App>,
        once: Once,
        /// The key.
        api_key: Path<ApiKeyId>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        body: Body<Rotation>,
    ) -> Result<Answered<Rotated>, Error> {
        let organization = caller.inside(&app.db, organization.0.unwrap_or_else(|| caller.organization())).await?;
        let overlap = body.0.overlap_seconds.unwrap_or(86_400);
        if !(0..=604_800).contains(&overlap) {
            return Err(Error::field(
                "overlap_seconds",
                "an overlap is 0 to 604800 seconds; write a number between them",
            ));
        }
        let token = Token::generate(&mut rand::rng());
        let rotate = once.run(&caller, organization, async |tx| {
            let old = api_keys::lock(tx, api_key.0).await?.ok_or_else(|| Error::not_found(api_key.0))?;
            if !old.works(tx.now()) || old.replaced_by.is_some() {
                let detail = "the key works no more, or was replaced already; make a new one";
                return Err(Error::new(Code::WrongState, detail));
            }
            no_more_than_oneself(&caller, old.scopes.iter().copied().collect(), "the key")?;
            let made = api_keys::rotate(tx, &old, &token, Duration::seconds(overlap.into())).await?;
            let words: Vec<&str> = made.scopes.iter().map(|scope| scope.as_str()).collect();
            let facts = json!({ "api_key_id": made.id, "name": made.name, "scopes": words });
            webhooks::emit(tx, PlatformEvent::ApiKeyCreated.name(), facts, caller.by()).await?;
            let api_key = ApiKey::from(made);
            tx.audit().set("replaced_by", api_key.id.to_string());
            Ok(Rotated::Rotated(Json(MadeApiKey { token: token.expose().to_owned(), api_key })))
        });
        let rotated = rotate.await?;
        app.heard_of_access(Some(organization));
        Ok(rotated)
    }

    /// Revoke an API key
    ///
    /// It stops working within a second, and stays in the list. Revoking it again changes nothing.
    #[oai(path = "/:api_key", method = "delete", operation_id = "revokeApiKey")]
    async fn revoke(
        &self,
        caller: May<ManageApiKeys>,
        app: Data<&App>,
        once: Once,
        /// The key.
        api_key: Path<ApiKeyId>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
    ) -> Result<Answered<Revoked>, Error> {
        let organization = caller.inside(&app.db, organization.0.unwrap_or_else(|| caller.organization())).await?;
        let revoked = once.run(&caller, organization, async |tx| {
            if !api_keys::revoke(tx, api_key.0).await? {
                return Err(Error::not_found(api_key.0));
            }
            let revoked = NewEvent {
                r#type: PlatformEvent::ApiKeyRevoked.name().to_owned(),
                payload: json!({ "api_key_id": api_key.0 }),
                channels: Vec::new(),
                // Told once, however often it is revoked.
                key: Some(format!("{}:{}", PlatformEvent::ApiKeyRevoked.name(), api_key.0)),
            };
            webhooks::emit_all(tx, vec![revoked], caller.by()).await?;
            Ok(Revoked::Revoked)
        });
        let revoked = revoked.await?;
        app.heard_of_access(Some(organization));
        Ok(revoked)
    }
}

/// The scopes of a template that the caller has.
fn of_template(
    template: api_keys::Template,
    caller: &Caller,
    organization: OrganizationId,
) -> Result<Vec<Permission>, Error> {
    let fits = |scope: &Permission| {
        caller.has(*scope) && (*scope != Permission::OperatePlatform || organization == OrganizationId::PLATFORM)
    };
    let scopes: Vec<Permission> = template.scopes().into_iter().filter(fits).collect();
    if scopes.is_empty() {
        return Err(Error::new(Code::Forbidden, "you may do nothing of what the template is for; choose another")
            .reason("escalation")
            .at("template"));
    }
    Ok(scopes)
}

/// Reads the networks of a field: a single address is one.
pub(crate) fn read_networks(field: &str, words: &[String], most: usize) -> Result<Vec<IpNet>, Error> {
    if words.len() > most {
        return Err(Error::field(field, format!("at most {most} networks can be listed")));
    }
    let read = |(index, word): (usize, &String)| {
        let network = word.parse::<IpNet>().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(|network| network.trunc()).ok_or_else(|| {
            Error::field(
                format!("{field}[{index}]"),
                "this is no address and no network; write one such as 203.0.113.9, 203.0.113.0/24 or 2001:db8::/32",
            )
        })
    };
    words.iter().enumerate().map(read).collect()
}

/// Reads scopes; nobody can pass on what he does not have.
fn read_scopes(words: &[String], caller: &Caller, organization: OrganizationId) -> Result<Vec<Permission>, Error> {
    if words.is_empty() {
        return Err(Error::field("scopes", format!("a key without scopes allows nothing; write some of {}", known())));
    }
    if words.len() > MAX_SCOPES {
        return Err(Error::field("scopes", format!("at most {MAX_SCOPES} scopes can be listed; write each once")));
    }
    let mut scopes = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let field = format!("scopes[{index}]");
        let scope: Permission = word
            .parse()
            .map_err(|_| Error::field(&field, format!("there is no such scope; write one of {}", known())))?;
        if !caller.has(scope) {
            let detail =
                format!("the caller's own key does not have the scope {scope}, so it cannot pass it on; leave it out");
            return Err(Error::new(Code::Forbidden, detail).reason("escalation").at(field));
        }
        if scope == Permission::OperatePlatform && organization != OrganizationId::PLATFORM {
            return Err(Error::field(
                &field,
                "only keys of the platform's own organization can have this scope; leave it out",
            ));
        }
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    Ok(scopes)
}

fn known() -> String {
    Permission::ALL.iter().map(|permission| permission.as_str()).collect::<Vec<_>>().join(", ")
}

impl From<Template> for api_keys::Template {
    fn from(template: Template) -> Self {
        match template {
            Template::ReadOnly => Self::ReadOnly,
            Template::ReadWrite => Self::ReadWrite,
            Template::Deploy => Self::Deploy,
            Template::Full => Self::Full,
        }
    }
}

impl From<api_keys::Template> for Template {
    fn from(template: api_keys::Template) -> Self {
        match template {
            api_keys::Template::ReadOnly => Self::ReadOnly,
            api_keys::Template::ReadWrite => Self::ReadWrite,
            api_keys::Template::Deploy => Self::Deploy,
            api_keys::Template::Full => Self::Full,
        }
    }
}

impl From<api_keys::ApiKey> for ApiKey {
    fn from(key: api_keys::ApiKey) -> Self {
        Self {
            id: key.id,
            organization_id: key.organization,
            name: key.name,
            hint: key.hint,
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            template: key.template.map(Template::from),
            networks: key.networks.iter().map(ToString::to_string).collect(),
            owner_id: key.owner,
            replaced_by: key.replaced_by,
            last_used_at: key.last_used_at.map(Moment),
            last_used_from: key.last_used_from,
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Moment),
            revoked_at: key.revoked_at.map(Moment),
        }
    }
}
