//! The stretch of time a list is about: the parameters `since` and `until`. An operation takes `during: During`.

use chrono::{DateTime, Utc};
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaParamIn, MetaSchemaRef};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::error::Error;
use crate::field::{Moment, Wrong};

/// A stretch of time with its beginning and without its end; either may be open.
#[derive(Debug, Clone, Copy)]
pub struct During {
    /// From this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Before this moment.
    pub until: Option<DateTime<Utc>>,
}

impl<'a> ApiExtractor<'a> for During {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    /// Of each of the two: [`crate::parameters::Described`] makes two parameters of it.
    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(Moment::schema_ref())
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let mut during = Self { since: None, until: None };
        for (name, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
            let end = match &*name {
                "since" => &mut during.since,
                "until" => &mut during.until,
                _ => continue,
            };
            let moment: Moment = value.parse().map_err(|wrong: Wrong| Error::parameter(name.as_ref(), wrong.0))?;
            *end = Some(moment.0);
        }
        match during {
            Self { since: Some(since), until: Some(until) } if since >= until => Err(Error::parameter(
                "until",
                "there is no time between since and until; write a moment after since, or leave it out",
            )
            .into()),
            during => Ok(during),
        }
    }
}
