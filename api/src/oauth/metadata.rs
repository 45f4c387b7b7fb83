//! What applications read before they begin: where everything is (RFC 8414, OpenID Connect Discovery), and the keys.

use gantry_schema::oauth::scope::Scope;
use poem::http::{HeaderValue, header};
use poem::{IntoResponse as _, Request, Response};
use serde_json::{Value, json};

use super::{DEVICE_GRANT, app_of};
use crate::app::App;

/// `GET /.well-known/oauth-authorization-server` and `/.well-known/openid-configuration`.
pub(crate) async fn metadata(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    Ok(kept(&described(&app), 3_600))
}

/// `GET /oauth/jwks`.
pub(crate) async fn jwks(request: Request) -> poem::Result<Response> {
    let app = app_of(&request)?;
    let keys = app.signing.keys(&app).await?;
    Ok(kept(&keys.shown(app.db.now()), 300))
}

fn described(app: &App) -> Value {
    let issuer = app.public_url();
    let at = |path: &str| format!("{issuer}{path}");
    let scopes: Vec<&str> = Scope::all().map(Scope::as_str).collect();
    let by_secret = ["client_secret_basic", "client_secret_post"];
    json!({
        "issuer": issuer,
        "authorization_endpoint": at("/oauth/authorize"),
        "token_endpoint": at("/oauth/token"),
        "jwks_uri": at("/oauth/jwks"),
        "userinfo_endpoint": at("/oauth/userinfo"),
        "revocation_endpoint": at("/oauth/revoke"),
        "introspection_endpoint": at("/oauth/introspect"),
        "device_authorization_endpoint": at("/oauth/device_authorization"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "introspection_endpoint_auth_methods_supported": by_secret,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": [
            "iss", "sub", "aud", "exp", "iat", "auth_time", "amr", "nonce", "at_hash", "name", "locale", "email",
            "email_verified",
        ],
        "prompt_values_supported": ["none", "login", "consent"],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "claims_parameter_supported": false,
        "service_documentation": at("/docs"),
    })
}

/// Everybody may keep it for so many seconds.
fn kept(body: &Value, seconds: u32) -> Response {
    let mut response = body.to_string().with_content_type("application/json").into_response();
    let kept = HeaderValue::from_str(&format!("public, max-age={seconds}"));
    response.headers_mut().extend(kept.ok().map(|kept| (header::CACHE_CONTROL, kept)));
    response
}
