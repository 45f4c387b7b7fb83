//! Devices without a browser (RFC 8628): the device asks for a pair of codes, and somebody types the short one elsewhere.

use gantry_schema::oauth::clients::Grant;
use gantry_schema::oauth::devices::{self, Device, UserCode};
use gantry_schema::token::DeviceToken;
use gantry_schema::{OauthAuthorizationId, OrganizationId};
use poem::http::StatusCode;
use poem::{IntoResponse as _, Request, Response};
use serde_json::json;

use super::authenticate::{authenticate, find};
use super::authorize::allow;
use super::exchange::narrower;
use super::page::{self, Question};
use super::parameters::Parameters;
use super::refusal::{Refusal, Stop, answered};
use super::visitor::{Visitor, registrant, visitor};
use super::{app_of, record};
use crate::app::App;
use crate::audit::about::About;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};

/// How often another user code is tried when one is taken.
const TRIES: usize = 3;

/// `POST /oauth/device_authorization`.
pub(crate) async fn begin(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(codes(&app, &mut request).await)
}

/// `GET /oauth/device`: asks for the code.
pub(crate) async fn ask(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let sent = Parameters::of_query(&request).unwrap_or_default();
    let code = sent.get("user_code").and_then(|code| code.parse::<UserCode>().ok());
    let code = code.map(|code| code.to_string()).unwrap_or_default();
    Ok(match visitor(&app, &request).await? {
        Some(visitor) => page::user_code(StatusCode::OK, &visitor.csrf_token, &code, None),
        None => sign_in(&code),
    })
}

/// `POST /oauth/device`: asks whether the device may act, and takes the answer.
pub(crate) async fn decide(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let form = match Parameters::of_form(&mut request).await {
        Ok(form) => form,
        Err(Stop::Refused(refusal)) => {
            return Ok(page::told(StatusCode::BAD_REQUEST, "This request is not in order", &refusal.description));
        }
        Err(Stop::Failed(error)) => return Err(error.into()),
    };
    Ok(decided(&app, &request, &form).await?)
}

async fn codes(app: &App, request: &mut Request) -> Result<Response, Stop> {
    let sent = Parameters::of_form(request).await?;
    let client = authenticate(app, request, &sent).await?;
    if !client.uses(Grant::DeviceCode) {
        let detail = "the application is not registered for this flow; who registered it can add it";
        return Err(Refusal::new("unauthorized_client", detail).into());
    }
    let scopes = narrower(sent.get("scope").unwrap_or_default(), &client.scopes)?;
    let token = DeviceToken::generate(&mut rand::rng());
    let mut given = None;
    for _ in 0..TRIES {
        let code = UserCode::generate(&mut rand::rng());
        let mut tx = app.db.tenant(client.organization).await?;
        if devices::keep(&mut tx, client.id, &token, &code, &scopes).await? {
            tx.commit().await?;
            given = Some(code);
            break;
        }
    }
    let code = given.ok_or_else(|| Error::new(Code::Unavailable, "no user code is free at the moment; ask again"))?;
    let at = format!("{}/oauth/device", app.public_url());
    let answer = json!({
        "device_code": token.expose(),
        "user_code": code.to_string(),
        "verification_uri": at,
        "verification_uri_complete": format!("{at}?user_code={code}"),
        "expires_in": devices::LASTS.num_seconds(),
        "interval": devices::INTERVAL,
    });
    Ok(answer.to_string().with_content_type("application/json").into_response())
}

fn sign_in(code: &str) -> Response {
    let to = if code.is_empty() { "/oauth/device".to_owned() } else { format!("/oauth/device?user_code={code}") };
    page::sign_in(StatusCode::OK, &to, None, "")
}

async fn decided(app: &App, request: &Request, form: &Parameters) -> Result<Response, Error> {
    let typed = form.get("user_code").unwrap_or_default();
    let Some(visitor) = visitor(app, request).await? else { return Ok(sign_in("")) };
    visitor.check(app, request, form.get("csrf_token"))?;
    let again = |alert: &str| {
        let shown: String = typed.chars().take(20).collect();
        Ok(page::user_code(StatusCode::BAD_REQUEST, &visitor.csrf_token, &shown, Some(alert)))
    };
    let Ok(code) = typed.parse::<UserCode>() else { return again("A code has eight letters, as BCDF-GHJK.") };
    let Some(device) = waiting(app, request, &visitor, &code).await? else {
        return again("No device waits with this code; look at it again, or begin again at the device.");
    };
    let client = find(app, &device.client.to_string()).await?.filter(|client| client.enabled);
    let Some(client) = client else { return again("The application of this device was disabled.") };
    let choices = visitor.choices(app, &client).await?;
    let Some((first, _)) = choices.first() else {
        return again("You are a member of no organization in which this application works.");
    };
    let wanted = form.get("organization_id").and_then(|id| id.parse::<OrganizationId>().ok());
    let Some(decision) = form.get("decision") else {
        let (email, registered_by) = (visitor.email(app).await?, registrant(app, &client).await?);
        let shown = code.to_string();
        return Ok(page::consent(&Question {
            client: &client,
            registered_by: &registered_by,
            scopes: &device.scopes,
            email: &email,
            choices: &choices,
            action: "/oauth/device",
            carries: &[("user_code", &shown), ("csrf_token", &visitor.csrf_token)],
            redirect_uri: None,
        }));
    };
    let allowed = decision == "allow";
    let organization = match choices.iter().find(|(id, _)| Some(*id) == wanted) {
        Some((organization, _)) => *organization,
        None if !allowed => *first,
        None => return again("Choose one of your organizations in which the application works."),
    };
    let tx = app.db.tenant_for(organization, visitor.known.person).await?;
    let action = if allowed { "oauth_client.authorize" } else { "oauth_client.refuse" };
    let (about, person) = (About::find(request)?, visitor.known.person);
    let mut tx = record::by_person(tx, &about, person, action, &client, &device.scopes);
    let mut authorization: Option<OauthAuthorizationId> = None;
    if allowed {
        authorization = Some(allow(&mut tx, &client, &device.scopes, &visitor.known, devices::LASTS).await?);
    }
    if !devices::decide(&mut tx, &code, authorization).await? {
        return again("This was decided before, or the device does not wait any more.");
    }
    tx.commit().await?;
    Ok(if allowed {
        page::told(StatusCode::OK, "It is connected", "Go back to your device; you can close this page.")
    } else {
        page::told(StatusCode::OK, "It was refused", "The device gets nothing; you can close this page.")
    })
}

/// The device that waits with a code. Codes are short, so guessing them is counted.
async fn waiting(app: &App, request: &Request, visitor: &Visitor, code: &UserCode) -> Result<Option<Device>, Error> {
    let from = request.data::<RequestInfo>().and_then(|info| info.address);
    let attempt = app.attempts().begin("user_code", from, &visitor.known.person.to_string()).await?;
    let found = devices::presented(&mut app.db.credential(code.hash()).await?).await?;
    let waits = found.filter(|device| !device.decided && device.expires_at > app.db.now());
    if waits.is_some() {
        attempt.succeeded().await;
    } else {
        attempt.failed().await;
    }
    Ok(waits)
}
