//! What applications and browsers send: pairs, in a query or as a form.

use std::collections::BTreeMap;

use poem::Request;
use poem::http::header;

use super::refusal::Refusal;
use crate::load::BodyRoom;

/// Bytes of a form.
const MAX_FORM: usize = 64 * 1024;

/// Bytes of a query.
const MAX_QUERY: usize = 16 * 1024;

/// Pairs, each name once. One without a value is as good as none (RFC 6749, 3.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Those of a query.
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        let mut pairs = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if value.contains('\0') || name.contains('\0') {
                return Err(Refusal::request("a parameter contains the character U+0000; leave it out"));
            }
            if value.is_empty() {
                continue;
            }
            // Two readers would take different ones of them.
            if pairs.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Refusal::request(format!("the parameter {name} is given twice; send it once")));
            }
        }
        Ok(Self(pairs))
    }

    /// Those of a request's query.
    pub(crate) fn of_query(request: &Request) -> Result<Self, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        if query.len() > MAX_QUERY {
            return Err(Refusal::request(format!("the query has at most {MAX_QUERY} characters; shorten it")));
        }
        Self::read(query)
    }

    /// Those of a request's body.
    pub(crate) async fn of_form(request: &mut Request) -> Result<Self, super::refusal::Stop> {
        let media_type = request.header(header::CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::request("the body is to be application/x-www-form-urlencoded").into());
        }
        if let Some(room) = request.data::<BodyRoom>() {
            room.take(MAX_FORM)?;
        }
        let body = request.take_body().into_bytes_limit(MAX_FORM).await;
        let body =
            body.map_err(|_| Refusal::request(format!("the body has at most {MAX_FORM} bytes, and all of them")))?;
        let text = std::str::from_utf8(&body).map_err(|_| Refusal::request("the body is not UTF-8"))?;
        Ok(Self::read(text)?)
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that has to be there.
    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::request(format!("the parameter {name} is missing")))
    }

    /// All but some, as a query.
    pub(super) fn query_without(&self, names: &[&str]) -> String {
        let pairs = self.0.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_given_twice_is_refused_and_an_empty_one_is_none() {
        let read = Parameters::read("a=1&b=&c=x%26y+z").unwrap();
        assert_eq!((read.get("a"), read.get("b"), read.get("c")), (Some("1"), None, Some("x&y z")));
        assert_eq!(read.query_without(&["a"]), "c=x%26y+z");
        assert_eq!(Parameters::read("a=1&a=1").unwrap_err().error, "invalid_request");
        assert_eq!(Parameters::read("a=%00").unwrap_err().error, "invalid_request");
    }
}
