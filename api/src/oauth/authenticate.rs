//! Which application asks, and whether it is that one (RFC 6749, 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::OauthClientId;
use gantry_schema::oauth::clients::{self, Client};
use gantry_schema::token::ClientSecretToken;
use gantry_schema::usage::Credential;
use poem::Request;
use poem::http::header;

use super::parameters::Parameters;
use super::refusal::{Refusal, Stop};
use crate::app::App;
use crate::rate;

/// What an application says of itself.
struct Said {
    id: String,
    secret: Option<String>,
    by_header: bool,
}

/// The application that asks. One that can keep a secret has shown it; one that cannot has shown nothing, and has to prove
/// with each request that it is the one that began (PKCE).
pub(super) async fn authenticate(app: &App, request: &Request, sent: &Parameters) -> Result<Client, Stop> {
    let said = said(request, sent)?;
    rate::refuse_guesses(app, request)?;
    let refused = |why: &str| Refusal::client(why, said.by_header);
    let Some(client) = find(app, &said.id).await? else {
        rate::count_wrong_credential(app, request).await?;
        return Err(refused("there is no such application, or this is not its secret").into());
    };
    let proven = match (&said.secret, client.confidential) {
        (None, false) => true,
        (Some(secret), true) => match ClientSecretToken::parse(secret) {
            Ok(secret) => clients::knows(&mut app.db.tenant(client.organization).await?, client.id, &secret).await?,
            Err(_) => false,
        },
        (None, true) => return Err(refused("this application has a secret, and did not show it").into()),
        (Some(_), false) => return Err(refused("this application is public, and has no secret to show").into()),
    };
    if !proven {
        rate::count_wrong_credential(app, request).await?;
        return Err(refused("there is no such application, or this is not its secret").into());
    }
    if !client.enabled {
        return Err(refused("this application was disabled by who registered it").into());
    }
    rate::admit(request, app, client.organization, Credential::application(client.id)).await?;
    Ok(client)
}

/// The application of this id.
pub(super) async fn find(app: &App, id: &str) -> Result<Option<Client>, crate::error::Error> {
    let Ok(id) = id.parse::<OauthClientId>() else { return Ok(None) };
    Ok(clients::presented(&mut app.db.presented_client(id).await?).await?)
}

fn said(request: &Request, sent: &Parameters) -> Result<Said, Refusal> {
    let in_body = sent.get("client_id").map(str::to_owned);
    let Some(header) = request.headers().get(header::AUTHORIZATION) else {
        let missing = || Refusal::client("say which application asks: by HTTP Basic, or as client_id", false);
        let id = in_body.ok_or_else(missing)?;
        return Ok(Said { id, secret: sent.get("client_secret").map(str::to_owned), by_header: false });
    };
    if sent.get("client_secret").is_some() {
        return Err(Refusal::request("the application shows its secret in the header and in the body; choose one"));
    }
    let unreadable = || Refusal::client("the header is to be Basic with client_id and client_secret", true);
    let (scheme, pair) = header.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(unreadable)?;
    if !scheme.eq_ignore_ascii_case("basic") || pair.len() > 4_096 {
        return Err(unreadable());
    }
    let pair =
        STANDARD.decode(pair.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(unreadable)?;
    let (id, secret) = pair.split_once(':').ok_or_else(unreadable)?;
    let (id, secret) = (decoded(id), decoded(secret));
    if in_body.is_some_and(|other| other != id) {
        return Err(Refusal::request("the header and the body name different applications"));
    }
    Ok(Said { id, secret: (!secret.is_empty()).then_some(secret), by_header: true })
}

/// Both halves are form-encoded before they are joined (RFC 6749, 2.3.1).
fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("x={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
