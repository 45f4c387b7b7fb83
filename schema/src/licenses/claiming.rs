//! Licenses that wait for somebody who has their code, in the table.

use chrono::{DateTime, Duration, Utc};

use super::chain::Chain;
use super::code::ClaimCode;
use crate::window::in_order;
use crate::{JobTx as _, LicenseClaimId, LicenseId, OrganizationId, TenantTx, Window};

/// How long a code is good.
pub const LASTS: Duration = Duration::days(30);

/// Codes of an organization that may stand at a time.
pub const MAX_STANDING: i64 = 20;

/// How long one that is over is still listed.
const LISTED: Duration = Duration::days(366);

/// A license that waits, or waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its id.
    pub id: LicenseClaimId,
    /// Whose license it is to be.
    pub organization: OrganizationId,
    /// Who gives it.
    pub issuer: OrganizationId,
    /// The license.
    pub license: LicenseId,
    /// Its number.
    pub number: i64,
    /// The name of its tier.
    pub tier: String,
    /// When it was kept.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// Until when its code is good.
    pub expires_at: DateTime<Utc>,
    /// When somebody put it in force.
    pub claimed_at: Option<DateTime<Utc>>,
    /// Who did.
    pub claimed_by: Option<String>,
    /// When it was withdrawn.
    pub withdrawn_at: Option<DateTime<Utc>>,
}

/// How many codes of the transaction's organization stand.
///
/// # Errors
/// When the database refuses or went away.
pub async fn standing(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from license_claims
            where organization_id = $1 and claimed_at is null and withdrawn_at is null and expires_at > $2"#,
        organization.uuid(),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// The highest number of a license of the transaction's organization that waits; 0: none does.
///
/// # Errors
/// When the database refuses or went away.
pub async fn highest(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select coalesce(max(number), 0) as "number!" from license_claims where organization_id = $1"#,
        organization.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Keeps a license of the transaction's organization for whoever has the code. What is long over is forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut TenantTx,
    code: ClaimCode,
    chain: &Chain,
    key: &str,
    issuer: OrganizationId,
    by: &str,
) -> Result<Claim, sqlx::Error> {
    let (id, organization, now, own) = (tx.ids().mint::<LicenseClaimId>(), tx.organization(), tx.now(), chain.own());
    sqlx::query!(
        "delete from license_claims where organization_id = $1 and expires_at <= $2",
        organization.uuid(),
        now - LISTED
    )
    .execute(tx.connection())
    .await?;
    let hash = code.hash();
    sqlx::query_as!(
        Claim,
        r#"insert into license_claims (id, organization_id, issuer_id, license_id, number, tier, code_hash, key, created_at,
                                       created_by, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        returning id as "id: LicenseClaimId", organization_id as "organization: OrganizationId",
                  issuer_id as "issuer: OrganizationId", license_id as "license: LicenseId", number, tier, created_at,
                  created_by, expires_at, claimed_at, claimed_by, withdrawn_at"#,
        id.uuid(),
        organization.uuid(),
        issuer.uuid(),
        own.jti.uuid(),
        i64::try_from(own.seq).unwrap_or(i64::MAX),
        own.tier,
        hash.as_slice(),
        key,
        now,
        by,
        now + LASTS
    )
    .fetch_one(tx.connection())
    .await
}

/// Uses a code of the transaction's organization up. Answers what waited for it, and the license's key; `None`: none stands
/// with this code.
///
/// # Errors
/// When the database refuses or went away.
pub async fn claim(tx: &mut TenantTx, code: ClaimCode, by: &str) -> Result<Option<(Claim, String)>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let hash = code.hash();
    let row = sqlx::query!(
        r#"update license_claims set claimed_at = $3, claimed_by = $4
            where organization_id = $1 and code_hash = $2 and claimed_at is null and withdrawn_at is null
              and expires_at > $3
        returning id as "id: LicenseClaimId", issuer_id as "issuer: OrganizationId", license_id as "license: LicenseId",
                  number, tier, created_at, created_by, expires_at, claimed_at, claimed_by, withdrawn_at, key"#,
        organization.uuid(),
        hash.as_slice(),
        now,
        by
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| {
        let claim = Claim {
            id: row.id,
            organization,
            issuer: row.issuer,
            license: row.license,
            number: row.number,
            tier: row.tier,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            claimed_at: row.claimed_at,
            claimed_by: row.claimed_by,
            withdrawn_at: row.withdrawn_at,
        };
        (claim, row.key)
    }))
}

/// Withdraws a license that waits; `false`: it does not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn withdraw(tx: &mut TenantTx, id: LicenseClaimId) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update license_claims set withdrawn_at = $3
          where organization_id = $1 and id = $2 and claimed_at is null and withdrawn_at is null",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// A license that waits for the transaction's organization, or waited.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: LicenseClaimId) -> Result<Option<Claim>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Claim,
        r#"select id as "id: LicenseClaimId", organization_id as "organization: OrganizationId",
                  issuer_id as "issuer: OrganizationId", license_id as "license: LicenseId", number, tier, created_at,
                  created_by, expires_at, claimed_at, claimed_by, withdrawn_at
             from license_claims where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Licenses that wait for the transaction's organization, or waited, in pages.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, window: Window) -> Result<Vec<Claim>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Claim,
                r#"select id as "id: LicenseClaimId", organization_id as "organization: OrganizationId",
                          issuer_id as "issuer: OrganizationId", license_id as "license: LicenseId", number, tier,
                          created_at, created_by, expires_at, claimed_at, claimed_by, withdrawn_at
                     from license_claims where organization_id = $1 and id > $2 and id < $3 order by id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}
