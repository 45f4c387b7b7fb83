//! PASETO v4.public: a message signed with Ed25519, and what binds it to its purpose.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use serde::Deserialize;

use super::keys::{KeyId, PublicKey, SecretKey};

/// What every token begins with.
pub const HEADER: &str = "v4.public.";

/// Bytes of a signature.
const SIGNATURE: usize = 64;

/// The text is no token, or nobody who is believed has signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasetoError {
    /// It is another kind of token, or none.
    #[error("it does not begin with {HEADER}")]
    Header,
    /// It is not written as a token is.
    #[error("it is not two parts of base64url without padding")]
    Encoding,
    /// The signature is of something else or somebody else.
    #[error("the signature does not verify")]
    Signature,
}

/// A token taken apart, its signature not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    message: Vec<u8>,
    signature: Vec<u8>,
    footer: Vec<u8>,
}

/// Several byte strings as one, so that no two lists give the same.
#[must_use]
pub fn pae(pieces: &[&[u8]]) -> Vec<u8> {
    // The highest bit is left clear for languages without unsigned numbers.
    let number = |length: usize| (length as u64 & (u64::MAX >> 1)).to_le_bytes();
    let mut encoded = number(pieces.len()).to_vec();
    for piece in pieces {
        encoded.extend(number(piece.len()));
        encoded.extend_from_slice(piece);
    }
    encoded
}

fn signed(message: &[u8], footer: &[u8], implicit: &[u8]) -> Vec<u8> {
    pae(&[HEADER.as_bytes(), message, footer, implicit])
}

/// Signs a message, with a footer that everybody can read and an assertion that everybody has to know.
#[must_use]
pub fn sign(key: &SecretKey, message: &[u8], footer: &[u8], implicit: &[u8]) -> String {
    let mut body = message.to_vec();
    body.extend(key.sign(&signed(message, footer, implicit)));
    let mut token = format!("{HEADER}{}", URL_SAFE_NO_PAD.encode(body));
    if !footer.is_empty() {
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(footer));
    }
    token
}

/// Takes a token apart.
///
/// # Errors
/// When the text is none.
pub fn read(token: &str) -> Result<Unverified, PasetoError> {
    let rest = token.strip_prefix(HEADER).ok_or(PasetoError::Header)?;
    let (body, footer) = match rest.split_once('.') {
        Some((_, "")) => return Err(PasetoError::Encoding),
        Some((body, footer)) => (body, footer),
        None => (rest, ""),
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| PasetoError::Encoding);
    let (mut message, footer) = (decode(body)?, decode(footer)?);
    let length = message.len().checked_sub(SIGNATURE).ok_or(PasetoError::Encoding)?;
    let signature = message.split_off(length);
    Ok(Unverified { message, signature, footer })
}

#[derive(Deserialize)]
struct Footer {
    kid: String,
}

/// The footer that names the key it is signed with.
#[must_use]
pub fn naming(key: &KeyId) -> String {
    serde_json::json!({ "kid": key.as_str() }).to_string()
}

impl Unverified {
    /// The key that its footer names; empty: it names none.
    #[must_use]
    pub fn key_named(&self) -> String {
        serde_json::from_slice::<Footer>(&self.footer).map(|footer| footer.kid).unwrap_or_default()
    }

    /// What stands beside the message; it is signed too, and says with which key.
    #[must_use]
    pub fn footer(&self) -> &[u8] {
        &self.footer
    }

    /// The message, whoever wrote it.
    pub(super) fn message_unverified(&self) -> &[u8] {
        &self.message
    }

    /// The message, if this key has signed it.
    ///
    /// # Errors
    /// When it has not.
    pub fn verify(self, key: &PublicKey, implicit: &[u8]) -> Result<Vec<u8>, PasetoError> {
        if key.verifies(&signed(&self.message, &self.footer, implicit), &self.signature) {
            Ok(self.message)
        } else {
            Err(PasetoError::Signature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // paseto-standard/test-vectors, v4.json.
    const SECRET: [u8; 64] = hex64(
        b"b4cbfb43df4ce210727d953e4a713307fa19bb7d9f85041438d9e11b942a37741eb9dbbbbc047c03fd70604e0071f0987e16b28b757225c11f00415d0e20b1a2",
    );
    const MESSAGE: &[u8] = br#"{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}"#;
    const FOOTER: &[u8] = br#"{"kid":"zVhMiPBP9fRf2snEcT7gFTioeA9COcNy9DfgL1W60haN"}"#;
    const BODY: &str =
        "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMCswMDowMCJ9";

    const fn hex64(text: &[u8; 128]) -> [u8; 64] {
        const fn digit(byte: u8) -> u8 {
            if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 }
        }
        let (mut bytes, mut index) = ([0; 64], 0);
        while index < 64 {
            bytes[index] = digit(text[2 * index]) << 4 | digit(text[2 * index + 1]);
            index += 1;
        }
        bytes
    }

    fn good() -> [(&'static [u8], &'static [u8], String); 3] {
        let footer = "eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9";
        [
            (
                b"",
                b"",
                format!("{BODY}bg_XBBzds8lTZShVlwwKSgeKpLT3yukTw6JUz3W4h_ExsQV-P0V54zemZDcAxFaSeef1QlXEFtkqxT1ciiQEDA"),
            ),
            (
                FOOTER,
                b"",
                format!(
                    "{BODY}v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214HDw.{footer}"
                ),
            ),
            (
                FOOTER,
                br#"{"test-vector":"4-S-3"}"#,
                format!(
                    "{BODY}NPWciuD3d0o5eXJXG5pJy-DiVEoyPYWs1YSTwWHNJq6DZD3je5gf-0M4JR9ipdUSJbIovzmBECeaWmaqcaP0DQ.{footer}"
                ),
            ),
        ]
    }

    #[test]
    fn lists_are_encoded_as_the_specification_has_it() {
        assert_eq!(pae(&[]), [0; 8]);
        assert_eq!(pae(&[b""]), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(pae(&[b"test"]), [&[1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0], &b"test"[..]].concat());
        assert_ne!(pae(&[b"ab", b"c"]), pae(&[b"a", b"bc"]));
    }

    #[test]
    fn the_official_vectors_are_made_and_verified() {
        let key = SecretKey::from_bytes(&SECRET).unwrap();
        for (footer, implicit, token) in good() {
            assert_eq!(sign(&key, MESSAGE, footer, implicit), token);
            let read = read(&token).unwrap();
            assert_eq!(read.footer(), footer);
            assert_eq!(read.verify(&key.public(), implicit).unwrap(), MESSAGE);
        }
    }

    #[test]
    fn the_official_vectors_that_are_to_fail_fail() {
        let key = SecretKey::from_bytes(&SECRET).unwrap().public();
        let local = "v4.local.vngXfCISbnKgiP6VWGuOSlYrFYU300fy9ijW33rznDYgxHNPwWluAY2Bgb0z54CUs6aYYkIJ-bOOOmJHPuX_34Agt_IPlNdGDpRdGNnBz2MpWJvB3cttheEc1uyCEYltj7wBQQYX.YXJiaXRyYXJ5LXN0cmluZy10aGF0LWlzbid0LWpzb24";
        let unsigned = "v4.public.eyJpbnZhbGlkIjoidGhpcyBzaG91bGQgbmV2ZXIgZGVjb2RlIn22Sp4gjCaUw0c7EH84ZSm_jN_Qr41MrgLNu5LIBCzUr1pn3Z-Wukg9h3ceplWigpoHaTLcwxj0NsI1vjTh67YB.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9";
        let older = "v3.local.23e_2PiqpQBPvRFKzB0zHhjmxK3sKo2grFZRRLM-U7L0a8uHxuF9RlVz3Ic6WmdUUWTxCaYycwWV1yM8gKbZB2JhygDMKvHQ7eBf8GtF0r3K0Q_gF1PXOxcOgztak1eD1dPe9rLVMSgR0nHJXeIGYVuVrVoLWQ.YXJiaXRyYXJ5LXN0cmluZy10aGF0LWlzbid0LWpzb24";
        let verify = |token: &str, implicit: &[u8]| read(token).and_then(|read| read.verify(&key, implicit));
        assert_eq!(verify(local, br#"{"test-vector":"4-F-1"}"#), Err(PasetoError::Header));
        assert_eq!(verify(unsigned, br#"{"test-vector":"4-F-2"}"#), Err(PasetoError::Signature));
        assert_eq!(verify(older, br#"{"test-vector":"4-F-3"}"#), Err(PasetoError::Header));
        let [(_, _, plain), (_, _, with_footer), _] = good();
        // As the other vectors that fail are made: a flipped bit, and padding.
        assert_eq!(verify(&plain.replace("bg_XBB", "bg_XBC"), b""), Err(PasetoError::Signature));
        assert_eq!(verify(&format!("{plain}=="), b""), Err(PasetoError::Encoding));
        assert_eq!(verify(&format!("{plain}."), b""), Err(PasetoError::Encoding));
        assert_eq!(verify(&with_footer.replace("eyJraWQi", "eyJraWRi"), b""), Err(PasetoError::Signature));
        assert_eq!(verify(&plain, b"of another product"), Err(PasetoError::Signature));
        assert_eq!(verify("v4.public.AAAA", b""), Err(PasetoError::Encoding));
    }
}
