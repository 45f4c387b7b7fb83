//! Copies of the record, as streams of any length: a page at a time is read, written, and forgotten.

use std::io;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt as _};
use gantry_schema::audit::Draft;
use gantry_schema::audit::queries::{self, Entry, Filter, ReadError};
use gantry_schema::seal::SealingKeys;
use gantry_schema::{Db, Order, OrganizationId, Window};
use poem::http::{StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Enum, Object};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{AuditEntry, AuditOutcome};
use crate::example::example;
use crate::field::{Moment, Name, Word};

/// Entries that are read at once.
const AT_ONCE: i64 = 500;

/// How a copy is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename = "AuditExportFormat", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A table for spreadsheets (RFC 4180).
    Csv,
    /// A line of JSON for each entry.
    Ndjson,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// The beginning of a copy, for the document.
    const fn example(self) -> &'static str {
        match self {
            Self::Csv => {
                "id,sequence,occurred_at\r\naud_01h455vb4pex5vsknk084sn02q,1042,2026-01-15T12:00:00.123456Z\r\n"
            }
            Self::Ndjson => "{\"id\":\"aud_01h455vb4pex5vsknk084sn02q\",\"sequence\":1042,\"outcome\":\"allowed\"}\n",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Which entries to copy; what is left out does not matter.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub(super) struct NewAuditExport {
    /// How it is written.
    format: Format,
    /// Whose record: the caller's organization, or one below it; left out: the caller's.
    pub(super) organization_id: Option<OrganizationId>,
    /// Only what this actor did: the id.
    actor: Option<Name>,
    /// Only what was done to this: an id, or `kind:name`.
    target: Option<Name>,
    /// Only this: `api_key.revoke`.
    action: Option<Word>,
    /// Only what came to this.
    outcome: Option<AuditOutcome>,
    /// From this moment on.
    since: Option<Moment>,
    /// Before this moment; left out: now.
    until: Option<Moment>,
}

example!(NewAuditExport, { "format": "csv", "since": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z" });

impl NewAuditExport {
    /// What is asked for. What is recorded from now on is not.
    pub(super) fn asks(self, now: DateTime<Utc>) -> (Format, Filter) {
        let filter = Filter {
            actor: self.actor.map(|actor| actor.to_string()),
            target: self.target.map(|target| target.to_string()),
            action: self.action.map(Into::into),
            outcome: self.outcome.map(Into::into),
            from: self.since.map(|moment| moment.0),
            to: Some(self.until.map_or(now, |moment| moment.0)),
        };
        (self.format, filter)
    }
}

/// Says in the record which copy was taken.
pub fn describe(draft: &mut Draft, format: Format, filter: &Filter) {
    draft.set("format", format.word()).set("until", filter.to);
    for (field, value) in [
        ("actor", filter.actor.as_deref()),
        ("target", filter.target.as_deref()),
        ("action", filter.action.as_deref()),
        ("outcome", filter.outcome.map(gantry_schema::audit::Outcome::as_str)),
    ] {
        if let Some(value) = value {
            draft.set(field, value);
        }
    }
    if let Some(from) = filter.from {
        draft.set("since", from);
    }
}

/// A stream of a copy's parts.
pub type Parts = BoxStream<'static, Result<Vec<u8>, ReadError>>;

/// The entries of an organization that the filter selects, oldest first, as they are written.
#[must_use]
pub fn entries(db: Db, keys: Arc<SealingKeys>, organization: OrganizationId, filter: Filter, format: Format) -> Parts {
    let heading = match format {
        Format::Csv => row(COLUMNS.map(str::to_owned)),
        Format::Ndjson => Vec::new(),
    };
    let pages = stream::try_unfold(Some(Window::new(Order::Ascending, AT_ONCE)), move |window| {
        let (db, keys, filter) = (db.clone(), Arc::clone(&keys), filter.clone());
        async move {
            let Some(window) = window else { return Ok(None) };
            let mut tx = db.tenant(organization).await?;
            let page = queries::list(&mut tx, &keys, &filter, window).await?;
            tx.rollback().await?;
            let next =
                page.last().filter(|_| i64::try_from(page.len()) == Ok(AT_ONCE)).map(|last| window.after(last.id));
            let written: Vec<u8> = page.into_iter().flat_map(|entry| line(entry, format)).collect();
            Ok::<_, ReadError>(Some((written, next)))
        }
    });
    let parts = stream::once(async move { Ok(heading) }).chain(pages);
    // What is empty would end an answer.
    parts.filter(|part| std::future::ready(!part.as_ref().is_ok_and(Vec::is_empty))).boxed()
}

/// What a table has of each entry.
const COLUMNS: [&str; 24] = [
    "id",
    "sequence",
    "occurred_at",
    "organization_id",
    "actor_kind",
    "actor_id",
    "actor_display",
    "actor_organization_id",
    "on_behalf_of",
    "address",
    "user_agent",
    "authority",
    "permission",
    "action",
    "target_kind",
    "target_id",
    "target_display",
    "outcome",
    "reason",
    "request_id",
    "job_id",
    "trace_id",
    "changes",
    "hash",
];

fn line(mut entry: Entry, format: Format) -> Vec<u8> {
    let text = std::mem::take(&mut entry.text);
    let changes = json!(entry.record.changes).to_string();
    let entry = AuditEntry::from(entry);
    match format {
        Format::Ndjson => {
            let mut json = entry.to_json().unwrap_or_default();
            json["text"] = Value::String(text);
            format!("{json}\n").into_bytes()
        }
        Format::Csv => {
            let id = |id: Option<String>| id.unwrap_or_default();
            let (target_kind, target_id, target_display) =
                entry.target.map_or_else(Default::default, |target| (target.kind, target.id, target.display));
            row([
                entry.id.to_string(),
                id(entry.sequence.map(|sequence| sequence.to_string())),
                entry.occurred_at.to_string(),
                entry.organization_id.to_string(),
                entry.actor.kind,
                entry.actor.id,
                id(entry.actor.display),
                id(entry.actor.organization_id.map(|organization| organization.to_string())),
                id(entry.actor.on_behalf_of),
                id(entry.actor.address),
                id(entry.actor.user_agent),
                id(entry.authority),
                id(entry.permission),
                entry.action,
                target_kind,
                target_id,
                id(target_display),
                gantry_schema::audit::Outcome::from(entry.outcome).as_str().to_owned(),
                id(entry.reason),
                id(entry.request_id),
                id(entry.job_id.map(|job| job.to_string())),
                id(entry.trace_id),
                if changes == "[]" { String::new() } else { changes },
                id(entry.hash),
            ])
        }
    }
}

/// A row of a table. What a spreadsheet would calculate is text.
fn row(fields: [String; COLUMNS.len()]) -> Vec<u8> {
    let mut row = fields.map(|field| cell(&field)).join(",");
    row.push_str("\r\n");
    row.into_bytes()
}

fn cell(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let escaped = field.replace('"', "\"\"");
    if is_formula {
        format!("\"'{escaped}\"")
    } else if field.contains([',', '"', '\r', '\n', ';', '\t']) {
        format!("\"{escaped}\"")
    } else {
        escaped
    }
}

/// A copy that is being taken.
pub(super) struct Exported {
    format: Format,
    body: poem::Body,
}

impl Exported {
    pub(super) fn of(format: Format, entries: Parts) -> Self {
        Self { format, body: poem::Body::from_bytes_stream(entries.map(|part| part.map_err(io::Error::other))) }
    }
}

impl IntoResponse for Exported {
    fn into_response(self) -> Response {
        let file = format!("attachment; filename=\"audit.{}\"", self.format.word());
        Response::builder()
            .header(header::CONTENT_TYPE, self.format.media_type())
            .header(header::CONTENT_DISPOSITION, file)
            .body(self.body)
    }
}

impl ApiResponse for Exported {
    fn meta() -> MetaResponses {
        let media_type = |format: Format| {
            let mut schema = MetaSchema::new_with_format("string", "binary");
            schema.example = Some(format.example().into());
            MetaMediaType { content_type: format.media_type(), schema: MetaSchemaRef::Inline(Box::new(schema)) }
        };
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The entries, oldest first.",
                status: Some(StatusCode::OK.as_u16()),
                status_range: None,
                content: vec![media_type(Format::Csv), media_type(Format::Ndjson)],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_calculates_nothing_of_what_others_wrote() {
        let cases = [
            ("plain", "plain"),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("-2+3,\"x\"", "\"'-2+3,\"\"x\"\"\""),
            ("\t=1", "\"'\t=1\""),
            ("a,b", "\"a,b\""),
            ("two\nlines", "\"two\nlines\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("", ""),
        ];
        for (field, expected) in cases {
            assert_eq!(cell(field), expected);
        }
    }
}
