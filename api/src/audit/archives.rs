//! Copies of all of the record that is sealed and signed: whoever has one can do without what is in it.

use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use gantry_schema::audit::archives::{self, Archive, Extent};
use gantry_schema::audit::queries::{self, ReadError};
use gantry_schema::digest::{Sha256, constant_time_eq, hex};
use gantry_schema::organizations::needed::ManageAudit;
use gantry_schema::seal::SealingKeys;
use gantry_schema::{AuditArchiveId, Db, JobTx as _, OrganizationId};
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{IntoResponse, Request, Response};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use serde_json::{Value, json};

use super::about::About;
use super::answers::{AuditCheckpoint, AuditEntry};
use super::export::Parts;
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Moment, Name};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// Entries that are read at once.
const AT_ONCE: i64 = 500;

/// A line of JSON for each entry.
const MEDIA_TYPE: &str = "application/x-ndjson";

/// The operations on copies of everything.
#[derive(Debug, Clone, Copy)]
pub struct AuditArchives;

/// A copy of everything that somebody has.
#[derive(Debug, Object)]
#[oai(example)]
struct AuditArchive {
    /// Its id, which its last line names.
    id: AuditArchiveId,
    /// The number of the first entry in it.
    first: i64,
    /// The number of the last one.
    through: i64,
    /// SHA-256 of all of its bytes, in hexadecimal digits.
    sha256: String,
    /// When it was taken.
    made_at: Moment,
    /// When its digest was told.
    confirmed_at: Moment,
}

example!(AuditArchive, {
    "id": "aua_01h455vb4pex5vsknk084sn02q",
    "first": 1,
    "through": 1042,
    "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "made_at": "2026-01-15T12:00:00Z",
    "confirmed_at": "2026-01-15T12:01:00Z",
});

/// That somebody has a copy.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct ArchiveConfirmation {
    /// SHA-256 of all of its bytes, in hexadecimal digits: what `sha256sum` prints of the file.
    sha256: Name,
}

example!(ArchiveConfirmation, { "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328" });

#[OpenApi(prefix_path = "/audit-archives", tag = "Tag::Audit")]
impl AuditArchives {
    /// Take a copy of everything
    ///
    /// Of the caller's organization: every entry that is sealed, covered by a checkpoint and not dropped yet, a line of JSON for
    /// each, oldest first, with the text that is hashed; and a last line with the copy's id and the checkpoint, which is
    /// signed, so that the file proves itself. An answer without that line is not complete.
    /// A license has to have the feature `audit_logging`, where there is one.
    ///
    /// Refused as `wrong_state` when nothing was signed since the last time entries were dropped: the record is signed every
    /// hour.
    #[oai(path = "/", method = "post", operation_id = "takeAuditArchive")]
    async fn take(&self, caller: May<ManageAudit>, app: Data<&App>, request: &Request) -> Result<Taken, Error> {
        let organization = caller.organization();
        let about = About::find(request)?;
        let mut tx = app.db.tenant(organization).await?.by(about.author(&caller));
        let extent = archives::extent(&mut tx).await?.ok_or_else(|| {
            Error::new(Code::WrongState, "nothing was signed yet that could be copied; try again in an hour")
        })?;
        let id: AuditArchiveId = tx.ids().mint();
        *tx.audit() = about.draft();
        tx.audit().on(&id).set("first", extent.first).set("through", extent.checkpoint.sequence);
        tx.commit().await?;
        let copy = Copy {
            db: app.db.clone(),
            keys: Arc::clone(&app.sealing),
            organization,
            id,
            extent,
            digest: Sha256::default(),
        };
        Ok(Taken { id, parts: copy.parts() })
    }

    /// Confirm a copy of everything
    ///
    /// Whoever tells its digest has it: what is in it can be dropped when it is older than the organization keeps entries
    /// (`PUT /audit-policy`). Confirming it again changes nothing.
    ///
    /// Refused as `not_found` when it was never taken to its end.
    #[oai(path = "/:archive/confirm", method = "post", operation_id = "confirmAuditArchive")]
    async fn confirm(
        &self,
        caller: May<ManageAudit>,
        once: Once,
        /// The copy.
        archive: Path<AuditArchiveId>,
        body: Body<ArchiveConfirmation>,
    ) -> Result<Answered<Json<AuditArchive>>, Error> {
        let confirm = once.run(&caller, caller.organization(), async |tx| {
            let found = archives::lock(tx, archive.0).await?.ok_or_else(|| Error::not_found(archive.0))?;
            let sha256 = hex(&found.sha256);
            if !constant_time_eq(sha256.as_bytes(), body.0.sha256.to_string().as_bytes()) {
                return Err(Error::field(
                    "sha256",
                    "the file is not what was sent; compute SHA-256 of all of it, its last line included, or take it again",
                ));
            }
            if found.confirmed_at.is_none() {
                archives::confirm(tx, found.id).await?;
            }
            let confirmed_at = found.confirmed_at.unwrap_or_else(|| tx.now());
            Ok(Json(AuditArchive {
                id: found.id,
                first: found.first,
                through: found.through,
                sha256,
                made_at: found.made_at.into(),
                confirmed_at: confirmed_at.into(),
            }))
        });
        confirm.await
    }
}

/// A copy, as it is sent.
struct Taken {
    id: AuditArchiveId,
    parts: Parts,
}

impl IntoResponse for Taken {
    fn into_response(self) -> Response {
        let file = format!("attachment; filename=\"{}.ndjson\"", self.id);
        Response::builder()
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CONTENT_DISPOSITION, file)
            .body(poem::Body::from_bytes_stream(self.parts.map(|part| part.map_err(std::io::Error::other))))
    }
}

impl ApiResponse for Taken {
    fn meta() -> MetaResponses {
        let mut schema = MetaSchema::new_with_format("string", "binary");
        schema.example = Some(
            "{\"id\":\"aud_01h455vb4pex5vsknk084sn02q\",\"sequence\":1}\n\
             {\"archive\":{\"id\":\"aua_01h455vb4pex5vsknk084sn02q\",\"checkpoint\":{\"sequence\":1}}}\n"
                .into(),
        );
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The entries, oldest first, and the last line.",
                status: Some(StatusCode::OK.as_u16()),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: MEDIA_TYPE,
                    schema: MetaSchemaRef::Inline(Box::new(schema)),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

/// A copy that is being taken.
struct Copy {
    db: Db,
    keys: Arc<SealingKeys>,
    organization: OrganizationId,
    id: AuditArchiveId,
    extent: Extent,
    digest: Sha256,
}

impl Copy {
    /// Its bytes, page by page; at the end it is written down that it was taken.
    fn parts(self) -> Parts {
        let first = self.extent.first - 1;
        stream::try_unfold(Some((self, first)), async |state| {
            let Some((mut copy, after)) = state else { return Ok(None) };
            if after == copy.extent.checkpoint.sequence {
                return Ok(Some((copy.end().await?, None)));
            }
            let (page, last) = copy.page(after).await?;
            Ok(Some((page, Some((copy, last)))))
        })
        .boxed()
    }

    async fn page(&mut self, after: i64) -> Result<(Vec<u8>, i64), ReadError> {
        let through = self.extent.checkpoint.sequence;
        let mut tx = self.db.tenant(self.organization).await?;
        let page = queries::sealed_after(&mut tx, &self.keys, after, AT_ONCE.min(through - after)).await?;
        tx.rollback().await?;
        let last = page.last().and_then(|entry| entry.sequence);
        // What was there when the copy began and is gone breaks it off.
        let last = last.ok_or(ReadError::Database(sqlx::Error::RowNotFound))?;
        let mut bytes = Vec::new();
        for mut entry in page {
            let text = std::mem::take(&mut entry.text);
            let mut json = AuditEntry::from(entry).to_json().unwrap_or_default();
            json["text"] = Value::String(text);
            bytes.extend_from_slice(format!("{json}\n").as_bytes());
        }
        self.digest.update(&bytes);
        Ok((bytes, last))
    }

    async fn end(mut self) -> Result<Vec<u8>, ReadError> {
        let Extent { first, checkpoint } = self.extent;
        let through = checkpoint.sequence;
        let json = json!({ "archive": { "id": self.id, "checkpoint": AuditCheckpoint::from(checkpoint).to_json() } });
        let bytes = format!("{json}\n").into_bytes();
        self.digest.update(&bytes);
        let mut tx = self.db.tenant(self.organization).await?;
        let sha256 = self.digest.finish().to_vec();
        let made = Archive { id: self.id, first, through, sha256, made_at: tx.now(), confirmed_at: None };
        archives::insert(&mut tx, &made).await?;
        tx.commit().await?;
        Ok(bytes)
    }
}
