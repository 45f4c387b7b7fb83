//! Organizations in the table.

use chrono::{DateTime, Utc};

use crate::window::in_order;
use crate::{EngineDb, JobTx, OrganizationId, TenantTx, Window};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// The one above it.
    pub parent: Option<OrganizationId>,
    /// What people call it.
    pub name: String,
    /// Its share of a queue while others wait too.
    pub weight: i16,
    /// Jobs it may have running at the same time.
    pub max_running: Option<i32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Makes an organization below `parent`, which must be the transaction's or below it.
///
/// # Errors
/// When the database refuses, also because the parent is somebody else's.
pub async fn create(
    tx: &mut TenantTx,
    parent: OrganizationId,
    name: &str,
    weight: i16,
    max_running: Option<i32>,
) -> Result<Organization, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<OrganizationId>(), tx.now());
    // Visibility comes with the closure rows of the trigger, after the insert: so no `returning`.
    sqlx::query!(
        "insert into organizations (id, parent_id, name, weight, max_running, created_at) values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        parent.uuid(),
        name,
        weight,
        max_running,
        now
    )
    .execute(tx.connection())
    .await?;
    crate::jobs::pause::notify(tx.connection()).await?;
    Ok(Organization { id, parent: Some(parent), name: name.to_owned(), weight, max_running, created_at: now })
}

/// The organization, if it is the transaction's or below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: OrganizationId) -> Result<Option<Organization>, sqlx::Error> {
    sqlx::query_as!(
        Organization,
        r#"select id as "id: OrganizationId", parent_id as "parent: OrganizationId", name, weight, max_running, created_at
             from organizations where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// A page of the transaction's organization and those below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Organization>, sqlx::Error> {
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Organization,
                r#"select id as "id: OrganizationId", parent_id as "parent: OrganizationId", name, weight, max_running,
                          created_at
                     from organizations where id > $1 and id < $2 order by id "#
                    + $order
                    + " limit $3",
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

/// Every organization after `after`, by id, as the engine sees them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ids(db: &EngineDb, after: Option<OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id as "id: OrganizationId" from organizations where $1::uuid is null or id > $1 order by id limit $2"#,
        after.map(OrganizationId::uuid),
        limit
    )
    .fetch_all(db.pool())
    .await
}
