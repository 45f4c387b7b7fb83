//! Work that is left to a job: what an operation answers that asks for one, and how its caller waits for the end.
//!
//! Such an operation takes `prefer: Prefer`, answers `Result<Answered<Asked<…>>, Error>` of something that can
//! [show the job](Shows), and ends with `prefer.wait(&app, organization, asked).await`.

use std::sync::Arc;
use std::time::Duration;

use gantry_schema::{JobId, OrganizationId};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaParamIn, MetaSchemaRef};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type as _};
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions};

use super::wait;
use super::{Job, LOOK_AFTER};
use crate::app::App;
use crate::error::Error;
use crate::once::Answered;

/// What is said of a job that was asked for.
pub trait Shows: ParseFromJSON + ToJSON + Send + Sync {
    /// The same, with the job as it is now.
    #[must_use]
    fn showing(self, job: Job) -> Self;
}

/// What came of asking for a job.
#[derive(ApiResponse)]
pub enum Asked<T: Shows> {
    /// It was written down, and will be done.
    #[oai(status = 202)]
    Accepted(
        Json<T>,
        /// The job.
        #[oai(header = "Location")]
        String,
        /// When to look at it, in seconds.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// The caller preferred to wait, and it ended; or it was only tried out, and would look like this.
    #[oai(status = 200)]
    Shown(
        Json<T>,
        /// The job.
        #[oai(header = "Location")]
        Option<String>,
        /// The preference that was honoured.
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

impl<T: Shows> Asked<T> {
    /// The job will be done.
    #[must_use]
    pub fn accepted(job: JobId, said: T) -> Self {
        Self::Accepted(Json(said), format!("/jobs/{job}"), LOOK_AFTER)
    }

    /// It was only tried out.
    #[must_use]
    pub const fn tried_out(said: T) -> Self {
        Self::Shown(Json(said), None, None)
    }
}

/// Whether the caller prefers to wait for the end of a job, and how long: the header `Prefer` (RFC 7240).
#[derive(Debug, Clone, Copy)]
pub struct Prefer(Option<Duration>);

impl Prefer {
    /// The answer, with the job if it ends while there is patience: also where the answer was a replayed one.
    ///
    /// # Errors
    /// When the job is gone.
    pub async fn wait<T: Shows>(
        self,
        app: &App,
        organization: OrganizationId,
        asked: Answered<Asked<T>>,
    ) -> Result<Answered<Asked<T>>, Error> {
        let Some((id, job, applied)) = self.ended(app, organization, &asked).await? else { return Ok(asked) };
        let shown = |said| {
            let said = T::parse_from_json(Some(said)).map_err(|error| Error::internal(error.into_message()))?;
            Ok(Asked::Shown(Json(said.showing(job)), Some(format!("/jobs/{id}")), Some(applied)))
        };
        asked.instead(shown).await
    }

    /// The job that an answer with `Location` is about, if it ends while there is patience, and what to say of that.
    pub(super) async fn ended<T>(
        self,
        app: &App,
        organization: OrganizationId,
        asked: &Answered<T>,
    ) -> Result<Option<(JobId, Job, String)>, Error> {
        let id = asked.header(&header::LOCATION).and_then(|location| location.strip_prefix("/jobs/")?.parse().ok());
        let (Some(id), Some(patience)) = (id, self.0) else { return Ok(None) };
        let job = wait::until_ended(app, organization, id, patience).await?;
        if !job.state.is_final() {
            return Ok(None);
        }
        Ok(Some((id, Arc::unwrap_or_clone(job).into(), format!("wait={}", patience.as_secs()))))
    }
}

impl<'a> ApiExtractor<'a> for Prefer {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(String::schema_ref())
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(Self(wait::preferred(request.header("prefer"))?))
    }
}
