//! How an operation refuses: an answer for each status, with the codes it can carry.
//!
//! Nobody lists them. Most follow from what the operation takes: a body, a key, parameters, of which
//! [`crate::parameters`] knows the codes. What only one operation refuses stands in its description, or in that of its
//! body, with the reason: "Refused as `wrong_state` when it has ended, as `not_found` when …".

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::tree::Tree;
use crate::error::{Code, PROBLEM_JSON};
use crate::parameters;

/// What every request can meet.
const ALWAYS: &[Code] = &[
    Code::InvalidParameter,
    Code::UnknownVersion,
    Code::UnknownHost,
    Code::TooManyRequests,
    Code::Internal,
    Code::Overloaded,
    Code::TimedOut,
    Code::Unavailable,
];

/// What a body can be.
const WITH_BODY: &[Code] =
    &[Code::MalformedJson, Code::NotUtf8, Code::BodyTooLarge, Code::UnsupportedMediaType, Code::InvalidField];

/// The answers and examples that operations refer to.
#[derive(Default)]
pub(super) struct Refusals {
    answers: IndexMap<String, Tree>,
    codes: BTreeSet<Code>,
}

impl Refusals {
    /// Says how the operation refuses.
    pub(super) fn show(&mut self, method: &str, operation: &mut Tree, schemas: &Tree) {
        let codes = codes(method, operation, schemas);
        let Some(answers) = operation.get_mut("responses") else { return };
        // What refuses whatever is not listed stays last.
        let rest = answers.remove("default");
        let mut by_status: IndexMap<u16, Vec<Code>> = IndexMap::new();
        for code in codes {
            by_status.entry(code.status().as_u16()).or_default().push(code);
        }
        by_status.sort_unstable_keys();
        for (status, codes) in by_status {
            let status = status.to_string();
            // An operation that words this answer itself knows best.
            if answers.get(&status).is_none() {
                answers.set(&status, json!({ "$ref": format!("#/components/responses/{}", name(&codes)) }));
                self.codes.extend(&codes);
                self.answers.entry(name(&codes)).or_insert_with(|| answer(&codes));
            }
        }
        if let Some(rest) = rest {
            answers.set("default", rest);
        }
    }

    /// Puts down what operations refer to.
    pub(super) fn finish(mut self, components: &mut Tree) {
        self.answers.sort_unstable_keys();
        components.set("responses", Tree::Object(self.answers));
        let examples = self.codes.into_iter().map(|code| (code.as_str().to_owned(), example(code)));
        components.set("examples", Tree::Object(examples.collect()));
    }
}

/// The codes that an operation can answer with.
fn codes(method: &str, operation: &Tree, schemas: &Tree) -> BTreeSet<Code> {
    let mut codes: BTreeSet<Code> = ALWAYS.iter().copied().collect();
    if operation.get("security").is_some() {
        // Whoever needs no permission has to be a person, which no key is. Another organization may not be his.
        codes.extend([
            Code::Unauthenticated,
            Code::Forbidden,
            Code::SourceNotAllowed,
            Code::LockedDown,
            Code::SecondFactorRequired,
            Code::NotFound,
            Code::QuotaExceeded,
        ]);
        if method != "get" {
            codes.insert(Code::CrossSiteRequest);
        }
    }
    for parameter in operation.get("parameters").map(Tree::items).unwrap_or_default() {
        let text = |name: &str| parameter.get(name).and_then(Tree::as_str).unwrap_or_default();
        codes.extend(parameters::refused_as(text("name")));
        let pattern = parameter.get("schema").and_then(|schema| schema.get("pattern")).and_then(Tree::as_str);
        if text("in") == "path" && pattern.is_some_and(is_id) {
            codes.insert(Code::NotFound);
        }
    }
    if let Some(body) = operation.get("requestBody") {
        codes.extend(WITH_BODY);
        let of_schema = super::json_schema(body).and_then(|schema| super::resolve(schema, schemas).get("description"));
        codes.extend(of_schema.and_then(Tree::as_str).into_iter().flat_map(told));
    }
    codes.extend(operation.get("description").and_then(Tree::as_str).into_iter().flat_map(told));
    codes
}

/// Ids are the only parameters whose pattern ends so.
fn is_id(pattern: &str) -> bool {
    pattern.ends_with("_[0-7][0-9a-hjkmnp-tv-z]{25}$")
}

/// The codes that a description tells of.
fn told(description: &str) -> impl Iterator<Item = Code> {
    told_words(description).filter_map(|word| word.parse().ok())
}

/// The words in the place of codes: "Refused as `one` when …, as `other` when …", up to the end of the paragraph.
fn told_words(description: &str) -> impl Iterator<Item = &str> {
    let paragraphs = description.split("\n\n").filter(|paragraph| paragraph.starts_with("Refused "));
    paragraphs.flat_map(|paragraph| {
        let words = paragraph.split_whitespace();
        let after_as = words.clone().zip(words.skip(1)).filter(|(word, _)| *word == "as").map(|(_, next)| next);
        after_as.filter_map(|word| word.strip_prefix('`')?.split('`').next())
    })
}

/// Generators name a type after it.
fn name(codes: &[Code]) -> String {
    codes.iter().map(|code| format!("{code:?}")).collect::<Vec<_>>().join("Or")
}

fn answer(codes: &[Code]) -> Tree {
    let told: Vec<String> = codes.iter().map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
    let examples: IndexMap<String, Tree> = codes
        .iter()
        .map(|code| {
            (code.as_str().to_owned(), json!({ "$ref": format!("#/components/examples/{}", code.as_str()) }).into())
        })
        .collect();
    let mut content = Tree::from(json!({ "schema": { "$ref": "#/components/schemas/Problem" } }));
    content.set("examples", Tree::Object(examples));
    let mut answer = Tree::from(json!({ "description": told.join(" ") }));
    answer.set("content", Tree::Object(IndexMap::from([(PROBLEM_JSON.to_owned(), content)])));
    let header = |description: &str, kind: &str| json!({ "description": description, "schema": { "type": kind } });
    let mut headers = IndexMap::new();
    if codes.iter().any(|code| code.passes()) {
        headers.insert("Retry-After".to_owned(), header("When to send it again, in seconds.", "integer").into());
    }
    if codes.contains(&Code::Unauthenticated) {
        headers.insert("WWW-Authenticate".to_owned(), header("How to authenticate: `Bearer`.", "string").into());
    }
    if !headers.is_empty() {
        answer.set("headers", Tree::Object(headers));
    }
    answer
}

fn example(code: Code) -> Tree {
    let of_body = code.status().as_u16() == 422;
    let field = match code {
        Code::InvalidParameter => Some("limit"),
        Code::CursorExpired => Some("cursor"),
        Code::Unauthenticated => Some("Authorization"),
        _ if of_body => Some("name"),
        _ => None,
    };
    let mut value = Tree::from(json!({ "type": format!("urn:gantry:problem:{}", code.as_str()) }));
    value.set("title", Value::from(code.title()));
    value.set("status", Value::from(code.status().as_u16()));
    value.set("detail", Value::from(code.remedy()));
    value.set("code", Value::from(code.as_str()));
    value.set("instance", Value::from("/jobs"));
    value.set("request_id", Value::from("req_019bc0f45a3b7cc1a4f2d1f0c0ffee00"));
    if let Some(field) = field {
        value.set("field", Value::from(field));
    }
    let mut example = Tree::from(json!({ "summary": code.title() }));
    example.set("value", value);
    example
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_operation_refuses_is_read_from_its_description() {
        let words = |text| told_words(text).collect::<Vec<_>>();
        let text = "Does it.\n\nRefused as `wrong_state` when its `state` is `succeeded`, and as\n`not_found`, when …\n\n\
                    Needs the permission `jobs:write`.";
        assert_eq!(words(text), ["wrong_state", "not_found"]);
        assert_eq!(words("Sends it as `application/json`."), [""; 0]);
    }

    #[test]
    fn every_word_in_the_place_of_a_code_is_one() {
        let derived: Tree = serde_json::from_str(&crate::service().spec()).unwrap();
        let mut texts = Vec::new();
        descriptions(&derived, &mut texts);
        let words: Vec<&str> = texts.into_iter().flat_map(told_words).collect();
        for word in &words {
            assert!(word.parse::<Code>().is_ok(), "{word} is no code");
        }
        assert!(words.contains(&"wrong_state"), "nothing is told");
    }

    fn descriptions<'a>(tree: &'a Tree, texts: &mut Vec<&'a str>) {
        match tree {
            Tree::Object(members) => {
                texts.extend(members.get("description").and_then(Tree::as_str));
                members.values().for_each(|member| descriptions(member, texts));
            }
            Tree::List(items) => items.iter().for_each(|item| descriptions(item, texts)),
            Tree::Leaf(_) => {}
        }
    }
}
