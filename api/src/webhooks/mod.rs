//! Webhook endpoints: who is told what, and what came of telling them.

mod answers;
mod deliveries;
pub(crate) mod fields;
mod secret;

use std::collections::BTreeMap;

use gantry_jobs::Job as _;
use gantry_jobs::webhooks::DrainBacklog;
use gantry_schema::notices;
use gantry_schema::organizations::needed::{ManageWebhooks, ReadWebhooks};
use gantry_schema::seal::SealContext;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::webhooks::{self as rows};
use gantry_schema::webhooks::{backlog, endpoints, event_types, secrets};
use gantry_schema::{EndpointId, JobTx as _, TenantTx};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, MaybeUndefined, ToJSON as _};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{Etag, IfMatch, IfNoneMatch, Tagged};
use crate::dry_run::DryRun;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{EventPattern, EventType};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;
use fields::Channel;

pub use answers::{Attempt, Endpoint, Secret, SignatureVersion, Statistics};
pub use deliveries::WebhookDeliveries;

/// Endpoints an organization may have.
const MAX_ENDPOINTS: i64 = 10_000;

/// The operations on webhook endpoints.
#[derive(Debug, Clone, Copy)]
pub struct WebhookEndpoints;

/// A receiver to register.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "NewWebhookEndpoint", example)]
struct NewEndpoint {
    /// Where events are posted to: `https://`, at most 2 048 characters, without user and password.
    #[oai(validator(max_length = 2048))]
    url: String,
    /// What people should know about it, at most 1 000 characters.
    #[oai(validator(max_length = 1000))]
    description: Option<String>,
    /// The types it wants: exact ones, or beginnings such as `invoice.*`; left out or empty: all.
    #[oai(validator(max_items = 100))]
    event_types: Option<Vec<EventPattern>>,
    /// The channels it wants: events of any of them; left out or empty: all events.
    #[oai(validator(max_items = 20))]
    channels: Option<Vec<Channel>>,
    /// What programs keep with it: up to 50 texts of at most 500 characters, by name.
    #[oai(validator(max_properties = 50))]
    metadata: Option<BTreeMap<String, String>>,
    /// Headers it gets besides, by name: at most 20. Their values are kept sealed and never shown.
    #[oai(validator(max_properties = 20))]
    headers: Option<BTreeMap<String, String>>,
    /// Deliveries per second at most, 1 to 10 000; left out: no limit.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    rate_per_second: Option<i32>,
    /// Deliveries come strictly one after the other, numbered without a gap in `webhook-sequence`; left out: they do not.
    ordered: Option<bool>,
    /// Deliveries name the event instead of carrying its payload; left out: they carry it.
    thin: Option<bool>,
    /// It gets events; left out: it does.
    enabled: Option<bool>,
    /// How deliveries are signed; left out: as `secret` is made for, or `v1`.
    signature: Option<SignatureVersion>,
    /// What to sign with, `whsec_…` or `whsk_…`, for a receiver that has it already; left out: a new one is made.
    secret: Option<String>,
}

example!(NewEndpoint, {
    "url": "https://receiver.example/hooks",
    "description": "Books what was paid",
    "event_types": ["invoice.*"],
    "channels": ["project:42"],
    "metadata": { "team": "billing" },
    "headers": { "X-Team": "billing" },
    "rate_per_second": 50,
});

/// What to change; what is left out stays as it is.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookEndpointChange")]
#[derive(Default)]
#[oai(example)]
struct EndpointChange {
    /// Where events are posted to.
    #[oai(validator(max_length = 2048))]
    url: Option<String>,
    /// What people should know about it.
    #[oai(validator(max_length = 1000))]
    description: Option<String>,
    /// The types it wants; empty: all.
    #[oai(validator(max_items = 100))]
    event_types: Option<Vec<EventPattern>>,
    /// The channels it wants; empty: all events.
    #[oai(validator(max_items = 20))]
    channels: Option<Vec<Channel>>,
    /// What programs keep with it; replaces all of it.
    #[oai(validator(max_properties = 50))]
    metadata: Option<BTreeMap<String, String>>,
    /// Headers it gets besides; replaces all of them, an empty object removes them.
    #[oai(validator(max_properties = 20))]
    headers: Option<BTreeMap<String, String>>,
    /// Deliveries per second at most; null: no limit.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    rate_per_second: MaybeUndefined<i32>,
    /// Deliveries come strictly one after the other.
    ordered: Option<bool>,
    /// Deliveries name the event instead of carrying its payload.
    thin: Option<bool>,
    /// It gets events. Enabling it forgets its failures, and what waited for it is delivered.
    enabled: Option<bool>,
}

example!(EndpointChange, { "event_types": ["invoice.*", "refund.made"], "rate_per_second": 100 });

/// A receiver that was registered.
#[derive(Debug, Object)]
#[oai(rename = "MadeWebhookEndpoint", example)]
struct MadeEndpoint {
    /// What its deliveries are signed with, `whsec_…`, for any Standard Webhooks library. Shown this once. Absent where
    /// `v1a` signs: the receiver needs the public key only.
    #[oai(skip_serializing_if_is_none)]
    secret: Option<String>,
    /// What a receiver verifies `v1a` signatures with, `whpk_…`.
    #[oai(skip_serializing_if_is_none)]
    public_key: Option<String>,
    /// Its id.
    id: EndpointId,
    /// What will be known of it.
    endpoint: Endpoint,
    /// It was tried out: nothing was stored, and there is no secret.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

impl Example for MadeEndpoint {
    fn example() -> Self {
        Self {
            secret: Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()),
            public_key: None,
            id: Endpoint::example().id,
            endpoint: Endpoint::example(),
            dry_run: None,
        }
    }
}

/// A receiver was registered.
#[derive(ApiResponse)]
enum Created {
    /// It gets what happens from now on.
    #[oai(status = 201)]
    Created(
        Json<MadeEndpoint>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
        /// The tag of what is known of it, for the next change.
        #[oai(header = "ETag")]
        Etag,
    ),
    /// It could be registered; nothing was stored.
    #[oai(status = 200)]
    TriedOut(Json<MadeEndpoint>),
}

/// A receiver was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// It gets nothing any more.
    #[oai(status = 204)]
    Deleted,
}

/// How a secret is to be replaced.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "WebhookSecretRotation", example)]
struct Rotation {
    /// How long the old secret goes on signing beside the new one: 0 to 604 800 seconds; left out: 86 400.
    #[oai(validator(minimum(value = "0"), maximum(value = "604800")))]
    overlap_seconds: Option<u32>,
    /// How deliveries are signed from now on; left out: as `secret` is made for, or as before.
    signature: Option<SignatureVersion>,
    /// What to sign with; left out: a new secret is made.
    secret: Option<String>,
}

example!(Rotation, { "overlap_seconds": 3600 });

/// A secret that was replaced.
#[derive(Debug, Object)]
#[oai(rename = "RotatedWebhookSecret", example)]
struct Rotated {
    /// The new secret, `whsec_…`. Shown this once; absent where `v1a` signs.
    #[oai(skip_serializing_if_is_none)]
    secret: Option<String>,
    /// What a receiver verifies `v1a` signatures with, `whpk_…`.
    #[oai(skip_serializing_if_is_none)]
    public_key: Option<String>,
    /// Every secret that signs now, the new one first.
    secrets: Vec<Secret>,
}

impl Example for Rotated {
    fn example() -> Self {
        Self {
            secret: Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()),
            public_key: None,
            secrets: vec![Secret::example()],
        }
    }
}

#[OpenApi(prefix_path = "/webhook-endpoints", tag = "Tag::WebhookEndpoints")]
impl WebhookEndpoints {
    /// Register a webhook endpoint
    ///
    /// Events that are posted from now on are delivered to it, signed as Standard Webhooks 1.0 says. The answer shows the
    /// signing secret; nothing shows it again.
    ///
    /// Refused as `too_many` when the organization has 10 000 of them.
    #[oai(path = "/", method = "post", operation_id = "createWebhookEndpoint")]
    async fn create(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        body: Body<NewEndpoint>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let new = body.0;
        let signing = secret::choose(new.secret.as_deref(), new.signature, SignatureVersion::default())?;
        let headers = new.headers.as_ref().map(fields::headers).transpose()?.unwrap_or_default();

        let create = dry_run.run(once, &caller, organization, async |tx| {
            if endpoints::count(tx).await? >= MAX_ENDPOINTS {
                let detail =
                    format!("an organization has at most {MAX_ENDPOINTS} endpoints; remove those nobody needs");
                return Err(Error::new(Code::TooMany, detail));
            }
            let (id, now): (EndpointId, _) = (tx.ids().mint(), tx.now());
            let endpoint = rows::Endpoint {
                id,
                organization,
                url: fields::receiver(&new.url, |url| app.may_be_plain(url))?,
                description: new.description.map(fields::description).transpose()?.unwrap_or_default(),
                event_types: fields::event_types(new.event_types.as_deref().unwrap_or_default())?,
                channels: fields::channels(new.channels.unwrap_or_default())?,
                metadata: fields::metadata(&new.metadata.unwrap_or_default())?,
                headers: seal_headers(&app, organization, id, &headers)?,
                header_names: headers.into_keys().collect(),
                rate_per_second: new.rate_per_second.map(fields::rate).transpose()?,
                ordered: new.ordered.unwrap_or(false),
                thin: new.thin.unwrap_or(false),
                enabled: new.enabled.unwrap_or(true),
                disabled_reason: None,
                disabled_at: None,
                consecutive_failures: 0,
                open_until: None,
                behind_until: None,
                failing_since: None,
                created_at: now,
                updated_at: now,
            };
            endpoints::insert(tx, &endpoint).await?;
            let endpoint = Endpoint::from(endpoint);
            let etag = Etag::of(&endpoint);
            let endpoint = with_warnings(tx, endpoint).await?;
            if dry_run.is_wanted() {
                return Ok(Created::TriedOut(Json(MadeEndpoint {
                    secret: None,
                    public_key: None,
                    id,
                    endpoint,
                    dry_run: dry_run.shown(),
                })));
            }
            let row = secret::seal(&app, tx, organization, id, &signing)?;
            secrets::replace(tx, &row, chrono::Duration::zero()).await?;
            let (secret, public_key) = secret::shown(&signing);
            let told = Endpoint { warnings: None, ..endpoint.clone() };
            tx.audit().on(&id).called(&told.url).became(None, told.to_json().as_ref());
            let made = MadeEndpoint { secret, public_key, id, endpoint, dry_run: None };
            Ok(Created::Created(Json(made), format!("/webhook-endpoints/{id}"), etag))
        });
        create.await
    }

    /// List webhook endpoints
    ///
    /// Oldest first unless told otherwise, without their secrets.
    #[oai(path = "/", method = "get", operation_id = "listWebhookEndpoints")]
    async fn list(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        /// Only those that get events, or do not.
        enabled: Query<Option<bool>>,
        /// Only those that want events of this type.
        event_type: Query<Option<EventType>>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<Endpoint>, Error> {
        let organization = caller.organization();
        let event_type = event_type.0.map(|event_type| event_type.to_string());
        let (filter, window) = (endpoints::Filter { enabled: enabled.0, event_type }, paging.window(organization)?);
        let mut tx = app.db.tenant(organization).await?;
        let found = endpoints::list(&mut tx, &filter, window).await?;
        Ok(paging.page(organization, found, |endpoint| Place::id(endpoint.id), Endpoint::from))
    }

    /// Get a webhook endpoint
    ///
    /// Without its secret.
    #[oai(path = "/:endpoint", method = "get", operation_id = "getWebhookEndpoint")]
    async fn get(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The endpoint.
        endpoint: Path<EndpointId>,
    ) -> Result<Tagged<Endpoint>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        let found = endpoints::find(&mut tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
        Ok(if_none_match.answer(found.into()))
    }

    /// Change a webhook endpoint
    ///
    /// What is left out stays as it is. Deliveries under way go where it points by then.
    #[oai(path = "/:endpoint", method = "patch", operation_id = "updateWebhookEndpoint")]
    async fn update(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<EndpointChange>,
    ) -> Result<Answered<Tagged<Endpoint>>, Error> {
        let organization = caller.organization();
        let change = body.0;
        let headers = change.headers.as_ref().map(fields::headers).transpose()?;
        let headers = headers
            .map(|headers| {
                let sealed = seal_headers(&app, organization, endpoint.0, &headers)?;
                Ok::<_, Error>(sealed.map(|sealed| (sealed, headers.into_keys().collect())))
            })
            .transpose()?;
        let rate: Option<Option<i32>> = change.rate_per_second.into();
        let change = endpoints::Change {
            url: change.url.map(|url| fields::receiver(&url, |url| app.may_be_plain(url))).transpose()?,
            description: change.description.map(fields::description).transpose()?,
            event_types: change.event_types.as_deref().map(fields::event_types).transpose()?,
            channels: change.channels.map(fields::channels).transpose()?,
            metadata: change.metadata.as_ref().map(fields::metadata).transpose()?,
            headers,
            rate_per_second: rate.map(|rate| rate.map(fields::rate).transpose()).transpose()?,
            ordered: change.ordered,
            thin: change.thin,
            enabled: change.enabled,
        };
        let update = once.run(&caller, organization, async |tx| {
            let before = endpoints::lock(tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
            let (ordered, before) = (before.ordered, Endpoint::from(before));
            if_match.check(&before)?;
            endpoints::update(tx, endpoint.0, &change).await?;
            if change.enabled == Some(true) {
                notices::settle(tx, &[PlatformEvent::EndpointDisabled], &endpoint.0.to_string()).await?;
            }
            if change.enabled == Some(true) || change.url.is_some() || change.rate_per_second.is_some() {
                // What waited for it need not wait any longer.
                if !ordered {
                    backlog::hurry(tx, endpoint.0).await?;
                }
                if backlog::count(tx, endpoint.0).await? > 0 {
                    DrainBacklog::now(endpoint.0).request().enqueue(tx, caller.by()).await?;
                }
            }
            let after = endpoints::find(tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
            let after = Endpoint::from(after);
            tx.audit().called(&after.url).became(before.to_json().as_ref(), after.to_json().as_ref());
            let etag = Etag::of(&after);
            Ok(Tagged::Thing(with_warnings(tx, after).await?, etag))
        });
        update.await
    }

    /// Remove a webhook endpoint
    ///
    /// Deliveries under way find it gone and end. Its attempts are kept as long as others.
    #[oai(path = "/:endpoint", method = "delete", operation_id = "deleteWebhookEndpoint")]
    async fn delete(
        &self,
        caller: May<ManageWebhooks>,
        once: Once,
        if_match: IfMatch,
        /// The endpoint.
        endpoint: Path<EndpointId>,
    ) -> Result<Answered<Deleted>, Error> {
        let organization = caller.organization();
        let delete = once.run(&caller, organization, async |tx| {
            let before = endpoints::lock(tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
            let before = Endpoint::from(before);
            if_match.check(&before)?;
            endpoints::delete(tx, endpoint.0).await?;
            notices::settle(tx, &PlatformEvent::OF_AN_ENDPOINT, &endpoint.0.to_string()).await?;
            tx.audit().called(&before.url).became(before.to_json().as_ref(), None);
            Ok(Deleted::Deleted)
        });
        delete.await
    }

    /// List an endpoint's signing secrets
    ///
    /// Those that sign now, the current one first; never the secrets themselves.
    #[oai(path = "/:endpoint/secrets", method = "get", operation_id = "listWebhookSecrets")]
    async fn secrets(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        /// The endpoint.
        endpoint: Path<EndpointId>,
    ) -> Result<Json<Vec<Secret>>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        endpoints::find(&mut tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
        let signing = secrets::signing(&mut tx, &[endpoint.0]).await?;
        Ok(Json(secret::describe_all(&app, &signing)?))
    }

    /// Rotate an endpoint's signing secret
    ///
    /// The new secret signs from now on; the old one signs beside it for the overlap, so that the receiver can be changed
    /// in between. With an overlap of 0 every old secret stops at once.
    ///
    /// Refused as `too_many` when as many old secrets sign still as may.
    #[oai(path = "/:endpoint/secret/rotate", method = "post", operation_id = "rotateWebhookSecret")]
    async fn rotate(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        /// The endpoint.
        endpoint: Path<EndpointId>,
        body: Body<Rotation>,
    ) -> Result<Answered<Json<Rotated>>, Error> {
        let organization = caller.organization();
        let overlap = match body.0.overlap_seconds {
            None => secrets::OVERLAP,
            Some(seconds) if i64::from(seconds) <= secrets::MAX_OVERLAP.num_seconds() => {
                chrono::Duration::seconds(seconds.into())
            }
            Some(_) => return Err(Error::field("overlap_seconds", "an overlap has 0 to 604800 seconds (7 days)")),
        };
        let rotate = once.run(&caller, organization, async |tx| {
            endpoints::lock(tx, endpoint.0).await?.ok_or_else(|| Error::not_found(endpoint.0))?;
            let before = secrets::signing(tx, &[endpoint.0]).await?;
            if overlap > chrono::Duration::zero() && before.len() > secrets::MAX_OLD {
                let detail = format!(
                    "{} old secrets sign still; wait until one expires, or rotate with overlap_seconds 0",
                    secrets::MAX_OLD
                );
                return Err(Error::new(Code::TooMany, detail).at("overlap_seconds"));
            }
            let as_before = before.first().map_or(SignatureVersion::default(), secret::version);
            let signing = secret::choose(body.0.secret.as_deref(), body.0.signature, as_before)?;
            let row = secret::seal(&app, tx, organization, endpoint.0, &signing)?;
            secrets::replace(tx, &row, overlap).await?;
            let after = secrets::signing(tx, &[endpoint.0]).await?;
            let secrets = secret::describe_all(&app, &after)?;
            tx.audit().set("secret_id", row.id).set("overlap_seconds", overlap.num_seconds());
            let (secret, public_key) = secret::shown(&signing);
            Ok(Json(Rotated { secret, public_key, secrets }))
        });
        rotate.await
    }
}

/// The endpoint with what looks like a mistake in it. Its tag is of the endpoint without.
async fn with_warnings(tx: &mut TenantTx, endpoint: Endpoint) -> Result<Endpoint, Error> {
    let unheard_of = event_types::unheard_of(tx, &endpoint.event_types).await?;
    let warning = |pattern: String| {
        format!(
            "event_types: nobody has heard of {pattern}; GET /event-types lists what there is, check the spelling, or \
             describe the type if its events are yet to come"
        )
    };
    let warnings: Vec<String> = unheard_of.into_iter().map(warning).collect();
    Ok(Endpoint { warnings: (!warnings.is_empty()).then_some(warnings), ..endpoint })
}

fn seal_headers(
    app: &App,
    organization: gantry_schema::OrganizationId,
    endpoint: EndpointId,
    headers: &BTreeMap<String, String>,
) -> Result<Option<Vec<u8>>, Error> {
    if headers.is_empty() {
        return Ok(None);
    }
    let place = SealContext {
        organization: organization.uuid(),
        table: "webhook_endpoints",
        column: "headers",
        row: endpoint.uuid(),
    };
    let text = serde_json::json!(headers).to_string();
    Ok(Some(app.sealing.seal(&place, text.as_bytes())?))
}
