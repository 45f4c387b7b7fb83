//! What is said of a token afterwards: what it allows (RFC 7662), whom it is about (OpenID Connect), and that it is not
//! needed any more (RFC 7009).

use gantry_schema::oauth::authorizations::{self, Ended};
use gantry_schema::oauth::clients::Client;
use gantry_schema::oauth::refresh;
use gantry_schema::oauth::scope::{Scope, Scopes};
use gantry_schema::token::OauthRefreshToken;
use gantry_schema::usage::Credential;
use gantry_schema::{OauthAuthorizationId, OrganizationId};
use poem::http::header;
use poem::{IntoResponse as _, Request, Response};
use serde_json::{Value, json};

use super::authenticate::{authenticate, find};
use super::parameters::Parameters;
use super::refusal::{Refusal, Stop, answered};
use super::{app_of, record, tokens};
use crate::app::App;
use crate::audit::about::About;
use crate::error::Error;
use crate::rate;

/// `POST /oauth/introspect`.
pub(crate) async fn introspect(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(said_of_token(&app, &mut request).await.map(json_answer))
}

/// `POST /oauth/revoke`.
pub(crate) async fn revoke(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(give_back(&app, &mut request).await)
}

/// `GET` and `POST /oauth/userinfo`.
pub(crate) async fn userinfo(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(said_of_person(&app, &request).await.map(json_answer))
}

fn json_answer(body: Value) -> Response {
    body.to_string().with_content_type("application/json").into_response()
}

/// A token that is good, and what it belongs to.
struct Good {
    organization: OrganizationId,
    authorization: OauthAuthorizationId,
    said: Value,
}

/// Looks a token up, whichever it is.
async fn look_up(app: &App, token: &str) -> Result<Option<Good>, Error> {
    if let Ok(token) = OauthRefreshToken::parse(token) {
        let held = refresh::presented(&mut app.db.credential(token.hash()).await?).await?;
        let held = held.filter(|held| !held.used && held.expires_at > app.db.now());
        return Ok(held.map(|held| Good {
            organization: held.organization,
            authorization: held.authorization,
            said: json!({ "token_type": "refresh_token", "exp": held.expires_at.timestamp() }),
        }));
    }
    let Ok(claims) = app.signing.keys(app).await?.verify_access(token, app.public_url(), app.db.now()) else {
        return Ok(None);
    };
    let said = json!({
        "token_type": "Bearer", "exp": claims.exp, "iat": claims.iat, "iss": claims.iss, "aud": claims.aud,
        "jti": claims.jti, "scope": claims.scope,
    });
    Ok(Some(Good { organization: claims.organization, authorization: claims.authorization, said }))
}

async fn said_of_token(app: &App, request: &mut Request) -> Result<Value, Stop> {
    let sent = Parameters::of_form(request).await?;
    let client = authenticate(app, request, &sent).await?;
    if !client.confidential {
        return Err(
            Refusal::client("who asks about tokens has to show a secret; this application is public", false).into()
        );
    }
    let inactive = || Ok(json!({ "active": false }));
    let Some(good) = look_up(app, sent.need("token")?).await? else { return inactive() };
    let mut tx = app.db.tenant(good.organization).await?;
    let Some(opened) = authorizations::open(&mut tx, good.authorization).await? else { return inactive() };
    if !is_told(app, &client, opened.client).await? {
        return inactive();
    }
    let mut said = good.said;
    let given = said["scope"].as_str().map_or_else(|| opened.scopes.clone(), Scopes::from_words);
    let scopes: Scopes = given.iter().filter(|scope| opened.scopes.contain(*scope)).collect();
    said["active"] = true.into();
    said["scope"] = scopes.to_string().into();
    said["client_id"] = json!(opened.client);
    said["organization"] = json!(opened.organization);
    said["sub"] = match opened.person {
        Some(person) => json!(person),
        None => json!(opened.client),
    };
    Ok(said)
}

/// An application is told of its own tokens, and of those of the other applications of its organization.
async fn is_told(app: &App, asks: &Client, about: gantry_schema::OauthClientId) -> Result<bool, Error> {
    if asks.id == about {
        return Ok(true);
    }
    Ok(find(app, &about.to_string()).await?.is_some_and(|about| about.organization == asks.organization))
}

async fn give_back(app: &App, request: &mut Request) -> Result<Response, Stop> {
    let sent = Parameters::of_form(request).await?;
    let client = authenticate(app, request, &sent).await?;
    if let Some(good) = look_up(app, sent.need("token")?).await? {
        let tx = app.db.tenant(good.organization).await?;
        let about = About::find(request)?;
        let mut tx = record::by_client(tx, &about, &client, "oauth_token.revoke", &good.authorization);
        let found = authorizations::find(&mut tx, good.authorization).await?;
        if found.is_some_and(|found| found.client == client.id) {
            authorizations::end(&mut tx, good.authorization, Ended::Revoked).await?;
            tx.commit().await?;
            app.grantees.forget();
        }
    }
    // A token that is none is not needed either (RFC 7009, 2.2).
    Ok(().into_response())
}

async fn said_of_person(app: &App, request: &Request) -> Result<Value, Stop> {
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::token("send the access token as Authorization: Bearer").into());
    }
    rate::refuse_guesses(app, request)?;
    let claims = app.signing.keys(app).await?.verify_access(token.trim(), app.public_url(), app.db.now());
    let opened = match &claims {
        Ok(claims) => app.grantees.open(&app.db, claims).await?,
        Err(_) => None,
    };
    let (Ok(claims), Some(opened)) = (&claims, opened) else {
        rate::count_wrong_credential(app, request).await?;
        return Err(Refusal::token("the access token does not work; get another one").into());
    };
    rate::admit(request, app, opened.organization, Credential::application(opened.client)).await?;
    let scopes: Scopes =
        Scopes::from_words(&claims.scope).iter().filter(|scope| opened.scopes.contain(*scope)).collect();
    let (Some(person), true) = (opened.person, scopes.contain(Scope::OpenId)) else {
        return Err(Refusal::insufficient("this needs the scope openid, of a person").into());
    };
    let mut tx = app.db.tenant(opened.organization).await?;
    let mut said = json!(tokens::about(&mut tx, person, &scopes).await?);
    said["sub"] = json!(person);
    Ok(said)
}
