//! What people must know: the platform writes it beside the event that tells programs the same.

use gantry_schema::notices::{self as rows};
use gantry_schema::organizations::needed::{ManageNotices, ReadNotices};
use gantry_schema::{NoticeId, notices};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Any;
use poem_openapi::{Object, OpenApi};
use serde_json::Value;

use crate::app::App;
use crate::caller::May;
use crate::error::Error;
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on notices.
#[derive(Debug, Clone, Copy)]
pub struct Notices;

/// Something people must know.
#[derive(Debug, Object)]
#[oai(example)]
struct Notice {
    /// Its id.
    id: NoticeId,
    /// The type of the event that tells programs the same; `GET /event-types` describes it.
    kind: String,
    /// Whom it concerns: the id of an endpoint.
    subject: String,
    /// What is so, and what to do about it.
    message: String,
    /// The payload of the event; of the last one, where it happened again.
    facts: Any<Value>,
    /// When it was first so.
    created_at: Moment,
    /// When nobody needed to know it any more; absent: somebody does.
    #[oai(skip_serializing_if_is_none)]
    dismissed_at: Option<Moment>,
    /// Who dismissed it; absent though dismissed: it was no longer so.
    #[oai(skip_serializing_if_is_none)]
    dismissed_by: Option<String>,
}

example!(Notice, {
    "id": "ntc_01h455vb4pex5vsknk084sn02q",
    "kind": "webhook.endpoint_disabled",
    "subject": "ep_01h455vb4pex5vsknk084sn02q",
    "message": "The webhook endpoint https://example.com/hooks was disabled: it answered 410, which says that it is gone. \
                Enable it when it works again; what it missed can be recovered.",
    "facts": {
        "endpoint_id": "ep_01h455vb4pex5vsknk084sn02q",
        "url": "https://example.com/hooks",
        "reason": "gone",
        "failing_since": "2026-01-15T12:00:00Z",
    },
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Notice> for Notice {
    fn from(row: rows::Notice) -> Self {
        Self {
            id: row.id,
            message: row.message(),
            kind: row.kind,
            subject: row.subject,
            facts: Any(row.facts),
            created_at: row.created_at.into(),
            dismissed_at: row.dismissed_at.map(Into::into),
            dismissed_by: row.dismissed_by,
        }
    }
}

#[OpenApi(prefix_path = "/notices", tag = "Tag::Notices")]
impl Notices {
    /// List notices
    ///
    /// Newest first unless told otherwise. They are forgotten after 30 days.
    #[oai(path = "/", method = "get", operation_id = "listNotices")]
    async fn list(
        &self,
        caller: May<ReadNotices>,
        app: Data<&App>,
        /// Only those that are dismissed, or are not.
        dismissed: Query<Option<bool>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<Notice>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = notices::list(&mut tx, dismissed.0, window).await?;
        Ok(paging.page(organization, found, |notice| Place::id(notice.id), Notice::from))
    }

    /// Dismiss a notice
    ///
    /// Somebody knows it now. What is dismissed already stays as it is; what happens again is a new notice.
    #[oai(path = "/:notice/dismiss", method = "post", operation_id = "dismissNotice")]
    async fn dismiss(
        &self,
        caller: May<ManageNotices>,
        once: Once,
        /// The notice.
        notice: Path<NoticeId>,
    ) -> Result<Answered<Json<Notice>>, Error> {
        let organization = caller.organization();
        let by = caller.by().to_string();
        let dismiss = once.run(&caller, organization, async |tx| {
            let found = notices::dismiss(tx, notice.0, &by).await?.ok_or_else(|| Error::not_found(notice.0))?;
            Ok(Json(found.into()))
        });
        dismiss.await
    }
}
