//! The page a request asks for: an operation that lists takes `paging: Paging`, reads `paging.and_one()` rows behind
//! the place its cursor names, and answers `paging.page(…)`.
//!
//! A cursor belongs to one list of one organization with one choice of filters, and is good for a week.

use chrono::TimeDelta;
use gantry_schema::OrganizationId;
use gantry_schema::digest::sha256;
use poem::http::{HeaderValue, header};
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaHeader, MetaParamIn, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions};
use uuid::Uuid;

use crate::app::App;
use crate::error::{Code, Error};
use crate::field::Wrong;
use crate::page::{Cursor, Limit, Page};

/// How long a cursor is good.
const GOOD_FOR: TimeDelta = TimeDelta::days(7);

/// Which page of which list is asked for.
#[derive(Debug)]
pub struct Paging {
    limit: Limit,
    cursor: Option<Cursor>,
    path: String,
    /// What is asked for besides the page.
    filters: Vec<(String, String)>,
    /// In seconds since 1970.
    now: i64,
}

impl Paging {
    /// One row more than the page has, to know whether there is a next one.
    #[must_use]
    pub fn and_one(&self) -> i64 {
        self.limit.and_one()
    }

    /// The place after which the page begins; `None`: at the beginning.
    ///
    /// # Errors
    /// When the cursor is another list's or too old.
    pub fn after(&self, organization: OrganizationId) -> Result<Option<Cursor>, Error> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let (issued, rest) = cursor.bytes().split_first_chunk::<8>().ok_or_else(foreign)?;
        let (list, place) = rest.split_first_chunk::<8>().ok_or_else(foreign)?;
        if *list != self.list(organization) {
            return Err(foreign());
        }
        if self.now.saturating_sub(i64::from_be_bytes(*issued)) >= GOOD_FOR.num_seconds() {
            return Err(Error::new(
                Code::CursorExpired,
                "a cursor is good for seven days, and this one is older; begin again without one",
            )
            .at("cursor"));
        }
        Ok(Some(Cursor::from_bytes(place.to_vec())))
    }

    /// The id after which the page begins; `None`: at the beginning.
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn after_id<Id: From<Uuid>>(&self, organization: OrganizationId) -> Result<Option<Id>, Error> {
        self.after(organization)?.map(|place| place.to_id()).transpose()
    }

    /// The page, of rows of which [`Self::and_one`] were asked for.
    pub fn page<T: ParseFromJSON + ToJSON + Send + Sync, R>(
        &self,
        organization: OrganizationId,
        rows: Vec<R>,
        place: impl Fn(&R) -> Cursor,
        item: impl Fn(R) -> T,
    ) -> Paged<T> {
        let sealed = |row: &R| {
            let (issued, list) = (self.now.to_be_bytes(), self.list(organization));
            Cursor::from_bytes([&issued[..], &list, place(row).bytes()].concat())
        };
        let page = Page::of(rows, self.limit, sealed, item);
        let next = page.next_cursor.as_ref().map(|cursor| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(&self.filters);
            query.append_pair("limit", &self.limit.count().to_string()).append_pair("cursor", &cursor.to_string());
            format!("<{}?{}>; rel=\"next\"", self.path, query.finish())
        });
        Paged { page, next }
    }

    /// What a cursor belongs to.
    fn list(&self, organization: OrganizationId) -> [u8; 8] {
        let organization = organization.uuid();
        let mut parts: Vec<&[u8]> = vec![organization.as_bytes(), self.path.as_bytes()];
        parts.extend(self.filters.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
        let digest = sha256(&parts);
        digest.first_chunk().copied().unwrap_or_default()
    }
}

fn foreign() -> Error {
    Error::parameter(
        "cursor",
        "this cursor is not of this list with these filters; use next_cursor of its last page, or begin without one",
    )
}

impl<'a> ApiExtractor<'a> for Paging {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(Cursor::schema_ref())
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let app = request.data::<App>();
        let app = app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let (mut limit, mut cursor, mut filters) = (Limit::default(), None, Vec::new());
        for (name, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
            match &*name {
                "limit" => limit = value.parse().map_err(|wrong: Wrong| Error::parameter("limit", wrong.0))?,
                "cursor" => cursor = Some(value.parse().map_err(|wrong: Wrong| Error::parameter("cursor", wrong.0))?),
                _ => filters.push((name.into_owned(), value.into_owned())),
            }
        }
        // The order in which filters are written makes no other list.
        filters.sort();
        Ok(Self { limit, cursor, path, filters, now: app.db.now().timestamp() })
    }
}

/// A page, with a link to the next one (RFC 8288).
#[derive(Debug)]
pub struct Paged<T: ParseFromJSON + ToJSON + Send + Sync> {
    page: Page<T>,
    next: Option<String>,
}

impl<T: ParseFromJSON + ToJSON + Send + Sync> IntoResponse for Paged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.page).into_response();
        let next = self.next.and_then(|next| HeaderValue::from_str(&next).ok());
        response.headers_mut().extend(next.map(|next| (header::LINK, next)));
        response
    }
}

impl<T: ParseFromJSON + ToJSON + Send + Sync> ApiResponse for Paged<T> {
    fn meta() -> MetaResponses {
        let mut meta = Json::<Page<T>>::meta();
        for response in &mut meta.responses {
            response.headers.push(MetaHeader {
                name: "Link".to_owned(),
                description: Some("The next page, as `<…>; rel=\"next\"`; absent: there is none.".to_owned()),
                required: false,
                deprecated: false,
                schema: String::schema_ref(),
            });
        }
        meta
    }

    fn register(registry: &mut Registry) {
        <Json<Page<T>> as ApiResponse>::register(registry);
    }
}
