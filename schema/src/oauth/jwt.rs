//! Signed tokens: access tokens (RFC 9068) and ID tokens (OpenID Connect Core), by ES256 and nothing else.
//!
//! A token is looked at in this order: its length, its header, the key, the signature, and only then what it says.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::digest::sha256_alone;
use crate::{OauthAuthorizationId, OauthClientId, OrganizationId, PersonId, SigningKeyId};

/// The longest token that is looked at.
pub const MAX_LENGTH: usize = 8 * 1024;

/// Seconds that the clock of whoever made a token may be ahead.
const CLOCKS_DIFFER: i64 = 5;

/// What an access token calls itself (RFC 9068, 2.1): no other token is taken for one.
const ACCESS_TOKEN: &str = "at+jwt";

/// Bytes of a point of P-256, uncompressed: 4, x, y.
const POINT: usize = 65;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// Who made it.
    pub iss: String,
    /// For whom it acts: a person, or the application itself.
    pub sub: String,
    /// For which service it is: this one.
    pub aud: String,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// Before which it is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// What no other token has.
    pub jti: String,
    /// To whom it was given.
    pub client_id: OauthClientId,
    /// What it allows.
    pub scope: String,
    /// Where.
    pub organization: OrganizationId,
    /// What it came of: ended, the token does not work.
    pub authorization: OauthAuthorizationId,
    /// When the person had last proved who he is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
}

/// What an ID token says of who signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdClaims {
    /// Who made it.
    pub iss: String,
    /// Who signed in.
    pub sub: PersonId,
    /// For which application it is.
    pub aud: OauthClientId,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// When he had last proved who he is.
    pub auth_time: i64,
    /// How (RFC 8176).
    pub amr: Vec<String>,
    /// What the application sent to know its own request again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// The half of the access token's digest: they belong together.
    pub at_hash: String,
    /// What he allows to be known of him.
    #[serde(flatten)]
    pub about: About,
}

/// What scopes allow to be known of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `profile`: what he is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `profile`: his language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// `email`: where mail reaches him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// `email`: whether it was proven that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
}

/// The digest by which an ID token names its access token (OpenID Connect Core, 3.1.3.6).
#[must_use]
pub fn at_hash(access_token: &str) -> String {
    let digest = sha256_alone(access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.split_at(16).0)
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is longer than any that is made here.
    #[error("a token has at most {MAX_LENGTH} characters")]
    TooLong,
    /// It is not of three parts, or they are not JSON.
    #[error("it is no signed token")]
    Malformed,
    /// `none`, `HS256`, …
    #[error("tokens are signed by ES256, and this one says otherwise")]
    Algorithm,
    /// An ID token, or something else that was signed here.
    #[error("it is no access token (RFC 9068: its typ is not at+jwt)")]
    Type,
    /// No key has this name, or it is not believed any more.
    #[error("the key that it names is not among those of /oauth/jwks")]
    UnknownKey,
    /// It was changed, or another key signed it.
    #[error("its signature is not of the key that it names")]
    Signature,
    /// Something is missing, or not as it is to be.
    #[error("what it says is not what an access token says")]
    Claims,
    /// Somebody else made it.
    #[error("it is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// It is not good yet.
    #[error("it is not good yet")]
    NotYet,
    /// It is not good any more.
    #[error("it has expired")]
    Expired,
}

/// A key could not be made, or what was stored is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing key cannot be used")]
pub struct UnusableKey;

/// A new key: its secret half, PKCS #8, and its public one.
///
/// # Errors
/// When the system has no randomness to give.
pub fn generate() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), UnusableKey> {
    let random = SystemRandom::new();
    let secret = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| UnusableKey)?;
    let secret = Zeroizing::new(secret.as_ref().to_vec());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &secret).map_err(|_| UnusableKey)?;
    let public = pair.public_key().as_ref().to_vec();
    Ok((secret, public))
}

/// A key, with what it verifies.
#[derive(Clone)]
pub struct Key {
    id: SigningKeyId,
    signs_from: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    public: Vec<u8>,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("signs_from", &self.signs_from).finish_non_exhaustive()
    }
}

impl Key {
    /// A key of its halves.
    ///
    /// # Errors
    /// When they are none.
    pub fn new(
        id: SigningKeyId,
        signs_from: DateTime<Utc>,
        expires_at: Option<DateTime<Utc>>,
        secret: &[u8],
        public: &[u8],
    ) -> Result<Self, UnusableKey> {
        if public.len() != POINT {
            return Err(UnusableKey);
        }
        // Verifying takes the bare point, see jsonwebtoken's from_ec_components.
        let verifying = DecodingKey::from_ec_der(public);
        Ok(Self {
            id,
            signs_from,
            expires_at,
            public: public.to_vec(),
            signing: EncodingKey::from_ec_der(secret),
            verifying,
        })
    }

    fn shown(&self) -> Value {
        let (_, point) = self.public.split_at(1);
        let (x, y) = point.split_at(point.len() / 2);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    fn is_believed(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

/// The keys of the installation.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// These keys.
    #[must_use]
    pub const fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// The set that everybody may read (RFC 7517): those that sign, signed lately, or will sign soon.
    #[must_use]
    pub fn shown(&self, now: DateTime<Utc>) -> Value {
        let keys: Vec<Value> = self.0.iter().filter(|key| key.is_believed(now)).map(Key::shown).collect();
        json!({ "keys": keys })
    }

    /// The one that signs now: the latest whose time has come. The first one of all signs whatever the time is: it was
    /// made a moment ago, maybe by another machine, whose clock is ahead.
    fn current(&self, now: DateTime<Utc>) -> Option<&Key> {
        let believed = || self.0.iter().filter(|key| key.is_believed(now));
        let begun = believed().filter(|key| key.signs_from <= now).max_by_key(|key| (key.signs_from, key.id));
        begun.or_else(|| believed().min_by_key(|key| (key.signs_from, key.id)))
    }

    /// Signs an access token.
    ///
    /// # Errors
    /// When no key signs now.
    pub fn sign_access(&self, claims: &AccessClaims, now: DateTime<Utc>) -> Result<String, UnusableKey> {
        self.sign(ACCESS_TOKEN, claims, now)
    }

    /// Signs an ID token.
    ///
    /// # Errors
    /// When no key signs now.
    pub fn sign_id(&self, claims: &IdClaims, now: DateTime<Utc>) -> Result<String, UnusableKey> {
        self.sign("JWT", claims, now)
    }

    fn sign(&self, typ: &str, claims: &impl Serialize, now: DateTime<Utc>) -> Result<String, UnusableKey> {
        let key = self.current(now).ok_or(UnusableKey)?;
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(key.id.to_string());
        encode(&header, claims, &key.signing).map_err(|_| UnusableKey)
    }

    /// What an access token says, if it is one of this issuer for itself and good now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify_access(&self, token: &str, issuer: &str, now: DateTime<Utc>) -> Result<AccessClaims, Refused> {
        let claims: AccessClaims = self.verify(token, ACCESS_TOKEN, now)?;
        if claims.iss != issuer {
            return Err(Refused::Issuer);
        }
        if claims.aud != issuer {
            return Err(Refused::Audience);
        }
        let now = now.timestamp();
        if claims.nbf.unwrap_or(claims.iat).max(claims.iat) > now + CLOCKS_DIFFER {
            return Err(Refused::NotYet);
        }
        if claims.exp <= now {
            return Err(Refused::Expired);
        }
        Ok(claims)
    }

    fn verify<T: DeserializeOwned>(&self, token: &str, typ: &str, now: DateTime<Utc>) -> Result<T, Refused> {
        if token.len() > MAX_LENGTH {
            return Err(Refused::TooLong);
        }
        // The library knows no `none`, and takes it for something that cannot be read.
        let header = decode_header(token).map_err(|_| named_algorithm(token))?;
        if header.alg != Algorithm::ES256 {
            return Err(Refused::Algorithm);
        }
        if header.typ.as_deref() != Some(typ) {
            return Err(Refused::Type);
        }
        let kid: SigningKeyId = header.kid.and_then(|kid| kid.parse().ok()).ok_or(Refused::UnknownKey)?;
        let key = self.0.iter().find(|key| key.id == kid && key.is_believed(now)).ok_or(Refused::UnknownKey)?;
        // Times are compared by the caller, with the clock that is passed along.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode(token, &key.verifying, &validation).map(|read| read.claims).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refused::Signature,
            jsonwebtoken::errors::ErrorKind::InvalidToken => Refused::Malformed,
            _ => Refused::Claims,
        })
    }
}

/// Whether a header that cannot be read is one that names another algorithm.
fn named_algorithm(token: &str) -> Refused {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header: Option<Value> = header.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match header {
        Some(header) if header["alg"].as_str().is_some_and(|alg| alg != "ES256") => Refused::Algorithm,
        _ => Refused::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const ISSUER: &str = "https://gantry.example";

    fn now() -> DateTime<Utc> {
        "2026-01-15T12:00:00Z".parse().unwrap()
    }

    fn key(number: u128, signs_from: DateTime<Utc>, expires_at: Option<DateTime<Utc>>) -> Key {
        let (secret, public) = generate().unwrap();
        let id = SigningKeyId::from_uuid(uuid::Uuid::from_u128(number));
        Key::new(id, signs_from, expires_at, &secret, &public).unwrap()
    }

    fn keys() -> Keys {
        Keys::new(vec![key(1, now(), None)])
    }

    fn claims() -> AccessClaims {
        let at = now().timestamp();
        AccessClaims {
            iss: ISSUER.to_owned(),
            sub: "usr_01h455vb4pex5vsknk084sn02q".to_owned(),
            aud: ISSUER.to_owned(),
            exp: at + 900,
            iat: at,
            nbf: None,
            jti: "1".to_owned(),
            client_id: OauthClientId::from_uuid(uuid::Uuid::from_u128(3)),
            scope: "jobs:read".to_owned(),
            organization: OrganizationId::from_uuid(uuid::Uuid::from_u128(4)),
            authorization: OauthAuthorizationId::from_uuid(uuid::Uuid::from_u128(5)),
            auth_time: Some(at),
        }
    }

    /// Signed by the current key, whatever it says.
    fn signed(keys: &Keys, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = keys.current(now()).unwrap();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.signing, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn header(keys: &Keys) -> Value {
        json!({ "typ": "at+jwt", "alg": "ES256", "kid": keys.0[0].id })
    }

    fn refused(keys: &Keys, token: &str) -> Refused {
        keys.verify_access(token, ISSUER, now()).unwrap_err()
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let keys = keys();
        let token = keys.sign_access(&claims(), now()).unwrap();
        assert_eq!(keys.verify_access(&token, ISSUER, now()), Ok(claims()));
        let by_hand = signed(&keys, &header(&keys), &serde_json::to_value(claims()).unwrap());
        assert_eq!(keys.verify_access(&by_hand, ISSUER, now()), Ok(claims()));
    }

    #[test]
    fn alg_none_and_other_algorithms_are_refused() {
        let keys = keys();
        let claims = serde_json::to_value(claims()).unwrap();
        for alg in ["none", "None", "NONE", "HS256", "RS256", "ES384", "EdDSA", "whatever"] {
            let mut header = header(&keys);
            header["alg"] = json!(alg);
            let token = signed(&keys, &header, &claims);
            assert_eq!(refused(&keys, &token), Refused::Algorithm, "{alg}");
            let (unsigned, _) = token.rsplit_once('.').unwrap();
            assert_eq!(refused(&keys, &format!("{unsigned}.")), Refused::Algorithm, "{alg}");
        }
        // The public key as the secret of a MAC, which a careless verifier would take for right.
        let mac = EncodingKey::from_secret(&keys.0[0].public);
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(ACCESS_TOKEN.to_owned());
        header.kid = Some(keys.0[0].id.to_string());
        assert_eq!(refused(&keys, &encode(&header, &claims, &mac).unwrap()), Refused::Algorithm);
    }

    #[test]
    fn another_keys_kid_and_an_unknown_one_are_refused() {
        let both = Keys::new(vec![key(1, now(), None), key(2, now() + TimeDelta::days(1), None)]);
        let claims = serde_json::to_value(claims()).unwrap();
        let with_kid = |kid: Value| {
            let mut header = header(&both);
            header["kid"] = kid;
            refused(&both, &signed(&both, &header, &claims))
        };
        assert_eq!(with_kid(json!(both.0[1].id)), Refused::Signature);
        assert_eq!(with_kid(json!(SigningKeyId::from_uuid(uuid::Uuid::from_u128(9)))), Refused::UnknownKey);
        for odd in [json!("../../etc/passwd"), json!(""), Value::Null, json!("' or 1=1")] {
            assert_eq!(with_kid(odd), Refused::UnknownKey);
        }
        // A key of the sender's own, in the header.
        let mut own = header(&both);
        own["jwk"] = both.0[1].shown();
        own["kid"] = json!(both.0[1].id);
        assert_eq!(refused(&both, &signed(&both, &own, &claims)), Refused::Signature);
    }

    #[test]
    fn a_wrong_audience_is_refused() {
        let keys = keys();
        let mut claims = serde_json::to_value(claims()).unwrap();
        claims["aud"] = json!("https://other.example");
        assert_eq!(refused(&keys, &signed(&keys, &header(&keys), &claims)), Refused::Audience);
        // Several, of which one is right, are not what is made here.
        claims["aud"] = json!([ISSUER, "https://other.example"]);
        assert_eq!(refused(&keys, &signed(&keys, &header(&keys), &claims)), Refused::Claims);
        claims.as_object_mut().unwrap().remove("aud");
        assert_eq!(refused(&keys, &signed(&keys, &header(&keys), &claims)), Refused::Claims);
    }

    #[test]
    fn a_wrong_issuer_is_refused() {
        let keys = keys();
        let token = keys.sign_access(&AccessClaims { iss: format!("{ISSUER}/"), ..claims() }, now()).unwrap();
        assert_eq!(refused(&keys, &token), Refused::Issuer);
    }

    #[test]
    fn a_future_nbf_and_a_future_iat_are_refused() {
        let (keys, later) = (keys(), now().timestamp() + CLOCKS_DIFFER + 1);
        let ahead = keys.sign_access(&AccessClaims { iat: later - 1, ..claims() }, now()).unwrap();
        assert!(keys.verify_access(&ahead, ISSUER, now()).is_ok(), "another machine's clock is a little ahead");
        let token = keys.sign_access(&AccessClaims { nbf: Some(later), ..claims() }, now()).unwrap();
        assert_eq!(refused(&keys, &token), Refused::NotYet);
        let token = keys.sign_access(&AccessClaims { iat: later, ..claims() }, now()).unwrap();
        assert_eq!(refused(&keys, &token), Refused::NotYet);
    }

    #[test]
    fn an_expired_token_is_refused() {
        let keys = keys();
        let token = keys.sign_access(&claims(), now()).unwrap();
        assert!(keys.verify_access(&token, ISSUER, now() + TimeDelta::seconds(899)).is_ok());
        assert_eq!(keys.verify_access(&token, ISSUER, now() + TimeDelta::seconds(900)), Err(Refused::Expired));
        let mut without = serde_json::to_value(claims()).unwrap();
        without.as_object_mut().unwrap().remove("exp");
        assert_eq!(refused(&keys, &signed(&keys, &header(&keys), &without)), Refused::Claims);
    }

    #[test]
    fn huge_truncated_and_changed_tokens_are_refused() {
        let keys = keys();
        let token = keys.sign_access(&claims(), now()).unwrap();
        let huge = keys.sign_access(&AccessClaims { jti: "x".repeat(MAX_LENGTH), ..claims() }, now()).unwrap();
        assert_eq!(refused(&keys, &huge), Refused::TooLong);
        assert_eq!(refused(&keys, &"e".repeat(10 << 20)), Refused::TooLong);
        for cut in [0, 1, 20, token.len() / 2, token.len() - 1] {
            let cut: String = token.chars().take(cut).collect();
            assert!(keys.verify_access(&cut, ISSUER, now()).is_err());
        }
        let parts: Vec<&str> = token.split('.').collect();
        let other = serde_json::to_value(AccessClaims { scope: "api_keys:write".to_owned(), ..claims() }).unwrap();
        let other = URL_SAFE_NO_PAD.encode(other.to_string());
        assert_eq!(refused(&keys, &format!("{}.{other}.{}", parts[0], parts[2])), Refused::Signature);
        let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
        assert_eq!(refused(&keys, &format!("{}.{}.{zeros}", parts[0], parts[1])), Refused::Signature);
        assert!(keys.verify_access(&format!("{token}.{token}"), ISSUER, now()).is_err());
    }

    #[test]
    fn an_id_token_is_no_access_token() {
        let keys = keys();
        let mut header = header(&keys);
        let claims = serde_json::to_value(claims()).unwrap();
        for typ in [json!("JWT"), json!("AT+JWT "), Value::Null] {
            header["typ"] = typ;
            assert_eq!(refused(&keys, &signed(&keys, &header, &claims)), Refused::Type);
        }
    }

    #[test]
    fn a_new_key_is_shown_before_it_signs_and_an_old_one_until_its_tokens_have_expired() {
        let (first, later) = (now(), now() + TimeDelta::days(1));
        let keys = Keys::new(vec![key(1, first, Some(later + TimeDelta::hours(1))), key(2, later, None)]);
        let kid = |at| decode_header(keys.sign_access(&claims(), at).unwrap()).unwrap().kid.unwrap();
        let shown = |at: DateTime<Utc>| keys.shown(at)["keys"].as_array().unwrap().len();
        assert_eq!((kid(first), shown(first)), (keys.0[0].id.to_string(), 2));
        assert_eq!((kid(later), shown(later)), (keys.0[1].id.to_string(), 2));
        let gone = later + TimeDelta::hours(1);
        assert_eq!((kid(gone), shown(gone)), (keys.0[1].id.to_string(), 1));
        let old = Keys::new(vec![keys.0[0].clone()]).sign_access(&claims(), first).unwrap();
        assert!(keys.verify_access(&old, ISSUER, first).is_ok());
        assert_eq!(keys.verify_access(&old, ISSUER, gone), Err(Refused::UnknownKey));
        assert!(Keys::default().sign_access(&claims(), now()).is_err());
        // The very first key, of a machine whose clock is ahead.
        assert_eq!(kid(first - TimeDelta::seconds(1)), keys.0[0].id.to_string());
        for key in keys.shown(first)["keys"].as_array().unwrap() {
            let mut members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
            members.sort_unstable();
            assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"], "nothing of the secret half");
        }
    }

    #[test]
    fn the_vector_of_at_hash_fits() {
        // OpenID Connect Core 1.0, A.3.
        assert_eq!(at_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
