//! Requests that may be sent again and are done once: the header `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! An operation takes `once: Once`, does its work in [`Once::run`] and answers `Result<Answered<…>, Error>`:
//!
//! ```text
//! async fn create(&self, caller: May<ManageThings>, once: Once, body: Body<NewThing>) -> Result<Answered<Created>, Error> {
//!     let organization = caller.organization();
//!     once.run(&caller, organization, async |tx| {
//!         let made = things::create(tx, &body.0).await?;
//!         Ok(Created::Created(Json(made.into())))
//!     })
//!     .await
//! }
//! ```
//!
//! What was answered is written down in the transaction of the effect. A refused request leaves nothing, so it may be
//! put right and sent again with the same key.
//!
//! That it was done is recorded in the same transaction: who, from where, which operation, to what. The work says more
//! of it with `tx.audit()`, where there is more to say than the path does.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use gantry_schema::audit::Author;
use gantry_schema::digest::sha256;
use gantry_schema::idempotency::{self, Begun};
use gantry_schema::{OrganizationId, TenantTx};
use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Request, RequestBody, Response};
use poem_openapi::registry::{MetaHeader, MetaParamIn, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type as _;
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::app::App;
use crate::audit::about::About;
use crate::caller::Caller;
use crate::error::{Code, Error};

/// The header that names a request.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The largest body that is kept: the receipts of the largest bulk request have less.
const MAX_KEPT: usize = 1024 * 1024;

/// Headers that belong to an answer, and are kept with it.
const KEPT: [HeaderName; 5] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG, header::RETRY_AFTER, header::LINK];

/// The digest of a request's body, once it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyDigest(Arc<OnceLock<[u8; 32]>>);

impl BodyDigest {
    /// Notes what the body was.
    pub(crate) fn of(&self, body: &[u8]) {
        self.0.get_or_init(|| sha256(&[body]));
    }
}

/// Gives a request that carries a key somewhere to note what its body was.
pub(crate) fn prepare(request: &mut Request) {
    if request.headers().contains_key(IDEMPOTENCY_KEY) {
        request.set_data(BodyDigest::default());
    }
}

/// Does what an operation does, once for each key.
#[derive(Debug)]
pub struct Once {
    app: App,
    about: About,
    sent: Option<Sent>,
}

/// A request that carries a key.
#[derive(Debug)]
struct Sent {
    key: String,
    operation: String,
    query: String,
    body: BodyDigest,
}

impl Sent {
    fn of(request: &Request) -> Result<Option<Self>, Error> {
        let mut values = request.headers().get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Error::parameter(IDEMPOTENCY_KEY, "there are two of them; send the header once"));
        }
        let uri = request.uri();
        Ok(Some(Self {
            key: read_key(value)?,
            operation: format!("{} {}", request.method(), uri.path()),
            query: uri.query().unwrap_or_default().to_owned(),
            body: request.data::<BodyDigest>().cloned().unwrap_or_default(),
        }))
    }

    fn fingerprint(&self) -> [u8; 32] {
        let body: &[u8] = self.body.0.get().map_or(&[], |digest| digest);
        sha256(&[self.operation.as_bytes(), self.query.as_bytes(), body])
    }
}

/// The key: a string as structured fields (RFC 8941) write it, or as it is.
fn read_key(value: &HeaderValue) -> Result<String, Error> {
    let wrong = || {
        Error::parameter(
            IDEMPOTENCY_KEY,
            "a key is 1 to 255 printable ASCII characters, as they are or in quotes; a random UUID is a good one",
        )
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let key = match text.strip_prefix('"') {
        None => text.to_owned(),
        Some(rest) => unquoted(rest.strip_suffix('"').ok_or_else(wrong)?).ok_or_else(wrong)?,
    };
    let printable = |byte: u8| (b' '..=b'~').contains(&byte);
    if (1..=255).contains(&key.len()) && key.bytes().all(printable) { Ok(key) } else { Err(wrong()) }
}

fn unquoted(text: &str) -> Option<String> {
    let (mut key, mut characters) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            other => key.push(other),
        }
    }
    Some(key)
}

impl Once {
    /// Whether the request carries a key.
    #[must_use]
    pub const fn has_key(&self) -> bool {
        self.sent.is_some()
    }

    /// Where the request comes from, if that is known.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.about.address()
    }

    /// Who asks for it, as the record has it.
    pub(crate) fn author(&self, caller: &Caller) -> Arc<Author> {
        self.about.author(caller)
    }

    /// Does the work in a transaction that is rolled back.
    pub(crate) async fn rehearse<T: IntoResponse>(
        self,
        organization: OrganizationId,
        work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, Error>,
    ) -> Result<Answered<T>, Error> {
        let mut tx = self.app.db.tenant(organization).await?;
        let answer = work(&mut tx).await?;
        tx.rollback().await?;
        Ok(Answered::of(answer))
    }

    /// Does the work in a transaction of the organization, or answers what was answered to the same request before.
    /// The work has its effects in the transaction it is given and nowhere else.
    ///
    /// # Errors
    /// What the work refuses, when the same request runs at this moment, and when its key belongs to another request.
    pub async fn run<T: IntoResponse>(
        self,
        caller: &Caller,
        organization: OrganizationId,
        work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, Error>,
    ) -> Result<Answered<T>, Error> {
        let Self { app, about, sent } = self;
        let mut tx = app.db.tenant(organization).await?.by(about.author(caller));
        *tx.audit() = about.draft();
        let Some(sent) = sent else {
            let answer = work(&mut tx).await?;
            tx.commit().await?;
            return Ok(Answered::of(answer));
        };
        let request = idempotency::Request {
            key: &sent.key,
            sender: caller.sender(),
            operation: &sent.operation,
            fingerprint: sent.fingerprint(),
        };
        let answer = match idempotency::begin(&mut tx, &request, &app.sealing).await? {
            Begun::New => match do_and_keep(&mut tx, &request, &app, work).await {
                Ok(response) => {
                    tx.commit().await?;
                    return Ok(Answered::new(response));
                }
                Err(refused) => Err(refused),
            },
            Begun::InFlight => Err(in_flight()),
            Begun::Reused => Err(reused()),
            Begun::Answered(answer) => replay(answer).map(Answered::new),
        };
        // Whoever is answered may come again at once: the key is to be free by then.
        tx.rollback().await?;
        answer
    }
}

async fn do_and_keep<T: IntoResponse>(
    tx: &mut TenantTx,
    request: &idempotency::Request<'_>,
    app: &App,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, Error>,
) -> Result<Response, Error> {
    let (parts, body) = work(tx).await?.into_response().into_parts();
    let body = body.into_bytes().await.map_err(|error| {
        Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again").because(error)
    })?;
    let text = |name: &HeaderName| parts.headers.get(name)?.to_str().ok();
    let headers: BTreeMap<&str, &str> = KEPT.iter().filter_map(|name| Some((name.as_str(), text(name)?))).collect();
    let kept = (body.len() <= MAX_KEPT).then_some(&*body);
    idempotency::keep(tx, request, parts.status.as_u16(), &headers, kept, &app.sealing).await?;
    Ok(Response::from_parts(parts, body.into()))
}

fn replay(answer: idempotency::Answer) -> Result<Response, Error> {
    let Some(body) = answer.body else {
        return Err(Error::new(
            Code::IdempotencyAnswerNotKept,
            format!(
                "the request was done, and is not done again; its answer, status {}, had more than {MAX_KEPT} bytes \
                 and was not kept, so look at what it made",
                answer.status
            ),
        )
        .at(IDEMPOTENCY_KEY));
    };
    let mut response = Response::builder().status(StatusCode::from_u16(answer.status).unwrap_or_default());
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response = response.header(REPLAYED.clone(), HeaderValue::from_static("true"));
    Ok(response.body(body.expose_secret().to_vec()))
}

fn in_flight() -> Error {
    Error::new(
        Code::IdempotencyKeyInFlight,
        "a request with this key is being done at this moment; send it again in a second to get its answer",
    )
    .at(IDEMPOTENCY_KEY)
}

fn reused() -> Error {
    Error::new(
        Code::IdempotencyKeyReused,
        "the key belongs to another request of the last 24 hours: another operation, other content or another sender; \
         choose a new key for every new request",
    )
    .at(IDEMPOTENCY_KEY)
}

impl<'a> ApiExtractor<'a> for Once {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::Parameter];

    type ParamType = ();
    type ParamRawType = ();

    fn param_in() -> Option<MetaParamIn> {
        Some(MetaParamIn::Header)
    }

    fn param_schema_ref() -> Option<MetaSchemaRef> {
        let mut schema = MetaSchema::new("string");
        (schema.min_length, schema.max_length) = (Some(1), Some(255));
        schema.example = Some("8e03978e-40d5-43e8-bc93-6894a57f9324".into());
        Some(MetaSchemaRef::Inline(Box::new(schema)))
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let app = request.data::<App>().cloned();
        let app = app.ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
        Ok(Self { app, about: About::find(request)?, sent: Sent::of(request)? })
    }
}

/// What was answered now, or when the request came for the first time.
#[derive(Debug)]
pub struct Answered<T> {
    response: Response,
    of: PhantomData<fn() -> T>,
}

impl<T> Answered<T> {
    fn new(response: Response) -> Self {
        Self { response, of: PhantomData }
    }

    /// What was answered now.
    #[must_use]
    pub fn of(answer: T) -> Self
    where
        T: IntoResponse,
    {
        Self::new(answer.into_response())
    }

    /// Another answer in its place, made of its JSON, that says as well whether it was replayed.
    ///
    /// # Errors
    /// Those of making it.
    pub async fn instead(mut self, answer: impl FnOnce(Value) -> Result<T, Error>) -> Result<Self, Error>
    where
        T: IntoResponse,
    {
        let body = self.response.take_body().into_bytes().await.map_err(Error::internal)?;
        let mut other = Self::of(answer(serde_json::from_slice(&body).map_err(Error::internal)?)?);
        other
            .response
            .headers_mut()
            .extend(self.response.headers().get(&REPLAYED).map(|said| (REPLAYED.clone(), said.clone())));
        Ok(other)
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// One of its headers, where it has it.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The answer was given before: what was asked for happened then.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.response.headers().contains_key(&REPLAYED)
    }
}

impl<T: Send> IntoResponse for Answered<T> {
    fn into_response(self) -> Response {
        self.response
    }
}

impl<T: ApiResponse> ApiResponse for Answered<T> {
    fn meta() -> MetaResponses {
        let mut meta = T::meta();
        for response in &mut meta.responses {
            response.headers.push(MetaHeader {
                name: "Idempotency-Replayed".to_owned(),
                description: Some("`true`: this was answered before to the same `Idempotency-Key`.".to_owned()),
                required: false,
                deprecated: false,
                schema: bool::schema_ref(),
            });
        }
        meta
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_quotes_and_without() {
        let key = |text: &str| read_key(&HeaderValue::from_str(text).unwrap()).ok();
        assert_eq!(key("abc").as_deref(), Some("abc"));
        assert_eq!(key("\"abc\"").as_deref(), Some("abc"));
        assert_eq!(key("\"a\\\"b\\\\c d\"").as_deref(), Some("a\"b\\c d"));
        assert_eq!(key(&"k".repeat(255)).map(|key| key.len()), Some(255));
        for bad in ["", "\"\"", "\"abc", "\"a\"b\"", "\"a\\b\"", "\"", &"k".repeat(256)] {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert!(read_key(&HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap()).is_err());
    }
}
