//! A copy of what was called, as a stream: a page at a time is read, written, and forgotten.

use std::io;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::stream::{self, StreamExt as _};
use gantry_schema::usage::{self, Of, Row, latency};
use gantry_schema::{Db, OrganizationId};
use poem::http::{StatusCode, header};
use poem::{Body, IntoResponse, Response};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiResponse, Enum};
use serde_json::json;

/// Rows that are read at once.
const AT_ONCE: i64 = 500;

/// How a copy is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "ApiUsageExportFormat", rename_all = "snake_case")]
pub(super) enum Format {
    /// A table for spreadsheets (RFC 4180).
    Csv,
    /// A line of JSON for each row.
    Ndjson,
}

impl Format {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Csv => {
                "starts_at,credential,operation,calls\r\n2026-01-15T12:00:00Z,key_01h455vb4pex5vsknk084sn02q,listJobs,7\r\n"
            }
            Self::Ndjson => "{\"starts_at\":\"2026-01-15T12:00:00Z\",\"operation\":\"listJobs\",\"calls\":7}\n",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Csv => "attachment; filename=\"api-usage.csv\"",
            Self::Ndjson => "attachment; filename=\"api-usage.ndjson\"",
        }
    }
}

const HEADING: &str = "starts_at,credential_kind,credential,operation,calls,refused,limited,failed,bytes,average_ms,p50_ms,\
                       p95_ms,p99_ms\r\n";

/// A copy that is being taken.
pub(super) struct Exported {
    format: Format,
    body: Body,
}

impl Exported {
    /// The rows of an organization before a moment, oldest first.
    pub(super) fn of(db: Db, organization: OrganizationId, of: Of, until: DateTime<Utc>, format: Format) -> Self {
        let heading = if format == Format::Csv { HEADING } else { "" };
        let pages = stream::try_unfold(Some(None::<Row>), move |after| {
            let db = db.clone();
            async move {
                let Some(after) = after else { return Ok(None) };
                let mut tx = db.tenant(organization).await?;
                let page = usage::rows(&mut tx, of, until, after.as_ref(), AT_ONCE).await?;
                tx.rollback().await?;
                let written: String = page.iter().map(|row| line(row, format)).collect();
                let full = i64::try_from(page.len()) == Ok(AT_ONCE);
                let next = page.into_iter().next_back().filter(|_| full).map(Some);
                Ok::<_, sqlx::Error>(Some((written, next)))
            }
        });
        let parts = stream::once(async move { Ok(heading.to_owned()) }).chain(pages);
        // What is empty would end an answer.
        let parts = parts.filter(|part| std::future::ready(!part.as_ref().is_ok_and(String::is_empty)));
        Self { format, body: Body::from_bytes_stream(parts.map(|part| part.map_err(io::Error::other))) }
    }
}

/// A row. None of its texts is anybody's choice, so that none is a formula or needs quotes.
fn line(row: &Row, format: Format) -> String {
    let totals = &row.totals;
    let starts_at = row.starts_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let quantile = |thousandths| latency::quantile(&totals.latency, thousandths).map(|it| it.as_secs_f64() * 1_000.0);
    let average = super::average(totals);
    let quantiles = [500, 950, 990].map(quantile);
    match format {
        Format::Csv => {
            let times = [average, quantiles[0], quantiles[1], quantiles[2]];
            let times = times.map(|time| time.map(|time| format!("{time:.3}")).unwrap_or_default()).join(",");
            format!(
                "{starts_at},{},{},{},{},{},{},{},{},{times}\r\n",
                row.credential.kind.as_str(),
                row.credential.shown().unwrap_or_default(),
                row.operation,
                totals.calls,
                totals.refused,
                totals.limited,
                totals.failed,
                totals.bytes
            )
        }
        Format::Ndjson => {
            let line = json!({
                "starts_at": starts_at,
                "credential_kind": row.credential.kind.as_str(),
                "credential": row.credential.shown(),
                "operation": row.operation,
                "calls": totals.calls,
                "refused": totals.refused,
                "limited": totals.limited,
                "failed": totals.failed,
                "bytes": totals.bytes,
                "average_ms": average,
                "p50_ms": quantiles[0],
                "p95_ms": quantiles[1],
                "p99_ms": quantiles[2],
            });
            format!("{line}\n")
        }
    }
}

impl IntoResponse for Exported {
    fn into_response(self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, self.format.media_type())
            .header(header::CONTENT_DISPOSITION, self.format.file())
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
                description: "The rows, oldest first.",
                status: Some(StatusCode::OK.as_u16()),
                status_range: None,
                content: vec![media_type(Format::Csv), media_type(Format::Ndjson)],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}
