//! API keys: what programs authenticate with.

use gantry_jobs::webhooks;
use gantry_schema::api_keys::{self, Token};
use gantry_schema::organizations::Permission;
use gantry_schema::organizations::needed::{ManageApiKeys, ReadApiKeys};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::webhooks::fan_out::NewEvent;
use gantry_schema::{ApiKeyId, OrganizationId};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, ToJSON as _};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

/// Scopes that one key lists.
const MAX_SCOPES: usize = 100;

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
    /// What it allows.
    scopes: Vec<String>,
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
    /// What it allows: `jobs:read`, `jobs:write`, …; only what the caller's own key allows.
    #[oai(validator(min_items = 1, max_items = 100))]
    scopes: Vec<String>,
    /// When it stops working; left out: never.
    expires_at: Option<Moment>,
    /// Whose it is: the caller's organization, or one below it; left out: the caller's.
    organization_id: Option<OrganizationId>,
}

example!(NewApiKey, { "name": "Billing", "scopes": ["events:write", "jobs:read"], "expires_at": "2027-01-01T00:00:00Z" });

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
        Self { token: "gk_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY".to_owned(), api_key: ApiKey::example() }
    }
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
            .may_for(&app.db, wanted)
            .await
            .map_err(|error| if error.code() == Code::NotFound { error.at("organization_id") } else { error })?;
        let scopes = scopes(&body.0.scopes, &caller, organization)?;
        let expires_at = body.0.expires_at.map(|moment| moment.0);
        if expires_at.is_some_and(|at| at <= app.db.now()) {
            return Err(Error::field(
                "expires_at",
                "the key would have expired already; write a moment ahead, or leave it out",
            ));
        }
        let token = Token::generate(&mut rand::rng());
        once.run(&caller, organization, async |tx| {
            let key = api_keys::create(tx, body.0.name.as_str(), &token, &scopes, expires_at).await?;
            let words: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            let facts = json!({ "api_key_id": key.id, "name": key.name, "scopes": words });
            webhooks::emit(tx, PlatformEvent::ApiKeyCreated.name(), facts, caller.by()).await?;
            let api_key = ApiKey::from(key);
            tx.audit().on(&api_key.id).called(&api_key.name).became(None, api_key.to_json().as_ref());
            Ok(Created::Created(Json(MadeApiKey { token: token.expose().to_owned(), api_key })))
        })
        .await
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
        let organization = caller.may_for(&app.db, organization.0).await?;
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
        app.keys.forget();
        Ok(revoked)
    }
}

/// Reads scopes; nobody can pass on what he does not have.
fn scopes(words: &[String], caller: &Caller, organization: OrganizationId) -> Result<Vec<Permission>, Error> {
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
            return Err(Error::new(Code::Forbidden, detail).at(field));
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

impl From<api_keys::ApiKey> for ApiKey {
    fn from(key: api_keys::ApiKey) -> Self {
        Self {
            id: key.id,
            organization_id: key.organization,
            name: key.name,
            hint: key.hint,
            scopes: key.scopes.iter().map(ToString::to_string).collect(),
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Moment),
            revoked_at: key.revoked_at.map(Moment),
        }
    }
}
