//! What is left, in headers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and the trio
//! that many clients know.

use std::fmt::Write as _;

use poem::http::{HeaderMap, HeaderName, HeaderValue};

use super::subject::{Count, Counts};

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Writes them; `now` in seconds since 1970.
pub(super) fn write(headers: &mut HeaderMap, counts: &Counts, now: i64) {
    let (mut policy, mut limit) = (String::with_capacity(64), String::with_capacity(64));
    for Count { policy: name, number, remaining, next, .. } in counts.iter() {
        if !policy.is_empty() {
            policy.push_str(", ");
            limit.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = write!(policy, "\"{name}\";q={number};w=60");
        let _ = write!(limit, "\"{name}\";r={remaining}");
        if *next > 0 {
            let _ = write!(limit, ";t={}", next.div_ceil(1_000_000));
        }
    }
    set(headers, &POLICY, &policy);
    set(headers, &LIMIT, &limit);
    if let Some(tightest) = counts.iter().min_by_key(|count| count.remaining) {
        headers.insert(X_LIMIT.clone(), tightest.number.into());
        headers.insert(X_REMAINING.clone(), tightest.remaining.into());
        let full = i64::try_from(tightest.full.div_ceil(1_000_000)).unwrap_or(i64::MAX);
        headers.insert(X_RESET.clone(), now.saturating_add(full).into());
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    // Policies' names are ours, and the rest are digits.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use gantry_schema::limits::{Class, Rate};

    use super::super::subject::{Counted, Plan};
    use super::*;

    #[test]
    fn headers_say_what_is_left_and_when_there_is_more() {
        let plan = Plan { whole: Rate::per_minute(100, 100), key: Some(Rate::per_minute(50, 50)), address: None };
        let counts = plan.counts(Counted::Class(Class::Read), &[1_800_000, 30_000_000], 0);
        let mut headers = HeaderMap::new();
        write(&mut headers, &counts, 1_000);
        let value = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(value("ratelimit-policy"), r#""read";q=100;w=60, "key-read";q=50;w=60"#);
        assert_eq!(value("ratelimit"), r#""read";r=97;t=1, "key-read";r=25;t=2"#);
        assert_eq!(
            ["limit", "remaining", "reset"].map(|name| value(&format!("x-ratelimit-{name}"))),
            ["50", "25", "1030"],
            "of the tightest limit"
        );
    }

    #[test]
    fn a_full_bucket_does_not_become_fuller() {
        let plan = Plan { whole: Rate::per_minute(100, 20), key: None, address: None };
        let mut headers = HeaderMap::new();
        write(&mut headers, &plan.counts(Counted::Anonymous, &[0], 0), 1_000);
        assert_eq!(headers["ratelimit"], r#""anonymous";r=20"#);
        assert_eq!(headers["x-ratelimit-reset"], "1000");
    }
}
