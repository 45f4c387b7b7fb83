//! How much of licenses was used when, in the table.

use std::collections::BTreeMap;

use chrono::{Duration, NaiveDate};

use crate::{JobTx as _, TenantTx};

/// How long it is kept.
const KEPT: Duration = Duration::days(2 * 366);

/// How much was used on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The day, UTC.
    pub day: NaiveDate,
    /// Of what.
    pub limit: String,
    /// The most there was.
    pub used: i64,
    /// How many there might be; `None`: any number.
    pub most: Option<i64>,
}

/// Notes how much there is now, and forgets what is old.
///
/// # Errors
/// When the database refuses or went away.
pub async fn note(
    tx: &mut TenantTx,
    usage: &BTreeMap<String, u64>,
    limits: &BTreeMap<String, Option<u64>>,
) -> Result<(), sqlx::Error> {
    let (organization, today) = (tx.organization(), tx.now().date_naive());
    let bigint = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let names: Vec<String> = usage.keys().cloned().collect();
    let used: Vec<i64> = usage.values().copied().map(bigint).collect();
    let most: Vec<Option<i64>> = usage.keys().map(|name| limits.get(name).copied().flatten().map(bigint)).collect();
    sqlx::query!(
        "insert into license_usage as u (organization_id, day, limit_name, used, most)
         select $1, $2, name, used, most from unnest($3::text[], $4::bigint[], $5::bigint[]) as given (name, used, most)
             on conflict (organization_id, day, limit_name) do update
            set used = greatest(u.used, excluded.used), most = excluded.most",
        organization.uuid(),
        today,
        &names,
        &used,
        &most as &[Option<i64>]
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "delete from license_usage where organization_id = $1 and day < $2",
        organization.uuid(),
        today - KEPT
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// How much the transaction's organization used on the last so many days, from the oldest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, days: i64) -> Result<Vec<Used>, sqlx::Error> {
    let (organization, today) = (tx.organization(), tx.now().date_naive());
    sqlx::query_as!(
        Used,
        r#"select day, limit_name as "limit", used, most from license_usage
            where organization_id = $1 and day > $2 order by day, limit_name limit 10000"#,
        organization.uuid(),
        today - Duration::days(days)
    )
    .fetch_all(tx.connection())
    .await
}
