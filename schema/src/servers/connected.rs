//! Machines that were there before the platform came to know of them.

use std::collections::BTreeMap;

use super::queries::Place;
use crate::{JobTx as _, ServerId, SshKeyId, StackId, TenantTx};

/// A machine to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMachine<'a> {
    /// Its host name.
    pub name: &'a str,
    /// Where it is reached, and who has to answer there.
    pub place: &'a Place,
    /// The organization's own words for it.
    pub labels: &'a BTreeMap<String, String>,
    /// What is missing on it may be installed.
    pub install: bool,
}

/// Writes down that the transaction's organization has a machine. A name that is taken violates `servers_name_key`.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert(tx: &mut TenantTx, new: &NewMachine<'_>, ssh_key: SshKeyId) -> Result<ServerId, sqlx::Error> {
    let (id, stack) = (tx.ids().mint::<ServerId>(), tx.ids().mint::<StackId>());
    let (organization, now) = (tx.organization(), tx.now());
    sqlx::query!(
        "insert into servers (id, organization_id, kind, name, address, port, username, host_key, labels, install, state,
                              created_at)
         values ($1, $2, 'connected', $3, $4, $5, $6, $7, $8, $9, 'provisioning', $10)",
        id.uuid(),
        organization.uuid(),
        new.name,
        new.place.address,
        i32::from(new.place.port),
        new.place.username,
        new.place.host_key,
        serde_json::to_value(new.labels).unwrap_or_default(),
        new.install,
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into stacks (id, organization_id, server_id, ssh_key_id, created_at) values ($1, $2, $3, $4, $5)",
        stack.uuid(),
        organization.uuid(),
        id.uuid(),
        ssh_key.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    Ok(id)
}
