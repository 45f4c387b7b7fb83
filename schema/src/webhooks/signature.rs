//! How a receiver knows that a delivery is ours: Standard Webhooks 1.0.
//!
//! The signed content is `{id}.{timestamp}.{body}`; a symmetric signature is `v1,` and the base64 of its HMAC-SHA256.
//! While a secret is being rotated the header carries one signature for each secret, and a receiver is content with any.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// What a symmetric secret begins with when it is shown.
const SECRET_PREFIX: &str = "whsec_";
/// What a symmetric signature begins with.
const SYMMETRIC: &str = "v1";

/// Why a text is not a signing secret. Never contains the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The text does not begin with `whsec_`.
    #[error("a signing secret begins with whsec_")]
    Prefix,
    /// What follows the prefix is not standard base64 with padding.
    #[error("a signing secret is base64 after its prefix")]
    Encoding,
    /// The secret is shorter or longer than the standard allows.
    #[error("a signing secret has 24 to 64 bytes, this one has {0}")]
    Length(usize),
}

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

/// A symmetric secret shared with one receiver. Forgotten from memory when dropped, and never printed.
#[derive(Clone)]
pub struct SigningSecret(SecretSlice<u8>);

impl SigningSecret {
    /// How many random bytes a new secret has.
    pub const BYTES: usize = 32;

    /// Reads `whsec_…`.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| SecretError::Encoding)?);
        Self::from_bytes(&bytes)
    }

    /// Makes a secret of bytes that must come from a cryptographic source of randomness.
    #[must_use]
    pub fn generate(random: &[u8; Self::BYTES]) -> Self {
        Self(random.to_vec().into())
    }

    /// Takes back the bytes that [`SigningSecret::bytes`] gave to be sealed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        match bytes.len() {
            24..=64 => Ok(Self(bytes.to_vec().into())),
            other => Err(SecretError::Length(other)),
        }
    }

    /// The bytes themselves, to be sealed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The text that the receiver is shown, once.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + 88));
        text.push_str(SECRET_PREFIX);
        STANDARD.encode_string(self.bytes(), &mut text);
        SecretString::from(text.as_str())
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret([REDACTED])")
    }
}

/// Signs one attempt to deliver `body`. The id stays the same over all attempts, the timestamp is the attempt's.
///
/// The id must not contain a dot, or [`verify`] refuses what was signed.
#[must_use]
pub fn sign(secret: &SigningSecret, id: &str, timestamp: DateTime<Utc>, body: &[u8]) -> String {
    let tag = authenticate(secret, id, &timestamp.timestamp().to_string(), body);
    format!("{SYMMETRIC},{}", STANDARD.encode(tag))
}

/// The value of `webhook-signature`: one signature per secret, the preferred one first.
#[must_use]
pub fn signature_header(secrets: &[&SigningSecret], id: &str, timestamp: DateTime<Utc>, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| sign(secret, id, timestamp, body)).collect();
    signatures.join(" ")
}

/// Checks a delivery as a receiver does: that one of its signatures was made with one of `secrets`, and not long ago.
///
/// `timestamp` and `signature` are the headers as received. Signatures of unknown versions are passed over. Which
/// secret or signature matched, or how nearly, does not show in the time this takes.
pub fn verify(
    secrets: &[&SigningSecret],
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
    let candidates: Vec<&str> = symmetric_signatures(signature).collect();
    if candidates.is_empty() {
        return Err(SignatureError::Version);
    }

    let mut matched = Choice::from(0);
    for secret in secrets {
        let expected = STANDARD.encode(authenticate(secret, id, timestamp, body));
        for candidate in &candidates {
            matched |= expected.as_bytes().ct_eq(candidate.as_bytes());
        }
    }
    if matched.into() { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// The base64 parts of those signatures that are of the symmetric version.
fn symmetric_signatures(header: &str) -> impl Iterator<Item = &str> {
    header
        .split(' ')
        .filter_map(|each| each.split_once(','))
        .filter(|(version, _)| *version == SYMMETRIC)
        .map(|(_, tag)| tag)
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

fn authenticate(secret: &SigningSecret, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
    hmac_sha256(secret.bytes(), &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

/// Takes the content in parts, so that a body is not copied to be signed.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        SigningSecret::generate(&[byte; 32])
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
        verify(secrets, id, timestamp, header, body, at(AT), TimeDelta::minutes(5))
    }

    #[test]
    fn the_vector_of_the_reference_libraries_is_reproduced_and_accepted() {
        assert_eq!(sign(&secret(), ID, at(AT), BODY), SIGNATURE);
        assert_eq!(check(&[&secret()], ID, "1614265330", SIGNATURE, BODY), Ok(()));
    }

    #[test]
    fn the_hmac_agrees_with_the_vector_published_by_github() {
        let tag = hmac_sha256(b"It's a Secret to Everybody", &[b"Hello, ", b"World!"]);
        let published = 0x7571_07ea_0eb2_509f_c211_221c_ce98_4b8a_u128.to_be_bytes();
        assert_eq!(tag.as_ref()[..16], published);
        let published = 0x3757_0b6d_7586_c22c_46f4_379c_8b04_3e17_u128.to_be_bytes();
        assert_eq!(tag.as_ref()[16..], published);
    }

    #[test]
    fn a_secret_is_shown_as_it_was_read_and_never_printed() {
        assert_eq!(secret().reveal().expose_secret(), SECRET);
        assert_eq!(format!("{:?}", secret()), "SigningSecret([REDACTED])");
        assert_eq!(SigningSecret::from_bytes(secret().bytes()).unwrap().bytes(), secret().bytes());
    }

    #[test]
    fn a_text_that_is_no_secret_is_refused_with_the_reason() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert_eq!(SigningSecret::parse("MfKQ9r8GKYqr").unwrap_err(), SecretError::Prefix);
        assert_eq!(SigningSecret::parse("whsk_MfKQ9r8GKYqr").unwrap_err(), SecretError::Prefix);
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
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== v9,? {SIGNATURE}"
        );
        assert_eq!(check(&[&secret()], ID, "1614265330", &header, BODY), Ok(()));
        let unknown = SIGNATURE.replace("v1,", "v2,");
        for header in [unknown.as_str(), "", "v1", "nonsense", "v1a,AAAA"] {
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

    proptest! {
        #[test]
        fn whatever_is_signed_is_accepted(id in "[a-z0-9_]{1,40}", body in prop::collection::vec(any::<u8>(), 0..512), key in any::<[u8; 32]>()) {
            let secret = SigningSecret::generate(&key);
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
            let secret = SigningSecret::from_bytes(&bytes).unwrap();
            prop_assert_eq!(check(&[&secret], ID, &AT.to_string(), SIGNATURE, BODY), Err(SignatureError::Mismatch));
        }

        #[test]
        fn headers_of_any_kind_never_panic(id in ".{0,40}", timestamp in ".{0,24}", header in ".{0,200}") {
            let _ = check(&[&secret()], &id, &timestamp, &header, BODY);
        }
    }
}
