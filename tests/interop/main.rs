//! What other people's libraries need of us to be tried. Signatures of webhooks: `interop sign` writes deliveries of ours,
//! one line of JSON each, for others to verify; `interop verify` reads deliveries that others signed, and verifies them.
//! Signing in: `interop person EMAIL PASSWORD ORGANIZATION` makes somebody who can.

#![expect(clippy::print_stdout, reason = "its output is read by scripts/interop")]

use std::io::BufRead as _;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use gantry_schema::memberships::{self, Role};
use gantry_schema::people::hashing::Hasher;
use gantry_schema::people::{self, Email, NewPerson, Typed};
use gantry_schema::webhooks::signature::{
    Scheme, SignatureError, SigningSecret, VerifyingKey, signature_header, verify,
};
use gantry_schema::{OrganizationId, PersonId};
use gantry_tests::process::{self, Servers};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

/// A delivery as its receiver has it.
#[derive(Debug, Serialize, Deserialize)]
struct Delivery {
    /// What is tried.
    case: String,
    id: String,
    timestamp: String,
    signature: String,
    body: String,
    /// `whsec_…` or `whpk_…`, each of which is to verify it.
    keys: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("sign") => sign(now()?),
        Some("verify") => verify_all(now()?),
        Some("person") => tokio::runtime::Runtime::new()?.block_on(person()),
        _ => anyhow::bail!("usage: interop sign|verify|person EMAIL PASSWORD ORGANIZATION"),
    }
}

/// The libraries look at their own clocks.
#[expect(clippy::disallowed_methods, reason = "other programs verify at the present moment")]
fn now() -> anyhow::Result<DateTime<Utc>> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    DateTime::from_timestamp(i64::try_from(seconds)?, 0).context("the clock is beyond all times")
}

/// Somebody with a password, an admin of the organization, on the servers that the environment names.
async fn person() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let [email, password, organization] = arguments.as_slice() else {
        anyhow::bail!("usage: interop person EMAIL PASSWORD ORGANIZATION");
    };
    let (email, organization): (Email, OrganizationId) = (email.parse()?, organization.parse()?);
    let db = process::silent_db(&Servers::from_env()?).await?;
    let hash = Hasher::new(None, &mut rand::rng())?.hash(&Typed::new(password), &mut rand::rng())?;
    let id: PersonId = db.ids().mint();
    let mut tx = db.person(id).await?;
    let new = NewPerson { id, email: &email, email_verified: true, name: "Somebody", locale: "en" };
    people::insert(&mut tx, &new).await?;
    people::passwords::set(&mut tx, id, &hash, true).await?;
    tx.commit().await?;
    let mut tx = db.tenant(organization).await?;
    memberships::insert(&mut tx, id, Role::Admin).await?;
    Ok(tx.commit().await?)
}

fn sign(now: DateTime<Utc>) -> anyhow::Result<()> {
    let v1 = |byte: u8| SigningSecret::generate(Scheme::V1, &[byte; 32]);
    let v1a = |byte: u8| SigningSecret::generate(Scheme::V1a, &[byte; 32]);
    let bodies = [r#"{"type":"invoice.paid","data":{"amount":1200}}"#, "{}", "ünïcödé ✓ \u{1f980}", ""];
    let cases = [
        ("v1", vec![v1(1)]),
        ("v1a", vec![v1a(2)]),
        ("v1 while it is rotated", vec![v1(3), v1(4)]),
        ("v1a while it is rotated", vec![v1a(5), v1a(6)]),
        ("from v1 to v1a", vec![v1a(7), v1(8)]),
        ("two of each", vec![v1a(9), v1(10), v1a(11), v1(12)]),
    ];
    for (case, secrets) in cases {
        for (number, body) in bodies.iter().enumerate() {
            let id = format!("evt_{number}");
            let signing: Vec<&SigningSecret> = secrets.iter().collect();
            let shown = |secret: &SigningSecret| {
                secret.public_key().unwrap_or_else(|| secret.reveal().expose_secret().to_owned())
            };
            let delivery = Delivery {
                case: case.to_owned(),
                signature: signature_header(&signing, &id, now, body.as_bytes()),
                id,
                timestamp: now.timestamp().to_string(),
                body: (*body).to_owned(),
                keys: secrets.iter().map(shown).collect(),
            };
            println!("{}", serde_json::to_string(&delivery)?);
        }
    }
    Ok(())
}

fn verify_all(now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut count = 0;
    for line in std::io::stdin().lock().lines() {
        let delivery: Delivery = serde_json::from_str(&line?).context("a line is no delivery")?;
        for key in &delivery.keys {
            let key = VerifyingKey::parse(key).with_context(|| delivery.case.clone())?;
            let judge = |body: &str| {
                let Delivery { id, timestamp, signature, .. } = &delivery;
                let keys = [key.clone()];
                verify(&keys, id, timestamp, signature, body.as_bytes(), now, TimeDelta::minutes(5))
            };
            ensure!(judge(&delivery.body).is_ok(), "{}: {:?}", delivery.case, judge(&delivery.body));
            let forged = judge(&format!("{} ", delivery.body));
            ensure!(forged == Err(SignatureError::Mismatch), "{}: a changed body is believed", delivery.case);
            count += 1;
        }
    }
    ensure!(count > 0, "nothing was signed");
    println!("ours verifies what they signed: {count} signatures");
    Ok(())
}
