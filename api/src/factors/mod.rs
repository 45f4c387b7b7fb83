//! Second factors: what people enrol, name and remove, and the codes that are left when a device is lost.

pub(crate) mod codes;
pub(crate) mod passkeys;
pub(crate) mod proof;

use fast_qr::convert::svg::SvgBuilder;
use fast_qr::qr::QRBuilder;
use gantry_schema::factors::challenges::Purpose;
use gantry_schema::factors::passkeys::NewPasskey as NewRow;
use gantry_schema::factors::recovery::{self, RecoveryCode};
use gantry_schema::factors::{self as rows, assurance, pending, totp};
use gantry_schema::messages::{InvalidPhone, Phone};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::people::hashing::Salt;
use gantry_schema::sessions::{self, Ended};
use gantry_schema::{FactorId, OrganizationId, PersonId, PersonalTx, TenantTx, people};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::Me;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{AnyJson, Moment, Name, Secret};
use crate::people::act;
use crate::tag::Tag;

/// Factors of one person.
const MAX_FACTORS: i64 = 20;

/// The operations of people on their second factors.
#[derive(Debug, Clone, Copy)]
pub struct Factors;

/// What a factor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", rename = "FactorKind")]
pub(crate) enum Kind {
    /// A device that shows codes by the time (RFC 6238).
    Totp,
    /// A passkey, or a security key (WebAuthn).
    Passkey,
    /// Codes that are sent to a telephone.
    Sms,
    /// Codes that are sent by mail.
    Email,
}

impl From<rows::Kind> for Kind {
    fn from(kind: rows::Kind) -> Self {
        match kind {
            rows::Kind::Totp => Self::Totp,
            rows::Kind::Passkey => Self::Passkey,
            rows::Kind::Sms => Self::Sms,
            rows::Kind::Email => Self::Email,
        }
    }
}

impl From<Kind> for rows::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Totp => Self::Totp,
            Kind::Passkey => Self::Passkey,
            Kind::Sms => Self::Sms,
            Kind::Email => Self::Email,
        }
    }
}

/// What somebody proves himself with beside his password, or in place of it.
#[derive(Debug, Object)]
#[oai(example)]
pub(crate) struct Factor {
    /// Its id.
    id: FactorId,
    /// What it is.
    kind: Kind,
    /// What its owner calls it.
    name: String,
    /// Where codes are sent to, as much of it as its owner needs to know it again.
    #[oai(skip_serializing_if_is_none)]
    sent_to: Option<String>,
    /// It was shown to work; before that, it counts for nothing.
    confirmed: bool,
    /// When it was begun.
    created_at: Moment,
    /// When it was used last.
    #[oai(skip_serializing_if_is_none)]
    last_used_at: Option<Moment>,
    /// Of a passkey: it has left the device it was made on.
    #[oai(skip_serializing_if_is_none)]
    backed_up: Option<bool>,
    /// Of a passkey: when its count last went backwards, as that of a copy would.
    #[oai(skip_serializing_if_is_none)]
    suspected_at: Option<Moment>,
}

example!(Factor, {
    "id": "fac_01h455vb4pex5vsknk084sn02q",
    "kind": "totp",
    "name": "My telephone",
    "confirmed": true,
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Factor> for Factor {
    fn from(row: rows::Factor) -> Self {
        Self {
            id: row.id,
            kind: row.kind.into(),
            sent_to: row.address.as_deref().map(codes::hinted),
            name: row.name,
            confirmed: row.confirmed_at.is_some(),
            created_at: row.created_at.into(),
            last_used_at: row.last_used_at.map(Into::into),
            backed_up: (row.kind == rows::Kind::Passkey).then_some(row.backed_up),
            suspected_at: row.suspected_at.map(Into::into),
        }
    }
}

/// What somebody proves himself with.
#[derive(Debug, Object)]
#[oai(example)]
struct FactorList {
    /// Oldest first; at most twenty.
    items: Vec<Factor>,
}

impl Example for FactorList {
    fn example() -> Self {
        Self { items: vec![Factor::example()] }
    }
}

/// A device to enrol.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewTotp {
    /// What its owner calls it: 1 to 200 characters.
    name: Name,
}

example!(NewTotp, { "name": "My telephone" });

/// A device that is being enrolled, with what it has to know. This is shown once.
#[derive(Debug, Object)]
#[oai(example)]
struct BegunTotp {
    /// The device.
    factor: Factor,
    /// The secret, for whoever types it.
    secret: String,
    /// The same for a program on the device.
    uri: String,
    /// The same as a QR code, for the device's camera: a picture in SVG.
    qr_svg: String,
}

example!(BegunTotp, {
    "factor": {
        "id": "fac_01h455vb4pex5vsknk084sn02q",
        "kind": "totp",
        "name": "My telephone",
        "confirmed": false,
        "created_at": "2026-01-15T12:00:00Z",
    },
    "secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
    "uri": "otpauth://totp/Gantry:ada%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Gantry&algorithm=SHA1&digits=6&period=30",
    "qr_svg": "<svg viewBox=\"0 0 53 53\" xmlns=\"http://www.w3.org/2000/svg\"></svg>",
});

/// A telephone to enrol.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewPhone {
    /// What its owner calls it: 1 to 200 characters.
    name: Name,
    /// Its number, with the country's code: `+43 660 1234567`.
    phone: Name,
}

example!(NewPhone, { "name": "My telephone", "phone": "+43 660 1234567" });

/// Mail to enrol.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewEmailFactor {
    /// What its owner calls it: 1 to 200 characters.
    name: Name,
}

example!(NewEmailFactor, { "name": "My mail" });

/// That a code is on its way.
#[derive(Debug, Object)]
#[oai(rename = "SentCode", example)]
pub(crate) struct Sent {
    /// Until when it is good.
    pub(crate) expires_at: Moment,
}

example!(Sent, { "expires_at": "2026-01-15T12:10:00Z" });

/// A code is sent.
#[derive(ApiResponse)]
pub(crate) enum CodeSent {
    /// It is on its way.
    #[oai(status = 202)]
    Accepted(Json<Sent>),
}

/// What is answered to somebody who begins to enrol a telephone or an address.
#[derive(ApiResponse)]
enum BegunAddress {
    /// A code is on its way to it.
    #[oai(status = 201)]
    Created(Json<Factor>),
}

/// What a device shows.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Shown {
    /// The six digits that a device shows, or the seven that were sent.
    code: Secret,
}

example!(Shown, { "code": "492039" });

/// A factor that counts from now on.
#[derive(Debug, Object)]
#[oai(example)]
struct Confirmed {
    /// The factor.
    factor: Factor,
    /// With the first one: what is left when it is lost. Each is good once; they are shown once.
    #[oai(skip_serializing_if_is_none)]
    recovery_codes: Option<Vec<String>>,
}

impl Example for Confirmed {
    fn example() -> Self {
        Self { factor: Factor::example(), recovery_codes: Some(RecoveryCodes::example().recovery_codes) }
    }
}

/// What a passkey is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
enum PasskeyPurpose {
    /// To enrol one.
    Register,
    /// To prove anew who one is, with one that is enrolled.
    Prove,
}

/// A challenge to ask for.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewPasskeyChallenge {
    /// What it is wanted for.
    purpose: PasskeyPurpose,
}

example!(NewPasskeyChallenge, { "purpose": "register" });

/// What a browser is to sign, once.
#[derive(Debug, Object)]
#[oai(example)]
pub(crate) struct PasskeyChallenge {
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`.
    public_key: AnyJson,
    /// When it is too late.
    expires_at: Moment,
}

example!(PasskeyChallenge, {
    "public_key": {
        "challenge": "KPz0x6v1nqDnC3f0mEXXtQ4cUj8sFOKCn6k0B4OB3xQ",
        "rpId": "cloud.example.com",
        "timeout": 300_000,
        "userVerification": "required",
        "allowCredentials": [],
    },
    "expires_at": "2026-01-15T12:05:00Z",
});

impl PasskeyChallenge {
    pub(crate) fn of(challenge: passkeys::Challenge) -> Result<Self, Error> {
        let public_key = serde_json::value::to_raw_value(&challenge.public_key).map_err(Error::internal)?;
        Ok(Self { public_key: AnyJson(public_key), expires_at: challenge.expires_at.into() })
    }
}

/// A challenge was made.
#[derive(ApiResponse)]
pub(crate) enum Challenged {
    /// It can be signed.
    #[oai(status = 201)]
    Created(Json<PasskeyChallenge>),
}

/// A passkey that a browser made.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewPasskey {
    /// What its owner calls it: 1 to 200 characters.
    name: Name,
    /// What `navigator.credentials.create` answered, by `toJSON()`.
    credential: AnyJson,
}

example!(NewPasskey, {
    "name": "My laptop",
    "credential": {
        "id": "AQIDBAUGBwgJCgsMDQ4PEA",
        "rawId": "AQIDBAUGBwgJCgsMDQ4PEA",
        "type": "public-key",
        "response": {
            "clientDataJSON": "eyJ0eXBlIjoid2ViYXV0aG4uY3JlYXRlIn0",
            "attestationObject": "o2NmbXRkbm9uZWdhdHRTdG10oGhhdXRoRGF0YVg",
        },
        "clientExtensionResults": {},
    },
});

/// What is answered to somebody who enrols a passkey.
#[derive(ApiResponse)]
enum Enrolled {
    /// It counts from now on.
    #[oai(status = 201)]
    Created(Json<Confirmed>),
}

/// Another name.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct FactorChange {
    /// What its owner calls it: 1 to 200 characters.
    name: Name,
}

example!(FactorChange, { "name": "My old telephone" });

/// Codes, each of which is good once in place of a factor. They are shown once.
#[derive(Debug, Object)]
#[oai(example)]
struct RecoveryCodes {
    /// Ten of them.
    recovery_codes: Vec<String>,
}

example!(RecoveryCodes, { "recovery_codes": ["MZXW6-YTBOI", "GEZDG-NBVGY"] });

/// How many recovery codes are left.
#[derive(Debug, Object)]
#[oai(example)]
struct RecoveryCodesLeft {
    /// How many.
    left: i64,
    /// When they were made; left out: none were.
    #[oai(skip_serializing_if_is_none)]
    created_at: Option<Moment>,
}

example!(RecoveryCodesLeft, { "left": 9, "created_at": "2026-01-15T12:00:00Z" });

/// What is answered to somebody who begins to enrol a device.
#[derive(ApiResponse)]
enum Begun {
    /// It is to be shown to work.
    #[oai(status = 201)]
    Created(Json<BegunTotp>),
}

/// What is answered to somebody who makes codes.
#[derive(ApiResponse)]
enum Made {
    /// They are good from now on, and no others.
    #[oai(status = 201)]
    Created(Json<RecoveryCodes>),
}

/// A factor was removed.
#[derive(ApiResponse)]
enum Removed {
    /// It proves nothing any more, and every other session has ended.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/me", tag = "Tag::Factors")]
impl Factors {
    /// List second factors
    ///
    /// What the person proves himself with beside his password.
    #[oai(path = "/factors", method = "get", operation_id = "listFactors")]
    async fn list(&self, me: Me, app: Data<&App>) -> Result<Json<FactorList>, Error> {
        let found = rows::list(&mut app.db.person(me.person()).await?, me.person()).await?;
        Ok(Json(FactorList { items: found.into_iter().map(Factor::from).collect() }))
    }

    /// Begin to enrol a device
    ///
    /// One that shows codes by the time (RFC 6238). It counts when one of its codes was sent to
    /// `POST /me/factors/{factor}/confirm`, within an hour.
    ///
    /// Refused as `insufficient_user_authentication` when the person proved who he is too long ago, as `too_many` when he has
    /// twenty factors.
    #[oai(path = "/factors/totp", method = "post", operation_id = "enrolTotp")]
    async fn enrol_totp(&self, me: Me, app: Data<&App>, body: Body<NewTotp>) -> Result<Begun, Error> {
        me.proven_lately(app.db.now())?;
        let (id, secret) = (app.db.ids().mint::<FactorId>(), totp::generate(&mut rand::rng()));
        let sealed = app.sealing.seal(&rows::place(id), &secret[..])?;
        let issuer = settings::get(&mut app.db.tenant(OrganizationId::PLATFORM).await?, Setting::BrandName).await?;
        let person = people::find(&mut app.db.person(me.person()).await?, me.person()).await?;
        let person = person.ok_or_else(|| Error::not_found(me.person()))?;
        let uri = totp::uri(&secret[..], issuer.value.as_str().unwrap_or("Gantry"), &person.email);
        let qr_svg = drawn(&uri)?;
        let factor = act(&app, me.about(), me.person(), async |tx| {
            room(tx, me.person()).await?;
            let factor = rows::insert_totp(tx, me.person(), id, body.0.name.as_str(), &sealed).await?;
            tx.audit().on(&factor.id).called(&factor.name).identifying(me.person());
            Ok(factor)
        });
        let factor = factor.await?.into();
        Ok(Begun::Created(Json(BegunTotp { factor, secret: totp::as_text(&secret[..]), uri, qr_svg })))
    }

    /// Begin to enrol a telephone
    ///
    /// A code is sent to it in a text message. It counts when the code was sent to `POST /me/factors/{factor}/confirm`, within ten
    /// minutes; `POST /me/factors/{factor}/code` sends another. Text messages are the weakest second factor that counts as one:
    /// numbers are taken over, and people are lured to tell codes (NIST SP 800-63B-4, 3.1.3.3).
    ///
    /// Refused as `insufficient_user_authentication` when the person proved who he is too long ago, as `too_many` when he has
    /// twenty factors.
    #[oai(path = "/factors/sms", method = "post", operation_id = "enrolPhone")]
    async fn enrol_phone(&self, me: Me, app: Data<&App>, body: Body<NewPhone>) -> Result<BegunAddress, Error> {
        me.proven_lately(app.db.now())?;
        let NewPhone { name, phone } = body.0;
        let wrong = |error: InvalidPhone| Error::field("phone", format!("{error}; write it like that"));
        let phone: Phone = phone.as_str().parse().map_err(wrong)?;
        enrol_address(&app, &me, rows::Kind::Sms, name.as_str(), phone.as_str()).await
    }

    /// Begin to enrol mail
    ///
    /// A code is sent to the account's address. It counts when the code was sent to `POST /me/factors/{factor}/confirm`, within ten
    /// minutes. Whoever reads the mail may have the password too, so it is asked for when signing in, and counts as a second factor
    /// only where an organization's policy names `email` (NIST SP 800-63B-4, 3.1.3.1).
    ///
    /// Refused as `insufficient_user_authentication` when the person proved who he is too long ago, as `too_many` when he has
    /// twenty factors.
    #[oai(path = "/factors/email", method = "post", operation_id = "enrolEmail")]
    async fn enrol_email(&self, me: Me, app: Data<&App>, body: Body<NewEmailFactor>) -> Result<BegunAddress, Error> {
        me.proven_lately(app.db.now())?;
        let person = people::find(&mut app.db.person(me.person()).await?, me.person()).await?;
        let person = person.ok_or_else(|| Error::not_found(me.person()))?;
        enrol_address(&app, &me, rows::Kind::Email, body.0.name.as_str(), &person.email).await
    }

    /// Send a code to a second factor
    ///
    /// To a telephone or an address of his, to confirm it or to prove anew who he is. Codes that were sent to it before are good
    /// for nothing.
    ///
    /// Refused as `wrong_state` when codes are not sent to it, as `too_many_requests` when six were sent within an hour.
    #[oai(path = "/factors/:factor/code", method = "post", operation_id = "sendFactorCode")]
    async fn send_code(
        &self,
        me: Me,
        app: Data<&App>,
        /// The factor.
        factor: Path<FactorId>,
    ) -> Result<CodeSent, Error> {
        let (person, id) = (me.person(), factor.0);
        codes::counted(&app, me.address(), person).await?;
        let expires_at = act(&app, me.about(), person, async |tx| {
            tx.audit().on(&id);
            let found = rows::find(tx, person, id).await?.ok_or_else(|| Error::not_found(id))?;
            codes::send(&app, tx, person, &found).await
        });
        Ok(CodeSent::Accepted(Json(Sent { expires_at: expires_at.await?.into() })))
    }

    /// Ask for a passkey
    ///
    /// Answers what a browser is to be asked for, to enrol a passkey or to prove anew who one is (`POST /sessions/current/proof`).
    /// What it answers is good once and for five minutes.
    ///
    /// Refused as `wrong_state` when the platform's public URL has no host name, or when he is to prove himself and has no
    /// passkey.
    #[oai(path = "/passkey-challenges", method = "post", operation_id = "challengePasskey")]
    async fn challenge(&self, me: Me, app: Data<&App>, body: Body<NewPasskeyChallenge>) -> Result<Challenged, Error> {
        let challenge = match body.0.purpose {
            PasskeyPurpose::Register => {
                let person = people::find(&mut app.db.person(me.person()).await?, me.person()).await?;
                passkeys::to_register(&app, &person.ok_or_else(|| Error::not_found(me.person()))?).await?
            }
            PasskeyPurpose::Prove => passkeys::to_prove(&app, me.person(), Purpose::Prove)
                .await?
                .ok_or_else(|| Error::new(Code::WrongState, "there is no passkey to prove anything with"))?,
        };
        Ok(Challenged::Created(Json(PasskeyChallenge::of(challenge)?)))
    }

    /// Enrol a passkey
    ///
    /// One that a browser made for a challenge of `POST /me/passkey-challenges`. It is a second factor, and enough by itself to
    /// sign in. Every other session ends. With the first factor, recovery codes are made.
    ///
    /// Refused as `wrong_factor` when it is not what was asked for, as `insufficient_user_authentication` when the person proved
    /// who he is too long ago, as `too_many` when he has twenty factors, as `wrong_state` when it is enrolled already, or when
    /// the platform's public URL has no host name.
    #[oai(path = "/factors/passkeys", method = "post", operation_id = "enrolPasskey")]
    async fn enrol_passkey(&self, me: Me, app: Data<&App>, body: Body<NewPasskey>) -> Result<Enrolled, Error> {
        me.proven_lately(app.db.now())?;
        let NewPasskey { name, credential } = body.0;
        let made = passkeys::registered(&app, me.person(), &credential).await?;
        let id = app.db.ids().mint();
        let new = NewRow { id, name: name.as_str(), credential_id: &made.credential_id, known: &made.known };
        let confirmed = enrolled(&app, &me, rows::Kind::Passkey, async |tx| {
            tx.audit().on(&id).called(name.as_str()).identifying(me.person());
            room(tx, me.person()).await?;
            let taken = || Error::new(Code::WrongState, "this passkey is enrolled already").at("credential");
            rows::passkeys::insert(tx, me.person(), &new).await?.ok_or_else(taken)
        });
        Ok(Enrolled::Created(confirmed.await?))
    }

    /// Confirm a device
    ///
    /// Shows that it works: from now on, signing in asks for it. Every other session ends. With the first factor, recovery
    /// codes are made.
    ///
    /// Refused as `wrong_factor` when the code is another one, as `insufficient_user_authentication` when the person proved
    /// who he is too long ago, as `wrong_state` when it is confirmed already.
    #[oai(path = "/factors/:factor/confirm", method = "post", operation_id = "confirmFactor")]
    async fn confirm(
        &self,
        me: Me,
        app: Data<&App>,
        /// The factor.
        factor: Path<FactorId>,
        body: Body<Shown>,
    ) -> Result<Json<Confirmed>, Error> {
        me.proven_lately(app.db.now())?;
        let (person, id) = (me.person(), factor.0);
        let mut tx = app.db.person(person).await?;
        let found = rows::find(&mut tx, person, id).await?.ok_or_else(|| Error::not_found(id))?;
        drop(tx);
        if found.confirmed_at.is_some() || found.kind == rows::Kind::Passkey {
            return Err(Error::new(Code::WrongState, "it is confirmed already"));
        }
        let attempt = app.attempts().begin("second_factor", me.address(), &person.to_string()).await?;
        let is_right = match found.kind {
            rows::Kind::Totp => proof::is_shown_by(&app, person, Some(id), &body.0.code).await?.is_some(),
            _ => codes::was_sent(&app, person, Some(id), &body.0.code).await?.is_some(),
        };
        if !is_right {
            attempt.failed().await;
            return Err(proof::wrong().at("code"));
        }
        attempt.succeeded().await;
        enrolled(&app, &me, found.kind, async |tx| {
            tx.audit().on(&id);
            if !rows::confirm(tx, person, id).await? {
                return Err(Error::new(Code::WrongState, "it is confirmed already"));
            }
            rows::find(tx, person, id).await?.ok_or_else(|| Error::not_found(id))
        })
        .await
    }

    /// Name a second factor
    ///
    /// Calls it otherwise; what it proves stays.
    #[oai(path = "/factors/:factor", method = "patch", operation_id = "renameFactor")]
    async fn rename(
        &self,
        me: Me,
        app: Data<&App>,
        /// The factor.
        factor: Path<FactorId>,
        body: Body<FactorChange>,
    ) -> Result<Json<Factor>, Error> {
        let renamed = act(&app, me.about(), me.person(), async |tx| {
            tx.audit().on(&factor.0).called(body.0.name.as_str()).identifying(me.person());
            rows::rename(tx, me.person(), factor.0, body.0.name.as_str()).await?;
            rows::find(tx, me.person(), factor.0).await?.ok_or_else(|| Error::not_found(factor.0))
        });
        Ok(Json(renamed.await?.into()))
    }

    /// Remove a second factor
    ///
    /// It proves nothing any more, and every other session ends. With the last one, the recovery codes go too.
    ///
    /// Refused as `insufficient_user_authentication` when the person proved who he is too long ago.
    #[oai(path = "/factors/:factor", method = "delete", operation_id = "removeFactor")]
    async fn remove(
        &self,
        me: Me,
        app: Data<&App>,
        /// The factor.
        factor: Path<FactorId>,
    ) -> Result<Removed, Error> {
        me.proven_lately(app.db.now())?;
        let (person, id) = (me.person(), factor.0);
        act(&app, me.about(), person, async |tx| {
            tx.audit().on(&id);
            if !rows::remove(tx, person, id).await? {
                return Err(Error::not_found(id));
            }
            if rows::confirmed(tx, person).await?.is_empty() {
                recovery::remove_all(tx, person).await?;
            }
            Ok(others_end(tx, &me).await?)
        })
        .await?;
        app.sessions.forget();
        Ok(Removed::Removed)
    }

    /// Count recovery codes
    ///
    /// How many are left. What they are is shown when they are made.
    #[oai(path = "/recovery-codes", method = "get", operation_id = "getRecoveryCodes")]
    async fn recovery_codes(&self, me: Me, app: Data<&App>) -> Result<Json<RecoveryCodesLeft>, Error> {
        let left = recovery::left(&mut app.db.person(me.person()).await?, me.person()).await?;
        let created_at = left.map(|left| left.created_at.into());
        Ok(Json(RecoveryCodesLeft { left: left.map_or(0, |left| left.count), created_at }))
    }

    /// Make recovery codes
    ///
    /// Ten new ones, each of which is good once in place of a factor. Those there were are good for nothing.
    ///
    /// Refused as `insufficient_user_authentication` when the person proved who he is too long ago, as `wrong_state` when he
    /// has no second factor.
    #[oai(path = "/recovery-codes", method = "post", operation_id = "makeRecoveryCodes")]
    async fn make_recovery_codes(&self, me: Me, app: Data<&App>) -> Result<Made, Error> {
        me.proven_lately(app.db.now())?;
        let new = NewCodes::make(&app).await?;
        act(&app, me.about(), me.person(), async |tx| {
            tx.audit().on(&me.person());
            if rows::confirmed(tx, me.person()).await?.is_empty() {
                return Err(Error::new(
                    Code::WrongState,
                    "there is no second factor in whose place they could be used",
                ));
            }
            Ok(recovery::replace(tx, me.person(), &new.hashes, &new.salt).await?)
        })
        .await?;
        Ok(Made::Created(Json(RecoveryCodes { recovery_codes: new.shown })))
    }
}

/// Begins to enrol what codes are sent to, and sends the first.
async fn enrol_address(app: &App, me: &Me, kind: rows::Kind, name: &str, address: &str) -> Result<BegunAddress, Error> {
    codes::counted(app, me.address(), me.person()).await?;
    let factor = act(app, me.about(), me.person(), async |tx| {
        room(tx, me.person()).await?;
        let factor = rows::insert_address(tx, me.person(), kind, name, address).await?;
        tx.audit().on(&factor.id).called(name).identifying(me.person()).set("kind", kind.as_str());
        codes::send(app, tx, me.person(), &factor).await?;
        Ok(factor)
    });
    Ok(BegunAddress::Created(Json(factor.await?.into())))
}

/// Refuses more factors than anybody needs.
async fn room(tx: &mut TenantTx, person: PersonId) -> Result<(), Error> {
    if rows::count(tx, person).await? < MAX_FACTORS {
        return Ok(());
    }
    Err(Error::new(Code::TooMany, format!("there are {MAX_FACTORS} factors already; remove one that is not used")))
}

/// Does what makes a factor count. The session goes on as one that was proven with it, and is the only one that does.
async fn enrolled(
    app: &App,
    me: &Me,
    kind: rows::Kind,
    enrol: impl AsyncFnOnce(&mut TenantTx) -> Result<rows::Factor, Error>,
) -> Result<Json<Confirmed>, Error> {
    let new = NewCodes::make(app).await?;
    let done = act(app, me.about(), me.person(), async |tx| {
        let is_first = rows::confirmed(tx, me.person()).await?.is_empty();
        let factor = enrol(tx).await?;
        if is_first {
            recovery::replace(tx, me.person(), &new.hashes, &new.salt).await?;
        }
        sessions::prove(tx, me.session(), assurance::methods(kind), &[kind.as_str()]).await?;
        others_end(tx, me).await?;
        Ok((factor, is_first))
    });
    let (factor, is_first) = done.await?;
    app.sessions.forget();
    Ok(Json(Confirmed { factor: factor.into(), recovery_codes: is_first.then_some(new.shown) }))
}

/// Whoever else is signed in proved himself in a way that does not hold any more.
async fn others_end(tx: &mut TenantTx, me: &Me) -> Result<(), sqlx::Error> {
    sessions::end_others(tx, me.person(), Some(me.session()), Ended::Changed).await?;
    pending::end_all(tx, me.person()).await
}

/// Codes that were just made.
struct NewCodes {
    shown: Vec<String>,
    hashes: Vec<[u8; 32]>,
    salt: Salt,
}

impl NewCodes {
    async fn make(app: &App) -> Result<Self, Error> {
        let codes: Vec<RecoveryCode> = (0..recovery::COUNT).map(|_| RecoveryCode::generate(&mut rand::rng())).collect();
        let shown = codes.iter().map(RecoveryCode::shown).collect();
        let hashed = app.passwords.run(move |hasher| {
            let salt = hasher.salt(&mut rand::rng());
            let hashes: Result<Vec<_>, _> =
                codes.iter().map(|code| hasher.salted(code.expose(), &salt).map(|salted| salted.0)).collect();
            Ok((hashes?, salt))
        });
        let (hashes, salt) = hashed.await?;
        Ok(Self { shown, hashes, salt })
    }
}

/// A text as a QR code.
fn drawn(text: &str) -> Result<String, Error> {
    let code = QRBuilder::new(text).build().map_err(|error| {
        Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again")
            .because(error.to_string())
    })?;
    Ok(SvgBuilder::default().to_str(&code))
}

/// Whether somebody has a second factor, and so is asked for it.
pub(crate) async fn has_any(tx: &mut impl PersonalTx, person: PersonId) -> Result<bool, Error> {
    Ok(!rows::confirmed(tx, person).await?.is_empty())
}
