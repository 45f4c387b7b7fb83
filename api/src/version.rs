//! Dated versions of the API, and how something in it comes to an end.
//!
//! A caller names the version it was written for in the header `Gantry-Version`, and gets answers of that version; one
//! that names none gets the newest. Additions are no new version: a caller ignores members it does not know. What is to
//! go away is marked in one place, [`VERSIONS`] or [`DEPRECATED`]: from then on its answers carry `Deprecation`
//! (RFC 9745), `Sunset` (RFC 8594) and a `Link` to what to do instead, and the document says `deprecated`.

use chrono::DateTime;
use poem::http::{HeaderMap, HeaderName, HeaderValue, header};
use poem_openapi::registry::{MetaApi, MetaHeader};
use poem_openapi::types::Type as _;

use crate::error::{Code, Error};

/// The header that names a version.
pub const GANTRY_VERSION: &str = "Gantry-Version";

static VERSION: HeaderName = HeaderName::from_static("gantry-version");
static DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
static SUNSET: HeaderName = HeaderName::from_static("sunset");

/// How something comes to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deprecation {
    /// Since when it should not be used, in seconds since 1970.
    pub since: i64,
    /// When it stops working.
    pub sunset: Option<i64>,
    /// Where it says what to do instead.
    pub link: &'static str,
}

/// A version of the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    /// The day it was released.
    pub date: &'static str,
    /// It comes to an end.
    pub deprecated: Option<Deprecation>,
}

/// Every version there is, newest first.
const VERSIONS: &[Version] = &[Version { date: "2026-11-24", deprecated: None }];

/// Operations that come to an end, by their `operationId`.
const DEPRECATED: &[(&str, Deprecation)] = &[];

/// The version a request asks for.
///
/// # Errors
/// When there is none such.
pub(crate) fn asked_for(headers: &HeaderMap) -> Result<Version, Error> {
    choose(VERSIONS, headers)
}

fn choose(versions: &[Version], headers: &HeaderMap) -> Result<Version, Error> {
    let asked = headers.get(&VERSION);
    let fits = |version: &&Version| asked.is_none_or(|asked| asked.as_bytes() == version.date.as_bytes());
    versions.iter().find(fits).copied().ok_or_else(|| {
        let dates: Vec<&str> = versions.iter().map(|version| version.date).collect();
        let detail = format!("there is no such version; write one of {}, or leave it out", dates.join(", "));
        Error::new(Code::UnknownVersion, detail).at(GANTRY_VERSION)
    })
}

/// Says in an answer of which version it is, and what of it comes to an end.
pub(crate) fn decorate(headers: &mut HeaderMap, version: Version, operation: &str) {
    headers.insert(VERSION.clone(), HeaderValue::from_static(version.date));
    // An operation that ends says more than a version that does.
    if let Some(deprecation) = ending(DEPRECATED, operation).or(version.deprecated) {
        deprecation.decorate(headers);
    }
}

fn ending(deprecated: &[(&str, Deprecation)], operation: &str) -> Option<Deprecation> {
    deprecated.iter().find(|(id, _)| *id == operation).map(|(_, deprecation)| *deprecation)
}

impl Deprecation {
    fn decorate(self, headers: &mut HeaderMap) {
        let mut say = |name: &HeaderName, value: String| {
            // Made of digits and of addresses in this file.
            headers.extend(HeaderValue::from_str(&value).ok().map(|value| (name.clone(), value)));
        };
        say(&DEPRECATION, format!("@{}", self.since));
        say(&header::LINK, format!("<{}>; rel=\"deprecation\"; type=\"text/html\"", self.link));
        if let Some(at) = self.sunset.and_then(|sunset| DateTime::from_timestamp(sunset, 0)) {
            say(&SUNSET, at.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        }
    }
}

/// Marks in the document what comes to an end.
pub(crate) fn mark(document: &mut [MetaApi]) {
    mark_all(document, DEPRECATED);
}

fn mark_all(document: &mut [MetaApi], deprecated: &[(&str, Deprecation)]) {
    for operation in document.iter_mut().flat_map(|api| &mut api.paths).flat_map(|path| &mut path.operations) {
        let Some(deprecation) = operation.operation_id.and_then(|id| ending(deprecated, id)) else { continue };
        operation.deprecated = true;
        let sunset = deprecation.sunset.map(|_| ("Sunset", "When it stops working (RFC 8594)."));
        let said = [
            ("Deprecation", "Since when it should not be used (RFC 9745)."),
            ("Link", "With `rel=\"deprecation\"`: what to do instead."),
        ];
        for (name, description) in said.into_iter().chain(sunset) {
            for response in &mut operation.responses.responses {
                if !response.headers.iter().any(|header| header.name == name) {
                    response.headers.push(MetaHeader {
                        name: name.to_owned(),
                        description: Some(description.to_owned()),
                        required: true,
                        deprecated: false,
                        schema: String::schema_ref(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::OpenApi as _;

    use super::*;

    const GOING: Deprecation =
        Deprecation { since: 1_688_169_599, sunset: Some(1_719_791_999), link: "https://example.com/migrate" };
    const OLD: Version = Version { date: "2025-01-01", deprecated: Some(GOING) };
    const NEW: Version = Version { date: "2026-11-24", deprecated: None };

    fn asking(version: &'static str) -> HeaderMap {
        std::iter::once((VERSION.clone(), HeaderValue::from_static(version))).collect()
    }

    #[test]
    fn a_caller_gets_the_version_it_names_and_the_newest_when_it_names_none() {
        let chosen = |headers: &HeaderMap| choose(&[NEW, OLD], headers).map(|version| version.date);
        assert_eq!(chosen(&HeaderMap::new()).unwrap(), "2026-11-24");
        assert_eq!(chosen(&asking("2025-01-01")).unwrap(), "2025-01-01");
        let refused = chosen(&asking("2024-01-01")).unwrap_err();
        assert_eq!(refused.code(), Code::UnknownVersion);
        assert!(refused.to_string().contains("2026-11-24, 2025-01-01"), "{refused}");
    }

    #[test]
    fn what_comes_to_an_end_says_so_in_its_answers() {
        let mut headers = HeaderMap::new();
        decorate(&mut headers, OLD, "getJob");
        let header = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(header("gantry-version"), "2025-01-01");
        assert_eq!(header("deprecation"), "@1688169599");
        assert_eq!(header("sunset"), "Sun, 30 Jun 2024 23:59:59 GMT");
        assert_eq!(header("link"), "<https://example.com/migrate>; rel=\"deprecation\"; type=\"text/html\"");

        let mut headers = HeaderMap::new();
        decorate(&mut headers, NEW, "getJob");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn an_operation_that_ends_is_marked_in_the_document() {
        let mut document = crate::jobs::Jobs::meta();
        mark_all(&mut document, &[("getJob", GOING)]);
        let operations = document.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations);
        let marked: Vec<_> =
            operations.filter(|operation| operation.deprecated).map(|operation| operation.operation_id).collect();
        assert_eq!(marked, [Some("getJob")]);
        let ends = document.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations);
        let ends = ends.filter(|operation| operation.deprecated).flat_map(|operation| &operation.responses.responses);
        for answer in ends {
            let named: Vec<&str> = answer.headers.iter().map(|header| header.name.as_str()).collect();
            assert_eq!(named, ["Deprecation", "Link", "Sunset"]);
        }
        assert_eq!(
            (ending(&[("getJob", GOING)], "getJob"), ending(&[("getJob", GOING)], "listJobs")),
            (Some(GOING), None)
        );
    }

    #[test]
    fn what_is_marked_exists_and_versions_are_in_order() {
        let document = crate::parameters::Described::<crate::Features>::meta();
        let operations = || document.iter().flat_map(|api| &api.paths).flat_map(|path| &path.operations);
        for (id, _) in DEPRECATED {
            assert!(operations().any(|operation| operation.operation_id == Some(id)), "there is no operation {id}");
        }
        assert!(VERSIONS.is_sorted_by(|newer, older| newer.date > older.date));
    }
}
