//! The catalogue of event types: what can happen, what its payload looks like, and an example of each.

use gantry_schema::audit::Target;
use gantry_schema::organizations::needed::{ManageWebhooks, ReadEvents};
use gantry_schema::webhooks::event_types as rows;
use gantry_schema::{TenantTx, turn};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::{Any, ToJSON};
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, IfNoneMatch, Put, Tagged};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{AnyJson, EventType as Name};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::tag::Tag;

/// Types an organization may describe, each version counted.
const MAX_TYPES: i64 = 1_000;

/// Bytes of a schema or an example.
const MAX_BYTES: usize = 64 * 1024;

/// The operations on the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct EventTypes;

/// A type of events.
#[derive(Debug, Object)]
#[oai(example)]
struct EventType {
    /// What events of it are called: `invoice.paid`.
    name: String,
    /// Of its schema.
    version: i32,
    /// Who tells events of it.
    source: Source,
    /// When it happens.
    description: String,
    /// What its payload looks like: JSON Schema, draft 2020-12.
    schema: Any<Value>,
    /// A payload as it could be.
    example: Any<Value>,
    /// It will go away.
    deprecated: bool,
}

example!(EventType, {
    "name": "invoice.paid",
    "version": 1,
    "source": "organization",
    "description": "An invoice was paid in full.",
    "schema": { "type": "object", "required": ["invoice"], "properties": { "invoice": { "type": "string" } } },
    "example": { "invoice": "2026-0001" },
    "deprecated": false,
});

/// Who tells events of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "EventTypeSource", rename_all = "snake_case")]
enum Source {
    /// The platform does by itself.
    Platform,
    /// The organization's own programs do.
    Organization,
}

/// A description of a type.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct EventTypeDescription {
    /// When it happens, at most 1 000 characters.
    #[oai(validator(max_length = 1000))]
    description: String,
    /// What its payload looks like: JSON Schema, at most 64 KB.
    schema: AnyJson,
    /// A payload as it could be, at most 64 KB; it is what a test sends.
    example: AnyJson,
    /// It will go away; left out: it will not.
    deprecated: Option<bool>,
}

example!(EventTypeDescription, {
    "description": "An invoice was paid in full.",
    "schema": { "type": "object", "required": ["invoice"], "properties": { "invoice": { "type": "string" } } },
    "example": { "invoice": "2026-0001" },
});

/// A description was removed.
#[derive(ApiResponse)]
enum Deleted {
    /// The catalogue has it no more. Events of the type are told all the same.
    #[oai(status = 204)]
    Deleted,
}

#[OpenApi(prefix_path = "/event-types", tag = "Tag::Events")]
impl EventTypes {
    /// List event types
    ///
    /// The platform's, and those the organization describes for its own events, by name and version.
    #[oai(path = "/", method = "get", operation_id = "listEventTypes")]
    async fn list(
        &self,
        caller: May<ReadEvents>,
        app: Data<&App>,
        /// Only the platform's, or the organization's own.
        source: Query<Option<Source>>,
        paging: Paging,
    ) -> Result<Paged<EventType>, Error> {
        let organization = caller.organization();
        let after = paging.after(organization)?;
        let after = after.as_ref().map(Place::to_version).transpose()?;
        let wanted = |its: Source| source.0.is_none_or(|source| source == its);
        let mut found = Vec::new();
        if wanted(Source::Platform) {
            let follows = |described: &rows::EventType| after.is_none_or(|after| place(described) > after);
            let platform = rows::platform().into_iter().filter(follows);
            found.extend(platform.map(|described| (described, Source::Platform)));
        }
        if wanted(Source::Organization) {
            let mut tx = app.db.tenant(organization).await?;
            let own = rows::list(&mut tx, after, paging.and_one()).await?;
            found.extend(own.into_iter().map(|described| (described, Source::Organization)));
        }
        found.sort_by(|(one, _), (other, _)| place(one).cmp(&place(other)));
        let place = |(described, _): &(rows::EventType, Source)| Place::version(&described.name, described.version);
        Ok(paging.page(organization, found, place, |(described, source)| answer(described, source)))
    }

    /// Get an event type
    ///
    /// Its newest version unless one is named.
    ///
    /// Refused as `not_found` when nobody has described it.
    #[oai(path = "/:name", method = "get", operation_id = "getEventType")]
    async fn get(
        &self,
        caller: May<ReadEvents>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// What it is called.
        name: Path<Name>,
        /// Which version.
        version: Query<Option<i32>>,
    ) -> Result<Tagged<EventType>, Error> {
        let organization = caller.organization();
        let platform = rows::platform()
            .into_iter()
            .find(|described| described.name == name.0.as_str() && version.0.is_none_or(|it| it == described.version));
        if let Some(described) = platform {
            return Ok(if_none_match.answer(answer(described, Source::Platform)));
        }
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::find(&mut tx, name.0.as_str(), version.0).await?;
        let found = found.ok_or_else(|| Error::not_found(&name.0))?;
        Ok(if_none_match.answer(answer(found, Source::Organization)))
    }

    /// Describe a version of an event type
    ///
    /// Of the organization's own; describing it again replaces what was there. A payload that old readers cannot read is
    /// a new version.
    ///
    /// Refused as `name_taken` when it is one of the platform's, as `too_many` when the organization describes 1 000, and as
    /// `precondition_required` when it is described, and there is no `If-Match`.
    #[oai(path = "/:name/versions/:version", method = "put", operation_id = "putEventType")]
    async fn put(
        &self,
        caller: May<ManageWebhooks>,
        once: Once,
        if_match: IfMatch,
        /// What it is called.
        name: Path<Name>,
        /// Which version, 1 to 1 000.
        #[oai(example = "first_version")]
        version: Path<i32>,
        body: Body<EventTypeDescription>,
    ) -> Result<Answered<Put<EventType>>, Error> {
        let organization = caller.organization();
        if !(1..=1_000).contains(&version.0) {
            return Err(Error::parameter("version", "versions are 1 to 1 000; begin with 1"));
        }
        if rows::platform().iter().any(|described| described.name == name.0.as_str()) {
            let detail = format!("{} is a type of the platform's; choose another name", name.0);
            return Err(Error::new(Code::NameTaken, detail).at("name"));
        }
        let described = rows::EventType {
            name: name.0.to_string(),
            version: version.0,
            description: crate::webhooks::fields::description(body.0.description)?,
            schema: bounded("schema", &body.0.schema)?,
            example: bounded("example", &body.0.example)?,
            deprecated: body.0.deprecated.unwrap_or(false),
        };
        if !described.schema.is_object() && !described.schema.is_boolean() {
            return Err(Error::field("schema", "a JSON Schema is an object; write at least {}"));
        }
        let put = once.run(&caller, organization, async |tx| {
            let before = held(tx, &described.name, described.version).await?;
            if before.is_none() && rows::count(tx).await? >= MAX_TYPES {
                let detail = format!("an organization describes at most {MAX_TYPES} types; remove those nobody needs");
                return Err(Error::new(Code::TooMany, detail));
            }
            rows::put(tx, &described).await?;
            let after = answer(described, Source::Organization);
            let changed = (before.as_ref().and_then(ToJSON::to_json), after.to_json());
            let target = version_of(&after.name, after.version);
            tx.audit().target(target).became(changed.0.as_ref(), changed.1.as_ref());
            if_match.put(before.as_ref(), after)
        });
        put.await
    }

    /// Remove a version of an event type
    ///
    /// From the catalogue; events of the type are told all the same.
    ///
    /// Refused as `not_found` when it is not there.
    #[oai(path = "/:name/versions/:version", method = "delete", operation_id = "deleteEventType")]
    async fn delete(
        &self,
        caller: May<ManageWebhooks>,
        once: Once,
        if_match: IfMatch,
        /// What it is called.
        name: Path<Name>,
        /// Which version.
        #[oai(example = "first_version")]
        version: Path<i32>,
    ) -> Result<Answered<Deleted>, Error> {
        let organization = caller.organization();
        let delete = once.run(&caller, organization, async |tx| {
            tx.audit().target(version_of(name.0.as_str(), version.0));
            let none = || Error::not_found(format!("{} of version {}", name.0, version.0));
            if_match.check(&held(tx, name.0.as_str(), version.0).await?.ok_or_else(none)?)?;
            rows::delete(tx, name.0.as_str(), version.0).await?;
            Ok(Deleted::Deleted)
        });
        delete.await
    }
}

fn first_version() -> i32 {
    1
}

/// The organization's own description there is, or is not, until the transaction ends.
async fn held(tx: &mut TenantTx, name: &str, version: i32) -> Result<Option<EventType>, Error> {
    turn::take(tx, &format!("event type {name} {version}")).await?;
    Ok(rows::find(tx, name, Some(version)).await?.map(|found| answer(found, Source::Organization)))
}

/// Where it stands in the catalogue.
fn place(described: &rows::EventType) -> (&str, i32) {
    (&described.name, described.version)
}

/// The version of a type, as the record names it.
fn version_of(name: &str, version: i32) -> Target {
    Target::named("event_type", format_args!("{name} v{version}"))
}

fn bounded(field: &str, json: &AnyJson) -> Result<Value, Error> {
    if json.0.get().len() > MAX_BYTES {
        let detail = format!("it has {} bytes, and at most {MAX_BYTES} are kept; shorten it", json.0.get().len());
        return Err(Error::field(field, detail));
    }
    json.value().map_err(|wrong| Error::field(field, wrong.0))
}

fn answer(described: rows::EventType, source: Source) -> EventType {
    EventType {
        name: described.name,
        version: described.version,
        source,
        description: described.description,
        schema: Any(described.schema),
        example: Any(described.example),
        deprecated: described.deprecated,
    }
}
