//! What was proven, in the words of RFC 8176, and how much it is worth.

use super::Kind;

/// More than one proof of different kinds.
const SEVERAL: &str = "mfa";

/// What a proof by a factor adds to what a session says of itself.
#[must_use]
pub const fn methods(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Totp => &["otp", SEVERAL],
        // Mail is read by whoever has the password often enough (NIST SP 800-63B-4, 3.1.3.1).
        Kind::Email => MAILED,
        Kind::Sms => &["sms", SEVERAL],
        // Whether its key lies in hardware nobody says who does not attest it.
        Kind::Passkey => &["pop", SEVERAL],
    }
}

/// What a recovery code adds.
pub const RECOVERY: &[&str] = &["otp", SEVERAL];

/// What a code adds that was sent by mail because a sign-in looked wrong: it is no second factor (NIST SP 800-63B-4, 3.1.3.1).
pub const MAILED: &[&str] = &["otp"];

/// The kind under which a session remembers such a code.
pub const MAILED_CODE: &str = "mailed_code";

/// The kind under which a session remembers a recovery code.
pub const RECOVERY_CODE: &str = "recovery_code";

/// Whether somebody proved himself in more than one way.
#[must_use]
pub fn is_by_several(methods: &[String]) -> bool {
    methods.iter().any(|method| method == SEVERAL)
}

/// The level of assurance (NIST SP 800-63B) of what was proven, as the `acr` of a session.
#[must_use]
pub fn class(methods: &[String]) -> &'static str {
    if is_by_several(methods) { "urn:gantry:aal2" } else { "urn:gantry:aal1" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_proofs_are_worth_more_than_one() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(class(&words(&["pwd"])), "urn:gantry:aal1");
        assert_eq!(class(&words(&["pwd", "otp", "mfa"])), "urn:gantry:aal2");
        let worth = |kind| class(&words(methods(kind)));
        assert!([Kind::Totp, Kind::Passkey, Kind::Sms].into_iter().all(|kind| worth(kind) == "urn:gantry:aal2"));
        assert_eq!(worth(Kind::Email), "urn:gantry:aal1");
    }
}
