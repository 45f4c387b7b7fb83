//! The page that shows bins. It loads nothing from anywhere, and runs no script but its own.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_schema::digest::sha256_alone;
use poem::http::{HeaderValue, header};
use poem::{IntoResponse as _, Response};

const PAGE: &str = include_str!("page.html");

/// Only the script and the style that are written in the page.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let digest = |beginning: &str, end: &str| {
        let text = PAGE.split_once(beginning)?.1.split_once(end)?.0;
        Some(STANDARD.encode(sha256_alone(text.as_bytes())))
    };
    let (script, style) = (digest("<script>", "</script>")?, digest("<style>", "</style>")?);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).ok()
});

/// The page.
pub(crate) fn page() -> Response {
    let mut response = PAGE.with_content_type("text/html; charset=utf-8").into_response();
    response.headers_mut().extend(POLICY.clone().map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_runs_its_own_script_and_nothing_else() {
        let policy = POLICY.as_ref().unwrap().to_str().unwrap();
        assert!(policy.contains("script-src 'sha256-") && !policy.contains("unsafe"));
        for outside in ["src=", "href=", "@import", "url(", "innerHTML", " onclick", " style="] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
