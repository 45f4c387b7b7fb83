//! How much of licenses was used when, in the table: of each day the most there was, however short it was so.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, NaiveDate, Utc};

use super::features::Limit;
use crate::window::in_order;
use crate::{JobTx as _, LicenseId, Order, TenantTx};

/// How long it is kept.
pub const KEPT: Duration = Duration::days(2 * 366);

/// How much was used on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The day, UTC.
    pub day: NaiveDate,
    /// Of what.
    pub limit: String,
    /// Under which license.
    pub license: LicenseId,
    /// The most there was.
    pub used: i64,
    /// How many there might be; `None`: any number.
    pub most: Option<i64>,
}

/// Notes how much there is now under the license in force of the transaction's organization, and how much there was since the
/// last time, and forgets what is old.
///
/// # Errors
/// When the database refuses or went away.
pub async fn note(
    tx: &mut TenantTx,
    license: LicenseId,
    usage: &BTreeMap<String, u64>,
    limits: &BTreeMap<String, Option<u64>>,
) -> Result<(), sqlx::Error> {
    let (organization, today) = (tx.organization(), tx.now().date_naive());
    let mut usage = usage.clone();
    // Whoever adds something at this moment is not waited for: the peak is there the next time.
    let peaks = sqlx::query!(
        r#"update license_counters as c set peak = c.used
             from (select kind, peak from license_counters
                    where organization_id = $1 and most is not null and peak > 0 for update skip locked) as was
            where c.organization_id = $1 and c.kind = was.kind
        returning c.kind, was.peak"#,
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    for row in peaks {
        let Some(limit) = Limit::of_counted(&row.kind) else { continue };
        let used = usage.entry(limit.as_str().to_owned()).or_default();
        *used = (*used).max(row.peak.unsigned_abs());
    }
    let bigint = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let names: Vec<String> = usage.keys().cloned().collect();
    let used: Vec<i64> = usage.values().copied().map(bigint).collect();
    let most: Vec<Option<i64>> = usage.keys().map(|name| limits.get(name).copied().flatten().map(bigint)).collect();
    sqlx::query!(
        "insert into license_usage as u (organization_id, day, limit_name, license_id, used, most)
         select $1, $2, name, $3, used, most
           from unnest($4::text[], $5::bigint[], $6::bigint[]) as given (name, used, most)
             on conflict (organization_id, day, limit_name, license_id) do update
            set used = greatest(u.used, excluded.used), most = excluded.most",
        organization.uuid(),
        today,
        license.uuid(),
        &names,
        &used,
        &most as &[Option<i64>]
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!("delete from license_usage where organization_id = $1 and day < $2", organization.uuid(), today - KEPT)
        .execute(tx.connection())
        .await
        .map(drop)
}

/// Which of it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// From this moment's day on.
    pub since: Option<DateTime<Utc>>,
    /// Days that began before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Only of this limit.
    pub limit: Option<String>,
    /// Only under this license.
    pub license: Option<LicenseId>,
    /// After this one in the list.
    pub after: Option<Place>,
}

/// A place in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The day.
    pub day: NaiveDate,
    /// The license.
    pub license: LicenseId,
    /// The limit.
    pub limit: String,
}

/// How much the transaction's organization used, day by day, up to so many rows.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, wanted: &Wanted, order: Order, rows: i64) -> Result<Vec<Used>, sqlx::Error> {
    let organization = tx.organization();
    let first = wanted.since.map_or(NaiveDate::MIN, |since| since.date_naive()).max(OLDEST);
    let last = wanted.until.and_then(|until| until.checked_sub_signed(Duration::microseconds(1)));
    let last = last.map_or(NEWEST, |until| until.date_naive()).min(NEWEST);
    let place = match (&wanted.after, order) {
        (Some(place), _) => place.clone(),
        (None, Order::Ascending) => Place { day: OLDEST, license: smallest(), limit: String::new() },
        (None, Order::Descending) => Place { day: NEWEST, license: largest(), limit: "~".to_owned() },
    };
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Used,
                r#"select day, limit_name as "limit", license_id as "license: LicenseId", used, most from license_usage
                    where organization_id = $1 and day between $2 and $3
                      and ($4::text is null or limit_name = $4) and ($5::uuid is null or license_id = $5)
                      and case when $6 = 'asc' then (day, license_id, limit_name) > ($7, $8, $9 collate "C")
                               else (day, license_id, limit_name) < ($7, $8, $9 collate "C") end
                    order by day "#
                    + $order
                    + ", license_id "
                    + $order
                    + ", limit_name collate \"C\" "
                    + $order
                    + " limit $10",
                organization.uuid(),
                first,
                last,
                wanted.limit.as_deref(),
                wanted.license.map(LicenseId::uuid),
                $order,
                place.day,
                place.license.uuid(),
                place.limit,
                rows
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(order, page)
}

const OLDEST: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a day");
const NEWEST: NaiveDate = NaiveDate::from_ymd_opt(9999, 12, 31).expect("a day");

const fn smallest() -> LicenseId {
    LicenseId::from_uuid(uuid::Uuid::nil())
}

const fn largest() -> LicenseId {
    LicenseId::from_uuid(uuid::Uuid::max())
}

/// Everything of these days, in order.
///
/// # Errors
/// When the database refuses or went away.
pub async fn between(tx: &mut TenantTx, first: NaiveDate, last: NaiveDate) -> Result<Vec<Used>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Used,
        r#"select day, limit_name as "limit", license_id as "license: LicenseId", used, most from license_usage
            where organization_id = $1 and day between $2 and $3 order by day, license_id, limit_name"#,
        organization.uuid(),
        first,
        last
    )
    .fetch_all(tx.connection())
    .await
}

/// The first day of which something is known.
///
/// # Errors
/// When the database refuses or went away.
pub async fn first_day(tx: &mut TenantTx) -> Result<Option<NaiveDate>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!("select min(day) from license_usage where organization_id = $1", organization.uuid())
        .fetch_one(tx.connection())
        .await
}
