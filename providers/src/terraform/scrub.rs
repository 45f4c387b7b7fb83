//! What must not be seen is taken out of what programs say.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
const IN_ITS_PLACE: &str = "[REDACTED]";

/// Shorter ones are words that occur everywhere.
const SHORTEST: usize = 6;

/// Takes secrets out of texts, however they are written there.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// The longest first, so that none hides in another.
    secrets: Vec<String>,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({} forms)", self.secrets.len())
    }
}

impl Scrubber {
    /// Takes out these secrets: as they are, as JSON, URLs and base64 write them, and each line of those with several.
    pub fn of<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref();
            for part in std::iter::once(secret).chain(secret.lines().map(str::trim)) {
                if part.len() < SHORTEST {
                    continue;
                }
                let json = serde_json::Value::from(part).to_string();
                let json = json.get(1..json.len() - 1).unwrap_or(part);
                forms.extend([
                    part.to_owned(),
                    json.to_owned(),
                    url::form_urlencoded::byte_serialize(part.as_bytes()).collect(),
                    STANDARD.encode(part).trim_end_matches('=').to_owned(),
                    URL_SAFE_NO_PAD.encode(part),
                ]);
            }
        }
        forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        forms.dedup();
        Self { secrets: forms }
    }

    /// The text without the secrets.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), IN_ITS_PLACE);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_however_they_are_written() {
        let secret = "p\"ss/w+rd\nof two lines";
        let scrubber = Scrubber::of([secret, "abc"]);
        for written in [
            secret.to_owned(),
            serde_json::json!({ "token": secret }).to_string(),
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            STANDARD.encode(secret),
            "a line of it: of two lines".to_owned(),
        ] {
            let scrubbed = scrubber.scrub(&written);
            assert!(scrubbed.contains(IN_ITS_PLACE), "{written}: {scrubbed}");
            assert!(!scrubbed.contains("ss/w") && !scrubbed.contains("two lines"), "{scrubbed}");
        }
        assert_eq!(scrubber.scrub("abc is too short to be looked for"), "abc is too short to be looked for");
    }
}
