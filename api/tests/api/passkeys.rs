//! Passkeys: enrolling one, signing in with it and nothing else, and everything it must not be accepted for.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use gantry_schema::digest::sha256_alone;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{Human, PASSWORD, Platform};

const EMAIL: &str = "ada@example.com";
pub const ORIGIN: &str = "http://localhost:8080";

/// Somebody was there, and proved who he is; the key may leave its device.
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const NEW_KEY: u8 = 0x40;

/// An authenticator in software: a key of the curve P-256, and a count.
pub struct Authenticator {
    id: [u8; 16],
    key: EcdsaKeyPair,
    count: u32,
    flags: u8,
    origin: &'static str,
    user_handle: Option<String>,
}

impl Authenticator {
    fn new(id: u8) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self { id: [id; 16], key, count: 0, flags: PRESENT | VERIFIED, origin: ORIGIN, user_handle: None }
    }

    fn client_data(&self, kind: &str, options: &Value) -> Vec<u8> {
        let data =
            json!({ "type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": false });
        data.to_string().into_bytes()
    }

    /// What is signed: for whom, what was seen of the person, the count, and a new key.
    fn data(&self, rp_id: &str, key: &[u8]) -> Vec<u8> {
        let flags = self.flags | if key.is_empty() { 0 } else { NEW_KEY };
        let mut data = sha256_alone(rp_id.as_bytes()).to_vec();
        data.push(flags);
        data.extend(self.count.to_be_bytes());
        data.extend(key);
        data
    }

    /// Answers options of `navigator.credentials.create`.
    fn create(&mut self, options: &Value) -> Value {
        self.user_handle = options["user"]["id"].as_str().map(str::to_owned);
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        // COSE (RFC 9052): an elliptic curve key of ES256 on P-256.
        let cose = [&[0xA5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32][..], x, &[0x22, 0x58, 32], y].concat();
        let attested = [&[0; 16][..], &[0, 16], &self.id, &cose].concat();
        let data = self.data(options["rp"]["id"].as_str().unwrap(), &attested);
        // CBOR: a map of fmt, attStmt and authData.
        let object = [
            b"\xA3\x63fmt\x64none\x67attStmt\xA0\x68authData\x58".to_vec(),
            vec![u8::try_from(data.len()).unwrap()],
            data,
        ];
        json!({
            "id": encoded(&self.id),
            "rawId": encoded(&self.id),
            "type": "public-key",
            "response": {
                "clientDataJSON": encoded(&self.client_data("webauthn.create", options)),
                "attestationObject": encoded(&object.concat()),
                "transports": ["internal"],
            },
            "clientExtensionResults": {},
        })
    }

    /// Answers options of `navigator.credentials.get`.
    pub fn get(&mut self, options: &Value) -> Value {
        self.count += 1;
        let client_data = self.client_data("webauthn.get", options);
        let data = self.data(options["rpId"].as_str().unwrap(), &[]);
        let signed = [&data[..], &sha256_alone(&client_data)].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        json!({
            "id": encoded(&self.id),
            "rawId": encoded(&self.id),
            "type": "public-key",
            "response": {
                "clientDataJSON": encoded(&client_data),
                "authenticatorData": encoded(&data),
                "signature": encoded(signature.as_ref()),
                "userHandle": self.user_handle,
            },
            "clientExtensionResults": {},
        })
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

async fn ada(pool: PgPool) -> (Platform, Human) {
    let platform = Platform::counting(pool).await.reached_at(ORIGIN);
    let id = platform.person(EMAIL).await;
    let here = platform.signed_in(id, EMAIL).await;
    (platform, here)
}

pub async fn enrolled(here: &Human, id: u8) -> (Authenticator, Value) {
    let mut authenticator = Authenticator::new(id);
    let asked = here.post("/me/passkey-challenges", &json!({ "purpose": "register" })).await.expect(201);
    let body = json!({ "name": "My laptop", "credential": authenticator.create(&asked["public_key"]) });
    let confirmed = here.post("/me/factors/passkeys", &body).await.expect(201);
    (authenticator, confirmed)
}

async fn options(platform: &Platform) -> Value {
    let asked = platform.post("/sessions/passkey-challenges", &json!({})).await.expect(201);
    asked["public_key"].clone()
}

/// Signs in as he should: wrong guesses before are forgotten, and need not be waited for.
async fn forgiven(platform: &Platform, passkey: &mut Authenticator) {
    (passkey.origin, passkey.flags) = (ORIGIN, PRESENT | VERIFIED);
    let credential = passkey.get(&options(platform).await);
    platform.post("/sessions/passkey", &signing_in(credential)).await.expect(201);
}

fn signing_in(credential: Value) -> Value {
    json!({ "kind": "program", "credential": credential })
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_passkey_signs_in_by_itself_as_a_second_step_and_proves_anew(pool: PgPool) {
    let (platform, here) = ada(pool).await;
    let (mut passkey, confirmed) = enrolled(&here, 1).await;
    assert_eq!(confirmed["recovery_codes"].as_array().unwrap().len(), 10);
    assert_eq!((&confirmed["factor"]["kind"], &confirmed["factor"]["confirmed"]), (&json!("passkey"), &json!(true)));

    let signed_in = platform.post("/sessions/passkey", &signing_in(passkey.get(&options(&platform).await))).await;
    let opened = signed_in.expect(201);
    assert_eq!(
        (&opened["session"]["methods"], &opened["session"]["acr"]),
        (&json!(["pop", "mfa"]), &json!("urn:gantry:aal2"))
    );
    here.with(&opened).get("/me").await.expect(200);

    let password = json!({ "email": EMAIL, "password": PASSWORD, "kind": "program" });
    let asked = platform.post("/sessions", &password).await.expect(202)["second_step"].clone();
    let credential = passkey.get(&asked["passkey"]["public_key"]);
    let body = json!({ "token": asked["token"], "factor": { "method": "passkey", "credential": credential } });
    platform.post("/sessions/second-step", &body).await.expect(201);

    let asked = here.post("/me/passkey-challenges", &json!({ "purpose": "prove" })).await.expect(201);
    let proof = json!({ "factor": { "method": "passkey", "credential": passkey.get(&asked["public_key"]) } });
    let renewed = here.with(&here.post("/sessions/current/proof", &proof).await.expect(200));
    let id = confirmed["factor"]["id"].as_str().unwrap();
    renewed.delete(&format!("/me/factors/{id}")).await.expect(204);
    let gone = platform.post("/sessions/passkey", &signing_in(passkey.get(&options(&platform).await))).await;
    gone.problem(401, "wrong_factor", Some("credential"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_replay_a_challenge_is_good_once_for_its_purpose_and_for_minutes(pool: PgPool) {
    let (platform, here) = ada(pool).await;
    let (mut passkey, _) = enrolled(&here, 1).await;
    let answer = signing_in(passkey.get(&options(&platform).await));
    platform.post("/sessions/passkey", &answer).await.expect(201);
    platform.post("/sessions/passkey", &answer).await.problem(401, "wrong_factor", Some("credential"));

    let to_prove = here.post("/me/passkey-challenges", &json!({ "purpose": "prove" })).await.expect(201);
    let elsewhere = signing_in(passkey.get(&to_prove["public_key"]));
    platform.post("/sessions/passkey", &elsewhere).await.problem(401, "wrong_factor", Some("credential"));

    forgiven(&platform, &mut passkey).await;
    let late = options(&platform).await;
    platform.clock.advance(TimeDelta::minutes(5));
    let late = signing_in(passkey.get(&late));
    platform.post("/sessions/passkey", &late).await.problem(401, "wrong_factor", Some("credential"));

    forgiven(&platform, &mut passkey).await;
    let mut invented = options(&platform).await;
    invented["challenge"] = json!(encoded(&[7; 32]));
    let invented = signing_in(passkey.get(&invented));
    platform.post("/sessions/passkey", &invented).await.problem(401, "wrong_factor", Some("credential"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn against_phishing_and_forgery_what_was_signed_elsewhere_or_otherwise_proves_nothing(pool: PgPool) {
    let (platform, here) = ada(pool).await;
    let (mut passkey, _) = enrolled(&here, 1).await;
    let refused = async |credential: Value| {
        let answer = platform.post("/sessions/passkey", &signing_in(credential)).await;
        answer.problem(401, "wrong_factor", Some("credential"));
    };
    passkey.origin = "http://localhost.evil.example";
    refused(passkey.get(&options(&platform).await)).await;
    forgiven(&platform, &mut passkey).await;
    // Nobody was asked for a finger or a PIN.
    passkey.flags = PRESENT;
    refused(passkey.get(&options(&platform).await)).await;
    forgiven(&platform, &mut passkey).await;
    let mut for_another = options(&platform).await;
    for_another["rpId"] = json!("example.com");
    refused(passkey.get(&for_another)).await;
    forgiven(&platform, &mut passkey).await;
    let mut cut = passkey.get(&options(&platform).await);
    cut["response"]["signature"] = json!("MEUCIQDn");
    refused(cut).await;
    forgiven(&platform, &mut passkey).await;
    // Another key that calls itself the same, and one that is not enrolled.
    let (mut forged, mut unknown) = (Authenticator::new(1), Authenticator::new(2));
    (forged.count, unknown.count) = (1_000, 1_000);
    refused(forged.get(&options(&platform).await)).await;
    refused(unknown.get(&options(&platform).await)).await;
    forgiven(&platform, &mut passkey).await;
    // It says that it is somebody else's.
    passkey.user_handle = Some(encoded(&[9; 16]));
    refused(passkey.get(&options(&platform).await)).await;
    let broken = platform.post("/sessions/passkey", &signing_in(json!({ "id": "x" }))).await;
    broken.problem(422, "invalid_field", Some("credential"));
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_copy_of_a_passkey_is_noticed_by_its_count(pool: PgPool) {
    let (platform, here) = ada(pool).await;
    let (mut passkey, _) = enrolled(&here, 1).await;
    passkey.count = 10;
    platform.post("/sessions/passkey", &signing_in(passkey.get(&options(&platform).await))).await.expect(201);
    passkey.count = 3;
    let copied = platform.post("/sessions/passkey", &signing_in(passkey.get(&options(&platform).await))).await;
    copied.problem(401, "wrong_factor", Some("credential"));
    let noted: bool =
        sqlx::query_scalar("select suspected_at is not null from factors").fetch_one(&platform.pool).await.unwrap();
    assert!(noted);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_passkey_belongs_to_one_person_and_one_challenge_to_whoever_asked(pool: PgPool) {
    let (platform, here) = ada(pool).await;
    let (mut passkey, _) = enrolled(&here, 1).await;
    let eve = platform.person("eve@example.com").await;
    let eve = platform.signed_in(eve, "eve@example.com").await;
    let asked = eve.post("/me/passkey-challenges", &json!({ "purpose": "register" })).await.expect(201);
    let body = json!({ "name": "Mine", "credential": passkey.create(&asked["public_key"]) });
    eve.post("/me/factors/passkeys", &body).await.problem(409, "wrong_state", Some("credential"));
    let asked = here.post("/me/passkey-challenges", &json!({ "purpose": "register" })).await.expect(201);
    let body = json!({ "name": "Mine", "credential": Authenticator::new(3).create(&asked["public_key"]) });
    eve.post("/me/factors/passkeys", &body).await.problem(401, "wrong_factor", Some("credential"));
    eve.post("/me/passkey-challenges", &json!({ "purpose": "prove" })).await.problem(409, "wrong_state", None);
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn without_a_host_name_there_are_no_passkeys_and_it_is_said_why(pool: PgPool) {
    let platform = Platform::counting(pool).await;
    let refused = platform.post("/sessions/passkey-challenges", &json!({})).await.problem(409, "wrong_state", None);
    assert!(refused["detail"].as_str().unwrap().contains("GANTRY_PUBLIC_URL"), "{refused}");
}
