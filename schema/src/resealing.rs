//! Sealing again, with the current key, what an older one sealed: so that the older one can be forgotten.
//!
//! A sealed column has a function here and a line in [`reseal`]. Answers kept for an `Idempotency-Key` have none: they
//! are gone after a day.

use secrecy::ExposeSecret as _;

use crate::audit::{keys as signing, subjects};
use crate::credentials::queries as credentials;
use crate::factors;
use crate::licenses::queries as licenses;
use crate::messages::queries as messages;
use crate::modules::queries as modules;
use crate::oauth::keys::SigningKey;
use crate::personal::exports;
use crate::seal::{SealContext, SealError, SealingKeys};
use crate::servers::{keys as server_keys, plans, states};
use crate::webhooks::secrets::Secret;
use crate::{
    AuditKeyId, CloudCredentialId, EndpointId, ExportId, FactorId, JobTx as _, MessageId, RunId, SecretId,
    SigningKeyId, SshKeyId, StackId, TenantTx, TerraformStateId,
};

/// A value could not be sealed again.
#[derive(Debug, thiserror::Error)]
pub enum ResealError {
    /// Its key is not configured, or it was changed.
    #[error("sealing {table}.{column} of {row} again")]
    Seal {
        /// Where it lies.
        table: &'static str,
        /// Where it lies.
        column: &'static str,
        /// In which row.
        row: String,
        /// Why.
        source: SealError,
    },
    /// The database refused or went away.
    #[error("sealing secrets again")]
    Database(#[from] sqlx::Error),
}

/// Seals up to `limit` values of each column of the organization again. Answers how many; 0: all are current.
///
/// # Errors
/// When a value does not open, or the database refuses.
pub async fn reseal(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    Ok(webhook_secrets(tx, keys, limit).await?
        + webhook_headers(tx, keys, limit).await?
        + keys_of_people(tx, keys, limit).await?
        + keys_of_checkpoints(tx, keys, limit).await?
        + oauth_signing_keys(tx, keys, limit).await?
        + messages_to_people(tx, keys, limit).await?
        + license_issuers(tx, keys, limit).await?
        + cloud_credentials(tx, keys, limit).await?
        + ssh_keys(tx, keys, limit).await?
        + module_secrets(tx, keys, limit).await?
        + terraform_plans(tx, keys, limit).await?
        + texts_of_plans(tx, keys, limit).await?
        + terraform_states(tx, keys, limit).await?
        + totp_secrets(tx, keys, limit).await?
        + copies_for_people(tx, keys, limit).await?)
}

/// The value, sealed with the current key.
fn again(
    keys: &SealingKeys,
    place: &SealContext<'static>,
    id: impl ToString,
    sealed: &[u8],
) -> Result<Vec<u8>, ResealError> {
    let opened = keys.open(place, sealed);
    opened.and_then(|value| keys.seal(place, value.expose_secret())).map_err(|source| ResealError::Seal {
        table: place.table,
        column: place.column,
        row: id.to_string(),
        source,
    })
}

async fn webhook_secrets(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    // The id of the key follows the version and its length, see `seal`.
    let older = sqlx::query!(
        r#"select id as "id: SecretId", secret from webhook_secrets
            where organization_id = $1 and substring(secret from 3 for get_byte(secret, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &Secret::place(organization, row.id), row.id, &row.secret)?;
        sqlx::query!("update webhook_secrets set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn webhook_headers(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: EndpointId", headers as "headers!" from webhook_endpoints
            where organization_id = $1 and headers is not null
              and substring(headers from 3 for get_byte(headers, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let place = SealContext {
            organization: organization.uuid(),
            table: "webhook_endpoints",
            column: "headers",
            row: row.id.uuid(),
        };
        let sealed = again(keys, &place, row.id, &row.headers)?;
        sqlx::query!("update webhook_endpoints set headers = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn keys_of_people(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select subject_id, key as "key!" from audit_subjects
            where organization_id = $1 and key is not null and substring(key from 3 for get_byte(key, 1)) <> $2
            order by subject_id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &subjects::place(organization, row.subject_id), row.subject_id, &row.key)?;
        sqlx::query!(
            "update audit_subjects set key = $3 where organization_id = $1 and subject_id = $2",
            organization.uuid(),
            row.subject_id,
            sealed
        )
        .execute(tx.connection())
        .await?;
    }
    Ok(older.len() as u64)
}

/// Only the platform's transactions see any.
async fn keys_of_checkpoints(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let older = sqlx::query!(
        r#"select id as "id: AuditKeyId", secret from audit_keys
            where substring(secret from 3 for get_byte(secret, 1)) <> $1 order by id limit $2 for update"#,
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &signing::place(row.id), row.id, &row.secret)?;
        sqlx::query!("update audit_keys set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn license_issuers(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id, secret from license_issuers
            where organization_id = $1 and substring(secret from 3 for get_byte(secret, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &licenses::place(organization, row.id), row.id, &row.secret)?;
        sqlx::query!("update license_issuers set secret = $2 where id = $1", row.id, sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

/// Only the platform's transactions see any.
async fn oauth_signing_keys(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: SigningKeyId", secret from oauth_signing_keys
            where organization_id = $1 and substring(secret from 3 for get_byte(secret, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &SigningKey::place(row.id), row.id, &row.secret)?;
        sqlx::query!("update oauth_signing_keys set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

/// Both columns of a message were sealed in one moment, by the same key.
async fn messages_to_people(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: MessageId", recipient, content from messages
            where organization_id = $1 and substring(recipient from 3 for get_byte(recipient, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = |column: &'static str, value: &[u8]| {
            again(keys, &messages::place(organization, column, row.id), row.id, value)
        };
        let recipient = sealed("recipient", &row.recipient)?;
        let content = row.content.as_deref().map(|content| sealed("content", content)).transpose()?;
        sqlx::query!(
            "update messages set recipient = $2, content = $3 where id = $1",
            row.id.uuid(),
            recipient,
            content
        )
        .execute(tx.connection())
        .await?;
    }
    Ok(older.len() as u64)
}

async fn cloud_credentials(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: CloudCredentialId", secret from cloud_credentials
            where organization_id = $1 and substring(secret from 3 for get_byte(secret, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &credentials::place(organization, row.id), row.id, &row.secret)?;
        sqlx::query!("update cloud_credentials set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn module_secrets(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: StackId", module_secrets as "secret!" from stacks
            where organization_id = $1 and module_secrets is not null
              and substring(module_secrets from 3 for get_byte(module_secrets, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &modules::place(organization, row.id), row.id, &row.secret)?;
        sqlx::query!("update stacks set module_secrets = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn ssh_keys(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: SshKeyId", secret from ssh_keys
            where organization_id = $1 and substring(secret from 3 for get_byte(secret, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &server_keys::place(organization, row.id), row.id, &row.secret)?;
        sqlx::query!("update ssh_keys set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn terraform_plans(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: RunId", plan as "plan!" from runs
            where organization_id = $1 and plan is not null and substring(plan from 3 for get_byte(plan, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &plans::place(organization, row.id), row.id, &row.plan)?;
        sqlx::query!("update runs set plan = $2 where id = $1", row.id.uuid(), sealed).execute(tx.connection()).await?;
    }
    Ok(older.len() as u64)
}

async fn texts_of_plans(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: RunId", plan_text as "text!" from runs
            where organization_id = $1 and plan_text is not null and substring(plan_text from 3 for get_byte(plan_text, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &plans::place_of_text(organization, row.id), row.id, &row.text)?;
        sqlx::query!("update runs set plan_text = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

async fn terraform_states(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let organization = tx.organization();
    let older = sqlx::query!(
        r#"select id as "id: TerraformStateId", state from terraform_states
            where organization_id = $1 and substring(state from 3 for get_byte(state, 1)) <> $2
            order by id limit $3 for update"#,
        organization.uuid(),
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &states::place(organization, row.id), row.id, &row.state)?;
        sqlx::query!("update terraform_states set state = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

/// Only the platform's transactions that act for nobody see any.
async fn totp_secrets(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let older = sqlx::query!(
        r#"select id as "id: FactorId", secret as "secret!" from factors
            where secret is not null and substring(secret from 3 for get_byte(secret, 1)) <> $1
            order by id limit $2 for update"#,
        keys.current_id().as_bytes(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &factors::place(row.id), row.id, &row.secret)?;
        sqlx::query!("update factors set secret = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}

/// Only transactions of the platform that act for nobody see those of others.
async fn copies_for_people(tx: &mut TenantTx, keys: &SealingKeys, limit: i64) -> Result<u64, ResealError> {
    let older = sqlx::query!(
        r#"select id as "id: ExportId", content as "content!" from personal_exports
            where content is not null and substring(content from 3 for get_byte(content, 1)) <> $1
            order by id limit $2 for update"#,
        keys.current_id().as_bytes(),
        limit.min(10)
    )
    .fetch_all(tx.connection())
    .await?;
    for row in &older {
        let sealed = again(keys, &exports::place(row.id), row.id, &row.content)?;
        sqlx::query!("update personal_exports set content = $2 where id = $1", row.id.uuid(), sealed)
            .execute(tx.connection())
            .await?;
    }
    Ok(older.len() as u64)
}
