//! The page a request asks for. An operation that lists takes `paging: Paging<Newest>`, asks for
//! `paging.window(organization)?`, which has a row more than the page, and answers `paging.page(…)`.
//!
//! A cursor belongs to one list of one organization with one choice of filters and one order, and is good for a week.

use chrono::TimeDelta;
use gantry_schema::digest::sha256;
use gantry_schema::{Order, OrganizationId, Window};
use poem::http::{HeaderValue, header};
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaHeader, MetaParamIn, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions};

use crate::app::App;
use crate::error::{Code, Error};
use crate::field::Wrong;
use crate::page::{Cursor, Limit, Page, Place, foreign};
use crate::sort::{Fixed, Sort, Sorting};

/// How long a cursor is good.
const GOOD_FOR: TimeDelta = TimeDelta::days(7);

/// Which page of which list is asked for, and how it is sorted.
#[derive(Debug)]
pub struct Paging<K = Fixed> {
    limit: Limit,
    cursor: Option<Cursor>,
    sort: Sort<K>,
    path: String,
    /// What is asked for besides the page.
    filters: Vec<(String, String)>,
    /// In seconds since 1970.
    now: i64,
}

impl<K: Sorting> Paging<K> {
    /// How many things the page has at most.
    #[must_use]
    pub fn count(&self) -> usize {
        self.limit.count()
    }

    /// One row more than the page has, to know whether there is a next one.
    #[must_use]
    pub fn and_one(&self) -> i64 {
        i64::try_from(self.count()).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// What the list is sorted by.
    #[must_use]
    pub const fn by(&self) -> K {
        self.sort.by
    }

    /// The direction of the list.
    #[must_use]
    pub const fn order(&self) -> Order {
        self.sort.order
    }

    /// Whether it is the first page.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.cursor.is_none()
    }

    /// The place after which the page begins; `None`: at the beginning.
    ///
    /// # Errors
    /// When the cursor is another list's or too old.
    pub fn after(&self, organization: OrganizationId) -> Result<Option<Place>, Error> {
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
        Ok(Some(Place::of_bytes(place)))
    }

    /// The page, with one row more, of a list that is sorted by id, and so by age.
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn window(&self, organization: OrganizationId) -> Result<Window, Error> {
        let window = Window::new(self.order(), self.and_one());
        match self.after(organization)? {
            Some(place) => Ok(window.after(place.to_id()?)),
            None => Ok(window),
        }
    }

    /// The page, of rows of which [`Self::and_one`] were asked for.
    pub fn page<T: ParseFromJSON + ToJSON + Send + Sync, R>(
        &self,
        organization: OrganizationId,
        mut rows: Vec<R>,
        place: impl Fn(&R) -> Place,
        item: impl Fn(R) -> T,
    ) -> Paged<T> {
        let more = rows.len() > self.count();
        rows.truncate(self.count());
        let next_cursor = rows.last().filter(|_| more).map(|row| {
            let (issued, list) = (self.now.to_be_bytes(), self.list(organization));
            Cursor::of_bytes([&issued[..], &list, place(row).bytes()].concat())
        });
        let next = next_cursor.as_ref().map(|cursor| self.link("cursor", &cursor.to_string()));
        Paged { page: Page { items: rows.into_iter().map(item).collect(), next_cursor }, next }
    }

    /// Things after which the list goes on where a parameter of its own says, when it is known.
    pub fn going_on<T: ParseFromJSON + ToJSON + Send + Sync>(
        &self,
        items: Vec<T>,
        parameter: &str,
        next: Option<String>,
    ) -> Paged<T> {
        let next = next.map(|next| self.link(parameter, &next));
        Paged { page: Page { items, next_cursor: None }, next }
    }

    /// The same list from elsewhere.
    fn link(&self, parameter: &str, value: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.filters.iter().filter(|(name, _)| name != parameter));
        query.append_pair("limit", &self.count().to_string()).append_pair(parameter, value);
        format!("<{}?{}>; rel=\"next\"", self.path, query.finish())
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

impl<'a, K: Sorting> ApiExtractor<'a> for Paging<K> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Query)
    }

    /// What it is sorted by: [`crate::parameters::Described`] makes three parameters of it.
    fn param_schema_ref() -> Option<MetaSchemaRef> {
        Some(Sort::<K>::schema().unwrap_or_else(|| MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")))))
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let app = request.data::<App>();
        let app = app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let (mut limit, mut cursor, mut sort, mut filters) = (Limit::default(), None, K::USUAL, Vec::new());
        for (name, value) in url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
            let wrong = |wrong: Wrong| Error::parameter(name.as_ref(), wrong.0);
            match &*name {
                "limit" => limit = value.parse().map_err(wrong)?,
                "cursor" => cursor = Some(value.parse().map_err(wrong)?),
                "sort" => sort = value.parse().map_err(wrong)?,
                _ => filters.push((name.into_owned(), value.into_owned())),
            }
        }
        if sort != K::USUAL {
            filters.push(("sort".to_owned(), sort.to_string()));
        }
        // The order in which filters are written makes no other list.
        filters.sort();
        Ok(Self { limit, cursor, sort, path, filters, now: app.db.now().timestamp() })
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
