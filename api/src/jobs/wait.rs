//! Waiting for a job to end.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use gantry_schema::jobs::Job;
use gantry_schema::{JobId, OrganizationId};
use poem::Request;
use tokio::time::Instant;

use super::together::look;
use crate::app::App;
use crate::error::Error;
use crate::field::Wrong;

/// The longest a caller may ask to wait.
const LONGEST: u64 = 60;

/// How long to wait, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Seconds {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(seconds @ 0..=LONGEST) => Ok(Self(seconds)),
            _ => Err(Wrong(format!(
                "waiting takes 0 to {LONGEST} seconds; write a whole number between them, and ask again after"
            ))),
        }
    }
}

impl poem_openapi::types::Type for Seconds {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "integer_seconds".into()
    }

    fn schema_ref() -> poem_openapi::registry::MetaSchemaRef {
        let mut schema = poem_openapi::registry::MetaSchema::new_with_format("integer", "int32");
        schema.minimum = Some(0.0);
        schema.maximum = Some(60.0);
        poem_openapi::registry::MetaSchemaRef::Inline(Box::new(schema))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl poem_openapi::types::ParseFromParameter for Seconds {
    fn parse_from_parameter(value: &str) -> poem_openapi::types::ParseResult<Self> {
        value.parse().map_err(poem_openapi::types::ParseError::custom)
    }
}

/// How long the header `Prefer` (RFC 7240) asks to wait. Other preferences are not ours to honour.
///
/// # Errors
/// When it asks for longer than is allowed, or not for a time.
pub fn preferred(prefer: Option<&str>) -> Result<Option<Duration>, Error> {
    let Some(text) = prefer.and_then(wait_of) else { return Ok(None) };
    let seconds: Seconds = text.parse().map_err(|wrong: Wrong| Error::parameter("Prefer", wrong.0))?;
    Ok(Some(seconds.duration()))
}

fn wait_of(prefer: &str) -> Option<&str> {
    prefer.split([',', ';']).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    })
}

/// How long a request asks to wait, by whichever way: it may take so much longer than others.
pub fn asked_for(request: &Request) -> Duration {
    let of_query = || request.uri().query()?.split('&').find_map(|pair| pair.strip_prefix("wait="));
    let of_header = || wait_of(request.header("prefer")?);
    let seconds = of_query().or_else(of_header).and_then(|text| text.parse::<Seconds>().ok());
    seconds.map_or(Duration::ZERO, Seconds::duration)
}

/// The job, the moment it ended or as it is when the patience is over.
///
/// # Errors
/// When there is no such job.
pub(crate) async fn until_ended(
    app: &App,
    organization: OrganizationId,
    job: JobId,
    patience: Duration,
) -> Result<Arc<Job>, Error> {
    let deadline = Instant::now() + patience;
    let watch = app.signals.watch(job);
    loop {
        let notified = watch.notified();
        let found = look(app, organization, job).await?;
        if found.state.is_final() || Instant::now() >= deadline || app.is_stopping() {
            return Ok(found);
        }
        tokio::select! {
            () = watch.changed(notified) => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = app.stopping() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_to_wait_is_found_among_others() {
        let seconds = |prefer| preferred(Some(prefer)).unwrap().map(|wait| wait.as_secs());
        assert_eq!(seconds("wait=10"), Some(10));
        assert_eq!(seconds("respond-async, Wait = 5"), Some(5));
        assert_eq!(seconds("return=minimal; foo=\"bar\""), None);
        assert_eq!(preferred(None).unwrap(), None);
        for bad in ["wait=61", "wait=-1", "wait=soon", "wait="] {
            assert!(preferred(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_may_take_as_long_as_it_asks_to_wait() {
        let request = |uri: &str| Request::builder().uri_str(uri);
        assert_eq!(asked_for(&request("/jobs/x?a=b&wait=7").finish()).as_secs(), 7);
        assert_eq!(asked_for(&request("/jobs").header("Prefer", "wait=9").finish()).as_secs(), 9);
        assert_eq!(asked_for(&request("/jobs?wait=9999").finish()), Duration::ZERO);
    }
}
