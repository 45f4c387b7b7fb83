//! Sessions: signing in and out, and what a person sees of where he is signed in.

pub(crate) mod cookie;
mod device;
pub(crate) mod hand_out;
pub(crate) mod known;
mod risk;
pub(crate) mod sign_in;

use gantry_schema::audit::{Draft, Outcome};
use gantry_schema::factors::assurance;
use gantry_schema::factors::challenges::Purpose;
use gantry_schema::sessions::{self as rows, Ended};
use gantry_schema::token::RefreshToken;
use gantry_schema::{FactorId, OrganizationId, PersonId, SessionId, memberships};
use poem::Request;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::audit::about::About;
use crate::body::Body;
use crate::caller::Me;
use crate::error::{Code, Error};
use crate::example::example;
use crate::factors::codes;
use crate::factors::proof::{self, FactorProof};
use crate::factors::{Challenged, CodeSent, Kind as FactorKind, PasskeyChallenge, Sent, has_any, passkeys};
use crate::field::{AnyJson, EmailAddress, Moment, Secret};
use crate::people::act;
use crate::tag::Tag;
use hand_out::{HandedOut, hand_out};
pub(crate) use sign_in::verify_own;

/// The operations on sessions.
#[derive(Debug, Clone, Copy)]
pub struct Sessions;

/// Who holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", rename = "SessionKind")]
pub enum Kind {
    /// A browser, by a cookie that pages cannot read.
    Browser,
    /// A program, by an access token that lasts minutes and a refresh token for the next one.
    Program,
}

/// What somebody proves himself with.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewSession {
    /// His e-mail address.
    email: EmailAddress,
    /// His password.
    password: Secret,
    /// Who will hold the session.
    kind: Kind,
    /// For which of his organizations he acts first; left out: the one he acted for last.
    organization_id: Option<OrganizationId>,
}

example!(NewSession, { "email": "ada@example.com", "password": "correct horse battery staple", "kind": "program" });

/// That somebody signed in.
#[derive(Debug, Object)]
#[oai(example)]
struct Session {
    /// Its id.
    id: SessionId,
    /// Who holds it.
    kind: Kind,
    /// It is the one this request belongs to.
    current: bool,
    /// For which of his organizations he acts.
    #[oai(skip_serializing_if_is_none)]
    organization_id: Option<OrganizationId>,
    /// When he last proved who he is.
    authenticated_at: Moment,
    /// How, in the words of RFC 8176: `pwd`, `otp`, `sms`, `mfa`, …
    methods: Vec<String>,
    /// How much that is worth: `urn:gantry:aal1` for one proof, `urn:gantry:aal2` for two of different kinds.
    acr: String,
    /// What it is used on, as far as it says: `Firefox on Windows 10`.
    device: String,
    /// From where it was used last.
    #[oai(skip_serializing_if_is_none)]
    address: Option<String>,
    /// In which country that is, in two letters of ISO 3166-1, where the installation knows that.
    #[oai(skip_serializing_if_is_none)]
    country: Option<String>,
    /// In which town, where the installation knows that.
    #[oai(skip_serializing_if_is_none)]
    city: Option<String>,
    /// When it began.
    created_at: Moment,
    /// When it was used last, to the minute.
    last_used_at: Moment,
    /// When it ends at the latest; it ends earlier when it is not used.
    expires_at: Moment,
}

example!(Session, {
    "id": "ses_01h455vb4pex5vsknk084sn02q",
    "kind": "program",
    "current": true,
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "authenticated_at": "2026-01-15T12:00:00Z",
    "methods": ["pwd"],
    "acr": "urn:gantry:aal1",
    "device": "Firefox on Linux",
    "address": "203.0.113.7",
    "created_at": "2026-01-15T12:00:00Z",
    "last_used_at": "2026-01-15T12:00:00Z",
    "expires_at": "2026-02-14T12:00:00Z",
});

impl Session {
    fn of(app: &App, row: rows::Session, current: SessionId) -> Self {
        let address = row.address.as_deref().and_then(|address| address.parse().ok());
        let place = address.and_then(|address| app.places.find(address));
        Self {
            id: row.id,
            kind: row.kind.into(),
            current: row.id == current,
            organization_id: row.organization,
            authenticated_at: row.authenticated_at.into(),
            acr: assurance::class(&row.methods).to_owned(),
            methods: row.methods,
            device: device::describe(row.user_agent.as_deref()),
            address: row.address,
            country: place.as_ref().and_then(|place| place.country).map(|country| country.to_string()),
            city: place.and_then(|place| place.city),
            created_at: row.created_at.into(),
            last_used_at: row.last_used_at.into(),
            expires_at: row.expires_at.into(),
        }
    }
}

impl From<rows::Kind> for Kind {
    fn from(kind: rows::Kind) -> Self {
        match kind {
            rows::Kind::Browser => Self::Browser,
            rows::Kind::Program => Self::Program,
        }
    }
}

impl From<Kind> for rows::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Browser => Self::Browser,
            Kind::Program => Self::Program,
        }
    }
}

/// A session with what opens it.
#[derive(Debug, Object)]
#[oai(example)]
struct OpenSession {
    /// The session.
    session: Session,
    /// Whose it is.
    person_id: PersonId,
    /// Of a browser: to be sent as `X-CSRF-Token` with every request that changes something.
    #[oai(skip_serializing_if_is_none)]
    csrf_token: Option<String>,
    /// Of a program: to be sent as `Authorization: Bearer`.
    #[oai(skip_serializing_if_is_none)]
    access_token: Option<String>,
    /// For how many seconds the access token is good.
    #[oai(skip_serializing_if_is_none)]
    expires_in: Option<i64>,
    /// Of a program: to be exchanged for the next access token, once.
    #[oai(skip_serializing_if_is_none)]
    refresh_token: Option<String>,
}

impl Example for OpenSession {
    fn example() -> Self {
        Self {
            session: Session::example(),
            person_id: PersonId::from_uuid(uuid::uuid!("01890a5d-ac96-774b-bcce-b302099a8057")),
            csrf_token: None,
            access_token: Some("gsa_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY".to_owned()),
            expires_in: Some(900),
            refresh_token: Some("gsr_Rb7dAf4gHjLpMqVtXuYlOhIPUYm0T3vQz8sKcW5xE2n".to_owned()),
        }
    }
}

impl OpenSession {
    fn of(app: &App, row: rows::Session, handed: &HandedOut) -> Json<Self> {
        let (id, person_id) = (row.id, row.person);
        Json(Self {
            session: Session::of(app, row, id),
            person_id,
            csrf_token: handed.csrf_token(),
            access_token: handed.access_token(),
            expires_in: handed.expires_in(),
            refresh_token: handed.refresh_token(),
        })
    }
}

/// What came of signing in: a session with what opens it, or what is asked for next.
#[derive(Debug, Object)]
#[oai(example)]
struct SignInOutcome {
    /// The session.
    #[oai(skip_serializing_if_is_none)]
    session: Option<Session>,
    /// Whose it is.
    #[oai(skip_serializing_if_is_none)]
    person_id: Option<PersonId>,
    /// Of a browser: to be sent as `X-CSRF-Token` with every request that changes something.
    #[oai(skip_serializing_if_is_none)]
    csrf_token: Option<String>,
    /// Of a program: to be sent as `Authorization: Bearer`.
    #[oai(skip_serializing_if_is_none)]
    access_token: Option<String>,
    /// For how many seconds the access token is good.
    #[oai(skip_serializing_if_is_none)]
    expires_in: Option<i64>,
    /// Of a program: to be exchanged for the next access token, once.
    #[oai(skip_serializing_if_is_none)]
    refresh_token: Option<String>,
    /// In place of all of these: there is no session yet.
    #[oai(skip_serializing_if_is_none)]
    second_step: Option<SecondStep>,
}

impl SignInOutcome {
    fn open(open: OpenSession) -> Self {
        let OpenSession { session, person_id, csrf_token, access_token, expires_in, refresh_token } = open;
        let (session, person_id) = (Some(session), Some(person_id));
        Self { session, person_id, csrf_token, access_token, expires_in, refresh_token, second_step: None }
    }

    const fn waiting(second_step: SecondStep) -> Self {
        Self {
            session: None,
            person_id: None,
            csrf_token: None,
            access_token: None,
            expires_in: None,
            refresh_token: None,
            second_step: Some(second_step),
        }
    }
}

impl Example for SignInOutcome {
    fn example() -> Self {
        Self::open(OpenSession::example())
    }
}

/// What is answered to somebody who signs in.
#[derive(ApiResponse)]
enum SignedIn {
    /// He is signed in.
    #[oai(status = 201)]
    Created(
        Json<SignInOutcome>,
        /// Of a browser: the session.
        #[oai(header = "Set-Cookie")]
        Option<String>,
    ),
    /// The password is right, and one of his second factors is asked for: `POST /sessions/second-step`.
    #[oai(status = 202)]
    SecondStep(Json<SignInOutcome>),
}

impl SignedIn {
    fn of(app: &App, signed_in: sign_in::SignedIn) -> Result<Self, Error> {
        Ok(match signed_in {
            sign_in::SignedIn::Open(session, handed) => {
                let cookie = handed.cookie();
                Self::Created(Json(SignInOutcome::open(OpenSession::of(app, session, &handed).0)), cookie)
            }
            sign_in::SignedIn::Pending(pending) => {
                let factors = pending.factors.into_iter().map(|row| PossibleFactor {
                    id: row.id,
                    kind: row.kind.into(),
                    name: row.name,
                    sent_to: row.address.as_deref().map(codes::hinted),
                });
                Self::SecondStep(Json(SignInOutcome::waiting(SecondStep {
                    token: pending.token.expose().to_owned(),
                    expires_at: pending.expires_at.into(),
                    factors: factors.collect(),
                    recovery_codes: pending.recovery_codes,
                    passkey: pending.passkey.map(PasskeyChallenge::of).transpose()?,
                    mailed_code: pending.mailed_code,
                })))
            }
        })
    }
}

/// A sign-in that waits for its second step.
#[derive(Debug, Object)]
#[oai(example)]
struct SecondStep {
    /// To be sent with the second step, by the same client. It opens nothing by itself.
    token: String,
    /// When it is too late, and the sign-in begins again.
    expires_at: Moment,
    /// What he can prove himself with.
    factors: Vec<PossibleFactor>,
    /// Whether one of his recovery codes does too.
    recovery_codes: bool,
    /// If he has passkeys: what one of them is to sign.
    #[oai(skip_serializing_if_is_none)]
    passkey: Option<PasskeyChallenge>,
    /// The sign-in looks wrong and he has no second factor: a code was sent to him by mail.
    mailed_code: bool,
}

example!(SecondStep, {
    "token": "gsp_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "expires_at": "2026-01-15T12:10:00Z",
    "factors": [{ "id": "fac_01h455vb4pex5vsknk084sn02q", "kind": "totp", "name": "My telephone" }],
    "recovery_codes": true,
    "mailed_code": false,
});

/// A factor that somebody can prove himself with.
#[derive(Debug, Object)]
#[oai(example)]
struct PossibleFactor {
    /// Its id.
    id: FactorId,
    /// What it is.
    kind: FactorKind,
    /// What its owner calls it.
    name: String,
    /// Where codes are sent to, as much of it as its owner needs to know it again.
    #[oai(skip_serializing_if_is_none)]
    sent_to: Option<String>,
}

example!(PossibleFactor, { "id": "fac_01h455vb4pex5vsknk084sn02q", "kind": "totp", "name": "My telephone" });

/// The second step of a sign-in.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct SecondProof {
    /// What the first step answered.
    token: Secret,
    /// One of his second factors.
    factor: FactorProof,
}

example!(SecondProof, {
    "token": "gsp_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "factor": { "method": "totp", "code": "492039" },
});

/// Where a code is to be sent for the second step.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct SecondStepCode {
    /// What the first step answered.
    token: Secret,
    /// One of the factors that it listed: a telephone, or an address.
    factor_id: FactorId,
}

example!(SecondStepCode, {
    "token": "gsp_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "factor_id": "fac_01h455vb4pex5vsknk084sn02q",
});

/// A sign-in with a passkey, and nothing else.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct PasskeySignIn {
    /// Who will hold the session.
    kind: Kind,
    /// For which of his organizations he acts first; left out: the one he acted for last.
    organization_id: Option<OrganizationId>,
    /// What `navigator.credentials.get` answered, by `toJSON()`.
    credential: AnyJson,
}

example!(PasskeySignIn, {
    "kind": "browser",
    "credential": {
        "id": "AQIDBAUGBwgJCgsMDQ4PEA",
        "rawId": "AQIDBAUGBwgJCgsMDQ4PEA",
        "type": "public-key",
        "response": {
            "clientDataJSON": "eyJ0eXBlIjoid2ViYXV0aG4uZ2V0In0",
            "authenticatorData": "SZYN5YgOjGh0NBcPZHZgW4_krrmihjLHmVzzuoMdl2MFAAAAAQ",
            "signature": "MEUCIQDnFoQ",
            "userHandle": "AYkKXayWd0u8zrMCCZqAVw",
        },
        "clientExtensionResults": {},
    },
});

/// What is answered to somebody who completed his sign-in.
#[derive(ApiResponse)]
enum Completed {
    /// He is signed in.
    #[oai(status = 201)]
    Created(
        Json<OpenSession>,
        /// Of a browser: the session.
        #[oai(header = "Set-Cookie")]
        Option<String>,
    ),
}

/// What is answered to somebody whose session goes on with other tokens.
#[derive(ApiResponse)]
enum Renewed {
    /// It goes on; what opened it before does not any more.
    #[oai(status = 200)]
    Renewed(
        Json<OpenSession>,
        /// Of a browser: the session.
        #[oai(header = "Set-Cookie")]
        Option<String>,
    ),
}

/// Something ended.
#[derive(ApiResponse)]
enum EndedAnswer {
    /// It has ended.
    #[oai(status = 204)]
    Ended(
        /// Of a browser that signed out: nothing in place of the session.
        #[oai(header = "Set-Cookie")]
        Option<String>,
    ),
}

/// Where somebody is signed in.
#[derive(Debug, Object)]
#[oai(example)]
struct SessionList {
    /// Newest first; at most a hundred.
    items: Vec<Session>,
}

impl Example for SessionList {
    fn example() -> Self {
        Self { items: vec![Session::example()] }
    }
}

/// A refresh token.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct RefreshRequest {
    /// The refresh token of the last answer.
    refresh_token: Secret,
}

example!(RefreshRequest, { "refresh_token": "gsr_Rb7dAf4gHjLpMqVtXuYlOhIPUYm0T3vQz8sKcW5xE2n" });

/// Where to go on.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Switch {
    /// One of his organizations.
    organization_id: OrganizationId,
}

example!(Switch, { "organization_id": "org_01h455vb4pex5vsknk084sn02q" });

/// A proof.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct Proof {
    /// His password, if he has no second factor.
    password: Option<Secret>,
    /// One of his second factors.
    factor: Option<FactorProof>,
}

example!(Proof, { "password": "correct horse battery staple" });

/// How many sessions were ended.
#[derive(Debug, Object)]
#[oai(example)]
struct EndedCount {
    /// How many.
    count: u64,
}

example!(EndedCount, { "count": 2 });

#[OpenApi(prefix_path = "/sessions", tag = "Tag::Sessions")]
impl Sessions {
    /// Sign in
    ///
    /// With an e-mail address and a password. A wrong address and a wrong password are answered alike. Who has a second
    /// factor is asked for it, and where the sign-in looks wrong, who has none for a code that he is sent by mail: the answer is
    /// 202, and no session yet. A session that the request carries is ended: nobody
    /// goes on with one that somebody else may have begun.
    ///
    /// Refused as `wrong_credentials` when the address or the password is wrong, as `account_suspended` when both are right
    /// and the account was suspended, as `sign_in_refused` when the organization has sign-ins refused that look like this one, or
    /// lets no more of his sessions go on (`reason`: `too_many_sessions`), as
    /// `not_found` when he is no member of the organization, as `cross_site_request` when
    /// a browser's session is asked for by another site's page, as `wrong_state` when browsers would not keep the cookie
    /// because the API is reached without TLS.
    #[oai(path = "/", method = "post", operation_id = "signIn")]
    async fn sign_in(&self, request: &Request, app: Data<&App>, body: Body<NewSession>) -> Result<SignedIn, Error> {
        let NewSession { email, password, kind, organization_id } = body.0;
        let asked = sign_in::Asked { email: email.email(), kind: kind.into(), organization: organization_id };
        SignedIn::of(&app, sign_in::sign_in(&app, request, asked, &password).await?)
    }

    /// Complete a sign-in
    ///
    /// With a second factor, from the client that began it, within ten minutes. After five wrong ones it begins again.
    ///
    /// Refused as `invalid_sign_in` when there is no such sign-in to go on with, as `wrong_factor` when the factor proves
    /// nothing, as `sign_in_refused` when the organization has sign-ins refused that look like this one or lets no more sessions go
    /// on, as `not_found` when he is no member of the organization any more, as `cross_site_request` when a browser's session is
    /// asked for by another site's page, as `wrong_state` when browsers would not keep the cookie because the API is reached
    /// without TLS.
    #[oai(path = "/second-step", method = "post", operation_id = "completeSignIn")]
    async fn complete(&self, request: &Request, app: Data<&App>, body: Body<SecondProof>) -> Result<Completed, Error> {
        let SecondProof { token, factor } = body.0;
        let (session, handed) = sign_in::complete(&app, request, &token, &factor, "factor.").await?;
        let cookie = handed.cookie();
        Ok(Completed::Created(OpenSession::of(&app, session, &handed), cookie))
    }

    /// Send a code for the second step
    ///
    /// To a telephone or an address that the first step listed. Where he has nothing else, the first one was sent with the first step.
    /// Codes that were sent before are good for nothing.
    ///
    /// Refused as `invalid_sign_in` when there is no such sign-in to go on with, as `wrong_state` when codes are not sent to the
    /// factor, as `not_found` when he has no such factor, as `too_many_requests` when six were sent within an hour, as
    /// `cross_site_request` when a browser's session is asked for by another site's page.
    #[oai(path = "/second-step/code", method = "post", operation_id = "sendSecondStepCode")]
    async fn send_code(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<SecondStepCode>,
    ) -> Result<CodeSent, Error> {
        let SecondStepCode { token, factor_id } = body.0;
        let expires_at = sign_in::send_code(&app, request, &token, factor_id).await?;
        Ok(CodeSent::Accepted(Json(Sent { expires_at: expires_at.into() })))
    }

    /// Ask for a passkey to sign in with
    ///
    /// Answers what a browser is to be asked for, of somebody who has not said who he is. What it answers is good once and for
    /// five minutes.
    ///
    /// Refused as `wrong_state` when the platform's public URL has no host name.
    #[oai(path = "/passkey-challenges", method = "post", operation_id = "challengeSignIn")]
    async fn challenge(&self, app: Data<&App>) -> Result<Challenged, Error> {
        Ok(Challenged::Created(Json(PasskeyChallenge::of(passkeys::to_sign_in(&app).await?)?)))
    }

    /// Sign in with a passkey
    ///
    /// With what a browser answered to a challenge of `POST /sessions/passkey-challenges`, and nothing else.
    ///
    /// Refused as `wrong_factor` when it proves nothing, as `account_suspended` when it does and the account was suspended, as
    /// `sign_in_refused` when the organization has sign-ins refused that look like this one or lets no more sessions go on, as
    /// `not_found` when he is no member of the organization, as `cross_site_request` when a browser's session is asked for by
    /// another site's page, as `wrong_state` when browsers would not keep the cookie because the API is reached without TLS.
    #[oai(path = "/passkey", method = "post", operation_id = "signInByPasskey")]
    async fn by_passkey(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<PasskeySignIn>,
    ) -> Result<Completed, Error> {
        let PasskeySignIn { kind, organization_id, credential } = body.0;
        let begun = sign_in::by_passkey(&app, request, kind.into(), organization_id, &credential);
        let (session, handed) = begun.await?;
        let cookie = handed.cookie();
        Ok(Completed::Created(OpenSession::of(&app, session, &handed), cookie))
    }

    /// Get the next access token
    ///
    /// The refresh token is used up, and the answer has the next one. One that comes twice is in two hands: its session
    /// ends, whoever has the other.
    ///
    /// Refused as `invalid_refresh_token` when it was used before, has expired, or its session has ended.
    #[oai(path = "/refresh", method = "post", operation_id = "refreshSession")]
    async fn refresh(&self, request: &Request, app: Data<&App>, body: Body<RefreshRequest>) -> Result<Renewed, Error> {
        let refused = |detail: &str| Error::new(Code::InvalidRefreshToken, detail).at("refresh_token");
        let unknown = || refused("there is no such refresh token, or its session has ended; sign in again");
        let token = RefreshToken::parse(body.0.refresh_token.expose()).map_err(|error| refused(&error.to_string()))?;
        let mut tx = app.db.credential(token.hash()).await?;
        let person = rows::whose(&mut tx).await?.ok_or_else(unknown)?;
        drop(tx);
        let about = About::find(request)?;
        let exchanged = act(&app, &about, person, async |tx| {
            Ok(match rows::exchange(tx, token.hash()).await? {
                rows::Exchange::Done(session) if is_active(tx, person).await? => {
                    rows::touch(tx, session.id, None).await?;
                    tx.audit().on(&session.id);
                    let handed = hand_out(&app, tx, &session).await?;
                    Ok((session, handed))
                }
                rows::Exchange::Done(_) | rows::Exchange::Unknown => {
                    // Nothing happened.
                    *tx.audit() = Draft::default();
                    Err(unknown())
                }
                rows::Exchange::Reused(session) => {
                    tx.audit()
                        .on(&session)
                        .ended(Outcome::Denied, "the refresh token was used before; the session ended");
                    Err(refused(
                        "this refresh token was used before, so somebody else has it too; the session was ended, sign in \
                         again",
                    ))
                }
            })
        });
        let exchanged = exchanged.await?;
        app.sessions.forget();
        let (session, handed) = exchanged?;
        Ok(Renewed::Renewed(OpenSession::of(&app, session, &handed), None))
    }

    /// List sessions
    ///
    /// Where the person is signed in.
    #[oai(path = "/", method = "get", operation_id = "listSessions")]
    async fn list(&self, me: Me, app: Data<&App>) -> Result<Json<SessionList>, Error> {
        let mut tx = app.db.person(me.person()).await?;
        let found = rows::list(&mut tx, me.person()).await?;
        Ok(Json(SessionList { items: found.into_iter().map(|row| Session::of(&app, row, me.session())).collect() }))
    }

    /// End all other sessions
    ///
    /// Everywhere but here, within a second.
    #[oai(path = "/", method = "delete", operation_id = "endOtherSessions")]
    async fn end_others(&self, me: Me, app: Data<&App>) -> Result<Json<EndedCount>, Error> {
        let ended = act(&app, me.about(), me.person(), async |tx| {
            let count = rows::end_others(tx, me.person(), Some(me.session()), Ended::Revoked).await?;
            tx.audit().set("count", count);
            Ok(count)
        });
        let count = ended.await?;
        app.sessions.forget();
        Ok(Json(EndedCount { count }))
    }

    /// Get the current session
    ///
    /// The one this request belongs to.
    #[oai(path = "/current", method = "get", operation_id = "getCurrentSession")]
    async fn current(&self, me: Me, app: Data<&App>) -> Result<Json<OpenSession>, Error> {
        let mut tx = app.db.person(me.person()).await?;
        let session = rows::find(&mut tx, me.session()).await?.ok_or_else(|| Error::not_found(me.session()))?;
        Ok(Json(OpenSession {
            session: Session::of(&app, session, me.session()),
            person_id: me.person(),
            csrf_token: me.csrf_token(),
            access_token: None,
            expires_in: None,
            refresh_token: None,
        }))
    }

    /// Sign out
    ///
    /// Ends the current session, within a second everywhere.
    #[oai(path = "/current", method = "delete", operation_id = "signOut")]
    async fn sign_out(&self, me: Me, app: Data<&App>) -> Result<EndedAnswer, Error> {
        act(&app, me.about(), me.person(), async |tx| {
            tx.audit().on(&me.session());
            Ok(rows::end(tx, me.session(), Ended::SignedOut).await?)
        })
        .await?;
        app.sessions.forget();
        Ok(EndedAnswer::Ended(me.csrf_token().map(|_| cookie::removed())))
    }

    /// End a session
    ///
    /// Anywhere, within a second.
    #[oai(path = "/:session", method = "delete", operation_id = "endSession")]
    async fn end(
        &self,
        me: Me,
        app: Data<&App>,
        /// The session.
        session: Path<SessionId>,
    ) -> Result<EndedAnswer, Error> {
        act(&app, me.about(), me.person(), async |tx| {
            let ended = rows::end(tx, session.0, Ended::Revoked).await?;
            ended.then_some(()).ok_or_else(|| Error::not_found(session.0))
        })
        .await?;
        app.sessions.forget();
        Ok(EndedAnswer::Ended(None))
    }

    /// Act for another organization
    ///
    /// One that the person is a member of. What opened the session before does not any more. A single request acts for
    /// another one by the header `X-Organization-Id`.
    ///
    /// Refused as `sign_in_refused` when as many of his sessions go on in it as its policies let, and they have more refused: the
    /// `reason` is then `too_many_sessions`.
    #[oai(path = "/current/organization", method = "post", operation_id = "switchOrganization")]
    async fn switch(&self, me: Me, app: Data<&App>, body: Body<Switch>) -> Result<Renewed, Error> {
        let wanted = body.0.organization_id;
        let sessions = app.standings.of(&app.db, wanted).await?.defence.sessions();
        let switched = act(&app, me.about(), me.person(), async |tx| {
            let missing = || Error::not_found(wanted).at("organization_id");
            if !memberships::counts(tx, me.person(), wanted).await? {
                return Err(missing());
            }
            sign_in::room(tx, me.person(), wanted, Some(me.session()), sessions).await?;
            tx.audit().on(&me.session()).set("organization_id", wanted);
            rows::switch(tx, me.session(), Some(wanted)).await?;
            let session = rows::find(tx, me.session()).await?.ok_or_else(|| Error::not_found(me.session()))?;
            rows::take_back(tx, session.id).await?;
            let handed = hand_out(&app, tx, &session).await?;
            Ok((session, handed))
        });
        let (session, handed) = switched.await?;
        app.sessions.forget();
        let cookie = handed.cookie();
        Ok(Renewed::Renewed(OpenSession::of(&app, session, &handed), cookie))
    }

    /// Prove anew who one is
    ///
    /// Some operations want a proof of the last minutes, and say so with `insufficient_user_authentication`: by the password,
    /// or by a second factor of who has one. What opened the session before does not any more.
    ///
    /// Refused as `wrong_credentials` when it is another password, as `wrong_factor` when the factor proves nothing, as
    /// `second_factor_required` when he has a second factor and only the password was sent.
    #[oai(path = "/current/proof", method = "post", operation_id = "proveAnew")]
    async fn prove(&self, me: Me, app: Data<&App>, body: Body<Proof>) -> Result<Renewed, Error> {
        let Proof { password, factor } = body.0;
        if let Some(password) = &password {
            verify_own(&app, &me, password).await?;
        }
        let by_factor = match &factor {
            Some(factor) => {
                Some(proof::verify(&app, me.person(), me.address(), factor, Purpose::Prove, "factor.").await?)
            }
            None if password.is_none() => return Err(Error::field("password", "write the password, or a factor")),
            None => None,
        };
        if by_factor.is_none() && has_any(&mut app.db.person(me.person()).await?, me.person()).await? {
            return Err(Error::new(
                Code::SecondFactorRequired,
                "the password alone is not enough; send a `factor` too",
            ));
        }
        let mut methods = by_factor.map_or_else(Vec::new, |proven| proven.methods.to_vec());
        methods.extend(password.is_some().then_some("pwd"));
        let factors: Vec<&str> = by_factor.iter().map(|proven| proven.factor).collect();
        let proven = act(&app, me.about(), me.person(), async |tx| {
            tx.audit().on(&me.session()).set("methods", &methods);
            rows::prove(tx, me.session(), &methods, &factors).await?;
            let session = rows::find(tx, me.session()).await?.ok_or_else(|| Error::not_found(me.session()))?;
            rows::take_back(tx, session.id).await?;
            let handed = hand_out(&app, tx, &session).await?;
            Ok((session, handed))
        });
        let (session, handed) = proven.await?;
        app.sessions.forget();
        let cookie = handed.cookie();
        Ok(Renewed::Renewed(OpenSession::of(&app, session, &handed), cookie))
    }
}

async fn is_active(tx: &mut gantry_schema::TenantTx, person: PersonId) -> Result<bool, Error> {
    let found = gantry_schema::people::find(tx, person).await?;
    Ok(found.is_some_and(|person| person.state == gantry_schema::people::State::Active))
}
