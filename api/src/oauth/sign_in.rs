//! Signing in on the way to being asked.

use gantry_schema::people::Email;
use gantry_schema::sessions::Kind;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{Request, Response};

use super::authorize::see;
use super::parameters::Parameters;
use super::refusal::Stop;
use super::{app_of, authenticate, page};
use crate::app::App;
use crate::error::{Code, Error};
use crate::factors::proof::FactorProof;
use crate::field::{AnyJson, Secret};
use crate::sessions::hand_out::HandedOut;
use crate::sessions::sign_in::{Asked, SignedIn, by_passkey, complete, send_code, sign_in as prove, waiting};

/// `POST /oauth/sign-in`.
pub(crate) async fn sign_in(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let form = match Parameters::of_form(&mut request).await {
        Ok(form) => form,
        Err(Stop::Refused(refusal)) => return Ok(out_of_order(&refusal.description)),
        Err(Stop::Failed(error)) => return Err(error.into()),
    };
    Ok(signed_in(&app, &request, &form).await?)
}

async fn signed_in(app: &App, request: &Request, form: &Parameters) -> Result<Response, Error> {
    let to = form.get("to").unwrap_or_default();
    // Only on with what this page is a step of: nobody is sent elsewhere from here.
    if to != "/oauth/device" && !["/oauth/authorize?", "/oauth/device?"].iter().any(|start| to.starts_with(start)) {
        return Ok(out_of_order("begin again at the application"));
    }
    let again = |status: StatusCode, alert: &str, also: &str| Ok(page::sign_in(status, to, Some(alert), also));
    let also = leads_to(app, to).await?;
    if let Some(token) = form.get("token") {
        return second_step(app, request, form, (to, &also), token).await;
    }
    if let Some(credential) = form.get("credential") {
        let Ok(credential) = serde_json::from_str::<AnyJson>(credential) else {
            return again(StatusCode::BAD_REQUEST, "This is not what a passkey answers.", &also);
        };
        return match by_passkey(app, request, Kind::Browser, None, &credential).await {
            Ok((_, handed)) => Ok(goes_on(to, &handed)),
            Err(error) => again(error.code().status(), alert(error)?, &also),
        };
    }
    let (Some(Ok(email)), Some(password)) = (form.get("email").map(str::parse::<Email>), form.get("password")) else {
        return again(StatusCode::BAD_REQUEST, "Write your e-mail address and your password.", &also);
    };
    let asked = Asked { email, kind: Kind::Browser, organization: None };
    let Ok(password) = password.parse::<Secret>() else {
        return again(StatusCode::BAD_REQUEST, "This cannot be a password.", &also);
    };
    match prove(app, request, asked, &password).await {
        Ok(SignedIn::Open(_, handed)) => Ok(goes_on(to, &handed)),
        Ok(SignedIn::Pending(pending)) => Ok(page::second_step(StatusCode::OK, to, &pending, None, &also)),
        Err(error) => again(error.code().status(), alert(error)?, &also),
    }
}

/// What somebody is told who was not signed in. What he can do nothing about is answered as it is.
fn alert(error: Error) -> Result<&'static str, Error> {
    Ok(match error.code() {
        Code::WrongCredentials => "The e-mail address or the password is wrong.",
        Code::WrongFactor => "This proves nothing: it is wrong, was used before, or took too long.",
        Code::AccountSuspended => "This account was suspended; ask whoever runs the platform.",
        Code::SignInRefused => {
            "Your organization does not let you sign in from here, or as often; ask one of its owners."
        }
        Code::TooManyRequests => "There were too many attempts; wait a while.",
        Code::WrongState => "Browsers are signed in over https:// only.",
        _ => return Err(error),
    })
}

/// The second step: a code that a device shows, that was sent, or one of those that are left when it is lost; or a passkey.
async fn second_step(
    app: &App,
    request: &Request,
    form: &Parameters,
    (to, also): (&str, &str),
    token: &str,
) -> Result<Response, Error> {
    let over = || {
        let alert = "It took too long, or was tried too often. Sign in again.";
        Ok(page::sign_in(Code::InvalidSignIn.status(), to, Some(alert), also))
    };
    let Ok(token) = token.parse::<Secret>() else { return over() };
    let again = async |status, alert: &str| match waiting(app, request, &token).await {
        Ok(pending) => Ok(page::second_step(status, to, &pending, Some(alert), also)),
        Err(error) if error.code() == Code::InvalidSignIn => over(),
        Err(error) => Err(error),
    };
    if let Some(factor) = form.get("send") {
        let Ok(factor) = factor.parse() else { return Ok(out_of_order("there is no such device")) };
        return match send_code(app, request, &token, factor).await {
            Ok(_) => {
                again(StatusCode::OK, "A code is on its way. Those that were sent before are good for nothing.").await
            }
            Err(error) if error.code() == Code::InvalidSignIn => over(),
            Err(error) => again(error.code().status(), alert(error)?).await,
        };
    }
    let credential = form.get("credential").map(serde_json::from_str::<AnyJson>);
    let proof = match (credential, form.get("code").map(str::parse::<Secret>)) {
        (Some(Ok(credential)), _) => FactorProof::signed(credential),
        (_, Some(Ok(code))) => FactorProof::typed(code),
        _ => return again(StatusCode::BAD_REQUEST, "Write the code.").await,
    };
    match complete(app, request, &token, &proof, "").await {
        Ok((_, handed)) => Ok(goes_on(to, &handed)),
        Err(error) if error.code() == Code::InvalidSignIn => over(),
        Err(error) => again(error.code().status(), alert(error)?).await,
    }
}

/// Signed in, the browser goes on.
fn goes_on(to: &str, handed: &HandedOut) -> Response {
    let mut response = see(to);
    let cookie = handed.cookie().and_then(|cookie| HeaderValue::from_str(&cookie).ok());
    response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    response
}

/// Where else the browser may be sent on: to the application that the request names, if it registered that.
async fn leads_to(app: &App, to: &str) -> Result<String, Error> {
    let Some(query) = to.strip_prefix("/oauth/authorize?") else { return Ok(String::new()) };
    let Ok(sent) = Parameters::read(query) else { return Ok(String::new()) };
    let (Some(id), Some(uri)) = (sent.get("client_id"), sent.get("redirect_uri")) else { return Ok(String::new()) };
    let client = authenticate::find(app, id).await?;
    let registered =
        client.is_some_and(|client| gantry_schema::oauth::redirect::is_registered(&client.redirect_uris, uri));
    Ok(page::leads_to(Some(uri).filter(|_| registered)))
}

fn out_of_order(text: &str) -> Response {
    page::told(StatusCode::BAD_REQUEST, "This request is not in order", text)
}
