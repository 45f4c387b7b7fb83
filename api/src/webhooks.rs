//! Webhook endpoints: who is told what, and what came of telling them.

use std::borrow::Cow;

use gantry_schema::organizations::Permission;
use gantry_schema::seal::SealContext;
use gantry_schema::webhooks::queries;
use gantry_schema::webhooks::signature::SigningSecret;
use gantry_schema::webhooks::{self as rows};
use gantry_schema::{EndpointId, EventId, JobId, JobTx as _};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use rand::RngExt as _;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use url::Url;

use crate::app::App;
use crate::body::Body;
use crate::caller::Caller;
use crate::error::Error;
use crate::field::{EventPattern, Moment};
use crate::page::{Cursor, Limit, Page};
use crate::tag::Tag;

/// The operations on webhook endpoints.
#[derive(Debug, Clone, Copy)]
pub struct WebhookEndpoints;

/// A receiver of events.
#[derive(Debug, Object)]
#[oai(rename = "WebhookEndpoint")]
struct Endpoint {
    /// Its id.
    id: EndpointId,
    /// Where events are posted to.
    url: String,
    /// What people wrote about it.
    description: String,
    /// The types it wants: exact ones, or beginnings such as `invoice.*`; empty: all.
    event_types: Vec<String>,
    /// It gets events.
    enabled: bool,
    /// When it was made.
    created_at: Moment,
}

/// A receiver to register.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "NewWebhookEndpoint")]
struct NewEndpoint {
    /// Where events are posted to: `https://`, at most 2 048 characters, without user and password.
    url: String,
    /// What people should know about it, at most 1 000 characters.
    description: Option<String>,
    /// The types it wants: exact ones, or beginnings such as `invoice.*`; left out or empty: all.
    event_types: Option<Vec<EventPattern>>,
    /// It gets events; left out: it does.
    enabled: Option<bool>,
}

/// What to change; what is left out stays as it is.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookEndpointChange")]
struct EndpointChange {
    /// Where events are posted to.
    url: Option<String>,
    /// What people should know about it.
    description: Option<String>,
    /// The types it wants; empty: all.
    event_types: Option<Vec<EventPattern>>,
    /// It gets events.
    enabled: Option<bool>,
}

/// A receiver that was registered.
#[derive(Debug, Object)]
#[oai(rename = "MadeWebhookEndpoint")]
struct MadeEndpoint {
    /// What its deliveries are signed with, `whsec_…`, for any Standard Webhooks library. Shown this once.
    secret: String,
    /// Its id.
    id: EndpointId,
    /// What will be known of it.
    endpoint: Endpoint,
}

/// A receiver was registered.
#[derive(ApiResponse)]
enum Created {
    /// It gets what happens from now on.
    #[oai(status = 201)]
    Created(Json<MadeEndpoint>, #[oai(header = "Location")] String),
}

/// A receiver was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// It gets nothing any more.
    #[oai(status = 204)]
    Deleted,
}

/// One attempt to deliver an event.
#[derive(Debug, Object)]
#[oai(rename = "WebhookAttempt")]
struct Attempt {
    /// The delivery's job.
    job_id: JobId,
    /// Which attempt of it.
    attempt: i32,
    /// What was delivered.
    event_id: EventId,
    /// When it began.
    attempted_at: Moment,
    /// How long it took.
    latency_ms: i32,
    /// The HTTP status of the answer; 2xx is success.
    #[oai(skip_serializing_if_is_none)]
    status: Option<i16>,
    /// The first kilobyte of the answer.
    #[oai(skip_serializing_if_is_none)]
    answer: Option<String>,
    /// Why there was no answer.
    #[oai(skip_serializing_if_is_none)]
    error: Option<String>,
}

#[OpenApi(prefix_path = "/webhook-endpoints", tag = "Tag::WebhookEndpoints")]
impl WebhookEndpoints {
    /// Register a webhook endpoint
    ///
    /// Events that are posted from now on are delivered to it, signed as Standard Webhooks 1.0 says. The answer shows the
    /// signing secret; nothing shows it again.
    #[oai(path = "/", method = "post", operation_id = "createWebhookEndpoint")]
    async fn create(&self, caller: Caller, app: Data<&App>, body: Body<NewEndpoint>) -> Result<Created, Error> {
        let organization = caller.may(Permission::ManageWebhooks)?;
        let NewEndpoint { url, description, event_types, enabled } = body.0;
        let url = receiver(&url, app.private_receivers)?;
        let description = checked_description(description)?.unwrap_or_default();
        let event_types = checked_types(event_types)?.unwrap_or_default();
        let secret = SigningSecret::generate(&rand::rng().random());

        let mut tx = app.db.tenant(organization).await?;
        let id: EndpointId = tx.ids().mint();
        let place = SealContext {
            organization: organization.uuid(),
            table: "webhook_endpoints",
            column: "secret",
            row: id.uuid(),
        };
        let endpoint = rows::Endpoint {
            id,
            organization,
            url,
            description,
            event_types,
            enabled: enabled.unwrap_or(true),
            secret: app.sealing.seal(&place, secret.bytes())?,
            created_at: tx.now(),
        };
        queries::insert_endpoint(&mut tx, &endpoint).await?;
        tx.commit().await?;
        let made = MadeEndpoint { secret: secret.reveal().expose_secret().to_owned(), id, endpoint: endpoint.into() };
        Ok(Created::Created(Json(made), format!("/webhook-endpoints/{id}")))
    }

    /// List webhook endpoints
    ///
    /// Oldest first, without their secrets.
    #[oai(path = "/", method = "get", operation_id = "listWebhookEndpoints")]
    async fn list(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// How many.
        limit: Query<Option<Limit>>,
        /// Continue after the last page.
        cursor: Query<Option<Cursor>>,
    ) -> Result<Json<Page<Endpoint>>, Error> {
        let organization = caller.may(Permission::ReadWebhooks)?;
        let after = cursor.0.map(|cursor| cursor.to_id()).transpose()?;
        let limit = limit.0.unwrap_or_default();
        let mut tx = app.db.tenant(organization).await?;
        let endpoints = queries::list_endpoints(&mut tx, after, limit.and_one()).await?;
        Ok(Json(Page::of(endpoints, limit, |endpoint| Cursor::id(endpoint.id.uuid()), Endpoint::from)))
    }

    /// Get a webhook endpoint
    ///
    /// Without its secret.
    #[oai(path = "/:endpoint", method = "get", operation_id = "getWebhookEndpoint")]
    async fn get(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
    ) -> Result<Json<Endpoint>, Error> {
        let organization = caller.may(Permission::ReadWebhooks)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::find_endpoint(&mut tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
        Ok(Json(found.into()))
    }

    /// Change a webhook endpoint
    ///
    /// What is left out stays as it is. Deliveries under way go where it points by then.
    #[oai(path = "/:endpoint", method = "patch", operation_id = "updateWebhookEndpoint")]
    async fn update(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<EndpointChange>,
    ) -> Result<Json<Endpoint>, Error> {
        let organization = caller.may(Permission::ManageWebhooks)?;
        let EndpointChange { url, description, event_types, enabled } = body.0;
        let url = url.map(|url| receiver(&url, app.private_receivers)).transpose()?;
        let description = checked_description(description)?;
        let event_types = checked_types(event_types)?;
        let mut tx = app.db.tenant(organization).await?;
        let (url, description, event_types) = (url.as_deref(), description.as_deref(), event_types.as_deref());
        if !queries::update_endpoint(&mut tx, endpoint.0, url, description, event_types, enabled).await? {
            return Err(Error::not_found(endpoint.0));
        }
        let found = queries::find_endpoint(&mut tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
        tx.commit().await?;
        Ok(Json(found.into()))
    }

    /// Remove a webhook endpoint
    ///
    /// Deliveries under way find it gone and end. Its attempts stay with their jobs.
    #[oai(path = "/:endpoint", method = "delete", operation_id = "deleteWebhookEndpoint")]
    async fn delete(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
    ) -> Result<Deleted, Error> {
        let organization = caller.may(Permission::ManageWebhooks)?;
        let mut tx = app.db.tenant(organization).await?;
        if !queries::delete_endpoint(&mut tx, endpoint.0).await? {
            return Err(Error::not_found(endpoint.0));
        }
        tx.commit().await?;
        Ok(Deleted::Deleted)
    }

    /// List attempts to deliver to an endpoint
    ///
    /// Newest first, with what the receiver answered.
    #[oai(path = "/:endpoint/attempts", method = "get", operation_id = "listWebhookAttempts")]
    async fn attempts(
        &self,
        caller: Caller,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        /// How many.
        limit: Query<Option<Limit>>,
        /// Continue after the last page.
        cursor: Query<Option<Cursor>>,
    ) -> Result<Json<Page<Attempt>>, Error> {
        let organization = caller.may(Permission::ReadWebhooks)?;
        let before = cursor.0.map(|cursor| cursor.to_moment()).transpose()?;
        let limit = limit.0.unwrap_or_default();
        let mut tx = app.db.tenant(organization).await?;
        queries::find_endpoint(&mut tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
        let attempts = queries::list_attempts(&mut tx, endpoint.0, before, limit.and_one()).await?;
        let place = |attempt: &rows::Attempt| Cursor::moment(attempt.attempted_at, attempt.job.uuid());
        Ok(Json(Page::of(attempts, limit, place, Attempt::from)))
    }
}

/// Longest URL, as the table has it.
const MAX_URL: usize = 2_048;

/// Event types one endpoint names.
const MAX_TYPES: usize = 100;

/// Checks where events are to be posted. Whether its address may be spoken to is decided at each delivery, when the
/// name is resolved.
fn receiver(text: &str, private: bool) -> Result<String, Error> {
    let wrong = |detail: Cow<'static, str>| Error::field("url", detail);
    if text.len() > MAX_URL {
        return Err(wrong(
            format!("a URL has at most {MAX_URL} characters, this one {}; shorten it", text.len()).into(),
        ));
    }
    let url = Url::parse(text)
        .map_err(|error| wrong(format!("not a URL ({error}); write one such as https://example.com/hooks").into()))?;
    match url.scheme() {
        "https" => {}
        "http" if private => {}
        "http" => return Err(wrong("http:// would show events to anybody in between; write https://".into())),
        _ => return Err(wrong("events are posted over HTTP; write a URL that begins with https://".into())),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "a URL must not contain user or password; deliveries are signed, verify the signature instead".into(),
        ));
    }
    if url.fragment().is_some() {
        return Err(wrong("the part after # never reaches a server; leave it out".into()));
    }
    let url = String::from(url);
    if url.len() > MAX_URL {
        return Err(wrong(
            format!("written out, the URL has {} characters, and at most {MAX_URL} are allowed; shorten it", url.len())
                .into(),
        ));
    }
    Ok(url)
}

fn checked_description(description: Option<String>) -> Result<Option<String>, Error> {
    match &description {
        Some(text) if text.chars().count() > 1_000 => {
            Err(Error::field("description", "a description has at most 1 000 characters; shorten it"))
        }
        Some(text) if text.contains('\0') => {
            Err(Error::field("description", "the character U+0000 cannot be stored; leave it out"))
        }
        _ => Ok(description),
    }
}

fn checked_types(patterns: Option<Vec<EventPattern>>) -> Result<Option<Vec<String>>, Error> {
    match patterns {
        Some(patterns) if patterns.len() > MAX_TYPES => Err(Error::field(
            "event_types",
            format!("an endpoint names at most {MAX_TYPES} types; use beginnings such as invoice.*"),
        )),
        patterns => Ok(patterns.map(|patterns| patterns.iter().map(ToString::to_string).collect())),
    }
}

impl From<rows::Endpoint> for Endpoint {
    fn from(row: rows::Endpoint) -> Self {
        Self {
            id: row.id,
            url: row.url,
            description: row.description,
            event_types: row.event_types,
            enabled: row.enabled,
            created_at: row.created_at.into(),
        }
    }
}

impl From<rows::Attempt> for Attempt {
    fn from(row: rows::Attempt) -> Self {
        Self {
            job_id: row.job,
            attempt: row.attempt,
            event_id: row.event,
            attempted_at: row.attempted_at.into(),
            latency_ms: row.latency_ms,
            status: row.status,
            answer: row.answer,
            error: row.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_https_unless_the_installation_allows_otherwise() {
        assert_eq!(receiver("https://Example.com", false).unwrap(), "https://example.com/");
        assert!(receiver("http://127.0.0.1:9000/hook", true).is_ok());
        for bad in [
            "",
            "example.com",
            "/hook",
            "http://example.com/",
            "ftp://example.com/",
            "javascript:alert(1)",
            "https://",
            "https://user@example.com/",
            "https://:secret@example.com/",
            "https://example.com/#part",
            "file:///etc/passwd",
            &format!("https://example.com/{}", "a".repeat(2048)),
            &format!("https://example.com/{}", "é".repeat(500)),
        ] {
            assert!(receiver(bad, false).is_err(), "{bad}");
        }
    }
}
