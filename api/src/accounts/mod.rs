//! Accounts, for people who are not signed in: making one, and setting a password that is not known any more. Whatever is
//! asked for an address, the same is done and the same is answered, whether there is an account or not: what differs is
//! in the mail.

mod email;
pub mod invited;
pub mod link;
mod page;
mod recovery;
mod sign_up;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use chrono::Duration;
use gantry_jobs::{By, messages};
use gantry_schema::audit::{Actor, Author};
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::templates::Brand;
use gantry_schema::messages::{Content, Recipient};
use gantry_schema::people::one_time::{self, NewToken, Purpose};
use gantry_schema::people::{self, Email, Person};
use gantry_schema::token::OneTimeToken;
use gantry_schema::{JobTx as _, OrganizationId, PersonId, TenantTx};
use poem::Request;
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::audit::about::About;
use crate::body::Body;
use crate::caller::Me;
use crate::edge::RequestInfo;
use crate::error::Error;
use crate::example::example;
use crate::field::{EmailAddress, Locale, Name, Secret};
use crate::tag::Tag;

pub(crate) use page::routes;

/// Links that are sent to one address in an hour; whoever asks for more waits.
const MOST_IN_AN_HOUR: i64 = 5;

/// Who may make an account here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignUp {
    /// Everybody.
    Open,
    /// Who was invited.
    #[default]
    Invitation,
    /// Nobody.
    Closed,
}

impl FromStr for SignUp {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word {
            "open" => Self::Open,
            "invitation" => Self::Invitation,
            "closed" => Self::Closed,
            _ => return Err("it is open, invitation or closed".to_owned()),
        })
    }
}

impl fmt::Display for SignUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Invitation => "invitation",
            Self::Closed => "closed",
        })
    }
}

/// Where a request comes from.
fn from(request: &Request) -> Option<IpAddr> {
    request.data::<RequestInfo>().and_then(|info| info.address)
}

/// As whom the record has somebody who is not known yet.
fn nobody(about: &About) -> Arc<Author> {
    about.by(Actor::system(), "nobody".to_owned())
}

/// The account with this address, if somebody can use it.
async fn usable(app: &App, email: &Email) -> Result<Option<Person>, Error> {
    let found = people::presented(&mut app.db.presented_email(email).await?, email).await?;
    Ok(found.filter(|person| person.state == people::State::Active))
}

/// Writes a letter to an address, in a transaction of the platform's own organization. One that nobody `wanted` is written
/// as well and not sent, so that it takes as long.
async fn write(
    app: &App,
    tx: &mut TenantTx,
    kind: &str,
    to: &Email,
    content: &Content,
    (lasts, wanted): (Option<Duration>, bool),
) -> Result<(), Error> {
    let now = tx.now();
    let expires_at = if wanted { lasts.map(|lasts| now + lasts) } else { Some(now) };
    let to = Recipient::Mail(to.clone());
    let new = NewMessage { kind, to: &to, content, reference: None, expires_at };
    messages::send(tx, &app.sealing, &new, &By::platform(kind)).await?;
    Ok(())
}

/// Tells somebody about his own account by mail, in a transaction of the platform's own organization.
pub(crate) async fn tell(
    app: &App,
    tx: &mut TenantTx,
    kind: &str,
    to: &str,
    content: impl FnOnce(&Brand) -> Content,
) -> Result<(), Error> {
    let to: Email = to.parse().map_err(Error::internal)?;
    let brand = messages::brand(tx).await?;
    write(app, tx, kind, &to, &content(&brand), (None, true)).await
}

/// What is sent to an address that somebody typed.
struct Sending<'a> {
    purpose: Purpose,
    email: &'a Email,
    person: Option<PersonId>,
    locale: Option<&'a str>,
    /// Whether somebody is to get it.
    wanted: bool,
}

/// Keeps a token and sends its link. Answers whether it did: there are so many in an hour, whoever asks.
async fn send_link(
    app: &App,
    tx: &mut TenantTx,
    sending: &Sending<'_>,
    content: impl FnOnce(&Brand, &str) -> Content,
) -> Result<bool, Error> {
    let Sending { purpose, email, person, locale, wanted } = *sending;
    let hour_ago = tx.now() - Duration::hours(1);
    if one_time::sent_since(tx, email, hour_ago).await? >= MOST_IN_AN_HOUR {
        return Ok(false);
    }
    let token = OneTimeToken::generate(&mut rand::rng());
    one_time::keep(tx, &token, &NewToken { purpose, email, person, name: None, locale }).await?;
    let brand = messages::brand(tx).await?;
    let content = content(&brand, &link::to(app.public_url(), purpose, &token));
    write(app, tx, purpose.as_str(), email, &content, (Some(purpose.lasts()), wanted)).await?;
    Ok(true)
}

/// What a token is about, if it is good.
async fn look(app: &App, token: &OneTimeToken, purpose: Purpose) -> Result<one_time::Used, Error> {
    let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
    one_time::find(&mut tx, token, purpose).await?.ok_or_else(link::expired)
}

/// The operations on accounts.
#[derive(Debug, Clone, Copy)]
pub struct Accounts;

/// Who wants an account.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct SignUpRequest {
    /// His e-mail address.
    email: EmailAddress,
    /// The language in which he is written to.
    locale: Option<Locale>,
}

example!(SignUpRequest, { "email": "ada@example.com", "locale": "en" });

/// What makes an account of a link.
///
/// Refused as `weak_password` when the password is guessed too easily.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewAccount {
    /// What the link carries.
    token: Secret,
    /// What he is called: 1 to 200 characters.
    name: Name,
    /// At least 15 characters of any kind, and none that is tried first by whoever guesses.
    password: Secret,
    /// The language in which he is written to.
    locale: Option<Locale>,
}

impl NewAccount {
    /// The link's token, and what its account is to be like.
    fn read(&self) -> Result<(OneTimeToken, sign_up::New<'_>), Error> {
        let Self { token, name, password, locale } = self;
        let new = sign_up::New { name, password, locale: locale.as_ref().map(Locale::as_str) };
        Ok((link::read(token.expose())?, new))
    }
}

example!(NewAccount, {
    "token": "got_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "name": "Ada Lovelace",
    "password": "a sentence that nobody guesses",
});

/// That there is an account.
#[derive(Debug, Object)]
#[oai(example)]
struct Account {
    /// Who.
    person_id: PersonId,
    /// Where mail reaches him, and what he signs in with.
    email: String,
}

example!(Account, { "person_id": "usr_01h455vb4pex5vsknk084sn02q", "email": "ada@example.com" });

/// An account was made.
#[derive(ApiResponse)]
enum Made {
    /// Sign in with `POST /sessions`.
    #[oai(status = 201)]
    Created(Json<Account>),
}

/// Whose password is not known any more.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct PasswordResetRequest {
    /// His e-mail address.
    email: EmailAddress,
}

example!(PasswordResetRequest, { "email": "ada@example.com" });

/// A password in place of one that is not known any more.
///
/// Refused as `weak_password` when it is guessed too easily.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewPassword {
    /// What the link carries.
    token: Secret,
    /// At least 15 characters of any kind, and none that is tried first by whoever guesses.
    password: Secret,
}

example!(NewPassword, {
    "token": "got_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY",
    "password": "a sentence that nobody guesses",
});

/// Where mail is to go to.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct EmailChange {
    /// The address to be.
    email: EmailAddress,
    /// His password.
    password: Secret,
}

example!(EmailChange, { "email": "ada@example.org", "password": "correct horse battery staple" });

/// What a link carries.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct LinkToken {
    /// What the link carries.
    token: Secret,
}

example!(LinkToken, { "token": "got_lOhIPUYm0T3vQz8sKcW5xE2nRb7dAf4gHjLpMqVtXuY" });

/// Something was asked for.
#[derive(ApiResponse)]
enum Asked {
    /// If anything is to be sent to the address, it is on its way.
    #[oai(status = 202)]
    Accepted,
}

/// Something was done.
#[derive(ApiResponse)]
enum Done {
    /// It holds from now on.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(tag = "Tag::Accounts")]
impl Accounts {
    /// Ask for an account
    ///
    /// A link is sent to the address, which makes the account within 24 hours, once. Who has an account is told so in the
    /// mail, and nobody else is: the answer is always the same.
    ///
    /// Refused as `sign_up_closed` when accounts are not made like this here, as `too_many_requests` when too much was
    /// asked for from one address or for one, as `unavailable` while that cannot be counted.
    #[oai(path = "/sign-up", method = "post", operation_id = "signUp")]
    async fn sign_up(&self, request: &Request, app: Data<&App>, body: Body<SignUpRequest>) -> Result<Asked, Error> {
        let SignUpRequest { email, locale } = body.0;
        sign_up::ask(&app, request, &email.email(), locale.as_ref().map(Locale::as_str)).await?;
        Ok(Asked::Accepted)
    }

    /// Make the account
    ///
    /// With what the link carries. Nobody is signed in by it.
    ///
    /// Refused as `link_expired` when the link was used, has expired or never was, as `sign_up_closed` when accounts are
    /// not made like this here any more.
    #[oai(path = "/sign-up/complete", method = "post", operation_id = "completeSignUp")]
    async fn complete_sign_up(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<NewAccount>,
    ) -> Result<Made, Error> {
        let (token, new) = body.0.read()?;
        let (person_id, email) = sign_up::complete(&app, request, &token, &new).await?;
        Ok(Made::Created(Json(Account { person_id, email })))
    }

    /// Become the first owner
    ///
    /// With what the link carries that `gantry-api bootstrap` prints: makes the account, and its owner an owner of the
    /// platform's own organization. Who has an account gets this password.
    ///
    /// Refused as `link_expired` when the link was used, has expired or never was.
    #[oai(path = "/bootstrap/complete", method = "post", operation_id = "completeBootstrap")]
    async fn complete_bootstrap(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<NewAccount>,
    ) -> Result<Made, Error> {
        let (token, new) = body.0.read()?;
        let (person_id, email) = sign_up::bootstrap(&app, request, &token, &new).await?;
        Ok(Made::Created(Json(Account { person_id, email })))
    }

    /// Ask for a new password
    ///
    /// A link is sent to the address if it is an account's, good for an hour, once. The answer is always the same.
    ///
    /// Refused as `too_many_requests` when too much was asked for from one address or for one, as `unavailable` while that
    /// cannot be counted.
    #[oai(path = "/password-resets", method = "post", operation_id = "requestPasswordReset")]
    async fn request_password_reset(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<PasswordResetRequest>,
    ) -> Result<Asked, Error> {
        recovery::ask(&app, request, &body.0.email.email()).await?;
        Ok(Asked::Accepted)
    }

    /// Set a new password
    ///
    /// With what the link carries. Every session of the person ends.
    ///
    /// Refused as `link_expired` when the link was used, has expired or never was.
    #[oai(path = "/password-resets/complete", method = "post", operation_id = "completePasswordReset")]
    async fn complete_password_reset(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<NewPassword>,
    ) -> Result<Done, Error> {
        let token = link::read(body.0.token.expose())?;
        recovery::complete(&app, request, &token, &body.0.password).await?;
        Ok(Done::Done)
    }

    /// Change the e-mail address
    ///
    /// A link is sent to the new address; it counts once that was followed, and the old one is told. The answer is the same
    /// whether somebody else has the address or not.
    ///
    /// Refused as `wrong_credentials` when it is another password.
    #[oai(path = "/me/email", method = "post", operation_id = "changeEmail")]
    async fn change_email(&self, me: Me, app: Data<&App>, body: Body<EmailChange>) -> Result<Asked, Error> {
        let EmailChange { email, password } = body.0;
        email::ask(&app, &me, &email.email(), &password).await?;
        Ok(Asked::Accepted)
    }

    /// Use the new e-mail address
    ///
    /// With what the link carries that was sent to it.
    ///
    /// Refused as `link_expired` when the link was used, has expired or never was, or somebody else has the address by now.
    #[oai(path = "/email-changes/complete", method = "post", operation_id = "completeEmailChange")]
    async fn complete_email_change(
        &self,
        request: &Request,
        app: Data<&App>,
        body: Body<LinkToken>,
    ) -> Result<Done, Error> {
        let token = link::read(body.0.token.expose())?;
        email::complete(&app, request, &token).await?;
        Ok(Done::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_make_an_account_is_read_back_from_its_word() {
        for sign_up in [SignUp::Open, SignUp::Invitation, SignUp::Closed] {
            assert_eq!(sign_up.to_string().parse(), Ok(sign_up));
        }
        assert!("everybody".parse::<SignUp>().is_err());
    }
}
