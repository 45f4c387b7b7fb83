//! Passkeys (WebAuthn): what a browser is asked to sign, and whether what it answers proves anything. They always prove who
//! uses them too, by a finger, a face or a PIN, so that one is enough to sign in.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use gantry_schema::digest::{hex, sha256_alone};
use gantry_schema::factors::challenges::{self, Purpose};
use gantry_schema::factors::passkeys::{self as rows, Passkey as Row};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::people::Person;
use gantry_schema::{OrganizationId, PersonId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;
use webauthn_rs::prelude::{
    CredentialID, DiscoverableAuthentication, Passkey, PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential,
    RegisterPublicKeyCredential, WebauthnError,
};
use webauthn_rs::{Webauthn, WebauthnBuilder};

use super::proof;
use crate::app::App;
use crate::error::{Code, Error};
use crate::field::AnyJson;
use crate::rate::Seen;

/// The origin that passkeys are made for: the platform's public URL.
async fn relying_party(app: &App) -> Result<Webauthn, Error> {
    let unfit = || {
        let detail = "passkeys need the platform to have a host name, by TLS or as localhost; whoever runs it sets \
                      GANTRY_PUBLIC_URL to one";
        Error::new(Code::WrongState, detail)
    };
    let origin = Url::parse(app.public_url()).map_err(|_| unfit())?;
    let host = origin.domain().ok_or_else(unfit)?;
    let name = settings::get(&mut app.db.tenant(OrganizationId::PLATFORM).await?, Setting::BrandName).await?;
    WebauthnBuilder::new(host, &origin)
        .map(|builder| builder.rp_name(name.value.as_str().unwrap_or("Gantry")))
        .and_then(WebauthnBuilder::build)
        .map_err(|_| unfit())
}

/// What a browser is to sign.
#[derive(Debug)]
pub(crate) struct Challenge {
    /// The options of `navigator.credentials.create` or `get`, in their JSON form.
    pub(crate) public_key: Value,
    /// When it is too late.
    pub(crate) expires_at: DateTime<Utc>,
}

/// Asks a browser for a new passkey.
pub(super) async fn to_register(app: &App, person: &Person) -> Result<Challenge, Error> {
    let party = relying_party(app).await?;
    let known = rows::list(&mut app.db.person(person.id).await?, person.id).await?;
    let known: Vec<CredentialID> =
        known.iter().map(|row| Ok(read(row)?.cred_id().clone())).collect::<Result<_, Error>>()?;
    let name = if person.name.is_empty() { &person.email } else { &person.name };
    let (options, state) = party
        .start_passkey_registration(person.id.uuid(), &person.email, name, Some(known))
        .map_err(Error::internal)?;
    let mut public_key = written(&options.public_key)?;
    // A passkey that the browser finds by itself signs in without an address being typed. It is not insisted on.
    public_key["authenticatorSelection"]["residentKey"] = json!("preferred");
    keep(app, &options.public_key.challenge, Purpose::Register, Some(person.id), &state, public_key).await
}

/// Asks a browser for whichever passkey it has, of somebody who has not said who he is.
pub(crate) async fn to_sign_in(app: &App) -> Result<Challenge, Error> {
    let (options, state) = relying_party(app).await?.start_discoverable_authentication().map_err(Error::internal)?;
    let public_key = written(&options.public_key)?;
    keep(app, &options.public_key.challenge, Purpose::SignIn, None, &state, public_key).await
}

/// Asks a browser for one of a person's passkeys; `None`: he has none.
pub(crate) async fn to_prove(app: &App, person: PersonId, purpose: Purpose) -> Result<Option<Challenge>, Error> {
    let found = rows::list(&mut app.db.person(person).await?, person).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let passkeys: Vec<Passkey> = found.iter().map(read).collect::<Result<_, _>>()?;
    let (options, state) =
        relying_party(app).await?.start_passkey_authentication(&passkeys).map_err(Error::internal)?;
    let public_key = written(&options.public_key)?;
    keep(app, &options.public_key.challenge, purpose, Some(person), &state, public_key).await.map(Some)
}

/// A passkey that a browser made, as it is kept.
pub(super) struct Registered {
    pub(super) credential_id: Vec<u8>,
    pub(super) known: Value,
}

/// Reads what a browser answers to [`to_register`].
pub(super) async fn registered(app: &App, person: PersonId, credential: &AnyJson) -> Result<Registered, Error> {
    let party = relying_party(app).await?;
    let answer: RegisterPublicKeyCredential = parsed(credential, "credential")?;
    let state: PasskeyRegistration =
        taken(app, &answer.response.client_data_json, Purpose::Register, Some(person), "credential").await?;
    let passkey = party.finish_passkey_registration(&answer, &state).map_err(|error| unproven(&error, "credential"))?;
    Ok(Registered { credential_id: passkey.cred_id().to_vec(), known: written(&passkey)? })
}

/// Lets go on whoever signs in with a passkey and nothing else. Answers who he is, and what was tried before in vain.
pub(crate) async fn signs_in(app: &App, from: Option<IpAddr>, credential: &AnyJson) -> Result<(PersonId, Seen), Error> {
    let party = relying_party(app).await?;
    let answer: PublicKeyCredential = parsed(credential, "credential")?;
    let attempt = app.attempts().begin("passkey", from, &hex(&sha256_alone(answer.get_credential_id()))).await?;
    let seen = attempt.seen();
    let state: DiscoverableAuthentication =
        taken(app, &answer.response.client_data_json, Purpose::SignIn, None, "credential").await?;
    let presented = sha256_alone(answer.get_credential_id());
    let Some(row) = rows::presented(&mut app.db.credential(presented).await?).await? else {
        attempt.failed().await;
        return Err(proof::wrong().at("credential"));
    };
    // A browser says whose it is, if it was made to be found without asking.
    let said = answer.get_user_unique_id();
    let of_him = said.is_none_or(|said| said == row.person.uuid().as_bytes());
    let passkey = read(&row)?;
    let verified = party.finish_discoverable_authentication_v2(&answer, state, &passkey);
    match verified {
        Ok(result) if of_him => {
            note_use(app, &row, passkey, &result).await?;
            attempt.succeeded().await;
            Ok((row.person, seen))
        }
        Ok(_) => {
            attempt.failed().await;
            Err(proof::wrong().at("credential"))
        }
        Err(error) => {
            attempt.failed().await;
            note_copy(app, &row, &error).await?;
            Err(unproven(&error, "credential"))
        }
    }
}

/// Whether one of the person's passkeys signed what it was asked to.
pub(super) async fn proves(
    app: &App,
    person: PersonId,
    credential: &AnyJson,
    purpose: Purpose,
    field: &str,
) -> Result<(), Error> {
    let party = relying_party(app).await?;
    let answer: PublicKeyCredential = parsed(credential, field)?;
    let state: PasskeyAuthentication =
        taken(app, &answer.response.client_data_json, purpose, Some(person), field).await?;
    let found = rows::list(&mut app.db.person(person).await?, person).await?;
    for row in found {
        let passkey = read(&row)?;
        if passkey.cred_id().as_slice() != answer.get_credential_id() {
            continue;
        }
        return match party.finish_passkey_authentication(&answer, &state) {
            Ok(result) => note_use(app, &row, passkey, &result).await,
            Err(error) => {
                note_copy(app, &row, &error).await?;
                Err(unproven(&error, field))
            }
        };
    }
    Err(proof::wrong().at(field))
}

/// Notes what a signature says of the passkey, before anything comes of it.
async fn note_use(
    app: &App,
    row: &Row,
    mut passkey: Passkey,
    result: &webauthn_rs::prelude::AuthenticationResult,
) -> Result<(), Error> {
    passkey.update_credential(result);
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, row.person).await?;
    let there = rows::used(&mut tx, row.id, &written(&passkey)?, result.backup_state()).await?;
    tx.commit().await?;
    there.then_some(()).ok_or_else(proof::wrong)
}

async fn note_copy(app: &App, row: &Row, error: &WebauthnError) -> Result<(), Error> {
    if matches!(error, WebauthnError::CredentialPossibleCompromise) {
        let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, row.person).await?;
        rows::suspect(&mut tx, row.id).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn keep(
    app: &App,
    challenge: &[u8],
    purpose: Purpose,
    person: Option<PersonId>,
    state: &(impl Serialize + Sync),
    public_key: Value,
) -> Result<Challenge, Error> {
    let state = written(state)?;
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
    let expires_at = challenges::keep(&mut tx, challenge, purpose, person, &state).await?;
    tx.commit().await?;
    Ok(Challenge { public_key, expires_at })
}

/// Uses up the challenge that a browser says it signed. Whether it did is seen by the signature.
async fn taken<S: DeserializeOwned>(
    app: &App,
    client_data: &[u8],
    purpose: Purpose,
    person: Option<PersonId>,
    field: &str,
) -> Result<S, Error> {
    let stale = || {
        let detail =
            "it answers no challenge that is still open: each is good once and for five minutes; ask for another";
        Error::new(Code::WrongFactor, detail).at(field)
    };
    let data: Value = serde_json::from_slice(client_data).map_err(|_| stale())?;
    let challenge = data["challenge"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(stale)?;
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
    let state = challenges::take(&mut tx, &challenge, purpose, person).await?.ok_or_else(stale)?;
    tx.commit().await?;
    serde_json::from_value(state).map_err(Error::internal)
}

fn parsed<T: DeserializeOwned>(credential: &AnyJson, field: &str) -> Result<T, Error> {
    serde_json::from_str(credential.0.get()).map_err(|error| {
        let detail = format!("this is not what a browser answers, by `toJSON()` of the credential: {error}");
        Error::field(field, detail)
    })
}

/// What was wrong is of use to whoever writes the page, and to nobody else.
fn unproven(error: &WebauthnError, field: &str) -> Error {
    let detail = match error {
        WebauthnError::InvalidRPOrigin => "it was signed for another origin than the platform's public URL",
        WebauthnError::CredentialPossibleCompromise => {
            "its count went backwards, as that of a copy would; remove this passkey, and enrol another"
        }
        WebauthnError::UserNotVerified => {
            "the passkey did not ask who uses it; use one that asks for a PIN or a finger"
        }
        _ => "the signature is not of this passkey, or not of what it was asked to sign",
    };
    Error::new(Code::WrongFactor, detail).at(field)
}

fn read(row: &Row) -> Result<Passkey, Error> {
    serde_json::from_value(row.known.clone()).map_err(Error::internal)
}

fn written(value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(Error::internal)
}
