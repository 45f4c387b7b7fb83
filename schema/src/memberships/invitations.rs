//! Invitations: somebody is to become a member, and is told by mail.

use chrono::{DateTime, Duration, Utc};

use super::Role;
use crate::people::Email;
use crate::token::InviteToken;
use crate::window::in_order;
use crate::{CredentialTx, InvitationId, JobTx as _, OrganizationId, PersonId, TenantTx, Window};

/// How long an invitation stands.
pub const LASTS: Duration = Duration::days(7);

/// Invitations of an organization that may stand at the same time.
pub const MAX_STANDING: i64 = 1_000;

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Where to.
    pub organization: OrganizationId,
    /// Who, by his address.
    pub email: String,
    /// As what.
    pub role: String,
    /// On whose behalf.
    pub invited_by: String,
    /// When it was sent.
    pub created_at: DateTime<Utc>,
    /// Until when it stands.
    pub expires_at: DateTime<Utc>,
    /// When it was accepted.
    pub accepted_at: Option<DateTime<Utc>>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// Invites an address; an invitation that stood for it is replaced.
///
/// # Errors
/// When the database refuses or went away.
pub async fn create(
    tx: &mut TenantTx,
    email: &Email,
    role: Role,
    token: &InviteToken,
    invited_by: &str,
) -> Result<Invitation, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<InvitationId>(), tx.organization(), tx.now());
    sqlx::query!(
        "update invitations set revoked_at = $3
          where organization_id = $1 and email_key = $2 and accepted_at is null and revoked_at is null",
        organization.uuid(),
        email.key(),
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query_as!(
        Invitation,
        r#"insert into invitations (id, organization_id, email, email_key, role, invited_by, hash, created_at, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        returning id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                  created_at, expires_at, accepted_at, revoked_at"#,
        id.uuid(),
        organization.uuid(),
        email.as_str(),
        email.key(),
        role.as_str(),
        invited_by,
        &token.hash()[..],
        now,
        now + LASTS
    )
    .fetch_one(tx.connection())
    .await
}

/// The invitation whose token the transaction presents, if it stands.
///
/// # Errors
/// When the database refuses or went away.
pub async fn presented(tx: &mut CredentialTx) -> Result<Option<Invitation>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Invitation,
        r#"select id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                  created_at, expires_at, accepted_at, revoked_at
             from invitations
            where hash = presented_key() and accepted_at is null and revoked_at is null and expires_at > $1"#,
        now
    )
    .fetch_optional(tx.connection())
    .await
}

/// Uses an invitation up, if it stands; `false`: it does not any more.
///
/// # Errors
/// When the database refuses or went away.
pub async fn accept(tx: &mut TenantTx, id: InvitationId, by: PersonId) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update invitations set accepted_at = $3, accepted_by = $4
          where organization_id = $1 and id = $2 and accepted_at is null and revoked_at is null and expires_at > $3",
        organization.uuid(),
        id.uuid(),
        now,
        by.uuid()
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// Takes an invitation back; `false`: there is none that stands.
///
/// # Errors
/// When the database refuses or went away.
pub async fn revoke(tx: &mut TenantTx, id: InvitationId) -> Result<bool, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "update invitations set revoked_at = $3
          where organization_id = $1 and id = $2 and accepted_at is null and revoked_at is null",
        organization.uuid(),
        id.uuid(),
        now
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

/// The invitations of the person the transaction acts for, to anywhere, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn to_person(
    tx: &mut impl crate::PersonalTx,
    person: PersonId,
    limit: i64,
) -> Result<Vec<Invitation>, sqlx::Error> {
    sqlx::query_as!(
        Invitation,
        r#"select id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                  created_at, expires_at, accepted_at, revoked_at
             from invitations
            where accepted_by = $1 or email_key = (select email_key from people where id = $1)
            order by id desc limit $2"#,
        person.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// How many of the organization's invitations stand.
///
/// # Errors
/// When the database refuses or went away.
pub async fn standing(tx: &mut TenantTx) -> Result<i64, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from invitations
            where organization_id = $1 and accepted_at is null and revoked_at is null and expires_at > $2"#,
        organization.uuid(),
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// A page of the organization's invitations; with `standing`, only of those that can be accepted, or cannot.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, standing: Option<bool>, window: Window) -> Result<Vec<Invitation>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Invitation,
                r#"select id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                          created_at, expires_at, accepted_at, revoked_at
                     from invitations
                    where organization_id = $1 and id > $2 and id < $3
                      and ($4::boolean is null
                           or (accepted_at is null and revoked_at is null and expires_at > $5) = $4)
                    order by id "#
                    + $order
                    + " limit $6",
                organization.uuid(),
                window.low(),
                window.high(),
                standing,
                now,
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}

/// An invitation of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: InvitationId) -> Result<Option<Invitation>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Invitation,
        r#"select id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                  created_at, expires_at, accepted_at, revoked_at
             from invitations where organization_id = $1 and id = $2"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// Gives an invitation that was neither accepted nor taken back another token, in place of the one before, and all of its
/// time again. `None`: there is no such.
///
/// # Errors
/// When the database refuses or went away.
pub async fn renew(
    tx: &mut TenantTx,
    id: InvitationId,
    token: &InviteToken,
) -> Result<Option<Invitation>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query_as!(
        Invitation,
        r#"update invitations set hash = $3, expires_at = $4
            where organization_id = $1 and id = $2 and accepted_at is null and revoked_at is null
        returning id as "id: InvitationId", organization_id as "organization: OrganizationId", email, role, invited_by,
                  created_at, expires_at, accepted_at, revoked_at"#,
        organization.uuid(),
        id.uuid(),
        &token.hash()[..],
        now + LASTS
    )
    .fetch_optional(tx.connection())
    .await
}
