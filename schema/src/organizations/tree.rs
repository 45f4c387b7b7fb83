//! The tree: moving a part of it, and looking at it with what it has.

use super::{Count, Organization, OrganizationType, counts};
use crate::{EngineDb, JobTx, OrganizationId, TenantTx};

/// An organization in its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The organization.
    pub organization: Organization,
    /// How far below the root of what is looked at: 0 is the root itself.
    pub depth: i32,
    /// What it has, and what all below it have with it.
    pub counts: Vec<Count>,
}

/// Lets nobody else change the tree until the transaction ends. Who checks something about the tree before changing
/// it does so after this.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take_turn(tx: &mut TenantTx) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(6083295)").fetch_one(tx.connection()).await.map(drop)
}

/// Puts an organization, with all below it, below another; `false`: there is none. Below itself violates
/// `organizations_no_cycle`; a place where it may not stand `organizations_place_check`; below a deleted one
/// `organizations_parent_deleted`; beside one with its slug `organizations_slug_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_below(tx: &mut TenantTx, id: OrganizationId, parent: OrganizationId) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set parent_id = $2, updated_at = $3 where id = $1",
        id.uuid(),
        parent.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Puts everything directly below an organization directly below another instead. Answers how many that was. Fails as
/// [`put_below`].
///
/// # Errors
/// When the database refuses or went away.
pub async fn put_children_below(
    tx: &mut TenantTx,
    id: OrganizationId,
    parent: OrganizationId,
) -> Result<u64, sqlx::Error> {
    let now = tx.now();
    sqlx::query!(
        "update organizations set parent_id = $2, updated_at = $3 where parent_id = $1 and deleted_at is null",
        id.uuid(),
        parent.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected())
}

/// The place in a tree after which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How far below the root.
    pub depth: i32,
    /// Which one there.
    pub id: OrganizationId,
}

/// The transaction's organization and those below it that were not deleted, down to `depth`, level by level, after
/// `after`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, depth: i32, after: Option<Place>, limit: i64) -> Result<Vec<Node>, sqlx::Error> {
    let root = tx.organization();
    let after = after.unwrap_or(Place { depth: -1, id: OrganizationId::from_uuid(uuid::Uuid::nil()) });
    // A plan for the organization at hand believes that it has few below it, because of the policies, and reads them all.
    sqlx::query!("set local plan_cache_mode = force_generic_plan").execute(tx.connection()).await?;
    let rows = sqlx::query!(
        r#"with page as materialized (
               select c.descendant_id as id, c.depth
                 from organization_closure c join organizations o on o.id = c.descendant_id
                where c.ancestor_id = $1 and c.depth <= $2 and (c.depth, c.descendant_id) > ($3, $4)
                  and o.deleted_at is null
                order by c.depth, c.descendant_id limit $5),
           sums as (
               select parts.organization_id, parts.kind, sum(parts.own)::bigint as own, sum(parts.total)::bigint as total
                 from (select t.organization_id, t.kind, t.own, t.total
                         from page join organization_totals t on t.organization_id = page.id
                        union all
                       select a.organization_id, a.kind, a.own, a.total
                         from organization_adjustments a where a.organization_id in (select id from page)) as parts
                group by parts.organization_id, parts.kind)
           select o.id as "id: OrganizationId", o.parent_id as "parent: OrganizationId", o.type as "type: OrganizationType",
                  o.name, o.slug, o.weight, o.max_running, o.suspended_at, o.suspended_reason, o.deleted_at,
                  o.held_by as "held_by: OrganizationId", o.created_at, o.updated_at, page.depth,
                  (select jsonb_object_agg(sums.kind, jsonb_build_array(sums.own, sums.total))
                     from sums where sums.organization_id = page.id) as counts
             from page join organizations o on o.id = page.id
            order by page.depth, page.id"#,
        root.uuid(),
        depth,
        after.depth,
        after.id.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let nodes = rows.into_iter().map(|row| Node {
        depth: row.depth,
        counts: counts::read(&row.counts.unwrap_or_default()),
        organization: Organization {
            id: row.id,
            parent: row.parent,
            r#type: row.r#type,
            name: row.name,
            slug: row.slug,
            weight: row.weight,
            max_running: row.max_running,
            suspended_at: row.suspended_at,
            suspended_reason: row.suspended_reason,
            deleted_at: row.deleted_at,
            held_by: row.held_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
        },
    });
    Ok(nodes.collect())
}

/// What an organization has, with all below it; `None`: it is neither the transaction's nor below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn counts_of(tx: &mut TenantTx, id: OrganizationId) -> Result<Option<Vec<Count>>, sqlx::Error> {
    let stored = sqlx::query_scalar!(
        r#"with sums as (
               select parts.kind, sum(parts.own)::bigint as own, sum(parts.total)::bigint as total
                 from (select kind, own, total from organization_totals where organization_id = $1
                        union all
                       select kind, own, total from organization_adjustments where organization_id = $1) as parts
                group by parts.kind)
           select (select jsonb_object_agg(kind, jsonb_build_array(own, total)) from sums) as counts
             from organizations where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(stored.map(|stored| counts::read(&stored.unwrap_or_default())))
}

/// Counts everything again from what is there, and puts right what differs. Answers how many counts did.
///
/// # Errors
/// When the database refuses or went away.
pub async fn recount(db: &EngineDb) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select organizations_recount() as "mended!""#).fetch_one(db.pool()).await
}

/// Adds up to `limit` changes up along the tree. Answers how many there were.
///
/// # Errors
/// When the database refuses or went away.
pub async fn add_up(db: &EngineDb, limit: i32) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select organizations_add_up($1) as "taken!""#, limit).fetch_one(db.pool()).await
}
