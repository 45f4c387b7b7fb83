//! What a session is used on, in words people understand.

use woothee::parser::Parser;

/// `Firefox on Windows 10`; what says nothing of itself is shown as it is.
pub(super) fn describe(user_agent: Option<&str>) -> String {
    let Some(text) = user_agent.filter(|text| !text.trim().is_empty()) else {
        return "something that says nothing of itself".to_owned();
    };
    let known = |word: &str| !word.is_empty() && !word.eq_ignore_ascii_case("unknown");
    match Parser::new().parse(text) {
        Some(found) if known(found.name) && known(found.os) => format!("{} on {}", found.name, found.os),
        Some(found) if known(found.name) => found.name.to_owned(),
        _ => text.chars().take_while(|character| !character.is_control()).take(60).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_by_their_names_and_programs_as_they_call_themselves() {
        let firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:120.0) Gecko/20100101 Firefox/120.0";
        assert_eq!(describe(Some(firefox)), "Firefox on Windows 10");
        assert_eq!(describe(Some("deployer/1.2 (ci)")), "deployer/1.2 (ci)");
        assert_eq!(describe(Some(&"x".repeat(400))).len(), 60);
        assert_eq!(describe(None), describe(Some("  ")));
    }
}
