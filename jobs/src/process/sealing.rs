//! The keys that open the secrets in the database.

use aws_lc_rs::digest::{Context, SHA256};
use gantry_schema::seal::{SealingKey, SealingKeys};

use super::settings::{Settings, SettingsError, Together as _};

impl Settings {
    /// The key that seals, and the older ones that only open. A key may be written `id:base64`; without an id it gets
    /// one made from itself, so that replacing a key is moving its text from `SEALING_KEY` to `SEALING_KEYS_OLDER`.
    pub fn sealing_keys(&self) -> Result<SealingKeys, SettingsError> {
        let older = self.optional_with("SEALING_KEYS_OLDER", |text| text.split(',').map(key).collect::<Result<_, _>>());
        let (current, older) = (self.required_with("SEALING_KEY", key), older).together()?;
        SealingKeys::new(current, older.unwrap_or_default()).map_err(|error| {
            SettingsError::new(format!(
                "GANTRY_SEALING_KEY and GANTRY_SEALING_KEYS_OLDER contradict each other: {error}. Name every key once."
            ))
        })
    }
}

// What a KeyError says contains the id only; an id that is not one may be a misplaced key, and is not in it.
fn key(text: &str) -> Result<SealingKey, String> {
    let key = match text.trim().split_once(':') {
        Some((id, encoded)) => SealingKey::from_base64(id.trim(), encoded.trim()),
        None => SealingKey::from_base64(&id_of(text.trim()), text.trim()),
    };
    key.map_err(|error| error.to_string())
}

/// Eight bytes of a digest tell keys apart and say nothing about 32 random bytes.
fn id_of(encoded: &str) -> String {
    let mut digest = Context::new(&SHA256);
    digest.update(b"gantry sealing key id\0");
    digest.update(encoded.as_bytes());
    let digest = digest.finish();
    let eight = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    format!("k{:016x}", u64::from_be_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use crate::process::settings::tests::settings;
    use gantry_schema::seal::SealContext;
    use uuid::Uuid;

    const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    fn problem(environment: &[(&str, &str)]) -> String {
        settings(environment).sealing_keys().expect_err("a problem").to_string()
    }

    #[test]
    fn what_a_key_sealed_opens_after_the_key_became_an_older_one() {
        let place = SealContext { organization: Uuid::nil(), table: "endpoints", column: "secret", row: Uuid::nil() };
        let sealed = settings(&[("GANTRY_SEALING_KEY", ONE)]).sealing_keys().unwrap().seal(&place, b"hello").unwrap();

        let replaced =
            settings(&[("GANTRY_SEALING_KEY", TWO), ("GANTRY_SEALING_KEYS_OLDER", ONE)]).sealing_keys().unwrap();
        assert!(replaced.open(&place, &sealed).is_ok());
        let forgotten = settings(&[("GANTRY_SEALING_KEY", TWO)]).sealing_keys().unwrap();
        assert!(forgotten.open(&place, &sealed).is_err());
    }

    #[test]
    fn keys_may_be_named() {
        let keys = format!("2024:{ONE}, 2023:AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=");
        assert!(settings(&[("GANTRY_SEALING_KEY", TWO), ("GANTRY_SEALING_KEYS_OLDER", &keys)]).sealing_keys().is_ok());
    }

    #[test]
    fn a_key_that_is_none_is_refused_without_showing_it() {
        assert!(problem(&[]).starts_with("GANTRY_SEALING_KEY is not set. 32 random bytes in base64"));
        assert!(problem(&[("GANTRY_SEALING_KEY", "c2hvcnQ=")]).contains("is not base64 of 32 bytes"));
        let misplaced = problem(&[("GANTRY_SEALING_KEY", &format!("{ONE}:{TWO}"))]);
        assert!(misplaced.contains("a sealing key's id is") && !misplaced.contains(ONE), "{misplaced}");
        assert!(problem(&[("GANTRY_SEALING_KEY", ONE), ("GANTRY_SEALING_KEYS_OLDER", ONE)]).contains("given twice"));
    }
}
