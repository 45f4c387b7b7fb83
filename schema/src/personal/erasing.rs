//! Forgetting somebody: what is only his is removed, what an organization keeps of what he did keeps his id and nothing that says
//! who he was, and his keys in the records are shredded, so that what was recorded of him opens for nobody.

use std::collections::BTreeSet;

use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::audit::subjects;
use crate::messages::queries::{self as messages, MessageError};
use crate::people::{Person, State};
use crate::seal::SealingKeys;
use crate::sessions::Ended;
use crate::{ApiKeyId, JobTx, MessageId, OrganizationId, PersonId, PersonalTx, TenantTx, factors};

/// Messages that are looked at in one statement.
const AT_ONCE: i64 = 500;

/// What people are called of whom nothing is left.
pub const NOBODY: &str = "Erased";

/// What API keys are called that he made.
const KEY_OF_NOBODY: &str = "A key of somebody erased";

/// The organizations in which something of the person the transaction acts for lies, the platform's own among them.
///
/// # Errors
/// When the database refuses or went away.
pub async fn organizations(
    tx: &mut impl PersonalTx,
    person: PersonId,
) -> Result<BTreeSet<OrganizationId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"select organization_id as "organization!: OrganizationId" from memberships where person_id = $1
            union select organization_id from audit_subjects where subject_id = $1
            union select organization_id from oauth_grants where person_id = $1
            union select organization_id from invitations
                   where accepted_by = $1 or email_key = (select email_key from people where id = $1)"#,
        person.uuid()
    )
    .fetch_all(tx.connection())
    .await?;
    Ok(rows.into_iter().chain([OrganizationId::PLATFORM]).collect())
}

/// Whether the person is the only owner of the transaction's organization, which keeps one.
///
/// # Errors
/// When the database refuses or went away.
pub async fn is_last_owner(tx: &mut TenantTx, person: PersonId) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select exists (select from memberships m join organizations o on o.id = m.organization_id
                           where m.organization_id = $1 and m.person_id = $2 and m.role = 'owner' and m.state = 'active'
                             and o.deleted_at is null
                             and not exists (select from memberships other
                                              where other.organization_id = $1 and other.role = 'owner'
                                                and other.state = 'active' and other.person_id <> $2)) as "is!""#,
        organization.uuid(),
        person.uuid()
    )
    .fetch_one(JobTx::connection(tx))
    .await
}

/// What of somebody was in an organization.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// He was a member.
    pub was_member: bool,
    /// His API keys that worked until now.
    pub api_keys: Vec<ApiKeyId>,
}

/// Forgets the person the transaction acts for in its organization. That he was its last owner violates
/// `memberships_last_owner`.
///
/// # Errors
/// When the database refuses, or a message does not open.
pub async fn forget_in(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    person: &Person,
    addresses: &BTreeSet<String>,
) -> Result<Forgotten, MessageError> {
    let (organization, now) = (tx.organization(), JobTx::now(tx));
    let nowhere = nowhere(person.id);
    let was_member = sqlx::query!(
        "delete from memberships where organization_id = $1 and person_id = $2",
        organization.uuid(),
        person.id.uuid()
    )
    .execute(JobTx::connection(tx))
    .await?
    .rows_affected()
        == 1;
    let api_keys = sqlx::query!(
        r#"with his as (select id, revoked_at from api_keys where organization_id = $1 and owner_id = $2 for update)
           update api_keys k set revoked_at = coalesce(k.revoked_at, $3), name = $4, last_used_from = null
             from his where k.id = his.id
        returning k.id as "id: ApiKeyId", his.revoked_at is null as "worked!""#,
        organization.uuid(),
        person.id.uuid(),
        now,
        KEY_OF_NOBODY
    )
    .fetch_all(JobTx::connection(tx))
    .await?;
    let api_keys = api_keys.into_iter().filter(|key| key.worked).map(|key| key.id).collect();
    sqlx::query!(
        "update invitations set email = $3, email_key = $3,
                revoked_at = case when accepted_at is null then coalesce(revoked_at, $4) else revoked_at end
          where organization_id = $1
            and (accepted_by = $2 or email_key = (select email_key from people where id = $2))",
        organization.uuid(),
        person.id.uuid(),
        nowhere,
        now
    )
    .execute(JobTx::connection(tx))
    .await?;
    forget_messages(tx, keys, addresses).await?;
    subjects::shred(tx, person.id.uuid()).await?;
    Ok(Forgotten { was_member, api_keys })
}

/// Removes what was written to these addresses.
async fn forget_messages(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    addresses: &BTreeSet<String>,
) -> Result<(), MessageError> {
    let organization = tx.organization();
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query!(
            r#"select id as "id: MessageId", recipient from messages
                where organization_id = $1 and id > $2 order by id limit $3"#,
            organization.uuid(),
            after,
            AT_ONCE
        )
        .fetch_all(JobTx::connection(tx))
        .await?;
        let Some(last) = rows.last().map(|row| row.id.uuid()) else { return Ok(()) };
        let mut his = Vec::new();
        for row in &rows {
            let opened = keys.open(&messages::place(organization, "recipient", row.id), &row.recipient)?;
            if addresses.iter().any(|address| address.as_bytes() == opened.expose_secret()) {
                his.push(row.id.uuid());
            }
        }
        sqlx::query!("delete from messages where organization_id = $1 and id = any($2)", organization.uuid(), &his)
            .execute(JobTx::connection(tx))
            .await?;
        after = last;
    }
}

/// Where mail to the person goes, and codes, as far as that is known.
///
/// # Errors
/// When the database refuses or went away.
pub async fn addresses(tx: &mut impl PersonalTx, person: &Person) -> Result<BTreeSet<String>, sqlx::Error> {
    let of_factors = factors::list(tx, person.id).await?.into_iter().filter_map(|factor| factor.address);
    Ok(of_factors.chain([person.email.clone()]).collect())
}

/// Removes what is only the person's, whom the transaction of the platform's own organization acts for. Of himself his id is
/// left. It comes last: what he is looked for by is gone afterwards.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(tx: &mut TenantTx, person: &Person) -> Result<(), sqlx::Error> {
    let (id, now) = (person.id.uuid(), JobTx::now(tx));
    factors::remove_all(tx, person.id).await?;
    sqlx::query!("delete from passkey_challenges where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from sent_codes where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from pending_sign_ins where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from passwords where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from sign_ins where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from session_tokens where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from oauth_grants where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!("delete from personal_exports where person_id = $1", id).execute(JobTx::connection(tx)).await?;
    sqlx::query!(
        "update sessions set address = null, user_agent = null, organization_id = null, ended_at = coalesce(ended_at, $2),
                ended_because = coalesce(ended_because, $3)
          where person_id = $1",
        id,
        now,
        Ended::Erased.as_str()
    )
    .execute(JobTx::connection(tx))
    .await?;
    sqlx::query!(
        "delete from one_time_tokens
          where person_id = $1 or email_key = (select email_key from people where id = $1)",
        id
    )
    .execute(JobTx::connection(tx))
    .await?;
    sqlx::query!(
        "update people set email = $2, email_key = $2, email_verified_at = null, name = $3, locale = 'en', state = $4,
                updated_at = $5
          where id = $1",
        id,
        nowhere(person.id),
        NOBODY,
        State::Erased.as_str(),
        now
    )
    .execute(JobTx::connection(tx))
    .await
    .map(drop)
}

/// An address of nobody, in place of his (RFC 6761).
fn nowhere(person: PersonId) -> String {
    format!("{person}@erased.invalid")
}
