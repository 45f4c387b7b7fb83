//! Bins and what they received, in the tables.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::BinToken;
use crate::window::in_order;
use crate::{BinId, CredentialTx, InspectedId, JobTx, OrganizationId, TenantTx, Window};

/// Requests a bin keeps: the newest.
pub const KEPT: i64 = 100;

/// Bytes of requests that the bins of an organization keep together: the newest.
pub const KEPT_BYTES: i64 = 16 * 1024 * 1024;

/// A receiving bin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bin {
    /// Its id.
    pub id: BinId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What its URL ends in.
    pub token: String,
    /// What it answers.
    pub status: i16,
    /// After how long.
    pub delay_ms: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A request that a bin received.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// Its id.
    pub id: InspectedId,
    /// Where it was received.
    pub bin: BinId,
    /// `POST`, mostly.
    pub method: String,
    /// What came after the token.
    pub path: String,
    /// What came after the question mark.
    pub query: Option<String>,
    /// Pairs of name and value, as they came.
    pub headers: Value,
    /// The body, as far as it is kept.
    pub body: Vec<u8>,
    /// The body was longer.
    pub truncated: bool,
    /// When.
    pub received_at: DateTime<Utc>,
}

/// The bin that a transaction's token opens.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx, token: &BinToken) -> Result<Option<Bin>, sqlx::Error> {
    sqlx::query_as!(
        Bin,
        r#"select id as "id: BinId", organization_id as "organization: OrganizationId", name, token, status, delay_ms,
                  created_at
             from inspector_bins where token = $1"#,
        token.as_str()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Stores a new bin.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, bin: &Bin) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into inspector_bins (id, organization_id, name, token, status, delay_ms, created_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
        bin.id.uuid(),
        bin.organization.uuid(),
        bin.name,
        bin.token,
        bin.status,
        bin.delay_ms,
        bin.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A bin of the organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: BinId) -> Result<Option<Bin>, sqlx::Error> {
    sqlx::query_as!(
        Bin,
        r#"select id as "id: BinId", organization_id as "organization: OrganizationId", name, token, status, delay_ms,
                  created_at
             from inspector_bins where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// As [`find`], and nobody else changes it until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: BinId) -> Result<Option<Bin>, sqlx::Error> {
    sqlx::query!("select id from inspector_bins where id = $1 for update", id.uuid())
        .fetch_optional(tx.connection())
        .await?;
    find(tx, id).await
}

/// The bins of the organization, oldest first; there are few.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Bin>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Bin,
        r#"select id as "id: BinId", organization_id as "organization: OrganizationId", name, token, status, delay_ms,
                  created_at
             from inspector_bins where organization_id = $1 order by id"#,
        organization.uuid()
    )
    .fetch_all(tx.connection())
    .await
}

/// Changes what may change; `None` leaves it. `false`: there is no such bin.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(
    tx: &mut TenantTx,
    id: BinId,
    name: Option<&str>,
    status: Option<i16>,
    delay_ms: Option<i32>,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "update inspector_bins set name = coalesce($2, name), status = coalesce($3, status),
                delay_ms = coalesce($4, delay_ms) where id = $1",
        id.uuid(),
        name,
        status,
        delay_ms
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Removes a bin with what it received; `false`: there is no such bin.
///
/// # Errors
/// When the database refuses or went away.
pub async fn delete(tx: &mut TenantTx, id: BinId) -> Result<bool, sqlx::Error> {
    sqlx::query!("delete from inspector_bins where id = $1", id.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected() == 1)
}

/// Keeps a request, and forgets the oldest beyond [`KEPT`] of its bin and [`KEPT_BYTES`] of its organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(tx: &mut TenantTx, request: &Inspected) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "insert into inspector_requests (id, organization_id, bin_id, method, path, query, headers, body, truncated,
                                         received_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        request.id.uuid(),
        organization.uuid(),
        request.bin.uuid(),
        request.method,
        request.path,
        request.query,
        request.headers,
        request.body,
        request.truncated,
        request.received_at
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "delete from inspector_requests r
          using (select id, row_number() over (partition by bin_id order by id desc) as place,
                        sum(pg_column_size(body) + pg_column_size(headers)) over (order by id desc) as bytes
                   from inspector_requests
                  where bin_id in (select id from inspector_bins where organization_id = $1)) kept
          where r.id = kept.id and (kept.place > $2 or kept.bytes > $3)",
        organization.uuid(),
        KEPT,
        KEPT_BYTES
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// A page of what a bin received.
///
/// # Errors
/// When the database refuses or went away.
pub async fn requests(tx: &mut TenantTx, bin: BinId, window: Window) -> Result<Vec<Inspected>, sqlx::Error> {
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Inspected,
                r#"select id as "id: InspectedId", bin_id as "bin: BinId", method, path, query, headers, body, truncated,
                          received_at
                     from inspector_requests where bin_id = $1 and id > $2 and id < $3 order by id "#
                    + $order
                    + " limit $4",
                bin.uuid(),
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

/// Forgets what a bin received. Answers how many requests that were.
///
/// # Errors
/// When the database refuses or went away.
pub async fn clear(tx: &mut TenantTx, bin: BinId) -> Result<u64, sqlx::Error> {
    sqlx::query!("delete from inspector_requests where bin_id = $1", bin.uuid())
        .execute(tx.connection())
        .await
        .map(|done| done.rows_affected())
}
