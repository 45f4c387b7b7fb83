//! Somebody lost what he proves himself with. One who may asks that it be removed, another one agrees within a day.

use chrono::{DateTime, Duration, Utc};

use crate::access;
use crate::organizations::Permissions;
use crate::window::in_order;
use crate::{FactorResetId, JobTx, OrganizationId, PersonId, PersonalTx, TenantTx, Window};

/// How long it can be agreed to.
pub const LASTS: Duration = Duration::hours(24);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Somebody else is to agree; after its time it is over.
    Pending,
    /// Somebody else agreed, and it was done.
    Approved,
    /// It is not to be done.
    Withdrawn,
}

impl State {
    /// The word that is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Withdrawn => "withdrawn",
        }
    }

    fn stored(word: &str) -> Self {
        match word {
            "pending" => Self::Pending,
            "approved" => Self::Approved,
            _ => Self::Withdrawn,
        }
    }
}

/// That somebody's factors are to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Its id.
    pub id: FactorResetId,
    /// Where it was asked for.
    pub organization: OrganizationId,
    /// Whose.
    pub person: PersonId,
    /// Why.
    pub reason: String,
    /// By whom.
    pub asked_by: PersonId,
    /// When.
    pub asked_at: DateTime<Utc>,
    /// Until when it can be agreed to.
    pub expires_at: DateTime<Utc>,
    /// What became of it.
    pub state: State,
    /// Who decided.
    pub decided_by: Option<PersonId>,
    /// When.
    pub decided_at: Option<DateTime<Utc>>,
}

struct Row {
    id: FactorResetId,
    organization: OrganizationId,
    person: PersonId,
    reason: String,
    asked_by: PersonId,
    asked_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    state: String,
    decided_by: Option<PersonId>,
    decided_at: Option<DateTime<Utc>>,
}

impl From<Row> for Reset {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            organization: row.organization,
            person: row.person,
            reason: row.reason,
            asked_by: row.asked_by,
            asked_at: row.asked_at,
            expires_at: row.expires_at,
            state: State::stored(&row.state),
            decided_by: row.decided_by,
            decided_at: row.decided_at,
        }
    }
}

/// Asks for it, in place of what was asked before and is over. One that can still be agreed to violates
/// `factor_resets_pending`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn ask(tx: &mut TenantTx, person: PersonId, asked_by: PersonId, reason: &str) -> Result<Reset, sqlx::Error> {
    let (organization, now) = (tx.organization(), JobTx::now(tx));
    let id = JobTx::ids(tx).mint::<FactorResetId>();
    sqlx::query!(
        "update factor_resets set state = 'withdrawn', decided_by = asked_by, decided_at = $3
          where organization_id = $1 and person_id = $2 and state = 'pending' and expires_at <= $3",
        organization.uuid(),
        person.uuid(),
        now
    )
    .execute(JobTx::connection(tx))
    .await?;
    sqlx::query_as!(
        Row,
        r#"insert into factor_resets (id, organization_id, person_id, reason, asked_by, asked_at, expires_at)
           values ($1, $2, $3, $4, $5, $6, $7)
        returning id as "id: FactorResetId", organization_id as "organization: OrganizationId",
                  person_id as "person: PersonId", reason, asked_by as "asked_by: PersonId", asked_at, expires_at, state,
                  decided_by as "decided_by: PersonId", decided_at"#,
        id.uuid(),
        organization.uuid(),
        person.uuid(),
        reason,
        asked_by.uuid(),
        now,
        now + LASTS
    )
    .fetch_one(JobTx::connection(tx))
    .await
    .map(Reset::from)
}

/// One of the transaction's organization, held until the transaction ends.
///
/// # Errors
/// When the database refuses or went away.
pub async fn lock(tx: &mut TenantTx, id: FactorResetId) -> Result<Option<Reset>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query_as!(
        Row,
        r#"select id as "id: FactorResetId", organization_id as "organization: OrganizationId",
                  person_id as "person: PersonId", reason, asked_by as "asked_by: PersonId", asked_at, expires_at, state,
                  decided_by as "decided_by: PersonId", decided_at
             from factor_resets where organization_id = $1 and id = $2 for update"#,
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(JobTx::connection(tx))
    .await?;
    Ok(row.map(Reset::from))
}

/// Decides one that is pending and not over; `None`: it is not. Who asked for it, and whose it is, agrees to nothing:
/// `factor_resets_two_people` is violated.
///
/// # Errors
/// When the database refuses or went away.
pub async fn decide(
    tx: &mut TenantTx,
    id: FactorResetId,
    state: State,
    by: PersonId,
) -> Result<Option<Reset>, sqlx::Error> {
    let (organization, now) = (tx.organization(), JobTx::now(tx));
    let row = sqlx::query_as!(
        Row,
        r#"update factor_resets set state = $3, decided_by = $4, decided_at = $5
            where organization_id = $1 and id = $2 and state = 'pending' and expires_at > $5
        returning id as "id: FactorResetId", organization_id as "organization: OrganizationId",
                  person_id as "person: PersonId", reason, asked_by as "asked_by: PersonId", asked_at, expires_at, state,
                  decided_by as "decided_by: PersonId", decided_at"#,
        organization.uuid(),
        id.uuid(),
        state.as_str(),
        by.uuid(),
        now
    )
    .fetch_optional(JobTx::connection(tx))
    .await?;
    Ok(row.map(Reset::from))
}

/// A part of those of the transaction's organization.
///
/// # Errors
/// When the database refuses or went away.
pub async fn page(tx: &mut TenantTx, window: Window) -> Result<Vec<Reset>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Row,
                r#"select id as "id: FactorResetId", organization_id as "organization: OrganizationId",
                          person_id as "person: PersonId", reason, asked_by as "asked_by: PersonId", asked_at, expires_at,
                          state, decided_by as "decided_by: PersonId", decided_at
                     from factor_resets where organization_id = $1 and id > $2 and id < $3 order by id "#
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit
            )
            .fetch_all(JobTx::connection(tx))
            .await
        };
    }
    let rows: Vec<Row> = in_order!(window.order, page)?;
    Ok(rows.into_iter().map(Reset::from).collect())
}

/// What the person the transaction acts for is, wherever he is a member: there, and whether that is at or below the
/// transaction's organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where.
    pub organization: OrganizationId,
    /// It is the transaction's organization, or below it.
    pub within: bool,
    /// What his role there allows.
    pub allows: Permissions,
}

/// Where the person the transaction acts for is a member.
///
/// # Errors
/// When the database refuses or went away.
pub async fn standings(tx: &mut TenantTx, person: PersonId) -> Result<Vec<Standing>, sqlx::Error> {
    let organization = tx.organization();
    let rows = sqlx::query!(
        r#"select m.organization_id as "organization: OrganizationId", m.role, r.permissions as "permissions?",
                  exists (select from organization_closure c
                           where c.ancestor_id = $2 and c.descendant_id = m.organization_id) as "within!"
             from memberships m
             left join custom_roles r on r.organization_id = m.organization_id and r.id = m.custom_role_id
            where m.person_id = $1 order by m.organization_id"#,
        person.uuid(),
        organization.uuid()
    )
    .fetch_all(PersonalTx::connection(tx))
    .await?;
    let standing = rows.into_iter().map(|row| Standing {
        organization: row.organization,
        within: row.within,
        allows: access::permissions_of_member(row.organization, &row.role, row.permissions.as_deref()),
    });
    Ok(standing.collect())
}
