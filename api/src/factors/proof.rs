//! Somebody proves himself with a second factor. What is tried is counted before it is looked at, and what was right is
//! used up before anything comes of it.

use std::net::IpAddr;

use gantry_schema::factors::challenges::Purpose;
use gantry_schema::factors::recovery::{self, RecoveryCode};
use gantry_schema::factors::{self as rows, Kind, assurance, totp};
use gantry_schema::{FactorId, OrganizationId, PersonId};
use poem_openapi::{Enum, Object};
use serde::Deserialize;

use super::{codes, passkeys};
use crate::app::App;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{AnyJson, Secret};

/// Digits of a code that is sent by mail.
pub(crate) const MAILED_DIGITS: usize = 8;

/// With what somebody proves himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub(crate) enum ProofMethod {
    /// The code that one of his devices shows.
    Totp,
    /// One of his passkeys, which signs the challenge that was made for this.
    Passkey,
    /// The code that was sent to his telephone, or to his address where he enrolled that.
    SentCode,
    /// One of his recovery codes, which is good once.
    RecoveryCode,
    /// The code that was sent to him because the sign-in looked wrong.
    MailedCode,
}

/// A proof by a second factor.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub(crate) struct FactorProof {
    /// With what.
    pub(crate) method: ProofMethod,
    /// Of a device, a code that was sent, or a recovery code: the code.
    pub(crate) code: Option<Secret>,
    /// Of a passkey: what `navigator.credentials.get` answered, by `toJSON()`.
    pub(crate) credential: Option<AnyJson>,
}

example!(FactorProof, { "method": "totp", "code": "492039" });

impl FactorProof {
    /// What somebody typed on a page: the kinds of codes differ in how they look.
    pub(crate) fn typed(code: Secret) -> Self {
        let digits = code.expose().trim();
        let method = match digits.len() {
            MAILED_DIGITS if digits.bytes().all(|byte| byte.is_ascii_digit()) => ProofMethod::MailedCode,
            rows::codes::DIGITS if digits.bytes().all(|byte| byte.is_ascii_digit()) => ProofMethod::SentCode,
            _ if RecoveryCode::read(digits).is_some() => ProofMethod::RecoveryCode,
            _ => ProofMethod::Totp,
        };
        Self { method, code: Some(code), credential: None }
    }

    /// What one of his passkeys signed.
    pub(crate) const fn signed(credential: AnyJson) -> Self {
        Self { method: ProofMethod::Passkey, code: None, credential: Some(credential) }
    }
}

/// What was proven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proven {
    /// In the words of RFC 8176.
    pub(crate) methods: &'static [&'static str],
    /// By which kind of factor.
    pub(crate) factor: &'static str,
}

impl Proven {
    pub(super) const fn by(kind: Kind) -> Self {
        Self { methods: assurance::methods(kind), factor: kind.as_str() }
    }
}

/// What is answered to whoever did not prove himself.
pub(crate) fn wrong() -> Error {
    Error::new(
        Code::WrongFactor,
        "this proves nothing: the code is wrong, is not good any more, or was used before; wait for the next one",
    )
}

/// Lets go on who proves himself with one of his factors; a passkey's challenge was made for this purpose.
///
/// # Errors
/// When he does not, when that was tried too often, and while it cannot be counted.
pub(crate) async fn verify(
    app: &App,
    person: PersonId,
    from: Option<IpAddr>,
    proof: &FactorProof,
    purpose: Purpose,
    field: &str,
) -> Result<Proven, Error> {
    if proof.method == ProofMethod::Passkey {
        let field = format!("{field}credential");
        let missing = || Error::field(&field, "send what the browser answered, by `toJSON()` of the credential");
        let credential = proof.credential.as_ref().ok_or_else(missing)?;
        let attempt = app.attempts().begin("second_factor", from, &person.to_string()).await?;
        if let Err(error) = passkeys::proves(app, person, credential, purpose, &field).await {
            attempt.failed().await;
            return Err(error);
        }
        attempt.succeeded().await;
        return Ok(Proven::by(Kind::Passkey));
    }
    let code = proof.code.as_ref().ok_or_else(|| {
        Error::field(format!("{field}code"), "write the code of the device, or one of the recovery codes")
    })?;
    let attempt = app.attempts().begin("second_factor", from, &person.to_string()).await?;
    let proven = match proof.method {
        ProofMethod::Totp => is_shown_by(app, person, None, code).await?.map(|_| Proven::by(Kind::Totp)),
        ProofMethod::RecoveryCode => recovers(app, person, code).await?,
        ProofMethod::SentCode => codes::was_sent(app, person, None, code).await?.map(Proven::by),
        ProofMethod::Passkey | ProofMethod::MailedCode => None,
    };
    if let Some(proven) = proven {
        attempt.succeeded().await;
        return Ok(proven);
    }
    attempt.failed().await;
    Err(wrong().at(format!("{field}code")))
}

/// The device that shows this code: one of the person's, or that one. The code is used up.
pub(super) async fn is_shown_by(
    app: &App,
    person: PersonId,
    only: Option<FactorId>,
    code: &Secret,
) -> Result<Option<FactorId>, Error> {
    // Counted, and not recorded: what comes of it is.
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?;
    let devices = rows::totp_devices(&mut tx, person, only, &app.sealing).await.map_err(|error| {
        Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again").because(error)
    })?;
    let (typed, now) = (code.expose().trim(), app.db.now());
    let mut found = None;
    for device in &devices {
        // All of them are tried, whichever it is.
        if let Some(step) = totp::accept(&device.secret, typed, now, device.last_step) {
            found = Some((device.id, step));
        }
    }
    match found {
        Some((id, step)) => rows::used_totp(&mut tx, id, step).await?,
        None => rows::failed(&mut tx, person, Kind::Totp).await?,
    }
    tx.commit().await?;
    Ok(found.map(|(id, _)| id))
}

async fn recovers(app: &App, person: PersonId, code: &Secret) -> Result<Option<Proven>, Error> {
    let Some(code) = RecoveryCode::read(code.expose()) else { return Ok(None) };
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?;
    let Some(salt) = recovery::salt(&mut tx, person).await? else { return Ok(None) };
    drop(tx);
    let hash = app.passwords.run(move |hasher| hasher.salted(code.expose(), &salt)).await?;
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?;
    let taken = recovery::take(&mut tx, person, &hash).await?;
    tx.commit().await?;
    Ok(taken.then_some(Proven { methods: assurance::RECOVERY, factor: assurance::RECOVERY_CODE }))
}
