//! Organizations in the table.

use chrono::{DateTime, Utc};

use super::{OrganizationType, Slug};
use crate::window::in_order;
use crate::{EngineDb, JobTx, OrganizationId, TenantTx, Window};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// The one above it.
    pub parent: Option<OrganizationId>,
    /// What it is.
    pub r#type: OrganizationType,
    /// What people call it.
    pub name: String,
    /// Its name in URLs, of its own among those below the same one.
    pub slug: String,
    /// Its share of a queue while others wait too.
    pub weight: i16,
    /// Jobs it may have running at the same time.
    pub max_running: Option<i32>,
    /// Since when nothing is done in it.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Why.
    pub suspended_reason: Option<String>,
    /// Since when it can only be restored.
    pub deleted_at: Option<DateTime<Utc>>,
    /// The topmost that is suspended or deleted, of itself and those above it.
    pub held_by: Option<OrganizationId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When its name, its place or its state was last changed.
    pub updated_at: DateTime<Utc>,
}

/// An organization to make.
#[derive(Debug, Clone)]
pub struct NewOrganization<'a> {
    /// The one above it: the transaction's or below it.
    pub parent: OrganizationId,
    /// What people call it.
    pub name: &'a str,
    /// What it is; `None`: what usually stands there.
    pub r#type: Option<OrganizationType>,
    /// Its name in URLs; `None`: made of its name.
    pub slug: Option<Slug>,
    /// Its share of a queue while others wait too.
    pub weight: i16,
    /// Jobs it may have running at the same time.
    pub max_running: Option<i32>,
}

impl<'a> NewOrganization<'a> {
    /// An ordinary one.
    #[must_use]
    pub const fn below(parent: OrganizationId, name: &'a str) -> Self {
        Self { parent, name, r#type: None, slug: None, weight: 1, max_running: None }
    }
}

/// What is changed about an organization; `None`: stays.
#[derive(Debug, Clone, Default)]
pub struct Change<'a> {
    /// What people call it.
    pub name: Option<&'a str>,
    /// What it is.
    pub r#type: Option<OrganizationType>,
    /// Its name in URLs.
    pub slug: Option<&'a Slug>,
    /// Its share of a queue while others wait too.
    pub weight: Option<i16>,
    /// Jobs it may have running at the same time; `Some(None)`: any number.
    pub max_running: Option<Option<i32>>,
}

/// Makes an organization. A place where it may not stand violates `organizations_place_check` or
/// `organizations_parent_deleted`, a slug that is taken `organizations_slug_key`.
///
/// # Errors
/// When the database refuses, also because the parent is somebody else's.
pub async fn create(tx: &mut TenantTx, new: &NewOrganization<'_>) -> Result<Organization, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<OrganizationId>(), tx.now());
    let parent = find(tx, new.parent).await?;
    let usual = parent.as_ref().and_then(|parent| parent.r#type.usual_child());
    let r#type = new.r#type.or(usual).unwrap_or(OrganizationType::EndUser);
    let slug = match &new.slug {
        Some(slug) => slug.clone(),
        None => free_slug(tx, new.parent, new.name, id).await?,
    };
    // Visibility comes with the closure rows of the trigger, after the insert: so no `returning`.
    sqlx::query!(
        "insert into organizations (id, parent_id, type, name, slug, weight, max_running, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
        id.uuid(),
        new.parent.uuid(),
        r#type.as_str(),
        new.name,
        slug.as_str(),
        new.weight,
        new.max_running,
        now
    )
    .execute(tx.connection())
    .await?;
    if new.weight != 1 || new.max_running.is_some() {
        crate::jobs::pause::notify(tx.connection()).await?;
    }
    Ok(Organization {
        id,
        parent: Some(new.parent),
        r#type,
        name: new.name.to_owned(),
        slug: slug.as_str().to_owned(),
        weight: new.weight,
        max_running: new.max_running,
        suspended_at: None,
        suspended_reason: None,
        deleted_at: None,
        held_by: parent.and_then(|parent| parent.held_by),
        created_at: now,
        updated_at: now,
    })
}

/// A slug made of the name that nobody beside it has at the moment.
async fn free_slug(
    tx: &mut TenantTx,
    parent: OrganizationId,
    name: &str,
    id: OrganizationId,
) -> Result<Slug, sqlx::Error> {
    let id = id.uuid().simple().to_string();
    // The last digits of an id are random.
    let ending = id.get(id.len() - 8..).unwrap_or_default();
    let of_name = Slug::of_name(name).or_else(|| "organization".parse().ok());
    let Some(of_name) = of_name else { return Err(sqlx::Error::RowNotFound) };
    let taken = sqlx::query_scalar!(
        r#"select exists (select from organizations where parent_id = $1 and slug = $2 and deleted_at is null) as "taken!""#,
        parent.uuid(),
        of_name.as_str()
    )
    .fetch_one(tx.connection())
    .await?;
    Ok(of_name.ending(ending).filter(|_| taken).unwrap_or(of_name))
}

/// The organization, if it is the transaction's or below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: OrganizationId) -> Result<Option<Organization>, sqlx::Error> {
    sqlx::query_as!(
        Organization,
        r#"select id as "id: OrganizationId", parent_id as "parent: OrganizationId", type as "type: OrganizationType", name, slug,
                  weight, max_running, suspended_at, suspended_reason, deleted_at, held_by as "held_by: OrganizationId",
                  created_at, updated_at
             from organizations where id = $1"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// As [`find`], locked against other changes until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: OrganizationId) -> Result<Option<Organization>, sqlx::Error> {
    // Those who put something below it need its key, which does not change.
    sqlx::query_as!(
        Organization,
        r#"select id as "id: OrganizationId", parent_id as "parent: OrganizationId", type as "type: OrganizationType", name, slug,
                  weight, max_running, suspended_at, suspended_reason, deleted_at, held_by as "held_by: OrganizationId",
                  created_at, updated_at
             from organizations where id = $1 for no key update"#,
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// A page of the transaction's organization and those below it that were not deleted.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, window: Window) -> Result<Vec<Organization>, sqlx::Error> {
    let root = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Organization,
                r#"select o.id as "id: OrganizationId", o.parent_id as "parent: OrganizationId",
                          o.type as "type: OrganizationType", o.name, o.slug, o.weight, o.max_running, o.suspended_at,
                          o.suspended_reason, o.deleted_at, o.held_by as "held_by: OrganizationId", o.created_at,
                          o.updated_at
                     from organization_closure c join organizations o on o.id = c.descendant_id
                    where c.ancestor_id = $1 and c.descendant_id > $2 and c.descendant_id < $3 and o.deleted_at is null
                    order by c.descendant_id "#
                    + $order
                    + " limit $4",
                root.uuid(),
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

/// Changes what an organization is called, is, or gets; `false`: there is none. A type that does not fit above or
/// below it violates `organizations_place_check`, a slug that is taken `organizations_slug_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn update(tx: &mut TenantTx, id: OrganizationId, change: &Change<'_>) -> Result<bool, sqlx::Error> {
    let now = tx.now();
    let changed = sqlx::query!(
        "update organizations
            set name = coalesce($2, name), type = coalesce($3, type), slug = coalesce($4, slug),
                weight = coalesce($5, weight), max_running = case when $6 then $7 else max_running end, updated_at = $8
          where id = $1",
        id.uuid(),
        change.name,
        change.r#type.map(OrganizationType::as_str),
        change.slug.map(Slug::as_str),
        change.weight,
        change.max_running.is_some(),
        change.max_running.flatten(),
        now
    )
    .execute(tx.connection())
    .await?
    .rows_affected();
    if change.weight.is_some() || change.max_running.is_some() {
        crate::jobs::pause::notify(tx.connection()).await?;
    }
    Ok(changed == 1)
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
