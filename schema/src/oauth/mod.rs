//! OAuth 2.0 and OpenID Connect: the applications that organizations register, what people let them do, and the tokens
//! that say so.
//!
//! The pure rules are in [`pkce`], [`redirect`], [`scope`] and [`jwt`]; the tables in the other files.

pub mod authorizations;
pub mod clients;
pub mod codes;
pub mod devices;
pub mod grants;
pub mod jwt;
pub mod keys;
pub mod pkce;
pub mod redirect;
pub mod refresh;
pub mod scope;

/// How long an access token or an ID token is good.
pub const ACCESS: chrono::Duration = chrono::Duration::minutes(15);
