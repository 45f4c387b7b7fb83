//! Lists of what issuers revoked, in the tables. Everything here but [`named`] is the platform's.

use chrono::{DateTime, Utc};

use super::chain::{self, Chain};
use super::keys::KeyId;
use super::revocations::Revocations;
use crate::{JobTx as _, LicenseId, OrganizationId, TenantTx, limits};

/// The newest list of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name of the key.
    pub key_id: String,
    /// Its number.
    pub epoch: i64,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// When it was imported.
    pub imported_at: DateTime<Utc>,
    /// Licenses that lists of the key ever named.
    pub licenses: i64,
}

/// The number of the newest list of a key; `None`: none was imported.
///
/// # Errors
/// When the database refuses or went away.
pub async fn epoch(tx: &mut TenantTx, key: &KeyId) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!("select epoch from license_revocation_lists where key_id = $1", key.as_str())
        .fetch_optional(tx.connection())
        .await
}

/// Takes a list in place of the one before of its key. What that one named stays revoked. Answers the licenses that were not
/// known to be revoked.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(
    tx: &mut TenantTx,
    key: &KeyId,
    list: &Revocations,
    text: &str,
) -> Result<Vec<LicenseId>, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "insert into license_revocation_lists (key_id, epoch, list, made_at, imported_at) values ($1, $2, $3, $4, $5)
             on conflict (key_id) do update
            set epoch = excluded.epoch, list = excluded.list, made_at = excluded.made_at, imported_at = excluded.imported_at",
        key.as_str(),
        i64::try_from(list.epo).unwrap_or(i64::MAX),
        text,
        list.iat,
        now
    )
    .execute(tx.connection())
    .await?;
    let ids: Vec<uuid::Uuid> = list.rev.iter().copied().map(LicenseId::uuid).collect();
    let fresh = sqlx::query_scalar!(
        r#"insert into license_revocations (license_id, key_id, revoked_at)
           select id, $2, $3 from unnest($1::uuid[]) as id on conflict do nothing
        returning license_id as "license: LicenseId""#,
        &ids,
        key.as_str(),
        now
    )
    .fetch_all(tx.connection())
    .await?;
    limits::notify(tx, None).await?;
    Ok(fresh)
}

/// An organization that a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concerned {
    /// The organization.
    pub organization: OrganizationId,
    /// Its license in force is named, or was made of one that is. Otherwise it goes on for a while longer, because there is news.
    pub revoked: bool,
}

/// The organizations whose licenses in force began with this key, and are among these, were made of one of them, or go on only
/// for a while without news.
///
/// # Errors
/// When the database refuses or went away.
pub async fn concerned(tx: &mut TenantTx, licenses: &[LicenseId], key: &KeyId) -> Result<Vec<Concerned>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = licenses.iter().copied().map(LicenseId::uuid).collect();
    sqlx::query_as!(
        Concerned,
        r#"select organization_id as "organization!: OrganizationId", revoked as "revoked!" from licenses_made_of($1, $2)"#,
        &ids,
        key.as_str()
    )
    .fetch_all(tx.connection())
    .await
}

/// A license of a chain that a list of its issuer names; `None`: none does.
///
/// # Errors
/// When the database refuses or went away.
pub async fn named(tx: &mut TenantTx, chain: &Chain) -> Result<Option<LicenseId>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = chain::ids(chain).map(LicenseId::uuid).collect();
    sqlx::query_scalar!(
        r#"select license_id as "license: LicenseId" from license_revocations
            where license_id = any($1) and key_id = $2 limit 1"#,
        &ids,
        chain.anchor().as_str()
    )
    .fetch_optional(tx.connection())
    .await
}

/// The newest list of every key.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lists(tx: &mut TenantTx) -> Result<Vec<Listed>, sqlx::Error> {
    sqlx::query_as!(
        Listed,
        r#"select key_id, epoch, made_at, imported_at,
                  (select count(*) from license_revocations r where r.key_id = l.key_id) as "licenses!"
             from license_revocation_lists l order by key_id limit 1000"#
    )
    .fetch_all(tx.connection())
    .await
}
