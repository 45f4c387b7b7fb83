//! How an organization stands to one that is to be acted in.

use super::{Behind, Reach};
use crate::memberships::{Role, permissions_of};
use crate::organizations::{Permission, Permissions};
use crate::{JobTx as _, OrganizationId, TenantTx};

/// How the transaction's organization reaches one below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// How.
    pub reach: Reach,
    /// The support it was given, where it was.
    pub support: Option<crate::SupportId>,
}

/// How the transaction's organization, and in it `holder`, reaches another one; `None`: it is not below it.
///
/// # Errors
/// When the database refuses or went away.
pub async fn reach(tx: &mut TenantTx, wanted: OrganizationId, holder: &str) -> Result<Option<Reached>, sqlx::Error> {
    let (own, now) = (tx.organization(), tx.now());
    let row = sqlx::query!(
        r#"select coalesce((select sum(t.own) from (
                      select own from organization_totals where organization_id = c.descendant_id and kind = 'members'
                      union all
                      select delta from organization_changes
                       where organization_id = c.descendant_id and kind = 'members') as t), 0)::bigint as "members!",
                  s.id as "support?: crate::SupportId", s.permissions as "permissions?"
             from organization_closure c
             left join lateral (
                  select id, permissions from support_grants g
                   where g.granted_to = c.ancestor_id and g.organization_id = c.descendant_id and g.holder = $3
                     and g.ended_at is null and g.expires_at > $4
                   order by g.expires_at desc limit 1) s on true
            where c.ancestor_id = $1 and c.descendant_id = $2 and c.depth > 0"#,
        own.uuid(),
        wanted.uuid(),
        holder,
        now
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| {
        let reach = match row.permissions {
            Some(words) => Reach::Support(read(&words)),
            None if row.members == 0 => Reach::SetsUp,
            None => Reach::Above,
        };
        Reached { reach, support: row.support }
    }))
}

/// Permissions from their words; one that this release does not know allows nothing.
pub(crate) fn read(words: &[String]) -> Permissions {
    words.iter().filter_map(|word| word.parse::<Permission>().ok()).collect()
}

/// What is behind a key that has an owner, of what the database says of his membership.
pub(crate) fn behind(
    organization: OrganizationId,
    role: Option<&str>,
    state: Option<&str>,
    custom: Option<&[String]>,
) -> Behind {
    match (role, state) {
        (None, _) => Behind::Left,
        (Some(role), Some("active")) => Behind::Member(permissions_of_member(organization, role, custom)),
        (Some(_), _) => Behind::Suspended,
    }
}

/// What a member may do, by the word of his role and what one of the organization's own allows.
pub(crate) fn permissions_of_member(
    organization: OrganizationId,
    role: &str,
    custom: Option<&[String]>,
) -> Permissions {
    match (custom, Role::stored(role)) {
        (Some(custom), Role::Custom) => read(custom),
        (_, role) => permissions_of(role, organization).into_iter().collect(),
    }
}
