//! Receipts: statements that something was done, signed with the key that signs checkpoints. Whoever has one can show it to
//! anybody, who verifies it with the public key alone.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::keys::{self, KeyError};
use crate::seal::SealingKeys;
use crate::{AuditKeyId, EngineDb};

/// A signed statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The text that is signed.
    pub statement: String,
    /// The key that signed it.
    pub key: AuditKeyId,
    /// Its public half, 32 bytes (RFC 8032).
    pub public_key: Vec<u8>,
    /// The signature of the statement, 64 bytes.
    pub signature: Vec<u8>,
}

impl Receipt {
    /// Whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, public_key).verify(self.statement.as_bytes(), &self.signature).is_ok()
    }
}

/// Signs a statement with the key that signs checkpoints, which is made if there is none. Every kind of statement begins with a
/// line of its own, so that none is taken for another.
///
/// # Errors
/// When the database refuses, or the key does not open.
pub async fn sign(db: &EngineDb, sealing_keys: &SealingKeys, statement: String) -> Result<Receipt, KeyError> {
    let mut tx = db.auditor().await?;
    sqlx::query!("select one from audit_sealing for update").fetch_one(tx.connection()).await?;
    let key = keys::current(&mut tx, sealing_keys).await?;
    let signature = key.sign(statement.as_bytes());
    let receipt = Receipt { statement, key: key.id, public_key: key.public(), signature };
    tx.commit().await?;
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_receipt_is_believed_as_it_was_signed_and_not_otherwise() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let statement = "gantry erasure 1\n".to_owned();
        let receipt = Receipt {
            key: AuditKeyId::from_uuid(uuid::Uuid::nil()),
            public_key: pair.public_key().as_ref().to_vec(),
            signature: pair.sign(statement.as_bytes()).as_ref().to_vec(),
            statement,
        };
        assert!(receipt.is_signed_by(&receipt.public_key));
        let other = Receipt { statement: "gantry erasure 2\n".to_owned(), ..receipt.clone() };
        assert!(!other.is_signed_by(&receipt.public_key));
        let another = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        assert!(!receipt.is_signed_by(another.public_key().as_ref()));
    }
}
