//! Somebody says who he is and proves it. Whatever is wrong, the same is done and the same is answered: neither the
//! answer nor the time it takes tells whether there is an account.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use gantry_schema::audit::{Draft, Outcome};
use gantry_schema::defence::{Detection, MostSessions, Response, sign_ins};
use gantry_schema::factors::challenges::Purpose;
use gantry_schema::factors::pending::{self, NewPending};
use gantry_schema::factors::{self, Factor, assurance, recovery};
use gantry_schema::messages::templates;
use gantry_schema::people::hashing::Verdict;
use gantry_schema::people::passwords::{self, Password};
use gantry_schema::people::{self, Email, State, Typed};
use gantry_schema::sessions::{self as rows, Ended, Kind, NewSession, Session};
use gantry_schema::token::SignInToken;
use gantry_schema::{FactorId, OrganizationId, PendingSignInId, PersonId, SessionId, TenantTx, memberships, turn};
use poem::Request;
use poem::http::header;
use rand::RngExt as _;

use super::cookie;
use super::device::describe;
use super::hand_out::{self, HandedOut};
use super::risk::{self, Arrival, Risk};
use crate::accounts::tell;
use crate::app::App;
use crate::audit::about::About;
use crate::caller::Me;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::factors::codes;
use crate::factors::passkeys::{self, Challenge};
use crate::factors::proof::{self, FactorProof, ProofMethod, Proven};
use crate::field::{AnyJson, Secret};
use crate::people::{act, moment};
use crate::rate::Seen;

/// Sessions of one person that go on at the same time; the longest unused ones end.
const MAX_SESSIONS: i64 = 100;

/// Wrong passwords in a row after which none is right until a new one was set by mail (NIST SP 800-63B-4, 3.2.2).
const MAX_FAILURES: i32 = 100;

/// What is asked for.
pub(crate) struct Asked {
    pub(crate) email: Email,
    pub(crate) kind: Kind,
    pub(crate) organization: Option<OrganizationId>,
}

/// What came of a first step.
pub(crate) enum SignedIn {
    /// He is signed in.
    Open(Session, HandedOut),
    /// He is asked for a second factor.
    Pending(Pending),
}

/// A sign-in that waits for its second step.
pub(crate) struct Pending {
    pub(crate) token: SignInToken,
    pub(crate) expires_at: DateTime<Utc>,
    /// What he can prove himself with.
    pub(crate) factors: Vec<Factor>,
    /// Whether a recovery code does too.
    pub(crate) recovery_codes: bool,
    /// What one of his passkeys is to sign.
    pub(crate) passkey: Option<Challenge>,
    /// A code was sent to him by mail.
    pub(crate) mailed_code: bool,
}

/// Signs somebody in, or asks him for his second factor.
pub(crate) async fn sign_in(app: &App, request: &Request, asked: Asked, password: &Secret) -> Result<SignedIn, Error> {
    if asked.kind == Kind::Browser {
        cookie::check_origin(app, request)?;
    }
    let found = people::presented(&mut app.db.presented_email(&asked.email).await?, &asked.email).await?;
    // Somebody who has no account gets an id that nobody has: what follows is the same for both.
    let person = found.as_ref().map_or_else(|| app.db.ids().mint(), |person| person.id);
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    let proven = verify(app, person, password, from, asked.email.key()).await?;
    let (_, seen) = proven.ok_or_else(|| {
        Error::new(
            Code::WrongCredentials,
            "there is no account with this e-mail address and this password; check both, or have a new password sent",
        )
    })?;
    if found.is_some_and(|person| person.state != State::Active) {
        return Err(suspended());
    }
    let mut tx = app.db.person(person).await?;
    let factors = factors::confirmed(&mut tx, person).await?;
    let left = recovery::left(&mut tx, person).await?;
    drop(tx);
    let user_agent = request.header(header::USER_AGENT);
    let arrival = Arrival { person, organization: asked.organization, address: from, user_agent, seen };
    let risk = risk::assess(app, arrival).await?;
    risk.admit(app, arrival).await?;
    if !factors.is_empty() {
        let recovery_codes = left.is_some_and(|left| left.count > 0);
        return wait(app, request, person, &asked, factors, recovery_codes).await.map(SignedIn::Pending);
    }
    if risk.response == Response::StepUp {
        return wait(app, request, person, &asked, Vec::new(), false).await.map(SignedIn::Pending);
    }
    let Asked { kind, organization, .. } = asked;
    let new = Begin { person, kind, organization, methods: &["pwd"], factors: &[], completes: None, seen };
    begin_assessed(app, request, &new, &risk).await.map(|(session, handed)| SignedIn::Open(session, handed))
}

/// Notes that somebody knew his password, which opens nothing. Who has no factor is sent a code by mail.
async fn wait(
    app: &App,
    request: &Request,
    person: PersonId,
    asked: &Asked,
    factors: Vec<Factor>,
    recovery_codes: bool,
) -> Result<Pending, Error> {
    if asked.kind == Kind::Browser {
        cookie::check_host(app)?;
    }
    let token = SignInToken::generate(&mut rand::rng());
    let mailed_code = factors.is_empty().then(mailed_code);
    let new = NewPending {
        person,
        mailed_code: mailed_code.as_deref(),
        kind: asked.kind,
        organization: asked.organization,
        methods: &["pwd"],
        user_agent: request.header(header::USER_AGENT),
    };
    let about = About::find(request)?;
    let kept = act(app, &about, person, async |tx| {
        if let Some(wanted) = asked.organization
            && !memberships::counts(tx, person, wanted).await?
        {
            return Err(Error::not_found(wanted).at("organization_id"));
        }
        let awaits = if mailed_code.is_some() { "mailed_code" } else { "second_factor" };
        tx.audit().on(&person).set("kind", asked.kind.as_str()).set("methods", ["pwd"]).set("awaits", awaits);
        let expires_at = pending::keep(tx, &token, &new).await?;
        if let Some(code) = &mailed_code {
            let Some(found) = people::find(tx, person).await? else { return Err(Error::not_found(person)) };
            let letter = |brand: &_| templates::code_by_mail(brand, code, pending::LASTS.num_minutes());
            tell(app, tx, "sign_in_code", &found.email, letter).await?;
        }
        // Whoever has nothing else needs not ask for it. That it cannot be sent now keeps nobody from his recovery codes.
        let sends = |factor: &&Factor| factor.address.is_some();
        if let Some(first) = factors.iter().find(sends)
            && factors.iter().all(|factor| sends(&factor))
            && let Err(error) = codes::send(app, tx, person, first).await
            && error.code() != Code::TooManyRequests
        {
            return Err(error);
        }
        Ok(expires_at)
    });
    let expires_at = kept.await?;
    let passkey = to_sign(app, person, &factors).await?;
    Ok(Pending { token, expires_at, factors, recovery_codes, passkey, mailed_code: mailed_code.is_some() })
}

/// What one of the person's passkeys is to sign, if he has any.
async fn to_sign(app: &App, person: PersonId, factors: &[Factor]) -> Result<Option<Challenge>, Error> {
    if !factors.iter().any(|factor| factor.kind == factors::Kind::Passkey) {
        return Ok(None);
    }
    passkeys::to_prove(app, person, Purpose::SecondStep).await
}

/// A sign-in that still waits for its second step. What a passkey is to sign is new.
pub(crate) async fn waiting(app: &App, request: &Request, token: &Secret) -> Result<Pending, Error> {
    let found = awaited(app, request, token).await?;
    let token = SignInToken::parse(token.expose()).map_err(|_| cannot_go_on())?;
    let mut tx = app.db.person(found.person).await?;
    let factors = factors::confirmed(&mut tx, found.person).await?;
    let left = recovery::left(&mut tx, found.person).await?;
    drop(tx);
    Ok(Pending {
        token,
        expires_at: found.expires_at,
        recovery_codes: left.is_some_and(|left| left.count > 0),
        passkey: to_sign(app, found.person, &factors).await?,
        mailed_code: found.has_mailed_code(),
        factors,
    })
}

/// Completes a sign-in with a second factor.
pub(crate) async fn complete(
    app: &App,
    request: &Request,
    token: &Secret,
    factor: &FactorProof,
    field: &str,
) -> Result<(Session, HandedOut), Error> {
    let found = awaited(app, request, token).await?;
    // Counted before it is looked at: of guesses that come at once, none is free.
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, found.person).await?;
    let may = pending::try_once(&mut tx, found.id).await?;
    tx.commit().await?;
    may.then_some(()).ok_or_else(cannot_go_on)?;
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    let proven = match factor.method {
        ProofMethod::MailedCode => mailed(app, &found, from, factor, field).await?,
        _ => proof::verify(app, found.person, from, factor, Purpose::SecondStep, field).await?,
    };
    let methods: Vec<&str> = found.methods.iter().map(String::as_str).chain(proven.methods.iter().copied()).collect();
    let new = Begin {
        person: found.person,
        kind: found.kind,
        organization: found.organization,
        methods: &methods,
        factors: &[proven.factor],
        completes: Some(found.id),
        seen: Seen::default(),
    };
    begin(app, request, &new).await
}

/// Sends a code to one of the factors of somebody whose sign-in waits for its second step.
pub(crate) async fn send_code(
    app: &App,
    request: &Request,
    token: &Secret,
    factor: FactorId,
) -> Result<DateTime<Utc>, Error> {
    let found = awaited(app, request, token).await?;
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    codes::counted(app, from, found.person).await?;
    let missing = || Error::not_found(factor).at("factor_id");
    act(app, &About::find(request)?, found.person, async |tx| {
        *tx.audit() = Draft::new("factor_code.send_for_sign_in");
        tx.audit().on(&factor);
        let known = factors::confirmed(tx, found.person).await?.into_iter().find(|known| known.id == factor);
        codes::send(app, tx, found.person, &known.ok_or_else(missing)?).await
    })
    .await
}

/// A code to be sent by mail.
fn mailed_code() -> String {
    let (digits, limit) = (proof::MAILED_DIGITS, 100_000_000_u32);
    format!("{:0digits$}", rand::rng().random_range(0..limit))
}

/// Whether it is the code that was sent by mail.
async fn mailed(
    app: &App,
    found: &pending::Pending,
    from: Option<IpAddr>,
    factor: &FactorProof,
    field: &str,
) -> Result<Proven, Error> {
    let field = format!("{field}code");
    let code = factor.code.as_ref().ok_or_else(|| Error::field(&field, "write the code that was sent by mail"))?;
    let attempt = app.attempts().begin("mailed_code", from, &found.person.to_string()).await?;
    if found.was_mailed(code.expose().trim()) == Some(true) {
        attempt.succeeded().await;
        return Ok(Proven { methods: assurance::MAILED, factor: assurance::MAILED_CODE });
    }
    attempt.failed().await;
    Err(proof::wrong().at(field))
}

/// Signs somebody in who shows a passkey, and nothing else.
pub(crate) async fn by_passkey(
    app: &App,
    request: &Request,
    kind: Kind,
    organization: Option<OrganizationId>,
    credential: &AnyJson,
) -> Result<(Session, HandedOut), Error> {
    if kind == Kind::Browser {
        cookie::check_origin(app, request)?;
        cookie::check_host(app)?;
    }
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    let (person, seen) = passkeys::signs_in(app, from, credential).await?;
    let found = people::find(&mut app.db.person(person).await?, person).await?;
    if found.is_none_or(|person| person.state != State::Active) {
        return Err(suspended());
    }
    let passkey = factors::Kind::Passkey;
    let (methods, factors) = (assurance::methods(passkey), &[passkey.as_str()]);
    begin(app, request, &Begin { person, kind, organization, methods, factors, completes: None, seen }).await
}

fn suspended() -> Error {
    Error::new(Code::AccountSuspended, "this account was suspended; ask whoever runs the platform")
}

/// The sign-in that a token goes on with.
async fn awaited(app: &App, request: &Request, token: &Secret) -> Result<pending::Pending, Error> {
    let token = SignInToken::parse(token.expose()).map_err(|_| cannot_go_on())?;
    let found = pending::presented(&mut app.db.credential(token.hash()).await?).await?.ok_or_else(cannot_go_on)?;
    if found.kind == Kind::Browser {
        cookie::check_origin(app, request)?;
    }
    if !found.is_of(request.header(header::USER_AGENT)) {
        return Err(cannot_go_on());
    }
    Ok(found)
}

fn cannot_go_on() -> Error {
    let detail = "there is no such sign-in to go on with: it was completed, tried too often, took too long, or was begun by \
                  another client; begin again";
    Error::new(Code::InvalidSignIn, detail).at("token")
}

/// A session to begin.
pub(super) struct Begin<'a> {
    pub(super) person: PersonId,
    pub(super) kind: Kind,
    pub(super) organization: Option<OrganizationId>,
    pub(super) methods: &'a [&'a str],
    pub(super) factors: &'a [&'a str],
    /// The sign-in that is used up by it.
    pub(super) completes: Option<PendingSignInId>,
    /// What was tried in vain before it.
    pub(super) seen: Seen,
}

impl<'a> Begin<'a> {
    fn arrival(&self, request: &'a Request) -> Arrival<'a> {
        let address = request.data::<RequestInfo>().and_then(|info| info.address);
        let user_agent = request.header(header::USER_AGENT);
        Arrival { person: self.person, organization: self.organization, address, user_agent, seen: self.seen }
    }
}

/// Begins a session of somebody who proved who he is.
pub(super) async fn begin(app: &App, request: &Request, new: &Begin<'_>) -> Result<(Session, HandedOut), Error> {
    let arrival = new.arrival(request);
    let risk = risk::assess(app, arrival).await?;
    risk.admit(app, arrival).await?;
    begin_assessed(app, request, new, &risk).await
}

/// Begins a session of somebody who proved who he is, and whose sign-in was looked at.
async fn begin_assessed(
    app: &App,
    request: &Request,
    new: &Begin<'_>,
    risk: &Risk,
) -> Result<(Session, HandedOut), Error> {
    end_presented(app, request).await?;
    let Begin { person, kind, organization, methods, factors, completes, .. } = *new;
    let arrival = new.arrival(request);
    let Arrival { address, user_agent, .. } = arrival;
    let address = address.map(|address| address.to_string());
    let about = About::find(request)?;
    let begun = act(app, &about, person, async |tx| {
        if let Some(pending) = completes
            && !pending::take(tx, pending).await?
        {
            return Err(cannot_go_on());
        }
        let organization = match organization {
            Some(wanted) if memberships::counts(tx, person, wanted).await? => Some(wanted),
            Some(wanted) => return Err(Error::not_found(wanted).at("organization_id")),
            None => memberships::latest(tx, person).await?,
        };
        if let Some(organization) = organization {
            room(tx, person, organization, None, risk.sessions).await?;
        }
        rows::end_oldest(tx, person, MAX_SESSIONS - 1).await?;
        let (idle, lasts) = match kind {
            Kind::Browser => (hand_out::BROWSER_IDLE, hand_out::BROWSER_LASTS),
            Kind::Program => (hand_out::PROGRAM_IDLE, hand_out::PROGRAM_LASTS),
        };
        let new = NewSession {
            id: app.db.ids().mint(),
            person,
            organization,
            kind,
            methods,
            factors,
            address: address.as_deref(),
            user_agent,
            idle,
            lasts,
        };
        let session = rows::open(tx, &new).await?;
        sign_ins::keep(tx, person, &risk.sign_in).await?;
        if risk.found.contains(&Detection::NewDevice) {
            tell_of_device(app, tx, person, &describe(user_agent), address.as_deref()).await?;
        }
        tx.audit()
            .on(&session.id)
            .set("kind", kind.as_str())
            .set("methods", methods)
            .set("organization_id", organization);
        let handed = hand_out::hand_out(app, tx, &session).await?;
        Ok((session, handed))
    });
    let begun = begun.await?;
    risk.tell(app, arrival).await;
    Ok(begun)
}

/// Makes room for one more session of the person in the organization, or refuses it, as its policies say.
pub(super) async fn room(
    tx: &mut TenantTx,
    person: PersonId,
    organization: OrganizationId,
    but: Option<SessionId>,
    sessions: Option<MostSessions>,
) -> Result<(), Error> {
    let Some(sessions) = sessions else { return Ok(()) };
    // Of two that sign in at once, one sees the other.
    turn::take(tx, &format!("sessions of {person}")).await?;
    if !sessions.refuses {
        rows::end_oldest_in(tx, person, organization, but, sessions.most - 1).await?;
        return Ok(());
    }
    if rows::count_in(tx, person, organization, but).await? < sessions.most {
        return Ok(());
    }
    let detail = format!(
        "the organization lets {} of a person's sessions go on at the same time, and there are as many; sign out elsewhere first",
        sessions.most
    );
    Err(Error::new(Code::SignInRefused, detail).reason("too_many_sessions"))
}

/// Tells somebody by mail that he, or somebody else, signed in on a device that was not seen before.
async fn tell_of_device(
    app: &App,
    tx: &mut TenantTx,
    person: PersonId,
    device: &str,
    address: Option<&str>,
) -> Result<(), Error> {
    let Some(found) = people::find(tx, person).await? else { return Ok(()) };
    let when = moment(app);
    let letter = |brand: &_| templates::new_device(brand, device, address, &when);
    tell(app, tx, "new_device", &found.email, letter).await
}

/// Ends the session that a sign-in carries: whoever began it knows it, and must not know the next one.
async fn end_presented(app: &App, request: &Request) -> Result<(), Error> {
    let Some(token) = cookie::presented(request.headers()) else { return Ok(()) };
    let mut tx = app.db.credential(token.hash()).await?;
    let Some(known) = rows::authenticate(&mut tx, None).await? else { return Ok(()) };
    drop(tx);
    act(app, &About::find(request)?, known.person, async |tx| {
        *tx.audit() = Draft::new("session.end");
        tx.audit().on(&known.session).ended(Outcome::Allowed, "somebody signed in in its place");
        Ok(rows::end(tx, known.session, Ended::SignedOut).await?)
    })
    .await?;
    app.sessions.forget();
    Ok(())
}

/// Whether it is this person's password. Attempts are counted before anything is done, and wrong passwords after it; the
/// same is done where there is no such person.
async fn verify(
    app: &App,
    person: PersonId,
    password: &Secret,
    from: Option<IpAddr>,
    account: &str,
) -> Result<Option<(Password, Seen)>, Error> {
    let attempt = app.attempts().begin("password", from, account).await?;
    let seen = attempt.seen();
    let mut tx = app.db.person(person).await?;
    let kept = passwords::find(&mut tx, person).await?;
    drop(tx);
    let (typed, against) = (Typed::new(password.expose()), kept.as_ref().map(|kept| kept.hash.clone()));
    let verdict = app.passwords.run(move |hasher| match against {
        Some(hash) => {
            let verdict = hasher.verify(&typed, &hash)?;
            let anew = (verdict == Verdict::Outdated).then(|| hasher.hash(&typed, &mut rand::rng())).transpose()?;
            Ok((verdict, anew))
        }
        None => hasher.verify_nobodys(&typed).map(|()| (Verdict::Wrong, None)),
    });
    let (verdict, anew) = verdict.await?;
    let used_up = kept.as_ref().is_some_and(|kept| kept.failures >= MAX_FAILURES);
    let right = verdict != Verdict::Wrong && !used_up;
    // Counted, and not recorded: strangers would fill the record.
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?;
    if right {
        passwords::succeeded(&mut tx, person, anew.as_ref()).await?;
    } else {
        passwords::failed(&mut tx, person).await?;
    }
    tx.commit().await?;
    if right {
        attempt.succeeded().await;
    } else {
        attempt.failed().await;
    }
    Ok(kept.filter(|_| right).map(|kept| (kept, seen)))
}

/// Lets go on who knows his own password.
///
/// # Errors
/// When it is another one.
pub(crate) async fn verify_own(app: &App, me: &Me, password: &Secret) -> Result<Password, Error> {
    verify(app, me.person(), password, me.address(), &me.person().to_string())
        .await?
        .map(|(password, _)| password)
        .ok_or_else(|| Error::new(Code::WrongCredentials, "this is not the password; try again").at("password"))
}
