//! What must not be seen is taken out of what programs say.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What stands in the place of a secret.
const IN_ITS_PLACE: &str = "[REDACTED]";

/// Shorter ones are words that occur everywhere.
const SHORTEST: usize = 6;

/// What names of members with secrets have in them.
const SECRET: &[&str] = &["key", "secret", "token", "password", "credential"];

/// Takes secrets out of texts, however they are written there.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Finds the longest first, so that none hides in another. `None`: there are none.
    forms: Option<AhoCorasick>,
    longest: usize,
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({} forms)", self.forms.as_ref().map_or(0, AhoCorasick::patterns_len))
    }
}

impl Scrubber {
    /// Takes out these secrets: as they are, as JSON, URLs, base64 and hexadecimal digits write them, each line of those with
    /// several, and of those that are JSON themselves what is secret in them.
    pub fn of<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            let mut parts = Vec::new();
            take_apart(secret.as_ref(), &mut parts);
            for part in parts.iter().filter(|part| part.len() >= SHORTEST) {
                write(part, &mut forms);
            }
        }
        let longest = forms.iter().map(String::len).max().unwrap_or_default();
        // More of them than it can hold cannot be made of what a job has.
        let forms = AhoCorasickBuilder::new().match_kind(MatchKind::LeftmostLongest).build(&forms).ok();
        Self { forms: forms.filter(|_| longest > 0), longest }
    }

    /// Bytes that a secret has at most.
    pub(super) const fn longest(&self) -> usize {
        self.longest
    }

    /// The text without the secrets.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let Some(forms) = &self.forms else { return text.to_owned() };
        let mut scrubbed = String::with_capacity(text.len());
        forms.replace_all_with(text, &mut scrubbed, |_, _, scrubbed| {
            scrubbed.push_str(IN_ITS_PLACE);
            true
        });
        scrubbed
    }
}

/// A secret, its lines, and what is secret in it.
fn take_apart(secret: &str, parts: &mut Vec<String>) {
    parts.push(secret.to_owned());
    parts.extend(secret.lines().map(|line| line.trim().to_owned()));
    if let Ok(Value::Object(members)) = serde_json::from_str(secret) {
        for (name, value) in &members {
            let name = name.to_ascii_lowercase();
            if let Value::String(value) = value
                && SECRET.iter().any(|it| name.contains(it))
                && !value.starts_with("https://")
            {
                parts.push(value.clone());
                parts.extend(value.lines().map(|line| line.trim().to_owned()));
            }
        }
    }
}

/// All the ways in which it may be written.
fn write(part: &str, forms: &mut BTreeSet<String>) {
    let json = |text: &str| {
        let json = Value::from(text).to_string();
        json.get(1..json.len() - 1).unwrap_or(text).to_owned()
    };
    let once = json(part);
    // As Go writes it.
    let escaped = |text: &str| text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    forms.extend([escaped(&once), escaped(&json(&escaped(&once))), json(&once), once, part.to_owned()]);
    forms.insert(url::form_urlencoded::byte_serialize(part.as_bytes()).collect());
    for digits in ["0123456789abcdef", "0123456789ABCDEF"].map(str::as_bytes) {
        let digit = |at: u8| char::from(digits[usize::from(at)]);
        forms.insert(part.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect());
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        // What is in the middle of something longer begins at another bit of it.
        for before in 0..3 {
            let whole = engine.encode([&[0; 2][..before], part.as_bytes()].concat());
            let (first, last) = ((before * 8).div_ceil(6), (before + part.len()) * 8 / 6);
            forms.extend(whole.get(first..last).filter(|form| form.len() >= SHORTEST).map(str::to_owned));
        }
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
            base64::engine::general_purpose::STANDARD.encode(secret),
            "a line of it: of two lines".to_owned(),
            serde_json::json!(serde_json::json!({ "token": secret }).to_string()).to_string(),
        ] {
            let scrubbed = scrubber.scrub(&written);
            assert!(scrubbed.contains(IN_ITS_PLACE), "{written}: {scrubbed}");
            assert!(!scrubbed.contains("ss/w") && !scrubbed.contains("two lines"), "{scrubbed}");
        }
        assert_eq!(scrubber.scrub("abc is too short to be looked for"), "abc is too short to be looked for");
    }

    #[test]
    fn what_is_in_the_middle_of_something_else_is_found_there() {
        let secret = "hunter22&<more>~of-it";
        let scrubber = Scrubber::of([secret]);
        for before in ["", "a", "ab", "abc"] {
            for after in ["", "x", "yz"] {
                let text = format!("{before}{secret}{after}");
                for written in [
                    base64::engine::general_purpose::STANDARD.encode(&text),
                    URL_SAFE_NO_PAD.encode(&text),
                    text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"),
                ] {
                    // No more of it than the rest of a byte is left at its ends.
                    let left = scrubber.scrub(&written).replace(IN_ITS_PLACE, "");
                    assert!(left.len() <= 2 * (before.len() + after.len()) + 4, "{written}: {left}");
                }
            }
        }
    }

    #[test]
    fn what_is_secret_in_a_key_of_several_members_is_taken_out_alone_and_the_rest_is_left() {
        let key = r#"{"type":"service_account","project_id":"my-project","private_key":"-----BEGIN-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END-----\n"}"#;
        let scrubber = Scrubber::of([key]);
        let said = scrubber.scrub("of my-project: MIIEvQIBADAN, and then BgkqhkiG9w0B");
        assert_eq!(said, "of my-project: [REDACTED], and then [REDACTED]");
        assert_eq!(scrubber.scrub(key), IN_ITS_PLACE);
        assert_eq!(Scrubber::default().scrub("nothing is secret"), "nothing is secret");
    }
}
