//! Limits in the tables.

use super::{Allowance, Given, Tier};
use crate::{JobTx, OrganizationId, TenantTx};

/// What an organization has that was given nothing.
pub const FIRST_TIER: &str = "starter";

/// A limit of what is counted before anybody is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name: `anonymous`, `credentials`, `attempts_by_address` or `attempts_by_account`.
    pub name: String,
    /// Requests a minute.
    pub number: u32,
    /// How many may come at once after a rest.
    pub burst: u32,
}

struct TierRow {
    tier: String,
    read_number: i32,
    write_number: i32,
    deploy_number: i32,
    burst_percent: i16,
    key_percent: i16,
    address_percent: i16,
}

impl From<TierRow> for Tier {
    fn from(row: TierRow) -> Self {
        Self {
            name: row.tier,
            read: row.read_number.unsigned_abs(),
            write: row.write_number.unsigned_abs(),
            deploy: row.deploy_number.unsigned_abs(),
            burst_percent: row.burst_percent.unsigned_abs(),
            key_percent: row.key_percent.unsigned_abs(),
            address_percent: row.address_percent.unsigned_abs(),
        }
    }
}

struct GivenRow {
    tier: String,
    number: Option<i32>,
    bypass: bool,
    monthly_calls: Option<i64>,
    monthly_bytes: Option<i64>,
}

impl From<GivenRow> for Given {
    fn from(row: GivenRow) -> Self {
        Self {
            tier: row.tier,
            number: row.number.map(i32::unsigned_abs),
            bypass: row.bypass,
            monthly_calls: row.monthly_calls.map(i64::unsigned_abs),
            monthly_bytes: row.monthly_bytes.map(i64::unsigned_abs),
        }
    }
}

/// How much the transaction's organization may ask for.
///
/// # Errors
/// When the database refuses or went away.
pub async fn allowance(tx: &mut TenantTx) -> Result<Allowance, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        r#"select t.tier, t.read_number, t.write_number, t.deploy_number, t.burst_percent, t.key_percent,
                  t.address_percent, o.number as "number?", coalesce(o.bypass, false) as "bypass!",
                  o.monthly_calls as "monthly_calls?", o.monthly_bytes as "monthly_bytes?"
             from (select) one
             left join organization_limits o on o.organization_id = $1
             join rate_tiers t on t.tier = coalesce(o.tier, $2)"#,
        organization.uuid(),
        FIRST_TIER
    )
    .fetch_one(tx.connection())
    .await?;
    let given = GivenRow {
        tier: row.tier.clone(),
        number: row.number,
        bypass: row.bypass,
        monthly_calls: row.monthly_calls,
        monthly_bytes: row.monthly_bytes,
    };
    let tier = TierRow {
        tier: row.tier,
        read_number: row.read_number,
        write_number: row.write_number,
        deploy_number: row.deploy_number,
        burst_percent: row.burst_percent,
        key_percent: row.key_percent,
        address_percent: row.address_percent,
    };
    Ok(Allowance { given: given.into(), tier: tier.into() })
}

/// Gives the transaction's organization something else than before; the platform decides that.
///
/// # Errors
/// When the database refuses, also because there is no such tier (`organization_limits_tier_fkey`), or went away.
pub async fn give(tx: &mut TenantTx, given: &Given) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let bigint = |number: Option<u64>| number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    sqlx::query!(
        "insert into organization_limits (organization_id, tier, number, bypass, monthly_calls, monthly_bytes, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (organization_id) do update
            set tier = excluded.tier, number = excluded.number, bypass = excluded.bypass,
                monthly_calls = excluded.monthly_calls, monthly_bytes = excluded.monthly_bytes,
                updated_at = excluded.updated_at",
        organization.uuid(),
        given.tier,
        given.number.map(integer),
        given.bypass,
        bigint(given.monthly_calls),
        bigint(given.monthly_bytes),
        now
    )
    .execute(tx.connection())
    .await?;
    notify(tx, Some(organization)).await
}

/// Every tier, from the smallest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn tiers(tx: &mut TenantTx) -> Result<Vec<Tier>, sqlx::Error> {
    let rows = sqlx::query_as!(
        TierRow,
        "select tier, read_number, write_number, deploy_number, burst_percent, key_percent, address_percent
           from rate_tiers order by read_number, tier"
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Tier::from).collect())
}

/// Makes a tier, or changes it; the platform's transaction only.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_tier(tx: &mut TenantTx, tier: &Tier) -> Result<(), sqlx::Error> {
    let (organization, percent) = (tx.organization(), |percent: u16| i16::try_from(percent).unwrap_or(i16::MAX));
    sqlx::query!(
        "insert into rate_tiers (tier, organization_id, read_number, write_number, deploy_number, burst_percent,
                                 key_percent, address_percent)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (tier) do update
            set read_number = excluded.read_number, write_number = excluded.write_number,
                deploy_number = excluded.deploy_number, burst_percent = excluded.burst_percent,
                key_percent = excluded.key_percent, address_percent = excluded.address_percent",
        tier.name,
        organization.uuid(),
        integer(tier.read),
        integer(tier.write),
        integer(tier.deploy),
        percent(tier.burst_percent),
        percent(tier.key_percent),
        percent(tier.address_percent)
    )
    .execute(tx.connection())
    .await?;
    notify(tx, None).await
}

/// Forgets a tier; `false`: there is none. The platform's transaction only.
///
/// # Errors
/// When the database refuses, also because organizations have it (`organization_limits_tier_fkey`), or went away.
pub async fn remove_tier(tx: &mut TenantTx, name: &str) -> Result<bool, sqlx::Error> {
    let removed = sqlx::query!("delete from rate_tiers where tier = $1", name).execute(tx.connection()).await?;
    Ok(removed.rows_affected() == 1)
}

/// The limits of what is counted before anybody is known.
///
/// # Errors
/// When the database refuses or went away.
pub async fn rules(tx: &mut TenantTx) -> Result<Vec<Rule>, sqlx::Error> {
    let rows = sqlx::query!("select rule, number, burst from rate_rules order by rule").fetch_all(tx.connection());
    let rule = |(name, number, burst): (String, i32, i32)| Rule {
        name,
        number: number.unsigned_abs(),
        burst: burst.unsigned_abs(),
    };
    Ok(rows.await?.into_iter().map(|row| rule((row.rule, row.number, row.burst))).collect())
}

/// Changes one of them; `false`: there is none. The platform's transaction only.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_rule(tx: &mut TenantTx, rule: &Rule) -> Result<bool, sqlx::Error> {
    let changed = sqlx::query!(
        "update rate_rules set number = $2, burst = $3 where rule = $1",
        rule.name,
        integer(rule.number),
        integer(rule.burst)
    )
    .execute(tx.connection())
    .await?;
    notify(tx, None).await?;
    Ok(changed.rows_affected() == 1)
}

fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Where PostgreSQL tells API processes that what an organization may do is different: its uuid, or `all`.
pub const CHANNEL: &str = "gantry_standing";

/// Tells them.
pub(crate) async fn notify(tx: &mut TenantTx, of: Option<OrganizationId>) -> Result<(), sqlx::Error> {
    let of = of.map_or_else(|| "all".to_owned(), |of| of.uuid().to_string());
    sqlx::query!("select pg_notify('gantry_standing', $1)", of).fetch_one(tx.connection()).await.map(drop)
}
