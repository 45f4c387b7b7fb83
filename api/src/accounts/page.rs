//! The pages that links in mail lead to. They load nothing from anywhere and run no script, nobody may show them in a
//! frame, and their forms lead to themselves: nobody is sent on from here to anywhere. To look at one does nothing; what a
//! link is good for is done when the form is sent.

use gantry_schema::memberships::invitations::Invitation;
use gantry_schema::organizations;
use gantry_schema::people::Email;
use gantry_schema::people::one_time::Purpose;
use gantry_schema::sessions::Kind;
use gantry_schema::token::OneTimeToken;
use poem::endpoint::make;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Request, Response, Route, get};

use super::sign_up::{self, New};
use super::{email, invited, link, look, recovery, usable};
use crate::app::App;
use crate::error::{Code, Error};
use crate::factors::proof::FactorProof;
use crate::field::{Name, Secret, Wrong};
use crate::oauth::page::{escaped, page, told};
use crate::oauth::parameters::Parameters;
use crate::oauth::refusal::Stop;
use crate::sessions::cookie;
use crate::sessions::sign_in::{Asked, Pending, SignedIn, complete, sign_in};

/// The routes of the pages.
pub(crate) fn routes(route: Route) -> Route {
    let purposes = [Purpose::SignUp, Purpose::ResetPassword, Purpose::ChangeEmail, Purpose::Bootstrap];
    let of_purposes = purposes.into_iter().fold(route, |route, purpose| {
        let shown = get(make(move |request| show(request, purpose)));
        let path = format!("{}/{}", link::ROOT, link::page_of(purpose));
        route.at(path, shown.post(make(move |request| send(request, purpose))))
    });
    let path = format!("{}/{}", link::ROOT, link::INVITATION);
    of_purposes.at(path, get(make(show_invitation)).post(make(send_invitation)))
}

/// Which password a form asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Password {
    New,
    Current,
}

/// What a form asks for.
#[derive(Clone, Copy)]
struct Form<'a> {
    title: &'a str,
    text: &'a str,
    button: &'a str,
    token: &'a str,
    name: bool,
    password: Option<Password>,
    /// A sign-in that waits for its second step.
    sign_in: Option<&'a str>,
}

impl Form<'_> {
    fn answer(&self, status: StatusCode, alert: Option<&str>) -> Response {
        let alert = alert.map(|text| format!("<p role=\"alert\">{}</p>", escaped(text))).unwrap_or_default();
        let name = "<label>Your name<input name=\"name\" autocomplete=\"name\" maxlength=\"200\" required></label>";
        let password = match self.password {
            Some(Password::New) => {
                "<label>New password<input type=\"password\" name=\"password\" autocomplete=\"new-password\" required>\
                 </label><small>At least 15 characters: a sentence of a few words is a good one.</small>"
            }
            Some(Password::Current) => {
                "<label>Your password<input type=\"password\" name=\"password\" autocomplete=\"current-password\" required>\
                 </label>"
            }
            None => "",
        };
        let step = self.sign_in.map(|token| {
            format!(
                "<input type=\"hidden\" name=\"sign_in\" value=\"{}\"><label>Code<input name=\"code\" \
                 autocomplete=\"one-time-code\" autocapitalize=\"characters\" spellcheck=\"false\" required autofocus></label>",
                escaped(token)
            )
        });
        let body = format!(
            "{alert}<p>{}</p><form method=\"post\"><input type=\"hidden\" name=\"token\" value=\"{}\">{}{password}{}<div>\
             <button>{}</button></div></form>",
            escaped(self.text),
            escaped(self.token),
            if self.name { name } else { "" },
            step.unwrap_or_default(),
            escaped(self.button)
        );
        page(status, self.title, &body, "")
    }
}

/// What the page of a purpose asks for.
fn form(purpose: Purpose, token: &str) -> Form<'_> {
    let (title, text, button) = match purpose {
        Purpose::SignUp => ("Make your account", "Choose what you are called, and a password.", "Make the account"),
        Purpose::Bootstrap => (
            "Become an owner",
            "You will own this installation. Choose what you are called, and a password.",
            "Make the account",
        ),
        Purpose::ResetPassword => {
            ("Set a new password", "With the new password you are signed out everywhere.", "Set the password")
        }
        Purpose::ChangeEmail => (
            "Use this address",
            "Mail about your account comes to this address from now on, and you sign in with it.",
            "Use this address",
        ),
    };
    let password = (purpose != Purpose::ChangeEmail).then_some(Password::New);
    Form {
        title,
        text,
        button,
        token,
        name: matches!(purpose, Purpose::SignUp | Purpose::Bootstrap),
        password,
        sign_in: None,
    }
}

fn app_of(request: &Request) -> Result<App, Error> {
    let app = request.data::<App>().cloned();
    app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))
}

fn used_up() -> Response {
    let text = "It was used, has expired, or was replaced by a newer one. Have another one sent.";
    told(StatusCode::GONE, "This link does not work any more", text)
}

/// Asks again, saying what was wrong with what was typed. What has nothing to do with that stays a problem document.
fn again(error: Error, form: &Form<'_>) -> Result<Response, Error> {
    let text = match error.code() {
        Code::LinkExpired => return Ok(used_up()),
        Code::WrongCredentials => "This is not the password.".to_owned(),
        Code::WrongFactor => "The code is wrong, or was used before.".to_owned(),
        Code::InvalidSignIn => "It took too long, or was tried too often. Begin again.".to_owned(),
        Code::WeakPassword
        | Code::InvalidField
        | Code::WrongState
        | Code::SignUpClosed
        | Code::AccountSuspended
        | Code::TooManyRequests => error.detail().to_owned(),
        _ => return Err(error),
    };
    Ok(form.answer(error.code().status(), Some(&text)))
}

/// The token in a page's own address.
fn token_of(request: &Request) -> Option<String> {
    Parameters::of_query(request).ok()?.get("token").map(str::to_owned)
}

/// A form's pairs, from a page of this origin.
async fn pairs_of(app: &App, request: &mut Request) -> Result<Result<Parameters, Response>, Error> {
    cookie::check_origin(app, request)?;
    match Parameters::of_form(request).await {
        Ok(pairs) => Ok(Ok(pairs)),
        Err(Stop::Refused(refusal)) => {
            Ok(Err(told(StatusCode::BAD_REQUEST, "This request is not in order", &refusal.description)))
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn name_of(pairs: &Parameters) -> Result<Name, Error> {
    let name = pairs.get("name").unwrap_or_default();
    name.parse().map_err(|wrong: Wrong| Error::field("name", wrong.to_string()))
}

fn password_of(pairs: &Parameters) -> Result<Secret, Error> {
    let password = pairs.get("password").unwrap_or_default();
    password.parse().map_err(|wrong: Wrong| Error::field("password", wrong.to_string()))
}

async fn show(request: Request, purpose: Purpose) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let token = token_of(&request).unwrap_or_default();
    let Ok(read) = OneTimeToken::parse(&token) else { return Ok(used_up()) };
    Ok(match look(&app, &read, purpose).await {
        Ok(_) => form(purpose, &token).answer(StatusCode::OK, None),
        Err(error) => again(error, &form(purpose, &token))?,
    })
}

async fn send(mut request: Request, purpose: Purpose) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let pairs = match pairs_of(&app, &mut request).await? {
        Ok(pairs) => pairs,
        Err(told) => return Ok(told),
    };
    let token = pairs.get("token").unwrap_or_default();
    Ok(match carry_out(&app, &request, purpose, token, &pairs).await {
        Ok((title, text)) => told(StatusCode::OK, title, text),
        Err(error) => again(error, &form(purpose, token))?,
    })
}

/// Does what the link is for. Answers what is told.
async fn carry_out(
    app: &App,
    request: &Request,
    purpose: Purpose,
    token: &str,
    pairs: &Parameters,
) -> Result<(&'static str, &'static str), Error> {
    let token = link::read(token)?;
    match purpose {
        Purpose::SignUp => {
            let (name, password) = (name_of(pairs)?, password_of(pairs)?);
            sign_up::complete(app, request, &token, &New { name: &name, password: &password, locale: None }).await?;
            Ok(("Your account is made", "Sign in with your e-mail address and the password you chose."))
        }
        Purpose::Bootstrap => {
            let (name, password) = (name_of(pairs)?, password_of(pairs)?);
            sign_up::bootstrap(app, request, &token, &New { name: &name, password: &password, locale: None }).await?;
            Ok(("You own this installation", "Sign in with your e-mail address and the password you chose."))
        }
        Purpose::ResetPassword => {
            recovery::complete(app, request, &token, &password_of(pairs)?).await?;
            Ok(("The password is set", "Sign in with it. You were signed out everywhere."))
        }
        Purpose::ChangeEmail => {
            email::complete(app, request, &token).await?;
            Ok(("The address is changed", "Mail about your account comes here from now on, and you sign in with it."))
        }
    }
}

/// An invitation in words, and whether its address has an account.
struct Told {
    invitation: Invitation,
    title: String,
    text: String,
    has_account: bool,
}

impl Told {
    async fn of(app: &App, token: &str) -> Result<Self, Error> {
        let invitation = invited::presented(app, &invited::read(token)?).await?;
        let mut tx = app.db.tenant(invitation.organization).await?;
        let found = organizations::find(&mut tx, invitation.organization).await?;
        drop(tx);
        let organization = found.map_or_else(String::new, |organization| organization.name);
        let email: Email = invitation.email.parse().map_err(Error::internal)?;
        // Whoever has the link reads the mail of the address, and may know.
        let has_account = usable(app, &email).await?.is_some();
        let how = if has_account {
            "Accept with the password of your account."
        } else {
            "Choose what you are called, and a password."
        };
        let text = format!("{} is invited to join {organization}, as {}. {how}", invitation.email, invitation.role);
        Ok(Self { title: format!("Join {organization}"), text, invitation, has_account })
    }

    fn form<'a>(&'a self, token: &'a str) -> Form<'a> {
        let password = if self.has_account { Password::Current } else { Password::New };
        Form {
            title: &self.title,
            text: &self.text,
            button: "Accept",
            token,
            name: !self.has_account,
            password: Some(password),
            sign_in: None,
        }
    }
}

impl Told {
    /// Asks who has proven his password for a second factor.
    fn step<'a>(&'a self, token: &'a str, sign_in: Option<&'a str>) -> Form<'a> {
        let text = "Write the code that your device shows now, one that you were sent, or one of your recovery codes.";
        Form { text, password: None, sign_in, ..self.form(token) }
    }
}

/// What is shown where an invitation cannot be told of.
fn not_told(error: Error) -> Result<Response, Error> {
    if error.code() == Code::LinkExpired { Ok(used_up()) } else { Err(error) }
}

async fn show_invitation(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let token = token_of(&request).unwrap_or_default();
    Ok(match Told::of(&app, &token).await {
        Ok(told) => told.form(&token).answer(StatusCode::OK, None),
        Err(error) => not_told(error)?,
    })
}

async fn send_invitation(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let pairs = match pairs_of(&app, &mut request).await? {
        Ok(pairs) => pairs,
        Err(told) => return Ok(told),
    };
    let token = pairs.get("token").unwrap_or_default();
    let known = match Told::of(&app, token).await {
        Ok(known) => known,
        Err(error) => return Ok(not_told(error)?),
    };
    let cookie = match accept(&app, &request, &known, &pairs).await {
        Ok(Accepted::AsNew) => None,
        Ok(Accepted::SignedIn(cookie)) => cookie,
        Ok(Accepted::Asked(pending)) => {
            let sign_in = Some(pending.token.expose());
            return Ok(known.step(token, sign_in).answer(StatusCode::OK, None));
        }
        Err(error) if error.code() == Code::WrongFactor => {
            return Ok(again(error, &known.step(token, pairs.get("sign_in")))?);
        }
        Err(error) => return Ok(again(error, &known.form(token))?),
    };
    let text = match &cookie {
        Some(_) => "You are a member now, and signed in in this browser.",
        None => "Your account is made, and you are a member. Sign in with the password you chose.",
    };
    let mut response = told(StatusCode::OK, "Welcome", text);
    let cookie = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok());
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok(response)
}

/// What came of accepting.
enum Accepted {
    /// He has an account now.
    AsNew,
    /// He had one, and is signed in by it: his cookie.
    SignedIn(Option<String>),
    /// He has one, and is asked for a second factor.
    Asked(Pending),
}

/// Accepts. Who has an account signs in by it.
async fn accept(app: &App, request: &Request, told: &Told, pairs: &Parameters) -> Result<Accepted, Error> {
    let (session, handed) = if let Some(token) = pairs.get("sign_in") {
        let code = pairs.get("code").and_then(|code| code.parse().ok());
        let code: Secret = code.ok_or_else(|| Error::new(Code::WrongFactor, "write the code"))?;
        let token = token.parse().map_err(|Wrong(detail)| Error::new(Code::InvalidSignIn, detail))?;
        complete(app, request, &token, &FactorProof::typed(code), "").await?
    } else {
        let password = password_of(pairs)?;
        if !told.has_account {
            let name = name_of(pairs)?;
            let new = New { name: &name, password: &password, locale: None };
            invited::sign_up(app, request, &told.invitation, &new).await?;
            return Ok(Accepted::AsNew);
        }
        let email: Email = told.invitation.email.parse().map_err(Error::internal)?;
        let asked = Asked { email, kind: Kind::Browser, organization: None };
        match sign_in(app, request, asked, &password).await? {
            SignedIn::Open(session, handed) => (session, handed),
            SignedIn::Pending(pending) => return Ok(Accepted::Asked(pending)),
        }
    };
    invited::accept(app, request, session.person, &told.invitation).await?;
    Ok(Accepted::SignedIn(handed.cookie()))
}
