//! Support: one above an organization does something in it, for a while and for a reason, and its people see it.

use chrono::{DateTime, Duration, Utc};

use crate::organizations::Permission;
use crate::window::in_order;
use crate::{JobTx as _, OrganizationId, SupportId, TenantTx, Window};

/// The longest that support is given for at once.
pub const LONGEST: Duration = Duration::hours(24);

/// Support that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    /// Its id.
    pub id: SupportId,
    /// In which organization.
    pub organization: OrganizationId,
    /// To which one above it.
    pub granted_to: OrganizationId,
    /// Who may use it, as jobs name on whose behalf they are.
    pub holder: String,
    /// What it allows besides reading.
    pub permissions: Vec<String>,
    /// Why it is needed.
    pub reason: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// When it was ended before that.
    pub ended_at: Option<DateTime<Utc>>,
    /// By whom.
    pub ended_by: Option<String>,
}

/// Gives somebody of the transaction's organization support in one below it.
///
/// # Errors
/// When the database refuses, also because it is not below it.
pub async fn give(
    tx: &mut TenantTx,
    organization: OrganizationId,
    holder: &str,
    permissions: &[Permission],
    reason: &str,
    lasts: Duration,
) -> Result<Support, sqlx::Error> {
    let (id, own, now) = (tx.ids().mint::<SupportId>(), tx.organization(), tx.now());
    let words: Vec<String> = permissions.iter().map(ToString::to_string).collect();
    sqlx::query_as!(
        Support,
        r#"insert into support_grants (id, organization_id, granted_to, holder, permissions, reason, created_at, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8)
        returning id as "id: SupportId", organization_id as "organization: OrganizationId",
                  granted_to as "granted_to: OrganizationId", holder, permissions, reason, created_at, expires_at,
                  ended_at, ended_by"#,
        id.uuid(),
        organization.uuid(),
        own.uuid(),
        holder,
        &words,
        reason,
        now,
        now + lasts
    )
    .fetch_one(tx.connection())
    .await
}

/// A page of the support that was given in an organization: of the transaction's organization all of it, of one below it
/// what its own people were given.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(
    tx: &mut TenantTx,
    organization: OrganizationId,
    window: Window,
) -> Result<Vec<Support>, sqlx::Error> {
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Support,
                r#"select id as "id: SupportId", organization_id as "organization: OrganizationId",
                          granted_to as "granted_to: OrganizationId", holder, permissions, reason, created_at, expires_at,
                          ended_at, ended_by
                     from support_grants
                    where organization_id = $1 and id > $2 and id < $3
                    order by id "#
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

/// Ends support at once; what it was afterwards. `None`: there is none. It may be ended by whom it was given to, and by
/// the organization it was given in.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end(
    tx: &mut TenantTx,
    organization: OrganizationId,
    id: SupportId,
    by: &str,
) -> Result<Option<Support>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Support,
        r#"update support_grants
              set ended_by = case when ended_at is null and expires_at > $3 then $4 else ended_by end,
                  ended_at = case when expires_at > $3 then coalesce(ended_at, $3) else ended_at end
            where organization_id = $1 and id = $2
        returning id as "id: SupportId", organization_id as "organization: OrganizationId",
                  granted_to as "granted_to: OrganizationId", holder, permissions, reason, created_at, expires_at,
                  ended_at, ended_by"#,
        organization.uuid(),
        id.uuid(),
        now,
        by
    )
    .fetch_optional(tx.connection())
    .await
}
