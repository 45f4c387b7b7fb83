//! Signed statements of what was used, in the table.

use chrono::{DateTime, Duration, NaiveDate, Utc};

use super::history;
use super::keys::SecretKey;
use super::statements::{MAX_DAYS, Mark, Statement, VERSION, digest};
use crate::digest::{hex, sha256_alone};
use crate::window::in_order;
use crate::{JobTx as _, LicenseStatementId, TenantTx, Window, turn};

/// Statements of an organization that are kept; of older ones the chain keeps the digests.
pub const KEPT: i64 = 1_000;

/// A statement that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// Its id.
    pub id: LicenseStatementId,
    /// Counts the organization's statements, from 1.
    pub number: i64,
    /// The text: what is carried away.
    pub statement: String,
    /// Its SHA-256.
    pub digest: Vec<u8>,
    /// The first day it tells of.
    pub first_day: NaiveDate,
    /// The last one.
    pub last_day: NaiveDate,
    /// When it was made.
    pub made_at: DateTime<Utc>,
}

/// States what the transaction's organization used since its last statement, signed with a key that [`crate::audit::keys::signing`]
/// gives.
///
/// # Errors
/// When the database refuses or went away.
pub async fn make(tx: &mut TenantTx, key: &SecretKey) -> Result<Stated, sqlx::Error> {
    turn::take(tx, "license statement").await?;
    let (organization, now) = (tx.organization(), tx.now());
    let today = now.date_naive();
    let before = last(tx).await?;
    let first = match &before {
        // It was not over when that one was made.
        Some(before) => before.last_day,
        None => history::first_day(tx).await?.unwrap_or(today),
    };
    let last = today.min(first + Duration::days(MAX_DAYS - 1)).max(first);
    let marks = history::between(tx, first, last).await?;
    let mark = |used: history::Used| Mark {
        day: used.day,
        lic: used.license,
        lim: used.limit,
        used: used.used.unsigned_abs(),
        most: used.most.map(i64::unsigned_abs),
    };
    let number = before.as_ref().map_or(0, |before| before.number) + 1;
    let statement = Statement {
        ver: VERSION,
        sub: organization,
        num: number.unsigned_abs(),
        prev: before.as_ref().map(|before| hex(&before.digest)),
        iat: now,
        from: first,
        thru: last,
        marks: marks.into_iter().map(mark).collect(),
    };
    let text = statement.sign(key);
    let stated = Stated {
        id: tx.ids().mint(),
        number,
        digest: sha256_alone(text.as_bytes()).to_vec(),
        statement: text,
        first_day: first,
        last_day: last,
        made_at: now,
    };
    debug_assert_eq!(hex(&stated.digest), digest(&stated.statement));
    sqlx::query!(
        "insert into license_statements (id, organization_id, number, statement, digest, first_day, last_day, made_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        stated.id.uuid(),
        organization.uuid(),
        stated.number,
        stated.statement,
        stated.digest,
        stated.first_day,
        stated.last_day,
        stated.made_at
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "delete from license_statements where organization_id = $1 and number <= $2",
        organization.uuid(),
        stated.number - KEPT
    )
    .execute(tx.connection())
    .await?;
    Ok(stated)
}

async fn last(tx: &mut TenantTx) -> Result<Option<Stated>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Stated,
        r#"select id as "id: LicenseStatementId", number, statement, digest, first_day, last_day, made_at
             from license_statements where organization_id = $1 order by number desc limit 1"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// The statements of the transaction's organization, in pages.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, window: Window) -> Result<Vec<Stated>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Stated,
                r#"select id as "id: LicenseStatementId", number, statement, digest, first_day, last_day, made_at
                     from license_statements where organization_id = $1 and id > $2 and id < $3 order by id "#
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
