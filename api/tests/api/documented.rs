//! Every answer of every test is held against the document: its status, its code, its headers and its shape.

use std::sync::LazyLock;

use poem::http::Method;
use serde_json::Value;

use crate::document::{document, operations};
use crate::schema::{faults, resolve};
use crate::support::Answer;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// The operation a request is for.
pub fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let given = parts(path);
    let fits = |documented: &str| {
        let documented = parts(documented);
        documented.len() == given.len()
            && documented
                .iter()
                .zip(&given)
                .all(|(part, given)| part == given || (part.starts_with('{') && !given.is_empty()))
    };
    let fitting = operations(&DOCUMENT)
        .into_iter()
        .filter(|(path, of, _)| of.eq_ignore_ascii_case(method.as_str()) && fits(path));
    fitting.min_by_key(|(path, ..)| path.matches('{').count()).map(|(.., operation)| operation)
}

/// Panics when the document does not say that the operation answers so.
#[track_caller]
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let Some(operation) = operation(method, path) else { return };
    let (id, status) = (&operation["operationId"], answer.status.as_u16());
    let documented = &operation["responses"][status.to_string()];
    assert!(documented.is_object(), "{id} answers {status}, which is not documented: {}", answer.text);
    let documented = resolve(&DOCUMENT, documented);
    for (name, header) in documented["headers"].as_object().into_iter().flatten() {
        let required = header["required"] == true;
        assert!(!required || !answer.header(name).is_empty(), "{id} answers {status} without {name}");
    }
    let Some(content) = documented["content"].as_object() else {
        assert_eq!(answer.text, "", "{id} answers {status} with a body, which is not documented");
        return;
    };
    let media_type = answer.header("Content-Type").split(';').next().unwrap_or_default();
    let content = content.get(media_type).unwrap_or_else(|| panic!("{id} answers {status} as {media_type:?}"));
    if media_type == "text/event-stream" {
        for line in answer.text.lines().filter_map(|line| line.strip_prefix("data:")) {
            let news = serde_json::from_str(line).expect(line);
            assert_eq!(faults(&DOCUMENT, &content["schema"]["items"], &news), Vec::<String>::new(), "{id}: {line}");
        }
        return;
    }
    if ["text/csv", "application/x-ndjson"].contains(&media_type) {
        return;
    }
    let body: Value = serde_json::from_str(&answer.text).expect(&answer.text);
    assert_eq!(faults(&DOCUMENT, &content["schema"], &body), Vec::<String>::new(), "{id} answers {status}: {body}");
    if let Some(codes) = content["examples"].as_object() {
        let code = body["code"].as_str().unwrap_or_default();
        assert!(codes.contains_key(code), "{id} refuses as {code}, which is not documented: {body}");
    }
}
