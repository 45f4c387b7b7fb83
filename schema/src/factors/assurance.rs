//! What was proven, in the words of RFC 8176, and how much it is worth.

use super::Kind;

/// More than one proof of different kinds.
const SEVERAL: &str = "mfa";

/// What a proof by a factor adds to what a session says of itself.
#[must_use]
pub const fn methods(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Totp | Kind::Email => &["otp", SEVERAL],
        Kind::Sms => &["sms", SEVERAL],
        // Whether its key lies in hardware nobody says who does not attest it.
        Kind::Passkey => &["pop", SEVERAL],
    }
}

/// What a recovery code adds.
pub const RECOVERY: &[&str] = &["otp", SEVERAL];

/// The kind under which a session remembers a recovery code.
pub const RECOVERY_CODE: &str = "recovery_code";

/// The level of assurance (NIST SP 800-63B) of what was proven, as the `acr` of a session.
#[must_use]
pub fn class(methods: &[String]) -> &'static str {
    if methods.iter().any(|method| method == SEVERAL) { "urn:gantry:aal2" } else { "urn:gantry:aal1" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_proofs_are_worth_more_than_one() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(class(&words(&["pwd"])), "urn:gantry:aal1");
        assert_eq!(class(&words(&["pwd", "otp", "mfa"])), "urn:gantry:aal2");
        assert!(Kind::ALL.iter().all(|kind| class(&words(methods(*kind))) == "urn:gantry:aal2"));
    }
}
