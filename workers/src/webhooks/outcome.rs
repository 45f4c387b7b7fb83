//! What came of sending, and what that means.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_providers::hooks::HookResponse;
use gantry_schema::webhooks::Attempt;
use serde_json::Value;

/// The longest wait a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An attempt that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// To be kept.
    pub(super) attempt: Attempt,
    /// What it means.
    pub(super) verdict: Verdict,
    /// The endpoint had failed before, so a success is news.
    pub(super) troubled: bool,
    /// It was the last try of this delivery, unless it succeeded.
    pub(super) last: bool,
    /// What was delivered, in words.
    pub(super) event_type: String,
}

/// What an answer means for the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It arrived.
    Taken,
    /// It may arrive later: not before, where the receiver said when.
    Later(String, Option<Duration>),
    /// The receiver wants no more deliveries, ever.
    Gone(String),
    /// It can never arrive: the address may not be spoken to.
    Never(String),
}

/// What an answer means.
pub(super) fn judge(answer: &gantry_providers::Result<HookResponse>, now: DateTime<Utc>) -> Verdict {
    match answer {
        Ok(answer) if answer.is_success() => Verdict::Taken,
        Ok(answer) if answer.status == 410 => Verdict::Gone("the receiver answered 410: it is gone".to_owned()),
        Ok(answer) => {
            let wait = answer.header("retry-after").and_then(|text| wait_of(text, now));
            Verdict::Later(format!("the receiver answered {}", answer.status), wait)
        }
        Err(error) if error.is_transient() => Verdict::Later(error.explain(), None),
        Err(error) => Verdict::Never(error.explain()),
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn wait_of(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The headers of an answer, as they are kept.
pub(super) fn kept_headers(answer: &HookResponse) -> Value {
    answer.headers.iter().map(|(name, value)| (name.clone(), Value::String(storable(value)))).collect()
}

/// The first kilobyte of an answer, as it is kept.
pub(super) fn kept_body(answer: &HookResponse) -> String {
    storable(&String::from_utf8_lossy(&answer.body))
}

/// PostgreSQL's texts have no place for a zero byte.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_read_in_seconds_and_as_a_date_and_is_bounded() {
        let now = "2026-03-02T09:00:00Z".parse().unwrap();
        let wait = |text| wait_of(text, now);
        assert_eq!(wait("120"), Some(Duration::from_mins(2)));
        assert_eq!(wait(" Mon, 02 Mar 2026 09:00:30 GMT "), Some(Duration::from_secs(30)));
        assert_eq!(wait("Mon, 02 Mar 2026 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999"), Some(Duration::from_hours(24)));
        assert_eq!((wait("soon"), wait("-1"), wait("")), (None, None, None));
    }
}
