//! Making tokens of what was granted.

use chrono::{DateTime, Utc};
use gantry_schema::oauth::ACCESS;
use gantry_schema::oauth::authorizations::{self, Authorization};
use gantry_schema::oauth::clients::Client;
use gantry_schema::oauth::jwt::{About, AccessClaims, IdClaims, at_hash};
use gantry_schema::oauth::refresh;
use gantry_schema::oauth::scope::{Scope, Scopes};
use gantry_schema::people::{self, Person};
use gantry_schema::token::OauthRefreshToken;
use gantry_schema::{JobTx as _, PersonId, TenantTx};
use poem::{IntoResponse as _, Response};
use serde_json::json;
use uuid::Uuid;

use super::refusal::{Refusal, Stop};
use super::signing::unusable;
use crate::app::App;
use crate::error::Error;

/// What tokens are made of.
pub(super) struct Order<'a> {
    pub(super) client: &'a Client,
    pub(super) authorization: &'a Authorization,
    /// Less than the authorization has, where the application wants less.
    pub(super) narrowed: Option<Scopes>,
    /// What the ID token repeats.
    pub(super) nonce: Option<String>,
    /// The request gives the right to ask again.
    pub(super) refreshable: bool,
}

/// How long an authorization goes on from now.
pub(super) fn lasts(scopes: &Scopes, now: DateTime<Utc>) -> DateTime<Utc> {
    if scopes.contain(Scope::OfflineAccess) { now + refresh::LASTS } else { now + ACCESS }
}

/// Makes the tokens, in the transaction that uses up what they are made of.
pub(super) async fn make(app: &App, tx: &mut TenantTx, order: Order<'_>) -> Result<Response, Stop> {
    let (now, authorization) = (tx.now(), order.authorization);
    let gone = || Refusal::grant("what the person allowed does not stand any more; ask him again");
    // Its person may have left, and the application may have lost some of it.
    let opened = authorizations::open(tx, authorization.id).await?.ok_or_else(gone)?;
    let wanted = order.narrowed.unwrap_or_else(|| authorization.scopes.clone());
    let scopes: Scopes = wanted.iter().filter(|scope| opened.scopes.contain(*scope)).collect();

    let expires_at = authorization.expires_at.min(now + ACCESS);
    let jti: Uuid = tx.ids().mint();
    let subject = match authorization.person {
        Some(person) => person.to_string(),
        None => order.client.id.to_string(),
    };
    let claims = AccessClaims {
        iss: app.public_url().to_owned(),
        sub: subject,
        aud: app.public_url().to_owned(),
        exp: expires_at.timestamp(),
        iat: now.timestamp(),
        nbf: None,
        jti: jti.simple().to_string(),
        client_id: order.client.id,
        scope: scopes.to_string(),
        organization: authorization.organization,
        authorization: authorization.id,
        auth_time: authorization.authenticated_at.map(|at| at.timestamp()),
    };
    let keys = app.signing.keys(app).await?;
    let access_token = keys.sign_access(&claims, now).map_err(unusable)?;
    let mut answer = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": (expires_at - now).num_seconds(),
        "scope": claims.scope,
    });
    if let (Some(person), true) = (authorization.person, scopes.contain(Scope::OpenId)) {
        let claims = IdClaims {
            iss: app.public_url().to_owned(),
            sub: person,
            aud: order.client.id,
            exp: expires_at.timestamp(),
            iat: now.timestamp(),
            auth_time: authorization.authenticated_at.unwrap_or(now).timestamp(),
            amr: authorization.methods.clone(),
            nonce: order.nonce,
            at_hash: at_hash(&access_token),
            about: about(tx, person, &scopes).await?,
        };
        answer["id_token"] = keys.sign_id(&claims, now).map_err(unusable)?.into();
    }
    if order.refreshable && authorization.scopes.contain(Scope::OfflineAccess) {
        let token = OauthRefreshToken::generate(&mut rand::rng());
        let until = authorization.expires_at.min(now + refresh::IDLE);
        refresh::keep(tx, &token, authorization.id, until).await?;
        answer["refresh_token"] = token.expose().into();
    }
    Ok(answer.to_string().with_content_type("application/json").into_response())
}

/// What the scopes allow to be known of a person.
pub(super) async fn about(tx: &mut TenantTx, person: PersonId, scopes: &Scopes) -> Result<About, Error> {
    let found = people::find(tx, person).await?.ok_or_else(|| Error::not_found(person))?;
    let Person { email, email_verified_at, name, locale, .. } = found;
    let (profile, mail) = (scopes.contain(Scope::Profile), scopes.contain(Scope::Email));
    Ok(About {
        name: profile.then_some(name),
        locale: profile.then_some(locale),
        email: mail.then_some(email),
        email_verified: mail.then_some(email_verified_at.is_some()),
    })
}
