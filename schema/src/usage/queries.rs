//! What was called, in the tables.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{Credential, CredentialKind, Metric, MonthUse, Step, month_of};
use crate::{Db, EngineDb, JobTx as _, OrganizationId, PersonId, TenantTx};

/// What was counted of one caller and one operation in one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Whose.
    pub organization_id: Uuid,
    /// How long the stretch is.
    pub step: &'static str,
    /// When it began.
    pub starts_at: DateTime<Utc>,
    /// By what the caller was known.
    pub credential_kind: &'static str,
    /// Which one.
    pub credential_id: Uuid,
    /// The operation.
    pub operation: &'static str,
    /// What was counted.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Numbers of calls that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All of them.
    pub calls: i64,
    /// Those that were refused for what they asked, 4xx, but not for coming too often.
    pub refused: i64,
    /// Those that came too often, 429.
    pub limited: i64,
    /// Those that failed, 5xx.
    pub failed: i64,
    /// Bytes of bodies, of requests and answers.
    pub bytes: i64,
    /// Until they were answered, in all.
    pub microseconds: i64,
    /// How many were answered within which time; buckets behind the last may be missing.
    pub latency: Vec<i64>,
}

impl Totals {
    /// Adds others to them.
    pub fn add(&mut self, others: &Self) {
        self.calls += others.calls;
        self.refused += others.refused;
        self.limited += others.limited;
        self.failed += others.failed;
        self.bytes += others.bytes;
        self.microseconds += others.microseconds;
        if self.latency.len() < others.latency.len() {
            self.latency.resize(others.latency.len(), 0);
        }
        for (own, other) in self.latency.iter_mut().zip(&others.latency) {
            *own += other;
        }
    }
}

#[derive(Serialize)]
struct OfMonth {
    organization_id: Uuid,
    starts_at: DateTime<Utc>,
    calls: i64,
    bytes: i64,
}

/// Adds what was counted, of any number of organizations, in one statement. Answers what each of those has used of the
/// month. A row of `counted` may be there once.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add(
    db: &Db,
    counted: &[Counted],
    months: &[(OrganizationId, DateTime<Utc>, i64, i64)],
) -> Result<Vec<(OrganizationId, MonthUse)>, sqlx::Error> {
    let of_month = |(organization, starts_at, calls, bytes): &(OrganizationId, DateTime<Utc>, i64, i64)| OfMonth {
        organization_id: organization.uuid(),
        starts_at: *starts_at,
        calls: *calls,
        bytes: *bytes,
    };
    let months: Vec<OfMonth> = months.iter().map(of_month).collect();
    let json = |value: serde_json::Result<serde_json::Value>| value.map_err(|error| sqlx::Error::Encode(error.into()));
    let rows = sqlx::query!(
        r#"select organization_id as "organization!: OrganizationId", starts_at as "starts_at!", calls as "calls!",
                  bytes as "bytes!", calls_told as "calls_told!", bytes_told as "bytes_told!"
             from api_usage_add($1, $2)"#,
        json(serde_json::to_value(counted))?,
        json(serde_json::to_value(months))?
    )
    .fetch_all(db.pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.organization, read(row.starts_at, row.calls, row.bytes, [row.calls_told, row.bytes_told])))
        .collect())
}

fn read(starts_at: DateTime<Utc>, calls: i64, bytes: i64, told: [i16; 2]) -> MonthUse {
    let [calls_told, bytes_told] = told.map(|told| u8::try_from(told).unwrap_or(u8::MAX));
    MonthUse { starts_at, calls: calls.unsigned_abs(), bytes: bytes.unsigned_abs(), calls_told, bytes_told }
}

/// What the transaction's organization has used of the present month.
///
/// # Errors
/// When the database refuses or went away.
pub async fn month(tx: &mut TenantTx) -> Result<MonthUse, sqlx::Error> {
    let (organization, starts_at) = (tx.organization(), month_of(tx.now()));
    let row = sqlx::query!(
        "select calls, bytes, calls_told, bytes_told from api_usage_months where organization_id = $1 and starts_at = $2",
        organization.uuid(),
        starts_at
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map_or(MonthUse::none(starts_at), |row| {
        read(starts_at, row.calls, row.bytes, [row.calls_told, row.bytes_told])
    }))
}

/// Notes that a threshold was told; `false`: somebody did before, or of a higher one.
///
/// # Errors
/// When the database refuses or went away.
pub async fn tell(tx: &mut TenantTx, month: DateTime<Utc>, metric: Metric, threshold: u8) -> Result<bool, sqlx::Error> {
    let (organization, threshold) = (tx.organization(), i16::from(threshold));
    let done = match metric {
        Metric::Calls => {
            sqlx::query!(
                "update api_usage_months set calls_told = $3
                  where organization_id = $1 and starts_at = $2 and calls_told < $3",
                organization.uuid(),
                month,
                threshold
            )
            .execute(tx.connection())
            .await?
        }
        Metric::Bytes => {
            sqlx::query!(
                "update api_usage_months set bytes_told = $3
                  where organization_id = $1 and starts_at = $2 and bytes_told < $3",
                organization.uuid(),
                month,
                threshold
            )
            .execute(tx.connection())
            .await?
        }
    };
    Ok(done.rows_affected() == 1)
}

/// What somebody asks about: of the transaction's organization, or of it and all below it.
#[derive(Debug, Clone, Copy)]
pub struct Of {
    /// Those below it as well.
    pub below: bool,
    /// In rows of which length.
    pub step: Step,
    /// From this beginning on.
    pub since: DateTime<Utc>,
}

struct TotalsRow {
    calls: i64,
    refused: i64,
    limited: i64,
    failed: i64,
    bytes: i64,
    microseconds: i64,
    latency: Vec<i64>,
}

impl From<TotalsRow> for Totals {
    fn from(row: TotalsRow) -> Self {
        let TotalsRow { calls, refused, limited, failed, bytes, microseconds, latency } = row;
        Self { calls, refused, limited, failed, bytes, microseconds, latency }
    }
}

/// All calls together.
///
/// # Errors
/// When the database refuses or went away.
pub async fn total(tx: &mut TenantTx, of: Of) -> Result<Totals, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        TotalsRow,
        r#"select coalesce(sum(calls), 0)::bigint as "calls!", coalesce(sum(refused), 0)::bigint as "refused!",
                  coalesce(sum(limited), 0)::bigint as "limited!", coalesce(sum(failed), 0)::bigint as "failed!",
                  coalesce(sum(bytes), 0)::bigint as "bytes!", coalesce(sum(microseconds), 0)::bigint as "microseconds!",
                  latency_sum(latency) as "latency!"
             from organization_closure c join api_usage u on u.organization_id = c.descendant_id
            where c.ancestor_id = $1 and (c.depth = 0 or $2) and u.step = $3 and u.starts_at >= $4"#,
        organization.uuid(),
        of.below,
        of.step.as_str(),
        of.since
    )
    .fetch_one(tx.connection())
    .await
    .map(Totals::from)
}

/// What was called in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// When it began.
    pub starts_at: DateTime<Utc>,
    /// The numbers.
    pub totals: Totals,
}

/// What was called in each step in which something was, oldest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn timeline(tx: &mut TenantTx, of: Of) -> Result<Vec<Point>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select u.starts_at, sum(calls)::bigint as "calls!", sum(refused)::bigint as "refused!",
                  sum(limited)::bigint as "limited!", sum(failed)::bigint as "failed!", sum(bytes)::bigint as "bytes!",
                  sum(microseconds)::bigint as "microseconds!", latency_sum(latency) as "latency!"
             from organization_closure c join api_usage u on u.organization_id = c.descendant_id
            where c.ancestor_id = $1 and (c.depth = 0 or $2) and u.step = $3 and u.starts_at >= $4
            group by u.starts_at order by u.starts_at"#,
        organization.uuid(),
        of.below,
        of.step.as_str(),
        of.since
    )
    .fetch_all(tx.connection())
    .await?;
    let point = rows.into_iter().map(|row| Point {
        starts_at: row.starts_at,
        totals: Totals {
            calls: row.calls,
            refused: row.refused,
            limited: row.limited,
            failed: row.failed,
            bytes: row.bytes,
            microseconds: row.microseconds,
            latency: row.latency,
        },
    });
    Ok(point.collect())
}

/// What is counted, with what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T> {
    /// What.
    pub what: T,
    /// Its name, where that is known here.
    pub name: Option<String>,
    /// The numbers.
    pub totals: Totals,
}

/// What each caller of the transaction's organization called, the busiest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn by_credential(tx: &mut TenantTx, of: Of, limit: i64) -> Result<Vec<Named<Credential>>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select u.*, coalesce(k.name, p.name, a.name) as "name?"
             from (select credential_kind, credential_id, sum(calls)::bigint as "calls!",
                          sum(refused)::bigint as "refused!", sum(limited)::bigint as "limited!",
                          sum(failed)::bigint as "failed!", sum(bytes)::bigint as "bytes!",
                          sum(microseconds)::bigint as "microseconds!", latency_sum(latency) as "latency!"
                     from api_usage
                    where organization_id = $1 and step = $2 and starts_at >= $3
                    group by credential_kind, credential_id
                    order by sum(calls) desc, credential_id limit $4) u
             left join api_keys k on u.credential_kind = 'api_key' and k.id = u.credential_id
             left join people p on u.credential_kind = 'person' and p.id = u.credential_id
             left join oauth_clients a on u.credential_kind = 'application' and a.id = u.credential_id
            order by u."calls!" desc, u.credential_id"#,
        organization.uuid(),
        of.step.as_str(),
        of.since,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let named = rows.into_iter().map(|row| Named {
        what: Credential { kind: CredentialKind::stored(&row.credential_kind), id: row.credential_id },
        name: row.name,
        totals: Totals {
            calls: row.calls,
            refused: row.refused,
            limited: row.limited,
            failed: row.failed,
            bytes: row.bytes,
            microseconds: row.microseconds,
            latency: row.latency,
        },
    });
    Ok(named.collect())
}

/// What somebody called himself in a month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// When the month began.
    pub starts_at: DateTime<Utc>,
    /// The operation.
    pub operation: String,
    /// How often.
    pub calls: i64,
}

/// What somebody called in the transaction's organization, by himself and by the keys that he made, the newest month first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn of_person(tx: &mut TenantTx, person: PersonId, limit: i64) -> Result<Vec<Called>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Called,
        r#"select starts_at, operation, sum(calls)::bigint as "calls!" from api_usage
            where organization_id = $1 and step = $2
              and (credential_kind = 'person' and credential_id = $3
                   or credential_kind = 'api_key'
                      and credential_id in (select id from api_keys where organization_id = $1 and owner_id = $3))
            group by starts_at, operation order by starts_at desc, operation limit $4"#,
        organization.uuid(),
        Step::Month.as_str(),
        person.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// How often each operation was called, the most called first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn by_operation(tx: &mut TenantTx, of: Of, limit: i64) -> Result<Vec<Named<String>>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select operation, sum(calls)::bigint as "calls!", sum(refused)::bigint as "refused!",
                  sum(limited)::bigint as "limited!", sum(failed)::bigint as "failed!", sum(bytes)::bigint as "bytes!",
                  sum(microseconds)::bigint as "microseconds!", latency_sum(latency) as "latency!"
             from organization_closure c join api_usage u on u.organization_id = c.descendant_id
            where c.ancestor_id = $1 and (c.depth = 0 or $2) and u.step = $3 and u.starts_at >= $4
            group by operation order by sum(calls) desc, operation limit $5"#,
        organization.uuid(),
        of.below,
        of.step.as_str(),
        of.since,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let named = rows.into_iter().map(|row| Named {
        what: row.operation,
        name: None,
        totals: Totals {
            calls: row.calls,
            refused: row.refused,
            limited: row.limited,
            failed: row.failed,
            bytes: row.bytes,
            microseconds: row.microseconds,
            latency: row.latency,
        },
    });
    Ok(named.collect())
}

/// What one caller called of one operation in one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When the step began.
    pub starts_at: DateTime<Utc>,
    /// Who.
    pub credential: Credential,
    /// What.
    pub operation: String,
    /// The numbers.
    pub totals: Totals,
}

/// The rows of the transaction's organization before `until` and after another, oldest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn rows(
    tx: &mut TenantTx,
    of: Of,
    until: DateTime<Utc>,
    after: Option<&Row>,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let organization = tx.organization();
    let (starts_at, kind, id, operation) = after.map_or((of.since, "", Uuid::nil(), ""), |row| {
        (row.starts_at, row.credential.kind.as_str(), row.credential.id, row.operation.as_str())
    });
    let rows = sqlx::query!(
        "select starts_at, credential_kind, credential_id, operation, calls, refused, limited, failed, bytes,
                microseconds, latency
           from api_usage
          where organization_id = $1 and step = $2 and starts_at < $3
            and (starts_at, credential_kind, credential_id, operation) > ($4, $5, $6, $7)
          order by starts_at, credential_kind, credential_id, operation limit $8",
        organization.uuid(),
        of.step.as_str(),
        until,
        starts_at,
        kind,
        id,
        operation,
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let row = rows.into_iter().map(|row| Row {
        starts_at: row.starts_at,
        credential: Credential { kind: CredentialKind::stored(&row.credential_kind), id: row.credential_id },
        operation: row.operation,
        totals: Totals {
            calls: row.calls,
            refused: row.refused,
            limited: row.limited,
            failed: row.failed,
            bytes: row.bytes,
            microseconds: row.microseconds,
            latency: row.latency,
        },
    });
    Ok(row.collect())
}

/// Forgets the oldest stretch of a length, if its time is over. Answers how many rows that were; 0: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, step: Step, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    sqlx::query!(
        "delete from api_usage
          where step = $1 and starts_at < $2 and starts_at = (select min(starts_at) from api_usage where step = $1)",
        step.as_str(),
        now - step.kept()
    )
    .execute(db.pool())
    .await
    .map(|done| done.rows_affected())
}
