//! The token endpoint: a code, a refresh token, a secret or a device's code is exchanged for tokens.

use gantry_schema::audit::Outcome;
use gantry_schema::oauth::authorizations::{self, Authorization, Ended};
use gantry_schema::oauth::clients::{Client, Grant};
use gantry_schema::oauth::codes;
use gantry_schema::oauth::pkce::Challenge;
use gantry_schema::oauth::scope::{Scope, Scopes};
use gantry_schema::oauth::{ACCESS, devices, refresh};
use gantry_schema::token::{CodeToken, DeviceToken, OauthRefreshToken};
use gantry_schema::{JobTx as _, OrganizationId};
use poem::{Request, Response};

use super::authenticate::authenticate;
use super::parameters::Parameters;
use super::record;
use super::refusal::{Refusal, Stop, answered};
use super::tokens::{self, Order};
use super::{DEVICE_GRANT, app_of};
use crate::app::App;
use crate::audit::about::About;

/// What the record calls the first tokens of an authorization.
const ISSUED: &str = "oauth_token.issue";

/// `POST /oauth/token`.
pub(crate) async fn exchange(mut request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    answered(answer(&app, &mut request).await)
}

async fn answer(app: &App, request: &mut Request) -> Result<Response, Stop> {
    let sent = Parameters::of_form(request).await?;
    let client = authenticate(app, request, &sent).await?;
    let about = &About::find(request)?;
    let allowed = |grant: Grant| {
        let detail = "the application is not registered for this flow; who registered it can add it";
        if client.uses(grant) { Ok(()) } else { Err(Refusal::new("unauthorized_client", detail)) }
    };
    match sent.need("grant_type")? {
        "authorization_code" => {
            allowed(Grant::AuthorizationCode)?;
            by_code(app, about, &client, &sent).await
        }
        // Whatever it came of.
        "refresh_token" => by_refresh_token(app, about, &client, &sent).await,
        "client_credentials" => {
            allowed(Grant::ClientCredentials)?;
            by_credentials(app, about, &client, &sent).await
        }
        DEVICE_GRANT => {
            allowed(Grant::DeviceCode)?;
            by_device(app, about, &client, &sent).await
        }
        _ => {
            let detail = "write authorization_code, refresh_token, client_credentials, or the device_code of RFC 8628";
            Err(Refusal::new("unsupported_grant_type", detail).into())
        }
    }
}

async fn by_code(app: &App, about: &About, client: &Client, sent: &Parameters) -> Result<Response, Stop> {
    let unknown = || Refusal::grant("there is no such code, or it is not good any more; ask the person again");
    let token = CodeToken::parse(sent.need("code")?).map_err(|_| unknown())?;
    let redirect_uri = sent.need("redirect_uri")?;
    let verifier = sent.need("code_verifier")?;
    let found = codes::presented(&mut app.db.credential(token.hash()).await?).await?;
    let code = found.filter(|code| code.client == client.id).ok_or_else(unknown)?;
    let tx = app.db.tenant(code.organization).await?;
    let mut tx = record::by_client(tx, about, client, ISSUED, &code.authorization);
    if !codes::take(&mut tx, &token, &code).await? {
        tx.audit().ended(Outcome::Denied, "the code was used before or has expired; what it gave was taken back");
        tx.commit().await?;
        app.grantees.forget();
        let detail = "this code was used before or has expired; whatever it gave was taken back";
        return Err(Refusal::grant(detail).into());
    }
    let fits = code.challenge.parse::<Challenge>().is_ok_and(|challenge| challenge.is_of(verifier));
    if !fits || code.redirect_uri != redirect_uri {
        // Whoever has it is not who asked for it: it is used up for both.
        authorizations::end(&mut tx, code.authorization, Ended::CodeReused).await?;
        tx.audit().ended(Outcome::Denied, "the code came without what it was asked for with; it is used up");
        tx.commit().await?;
        let detail = if fits {
            "redirect_uri is not the one that the code was asked for with"
        } else {
            "code_verifier is not the one that code_challenge was made of"
        };
        return Err(Refusal::grant(format!("{detail}; the code is used up")).into());
    }
    let mut authorization = authorizations::find(&mut tx, code.authorization).await?.ok_or_else(unknown)?;
    authorization.expires_at = tokens::lasts(&authorization.scopes, tx.now());
    authorizations::prolong(&mut tx, authorization.id, authorization.expires_at).await?;
    let order = Order { client, authorization: &authorization, narrowed: None, nonce: code.nonce, refreshable: true };
    let response = tokens::make(app, &mut tx, order).await?;
    tx.commit().await?;
    Ok(response)
}

async fn by_refresh_token(app: &App, about: &About, client: &Client, sent: &Parameters) -> Result<Response, Stop> {
    let unknown = || Refusal::grant("there is no such refresh token, or it is not good any more; ask the person again");
    let token = OauthRefreshToken::parse(sent.need("refresh_token")?).map_err(|_| unknown())?;
    let held = refresh::presented(&mut app.db.credential(token.hash()).await?).await?.ok_or_else(unknown)?;
    let tx = app.db.tenant(held.organization).await?;
    let mut tx = record::by_client(tx, about, client, "oauth_token.refresh", &held.authorization);
    let authorization = authorizations::find(&mut tx, held.authorization).await?.ok_or_else(unknown)?;
    // One that is shown by another application is not used up: that would be in anybody's hands.
    if authorization.client != client.id {
        return Err(unknown().into());
    }
    let narrowed = sent.get("scope").map(|text| narrower(text, &authorization.scopes)).transpose()?;
    if !refresh::take(&mut tx, &token).await? {
        tx.audit().ended(Outcome::Denied, "the refresh token was used before or has expired");
        tx.commit().await?;
        app.grantees.forget();
        let detail = if held.used {
            "this refresh token was used before, so somebody else has it too; whatever came of it was taken back"
        } else {
            "this refresh token has expired; ask the person again"
        };
        return Err(Refusal::grant(detail).into());
    }
    let order = Order { client, authorization: &authorization, narrowed, nonce: None, refreshable: true };
    let response = tokens::make(app, &mut tx, order).await?;
    tx.commit().await?;
    Ok(response)
}

async fn by_credentials(app: &App, about: &About, client: &Client, sent: &Parameters) -> Result<Response, Stop> {
    let own: Scopes = client.scopes.iter().filter(|scope| !scope.needs_a_person()).collect();
    let scopes = sent.get("scope").map_or_else(|| Ok(own.clone()), |text| narrower(text, &own))?;
    let tx = app.db.tenant(client.organization).await?;
    let authorization = Authorization {
        id: tx.ids().mint(),
        organization: client.organization,
        client: client.id,
        person: None,
        scopes,
        authenticated_at: None,
        methods: Vec::new(),
        expires_at: tx.now() + ACCESS,
    };
    let mut tx = record::by_client(tx, about, client, ISSUED, &authorization.id);
    authorizations::insert(&mut tx, &authorization, None).await?;
    let order = Order { client, authorization: &authorization, narrowed: None, nonce: None, refreshable: false };
    let response = tokens::make(app, &mut tx, order).await?;
    tx.commit().await?;
    Ok(response)
}

async fn by_device(app: &App, about: &About, client: &Client, sent: &Parameters) -> Result<Response, Stop> {
    let unknown = || Refusal::grant("there is no such device_code; ask for another one");
    let token = DeviceToken::parse(sent.need("device_code")?).map_err(|_| unknown())?;
    let found = devices::presented(&mut app.db.credential(token.hash()).await?).await?;
    let device = found.filter(|device| device.client == client.id).ok_or_else(unknown)?;
    if device.expires_at <= app.db.now() {
        return Err(Refusal::new("expired_token", "nobody decided in time; ask for another device_code").into());
    }
    let mut tx = app.db.tenant(device.organization).await?;
    if !device.decided {
        let in_time = devices::poll(&mut tx, device.id).await?;
        tx.commit().await?;
        return Err(if in_time {
            Refusal::new("authorization_pending", "nobody has decided yet; ask again after the interval").into()
        } else {
            Refusal::new("slow_down", "ask five seconds less often from now on").into()
        });
    }
    let Some((authorization, organization)) = device.authorization else {
        return Err(Refusal::new("access_denied", "the person refused").into());
    };
    if !devices::take(&mut tx, device.id).await? {
        return Err(unknown().into());
    }
    tx.commit().await?;
    by_decision(app, about, client, authorization, organization).await
}

async fn by_decision(
    app: &App,
    about: &About,
    client: &Client,
    authorization: gantry_schema::OauthAuthorizationId,
    organization: OrganizationId,
) -> Result<Response, Stop> {
    let gone = || Refusal::grant("what the person allowed does not stand any more; ask him again");
    let tx = app.db.tenant(organization).await?;
    let mut tx = record::by_client(tx, about, client, ISSUED, &authorization);
    let mut authorization = authorizations::find(&mut tx, authorization).await?.ok_or_else(gone)?;
    authorization.expires_at = tokens::lasts(&authorization.scopes, tx.now());
    authorizations::prolong(&mut tx, authorization.id, authorization.expires_at).await?;
    let order = Order { client, authorization: &authorization, narrowed: None, nonce: None, refreshable: true };
    let response = tokens::make(app, &mut tx, order).await?;
    tx.commit().await?;
    Ok(response)
}

/// Scopes that are asked for, of those that may be.
pub(super) fn narrower(text: &str, most: &Scopes) -> Result<Scopes, Refusal> {
    let refused = |detail: String| Refusal::new("invalid_scope", detail);
    let scopes: Scopes = text.parse().map_err(|error: gantry_schema::oauth::scope::UnknownScope| {
        let known: Vec<&str> = Scope::all().map(Scope::as_str).collect();
        refused(format!("{error}; write some of {}", known.join(" ")))
    })?;
    let beyond = scopes.iter().find(|scope| !most.contain(*scope));
    match beyond {
        Some(scope) => Err(refused(format!("{scope} is more than may be asked for here; leave it out"))),
        None if scopes.is_empty() => Err(refused("say which scopes".to_owned())),
        None => Ok(scopes),
    }
}
