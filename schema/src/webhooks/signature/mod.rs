//! How a receiver knows that a delivery is ours: Standard Webhooks 1.0.
//!
//! The signed content is `{id}.{timestamp}.{body}`; a symmetric signature is `v1,` and the base64 of its HMAC-SHA256, an
//! asymmetric one `v1a,` and the base64 of its Ed25519 signature.
//! While a secret is being rotated the header carries one signature for each secret, and a receiver is content with any.

mod key;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};

pub use key::{Scheme, SecretError, SigningSecret, VerifyingKey};

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The id is empty or contains a `.`, which would let one content be read as another.
    #[error("the webhook id is empty or contains a dot")]
    Id,
    /// The timestamp is not a count of seconds since 1970.
    #[error("the webhook timestamp is not a number of seconds")]
    Timestamp,
    /// The delivery was signed longer ago than is tolerated.
    #[error("the webhook timestamp is too old")]
    TooOld,
    /// The delivery claims to be signed further ahead than is tolerated.
    #[error("the webhook timestamp is too far ahead")]
    TooNew,
    /// The header has no signature of a version that is understood here.
    #[error("the webhook signature has no supported version")]
    Version,
    /// No signature was made with one of the secrets over this content.
    #[error("the webhook signature does not match")]
    Mismatch,
}

/// Signs one attempt to deliver `body`. The id stays the same over all attempts, the timestamp is the attempt's.
///
/// The id must not contain a dot, or [`verify`] refuses what was signed.
#[must_use]
pub fn sign(secret: &SigningSecret, id: &str, timestamp: DateTime<Utc>, body: &[u8]) -> String {
    let timestamp = timestamp.timestamp().to_string();
    let signature = secret.sign(&content(id, &timestamp, body));
    format!("{},{}", secret.scheme(), STANDARD.encode(signature))
}

/// The value of `webhook-signature`: one signature per secret, the preferred one first.
#[must_use]
pub fn signature_header(secrets: &[&SigningSecret], id: &str, timestamp: DateTime<Utc>, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| sign(secret, id, timestamp, body)).collect();
    signatures.join(" ")
}

/// Checks a delivery as a receiver does: that one of its signatures was made with one of the secrets, and not long ago.
///
/// `timestamp` and `signature` are the headers as received. Signatures of unknown versions are passed over. Which
/// secret or signature matched, or how nearly, does not show in the time this takes.
pub fn verify(
    keys: &[VerifyingKey],
    id: &str,
    timestamp: &str,
    signature: &str,
    body: &[u8],
    now: DateTime<Utc>,
    tolerance: TimeDelta,
) -> Result<(), SignatureError> {
    if id.is_empty() || id.contains('.') {
        return Err(SignatureError::Id);
    }
    check_age(timestamp, now, tolerance)?;
    let candidates: Vec<(Scheme, &str)> = signatures(signature).take(MAX_SIGNATURES).collect();
    if candidates.is_empty() {
        return Err(SignatureError::Version);
    }

    let content = content(id, timestamp, body);
    let mut matched = false;
    for key in keys {
        for (_, candidate) in candidates.iter().filter(|(scheme, _)| *scheme == key.scheme()) {
            matched |= key.accepts(&content, candidate);
        }
    }
    if matched { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Signatures of one header that are looked at: more than a sender ever makes.
const MAX_SIGNATURES: usize = 32;

/// The base64 parts of those signatures that are of a known version.
fn signatures(header: &str) -> impl Iterator<Item = (Scheme, &str)> {
    header.split(' ').filter_map(|each| {
        let (version, signature) = each.split_once(',')?;
        Some((version.parse().ok()?, signature))
    })
}

/// What is signed.
fn content<'a>(id: &'a str, timestamp: &'a str, body: &'a [u8]) -> [&'a [u8]; 5] {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body]
}

fn check_age(timestamp: &str, now: DateTime<Utc>, tolerance: TimeDelta) -> Result<(), SignatureError> {
    if !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SignatureError::Timestamp);
    }
    let seconds = timestamp.parse().map_err(|_| SignatureError::Timestamp)?;
    let signed_at = DateTime::from_timestamp(seconds, 0).ok_or(SignatureError::Timestamp)?;
    let age = now.signed_duration_since(signed_at);
    if age > tolerance {
        return Err(SignatureError::TooOld);
    }
    if age < -tolerance {
        return Err(SignatureError::TooNew);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    // The vector that the reference libraries of Standard Webhooks share.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> SigningSecret {
        SigningSecret::parse(SECRET).unwrap()
    }

    fn other(byte: u8) -> SigningSecret {
        SigningSecret::generate(Scheme::V1, &[byte; 32])
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn check(
        secrets: &[&SigningSecret],
        id: &str,
        timestamp: &str,
        header: &str,
        body: &[u8],
    ) -> Result<(), SignatureError> {
        let keys: Vec<VerifyingKey> = secrets.iter().map(|secret| VerifyingKey::from(*secret)).collect();
        verify(&keys, id, timestamp, header, body, at(AT), TimeDelta::minutes(5))
    }

    #[test]
    fn the_vector_of_the_reference_libraries_is_reproduced_and_accepted() {
        assert_eq!(sign(&secret(), ID, at(AT), BODY), SIGNATURE);
        assert_eq!(check(&[&secret()], ID, "1614265330", SIGNATURE, BODY), Ok(()));
    }

    #[test]
    fn the_hmac_agrees_with_the_vector_published_by_github() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"It's a Secret to Everybody");
        let tag = key::authenticate(&key, &[b"Hello, ", b"World!"]);
        let published = 0x7571_07ea_0eb2_509f_c211_221c_ce98_4b8a_u128.to_be_bytes();
        assert_eq!(tag.as_ref()[..16], published);
        let published = 0x3757_0b6d_7586_c22c_46f4_379c_8b04_3e17_u128.to_be_bytes();
        assert_eq!(tag.as_ref()[16..], published);
    }

    #[test]
    fn a_secret_is_shown_as_it_was_read_and_never_printed() {
        assert_eq!(secret().reveal().expose_secret(), SECRET);
        assert_eq!(format!("{:?}", secret()), "SigningSecret([REDACTED])");
        assert_eq!(SigningSecret::from_parts(Scheme::V1, secret().bytes()).unwrap().bytes(), secret().bytes());
    }

    #[test]
    fn a_text_that_is_no_secret_is_refused_with_the_reason() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(SigningSecret::parse("MfKQ9r8GKYqr").unwrap_err(), SecretError::Prefix);
        assert_eq!(SigningSecret::parse("whpk_MfKQ9r8GKYqr").unwrap_err(), SecretError::Prefix);
        assert_eq!(SigningSecret::parse("whsec_MfKQ9r8GKYqr!").unwrap_err(), SecretError::Encoding);
        assert_eq!(
            SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap_err(),
            SecretError::Encoding
        );
        assert_eq!(SigningSecret::parse(&of(23)).unwrap_err(), SecretError::Length(23));
        assert_eq!(SigningSecret::parse(&of(65)).unwrap_err(), SecretError::Length(65));
        assert!(SigningSecret::parse(&of(24)).is_ok());
        assert!(SigningSecret::parse(&of(64)).is_ok());
    }

    #[test]
    fn during_a_rotation_old_and_new_receivers_both_accept() {
        let (old, new) = (other(1), other(2));
        let header = signature_header(&[&new, &old], ID, at(AT), BODY);
        assert_eq!(header.split(' ').count(), 2);
        assert_eq!(check(&[&old], ID, "1614265330", &header, BODY), Ok(()));
        assert_eq!(check(&[&new], ID, "1614265330", &header, BODY), Ok(()));
        assert_eq!(check(&[&other(3), &new], ID, "1614265330", &header, BODY), Ok(()));
        assert_eq!(check(&[&other(3)], ID, "1614265330", &header, BODY), Err(SignatureError::Mismatch));
        assert_eq!(check(&[], ID, "1614265330", &header, BODY), Err(SignatureError::Mismatch));
    }

    #[test]
    fn signatures_of_unknown_versions_are_passed_over() {
        let header = format!(
            "v3,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== v9,? {SIGNATURE}"
        );
        assert_eq!(check(&[&secret()], ID, "1614265330", &header, BODY), Ok(()));
        let unknown = SIGNATURE.replace("v1,", "v2,");
        for header in [unknown.as_str(), "", "v1", "nonsense", "v1b,AAAA"] {
            assert_eq!(check(&[&secret()], ID, "1614265330", header, BODY), Err(SignatureError::Version), "{header}");
        }
    }

    #[test]
    fn an_old_a_future_and_a_senseless_timestamp_are_told_apart() {
        let at_second = |seconds: i64| {
            let header = sign(&secret(), ID, at(seconds), BODY);
            check(&[&secret()], ID, &seconds.to_string(), &header, BODY)
        };
        assert_eq!(at_second(AT - 300), Ok(()));
        assert_eq!(at_second(AT + 300), Ok(()));
        assert_eq!(at_second(AT - 301), Err(SignatureError::TooOld));
        assert_eq!(at_second(AT + 301), Err(SignatureError::TooNew));
        for timestamp in
            ["", "-1", "+1614265330", "1614265330.0", "soon", "99999999999999999999", "9223372036854775807"]
        {
            assert_eq!(
                check(&[&secret()], ID, timestamp, SIGNATURE, BODY),
                Err(SignatureError::Timestamp),
                "{timestamp}"
            );
        }
    }

    #[test]
    fn a_dot_cannot_be_moved_between_the_id_and_the_body() {
        assert_eq!(check(&[&secret()], "msg.1", "1614265330", SIGNATURE, BODY), Err(SignatureError::Id));
        assert_eq!(check(&[&secret()], "", "1614265330", SIGNATURE, BODY), Err(SignatureError::Id));
    }

    // RFC 8032, 7.1, TEST 1: the key pair; its public half is what a receiver is given.
    const SEED: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    const PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn an_asymmetric_secret_shows_its_public_half_and_is_read_back_with_and_without_it() {
        let secret = SigningSecret::generate(Scheme::V1a, &SEED);
        assert_eq!(secret.public_key().as_deref(), Some(PUBLIC));
        let text = secret.reveal();
        assert!(text.expose_secret().starts_with("whsk_"));
        assert_eq!(SigningSecret::parse(text.expose_secret()).unwrap().bytes(), &SEED);
        let short = format!("whsk_{}", STANDARD.encode(SEED));
        assert_eq!(SigningSecret::parse(&short).unwrap().public_key().as_deref(), Some(PUBLIC));
        let halves = format!("whsk_{}", STANDARD.encode([SEED, SEED].concat()));
        assert_eq!(SigningSecret::parse(&halves).unwrap_err(), SecretError::Halves);
        for bytes in [0, 31, 33, 63, 65] {
            let text = format!("whsk_{}", STANDARD.encode(vec![7; bytes]));
            assert_eq!(SigningSecret::parse(&text).unwrap_err(), SecretError::KeyLength(bytes));
        }
    }

    #[test]
    fn the_public_half_verifies_and_another_does_not() {
        let secret = SigningSecret::generate(Scheme::V1a, &SEED);
        let header = sign(&secret, ID, at(AT), BODY);
        assert!(header.starts_with("v1a,"));
        let check = |key: &str| {
            let key = VerifyingKey::parse(key).unwrap();
            verify(&[key], ID, "1614265330", &header, BODY, at(AT), TimeDelta::minutes(5))
        };
        assert_eq!(check(PUBLIC), Ok(()));
        let other = SigningSecret::generate(Scheme::V1a, &[9; 32]).public_key().unwrap();
        assert_eq!(check(&other), Err(SignatureError::Mismatch));
        assert_eq!(check(SECRET), Err(SignatureError::Mismatch), "of the other scheme there is no signature");
        assert!(VerifyingKey::parse("whsk_AAAA").is_err() && VerifyingKey::parse("whpk_AAAA").is_err());
    }

    #[test]
    fn a_list_of_both_kinds_is_believed_by_either() {
        let (old, new) = (other(1), SigningSecret::generate(Scheme::V1a, &SEED));
        let header = signature_header(&[&new, &old], ID, at(AT), BODY);
        assert_eq!(check(&[&old], ID, "1614265330", &header, BODY), Ok(()));
        assert_eq!(check(&[&new], ID, "1614265330", &header, BODY), Ok(()));
        assert_eq!(check(&[&new], ID, "1614265330", &header, b"other"), Err(SignatureError::Mismatch));
    }

    proptest! {
        #[test]
        fn whatever_is_signed_is_accepted(id in "[a-z0-9_]{1,40}", body in prop::collection::vec(any::<u8>(), 0..512), key in any::<[u8; 32]>(), asymmetric in any::<bool>()) {
            let scheme = if asymmetric { Scheme::V1a } else { Scheme::V1 };
            let secret = SigningSecret::generate(scheme, &key);
            let header = signature_header(&[&secret], &id, at(AT), &body);
            prop_assert_eq!(check(&[&secret], &id, &AT.to_string(), &header, &body), Ok(()));
        }

        #[test]
        fn any_flipped_bit_of_the_body_fails(body in prop::collection::vec(any::<u8>(), 1..256), at_byte in any::<prop::sample::Index>(), bit in 0..8) {
            let header = sign(&secret(), ID, at(AT), &body);
            let mut changed = body.clone();
            changed[at_byte.index(body.len())] ^= 1_u8 << bit;
            prop_assert_eq!(check(&[&secret()], ID, &AT.to_string(), &header, &changed), Err(SignatureError::Mismatch));
        }

        #[test]
        fn any_flipped_bit_of_the_signature_fails(at_byte in 0..32_usize, bit in 0..8) {
            let mut tag = STANDARD.decode(SIGNATURE.strip_prefix("v1,").unwrap()).unwrap();
            tag[at_byte] ^= 1_u8 << bit;
            let header = format!("v1,{}", STANDARD.encode(tag));
            prop_assert_eq!(check(&[&secret()], ID, &AT.to_string(), &header, BODY), Err(SignatureError::Mismatch));
        }

        #[test]
        fn any_flipped_bit_of_the_secret_fails(at_byte in 0..24_usize, bit in 0..8) {
            let mut bytes = secret().bytes().to_vec();
            bytes[at_byte] ^= 1_u8 << bit;
            let secret = SigningSecret::from_parts(Scheme::V1, &bytes).unwrap();
            prop_assert_eq!(check(&[&secret], ID, &AT.to_string(), SIGNATURE, BODY), Err(SignatureError::Mismatch));
        }

        #[test]
        fn headers_of_any_kind_never_panic(id in ".{0,40}", timestamp in ".{0,24}", header in ".{0,200}") {
            let _ = check(&[&secret()], &id, &timestamp, &header, BODY);
        }
    }
}
