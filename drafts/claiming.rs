//! Licenses that wait for somebody who has their code, in the table.

use chrono::Duration;

use super::code::ClaimCode;
use crate::{JobTx as _, TenantTx};

/// How long a code is good.
pub const LASTS: Duration = Duration::days(30);

/// Codes that an organization has at a time.
pub const MOST: i64 = 20;

/// Keeps a license for whoever has the code; `false`: there are as many as there may be. What is over is forgotten.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(tx: &mut TenantTx, code: ClaimCode, key: &str) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "delete from license_claims where organization_id = $1 and (expires_at <= $2 or claimed_at is not null)",
        organization.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    let hash = code.hash();
    sqlx::query!(
        "insert into license_claims (organization_id, code_hash, key, created_at, expires_at)
         select $1, $2, $3, $4, $5 where (select count(*) from license_claims where organization_id = $1) < $6",
        organization.uuid(),
        hash.as_slice(),
        key,
        now,
        now + LASTS,
        MOST
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The license of a code of the transaction's organization, which is good no more after this; `None`: there is none.
///
/// # Errors
/// When the database refuses or went away.
pub async fn claim(tx: &mut TenantTx, code: ClaimCode) -> Result<Option<String>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let hash = code.hash();
    sqlx::query_scalar!(
        "update license_claims set claimed_at = $3
          where organization_id = $1 and code_hash = $2 and claimed_at is null and expires_at > $3 returning key",
        organization.uuid(),
        hash.as_slice(),
        now
    )
    .fetch_optional(tx.connection())
    .await
}
