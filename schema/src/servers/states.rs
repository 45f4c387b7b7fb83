//! The states of stacks in the table, and Terraform's lock on them. Whoever works on a stack has a number, its fence; when
//! somebody else takes over, he gets a higher one, and what the first still writes is refused.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::state::{self, Head, LARGEST, Refused};
use crate::digest::sha256_alone;
use crate::organizations::settings::{self, Setting};
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::window::in_order;
use crate::{JobTx as _, OrganizationId, RunId, StackId, TenantTx, TerraformStateId, Window};

/// Versions that are kept whatever anybody sets: the newest, and one before it.
const LEAST: i64 = 2;

/// Bytes that what a holder says of himself may have.
pub const LARGEST_LOCK: usize = 16 * 1024;

/// A state cannot be read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else holds it; this is what he says of himself.
    #[error("somebody else holds the lock of the state")]
    Locked(Value),
    /// Somebody else has taken over.
    #[error("somebody else has taken over the stack")]
    Overtaken,
    /// It is not taken.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What is kept is not what was once written.
    #[error("the state that is kept was changed")]
    Damaged,
    /// It does not open, or could not be sealed.
    #[error("a sealed state")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("the table of states")]
    Database(#[from] sqlx::Error),
}

/// What may be known of a version of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: TerraformStateId,
    /// Its number: there is one of each.
    pub version: i64,
    /// Terraform's own.
    pub serial: i64,
    /// What it belongs to.
    pub lineage: String,
    /// Bytes.
    pub size: i32,
    /// Its digest.
    pub sha256: Vec<u8>,
    /// What wrote it; `None`: somebody brought an old one back.
    pub run: Option<RunId>,
    /// The version whose content it has again; `None`: Terraform wrote it.
    pub restored_from: Option<i64>,
    /// When it was written.
    pub created_at: DateTime<Utc>,
}

/// The one place where a state opens.
#[must_use]
pub fn place(organization: OrganizationId, id: TerraformStateId) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "terraform_states", column: "state", row: id.uuid() }
}

struct Stack {
    fence: i64,
    lock_id: Option<String>,
    lock_info: Option<Value>,
    lock_fence: Option<i64>,
}

/// The stack, held until the transaction ends, for whoever has the newest number.
async fn hold(tx: &mut TenantTx, stack: StackId, fence: i64) -> Result<Stack, StateError> {
    let organization = tx.organization();
    let found = sqlx::query_as!(
        Stack,
        "select fence, lock_id, lock_info, lock_fence from stacks where organization_id = $1 and id = $2 for update",
        organization.uuid(),
        stack.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    let found = found.ok_or(StateError::Overtaken)?;
    if found.fence == fence { Ok(found) } else { Err(StateError::Overtaken) }
}

/// Takes a stack over: whoever worked on it before writes no more, and his lock is broken. Answers the number to write with.
///
/// # Errors
/// When there is no such stack, or the database refuses.
pub async fn take_over(tx: &mut TenantTx, stack: StackId) -> Result<i64, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        "update stacks set fence = fence + 1, lock_id = null, lock_info = null, lock_fence = null
          where organization_id = $1 and id = $2 returning fence",
        organization.uuid(),
        stack.uuid()
    )
    .fetch_one(tx.connection())
    .await
}

/// Locks the state of a stack.
///
/// # Errors
/// When somebody holds it, has taken over, or the database refuses.
pub async fn lock(tx: &mut TenantTx, stack: StackId, fence: i64, id: &str, info: &Value) -> Result<(), StateError> {
    let (organization, found) = (tx.organization(), hold(tx, stack, fence).await?);
    match (found.lock_id, found.lock_fence) {
        // It was asked for again after a lost answer.
        (Some(held), _) if held == id => return Ok(()),
        (Some(_), Some(of)) if of == fence => return Err(StateError::Locked(found.lock_info.unwrap_or_default())),
        _ => {}
    }
    sqlx::query!(
        "update stacks set lock_id = $3, lock_info = $4, lock_fence = $5 where organization_id = $1 and id = $2",
        organization.uuid(),
        stack.uuid(),
        id,
        info,
        fence
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Unlocks the state of a stack. Terraform's `force-unlock` names no lock; then it is whichever there is.
///
/// # Errors
/// When somebody else holds it, has taken over, or the database refuses.
pub async fn unlock(tx: &mut TenantTx, stack: StackId, fence: i64, id: Option<&str>) -> Result<(), StateError> {
    let (organization, found) = (tx.organization(), hold(tx, stack, fence).await?);
    if let (Some(held), Some(id)) = (&found.lock_id, id)
        && held != id
    {
        return Err(StateError::Locked(found.lock_info.unwrap_or_default()));
    }
    sqlx::query!(
        "update stacks set lock_id = null, lock_info = null, lock_fence = null where organization_id = $1 and id = $2",
        organization.uuid(),
        stack.uuid()
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// A lock that counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Lock {
    /// Its id.
    pub id: String,
    /// What its holder says of himself.
    pub info: Value,
}

/// Who holds the state of a stack of the transaction's organization; `None`: nobody. A lock of somebody who was overtaken does
/// not count.
///
/// # Errors
/// When the database refuses or went away.
pub async fn held(tx: &mut TenantTx, stack: StackId) -> Result<Option<Lock>, sqlx::Error> {
    let organization = tx.organization();
    let row = sqlx::query!(
        r#"select lock_id as "id!", lock_info from stacks
            where organization_id = $1 and id = $2 and lock_id is not null and lock_fence = fence"#,
        organization.uuid(),
        stack.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(row.map(|row| Lock { id: row.id, info: row.lock_info.unwrap_or_default() }))
}

/// Breaks this lock on the state of a stack; whoever holds it writes no more. `false`: it is not held by this lock.
///
/// # Errors
/// When the database refuses or went away.
pub async fn force_unlock(tx: &mut TenantTx, stack: StackId, id: &str) -> Result<bool, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "update stacks set fence = fence + 1, lock_id = null, lock_info = null, lock_fence = null
          where organization_id = $1 and id = $2 and lock_id = $3 and lock_fence = fence",
        organization.uuid(),
        stack.uuid(),
        id
    )
    .execute(tx.connection())
    .await
    .map(|done| done.rows_affected() == 1)
}

struct Row {
    id: TerraformStateId,
    version: i64,
    serial: i64,
    lineage: String,
    sha256: Vec<u8>,
    state: Vec<u8>,
}

async fn newest(tx: &mut TenantTx, stack: StackId) -> Result<Option<Row>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Row,
        r#"select id as "id: TerraformStateId", version, serial, lineage, sha256, state from terraform_states
            where organization_id = $1 and stack_id = $2 order by version desc limit 1"#,
        organization.uuid(),
        stack.uuid()
    )
    .fetch_optional(tx.connection())
    .await
}

/// A state as Terraform wrote it.
fn opened(organization: OrganizationId, keys: &SealingKeys, row: &Row) -> Result<Vec<u8>, StateError> {
    let opened = keys.open(&place(organization, row.id), &row.state)?;
    let state = state::unpacked(opened.expose_secret(), LARGEST).ok_or(StateError::Damaged)?;
    if sha256_alone(&state)[..] == row.sha256 { Ok(state) } else { Err(StateError::Damaged) }
}

/// The newest state of a stack of the transaction's organization, as Terraform wrote it.
///
/// # Errors
/// When it is not what was once written, or the database refuses.
pub async fn current(tx: &mut TenantTx, keys: &SealingKeys, stack: StackId) -> Result<Option<Vec<u8>>, StateError> {
    let organization = tx.organization();
    newest(tx, stack).await?.map(|row| opened(organization, keys, &row)).transpose()
}

/// Who writes a state.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// On which stack he works.
    pub stack: StackId,
    /// His number.
    pub fence: i64,
    /// What he runs.
    pub run: RunId,
    /// The lock he says he holds.
    pub lock: Option<&'a str>,
}

/// Writes the next version of a stack's state.
///
/// # Errors
/// When it may not follow the one that is kept, somebody else holds the lock or has taken over, or the database refuses.
pub async fn write(tx: &mut TenantTx, keys: &SealingKeys, writer: Writer<'_>, state: &[u8]) -> Result<(), StateError> {
    let Writer { stack, fence, run, lock } = writer;
    let found = hold(tx, stack, fence).await?;
    if found.lock_id.as_deref() != lock {
        return Err(StateError::Locked(found.lock_info.unwrap_or_default()));
    }
    let (head, sha256) = (Head::of(state)?, sha256_alone(state));
    let kept = newest(tx, stack).await?;
    if let Some(kept) = &kept {
        let same = kept.sha256 == sha256;
        head.follows(&Head { version: 4, serial: kept.serial, lineage: kept.lineage.clone() }, same)?;
        if same {
            return Ok(());
        }
    }
    let next = Next { version: kept.map_or(0, |kept| kept.version) + 1, run: Some(run), restored_from: None };
    insert(tx, keys, stack, next, &head, state).await
}

/// What a version is besides its state.
struct Next {
    version: i64,
    run: Option<RunId>,
    restored_from: Option<i64>,
}

/// Adds a version, and forgets those that are too old.
async fn insert(
    tx: &mut TenantTx,
    keys: &SealingKeys,
    stack: StackId,
    next: Next,
    head: &Head,
    state: &[u8],
) -> Result<(), StateError> {
    let kept = settings::get(tx, Setting::ServersStateVersions).await?.value.as_i64().unwrap_or(LEAST).max(LEAST);
    let (organization, now, id) = (tx.organization(), tx.now(), tx.ids().mint::<TerraformStateId>());
    let sealed = keys.seal(&place(organization, id), &state::packed(state))?;
    sqlx::query!(
        "insert into terraform_states (id, organization_id, stack_id, version, serial, lineage, sha256, size, state, run_id,
                                       restored_from, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        id.uuid(),
        organization.uuid(),
        stack.uuid(),
        next.version,
        head.serial,
        head.lineage,
        &sha256_alone(state)[..],
        i32::try_from(state.len()).unwrap_or(i32::MAX),
        sealed,
        next.run.map(RunId::uuid),
        next.restored_from,
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "delete from terraform_states where organization_id = $1 and stack_id = $2 and version <= $3",
        organization.uuid(),
        stack.uuid(),
        next.version - kept
    )
    .execute(tx.connection())
    .await?;
    Ok(())
}

/// Makes an old version of a stack's state the newest one again, under a serial above all before. Whoever works on the stack
/// writes no more. `false`: that version is not kept.
///
/// # Errors
/// When it is not what was once written or belongs to something else, or the database refuses.
pub async fn restore(tx: &mut TenantTx, keys: &SealingKeys, stack: StackId, version: i64) -> Result<bool, StateError> {
    take_over(tx, stack).await?;
    let organization = tx.organization();
    let old = sqlx::query_as!(
        Row,
        r#"select id as "id: TerraformStateId", version, serial, lineage, sha256, state from terraform_states
            where organization_id = $1 and stack_id = $2 and version = $3"#,
        organization.uuid(),
        stack.uuid(),
        version
    )
    .fetch_optional(tx.connection())
    .await?;
    let (Some(old), Some(newest)) = (old, newest(tx, stack).await?) else { return Ok(false) };
    let state = state::with_serial(&opened(organization, keys, &old)?, newest.serial + 1)?;
    let head = Head::of(&state)?;
    head.follows(&Head { version: 4, serial: newest.serial, lineage: newest.lineage }, false)?;
    let next = Next { version: newest.version + 1, run: None, restored_from: Some(version) };
    insert(tx, keys, stack, next, &head, &state).await?;
    Ok(true)
}

/// A page of the versions of a stack's state that are kept.
///
/// # Errors
/// When the database refuses or went away.
pub async fn versions(tx: &mut TenantTx, stack: StackId, window: Window) -> Result<Vec<Version>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Version,
                r#"select id as "id: TerraformStateId", version, serial, lineage, size, sha256, run_id as "run: RunId",
                          restored_from, created_at
                     from terraform_states
                    where organization_id = $1 and stack_id = $2 and id > $3 and id < $4
                    order by id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                stack.uuid(),
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
