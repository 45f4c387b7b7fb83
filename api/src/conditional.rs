//! Changes on condition that nobody else has changed it: `ETag`, `If-Match` and `If-None-Match` (RFC 9110).
//!
//! - `GET` of one thing takes `if_none_match: IfNoneMatch`, answers `Result<Tagged<Thing>, Error>` and ends with
//!   `Ok(if_none_match.answer(thing))`: 200 with an `ETag`, or 304.
//! - A change takes `if_match: IfMatch`, loads the thing in its transaction, and calls `if_match.check(&thing)?`
//!   before it changes anything (412 when it is another by now). Where it overwrites a whole thing, it calls
//!   `if_match.demand(&thing)?`, which refuses a change without a condition too (428).
//! - It answers [`Tagged::of`] the changed thing, so that the next change has its condition.
//! - A `PUT` that makes what is not there yet takes its turn ([`gantry_schema::turn`]), for there is nothing to lock, and
//!   answers [`IfMatch::put`] of the thing before and after; what removes it calls [`IfMatch::check_if_there`].
//!
//! The tag is a digest of the representation: a change that is sent again because its answer was lost finds the tag
//! it would have made, and [`IfMatch`] allows what comes out as it is already.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_schema::digest::sha256;
use poem::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaHeader, MetaParamIn, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::{ToHeader, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions};

use crate::error::{Code, Error};
use crate::field::{Wrong, text_type};

/// The tag of what something looks like: other tag, other look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// The tag of a representation.
    #[must_use]
    pub fn of(thing: &impl ToJSON) -> Self {
        let digest = sha256(&[thing.to_json_string().as_bytes()]);
        // 128 bits are enough to tell the looks of one thing apart.
        let (half, _) = digest.split_at(16);
        Self(format!("\"{}\"", URL_SAFE_NO_PAD.encode(half)))
    }
}

impl FromStr for Etag {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let opaque = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match opaque {
            Some(opaque) if opaque.len() <= 100 && !opaque.contains('"') => Ok(Self(text.to_owned())),
            _ => Err(Wrong("this is no entity tag; send the ETag of the last answer as it is, quotes included".into())),
        }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToHeader for Etag {
    fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

text_type!(Etag, "etag", |schema| {
    schema.example = Some("\"bXkgZmlyc3QgZXRhZyE\"".into());
});

/// Tags, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Any,
    Of(Vec<Etag>),
}

/// Tags that one header may list.
const MAX_TAGS: usize = 20;

impl Condition {
    /// Reads a header. Weak tags are taken for strong ones where `weak` says so: caches on the way make them weak.
    fn of(headers: &HeaderMap, name: &HeaderName, shown: &'static str, weak: bool) -> Result<Option<Self>, Error> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            let text = value.to_str().unwrap_or_default();
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                let strong = tag.strip_prefix("W/");
                if strong.is_some() && !weak {
                    return Err(Error::parameter(
                        shown,
                        "a weak tag is no condition for a change; send the ETag as it is",
                    ));
                }
                let tag: Etag =
                    strong.unwrap_or(tag).parse().map_err(|wrong: Wrong| Error::parameter(shown, wrong.0))?;
                if tags.len() == MAX_TAGS {
                    return Err(Error::parameter(shown, format!("at most {MAX_TAGS} tags are compared; send fewer")));
                }
                tags.push(tag);
            }
        }
        Ok((!tags.is_empty()).then_some(Self::Of(tags)))
    }

    fn holds(&self, etag: &Etag) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.contains(etag),
        }
    }
}

/// On which condition something is changed: the header `If-Match`.
#[derive(Debug)]
pub struct IfMatch(Option<Condition>);

impl IfMatch {
    /// Lets the change through when the thing still looks as its caller last saw it, or when it set no condition.
    ///
    /// # Errors
    /// 412 when it looks otherwise.
    pub fn check(&self, current: &impl ToJSON) -> Result<(), Error> {
        self.check_tag(&Etag::of(current))
    }

    /// As [`Self::check`], of a thing whose tag does not say everything about it.
    ///
    /// # Errors
    /// 412 when its tag is another.
    pub fn check_tag(&self, current: &Etag) -> Result<(), Error> {
        match &self.0 {
            Some(condition) if !condition.holds(current) => Err(Error::new(
                Code::PreconditionFailed,
                "it was changed since the answer with this ETag; get it again, and decide anew",
            )
            .at("If-Match")),
            _ => Ok(()),
        }
    }

    /// As [`Self::check`], for a change that overwrites a whole thing: it needs a condition. What would come out as it
    /// is already is let through, for it is the same change sent again.
    ///
    /// # Errors
    /// 412 when it looks otherwise, 428 when there is no condition.
    pub fn demand<T: ToJSON>(&self, current: &T, after: &T) -> Result<(), Error> {
        if self.0.is_none() {
            return Err(Error::new(
                Code::PreconditionRequired,
                "this overwrites everything about it; send If-Match with the ETag it was last answered with, or * to \
                 overwrite whatever is there",
            )
            .at("If-Match"));
        }
        if Etag::of(current) == Etag::of(after) { Ok(()) } else { self.check(current) }
    }

    /// As [`Self::check`], of what may not be there: then a condition does not hold.
    ///
    /// # Errors
    /// 412 when it looks otherwise, or is gone.
    pub fn check_if_there(&self, current: Option<&impl ToJSON>) -> Result<(), Error> {
        match current {
            Some(current) => self.check(current),
            None if self.0.is_none() => Ok(()),
            None => Err(Error::new(
                Code::PreconditionFailed,
                "there is nothing that the condition could hold of; leave If-Match out",
            )
            .at("If-Match")),
        }
    }

    /// What a `PUT` answers: making a thing needs no condition, and overwriting one [demands](Self::demand) it, unless
    /// it looks so already.
    ///
    /// # Errors
    /// 412 when it looks otherwise, or is gone; 428 when there is no condition.
    pub fn put<T: ToJSON>(&self, current: Option<&T>, after: T) -> Result<Put<T>, Error> {
        let etag = Etag::of(&after);
        match current {
            None => {
                self.check_if_there(None::<&T>)?;
                return Ok(Put::Made(after, etag));
            }
            Some(current) if Etag::of(current) == etag => {}
            Some(current) => self.demand(current, &after)?,
        }
        Ok(Put::There(after, etag))
    }
}

/// What the caller has already: the header `If-None-Match`.
#[derive(Debug)]
pub struct IfNoneMatch(Option<Condition>);

impl IfNoneMatch {
    /// The thing with its tag, or 304 when the caller has it.
    #[must_use]
    pub fn answer<T: ToJSON>(&self, thing: T) -> Tagged<T> {
        let etag = Etag::of(&thing);
        self.answer_as(thing, etag)
    }

    /// As [`Self::answer`], of a thing whose tag does not say everything about it.
    #[must_use]
    pub fn answer_as<T: ToJSON>(&self, thing: T, etag: Etag) -> Tagged<T> {
        match &self.0 {
            Some(condition) if condition.holds(&etag) => Tagged::Unchanged(etag),
            _ => Tagged::Thing(thing, etag),
        }
    }
}

macro_rules! condition_header {
    ($name:ident, $header:expr, $shown:literal, $weak:literal) => {
        impl<'a> ApiExtractor<'a> for $name {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

            type ParamType = ();
            type ParamRawType = ();

            fn param_in() -> Option<MetaParamIn> {
                Some(MetaParamIn::Header)
            }

            fn param_schema_ref() -> Option<MetaSchemaRef> {
                Some(Etag::schema_ref())
            }

            async fn from_request(
                request: &'a Request,
                _: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> poem::Result<Self> {
                Ok(Self(Condition::of(request.headers(), &$header, $shown, $weak)?))
            }
        }
    };
}

condition_header!(IfMatch, header::IF_MATCH, "If-Match", false);
condition_header!(IfNoneMatch, header::IF_NONE_MATCH, "If-None-Match", true);

/// A thing with the tag of what it looks like; or nothing, when the caller has it already.
#[derive(Debug)]
pub enum Tagged<T> {
    /// What it looks like.
    Thing(T, Etag),
    /// As the caller has it.
    Unchanged(Etag),
}

impl<T: ToJSON> Tagged<T> {
    /// The thing with its tag.
    #[must_use]
    pub fn of(thing: T) -> Self {
        let etag = Etag::of(&thing);
        Self::Thing(thing, etag)
    }
}

impl<T: ToJSON> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let (mut response, etag) = match self {
            Self::Thing(thing, etag) => (Json(thing).into_response(), etag),
            Self::Unchanged(etag) => (StatusCode::NOT_MODIFIED.into_response(), etag),
        };
        response.headers_mut().extend(etag.to_header().map(|value| (header::ETAG, value)));
        // It may be kept, and is asked for again each time.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        response
    }
}

impl<T: ToJSON> ApiResponse for Tagged<T> {
    fn meta() -> MetaResponses {
        let mut meta = Json::<T>::meta();
        for response in &mut meta.responses {
            response.description = "What it looks like.";
            response.headers.push(etag_header());
        }
        meta.responses.push(MetaResponse {
            description: "It looks as the caller has it already: `If-None-Match` named its `ETag`.",
            status: Some(StatusCode::NOT_MODIFIED.as_u16()),
            status_range: None,
            content: Vec::new(),
            headers: vec![etag_header()],
        });
        meta
    }

    fn register(registry: &mut Registry) {
        Json::<T>::register(registry);
    }
}

/// A thing that was put where it is, with the tag of what it looks like.
#[derive(Debug)]
pub enum Put<T> {
    /// It was not there before.
    Made(T, Etag),
    /// It was there already, and looks like this now.
    There(T, Etag),
}

impl<T: ToJSON> IntoResponse for Put<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Made(thing, etag) => {
                let mut response = Tagged::Thing(thing, etag).into_response();
                response.set_status(StatusCode::CREATED);
                response
            }
            Self::There(thing, etag) => Tagged::Thing(thing, etag).into_response(),
        }
    }
}

impl<T: ToJSON> ApiResponse for Put<T> {
    fn meta() -> MetaResponses {
        let meta = |status: StatusCode, description| {
            Json::<T>::meta().responses.into_iter().map(move |response| MetaResponse {
                status: Some(status.as_u16()),
                description,
                headers: vec![etag_header()],
                ..response
            })
        };
        let there = meta(StatusCode::OK, "It was there, and looks like this now.");
        MetaResponses { responses: there.chain(meta(StatusCode::CREATED, "It was made.")).collect() }
    }

    fn register(registry: &mut Registry) {
        Json::<T>::register(registry);
    }
}

fn etag_header() -> MetaHeader {
    MetaHeader {
        name: "ETag".to_owned(),
        description: Some("The tag of what it looks like: for `If-Match`, and for `If-None-Match`.".to_owned()),
        required: true,
        deprecated: false,
        schema: Etag::schema_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str, weak: bool) -> Result<Option<Condition>, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_str(text).unwrap());
        Condition::of(&headers, &header::IF_MATCH, "If-Match", weak)
    }

    #[test]
    fn a_condition_is_tags_or_anything() {
        let tag = |text: &str| text.parse::<Etag>().unwrap();
        assert_eq!(condition("*", false).unwrap(), Some(Condition::Any));
        assert_eq!(condition("\"a\" , \"b\"", false).unwrap(), Some(Condition::Of(vec![tag("\"a\""), tag("\"b\"")])));
        assert_eq!(condition("W/\"a\"", true).unwrap(), Some(Condition::Of(vec![tag("\"a\"")])));
        for bad in ["a", "\"a", "W/\"a\"", "\"a\" \"b\"", ""] {
            assert!(condition(bad, false).is_err(), "{bad}");
        }
        assert!(condition(&["\"a\""; 21].join(","), false).is_err());
    }

    #[test]
    fn a_change_is_let_through_when_nobody_else_changed_it() {
        let (old, new, other) = ("old".to_owned(), "new".to_owned(), "other".to_owned());
        let saw = |thing: &String| IfMatch(Some(Condition::Of(vec![Etag::of(thing)])));
        let code = |result: Result<(), Error>| result.unwrap_err().code();
        assert!(saw(&old).check(&old).is_ok() && IfMatch(None).check(&old).is_ok());
        assert_eq!(code(saw(&old).check(&other)), Code::PreconditionFailed);
        assert_eq!(code(IfMatch(None).demand(&old, &new)), Code::PreconditionRequired);
        assert_eq!(code(saw(&old).demand(&other, &new)), Code::PreconditionFailed);
        // The answer was lost: what is there is what the change would make.
        assert!(saw(&old).demand(&new, &new).is_ok() && IfMatch(Some(Condition::Any)).demand(&other, &new).is_ok());
    }

    #[test]
    fn what_is_not_there_is_made_without_a_condition_and_not_overwritten_without_one() {
        let (old, new) = ("old".to_owned(), "new".to_owned());
        let saw = |thing: &String| IfMatch(Some(Condition::Of(vec![Etag::of(thing)])));
        let code = |result: Result<Put<String>, Error>| result.unwrap_err().code();
        assert!(matches!(IfMatch(None).put(None, new.clone()), Ok(Put::Made(..))));
        assert!(matches!(IfMatch(None).put(Some(&new), new.clone()), Ok(Put::There(..))));
        assert_eq!(code(IfMatch(None).put(Some(&old), new.clone())), Code::PreconditionRequired);
        assert!(matches!(saw(&old).put(Some(&old), new.clone()), Ok(Put::There(..))));
        assert_eq!(code(saw(&old).put(None, new.clone())), Code::PreconditionFailed);
        assert_eq!(code(IfMatch(Some(Condition::Any)).put(None, new.clone())), Code::PreconditionFailed);
        assert!(IfMatch(None).check_if_there(None::<&String>).is_ok());
        assert!(saw(&old).check_if_there(Some(&new)).is_err() && saw(&old).check_if_there(Some(&old)).is_ok());
    }

    #[test]
    fn what_the_caller_has_is_not_sent_again() {
        let thing = || "thing".to_owned();
        let has = |thing: &String| IfNoneMatch(Some(Condition::Of(vec![Etag::of(thing)])));
        assert!(matches!(has(&thing()).answer(thing()), Tagged::Unchanged(_)));
        assert!(matches!(has(&"other".to_owned()).answer(thing()), Tagged::Thing(..)));
        assert!(matches!(IfNoneMatch(None).answer(thing()), Tagged::Thing(..)));
    }
}
