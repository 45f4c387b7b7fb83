//! What a session is opened with: a cookie for browsers, two tokens for programs.

use chrono::{DateTime, Duration, Utc};
use gantry_schema::sessions::{Kind, Session, TokenKind, give};
use gantry_schema::token::{AccessToken, CookieToken, RefreshToken};
use gantry_schema::{PersonalTx, TenantTx};

use super::cookie;
use crate::app::App;
use crate::error::Error;

/// How long an access token is good.
pub(crate) const ACCESS: Duration = Duration::minutes(15);

/// A browser that is not used for so long is signed out (NIST SP 800-63B-4, AAL2).
pub(crate) const BROWSER_IDLE: Duration = Duration::hours(1);

/// The longest a browser stays signed in.
pub(crate) const BROWSER_LASTS: Duration = Duration::hours(24);

/// A program that does not refresh for so long is signed out.
pub(crate) const PROGRAM_IDLE: Duration = Duration::days(14);

/// The longest a program stays signed in.
pub(crate) const PROGRAM_LASTS: Duration = Duration::days(30);

/// What was handed out.
pub(crate) enum HandedOut {
    Browser { cookie: CookieToken, until: DateTime<Utc>, now: DateTime<Utc> },
    Program { access: AccessToken, refresh: RefreshToken, seconds: i64 },
}

/// Makes what opens the session from now on.
pub(crate) async fn hand_out(app: &App, tx: &mut TenantTx, session: &Session) -> Result<HandedOut, Error> {
    let now = PersonalTx::now(tx);
    Ok(match session.kind {
        Kind::Browser => {
            cookie::check_host(app)?;
            let (cookie, until) = (CookieToken::generate(&mut rand::rng()), session.expires_at);
            give(tx, session, cookie.hash(), TokenKind::Cookie, until).await?;
            HandedOut::Browser { cookie, until, now }
        }
        Kind::Program => {
            let (access, refresh) = (AccessToken::generate(&mut rand::rng()), RefreshToken::generate(&mut rand::rng()));
            let until = session.expires_at.min(now + ACCESS);
            give(tx, session, access.hash(), TokenKind::Access, until).await?;
            give(tx, session, refresh.hash(), TokenKind::Refresh, session.expires_at).await?;
            HandedOut::Program { access, refresh, seconds: (until - now).num_seconds() }
        }
    })
}

impl HandedOut {
    /// The header that gives it to a browser.
    pub(crate) fn cookie(&self) -> Option<String> {
        match self {
            Self::Browser { cookie, until, now } => Some(cookie::set(cookie, *until - *now)),
            Self::Program { .. } => None,
        }
    }

    pub(super) fn csrf_token(&self) -> Option<String> {
        match self {
            Self::Browser { cookie, .. } => Some(cookie::csrf_token(cookie)),
            Self::Program { .. } => None,
        }
    }

    pub(super) fn access_token(&self) -> Option<String> {
        match self {
            Self::Program { access, .. } => Some(access.expose().to_owned()),
            Self::Browser { .. } => None,
        }
    }

    pub(super) fn refresh_token(&self) -> Option<String> {
        match self {
            Self::Program { refresh, .. } => Some(refresh.expose().to_owned()),
            Self::Browser { .. } => None,
        }
    }

    pub(super) fn expires_in(&self) -> Option<i64> {
        match self {
            Self::Program { seconds, .. } => Some(*seconds),
            Self::Browser { .. } => None,
        }
    }
}
