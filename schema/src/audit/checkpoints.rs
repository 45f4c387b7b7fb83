//! Checkpoints: signed statements of where an organization's record ended at a moment. Whoever keeps one can hold the
//! platform to it: nothing that it covers can be changed or removed unnoticed, whoever owns the database.

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::heads::Row;
use super::keys::{self, KeyError};
use super::record::{moment, to_micros};
use super::vouching::Vouching;
use super::{Actor, Author};
use crate::digest::hex;
use crate::{AuditKeyId, Db, EngineDb, JobTx as _, OrganizationId, TenantTx};

/// Where an organization's record ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose record.
    pub organization: OrganizationId,
    /// The number of the last entry it covers.
    pub sequence: i64,
    /// The entry's link of the chain.
    pub hash: Vec<u8>,
    /// The root of the tree of all links up to it.
    pub root: Vec<u8>,
    /// When it was made.
    pub made_at: DateTime<Utc>,
    /// The key that signed it.
    pub key: AuditKeyId,
    /// Its public half, 32 bytes (RFC 8032).
    pub public_key: Vec<u8>,
    /// The signature of the statement, 64 bytes.
    pub signature: Vec<u8>,
}

/// What is noted in the platform's own record of another organization's checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnessed {
    /// The number of the last entry it covers.
    pub sequence: i64,
    /// The entry's link, in hexadecimal digits.
    pub hash: String,
}

/// What the platform's record calls it when checkpoints are made.
pub const WITNESS: &str = "audit.checkpoint";

/// Checkpoints that one entry of the platform's record witnesses.
const WITNESSED_AT_ONCE: usize = 100;

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn statement(&self) -> String {
        format!(
            "gantry audit checkpoint 1\n{}\n{}\n{}\n{}\n{}\n",
            self.organization,
            self.sequence,
            hex(&self.hash),
            hex(&self.root),
            moment(self.made_at)
        )
    }

    /// Whether the key signed it.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(self.statement().as_bytes(), &self.signature).is_ok()
    }
}

/// Signs where the records of up to `limit` organizations end that grew since their last checkpoints: of `only` one, or of
/// all but the platform. Of what is not believed nothing is signed.
///
/// # Errors
/// When the database refuses, or the signing key does not open.
pub async fn make(
    db: &EngineDb,
    vouching: &Arc<Vouching>,
    only: Option<OrganizationId>,
    limit: i64,
) -> Result<Vec<Checkpoint>, KeyError> {
    let mut tx = db.auditor().await?;
    sqlx::query!("select one from audit_sealing for update").fetch_one(tx.connection()).await?;
    let grown = sqlx::query_as!(
        Row,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, frontier, high, low, key_id, mac
             from audit_heads h
            where h.sequence > 0 and case when $1::uuid is null then h.organization_id <> $2 else h.organization_id = $1 end
              and not exists (select from audit_checkpoints c
                               where c.organization_id = h.organization_id and c.sequence = h.sequence)
            order by h.organization_id limit $3"#,
        only.map(OrganizationId::uuid),
        OrganizationId::PLATFORM.uuid(),
        limit
    )
    .fetch_all(tx.connection())
    .await?;
    let heads: Vec<_> = grown.iter().filter_map(|row| row.believed(vouching).ok()).collect();
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let key = keys::current(&mut tx, vouching.keys()).await?;
    let made_at = to_micros(tx.now());
    let mut made = Vec::with_capacity(heads.len());
    for head in heads {
        let mut checkpoint = Checkpoint {
            organization: head.organization,
            sequence: head.sequence,
            hash: head.hash.to_vec(),
            root: head.frontier.root().to_vec(),
            made_at,
            key: key.id,
            public_key: key.public(),
            signature: Vec::new(),
        };
        checkpoint.signature = key.sign(checkpoint.statement().as_bytes());
        sqlx::query!(
            "insert into audit_checkpoints (organization_id, sequence, hash, root, made_at, key_id, public_key, signature)
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            checkpoint.organization.uuid(),
            checkpoint.sequence,
            checkpoint.hash,
            checkpoint.root,
            checkpoint.made_at,
            checkpoint.key.uuid(),
            checkpoint.public_key,
            checkpoint.signature
        )
        .execute(tx.connection())
        .await?;
        made.push(checkpoint);
    }
    tx.commit().await?;
    Ok(made)
}

/// Notes checkpoints in the platform's own record, so that whoever rewrites an organization's has to rewrite that too.
///
/// # Errors
/// When the database refuses or went away.
pub async fn witness(db: &Db, made: &[Checkpoint]) -> Result<(), sqlx::Error> {
    let author = Arc::new(Author::new(Actor::system()));
    for some in made.chunks(WITNESSED_AT_ONCE) {
        let mut tx = db.tenant(OrganizationId::PLATFORM).await?.by(Arc::clone(&author));
        let mut draft = Draft::new(WITNESS);
        for checkpoint in some {
            let witnessed = Witnessed { sequence: checkpoint.sequence, hash: hex(&checkpoint.hash) };
            draft.set(&checkpoint.organization.to_string(), witnessed);
        }
        *tx.audit() = draft;
        tx.commit().await?;
    }
    Ok(())
}

/// The checkpoints of the transaction's organization before `before`, the newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, before: Option<i64>, limit: i64) -> Result<Vec<Checkpoint>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Checkpoint,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, root, made_at,
                  key_id as "key: AuditKeyId", public_key, signature
             from audit_checkpoints
            where organization_id = $1 and ($2::bigint is null or sequence < $2) order by sequence desc limit $3"#,
        organization.uuid(),
        before,
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// The checkpoints of the transaction's organization that cover entries after `after` up to `through`, in order.
pub(super) async fn between(tx: &mut TenantTx, after: i64, through: i64) -> Result<Vec<Checkpoint>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Checkpoint,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, root, made_at,
                  key_id as "key: AuditKeyId", public_key, signature
             from audit_checkpoints
            where organization_id = $1 and sequence > $2 and sequence <= $3 order by sequence"#,
        organization.uuid(),
        after,
        through
    )
    .fetch_all(tx.connection())
    .await
}

/// The first checkpoint of the transaction's organization that covers this entry.
///
/// # Errors
/// When the database refuses or went away.
pub async fn covering(tx: &mut TenantTx, sequence: i64) -> Result<Option<Checkpoint>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_as!(
        Checkpoint,
        r#"select organization_id as "organization: OrganizationId", sequence, hash, root, made_at,
                  key_id as "key: AuditKeyId", public_key, signature
             from audit_checkpoints where organization_id = $1 and sequence >= $2 order by sequence limit 1"#,
        organization.uuid(),
        sequence
    )
    .fetch_optional(tx.connection())
    .await
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_checkpoint_is_believed_as_it_was_signed_and_not_otherwise() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let mut checkpoint = Checkpoint {
            organization: OrganizationId::PLATFORM,
            sequence: 7,
            hash: vec![1; 32],
            root: vec![2; 32],
            made_at: DateTime::UNIX_EPOCH,
            key: AuditKeyId::from_uuid(uuid::Uuid::nil()),
            public_key: pair.public_key().as_ref().to_vec(),
            signature: Vec::new(),
        };
        checkpoint.signature = pair.sign(checkpoint.statement().as_bytes()).as_ref().to_vec();
        assert!(checkpoint.is_signed_by(&checkpoint.public_key));
        for other in [
            Checkpoint { sequence: 8, ..checkpoint.clone() },
            Checkpoint { hash: vec![3; 32], ..checkpoint.clone() },
            Checkpoint { root: vec![3; 32], ..checkpoint.clone() },
            Checkpoint { organization: OrganizationId::from_uuid(uuid::Uuid::nil()), ..checkpoint.clone() },
        ] {
            assert!(!other.is_signed_by(&checkpoint.public_key), "{other:?}");
        }
        let another = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        assert!(!checkpoint.is_signed_by(another.public_key().as_ref()));
    }
}
