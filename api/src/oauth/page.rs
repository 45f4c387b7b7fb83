//! The pages that people see: they sign in, and are asked. They load nothing from anywhere and run no script but the one for
//! passkeys, nobody may show them in a frame, and their forms lead here and to the application, nowhere else.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::OrganizationId;
use gantry_schema::digest::sha256_alone;
use gantry_schema::oauth::clients::Client;
use gantry_schema::oauth::redirect;
use gantry_schema::oauth::scope::Scopes;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse as _, Response};

use crate::factors::codes::hinted;
use crate::sessions::sign_in::Pending;

const STYLE: &str = "\
:root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}\
body{max-width:30rem;margin:10vh auto;padding:0 1rem}\
h1{font-size:1.4rem;line-height:1.2}\
label,button,input,select{font:inherit;display:block}\
label{margin-top:1rem}\
input,select{width:100%;box-sizing:border-box;padding:.5rem;margin-top:.25rem}\
button{margin:1.5rem .75rem 0 0;padding:.5rem 1.25rem;display:inline-block;cursor:pointer}\
[role=alert]{border-left:.25rem solid #c22;padding-left:.75rem}\
small{opacity:.8}";

static STYLE_SOURCE: LazyLock<String> = LazyLock::new(|| source(STYLE));

/// Offers a passkey, which only a script can ask for.
const PASSKEY: &str = include_str!("passkey.js");

static PASSKEY_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!(" script-src {}; connect-src 'self';", source(PASSKEY)));

/// This text and no other, as a policy names it.
fn source(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(sha256_alone(text.as_bytes())))
}

/// A page. Its forms lead here, and to `also`.
pub(crate) fn page(status: StatusCode, title: &str, body: &str, also: &str) -> Response {
    with_scripts(status, title, body, also, "")
}

/// A page that runs only what `scripts` names.
fn with_scripts(status: StatusCode, title: &str, body: &str, also: &str, scripts: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><main>\
         <h1>{title}</h1>{body}</main></body></html>",
        title = escaped(title)
    );
    let policy = format!(
        "default-src 'none'; style-src {};{scripts} form-action 'self'{also}; base-uri 'none'; frame-ancestors 'none'",
        &*STYLE_SOURCE
    );
    let mut response = html.with_content_type("text/html; charset=utf-8").with_status(status).into_response();
    // Sources are origins and schemes that were checked when they were registered.
    let policy = HeaderValue::from_str(&policy).ok().map(|policy| (header::CONTENT_SECURITY_POLICY, policy));
    response.headers_mut().extend(policy);
    response
}

/// Whatever people or applications write is text here.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Directions that would make a name read otherwise than it is written.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {}
            other => safe.push(other),
        }
    }
    safe
}

/// Says something, and offers nothing.
pub(crate) fn told(status: StatusCode, title: &str, text: &str) -> Response {
    page(status, title, &format!("<p>{}</p>", escaped(text)), "")
}

/// Where else a form may lead: its answer sends the browser on to the application.
pub(super) fn leads_to(redirect_uri: Option<&str>) -> String {
    redirect_uri.map(|uri| format!(" {}", redirect::source(uri))).unwrap_or_default()
}

/// Asks who it is. `to` is where to go on, here.
pub(super) fn sign_in(status: StatusCode, to: &str, alert: Option<&str>, also: &str) -> Response {
    let body = format!(
        "{alert}<form method=\"post\" action=\"/oauth/sign-in\"><input type=\"hidden\" name=\"to\" value=\"{to}\">\
         <label>E-mail address<input type=\"email\" name=\"email\" autocomplete=\"username\" required autofocus></label>\
         <label>Password<input type=\"password\" name=\"password\" autocomplete=\"current-password\" required></label>\
         <button>Sign in</button>{passkey}</form>{script}",
        alert = alerting(alert),
        to = escaped(to),
        passkey = passkey(None),
        script = script(),
    );
    with_scripts(status, "Sign in", &body, also, &PASSKEY_SOURCE)
}

/// Asks for the second factor of somebody who knew his password.
pub(super) fn second_step(
    status: StatusCode,
    to: &str,
    pending: &Pending,
    alert: Option<&str>,
    also: &str,
) -> Response {
    let mut body = format!(
        "{alert}<p>Write the code that your device shows now, one that you were sent, or one of your recovery codes.</p>\
         <form method=\"post\" action=\"/oauth/sign-in\"><input type=\"hidden\" name=\"to\" value=\"{to}\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\"><label>Code<input name=\"code\" \
         autocomplete=\"one-time-code\" autocapitalize=\"characters\" spellcheck=\"false\" required autofocus></label>\
         <button>Sign in</button>",
        alert = alerting(alert),
        to = escaped(to),
        token = escaped(pending.token.expose()),
    );
    for factor in &pending.factors {
        let Some(address) = &factor.address else { continue };
        let _written = write!(
            body,
            "<button name=\"send\" value=\"{}\" formnovalidate>Send a code to {}</button>",
            factor.id,
            escaped(&hinted(address))
        );
    }
    let Some(challenge) = &pending.passkey else {
        body.push_str("</form>");
        return page(status, "One more step", &body, also);
    };
    let _written = write!(body, "{}</form>{}", passkey(Some(&challenge.public_key.to_string())), script());
    with_scripts(status, "One more step", &body, also, &PASSKEY_SOURCE)
}

fn alerting(alert: Option<&str>) -> String {
    alert.map(|text| format!("<p role=\"alert\">{}</p>", escaped(text))).unwrap_or_default()
}

/// The button that the script shows where the browser has passkeys, with what one is to sign, if that is known already.
fn passkey(options: Option<&str>) -> String {
    format!(
        "<input type=\"hidden\" name=\"credential\"><button type=\"button\" id=\"passkey\" data-options=\"{}\" hidden>\
         Use a passkey</button><p id=\"told\" role=\"status\"></p>",
        escaped(options.unwrap_or_default())
    )
}

fn script() -> String {
    format!("<script>{PASSKEY}</script>")
}

/// Asks for the code that a device shows.
pub(super) fn user_code(status: StatusCode, csrf_token: &str, code: &str, alert: Option<&str>) -> Response {
    let alert = alerting(alert);
    let body = format!(
        "{alert}<p>Type the code that your device shows.</p><form method=\"post\" action=\"/oauth/device\">\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{csrf}\"><label>Code<input name=\"user_code\" value=\"{code}\" \
         autocomplete=\"off\" autocapitalize=\"characters\" spellcheck=\"false\" required autofocus></label>\
         <button>Go on</button></form>",
        csrf = escaped(csrf_token),
        code = escaped(code)
    );
    page(status, "Connect a device", &body, "")
}

/// What a person is asked.
pub(super) struct Question<'a> {
    pub(super) client: &'a Client,
    /// What the organization that registered it is called.
    pub(super) registered_by: &'a str,
    pub(super) scopes: &'a Scopes,
    /// As whom he is signed in.
    pub(super) email: &'a str,
    /// Where he can let it act, with the one he acts for first.
    pub(super) choices: &'a [(OrganizationId, String)],
    /// Where the form goes, and what it carries.
    pub(super) action: &'a str,
    pub(super) carries: &'a [(&'a str, &'a str)],
    /// Where he is sent back to; `None`: to his device.
    pub(super) redirect_uri: Option<&'a str>,
}

/// Asks whether an application may act for somebody, with what it wants in words.
pub(super) fn consent(question: &Question<'_>) -> Response {
    let client = question.client;
    let mut body = format!(
        "<p><strong>{}</strong>, registered by {}, asks to do this for you:</p><ul>",
        escaped(&client.name),
        escaped(question.registered_by)
    );
    for scope in question.scopes.iter() {
        let (word, sentence) = (escaped(scope.as_str()), escaped(scope.describe()));
        let _written = write!(body, "<li>{sentence} <small>({word})</small></li>");
    }
    body.push_str("</ul>");
    if !client.description.is_empty() {
        let _written = write!(body, "<p>It says of itself: {}</p>", escaped(&client.description));
    }
    if let Some(homepage) = &client.homepage {
        let homepage = escaped(homepage);
        let _written = write!(body, "<p><a href=\"{homepage}\" rel=\"noopener noreferrer\">{homepage}</a></p>");
    }
    let _written = write!(body, "<form method=\"post\" action=\"{}\">", escaped(question.action));
    for (name, value) in question.carries {
        let _written = write!(body, "<input type=\"hidden\" name=\"{}\" value=\"{}\">", escaped(name), escaped(value));
    }
    body.push_str("<label>In this organization, as far as your role goes<select name=\"organization_id\">");
    for (id, name) in question.choices {
        let _written = write!(body, "<option value=\"{id}\">{}</option>", escaped(name));
    }
    body.push_str(
        "</select></label><button name=\"decision\" value=\"allow\">Allow</button>\
         <button name=\"decision\" value=\"deny\">Refuse</button></form>",
    );
    let then = match question.redirect_uri {
        Some(uri) => {
            let shown = redirect::source(uri);
            format!("You are sent back to {}.", escaped(&shown))
        }
        None => "Go on only if you began this on a device of your own, and it shows this code.".to_owned(),
    };
    let _written = write!(
        body,
        "<p><small>{then} You are signed in as {}. You can take back what you allow at any time.</small></p>",
        escaped(question.email)
    );
    page(StatusCode::OK, &format!("Let {} act for you?", client.name), &body, &leads_to(question.redirect_uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_text() {
        assert_eq!(escaped("<b a=\"x\" b='y'>&amp;"), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
        assert_eq!(escaped("\u{202e}evil\u{202c}"), "evil");
    }

    #[test]
    fn where_a_passkey_is_offered_its_script_runs_and_nothing_else() {
        let response = sign_in(StatusCode::OK, "/oauth/device", None, "");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains(&format!("script-src {};", source(PASSKEY))) && !policy.contains("unsafe"), "{policy}");
        assert!(!PASSKEY.contains("</") && !PASSKEY.contains("innerHTML"));
    }

    #[test]
    fn a_page_runs_nothing_and_is_shown_in_no_frame() {
        let response = told(StatusCode::BAD_REQUEST, "No", "<script>alert(1)</script>");
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(leads_to(Some("https://a.example/callback")), " https://a.example");
    }
}
