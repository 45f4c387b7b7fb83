//! The applications of an organization: registering them, and seeing to their secrets.

use chrono::Duration;
use gantry_schema::oauth::clients::{self as rows, Grant};
use gantry_schema::oauth::redirect;
use gantry_schema::oauth::scope::{Scope, Scopes};
use gantry_schema::organizations::needed::{ManageOauthClients, ReadOauthClients};
use gantry_schema::token::ClientSecretToken;
use gantry_schema::{JobTx as _, OauthClientId, OauthClientSecretId, OrganizationId};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, MaybeUndefined, ToJSON as _};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;

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

/// Scopes that one application lists.
const MAX_SCOPES: usize = 100;

/// Flows there are.
const MAX_FLOWS: usize = 3;

/// Places one application may send browsers back to.
const MAX_REDIRECT_URIS: usize = 20;

/// The operations on applications.
#[derive(Debug, Clone, Copy)]
pub struct OauthClients;

/// By which flow an application gets tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", rename = "OauthFlow")]
pub enum Flow {
    /// A person lets it, in his browser: authorization code with PKCE, and refresh tokens.
    AuthorizationCode,
    /// It acts for itself, with its secret.
    ClientCredentials,
    /// A person lets it, in the browser of another machine.
    DeviceCode,
}

impl From<Flow> for Grant {
    fn from(flow: Flow) -> Self {
        match flow {
            Flow::AuthorizationCode => Self::AuthorizationCode,
            Flow::ClientCredentials => Self::ClientCredentials,
            Flow::DeviceCode => Self::DeviceCode,
        }
    }
}

impl From<Grant> for Flow {
    fn from(grant: Grant) -> Self {
        match grant {
            Grant::AuthorizationCode => Self::AuthorizationCode,
            Grant::ClientCredentials => Self::ClientCredentials,
            Grant::DeviceCode => Self::DeviceCode,
        }
    }
}

/// An application, without its secret.
#[derive(Debug, Object)]
#[oai(example)]
struct OauthClient {
    /// Its id: what it sends as `client_id`.
    id: OauthClientId,
    /// Who registered it. Members of this organization, and of those below it, can let it act for them.
    organization_id: OrganizationId,
    /// What people call it; they are asked by this name.
    name: String,
    /// What people should know about it.
    description: String,
    /// Where it is described.
    #[oai(skip_serializing_if_is_none)]
    homepage: Option<String>,
    /// It can keep a secret: it runs on a server of its owner's.
    confidential: bool,
    /// Where browsers may be sent back to.
    redirect_uris: Vec<String>,
    /// How it gets tokens.
    flows: Vec<Flow>,
    /// The most it can be given.
    scopes: Vec<String>,
    /// It gets tokens, and those it has work.
    enabled: bool,
    /// When it was registered.
    created_at: Moment,
    /// When it was changed last.
    updated_at: Moment,
}

example!(OauthClient, {
    "id": "ocl_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "name": "Books",
    "description": "Writes invoices from what was done",
    "homepage": "https://books.example/",
    "confidential": true,
    "redirect_uris": ["https://books.example/callback"],
    "flows": ["authorization_code"],
    "scopes": ["openid", "email", "offline_access", "jobs:read"],
    "enabled": true,
    "created_at": "2026-01-15T12:00:00Z",
    "updated_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Client> for OauthClient {
    fn from(row: rows::Client) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            name: row.name,
            description: row.description,
            homepage: row.homepage,
            confidential: row.confidential,
            redirect_uris: row.redirect_uris,
            flows: row.grants.into_iter().map(Flow::from).collect(),
            scopes: row.scopes.words(),
            enabled: row.enabled,
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// An application to register.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewOauthClient {
    /// What people call it; they are asked by this name.
    name: Name,
    /// What people should know about it, at most 1 000 characters.
    #[oai(validator(max_length = 1000))]
    description: Option<String>,
    /// Where it is described: `https://…`.
    #[oai(validator(max_length = 2000))]
    homepage: Option<String>,
    /// It runs on a server of its owner's and can keep a secret; left out: it does. Programs that people install, and
    /// pages in browsers, cannot.
    confidential: Option<bool>,
    /// Where browsers may be sent back to, compared character by character: `https://…`; for programs on the person's own
    /// machine `http://127.0.0.1/…`, with any port, or `com.example.app:/…`.
    #[oai(validator(max_items = 20))]
    redirect_uris: Option<Vec<String>>,
    /// How it gets tokens; left out: by `authorization_code`.
    #[oai(validator(min_items = 1, max_items = 3))]
    flows: Option<Vec<Flow>>,
    /// The most it can be given: `openid`, `profile`, `email`, `offline_access`, `jobs:read`, …; of permissions only what
    /// the caller has himself.
    #[oai(validator(min_items = 1, max_items = 100))]
    scopes: Vec<String>,
}

example!(NewOauthClient, {
    "name": "Books",
    "description": "Writes invoices from what was done",
    "homepage": "https://books.example/",
    "redirect_uris": ["https://books.example/callback"],
    "scopes": ["openid", "email", "offline_access", "jobs:read"],
});

/// What to change; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct OauthClientChange {
    /// What people call it.
    name: Option<Name>,
    /// What people should know about it.
    #[oai(validator(max_length = 1000))]
    description: Option<String>,
    /// Where it is described; null: nowhere.
    #[oai(validator(max_length = 2000))]
    homepage: MaybeUndefined<String>,
    /// Where browsers may be sent back to; replaces all of them.
    #[oai(validator(max_items = 20))]
    redirect_uris: Option<Vec<String>>,
    /// How it gets tokens; replaces all of them.
    #[oai(validator(min_items = 1, max_items = 3))]
    flows: Option<Vec<Flow>>,
    /// The most it can be given; replaces all of them. Tokens that have more lose it within a second.
    #[oai(validator(min_items = 1, max_items = 100))]
    scopes: Option<Vec<String>>,
    /// It gets tokens, and those it has work. False stops all of them within a second.
    enabled: Option<bool>,
}

example!(OauthClientChange, { "description": "Writes invoices and reminders", "scopes": ["openid", "jobs:read"] });

/// An application that was registered.
#[derive(Debug, Object)]
#[oai(example)]
struct MadeOauthClient {
    /// What it proves itself with, `gos_…`. Shown this once, only its hash is kept; absent where it cannot keep one.
    #[oai(skip_serializing_if_is_none)]
    client_secret: Option<String>,
    /// What will be known of it.
    client: OauthClient,
}

impl Example for MadeOauthClient {
    fn example() -> Self {
        Self {
            client_secret: Some("gos_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY".to_owned()),
            client: OauthClient::example(),
        }
    }
}

/// A secret of an application, without itself.
#[derive(Debug, Object)]
#[oai(example)]
struct OauthClientSecret {
    /// Its id.
    id: OauthClientSecretId,
    /// Its first characters.
    hint: String,
    /// When it was made.
    created_at: Moment,
    /// When it stops working; absent: it is the current one.
    #[oai(skip_serializing_if_is_none)]
    expires_at: Option<Moment>,
}

example!(OauthClientSecret, {
    "id": "ocs_01h455vb4pex5vsknk084sn02q",
    "hint": "gos_lOhIPU",
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Secret> for OauthClientSecret {
    fn from(row: rows::Secret) -> Self {
        Self { id: row.id, hint: row.hint, created_at: row.created_at.into(), expires_at: row.expires_at.map(Moment) }
    }
}

/// How a secret is to be replaced.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct OauthClientSecretRotation {
    /// How long the old secret goes on working beside the new one: 0 to 2 592 000 seconds; left out: 86 400.
    #[oai(validator(minimum(value = "0"), maximum(value = "2592000")))]
    overlap_seconds: Option<u32>,
}

example!(OauthClientSecretRotation, { "overlap_seconds": 3600 });

/// A secret that was replaced.
#[derive(Debug, Object)]
#[oai(example)]
struct RotatedOauthClientSecret {
    /// The new secret, `gos_…`. Shown this once.
    client_secret: String,
    /// Every secret that works now, the new one first.
    secrets: Vec<OauthClientSecret>,
}

impl Example for RotatedOauthClientSecret {
    fn example() -> Self {
        Self {
            client_secret: "gos_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY".to_owned(),
            secrets: vec![OauthClientSecret::example()],
        }
    }
}

/// An application was registered.
#[derive(ApiResponse)]
enum Created {
    /// It can ask for tokens.
    #[oai(status = 201)]
    Created(
        Json<MadeOauthClient>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
        /// The tag of what is known of it, for the next change.
        #[oai(header = "ETag")]
        Etag,
    ),
}

/// An application was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// It gets no tokens, and those it had stop working within a second.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/oauth-clients", tag = "Tag::OauthClients")]
impl OauthClients {
    /// List applications
    ///
    /// Those that the organization registered, oldest first, without their secrets.
    #[oai(path = "/", method = "get", operation_id = "listOauthClients")]
    async fn list(
        &self,
        caller: May<ReadOauthClients>,
        app: Data<&App>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<OauthClient>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, window).await?;
        Ok(paging.page(organization, found, |client| Place::id(client.id), OauthClient::from))
    }

    /// Register an application
    ///
    /// Members of the organization, and of those below it, can then let it act for them, as far as these scopes and their
    /// own roles go. `/.well-known/oauth-authorization-server` says where it asks. The answer shows the secret of one that
    /// can keep it; nothing shows it again.
    ///
    /// Refused as `too_many` when the organization has 1 000 of them.
    #[oai(path = "/", method = "post", operation_id = "createOauthClient")]
    async fn create(
        &self,
        caller: May<ManageOauthClients>,
        once: Once,
        body: Body<NewOauthClient>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let new = body.0;
        let scopes = scopes(&new.scopes, &caller, &Scopes::default())?;
        let create = once.run(&caller, organization, async |tx| {
            if rows::count(tx).await? >= rows::MAX_CLIENTS {
                let detail = format!(
                    "an organization has at most {} applications; remove those nobody needs",
                    rows::MAX_CLIENTS
                );
                return Err(Error::new(Code::TooMany, detail));
            }
            let flows = new.flows.unwrap_or_else(|| vec![Flow::AuthorizationCode]);
            count("flows", flows.len(), 1, MAX_FLOWS)?;
            let client = rows::Client {
                id: tx.ids().mint(),
                organization,
                name: new.name.to_string(),
                description: new.description.map(description).transpose()?.unwrap_or_default(),
                homepage: new.homepage.map(homepage).transpose()?,
                confidential: new.confidential.unwrap_or(true),
                redirect_uris: new.redirect_uris.unwrap_or_default(),
                grants: flows.into_iter().map(Grant::from).collect(),
                scopes,
                enabled: true,
                created_at: tx.now(),
                updated_at: tx.now(),
            };
            check(&client)?;
            rows::insert(tx, &client).await?;
            let secret = client.confidential.then(|| ClientSecretToken::generate(&mut rand::rng()));
            if let Some(secret) = &secret {
                rows::give_secret(tx, client.id, secret, Duration::zero()).await?;
            }
            let stored = rows::find(tx, client.id).await?.ok_or_else(|| Error::not_found(client.id))?;
            let client = OauthClient::from(stored);
            let (location, etag) = (format!("/oauth-clients/{}", client.id), Etag::of(&client));
            tx.audit().on(&client.id).called(&client.name).became(None, client.to_json().as_ref());
            let client_secret = secret.map(|secret| secret.expose().to_owned());
            Ok(Created::Created(Json(MadeOauthClient { client_secret, client }), location, etag))
        });
        create.await
    }

    /// Get an application
    ///
    /// Without its secret.
    #[oai(path = "/:client", method = "get", operation_id = "getOauthClient")]
    async fn get(
        &self,
        caller: May<ReadOauthClients>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The application.
        client: Path<OauthClientId>,
    ) -> Result<Tagged<OauthClient>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = rows::find(&mut tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
        Ok(if_none_match.answer(found.into()))
    }

    /// Change an application
    ///
    /// What is left out stays as it is. What people let it do stays, as far as its scopes still go.
    #[oai(path = "/:client", method = "patch", operation_id = "updateOauthClient")]
    async fn update(
        &self,
        caller: May<ManageOauthClients>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The application.
        client: Path<OauthClientId>,
        body: Body<OauthClientChange>,
    ) -> Result<Answered<Tagged<OauthClient>>, Error> {
        let change = body.0;
        let update = once.run(&caller, caller.organization(), async |tx| {
            let before = rows::lock(tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
            if_match.check(&OauthClient::from(before.clone()))?;
            if let Some(flows) = &change.flows {
                count("flows", flows.len(), 1, MAX_FLOWS)?;
            }
            let new_homepage: Option<Option<String>> = change.homepage.into();
            let change = rows::Change {
                name: change.name.map(|name| name.to_string()),
                description: change.description.map(description).transpose()?,
                homepage: new_homepage.map(|new| new.map(homepage).transpose()).transpose()?,
                redirect_uris: change.redirect_uris,
                grants: change.flows.map(|flows| flows.into_iter().map(Grant::from).collect()),
                scopes: change.scopes.map(|words| scopes(&words, &caller, &before.scopes)).transpose()?,
                enabled: change.enabled,
            };
            rows::update(tx, client.0, &change).await?;
            let after = rows::find(tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
            check(&after)?;
            let (before, after) = (OauthClient::from(before), OauthClient::from(after));
            tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Tagged::of(after))
        });
        let updated = update.await?;
        app.grantees.forget();
        Ok(updated)
    }

    /// Remove an application
    ///
    /// With its secrets, and with whatever people let it do.
    #[oai(path = "/:client", method = "delete", operation_id = "deleteOauthClient")]
    async fn delete(
        &self,
        caller: May<ManageOauthClients>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The application.
        client: Path<OauthClientId>,
    ) -> Result<Answered<Deleted>, Error> {
        let delete = once.run(&caller, caller.organization(), async |tx| {
            let before = rows::lock(tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
            let before = OauthClient::from(before);
            if_match.check(&before)?;
            rows::delete(tx, client.0).await?;
            tx.audit().called(&before.name).became(before.to_json().as_ref(), None);
            Ok(Deleted::Deleted)
        });
        let deleted = delete.await?;
        app.grantees.forget();
        Ok(deleted)
    }

    /// List an application's secrets
    ///
    /// Those that work now, the current one first; never the secrets themselves.
    #[oai(path = "/:client/secrets", method = "get", operation_id = "listOauthClientSecrets")]
    async fn secrets(
        &self,
        caller: May<ReadOauthClients>,
        app: Data<&App>,
        /// The application.
        client: Path<OauthClientId>,
    ) -> Result<Json<Vec<OauthClientSecret>>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        rows::find(&mut tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
        let found = rows::secrets(&mut tx, client.0).await?;
        Ok(Json(found.into_iter().map(OauthClientSecret::from).collect()))
    }

    /// Rotate an application's secret
    ///
    /// The new one works from now on; the old one beside it for the overlap, so that the application can be changed in
    /// between. With an overlap of 0 every old secret stops at once.
    ///
    /// Refused as `wrong_state` when the application cannot keep a secret, as `too_many` when as many old secrets work
    /// still as may.
    #[oai(path = "/:client/secret/rotate", method = "post", operation_id = "rotateOauthClientSecret")]
    async fn rotate(
        &self,
        caller: May<ManageOauthClients>,
        once: Once,
        /// The application.
        client: Path<OauthClientId>,
        body: Body<OauthClientSecretRotation>,
    ) -> Result<Answered<Json<RotatedOauthClientSecret>>, Error> {
        let overlap = body.0.overlap_seconds.map_or(rows::OVERLAP, |seconds| Duration::seconds(seconds.into()));
        if overlap > rows::MAX_OVERLAP {
            return Err(Error::field("overlap_seconds", "an overlap has 0 to 2592000 seconds (30 days)"));
        }
        let rotate = once.run(&caller, caller.organization(), async |tx| {
            let found = rows::lock(tx, client.0).await?.ok_or_else(|| Error::not_found(client.0))?;
            if !found.confidential {
                let detail = "a public application has no secret: whoever has the program would have it too";
                return Err(Error::new(Code::WrongState, detail));
            }
            if overlap > Duration::zero() && rows::secrets(tx, client.0).await?.len() > rows::MAX_OLD {
                let detail = format!(
                    "{} old secrets work still; wait until one expires, or rotate with overlap_seconds 0",
                    rows::MAX_OLD
                );
                return Err(Error::new(Code::TooMany, detail).at("overlap_seconds"));
            }
            let secret = ClientSecretToken::generate(&mut rand::rng());
            rows::give_secret(tx, client.0, &secret, overlap).await?;
            tx.audit().called(&found.name).set("overlap_seconds", overlap.num_seconds());
            let secrets = rows::secrets(tx, client.0).await?.into_iter().map(OauthClientSecret::from).collect();
            Ok(Json(RotatedOauthClientSecret { client_secret: secret.expose().to_owned(), secrets }))
        });
        rotate.await
    }
}

/// Refuses an application that could not do what it is registered for, or that would do it where others listen.
fn check(client: &rows::Client) -> Result<(), Error> {
    count("redirect_uris", client.redirect_uris.len(), 0, MAX_REDIRECT_URIS)?;
    for (index, uri) in client.redirect_uris.iter().enumerate() {
        let field = format!("redirect_uris[{index}]");
        redirect::check(uri, client.confidential).map_err(|error| Error::field(&field, error.to_string()))?;
        if client.redirect_uris.iter().take(index).any(|before| before == uri) {
            return Err(Error::field(field, "it is given twice; leave one of them out"));
        }
    }
    if client.uses(Grant::AuthorizationCode) && client.redirect_uris.is_empty() {
        let detail = "authorization_code sends browsers back; say where they may be sent to";
        return Err(Error::field("redirect_uris", detail));
    }
    if client.uses(Grant::ClientCredentials) && !client.confidential {
        let detail = "client_credentials needs a secret, which a public application cannot keep; leave it out";
        return Err(Error::field("flows", detail));
    }
    Ok(())
}

/// Reads scopes; of permissions nobody can pass on what he does not have. What was there before stays.
fn scopes(words: &[String], caller: &Caller, before: &Scopes) -> Result<Scopes, Error> {
    count("scopes", words.len(), 1, MAX_SCOPES)?;
    let read = |(index, word): (usize, &String)| {
        let field = format!("scopes[{index}]");
        let scope: Scope = word.parse().map_err(|_| {
            let known: Vec<&str> = Scope::all().map(Scope::as_str).collect();
            Error::field(&field, format!("there is no such scope; write one of {}", known.join(", ")))
        })?;
        match scope {
            Scope::Permission(permission) if !before.contain(scope) && !caller.has(permission) => {
                let detail = format!("the caller does not have {permission}, so it cannot pass it on; leave it out");
                Err(Error::new(Code::Forbidden, detail).at(field))
            }
            _ => Ok(scope),
        }
    };
    words.iter().enumerate().map(read).collect()
}

fn count(field: &str, given: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(Error::field(field, format!("{least} to {most} can be listed, and these are {given}; write each once")))
}

fn description(text: String) -> Result<String, Error> {
    if text.chars().count() > 1_000 || text.chars().any(|character| character.is_control() && character != '\n') {
        return Err(Error::field("description", "a description has at most 1000 characters, none of them for control"));
    }
    Ok(text)
}

/// It is shown as a link to people who are asked, so it leads to a page and nowhere else.
fn homepage(text: String) -> Result<String, Error> {
    let leads_to_a_page = text.starts_with("https://") && redirect::check(&text, true).is_ok();
    if leads_to_a_page { Ok(text) } else { Err(Error::field("homepage", "write it as https://app.example/")) }
}
