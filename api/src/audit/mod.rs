//! The record of the caller's organization, and of those below it.

pub(crate) mod about;
mod answers;
mod archives;
pub mod export;
pub mod kept;
mod policy;
pub(crate) mod refusals;

use std::sync::Arc;

use gantry_schema::audit::queries::{self, Filter, ReadError};
use gantry_schema::audit::{checkpoints, proofs};
use gantry_schema::organizations::needed::ReadAudit;
use gantry_schema::{AuditEntryId, OrganizationId};
use poem::Request;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::during::During;
use crate::error::{Code, Error};
use crate::field::{Name, Word};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::{Fixed, Newest};
use crate::tag::Tag;
use about::About;
use answers::{AuditCheckpoint, AuditEntry, AuditOutcome, ProvenAuditEntry};
use export::{Exported, NewAuditExport};

pub use archives::AuditArchives;
pub use policy::AuditPolicies;
pub use refusals::flush_every_minute;

/// The operations on the record.
#[derive(Debug, Clone, Copy)]
pub struct Audit;

#[OpenApi(tag = "Tag::Audit")]
impl Audit {
    /// Search the record
    ///
    /// Newest first unless told otherwise: what was done and what was refused, by whom, from where, to what. A job that was
    /// asked for together with others is found by its id as `target`.
    ///
    /// Refused as `not_found` when there is no such organization here.
    #[oai(path = "/audit-entries", method = "get", operation_id = "listAuditEntries")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn list(
        &self,
        caller: May<ReadAudit>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// Only what this actor did: the id.
        actor: Query<Option<Name>>,
        /// Only what was done to this: an id, or `kind:name`.
        target: Query<Option<Name>>,
        /// Only this: `api_key.revoke`.
        action: Query<Option<Word>>,
        /// Only what came to this.
        outcome: Query<Option<AuditOutcome>>,
        during: During,
        paging: Paging<Newest>,
    ) -> Result<Paged<AuditEntry>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let filter = Filter {
            actor: actor.0.map(|actor| actor.to_string()),
            target: target.0.map(|target| target.to_string()),
            action: action.0.map(Into::into),
            outcome: outcome.0.map(Into::into),
            from: during.since,
            to: during.until,
        };
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let entries = queries::list(&mut tx, &app.sealing, &filter, window).await.map_err(unreadable)?;
        Ok(paging.page(organization, entries, |entry| Place::id(entry.id), AuditEntry::from))
    }

    /// Get an entry of the record
    ///
    /// With the text that is hashed, and the proof that it is in what the platform signed, as soon as it has: the path of
    /// RFC 6962, 2.1.1 from `hash` to the checkpoint's root.
    #[oai(path = "/audit-entries/:entry", method = "get", operation_id = "getAuditEntry")]
    async fn get(
        &self,
        caller: May<ReadAudit>,
        app: Data<&App>,
        /// The entry.
        entry: Path<AuditEntryId>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
    ) -> Result<Json<ProvenAuditEntry>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let mut tx = app.db.tenant(organization).await?;
        let found = queries::find(&mut tx, &app.sealing, entry.0).await.map_err(unreadable)?;
        let found = found.ok_or_else(|| Error::not_found(entry.0))?;
        let proof = match found.sequence {
            Some(sequence) => proofs::of_entry(&mut tx, sequence).await?,
            None => None,
        };
        Ok(Json(ProvenAuditEntry::of(found, proof)))
    }

    /// Take a copy of the record
    ///
    /// All entries that are asked for, oldest first, as a stream of any length: CSV for spreadsheets, or a line of JSON for
    /// each, with the text that is hashed. In CSV, what a spreadsheet would take for a formula begins with an apostrophe.
    /// That a copy was taken is in the record itself. An answer that breaks off is not complete.
    /// A license has to have the feature `audit_logging`, where there is one.
    ///
    /// Refused as `not_found` when there is no such organization here.
    #[oai(path = "/audit-entries/export", method = "post", operation_id = "exportAuditEntries")]
    async fn export(
        &self,
        caller: May<ReadAudit>,
        app: Data<&App>,
        request: &Request,
        body: Body<NewAuditExport>,
    ) -> Result<Exported, Error> {
        let organization = caller
            .may_for(&app.db, body.0.organization_id)
            .await
            .map_err(|error| if error.code() == Code::NotFound { error.at("organization_id") } else { error })?;
        let (format, filter) = body.0.asks(app.db.now());
        let about = About::find(request)?;
        let mut tx = app.db.tenant(organization).await?.by(about.author(&caller));
        *tx.audit() = about.draft();
        export::describe(tx.audit(), format, &filter);
        tx.commit().await?;
        let entries = export::entries(app.db.clone(), Arc::clone(&app.sealing), organization, filter, format);
        Ok(Exported::of(format, entries))
    }

    /// List checkpoints
    ///
    /// What the platform signed of the record, the newest first: where it ended, and the root of everything before. Whoever
    /// keeps one can hold the platform to it.
    ///
    /// Refused as `not_found` when there is no such organization here.
    #[oai(path = "/audit-checkpoints", method = "get", operation_id = "listAuditCheckpoints")]
    async fn checkpoints(
        &self,
        caller: May<ReadAudit>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        paging: Paging<Fixed>,
    ) -> Result<Paged<AuditCheckpoint>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let before = paging.after(organization)?.map(|place| place.to_number()).transpose()?;
        let mut tx = app.db.tenant(organization).await?;
        let found = checkpoints::list(&mut tx, before, paging.and_one()).await?;
        let place = |checkpoint: &checkpoints::Checkpoint| Place::number(checkpoint.sequence);
        Ok(paging.page(organization, found, place, AuditCheckpoint::from))
    }
}

/// The record is there and says nothing: that is for whoever runs the platform.
fn unreadable(trouble: ReadError) -> Error {
    match trouble {
        ReadError::Database(trouble) => trouble.into(),
        other => Error::internal(other),
    }
}
