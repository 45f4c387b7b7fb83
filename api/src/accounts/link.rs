//! Links that are sent to people. Each leads to a page of this API and carries what it is good with; what it does is done
//! when the page's form is sent, for programs that look at mail follow links.

use gantry_schema::people::one_time::Purpose;
use gantry_schema::token::{InviteToken, OneTimeToken};

use crate::error::{Code, Error};

/// The path below which the pages lie.
pub(super) const ROOT: &str = "/account";

/// The last part of the path of the page where somebody accepts an invitation.
pub(super) const INVITATION: &str = "invitation";

/// The last part of a page's path.
pub(super) const fn page_of(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::SignUp => "sign-up",
        Purpose::ResetPassword => "reset-password",
        Purpose::ChangeEmail => "change-email",
        Purpose::Bootstrap => "first-owner",
    }
}

/// The link that a token is sent in.
#[must_use]
pub fn to(public_url: &str, purpose: Purpose, token: &OneTimeToken) -> String {
    format!("{}{ROOT}/{}?token={}", public_url.trim_end_matches('/'), page_of(purpose), token.expose())
}

/// The link of an invitation.
pub(crate) fn to_invitation(public_url: &str, token: &InviteToken) -> String {
    format!("{public_url}{ROOT}/{INVITATION}?token={}", token.expose())
}

/// That a link is good for nothing: it was used, has expired, was replaced, or never was.
pub(super) fn expired() -> Error {
    let detail = "the link was used, has expired, or was replaced by a newer one; have another one sent";
    Error::new(Code::LinkExpired, detail).at("token")
}

/// What a program sends of a link.
///
/// # Errors
/// When it can be of none.
pub(super) fn read(text: &str) -> Result<OneTimeToken, Error> {
    OneTimeToken::parse(text).map_err(|_| expired())
}
