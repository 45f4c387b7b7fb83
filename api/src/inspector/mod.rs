//! The inspector: receiving bins that show what arrives, so that webhooks can be tried without a server of one's own.

mod page;
mod receive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::inspector::{self as rows};
use gantry_schema::inspector::{BinToken, queries};
use gantry_schema::organizations::needed::{ManageWebhooks, ReadWebhooks};
use gantry_schema::{BinId, InspectedId, JobTx as _};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{Etag, IfMatch, IfNoneMatch, Tagged};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

pub(crate) use page::page;
pub(crate) use receive::{Rates, receive};

/// Bins an organization may have: with the requests they keep, a bounded amount of everything.
const MAX_BINS: usize = 10;

/// The longest a bin waits before it answers, in milliseconds.
const MAX_DELAY: i32 = 10_000;

/// The operations on bins.
#[derive(Debug, Clone, Copy)]
pub struct Inspector;

/// A receiving bin.
#[derive(Debug, Object)]
#[oai(rename = "InspectorBin", example)]
struct Bin {
    /// Its id.
    id: BinId,
    /// What people call it.
    name: String,
    /// Where it receives: any method, any path below. Who has it may send to the bin, and see nothing.
    url: String,
    /// What it answers.
    status: i16,
    /// After how many milliseconds.
    delay_ms: i32,
    /// When it was made.
    created_at: Moment,
}

example!(Bin, {
    "id": "bin_01h455vb4pex5vsknk084sn02q",
    "name": "My first bin",
    "url": "https://api.example.com/inspect/9tJ2kQ7vXcN4mR8sLwZ1bH6dFy3gTp5u",
    "status": 200,
    "delay_ms": 0,
    "created_at": "2026-01-15T12:00:00Z",
});

impl Bin {
    fn of(app: &App, row: rows::Bin) -> Self {
        Self {
            id: row.id,
            name: row.name,
            url: format!("{}/inspect/{}", app.public_url(), row.token),
            status: row.status,
            delay_ms: row.delay_ms,
            created_at: row.created_at.into(),
        }
    }
}

/// A bin to make.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "NewInspectorBin", example)]
struct NewBin {
    /// What people call it.
    name: Name,
    /// What it answers, 200 to 599: to rehearse failures; left out: 200.
    #[oai(validator(minimum(value = "200"), maximum(value = "599")))]
    status: Option<i16>,
    /// After how many milliseconds it answers, 0 to 10 000: to rehearse slowness; left out: at once.
    #[oai(validator(minimum(value = "0"), maximum(value = "10000")))]
    delay_ms: Option<i32>,
}

example!(NewBin, { "name": "My first bin" });

/// What to change; what is left out stays as it is.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
#[oai(rename = "InspectorBinChange", example)]
struct BinChange {
    /// What people call it.
    name: Option<Name>,
    /// What it answers, 200 to 599.
    #[oai(validator(minimum(value = "200"), maximum(value = "599")))]
    status: Option<i16>,
    /// After how many milliseconds it answers, 0 to 10 000.
    #[oai(validator(minimum(value = "0"), maximum(value = "10000")))]
    delay_ms: Option<i32>,
}

example!(BinChange, { "status": 503, "delay_ms": 1500 });

/// The bins of the organization.
#[derive(Debug, Object)]
#[oai(rename = "InspectorBins")]
struct Bins {
    /// Oldest first; at most ten.
    items: Vec<Bin>,
}

/// A header as it came.
#[derive(Debug, Object)]
#[oai(rename = "InspectedHeader")]
struct Header {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// A request that a bin received.
#[derive(Debug, Object)]
#[oai(rename = "InspectedRequest", example)]
struct Inspected {
    /// Its id.
    id: InspectedId,
    /// `POST`, mostly.
    method: String,
    /// What came after the bin's URL.
    path: String,
    /// What came after the question mark.
    #[oai(skip_serializing_if_is_none)]
    query: Option<String>,
    /// The headers, in their order.
    headers: Vec<Header>,
    /// The body, where it is text.
    #[oai(skip_serializing_if_is_none)]
    body: Option<String>,
    /// The body in base64, where it is not.
    #[oai(skip_serializing_if_is_none)]
    body_base64: Option<String>,
    /// The body was longer than the 256 KB that are kept.
    truncated: bool,
    /// When.
    received_at: Moment,
}

example!(Inspected, {
    "id": "ins_01h455vb4pex5vsknk084sn02q",
    "method": "POST",
    "path": "/orders",
    "headers": [
        { "name": "content-type", "value": "application/json" },
        { "name": "webhook-id", "value": "evt_01h455vb4pex5vsknk084sn02q" },
    ],
    "body": "{\"type\":\"invoice.paid\",\"timestamp\":\"2026-01-15T12:00:00Z\",\"data\":{\"invoice\":\"2026-0001\"}}",
    "truncated": false,
    "received_at": "2026-01-15T12:00:01Z",
});

impl From<rows::Inspected> for Inspected {
    fn from(row: rows::Inspected) -> Self {
        let headers: Vec<(String, String)> = serde_json::from_value(row.headers).unwrap_or_default();
        let (body, body_base64) = match String::from_utf8(row.body) {
            Ok(text) => (Some(text), None),
            Err(other) => (None, Some(STANDARD.encode(other.as_bytes()))),
        };
        Self {
            id: row.id,
            method: row.method,
            path: row.path,
            query: row.query,
            headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            body,
            body_base64,
            truncated: row.truncated,
            received_at: row.received_at.into(),
        }
    }
}

/// A bin was made.
#[derive(ApiResponse)]
enum Created {
    /// It receives from now on.
    #[oai(status = 201)]
    Created(
        Json<Bin>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
        /// The tag of what it looks like: for `If-Match`, and for `If-None-Match`.
        #[oai(header = "ETag")]
        Etag,
    ),
}

/// Something was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// It is gone.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/inspector/bins", tag = "Tag::Inspector")]
impl Inspector {
    /// Make a bin
    ///
    /// Its URL takes any request and keeps the newest hundred; all bins together keep the newest 16 MB. Register it as a webhook endpoint, post an event, and see
    /// what arrives: here, or on the page `/inspector`.
    ///
    /// Refused as `too_many` when the organization has ten.
    #[oai(path = "/", method = "post", operation_id = "createInspectorBin")]
    async fn create(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        body: Body<NewBin>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let (status, delay_ms) = (checked_status(body.0.status)?, checked_delay(body.0.delay_ms)?);
        let create = once.run(&caller, organization, async |tx| {
            if queries::list(tx).await?.len() >= MAX_BINS {
                let detail = format!("an organization has at most {MAX_BINS} bins; remove one nobody needs");
                return Err(Error::new(Code::TooMany, detail));
            }
            let bin = rows::Bin {
                id: tx.ids().mint(),
                organization,
                name: body.0.name.as_str().to_owned(),
                token: BinToken::generate(&mut rand::rng()).to_string(),
                status: status.unwrap_or(200),
                delay_ms: delay_ms.unwrap_or(0),
                created_at: tx.now(),
            };
            queries::insert(tx, &bin).await?;
            let (location, bin) = (format!("/inspector/bins/{}", bin.id), Bin::of(&app, bin));
            tx.audit().on(&bin.id).called(&bin.name).became(None, bin.to_json().as_ref());
            let etag = Etag::of(&bin);
            Ok(Created::Created(Json(bin), location, etag))
        });
        create.await
    }

    /// List bins
    ///
    /// Oldest first.
    #[oai(path = "/", method = "get", operation_id = "listInspectorBins")]
    async fn list(&self, caller: May<ReadWebhooks>, app: Data<&App>) -> Result<Json<Bins>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::list(&mut tx).await?;
        Ok(Json(Bins { items: found.into_iter().map(|bin| Bin::of(&app, bin)).collect() }))
    }

    /// Get a bin
    ///
    /// With its URL.
    #[oai(path = "/:bin", method = "get", operation_id = "getInspectorBin")]
    async fn get(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The bin.
        bin: Path<BinId>,
    ) -> Result<Tagged<Bin>, Error> {
        let organization = caller.organization();
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::find(&mut tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
        Ok(if_none_match.answer(Bin::of(&app, found)))
    }

    /// Change a bin
    ///
    /// What it is called, and how it answers.
    #[oai(path = "/:bin", method = "patch", operation_id = "updateInspectorBin")]
    async fn update(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The bin.
        bin: Path<BinId>,
        body: Body<BinChange>,
    ) -> Result<Answered<Tagged<Bin>>, Error> {
        let organization = caller.organization();
        let (status, delay_ms) = (checked_status(body.0.status)?, checked_delay(body.0.delay_ms)?);
        let update = once.run(&caller, organization, async |tx| {
            let name = body.0.name.as_ref().map(Name::as_str);
            let before = queries::lock(tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
            let before = Bin::of(&app, before);
            if_match.check(&before)?;
            queries::update(tx, bin.0, name, status, delay_ms).await?;
            let found = queries::find(tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
            let after = Bin::of(&app, found);
            tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Tagged::of(after))
        });
        update.await
    }

    /// Remove a bin
    ///
    /// With everything it received. Its URL answers 404 from then on.
    #[oai(path = "/:bin", method = "delete", operation_id = "deleteInspectorBin")]
    async fn delete(
        &self,
        caller: May<ManageWebhooks>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The bin.
        bin: Path<BinId>,
    ) -> Result<Answered<Deleted>, Error> {
        let organization = caller.organization();
        let delete = once.run(&caller, organization, async |tx| {
            let before = queries::lock(tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
            if_match.check(&Bin::of(&app, before))?;
            queries::delete(tx, bin.0).await?;
            Ok(Deleted::Deleted)
        });
        delete.await
    }

    /// List what a bin received
    ///
    /// Newest first: the last hundred requests, fewer where they are large.
    #[oai(path = "/:bin/requests", method = "get", operation_id = "listInspectedRequests")]
    async fn requests(
        &self,
        caller: May<ReadWebhooks>,
        app: Data<&App>,
        /// The bin.
        bin: Path<BinId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Inspected>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        queries::find(&mut tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
        let found = queries::requests(&mut tx, bin.0, window).await?;
        Ok(paging.page(organization, found, |request| Place::id(request.id), Inspected::from))
    }

    /// Empty a bin
    ///
    /// Forgets everything it received.
    #[oai(path = "/:bin/requests", method = "delete", operation_id = "clearInspectorBin")]
    async fn clear(
        &self,
        caller: May<ManageWebhooks>,
        once: Once,
        /// The bin.
        bin: Path<BinId>,
    ) -> Result<Answered<Deleted>, Error> {
        let organization = caller.organization();
        let clear = once.run(&caller, organization, async |tx| {
            queries::find(tx, bin.0).await?.ok_or_else(|| Error::not_found(bin.0))?;
            queries::clear(tx, bin.0).await?;
            Ok(Deleted::Deleted)
        });
        clear.await
    }
}

fn checked_status(status: Option<i16>) -> Result<Option<i16>, Error> {
    match status {
        Some(status) if !(200..=599).contains(&status) => {
            Err(Error::field("status", "a bin answers with a status of 200 to 599"))
        }
        status => Ok(status),
    }
}

fn checked_delay(delay_ms: Option<i32>) -> Result<Option<i32>, Error> {
    match delay_ms {
        Some(delay) if !(0..=MAX_DELAY).contains(&delay) => {
            Err(Error::field("delay_ms", "a bin answers after 0 to 10000 milliseconds"))
        }
        delay => Ok(delay),
    }
}
