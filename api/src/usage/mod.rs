//! What was called: counted while requests are answered, added up, and shown to whoever called.
//!
//! A process holds what it counted for a few seconds ([`add_up`]); what it holds when it is killed is lost, and what was
//! added while the connection broke may be there twice. What a month has come to is heard with each addition, so several
//! processes may let through, beyond a monthly limit, what they are asked within those seconds.

mod add;
mod body;
mod counted;
mod export;

use gantry_schema::OrganizationId;
use gantry_schema::limits;
use gantry_schema::organizations::needed::ReadUsage;
use gantry_schema::usage::{self as rows, CredentialKind, Metric, Named, Of, Range, Totals, latency};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{Enum, Object, OpenApi};

use crate::app::App;
use crate::caller::May;
use crate::error::Error;
use crate::example::example;
use crate::field::Moment;
use crate::tag::Tag;
pub use add::add_up;
pub(crate) use counted::{Call, Usage, received};
use export::{Exported, Format};

/// The operations on what was called.
#[derive(Debug, Clone, Copy)]
pub struct ApiUsage;

/// Callers or operations that are listed, the busiest.
const LISTED: i64 = 200;

/// How far back to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "ApiUsageRange")]
enum Back {
    /// An hour, in steps of five minutes.
    #[oai(rename = "1h")]
    Hour,
    /// A day, in steps of five minutes.
    #[oai(rename = "24h")]
    Day,
    /// A week, in steps of an hour.
    #[oai(rename = "7d")]
    Week,
    /// Thirty days.
    #[oai(rename = "30d")]
    Month,
    /// Ninety days.
    #[oai(rename = "90d")]
    Quarter,
    /// Twelve calendar months.
    #[oai(rename = "12mo")]
    Year,
}

impl From<Back> for Range {
    fn from(back: Back) -> Self {
        match back {
            Back::Hour => Self::Hour,
            Back::Day => Self::Day,
            Back::Week => Self::Week,
            Back::Month => Self::Month,
            Back::Quarter => Self::Quarter,
            Back::Year => Self::Year,
        }
    }
}

/// Numbers of calls.
#[derive(Debug, Object)]
#[oai(rename = "ApiCalls", example)]
struct Calls {
    /// All of them.
    calls: u64,
    /// Those refused for what they asked: 4xx but 429.
    refused: u64,
    /// Those that came too often, or when the month was used up: 429.
    limited: u64,
    /// Those that failed on our side: 5xx.
    failed: u64,
    /// Bytes of bodies, of requests and answers, as they were before compression.
    bytes: u64,
    /// How long answers took; absent: there were none.
    #[oai(skip_serializing_if_is_none)]
    latency: Option<Latency>,
}

example!(Calls, {
    "calls": 1042,
    "refused": 12,
    "limited": 3,
    "failed": 0,
    "bytes": 2_097_152,
    "latency": { "average_ms": 3.1, "p50_ms": 2.4, "p95_ms": 7.9, "p99_ms": 18.2 },
});

/// How long answers took, in milliseconds; quantiles are off by a fifth at most.
#[derive(Debug, Object)]
#[oai(rename = "ApiLatency")]
struct Latency {
    /// On average.
    average_ms: f64,
    /// Half of them took no longer.
    p50_ms: f64,
    /// 95 percent took no longer.
    p95_ms: f64,
    /// 99 percent took no longer.
    p99_ms: f64,
}

/// The average in milliseconds.
fn average(totals: &Totals) -> Option<f64> {
    let calls = u32::try_from(totals.calls).ok().filter(|calls| *calls > 0)?;
    let all = std::time::Duration::from_micros(totals.microseconds.unsigned_abs());
    Some(all.as_secs_f64() * 1_000.0 / f64::from(calls))
}

impl From<Totals> for Calls {
    fn from(totals: Totals) -> Self {
        let quantile =
            |thousandths| latency::quantile(&totals.latency, thousandths).map_or(0.0, |it| it.as_secs_f64() * 1_000.0);
        Self {
            calls: totals.calls.unsigned_abs(),
            refused: totals.refused.unsigned_abs(),
            limited: totals.limited.unsigned_abs(),
            failed: totals.failed.unsigned_abs(),
            bytes: totals.bytes.unsigned_abs(),
            latency: average(&totals).map(|average_ms| Latency {
                average_ms,
                p50_ms: quantile(500),
                p95_ms: quantile(950),
                p99_ms: quantile(990),
            }),
        }
    }
}

/// What was called, together.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageSummary", example)]
struct Summary {
    /// By whom.
    organization_id: OrganizationId,
    /// Since when.
    since: Moment,
    /// The numbers.
    total: Calls,
    /// What the organization itself has used of the present month.
    month: Month,
}

example!(Summary, {
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "since": "2026-01-14T12:05:00Z",
    "total": { "calls": 1042, "refused": 12, "limited": 3, "failed": 0, "bytes": 2_097_152 },
    "month": {
        "starts_at": "2026-01-01T00:00:00Z",
        "resets_at": "2026-02-01T00:00:00Z",
        "calls": { "used": 800_123, "limit": 1_000_000, "percent": 80 },
        "bytes": { "used": 1_610_612_736 },
    },
});

/// A calendar month, UTC.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageMonth")]
struct Month {
    /// When it began.
    starts_at: Moment,
    /// When the next one begins.
    resets_at: Moment,
    /// Calls; those that came too often are none.
    calls: Used,
    /// Bytes of bodies, of requests and answers.
    bytes: Used,
}

/// How much of something is used.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageQuota")]
struct Used {
    /// How much.
    used: u64,
    /// How much there may be: when it is used up, requests are refused; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    limit: Option<u64>,
    /// How much of that is used, in whole percent.
    #[oai(skip_serializing_if_is_none)]
    percent: Option<u64>,
}

impl Used {
    fn of(used: u64, limit: Option<u64>) -> Self {
        let percent = |limit: u64| u64::try_from(u128::from(used) * 100 / u128::from(limit.max(1))).unwrap_or(u64::MAX);
        Self { used, limit, percent: limit.map(percent) }
    }
}

/// What was called over time.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageTimeline", example)]
struct Timeline {
    /// How long a step is: `5m`, `hour`, `day` or `month`.
    step: String,
    /// Every step, oldest first; the last has not ended yet.
    points: Vec<Point>,
}

example!(Timeline, {
    "step": "5m",
    "points": [{
        "starts_at": "2026-01-15T12:00:00Z",
        "total": { "calls": 7, "refused": 0, "limited": 0, "failed": 0, "bytes": 4096 },
    }],
});

/// A step.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsagePoint")]
struct Point {
    /// When it began.
    starts_at: Moment,
    /// The numbers.
    total: Calls,
}

/// By what a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "ApiCallerKind", rename_all = "snake_case")]
enum Kind {
    /// An API key.
    ApiKey,
    /// Somebody who signed in, by whichever session.
    Person,
    /// An application's access tokens.
    Application,
    /// Those for which there was no place to count each by itself.
    Others,
}

impl From<CredentialKind> for Kind {
    fn from(kind: CredentialKind) -> Self {
        match kind {
            CredentialKind::ApiKey => Self::ApiKey,
            CredentialKind::Person => Self::Person,
            CredentialKind::Application => Self::Application,
            CredentialKind::Others => Self::Others,
        }
    }
}

/// What a key, a person or an application called.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageOfCaller")]
struct OfCaller {
    /// By what it is known.
    kind: Kind,
    /// The id of the key, the person or the application.
    #[oai(skip_serializing_if_is_none)]
    id: Option<String>,
    /// What people call it; absent: it is gone.
    #[oai(skip_serializing_if_is_none)]
    name: Option<String>,
    /// The numbers.
    total: Calls,
}

/// Who called.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageOfCallers", example)]
struct OfCallers {
    /// The busiest first; at most two hundred.
    items: Vec<OfCaller>,
}

example!(OfCallers, {
    "items": [{
        "kind": "api_key",
        "id": "key_01h455vb4pex5vsknk084sn02q",
        "name": "Billing",
        "total": { "calls": 1042, "refused": 12, "limited": 3, "failed": 0, "bytes": 2_097_152 },
    }],
});

/// How often an operation was called.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageOfOperation")]
struct OfOperation {
    /// Its id in the document; `other`: those for which there was no place to count each by itself.
    operation: String,
    /// The numbers.
    total: Calls,
}

/// What was called.
#[derive(Debug, Object)]
#[oai(rename = "ApiUsageOfOperations", example)]
struct OfOperations {
    /// The most called first; at most two hundred.
    items: Vec<OfOperation>,
}

impl Example for OfOperations {
    fn example() -> Self {
        Self { items: vec![OfOperation { operation: "listJobs".to_owned(), total: Calls::example() }] }
    }
}

#[OpenApi(prefix_path = "/api-usage", tag = "Tag::ApiUsage")]
impl ApiUsage {
    /// See what was called
    ///
    /// By the organization's keys, people and applications together, and what it has used of the month. At 80, 90, 95 and
    /// 100 percent of what it may use the event `api_usage.threshold` tells so. What was called within the last seconds may
    /// be missing.
    #[oai(path = "/summary", method = "get", operation_id = "getApiUsageSummary")]
    async fn summary(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// Together with all organizations below it. Left out: no.
        below: Query<Option<bool>>,
        /// How far back; left out: a day.
        range: Query<Option<Back>>,
    ) -> Result<Json<Summary>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let of = asked(&app, range.0, below.0);
        let mut tx = app.db.tenant(organization).await?;
        let (total, month) = (rows::total(&mut tx, of).await?, rows::month(&mut tx).await?);
        let given = limits::allowance(&mut tx).await?.given;
        let used = |metric: Metric| {
            let used = app.usage.used(organization, &month, metric, app.db.now());
            Used::of(used, metric.limit(&given))
        };
        Ok(Json(Summary {
            organization_id: organization,
            since: of.since.into(),
            total: total.into(),
            month: Month {
                starts_at: month.starts_at.into(),
                resets_at: rows::next_month(month.starts_at).into(),
                calls: used(Metric::Calls),
                bytes: used(Metric::Bytes),
            },
        }))
    }

    /// See what was called over time
    ///
    /// Step by step, those without a call too.
    #[oai(path = "/timeline", method = "get", operation_id = "getApiUsageTimeline")]
    async fn timeline(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// Together with all organizations below it. Left out: no.
        below: Query<Option<bool>>,
        /// How far back; left out: a day.
        range: Query<Option<Back>>,
    ) -> Result<Json<Timeline>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let of = asked(&app, range.0, below.0);
        let mut tx = app.db.tenant(organization).await?;
        let mut found = rows::timeline(&mut tx, of).await?.into_iter().peekable();
        let beginnings = Range::from(range.0.unwrap_or(Back::Day)).beginnings(app.db.now());
        let points = beginnings.into_iter().map(|starts_at| {
            let totals = found.next_if(|point| point.starts_at == starts_at).map(|point| point.totals);
            Point { starts_at: starts_at.into(), total: totals.unwrap_or_default().into() }
        });
        Ok(Json(Timeline { step: of.step.as_str().to_owned(), points: points.collect() }))
    }

    /// See who called
    ///
    /// What each API key, person and application of one organization called, the busiest first.
    #[oai(path = "/keys", method = "get", operation_id = "listApiUsageKeys")]
    async fn keys(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// How far back; left out: a day.
        range: Query<Option<Back>>,
    ) -> Result<Json<OfCallers>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::by_credential(&mut tx, asked(&app, range.0, None), LISTED).await?;
        let item = |Named { what, name, totals }: Named<rows::Credential>| OfCaller {
            kind: what.kind.into(),
            id: what.shown(),
            name,
            total: totals.into(),
        };
        Ok(Json(OfCallers { items: found.into_iter().map(item).collect() }))
    }

    /// See which operations were called
    ///
    /// How often, how fast and with what success, the most called first.
    #[oai(path = "/operations", method = "get", operation_id = "listApiUsageOperations")]
    async fn operations(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// Together with all organizations below it. Left out: no.
        below: Query<Option<bool>>,
        /// How far back; left out: a day.
        range: Query<Option<Back>>,
    ) -> Result<Json<OfOperations>, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::by_operation(&mut tx, asked(&app, range.0, below.0), LISTED).await?;
        let item = |Named { what, totals, .. }: Named<String>| OfOperation { operation: what, total: totals.into() };
        Ok(Json(OfOperations { items: found.into_iter().map(item).collect() }))
    }

    /// Take a copy of what was called
    ///
    /// Every caller and operation of one organization in every step, oldest first, as a stream of any length. An answer that
    /// breaks off is not complete.
    #[oai(path = "/export", method = "get", operation_id = "exportApiUsage")]
    async fn export(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// How it is written; left out: CSV.
        format: Query<Option<Format>>,
        /// Of this organization below the caller's; left out: the caller's.
        organization: Query<Option<OrganizationId>>,
        /// How far back; left out: a day.
        range: Query<Option<Back>>,
    ) -> Result<Exported, Error> {
        let organization = caller.may_for(&app.db, organization.0).await?;
        let of = asked(&app, range.0, None);
        // What begins while it is read would make it longer and longer.
        let until = of.step.shifted(of.step.beginning(app.db.now()), 1);
        Ok(Exported::of(app.db.clone(), organization, of, until, format.0.unwrap_or(Format::Csv)))
    }
}

fn asked(app: &App, range: Option<Back>, below: Option<bool>) -> Of {
    let range = Range::from(range.unwrap_or(Back::Day));
    Of { below: below.unwrap_or(false), step: range.step(), since: range.since(app.db.now()) }
}
