//! OAuth 2.0 and OpenID Connect: applications of others act for people, or for themselves.
//!
//! Seeing to applications are operations like any other. What applications themselves ask for is said by RFCs, down to the
//! form of the errors, so it is plain routes beside the operations, and `/.well-known/oauth-authorization-server`
//! describes it.

mod authenticate;
mod authorize;
mod clients;
mod device;
mod exchange;
mod grantees;
mod grants;
mod inspect;
mod metadata;
pub(crate) mod page;
pub(crate) mod parameters;
mod record;
pub(crate) mod refusal;
mod sign_in;
mod signing;
mod tokens;
mod visitor;

use poem::endpoint::make;
use poem::{Request, Route, get, post};

pub use clients::OauthClients;
pub(crate) use grantees::Grantees;
pub use grants::OauthGrants;
pub(crate) use signing::Signing;

use crate::app::App;
use crate::error::{Code, Error};

/// What a device calls its grant (RFC 8628, 3.4).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The routes of the protocol, one line each.
pub(crate) fn routes(route: Route) -> Route {
    route
        .at("/.well-known/oauth-authorization-server", get(make(metadata::metadata)))
        .at("/.well-known/openid-configuration", get(make(metadata::metadata)))
        .at("/oauth/jwks", get(make(metadata::jwks)))
        .at("/oauth/authorize", get(make(authorize::authorize)).post(make(authorize::decide)))
        .at("/oauth/sign-in", post(make(sign_in::sign_in)))
        .at("/oauth/token", post(make(exchange::exchange)))
        .at("/oauth/introspect", post(make(inspect::introspect)))
        .at("/oauth/revoke", post(make(inspect::revoke)))
        .at("/oauth/userinfo", get(make(inspect::userinfo)).post(make(inspect::userinfo)))
        .at("/oauth/device_authorization", post(make(device::begin)))
        .at("/oauth/device", get(make(device::ask)).post(make(device::decide)))
}

fn app_of(request: &Request) -> Result<App, Error> {
    let app = request.data::<App>().cloned();
    app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))
}
