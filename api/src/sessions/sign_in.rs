//! Somebody says who he is and proves it. Whatever is wrong, the same is done and the same is answered: neither the
//! answer nor the time it takes tells whether there is an account.

use std::net::IpAddr;

use chrono::Duration;
use gantry_schema::audit::{Draft, Outcome};
use gantry_schema::messages::templates;
use gantry_schema::people::hashing::Verdict;
use gantry_schema::people::passwords::{self, Password};
use gantry_schema::people::{self, Email, State, Typed};
use gantry_schema::sessions::{self as rows, Ended, Kind, NewSession, Session};
use gantry_schema::{OrganizationId, PersonId, TenantTx, memberships};
use poem::Request;
use poem::http::header;

use super::cookie;
use super::device::describe;
use super::hand_out::{self, HandedOut};
use crate::accounts::tell;
use crate::app::App;
use crate::audit::about::About;
use crate::caller::Me;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::field::Secret;
use crate::people::{act, moment};

/// Sessions of one person that go on at the same time; the longest unused ones end.
const MAX_SESSIONS: i64 = 100;

/// Wrong passwords in a row after which none is right until a new one was set by mail (NIST SP 800-63B-4, 3.2.2).
const MAX_FAILURES: i32 = 100;

/// How long a device is known after a session on it began.
const DEVICES_KNOWN_FOR: Duration = Duration::days(90);

/// What is asked for.
pub(crate) struct Asked {
    pub(crate) email: Email,
    pub(crate) kind: Kind,
    pub(crate) organization: Option<OrganizationId>,
}

/// Signs somebody in.
pub(crate) async fn sign_in(
    app: &App,
    request: &Request,
    asked: Asked,
    password: &Secret,
) -> Result<(Session, HandedOut), Error> {
    if asked.kind == Kind::Browser {
        cookie::check_origin(app, request)?;
    }
    let found = people::presented(&mut app.db.presented_email(&asked.email).await?, &asked.email).await?;
    // Somebody who has no account gets an id that nobody has: what follows is the same for both.
    let person = found.as_ref().map_or_else(|| app.db.ids().mint(), |person| person.id);
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    verify(app, person, password, from, asked.email.key()).await?.ok_or_else(|| {
        Error::new(
            Code::WrongCredentials,
            "there is no account with this e-mail address and this password; check both, or have a new password sent",
        )
    })?;
    if found.is_some_and(|person| person.state != State::Active) {
        return Err(Error::new(Code::AccountSuspended, "this account was suspended; ask whoever runs the platform"));
    }
    end_presented(app, request).await?;
    begin(app, request, person, asked.kind, asked.organization, &["pwd"]).await
}

/// Begins a session of somebody who proved who he is.
pub(super) async fn begin(
    app: &App,
    request: &Request,
    person: PersonId,
    kind: Kind,
    organization: Option<OrganizationId>,
    methods: &[&str],
) -> Result<(Session, HandedOut), Error> {
    let address = request.data::<RequestInfo>().and_then(|info| info.address).map(|address| address.to_string());
    let user_agent = request.header(header::USER_AGENT);
    let about = About::find(request)?;
    let begun = act(app, &about, person, async |tx| {
        let organization = match organization {
            Some(wanted) if memberships::counts(tx, person, wanted).await? => Some(wanted),
            Some(wanted) => return Err(Error::not_found(wanted).at("organization_id")),
            None => memberships::latest(tx, person).await?,
        };
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
            address: address.as_deref(),
            user_agent,
            idle,
            lasts,
        };
        let before = rows::devices(tx, person, app.db.now() - DEVICES_KNOWN_FOR).await?;
        let session = rows::open(tx, &new).await?;
        let device = describe(user_agent);
        // The first device of all is no news.
        if !before.is_empty() && before.iter().all(|known| describe(known.as_deref()) != device) {
            tell_of_device(app, tx, person, &device, address.as_deref()).await?;
        }
        tx.audit()
            .on(&session.id)
            .set("kind", kind.as_str())
            .set("methods", methods)
            .set("organization_id", organization);
        let handed = hand_out::hand_out(app, tx, &session).await?;
        Ok((session, handed))
    });
    begun.await
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
) -> Result<Option<Password>, Error> {
    let attempt = app.attempts().begin("password", from, account).await?;
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
    Ok(kept.filter(|_| right))
}

/// Lets go on who knows his own password.
///
/// # Errors
/// When it is another one.
pub(crate) async fn verify_own(app: &App, me: &Me, password: &Secret) -> Result<Password, Error> {
    verify(app, me.person(), password, me.address(), &me.person().to_string())
        .await?
        .ok_or_else(|| Error::new(Code::WrongCredentials, "this is not the password; try again").at("password"))
}
