//! What messages say. Each is written once, as paragraphs; its plain text and its HTML follow from that, so neither has
//! what the other lacks. There are no images and no colours that anything depends on.

use super::Content;
use crate::organizations::settings::{Resolved, Setting};

/// Who speaks: the brand of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brand {
    /// What the platform is called where the organization's people see it.
    pub name: String,
    /// Whom people write to when they need help.
    pub support_email: Option<String>,
    /// Where people look when they need help.
    pub support_url: Option<String>,
}

impl Brand {
    /// As the organization's settings have it.
    #[must_use]
    pub fn of(settings: &[Resolved]) -> Self {
        let text = |setting: Setting| {
            settings.iter().find(|it| it.setting == setting).and_then(|it| it.value.as_str()).map(str::to_owned)
        };
        Self {
            name: text(Setting::BrandName).unwrap_or_else(|| "Gantry".to_owned()),
            support_email: text(Setting::BrandSupportEmail),
            support_url: text(Setting::BrandSupportUrl),
        }
    }
}

/// A part of a letter.
enum Part<'a> {
    Paragraph(String),
    /// Something to do: what, and where.
    Link(&'a str, &'a str),
    /// Something to type.
    Code(&'a str),
    /// What happened: names and values.
    Facts(Vec<(&'a str, String)>),
}

fn say<'a>(text: impl Into<String>) -> Part<'a> {
    Part::Paragraph(text.into())
}

impl Part<'_> {
    fn text(&self) -> String {
        match self {
            Self::Paragraph(words) => plain(words),
            Self::Link(words, url) => format!("{words}:\n{url}"),
            Self::Code(code) => format!("    {code}"),
            Self::Facts(facts) => lines(facts, plain).join("\n"),
        }
    }

    fn html(&self) -> String {
        match self {
            Self::Paragraph(words) => format!("<p>{}</p>", escaped(words)),
            // The URL is shown as well: a letter whose links lead elsewhere than they say looks like one of thieves.
            Self::Link(words, url) => format!("<p><a href=\"{0}\">{1}</a><br>{0}</p>", escaped(url), escaped(words)),
            Self::Code(code) => format!("<p style=\"font:bold 1.5em monospace\">{}</p>", escaped(code)),
            Self::Facts(facts) => format!("<p>{}</p>", lines(facts, escaped).join("<br>")),
        }
    }
}

fn lines(facts: &[(&str, String)], write: impl Fn(&str) -> String) -> Vec<String> {
    facts.iter().map(|(name, value)| format!("{name}: {}", write(value))).collect()
}

/// A letter in both forms.
fn letter(brand: &Brand, subject: &str, parts: &[Part<'_>]) -> Content {
    let help = match (&brand.support_email, &brand.support_url) {
        (Some(email), Some(url)) => Some(format!("Questions? Write to {email}, or see {url}")),
        (Some(email), None) => Some(format!("Questions? Write to {email}.")),
        (None, Some(url)) => Some(format!("Questions? See {url}")),
        (None, None) => None,
    };
    let footer = |write: fn(&str) -> String, between: &str| {
        let lines: Vec<String> =
            [Some(&brand.name), help.as_ref()].into_iter().flatten().map(|line| write(line)).collect();
        lines.join(between)
    };
    let said: Vec<String> = parts.iter().map(Part::text).collect();
    let shown: String = parts.iter().map(Part::html).collect();
    let subject = plain(subject);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title></head>\
         <body style=\"font:16px/1.5 sans-serif;max-width:34em\">{shown}<hr><p><small>{}</small></p></body></html>\n",
        escaped(&subject),
        footer(escaped, "<br>")
    );
    Content {
        text: format!("{}\n\n-- \n{}\n", said.join("\n\n"), footer(plain, "\n")),
        subject: Some(subject),
        html: Some(html),
        from_name: Some(plain(&brand.name)),
        reply_to: brand.support_email.clone(),
    }
}

/// Whatever people wrote is one line of text: nothing that would end a header or turn the direction of what follows.
fn plain(text: &str) -> String {
    let turns =
        |each: char| matches!(each, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    text.chars().filter(|each| !turns(*each)).map(|each| if each.is_control() { ' ' } else { each }).collect()
}

/// As [`plain`], and nothing of it is HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for each in plain(text).chars() {
        match each {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Names that others chose come into letters to strangers: what looks like an address or a link in them is none there.
fn name(text: &str) -> String {
    let short: String = plain(text).chars().take(80).collect();
    short
        .replace("://", " ")
        .replace('@', "(at)")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("www.", "www ")
}

const NOT_YOU: &str = "If you did not ask for this, do nothing: without the link nothing happens.";

/// To somebody who wants an account.
#[must_use]
pub fn sign_up(brand: &Brand, link: &str) -> Content {
    let parts = [
        say(format!("Somebody, most likely you, wants to make an account at {} with this address.", brand.name)),
        Part::Link("Make the account", link),
        say("The link works once, and for 24 hours."),
        say(NOT_YOU),
    ];
    letter(brand, &format!("Make your account at {}", brand.name), &parts)
}

/// To somebody who wants an account, and has one.
#[must_use]
pub fn sign_up_again(brand: &Brand, link: &str) -> Content {
    let parts = [
        say(format!(
            "Somebody, most likely you, wanted to make an account at {} with this address. There is one already: sign in \
             with it. If you do not know its password any more, set a new one.",
            brand.name
        )),
        Part::Link("Set a new password", link),
        say("The link works once, and for an hour."),
        say(NOT_YOU),
    ];
    letter(brand, &format!("You have an account at {}", brand.name), &parts)
}

/// To somebody who is to become a member.
#[must_use]
pub fn invitation(brand: &Brand, organization: &str, invited_by: Option<&str>, role: &str, link: &str) -> Content {
    let organization = name(organization);
    let who = invited_by.map_or_else(|| "Somebody".to_owned(), name);
    let parts = [
        say(format!("{who} invites you to join {organization} at {}, as {role}.", brand.name)),
        Part::Link("See the invitation", link),
        say("The link works for 7 days. Nobody else should see it: whoever has it can accept in your place."),
        say("If you do not expect this, do nothing."),
    ];
    letter(brand, &format!("Join {organization} at {}", brand.name), &parts)
}

/// To somebody who does not know his password any more.
#[must_use]
pub fn reset_password(brand: &Brand, link: &str) -> Content {
    let parts = [
        say(format!("Somebody, most likely you, wants to set a new password for your account at {}.", brand.name)),
        Part::Link("Set a new password", link),
        say("The link works once, and for an hour. With the new password you are signed out everywhere."),
        say(NOT_YOU),
    ];
    letter(brand, &format!("Set a new password at {}", brand.name), &parts)
}

/// To the address that mail is to go to from now on.
#[must_use]
pub fn change_email(brand: &Brand, link: &str) -> Content {
    let parts = [
        say(format!(
            "Somebody, most likely you, wants mail about an account at {} to come here from now on.",
            brand.name
        )),
        Part::Link("Use this address", link),
        say("The link works once, and for an hour."),
        say(NOT_YOU),
    ];
    letter(brand, &format!("Is this your address at {}?", brand.name), &parts)
}

/// To the address that mail went to until now.
#[must_use]
pub fn email_changed(brand: &Brand, to: &str, at: &str) -> Content {
    let parts = [
        say(format!("Mail about your account at {} goes to another address from now on.", brand.name)),
        Part::Facts(vec![("New address", to.to_owned()), ("When", at.to_owned())]),
        say("If that was not you, write to whoever runs the platform at once."),
    ];
    letter(brand, &format!("Your address at {} was changed", brand.name), &parts)
}

/// To somebody whose password is another now.
#[must_use]
pub fn password_changed(brand: &Brand, at: &str, address: Option<&str>) -> Content {
    let mut facts = vec![("When", at.to_owned())];
    facts.extend(address.map(|address| ("From", address.to_owned())));
    let parts = [
        say(format!("The password of your account at {} was changed, and other sessions have ended.", brand.name)),
        Part::Facts(facts),
        say("If that was not you, set a new password now, and look at where you are signed in."),
    ];
    letter(brand, &format!("Your password at {} was changed", brand.name), &parts)
}

/// To somebody who signed in from somewhere new.
#[must_use]
pub fn new_device(brand: &Brand, device: &str, address: Option<&str>, at: &str) -> Content {
    let mut facts = vec![("Device", name(device)), ("When", at.to_owned())];
    facts.extend(address.map(|address| ("From", address.to_owned())));
    let parts = [
        say(format!("Your account at {} was signed in to from a device that it was not used on before.", brand.name)),
        Part::Facts(facts),
        say("If that was you, there is nothing to do. If not, change your password now: it ends every other session."),
    ];
    letter(brand, &format!("A new device at {}", brand.name), &parts)
}

/// A code, by mail.
#[must_use]
pub fn code_by_mail(brand: &Brand, code: &str, minutes: i64) -> Content {
    let parts = [
        say(format!("Your code for {}:", brand.name)),
        Part::Code(code),
        say(format!("It works once, and for {minutes} minutes. Nobody from {} asks you for it.", brand.name)),
        say("If you are not signing in at this moment, somebody else knows your password: change it."),
    ];
    letter(brand, &format!("Your code for {}", brand.name), &parts)
}

/// A code, by a text message. The last line lets browsers fill it in on this site and no other (WICG's origin-bound
/// one-time codes).
#[must_use]
pub fn code_by_sms(brand: &Brand, code: &str, minutes: i64, host: &str) -> Content {
    let text =
        format!("{code} is your code for {}. It works for {minutes} minutes.\n\n@{host} #{code}", name(&brand.name));
    Content { text, ..Content::default() }
}

/// That something about how somebody proves who he is was changed: what, in a sentence.
#[must_use]
pub fn security_changed(brand: &Brand, what: &str, at: &str, address: Option<&str>) -> Content {
    let mut facts = vec![("When", at.to_owned())];
    facts.extend(address.map(|address| ("From", address.to_owned())));
    let parts = [
        say(what),
        Part::Facts(facts),
        say("If that was not you, set a new password now, and look at where you are signed in."),
    ];
    letter(brand, &format!("Your account at {} was changed", brand.name), &parts)
}

/// To somebody who wants to be forgotten.
#[must_use]
pub fn erasure_begun(brand: &Brand, id: &str, at: &str) -> Content {
    let parts = [
        say(format!(
            "All that {} knows of you is being erased, because somebody who was signed in as you and proved it asked for it. It \
             cannot be had back.",
            brand.name
        )),
        Part::Facts(vec![("When", at.to_owned()), ("Erasure", id.to_owned())]),
        say("Keep the number of the erasure: with it anybody can look at what became of it, and get the certificate."),
        say("If that was not you, write to whoever runs the platform at once."),
    ];
    letter(brand, &format!("You are being forgotten at {}", brand.name), &parts)
}

/// To somebody whose second factors are to be removed.
#[must_use]
pub fn factors_to_be_reset(brand: &Brand, organization: &str, reason: &str, until: &str) -> Content {
    let organization = name(organization);
    let parts = [
        say(format!(
            "Somebody in {organization} asked that your second factors at {} be removed, so that you can sign in with your \
             password and enrol others. It is done when somebody else there agrees.",
            brand.name
        )),
        Part::Facts(vec![("Why", name(reason)), ("Until", until.to_owned())]),
        say(format!(
            "If you still have them and did not want this, tell the owners of {organization} now, and change your password."
        )),
    ];
    letter(brand, &format!("Your second factors at {} are to be removed", brand.name), &parts)
}

/// To somebody whose second factors were removed.
#[must_use]
pub fn factors_reset(brand: &Brand, organization: &str, at: &str) -> Content {
    let organization = name(organization);
    let parts = [
        say(format!(
            "Two people in {organization} had your second factors at {} removed, and you are signed out everywhere. Sign in with \
             your password, and enrol others.",
            brand.name
        )),
        Part::Facts(vec![("When", at.to_owned())]),
        say(format!("If you did not want this, tell the owners of {organization} now, and change your password.")),
    ];
    letter(brand, &format!("Your second factors at {} were removed", brand.name), &parts)
}

/// To whoever can renew a license that ends soon.
#[must_use]
pub fn license_ends(brand: &Brand, organization: &str, days: i64, at: &str) -> Content {
    let organization = name(organization);
    let within = if days == 1 { "a day".to_owned() } else { format!("{days} days") };
    let parts = [
        say(format!("The license of {organization} at {} ends within {within}.", brand.name)),
        Part::Facts(vec![("Ends", at.to_owned())]),
        say("What runs goes on running in any case. Renew the license so that you can go on adding to it."),
    ];
    letter(brand, &format!("The license of {organization} ends within {within}"), &parts)
}

/// To whoever can get a license for more.
#[must_use]
pub fn license_used(brand: &Brand, organization: &str, limit: &str, percent: u64, used: u64, most: u64) -> Content {
    let (organization, limit) = (name(organization), limit.replace('_', " "));
    let parts = [
        say(format!("{percent} percent of the {limit} that the license of {organization} allows are used.")),
        Part::Facts(vec![("Used", used.to_string()), ("Allowed", most.to_string())]),
        say(
            "When all are used, no more can be added; what is there stays. Remove what nobody needs, or get a license for more.",
        ),
    ];
    letter(brand, &format!("{percent} percent of the {limit} of {organization} are used"), &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brand() -> Brand {
        Brand {
            name: "Acme <Cloud> & \"Co\"".to_owned(),
            support_email: Some("help@acme.example".to_owned()),
            support_url: None,
        }
    }

    fn all() -> Vec<Content> {
        let (brand, link) = (&brand(), "https://cloud.example/account?token=got_abc&x=1");
        vec![
            sign_up(brand, link),
            sign_up_again(brand, link),
            invitation(brand, "Globex", Some("Ada"), "member", link),
            reset_password(brand, link),
            change_email(brand, link),
            email_changed(brand, "new@example.com", "2026-01-15 12:00 UTC"),
            password_changed(brand, "2026-01-15 12:00 UTC", Some("192.0.2.1")),
            new_device(brand, "Firefox on Linux", None, "2026-01-15 12:00 UTC"),
            code_by_mail(brand, "123456", 10),
            security_changed(brand, "A passkey was added.", "2026-01-15 12:00 UTC", None),
            erasure_begun(brand, "era_01h455vb4pex5vsknk084sn02q", "2026-01-15 12:00 UTC"),
            factors_to_be_reset(brand, "Globex", "His telephone was stolen", "2026-01-16 12:00 UTC"),
            factors_reset(brand, "Globex", "2026-01-15 12:00 UTC"),
            license_ends(brand, "Globex", 1, "2026-01-15 12:00 UTC"),
            license_used(brand, "Globex", "child_organizations", 80, 8, 10),
        ]
    }

    #[test]
    fn every_letter_says_the_same_in_both_forms_with_the_brand_and_without_images() {
        for content in all() {
            let (subject, html) = (content.subject.unwrap(), content.html.unwrap());
            assert!(!subject.is_empty() && subject.chars().all(|each| !each.is_control()));
            assert!(content.text.contains("Acme <Cloud> & \"Co\""), "{}", content.text);
            assert!(html.contains("Acme &lt;Cloud&gt; &amp; &quot;Co&quot;") && !html.contains("<Cloud>"), "{html}");
            assert!(!html.contains("<img") && !html.contains("src=") && !html.contains("<script"), "{html}");
            // Everything that is said in HTML is said without it.
            let said = |text: &str| {
                text.split_whitespace().map(|word| word.trim_end_matches(':').to_owned()).collect::<Vec<_>>()
            };
            let bare = said(&content.text);
            let body = html.split_once("<body").unwrap().1;
            for piece in body.split('<').filter_map(|piece| Some(piece.split_once('>')?.1)) {
                let read =
                    piece.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
                for word in said(&read.replace("&amp;", "&")) {
                    assert!(bare.contains(&word), "{word:?} is only in the HTML of {subject}");
                }
            }
            assert!(content.text.contains("help@acme.example"));
            assert_eq!(content.reply_to.as_deref(), Some("help@acme.example"));
        }
    }

    #[test]
    fn links_and_codes_are_in_both_forms() {
        let link = "https://cloud.example/account?token=got_abc&x=1";
        let content = reset_password(&brand(), link);
        assert!(content.text.lines().any(|line| line == link), "{}", content.text);
        assert!(content.html.unwrap().contains("href=\"https://cloud.example/account?token=got_abc&amp;x=1\""));
        let content = code_by_mail(&brand(), "123456", 10);
        assert!(content.text.lines().any(|line| line.trim() == "123456") && content.html.unwrap().contains(">123456<"));
        let content = code_by_sms(&brand(), "123456", 10, "cloud.example");
        assert!(content.text.ends_with("\n@cloud.example #123456") && content.html.is_none());
    }

    #[test]
    fn what_others_wrote_is_text_in_one_line_and_leads_nowhere() {
        let evil = "Win\r\nBcc: all@example.com <a href='https://evil.example'>\u{202e}";
        let content = invitation(&brand(), evil, Some(evil), "owner", "https://cloud.example/");
        let subject = content.subject.unwrap();
        assert!(!subject.contains(['\r', '\n', '\u{202e}', '@']) && !subject.contains("https://"), "{subject}");
        assert!(
            !content.text.contains("https://evil") && !content.text.contains("all@example.com"),
            "{}",
            content.text
        );
        let html = content.html.unwrap();
        assert!(!html.contains("<a href='") && html.matches("<a ").count() == 1, "{html}");
    }
}
