//! Trying a change out: the parameter `dry_run`.
//!
//! The work is done in a transaction that is rolled back: it is checked like the real thing, conflicts included, and
//! nothing of it is stored. The answer says `dry_run`.

use gantry_schema::{OrganizationId, TenantTx};
use poem::{IntoResponse, Request, RequestBody};
use poem_openapi::param::Query;
use poem_openapi::registry::{MetaParamIn, MetaSchemaRef};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::caller::Caller;
use crate::error::Error;
use crate::once::{Answered, Once};

/// Whether a change is only tried out: `dry_run=true`.
#[derive(Debug, Clone, Copy)]
pub struct DryRun(bool);

impl DryRun {
    /// What the answer says of it.
    #[must_use]
    pub fn shown(self) -> Option<bool> {
        self.0.then_some(true)
    }

    /// Whether nothing is to be stored.
    #[must_use]
    pub const fn is_wanted(self) -> bool {
        self.0
    }

    /// Does the work once, or tries it out: then a key is not looked at, and nothing is kept.
    ///
    /// # Errors
    /// As [`Once::run`].
    pub async fn run<T: IntoResponse>(
        self,
        once: Once,
        caller: &Caller,
        organization: OrganizationId,
        work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, Error>,
    ) -> Result<Answered<T>, Error> {
        if self.0 { once.rehearse(organization, work).await } else { once.run(caller, organization, work).await }
    }
}

impl<'a> ApiExtractor<'a> for DryRun {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Query::<Option<bool>>::param_schema_ref()
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let options = ExtractParamOptions { name: "dry_run", ..ExtractParamOptions::default() };
        let wanted = <Query<Option<bool>> as ApiExtractor<'a>>::from_request(request, body, options).await;
        let wrong = |_| Error::parameter("dry_run", "write true to try it out, or leave it out");
        Ok(Self(wanted.map_err(wrong)?.0.unwrap_or(false)))
    }
}
