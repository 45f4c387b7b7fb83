//! The keys of people. What identifies a person in an organization's record is encrypted with a key of his own; shredding
//! the key erases it everywhere at once, exports and backups of the record included, and no hash of the chain changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use sqlx::PgConnection;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::seal::{SealContext, SealError, SealingKeys};
use crate::{JobTx as _, OrganizationId, TenantTx};

const KEY_LEN: usize = 32;

/// A person's key.
pub struct DataKey(LessSafeKey);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    fn read(bytes: &[u8]) -> Result<Self, Unspecified> {
        UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map(Self)
    }

    /// A fresh nonce, the ciphertext and its tag; it opens only with the same `bound`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn encrypt(&self, bound: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce)?;
        let mut text = plaintext.to_vec();
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut text)?;
        Ok([&nonce[..], &text].concat())
    }

    /// What was encrypted; `None`: with another key, for another place, or it was changed.
    #[must_use]
    pub fn decrypt(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text).ok()?;
        let length = opened.len();
        text.truncate(length);
        Some(text)
    }
}

/// Keys by person. Whose key was shredded is not in it.
pub type DataKeys = HashMap<Uuid, Arc<DataKey>>;

/// The keys of people cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// A key does not open, or could not be made.
    #[error("the key of a person")]
    Seal(#[from] SealError),
    /// The database refused or went away.
    #[error("looking for the keys of people")]
    Database(#[from] sqlx::Error),
}

/// The one place where a person's key opens.
#[must_use]
pub fn place(organization: OrganizationId, subject: Uuid) -> SealContext<'static> {
    SealContext { organization: organization.uuid(), table: "audit_subjects", column: "key", row: subject }
}

/// The keys of these people in the transaction's organization, made where there were none. Whose key was shredded gets
/// none again.
///
/// # Errors
/// When the database refuses, or a key does not open.
pub async fn make(tx: &mut TenantTx, keys: &SealingKeys, subjects: &BTreeSet<Uuid>) -> Result<DataKeys, SubjectError> {
    let (organization, now) = (tx.organization(), tx.now());
    make_in(tx.connection(), organization, keys, subjects, now).await
}

pub(super) async fn make_in(
    connection: &mut PgConnection,
    organization: OrganizationId,
    keys: &SealingKeys,
    subjects: &BTreeSet<Uuid>,
    now: DateTime<Utc>,
) -> Result<DataKeys, SubjectError> {
    let wanted: Vec<Uuid> = subjects.iter().copied().collect();
    let (mut found, shredded) = look(connection, organization, keys, &wanted).await?;
    // In one order for everybody: two that make the same keys must not wait for each other.
    let missing: Vec<Uuid> =
        wanted.iter().copied().filter(|subject| !found.contains_key(subject) && !shredded.contains(subject)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let mut sealed = Vec::with_capacity(missing.len());
    for subject in &missing {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| SealError::Seal)?;
        sealed.push(keys.seal(&place(organization, *subject), bytes.as_slice())?);
    }
    sqlx::query!(
        "insert into audit_subjects (organization_id, subject_id, key, created_at)
         select $1, new.subject_id, new.key, $4 from unnest($2::uuid[], $3::bytea[]) as new (subject_id, key)
             on conflict do nothing",
        organization.uuid(),
        &missing,
        &sealed,
        now
    )
    .execute(&mut *connection)
    .await?;
    // Somebody else may have been first: his are the keys then.
    let (more, _) = look(connection, organization, keys, &missing).await?;
    found.extend(more);
    Ok(found)
}

/// The keys of these people in the transaction's organization that there are.
///
/// # Errors
/// When the database refuses, or a key does not open.
pub async fn find(tx: &mut TenantTx, keys: &SealingKeys, subjects: &[Uuid]) -> Result<DataKeys, SubjectError> {
    let organization = tx.organization();
    Ok(look(tx.connection(), organization, keys, subjects).await?.0)
}

async fn look(
    connection: &mut PgConnection,
    organization: OrganizationId,
    keys: &SealingKeys,
    subjects: &[Uuid],
) -> Result<(DataKeys, BTreeSet<Uuid>), SubjectError> {
    if subjects.is_empty() {
        return Ok((DataKeys::new(), BTreeSet::new()));
    }
    let rows = sqlx::query!(
        "select subject_id, key from audit_subjects where organization_id = $1 and subject_id = any($2)",
        organization.uuid(),
        subjects
    )
    .fetch_all(connection)
    .await?;
    let (mut found, mut shredded) = (DataKeys::new(), BTreeSet::new());
    for row in rows {
        let Some(sealed) = row.key else {
            shredded.insert(row.subject_id);
            continue;
        };
        let opened = keys.open(&place(organization, row.subject_id), &sealed)?;
        let key = DataKey::read(opened.expose_secret()).map_err(|_| SealError::Malformed)?;
        found.insert(row.subject_id, Arc::new(key));
    }
    Ok((found, shredded))
}

/// Shreds a person's key in the transaction's organization: nothing that identifies him in its record opens from the
/// commit on, and no key is made for him again. Answers when it was shredded; `None`: there was nothing of him.
///
/// # Errors
/// When the database refuses or went away.
pub async fn shred(tx: &mut TenantTx, subject: Uuid) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    if let Some(recorder) = tx.db().recorder() {
        recorder.forget(organization, subject);
    }
    sqlx::query_scalar!(
        r#"update audit_subjects set key = null, shredded_at = coalesce(shredded_at, $3)
            where organization_id = $1 and subject_id = $2 returning shredded_at as "shredded_at!""#,
        organization.uuid(),
        subject,
        now
    )
    .fetch_optional(tx.connection())
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_opens_with_its_key_in_its_place_and_not_otherwise() {
        let (mine, other) = (DataKey::read(&[1; 32]).unwrap(), DataKey::read(&[2; 32]).unwrap());
        let sealed = mine.encrypt(b"here", b"Ada").unwrap();
        assert_eq!(mine.decrypt(b"here", &sealed).as_deref(), Some(&b"Ada"[..]));
        assert_eq!(sealed.len(), NONCE_LEN + 3 + 16);
        assert_eq!((other.decrypt(b"here", &sealed), mine.decrypt(b"there", &sealed)), (None, None));
        assert_eq!((mine.decrypt(b"here", &sealed[1..]), mine.decrypt(b"here", &[])), (None, None));
        assert_ne!(mine.encrypt(b"here", b"Ada").unwrap(), sealed);
    }
}
