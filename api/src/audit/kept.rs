//! Checkpoints that somebody kept: as `GET /audit-checkpoints` answers them, one, several, or a page.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use gantry_schema::audit::checkpoints::Checkpoint;
use gantry_schema::{AuditKeyId, OrganizationId};
use serde::Deserialize;

/// A text has no checkpoints.
#[derive(Debug, thiserror::Error)]
#[error("these are no checkpoints as GET /audit-checkpoints answers them")]
pub struct NoCheckpoints(#[source] Option<serde_json::Error>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Page { items: Vec<Written> },
    Several(Vec<Written>),
    One(Written),
}

#[derive(Deserialize)]
struct Written {
    organization_id: OrganizationId,
    sequence: i64,
    hash: String,
    root: String,
    made_at: DateTime<Utc>,
    key_id: AuditKeyId,
    public_key: String,
    signature: String,
}

/// The checkpoints that a text has.
///
/// # Errors
/// When it has none.
pub fn read(text: &str) -> Result<Vec<Checkpoint>, NoCheckpoints> {
    let written = match serde_json::from_str(text).map_err(|error| NoCheckpoints(Some(error)))? {
        Kept::Page { items } | Kept::Several(items) => items,
        Kept::One(one) => vec![one],
    };
    written.into_iter().map(|written| written.checkpoint().ok_or(NoCheckpoints(None))).collect()
}

impl Written {
    fn checkpoint(self) -> Option<Checkpoint> {
        Some(Checkpoint {
            organization: self.organization_id,
            sequence: self.sequence,
            hash: bytes(&self.hash)?,
            root: bytes(&self.root)?,
            made_at: self.made_at,
            key: self.key_id,
            public_key: STANDARD.decode(self.public_key).ok()?,
            signature: STANDARD.decode(self.signature).ok()?,
        })
    }
}

/// What hexadecimal digits stand for.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_read_as_they_are_answered() {
        let one = r#"{"organization_id":"org_01h455vb4pex5vsknk084sn02q","sequence":7,"hash":"00ff","root":"0a",
            "made_at":"2026-01-15T13:00:00Z","key_id":"auk_01h455vb4pex5vsknk084sn02q","public_key":"AQI=",
            "signature":"Aw==","statement":"as it is"}"#;
        let page = format!(r#"{{"items":[{one}],"next_cursor":"x"}}"#);
        for text in [one, &page, &format!("[{one}]")] {
            let read = read(text).unwrap();
            assert_eq!((read.len(), read[0].sequence, &read[0].hash[..]), (1, 7, &[0, 255][..]));
            assert_eq!((&read[0].public_key[..], &read[0].signature[..]), (&[1, 2][..], &[3][..]));
        }
        for bad in ["", "{}", r#"{"items":[{}]}"#, &one.replace("00ff", "00f"), &one.replace("0a", "0g")] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
