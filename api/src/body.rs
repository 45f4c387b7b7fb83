//! Request bodies: JSON and nothing else, bounded, and read after the caller is known.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Code, Error};
use crate::load::BodyRoom;
use crate::once::BodyDigest;
use crate::strict;

/// What a body may have when the operation does not say otherwise.
pub const MIB: usize = 1024 * 1024;

/// A JSON body of at most `LIMIT` bytes.
#[derive(Debug)]
pub struct Body<T, const LIMIT: usize = MIB>(pub T);

impl<'a, T: Type + DeserializeOwned, const LIMIT: usize> ApiExtractor<'a> for Body<T, LIMIT> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(read(request, body, LIMIT).await?))
    }
}

async fn read<T: DeserializeOwned>(request: &Request, body: &mut RequestBody, limit: usize) -> Result<T, Error> {
    check_media_type(request)?;
    let too_large = || {
        Error::new(
            Code::BodyTooLarge,
            format!("the body may have at most {limit} bytes; send less at a time, or store large data elsewhere"),
        )
        .at("body")
    };
    let announced = request.header(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    if let Some(room) = request.data::<BodyRoom>() {
        // A body that does not say how long it is may be as long as any.
        room.take(announced.unwrap_or(limit))?;
    }
    let cut_off = || Error::new(Code::MalformedJson, "the body ended before it was complete; send it again");
    let bytes = body.take().map_err(|_| cut_off())?.into_bytes_limit(limit).await.map_err(|error| match error {
        poem::error::ReadBodyError::PayloadTooLarge => too_large(),
        _ => cut_off(),
    })?;
    if let Some(digest) = request.data::<BodyDigest>() {
        digest.of(&bytes);
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let at = error.valid_up_to();
        Error::new(Code::NotUtf8, format!("byte {at} of the body begins no UTF-8 character; encode the JSON as UTF-8"))
            .at("body")
    })?;
    strict::check(text)?;
    parse(text)
}

fn check_media_type(request: &Request) -> Result<(), Error> {
    let encoding = request.header("Content-Encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("identity"));
    if encoding.is_some() {
        let detail = "bodies are read as they are, not compressed; send the JSON itself, without Content-Encoding";
        return Err(Error::new(Code::UnsupportedMediaType, detail).at("Content-Encoding"));
    }
    let Some(media_type) = request.content_type() else {
        return Err(Error::new(Code::UnsupportedMediaType, "say Content-Type: application/json").at("Content-Type"));
    };
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let shown: String = media_type.chars().take(100).collect();
    Err(Error::new(
        Code::UnsupportedMediaType,
        format!("{shown:?} is not understood; say Content-Type: application/json"),
    )
    .at("Content-Type"))
}

/// Reads JSON, and names the field that is not as expected.
///
/// # Errors
/// When it is no JSON, or not of the wanted shape.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    // serde would take a list for the fields of an object, in their order.
    if text.trim_start().starts_with('[') {
        return Err(Error::field(
            "body",
            "expected an object, found a list; write {…}, /openapi.json says how it should look",
        ));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        match error.classify() {
            serde_json::error::Category::Data => {
                let (field, detail) = at_fault(path, &error);
                Error::field(field, detail)
            }
            _ => malformed(&error),
        }
    })?;
    json.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::new(Code::MalformedJson, format!("the body is not JSON: {error}; check quotes, commas and brackets"))
        .at("body")
}

/// The field, and the message without the place in the text. A field that is missing or unknown is not in the path.
fn at_fault(path: String, error: &serde_json::Error) -> (String, String) {
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|beginning| message.strip_prefix(beginning)?.split_once('`').map(|(name, _)| name.to_owned()));
    let field = match (path.as_str(), named) {
        ("." | "", None) => "body".to_owned(),
        ("." | "", Some(name)) => name,
        // An unknown field is the path's last part already.
        (path, Some(name)) if path.ends_with(&name) => path.to_owned(),
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    };
    let detail: String = in_words(message).chars().take(500).collect();
    let remedy = if detail.contains(';') { "" } else { "; /openapi.json says how the body should look" };
    (field, format!("{detail}{remedy}"))
}

/// serde speaks of Rust's types.
fn in_words(message: &str) -> String {
    let Some((found, expected)) = message.split_once("expected ") else { return message.to_owned() };
    match expected {
        "i16" | "i32" | "u8" | "u16" | "u32" => format!("{found}expected a whole number in range"),
        expected if expected.starts_with("struct ") => format!("{found}expected an object"),
        _ => message.to_owned(),
    }
}

/// Some of many things in a body, of which each is read later, so that what is wrong with it can be told apart
/// from the others. No more than `MAX` are kept, however many there are.
#[derive(Debug)]
pub struct Batch<T, const MAX: usize> {
    items: Vec<Box<RawValue>>,
    count: usize,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, const MAX: usize> Batch<T, MAX> {
    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Reads them one after the other.
    pub fn read(&self) -> impl Iterator<Item = Result<T, Error>> + '_ {
        self.items.iter().map(|item| parse(item.get()))
    }
}

impl<'de, T, const MAX: usize> Deserialize<'de> for Batch<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<fn() -> T>);

        impl<'de, T, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Batch<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MAX {
                    match list.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Batch { count: items.len(), items, of: PhantomData }),
                    }
                }
                let mut count = items.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Batch { items, count, of: PhantomData })
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// In the document, a plain list.
impl<T: Type, const MAX: usize> Type for Batch<T, MAX> {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        format!("list_{}", T::name()).into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let mut schema = MetaSchema::new("array");
        schema.items = Some(Box::new(T::schema_ref()));
        (schema.min_items, schema.max_items) = (Some(1), Some(MAX));
        MetaSchemaRef::Inline(Box::new(schema))
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

/// Bodies are read by serde; this is what poem-openapi wants of the field of an object.
impl<T: Type, const MAX: usize> ParseFromJSON for Batch<T, MAX> {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        serde_json::from_value(value.unwrap_or_default()).map_err(ParseError::custom)
    }
}

impl<T: Type, const MAX: usize> ToJSON for Batch<T, MAX> {
    fn to_json(&self) -> Option<Value> {
        serde_json::to_value(&self.items).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{AnyJson, Moment};

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Sample {
        kind: String,
        #[serde(default)]
        run_at: Option<Moment>,
        #[serde(default)]
        payload: Option<AnyJson>,
        #[serde(default)]
        after: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Inner {
        job: String,
    }

    fn refused(text: &str) -> (Code, String) {
        let error = parse::<Sample>(text).unwrap_err();
        let problem = error.problem("", "");
        (error.code(), problem.field.unwrap_or_default())
    }

    #[test]
    fn the_field_at_fault_is_named_wherever_it_is() {
        let cases = [
            (r"{}", "kind"),
            (r#"{"kind": 1}"#, "kind"),
            (r#"{"kind": "a", "kinds": "b"}"#, "kinds"),
            (r#"{"kind": "a", "kind": "b"}"#, "kind"),
            (r#"{"kind": "a", "run_at": "soon"}"#, "run_at"),
            (r#"{"kind": "a", "after": [{"job": "x"}, {}]}"#, "after[1].job"),
            (r#"{"kind": "a", "after": [{"job": "x", "jib": 1}]}"#, "after[0].jib"),
            (r"[]", "body"),
            (r"7", "body"),
        ];
        for (text, field) in cases {
            assert_eq!(refused(text), (Code::InvalidField, field.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_said_to_be_none() {
        for text in
            ["", "{", "{\"kind\": \"a\"", "{'kind': 1}", "{\"kind\": \"a\"} more", "{\"kind\": \"\\ud800\"}", "nul"]
        {
            assert_eq!(refused(text).0, Code::MalformedJson, "{text}");
        }
    }

    #[test]
    fn any_json_is_kept_as_it_was_written() {
        let sample: Sample = parse(r#"{"kind": "a", "payload": {"b": 1.10, "a": 12345678901234567890123}}"#).unwrap();
        assert_eq!(sample.payload.unwrap().0.get(), r#"{"b": 1.10, "a": 12345678901234567890123}"#);
    }
}
