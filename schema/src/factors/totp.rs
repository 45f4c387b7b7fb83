//! Codes that follow from a secret and the time (RFC 6238, on RFC 4226).

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use data_encoding::BASE32_NOPAD;
use rand::RngExt as _;
use zeroize::Zeroizing;

use crate::digest::constant_time_eq;

/// Bytes of a secret (RFC 4226, section 4, R6).
pub const SECRET: usize = 20;

/// Seconds for which a code is shown.
pub const PERIOD: i64 = 30;

/// Digits of a code.
pub const DIGITS: u32 = 6;

/// Codes before and after the present one that are good too: clocks differ, and people type slowly.
const AROUND: i64 = 1;

/// A secret for a device.
pub fn generate(random: &mut impl rand::CryptoRng) -> Zeroizing<[u8; SECRET]> {
    Zeroizing::new(random.random())
}

/// The secret as people type it into a device.
#[must_use]
pub fn as_text(secret: &[u8]) -> String {
    BASE32_NOPAD.encode(secret)
}

/// What a device reads from a QR code.
#[must_use]
pub fn uri(secret: &[u8], issuer: &str, account: &str) -> String {
    let (issuer, account) = (encoded(issuer), encoded(account));
    let secret = as_text(secret);
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={PERIOD}"
    )
}

/// Everything but unreserved characters by its number (RFC 3986).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The code of a counter (RFC 4226, 5.3).
fn hotp(algorithm: hmac::Algorithm, secret: &[u8], counter: u64, digits: u32) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), &counter.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag.last().map_or(0, |last| last & 15));
    let four = tag.get(at..at + 4).unwrap_or_default();
    let number = four.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) & 0x7fff_ffff;
    let width = digits as usize;
    format!("{:0width$}", number % 10_u32.pow(digits))
}

/// The time step of a moment.
#[must_use]
pub fn step(now: DateTime<Utc>) -> i64 {
    now.timestamp().div_euclid(PERIOD)
}

/// The code that a device with this secret shows.
#[must_use]
pub fn code(secret: &[u8], step: i64) -> String {
    hotp(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret, u64::try_from(step).unwrap_or_default(), DIGITS)
}

/// The step whose code was typed, if it is one of about now and later than the last one that was used. How long this takes
/// tells nothing of the codes.
#[must_use]
pub fn accept(secret: &[u8], typed: &str, now: DateTime<Utc>, last: Option<i64>) -> Option<i64> {
    let (typed, present) = (typed.as_bytes(), step(now));
    let mut accepted = None;
    for step in present - AROUND..=present + AROUND {
        let same = constant_time_eq(code(secret, step).as_bytes(), typed);
        if same && last.is_none_or(|last| step > last) {
            accepted = Some(step);
        }
    }
    accepted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn codes_by_counter_are_those_of_rfc_4226_appendix_d() {
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        let secret = BASE32_NOPAD.decode(b"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        assert_eq!(secret, b"12345678901234567890");
        for (counter, code) in (0..).zip(codes) {
            assert_eq!(hotp(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret, counter, 6), code);
        }
    }

    #[test]
    fn codes_by_time_are_those_of_rfc_6238_appendix_b() {
        let vectors = [
            (59, "94287082", "46119246", "90693936"),
            (1_111_111_109, "07081804", "68084774", "25091201"),
            (1_111_111_111, "14050471", "67062674", "99943326"),
            (1_234_567_890, "89005924", "91819424", "93441116"),
            (2_000_000_000, "69279037", "90698825", "38618901"),
            (20_000_000_000, "65353130", "77737706", "47863826"),
        ];
        let seed = |length: usize| -> Vec<u8> { b"1234567890".iter().copied().cycle().take(length).collect() };
        for (time, sha1, sha256, sha512) in vectors {
            let code = |algorithm, length| hotp(algorithm, &seed(length), step(at(time)).try_into().unwrap(), 8);
            assert_eq!(code(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20), sha1);
            assert_eq!(code(hmac::HMAC_SHA256, 32), sha256);
            assert_eq!(code(hmac::HMAC_SHA512, 64), sha512);
        }
    }

    #[test]
    fn a_code_is_good_a_step_early_or_late_and_never_again() {
        let (secret, now) = ([7; SECRET], at(1_000_000_000));
        let present = step(now);
        for (offset, accepted) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let typed = code(&secret, present + offset);
            assert_eq!(accept(&secret, &typed, now, None), accepted.then_some(present + offset), "{offset}");
        }
        let typed = code(&secret, present);
        assert_eq!(accept(&secret, &typed, now, Some(present)), None, "it was used");
        assert_eq!(accept(&secret, &code(&secret, present - 1), now, Some(present)), None, "a later one was used");
        assert_eq!(accept(&secret, &code(&secret, present + 1), now, Some(present)), Some(present + 1));
        for wrong in ["", "12345", "1234567", "12345a", "１２３４５６"] {
            assert_eq!(accept(&secret, wrong, now, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_device_is_told_everything_by_the_uri() {
        let uri = uri(b"12345678901234567890", "Acme: Cloud", "ada@example.com");
        assert_eq!(
            uri,
            "otpauth://totp/Acme%3A%20Cloud:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%3A%20Cloud\
             &algorithm=SHA1&digits=6&period=30"
        );
    }

    proptest! {
        #[test]
        fn whatever_was_used_is_not_good_again(secret: [u8; SECRET], now in 0..10_000_000_000_i64, later in 0..120_i64) {
            let typed = code(&secret, step(at(now)));
            let used = accept(&secret, &typed, at(now), None).unwrap();
            let again = accept(&secret, &typed, at(now + later), Some(used));
            // Another step may have the same code, and is later.
            prop_assert!(again.is_none_or(|again| again > used));
        }

        #[test]
        fn whatever_is_typed_never_panics(typed in ".*", now: i32) {
            prop_assert!(accept(&[1; SECRET], &typed, at(now.into()), None).is_none() || typed.len() == 6);
        }
    }
}
