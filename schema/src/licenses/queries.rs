//! Licenses in the tables.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;

use super::chain::{self, Chain};
use super::evaluate::Status;
use super::features::Limit;
use super::keys::{PublicKey, SecretKey};
use crate::organizations::tree;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{EngineDb, JobTx as _, LicenseId, OrganizationId, TenantTx, limits};

/// A key that is in force for an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: LicenseId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// The key.
    pub key: String,
    /// Counts the organization's licenses.
    pub number: i64,
    /// What was decided about it.
    pub status: Status,
    /// Why.
    pub reason: Option<String>,
    /// The latest moment at which it was looked at.
    pub seen_at: DateTime<Utc>,
    /// The organization that decided about it last; `None`: nobody did.
    pub decided_by: Option<OrganizationId>,
    /// When that was, or it was put in force.
    pub decided_at: DateTime<Utc>,
    /// Those of its chain that their issuer revoked by a list.
    pub revoked: Vec<LicenseId>,
    /// When the newest such list was made, or it was put in force here, whichever is later.
    pub informed: DateTime<Utc>,
}

struct Row {
    id: LicenseId,
    organization: OrganizationId,
    key: String,
    number: i64,
    state: String,
    reason: Option<String>,
    seen_at: DateTime<Utc>,
    decided_by: Option<OrganizationId>,
    decided_at: DateTime<Utc>,
    revoked: Vec<LicenseId>,
    informed: DateTime<Utc>,
}

impl From<Row> for Stored {
    fn from(row: Row) -> Self {
        let status = match row.state.as_str() {
            "active" => Status::Active,
            "suspended" => Status::Suspended,
            "replaced" => Status::Replaced,
            _ => Status::Revoked,
        };
        Self {
            id: row.id,
            organization: row.organization,
            key: row.key,
            number: row.number,
            status,
            reason: row.reason,
            seen_at: row.seen_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            revoked: row.revoked,
            informed: row.informed,
        }
    }
}

/// The licenses in force of the transaction's organization and of those above it, from the top.
///
/// # Errors
/// When the database refuses or went away.
pub async fn line(tx: &mut TenantTx) -> Result<Vec<Stored>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query_as!(
        Row,
        r#"select l.id as "id: LicenseId", l.organization_id as "organization: OrganizationId", l.key, l.number, l.state,
                  l.reason, l.seen_at, l.decided_by as "decided_by: OrganizationId", l.updated_at as decided_at,
                  array(select r.license_id from license_revocations r
                         where r.license_id = any(l.chain) and r.key_id = l.anchor) as "revoked!: Vec<LicenseId>",
                  greatest(l.created_at, (select v.made_at from license_revocation_lists v where v.key_id = l.anchor))
                      as "informed!"
             from organization_closure c join licenses l on l.organization_id = c.ancestor_id
            where c.descendant_id = $1 and l.state <> 'replaced' order by c.depth desc"#,
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Stored::from).collect())
}

/// The license in force of the transaction's organization, held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx) -> Result<Option<Stored>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select l.id as "id: LicenseId", l.organization_id as "organization: OrganizationId", l.key, l.number, l.state,
                  l.reason, l.seen_at, l.decided_by as "decided_by: OrganizationId", l.updated_at as decided_at,
                  array(select r.license_id from license_revocations r
                         where r.license_id = any(l.chain) and r.key_id = l.anchor) as "revoked!: Vec<LicenseId>",
                  greatest(l.created_at, (select v.made_at from license_revocation_lists v where v.key_id = l.anchor))
                      as "informed!"
             from licenses l where l.organization_id = $1 and l.state <> 'replaced' for update of l"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(Stored::from))
}

/// The highest number that a license of the transaction's organization has had; 0: it has had none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn highest(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select coalesce(max(number), 0) as "number!" from licenses where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Puts a key in force, in place of the one before. One whose number was there before violates `licenses_number_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_in_force(tx: &mut TenantTx, chain: &Chain, key: &str) -> Result<(), sqlx::Error> {
    let (organization, now, own) = (tx.organization(), tx.now(), chain.own());
    sqlx::query!(
        "update licenses set state = 'replaced', updated_at = $2 where organization_id = $1 and state <> 'replaced'",
        organization.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    let ids: Vec<uuid::Uuid> = chain::ids(chain).map(LicenseId::uuid).collect();
    let offline = chain.links().iter().filter_map(|claims| claims.off).min();
    sqlx::query!(
        "insert into licenses (id, organization_id, key, number, state, seen_at, created_at, updated_at, chain, anchor,
                               offline_seconds)
         values ($1, $2, $3, $4, 'active', $5, $5, $5, $6, $7, $8)",
        own.jti.uuid(),
        organization.uuid(),
        key,
        i64::try_from(own.seq).unwrap_or(i64::MAX),
        now,
        &ids,
        chain.anchor().as_str(),
        offline.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
    )
    .execute(tx.connection())
    .await?;
    limits::notify(tx, None).await
}

/// Decides about the license in force of the transaction's organization, for the organization `by`; `false`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn decide(
    tx: &mut TenantTx,
    status: Status,
    reason: Option<&str>,
    by: OrganizationId,
) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let state = match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Replaced => "replaced",
        Status::Revoked => "revoked",
    };
    let done = sqlx::query!(
        "update licenses set state = $2, reason = $3, updated_at = $4, seen_at = greatest(seen_at, $4), decided_by = $5
          where organization_id = $1 and state <> 'replaced'",
        organization.uuid(),
        state,
        reason,
        now,
        by.uuid()
    )
    .execute(tx.connection())
    .await?;
    limits::notify(tx, None).await?;
    Ok(done.rows_affected() == 1)
}

/// Whether one organization is another, or stands above it, seen from the transaction's, which is below both. One that is not
/// above it any more is above nobody.
///
/// # Errors
/// When the database refuses or went away.
pub async fn is_at_or_above(
    tx: &mut TenantTx,
    one: OrganizationId,
    other: OrganizationId,
) -> Result<bool, sqlx::Error> {
    if one == other || one == OrganizationId::PLATFORM {
        return Ok(true);
    }
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select coalesce((select depth from organization_closure where descendant_id = $1 and ancestor_id = $2)
                         > (select depth from organization_closure where descendant_id = $1 and ancestor_id = $3), false)
               as "above!""#,
        organization.uuid(),
        one.uuid(),
        other.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// What a license means for rows that are inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Of what.
    pub limit: Limit,
    /// How many there may be; `None`: any number.
    pub most: Option<u64>,
    /// Until when something is added; `None`: for good.
    pub grows_until: Option<DateTime<Utc>>,
}

/// Lets these count for the transaction's organization and those below it, and no others.
///
/// # Errors
/// When the database refuses or went away.
pub async fn count_by(tx: &mut TenantTx, counters: &[Counter]) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let kinds: Vec<String> = counters.iter().map(|counter| counter.limit.counts().to_owned()).collect();
    let names: Vec<String> = counters.iter().map(|counter| counter.limit.as_str().to_owned()).collect();
    let bigint = |most: u64| i64::try_from(most).unwrap_or(i64::MAX);
    let most: Vec<Option<i64>> = counters.iter().map(|counter| counter.most.map(bigint)).collect();
    let until: Vec<Option<DateTime<Utc>>> = counters.iter().map(|counter| counter.grows_until).collect();
    sqlx::query!("delete from license_counters where organization_id = $1", organization.uuid())
        .execute(tx.connection())
        .await?;
    sqlx::query!(
        "insert into license_counters (organization_id, kind, limit_name, most, grows_until)
         select $1, kind, name, most, until
           from unnest($2::text[], $3::text[], $4::bigint[], $5::timestamptz[]) as given (kind, name, most, until)",
        organization.uuid(),
        &kinds,
        &names,
        &most as &[Option<i64>],
        &until as &[Option<DateTime<Utc>>]
    )
    .execute(tx.connection())
    .await?;
    recount(tx).await
}

/// Counts anew what the license of the transaction's organization limits.
///
/// # Errors
/// When the database refuses or went away.
pub async fn recount(tx: &mut TenantTx) -> Result<(), sqlx::Error> {
    sqlx::query!(r#"select licenses_recount()::text as "done""#).fetch_one(tx.connection()).await.map(drop)
}

/// Why nothing of what a limit counts is added in an organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// A license has ended, or was taken away.
    Ended,
    /// There are more than there may be.
    Over,
}

/// Whether something that was counted already may come into being in the transaction's organization, by its license and those
/// above it; `None`: it may.
///
/// # Errors
/// When the database refuses or went away.
pub async fn full(tx: &mut TenantTx, limit: Limit) -> Result<Option<Full>, sqlx::Error> {
    let word = sqlx::query_scalar!("select licenses_full($1)", limit.counts()).fetch_one(tx.connection()).await?;
    Ok(match word.as_deref() {
        None => None,
        Some("license_limit") => Some(Full::Over),
        Some(_) => Some(Full::Ended),
    })
}

/// Organizations that have a license, after `after`, for the job that looks after all of them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn watched(
    db: &EngineDb,
    after: Option<OrganizationId>,
    limit: i32,
) -> Result<Vec<OrganizationId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id as "id!: OrganizationId" from licenses_watched($1, $2) as id"#,
        after.map(OrganizationId::uuid),
        limit
    )
    .fetch_all(db.pool())
    .await
}

/// The license in force of the transaction's organization was looked at now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn saw(tx: &mut TenantTx) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update licenses set seen_at = $2 where organization_id = $1 and state <> 'replaced' and seen_at < $2",
        organization.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// What was told of a license of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn told(tx: &mut TenantTx, license: LicenseId) -> Result<BTreeSet<String>, sqlx::Error> {
    let organization = tx.organization();
    let words = sqlx::query_scalar!(
        "select what from license_alerts where organization_id = $1 and license_id = $2",
        organization.uuid(),
        license.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(words.into_iter().collect())
}

/// These need not be told of a license any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn note_told(tx: &mut TenantTx, license: LicenseId, words: &[String]) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into license_alerts (organization_id, license_id, what, told_at)
         select $1, $2, word, $4 from unnest($3::text[]) as word on conflict do nothing",
        organization.uuid(),
        license.uuid(),
        words,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// How many there are of what licenses limit, in an organization and below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn usage(tx: &mut TenantTx, id: OrganizationId) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let counts = tree::counts_of(tx, id).await?.unwrap_or_default();
    let used = |limit: &Limit| {
        let count = counts.iter().find(|count| count.kind == limit.counts());
        let used = count.and_then(|count| u64::try_from(count.total).ok()).unwrap_or(0);
        (limit.as_str().to_owned(), used)
    };
    Ok(Limit::ALL.iter().map(used).collect())
}

/// What a license of a tier has unless told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its features.
    pub features: Vec<String>,
    /// How many there may be; `None`: any number.
    pub limits: BTreeMap<String, Option<u64>>,
    /// Its place, from the smallest.
    pub place: i16,
}

struct TierRow {
    tier: String,
    features: Vec<String>,
    limits: serde_json::Value,
    place: i16,
}

impl From<TierRow> for Tier {
    fn from(row: TierRow) -> Self {
        let limits = row.limits.as_object().into_iter().flatten();
        let limits = limits.map(|(name, most)| (name.clone(), most.as_u64())).collect();
        Self { name: row.tier, features: row.features, limits, place: row.place }
    }
}

/// Every tier, from the smallest.
///
/// # Errors
/// When the database refuses or went away.
pub async fn tiers(tx: &mut TenantTx) -> Result<Vec<Tier>, sqlx::Error> {
    let rows = sqlx::query_as!(
        TierRow,
        "select tier, features, limits, place from license_tiers order by place, tier limit 1000"
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().map(Tier::from).collect())
}

/// Makes a tier, or changes it; the platform's transaction only. Licenses that were given stay as they are.
///
/// # Errors
/// When the database refuses or went away.
pub async fn set_tier(tx: &mut TenantTx, tier: &Tier) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    let limits = serde_json::json!(tier.limits);
    sqlx::query!(
        "insert into license_tiers (tier, organization_id, features, limits, place) values ($1, $2, $3, $4, $5)
             on conflict (tier) do update
            set features = excluded.features, limits = excluded.limits, place = excluded.place",
        tier.name,
        organization.uuid(),
        &tier.features,
        limits,
        tier.place
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A key that signs licenses cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// It does not open, or could not be made.
    #[error("the key that signs licenses")]
    Seal(#[from] SealError),
    /// The machine has no randomness.
    #[error("the key that signs licenses")]
    Key(#[from] super::keys::KeyError),
    /// The database refused or went away.
    #[error("looking for the key that signs licenses")]
    Database(#[from] sqlx::Error),
}

/// The one place where a secret opens.
pub(crate) fn place(organization: OrganizationId, row: uuid::Uuid) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "license_issuers", column: "secret", row }
}

fn opened(keys: &SealingKeys, place: &SealContext<'_>, sealed: &[u8]) -> Result<SecretKey, SealError> {
    let seed = keys.open(place, sealed)?;
    let seed: &[u8; 32] = seed.expose_secret().try_into().map_err(|_| SealError::Malformed)?;
    Ok(SecretKey::from_seed(seed))
}

/// What the transaction's organization signs licenses with, made if there is none.
///
/// # Errors
/// When it does not open, or the database refuses or went away.
pub async fn issuer(tx: &mut TenantTx, keys: &SealingKeys) -> Result<SecretKey, IssuerError> {
    crate::turn::take(tx, "license issuer").await?;
    let organization = tx.organization();
    let newest = sqlx::query!(
        "select id, secret from license_issuers where organization_id = $1 order by id desc limit 1",
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    if let Some(row) = newest {
        return Ok(opened(keys, &place(organization, row.id), &row.secret)?);
    }
    let (key, id, now) = (SecretKey::generate()?, tx.ids().mint::<uuid::Uuid>(), tx.now());
    let secret = keys.seal(&place(organization, id), key.seed())?;
    sqlx::query!(
        "insert into license_issuers (id, organization_id, secret, created_at) values ($1, $2, $3, $4)",
        id,
        organization.uuid(),
        secret,
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(key)
}

/// The keys of the platform's own whose secrets open: what it signs is believed. The transaction is the platform's.
///
/// # Errors
/// When the database refuses or went away.
pub async fn believed(tx: &mut TenantTx, keys: &SealingKeys) -> Result<Vec<PublicKey>, sqlx::Error> {
    let organization = OrganizationId::PLATFORM;
    let rows = sqlx::query!(
        "select id, secret from license_issuers where organization_id = $1 order by id limit 100",
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    let public = |(id, secret): (uuid::Uuid, Vec<u8>)| {
        opened(keys, &place(organization, id), &secret).ok().map(|key| key.public())
    };
    Ok(rows.into_iter().filter_map(|row| public((row.id, row.secret))).collect())
}
