//! What callers are told when something cannot be done: RFC 9457 problem documents. The only place that
//! knows status codes.

use std::borrow::Borrow;
use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use gantry_jobs::catalogue::KindError;
use gantry_jobs::request::RequestError;
use gantry_jobs::schedule::ScheduleError;
use gantry_schema::jobs::enqueue::EnqueueError;
use gantry_schema::schedules::cron::CronError;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse as _, Response};
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ToJSON as _, Type as _};
use poem_openapi::{ApiResponse, Object, OperationId};

use crate::audit::refusals::Reason;
use crate::example::example;
use crate::routes;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $title:literal, $remedy:literal;)*) => {
        /// What went wrong, as a word that never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word programs compare with.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status it comes with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do about it, whatever `detail` says of the case.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    /// The body cannot be read as JSON.
    MalformedJson = "malformed_json", BAD_REQUEST, "The body is not JSON",
        "Check quotes, commas and brackets; a body that was cut off is sent again.";
    /// The bytes of the body are no text.
    NotUtf8 = "not_utf8", BAD_REQUEST, "The body is not UTF-8",
        "Encode the JSON as UTF-8.";
    /// A path, query or header parameter.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter is not as expected",
        "`field` names the parameter of the path, the query or the headers; write it as the document says.";
    /// There is no such version of the API.
    UnknownVersion = "unknown_version", BAD_REQUEST, "There is no such version of the API",
        "Send a `Gantry-Version` that `detail` lists, or none.";
    /// The cursor is too old.
    CursorExpired = "cursor_expired", BAD_REQUEST, "The cursor is too old",
        "Cursors are good for a week: begin the list again without one.";
    /// No key and no session, or none that works.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "The request carries no API key or session that works",
        "Send `Authorization: Bearer gk_…` with an API key that is neither revoked nor expired, or sign in.";
    /// The caller may not do it.
    Forbidden = "forbidden", FORBIDDEN, "The caller may not do this",
        "Use a key, or be a member with a role, that has the permission that `detail` names.";
    /// The organization may not be asked from there.
    SourceNotAllowed = "source_not_allowed", FORBIDDEN, "The organization may not be asked from there",
        "Ask from one of the networks and countries that `GET /organizations/{organization}/defence` lists.";
    /// The organization is locked down.
    LockedDown = "locked_down", FORBIDDEN, "The organization is locked down",
        "Wait until it is unlocked: by whoever stands above it, or by somebody of it who signs in anew and may.";
    /// The account or its password.
    WrongCredentials = "wrong_credentials", UNAUTHORIZED, "The e-mail address or the password is wrong",
        "Check both, or have a link to a new password sent.";
    /// The second factor.
    WrongFactor = "wrong_factor", UNAUTHORIZED, "The second factor proves nothing",
        "Send the code that is shown now, one that was not used, or another factor.";
    /// The sign-in cannot go on with its second step.
    InvalidSignIn = "invalid_sign_in", UNAUTHORIZED, "The sign-in cannot go on",
        "Begin again with `POST /sessions`: the second step is to follow within minutes, from the same client.";
    /// The password alone is not enough.
    SecondFactorRequired = "second_factor_required", FORBIDDEN, "A second factor is required",
        "Prove yourself with a second factor, or enrol one with `POST /me/factors/…` first; `detail` says which.";
    /// The account was suspended.
    AccountSuspended = "account_suspended", FORBIDDEN, "The account was suspended",
        "Ask whoever runs the platform.";
    /// Everything is right, and looks wrong.
    SignInRefused = "sign_in_refused", FORBIDDEN, "The sign-in looks wrong, and was refused",
        "Sign in from where and with what you usually do, or ask one of the organization's owners.";
    /// Accounts are not made like this.
    SignUpClosed = "sign_up_closed", FORBIDDEN, "Accounts are not made like this here",
        "Have somebody invite you, or ask whoever runs the platform.";
    /// A link that was sent.
    LinkExpired = "link_expired", GONE, "The link does not work any more",
        "Have another one sent; each works once, and not for long.";
    /// The refresh token does not work.
    InvalidRefreshToken = "invalid_refresh_token", UNAUTHORIZED, "The refresh token does not work",
        "Sign in again; each refresh token is good once.";
    /// It was too long ago that the caller proved who he is.
    InsufficientUserAuthentication = "insufficient_user_authentication", UNAUTHORIZED, "A fresh proof of who you are is needed",
        "`POST /sessions/current/proof`, then send it again.";
    /// A browser's request that another site's page may have sent.
    CrossSiteRequest = "cross_site_request", FORBIDDEN, "The request may come from another site's page",
        "Send it from a page of the API's own origin, with the `csrf_token` of the session as `X-CSRF-Token`.";
    /// It does not exist, or is somebody else's.
    NotFound = "not_found", NOT_FOUND, "There is no such thing",
        "Check the id, and that the key is of the right organization: what belongs to others answers the same.";
    /// No operation has this path.
    UnknownRoute = "unknown_route", NOT_FOUND, "There is no such path",
        "Check the path; `/openapi.json` lists them all.";
    /// The API is not served under this name.
    UnknownHost = "unknown_host", MISDIRECTED_REQUEST, "The API is not served under this name",
        "Use the URL you were given for the API.";
    /// The path has no operation with this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not answer this method",
        "Use a method that the header `Allow` lists.";
    /// Its state does not allow it.
    WrongState = "wrong_state", CONFLICT, "The state it is in does not allow this",
        "Get it again, and decide by the state it is in.";
    /// Nobody made it.
    NotMadeHere = "not_made_here", CONFLICT, "The platform did not make it",
        "What was connected has nothing that was planned: leave this to what the platform made.";
    /// The caller could not go on.
    WouldLockOut = "would_lock_out", CONFLICT, "The caller would lock himself out",
        "Let in where you ask from, or send it with `force`.";
    /// Somebody else of the organization has it.
    NameTaken = "name_taken", CONFLICT, "The name is taken",
        "Choose another name.";
    /// The request runs at this moment.
    IdempotencyKeyInFlight = "idempotency_key_in_flight", CONFLICT, "A request with this Idempotency-Key is being done",
        "Send the same request again after `Retry-After` to get its answer.";
    /// The request was done, and what was answered is gone.
    IdempotencyAnswerNotKept = "idempotency_answer_not_kept", CONFLICT, "The request was done, and its answer was not kept",
        "Do not send it again: look at what the request made.";
    /// It was changed by somebody else.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "It was changed in the meantime",
        "Get it again, look at what has changed, and send `If-Match` with its new `ETag`.";
    /// A change that needs a condition.
    PreconditionRequired = "precondition_required", PRECONDITION_REQUIRED, "The change needs a condition",
        "Send `If-Match` with the `ETag` of what you last saw, or `*`.";
    /// It may not stand there.
    WrongPlace = "wrong_place", CONFLICT, "It may not stand there",
        "Choose another type or another place; `detail` says which types stand below which.";
    /// Something needs it.
    InUse = "in_use", CONFLICT, "It is in use",
        "Remove, pause or move first what `detail` lists.";
    /// The organization would have no owner.
    LastOwner = "last_owner", CONFLICT, "An organization keeps an owner",
        "Make somebody else an owner first.";
    /// The organization has as many as it may.
    TooMany = "too_many", CONFLICT, "There are as many as there may be",
        "Remove what nobody needs.";
    /// A license allows no more of it.
    LicenseLimit = "license_limit", CONFLICT, "The license allows no more of it",
        "Remove what nobody needs, or get a license for more; `GET /license` says how many there are and may be.";
    /// The license is not in force.
    LicenseState = "license_state", CONFLICT, "Nothing is added while the license is not in force",
        "Renew the license, or ask whoever gave it; what is there stays as it is.";
    /// The body is too large.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "Send less at a time; store large data elsewhere and send where it is.";
    /// A payload is too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The payload is too large",
        "Store what is large and send its id.";
    /// Not JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be application/json",
        "Send `Content-Type: application/json`.";
    /// The key belongs to another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, "The Idempotency-Key belongs to another request",
        "Choose a new key for every new request, and keep it for sending that request again.";
    /// A field of the body.
    InvalidField = "invalid_field", UNPROCESSABLE_ENTITY, "A field of the body is not as expected",
        "`field` names the member of the body; `detail` says what to write.";
    /// A password that is guessed too easily.
    WeakPassword = "weak_password", UNPROCESSABLE_ENTITY, "The password is guessed too easily",
        "Choose a longer one, or another; `detail` says why.";
    /// The kind of job does not exist.
    UnknownKind = "unknown_kind", UNPROCESSABLE_ENTITY, "There is no such kind of job",
        "`GET /job-kinds` lists the kinds.";
    /// The kind of job is for the platform only.
    KindNotPublic = "kind_not_public", UNPROCESSABLE_ENTITY, "Callers may not ask for this kind of job",
        "`GET /job-kinds` says which kinds are `public`.";
    /// The payload is not the kind's.
    InvalidPayload = "invalid_payload", UNPROCESSABLE_ENTITY, "The payload is not what the kind of job expects",
        "Write the payload as the kind wants it; `detail` says what is wrong.";
    /// More than one request may carry.
    TooManyJobs = "too_many_jobs", UNPROCESSABLE_ENTITY, "Too many jobs in one request",
        "Ask for at most 10 000 jobs in one request.";
    /// Some jobs of a bulk request.
    InvalidJobs = "invalid_jobs", UNPROCESSABLE_ENTITY, "Some of the jobs cannot be asked for; none was stored",
        "`errors` names each by its place in the request: put them right or leave them out, and send all again.";
    /// More requests than are taken.
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "Too many requests in too short a time",
        "Wait for as long as `Retry-After` says, and send less.";
    /// The month's calls or bytes are used up.
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS, "What may be used in a month is used up",
        "Wait for the next month, as `Retry-After` says, or have the organization given more.";
    /// More deliveries than one request may ask for.
    TooManyDeliveries = "too_many_deliveries", UNPROCESSABLE_ENTITY, "Too many deliveries in one request",
        "Post fewer events in one request: each is counted once for every endpoint that wants it.";
    /// Some events of a bulk request.
    InvalidEvents = "invalid_events", UNPROCESSABLE_ENTITY, "Some of the events cannot be posted; none was stored",
        "`errors` names each by its place in the request: put them right or leave them out, and send all again.";
    /// A job to wait for.
    UnknownPredecessor = "unknown_predecessor", UNPROCESSABLE_ENTITY, "A job to wait for does not exist",
        "Ask for the job to wait for first, or leave it out.";
    /// The cron expression.
    InvalidCron = "invalid_cron", UNPROCESSABLE_ENTITY, "The cron expression is wrong",
        "Five fields (minute, hour, day, month, day of week), or six with seconds first; `detail` says which is wrong.";
    /// The time zone.
    UnknownTimeZone = "unknown_time_zone", UNPROCESSABLE_ENTITY, "There is no such time zone",
        "Write an IANA name such as `Europe/Berlin`.";
    /// More requests than can be done.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "More is asked for than can be done",
        "Send it again after `Retry-After`; nothing was done.";
    /// The request took too long.
    TimedOut = "timed_out", SERVICE_UNAVAILABLE, "The request took too long",
        "It may have happened all the same: look first, or send it again with the same `Idempotency-Key`.";
    /// The database cannot be reached.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The platform cannot do this at the moment",
        "Send it again after `Retry-After`, with the same `Idempotency-Key` if it changes something.";
    /// A dependency does not answer.
    NotReady = "not_ready", SERVICE_UNAVAILABLE, "The platform is not ready",
        "Wait; `checks` says what fails.";
    /// A defect of the platform.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong on our side",
        "It was noted. Send it again, and tell us the `request_id` if it happens again.";
}

impl Code {
    /// The same request may succeed a moment later: the answer says when in `Retry-After`.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(
            self,
            Self::TooManyRequests
                | Self::QuotaExceeded
                | Self::Unavailable
                | Self::NotReady
                | Self::TimedOut
                | Self::Overloaded
                | Self::IdempotencyKeyInFlight
        )
    }
}

/// The table of all codes for the guide to errors, in Markdown, ordered by status.
#[must_use]
pub fn table() -> String {
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.status().as_u16());
    let row = |code: Code| {
        let (word, status) = (code.as_str(), code.status().as_u16());
        format!("| `{word}` | {status} | {} | {} |\n", code.title(), code.remedy())
    };
    let rows: String = codes.into_iter().map(row).collect();
    format!("| `code` | Status | What it means | What to do |\n|---|---|---|---|\n{rows}")
}

/// The word is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word).ok_or_else(|| UnknownCode(word.to_owned()))
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub struct Error {
    code: Code,
    detail: String,
    field: Option<String>,
    items: Vec<ItemProblem>,
    more: Option<Box<More>>,
    /// In seconds.
    proof_within: Option<u32>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

/// What only some errors say.
#[derive(Debug, Default)]
struct More {
    /// How long to wait until it may be tried again.
    time: Duration,
    /// The limits that are used up.
    violated: Vec<String>,
    /// The rule that refused.
    reason: Option<&'static str>,
}

impl Error {
    /// An error with what to do about it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail, field: None, items: Vec::new(), more: None, proof_within: None, cause: None }
    }

    /// The caller has to prove who he is again (RFC 9470).
    #[must_use]
    pub fn prove_anew(within: TimeDelta) -> Self {
        let detail = format!(
            "this is done only for somebody who proved within {} minutes who he is; POST /sessions/current/proof, then \
             send it again",
            within.num_minutes()
        );
        Self {
            proof_within: u32::try_from(within.num_seconds()).ok(),
            ..Self::new(Code::InsufficientUserAuthentication, detail)
        }
    }

    /// Names the field or parameter at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the rule that refused.
    #[must_use]
    pub fn reason(mut self, rule: &'static str) -> Self {
        self.more.get_or_insert_default().reason = Some(rule);
        self
    }

    /// Keeps what only the log may say.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Lists what is wrong with each item of a bulk request.
    #[must_use]
    pub fn items(mut self, items: Vec<ItemProblem>) -> Self {
        self.items = items;
        self
    }

    /// Says how long to wait before it is tried again, instead of a second.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.more.get_or_insert_default().time = time;
        self
    }

    /// Names the limits that are used up.
    #[must_use]
    pub fn violating(mut self, policies: &[&str]) -> Self {
        self.more.get_or_insert_default().violated = policies.iter().map(ToString::to_string).collect();
        self
    }

    /// A field of the body is wrong; the detail says what to write instead.
    #[must_use]
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidField, detail).at(field)
    }

    /// A parameter is wrong; the detail says what to write instead.
    #[must_use]
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameter, detail).at(name)
    }

    /// It does not exist, or the caller may not know that it does.
    #[must_use]
    pub fn not_found(id: impl fmt::Display) -> Self {
        Self::new(
            Code::NotFound,
            format!("there is no {id} here; check the id, and that you ask for the right organization"),
        )
    }

    /// The word programs compare with.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, and what to do about it.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// As one item's problem.
    #[must_use]
    pub fn into_item(self, index: usize) -> ItemProblem {
        ItemProblem { index: index as u64, code: self.code.as_str().to_owned(), field: self.field, detail: self.detail }
    }

    /// The document for a request.
    #[must_use]
    pub fn problem(&self, request: &str, path: &str) -> Problem {
        Problem {
            r#type: format!("urn:gantry:problem:{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str().to_owned(),
            instance: path.to_owned(),
            request_id: request.to_owned(),
            reason: self.more.as_ref().and_then(|more| more.reason).map(str::to_owned),
            field: self.field.clone(),
            errors: (!self.items.is_empty()).then(|| self.items.clone()),
            violated_policies: self
                .more
                .as_ref()
                .map(|more| more.violated.clone())
                .filter(|violated| !violated.is_empty()),
            max_age: self.proof_within.map(i64::from),
        }
    }

    /// The answer to a request.
    #[must_use]
    pub fn response(&self, request: &str, path: &str) -> Response {
        let mut response = self
            .problem(request, path)
            .to_json_string()
            .with_content_type(PROBLEM_JSON)
            .with_status(self.code.status())
            .into_response();
        match self.code {
            Code::Unauthenticated | Code::WrongCredentials | Code::InvalidRefreshToken => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::InsufficientUserAuthentication => {
                let seconds = self.proof_within.unwrap_or_default();
                let challenge = format!("Bearer error=\"{}\", max_age={seconds}", self.code.as_str());
                // Made of characters that headers may have.
                response.headers_mut().extend(
                    HeaderValue::from_str(&challenge).ok().map(|challenge| (header::WWW_AUTHENTICATE, challenge)),
                );
            }
            _ => {}
        }
        if matches!(self.code, Code::Forbidden | Code::SourceNotAllowed | Code::LockedDown | Code::SecondFactorRequired)
        {
            let barred = self.code == Code::SourceNotAllowed;
            response.set_data(Reason { detail: self.detail.clone(), barred });
        }
        if self.code.passes() {
            // In whole seconds, and never too few.
            let wait =
                self.more.as_ref().map_or(1, |more| more.time.as_secs() + u64::from(more.time.subsec_nanos() > 0));
            response.headers_mut().insert(header::RETRY_AFTER, wait.max(1).into());
        }
        response
    }

    fn database(error: impl Borrow<sqlx::Error> + Into<Box<dyn StdError + Send + Sync>>) -> Self {
        use sqlx::Error as E;
        let known: &E = error.borrow();
        let sql_state =
            known.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        let violated = known.as_database_error().and_then(|error| Some((error.constraint()?, error.message())));
        if let Some((constraint @ ("license_limit" | "license_state"), said)) = violated {
            let code = if constraint == "license_limit" { Code::LicenseLimit } else { Code::LicenseState };
            return Self::new(code, said.to_owned());
        }
        match (known, sql_state.as_str()) {
            // Text that PostgreSQL cannot hold; fields are checked for it before, this is the net below.
            (E::Database(_), "22021" | "22P05") => Self::new(
                Code::InvalidField,
                "a text contains the character U+0000, which cannot be stored; leave it out",
            )
            .because(error),
            (E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed, _)
            | (E::Database(_), "40001" | "40P01" | "53300" | "55P03" | "57P01" | "57P02" | "57P03") => Self::new(
                Code::Unavailable,
                "the ledger does not answer at the moment; nothing was stored for sure, try again",
            )
            .because(error),
            _ => Self::internal(error),
        }
    }

    pub(crate) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "it was noted; tell us the request_id if it happens again").because(cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// A constraint that was violated, as an error for the caller.
pub trait OnConstraint<T> {
    /// Turns the violation of one constraint into an error of its own.
    ///
    /// # Errors
    /// As before, or that one.
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T, Error>;
}

impl<T, E: Into<Error> + AsDatabase> OnConstraint<T> for Result<T, E> {
    fn on_constraint(self, name: &str, error: impl FnOnce() -> Error) -> Result<T, Error> {
        self.map_err(|failure| match failure.database() {
            Some(sqlx::Error::Database(violation)) if violation.constraint() == Some(name) => error(),
            _ => failure.into(),
        })
    }
}

/// An error that may be the database's.
pub trait AsDatabase {
    /// The database's error.
    fn database(&self) -> Option<&sqlx::Error>;
}

impl AsDatabase for ScheduleError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl AsDatabase for sqlx::Error {
    fn database(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::database(error)
    }
}

/// One failure that several requests share.
impl From<Arc<sqlx::Error>> for Error {
    fn from(error: Arc<sqlx::Error>) -> Self {
        Self::database(error)
    }
}

impl From<gantry_schema::people::hashing::HashError> for Error {
    fn from(error: gantry_schema::people::hashing::HashError) -> Self {
        Self::internal(error)
    }
}

impl From<gantry_schema::seal::SealError> for Error {
    fn from(error: gantry_schema::seal::SealError) -> Self {
        Self::internal(error)
    }
}

impl From<gantry_schema::messages::queries::MessageError> for Error {
    fn from(error: gantry_schema::messages::queries::MessageError) -> Self {
        use gantry_schema::messages::queries::MessageError;
        match error {
            MessageError::Database(error) => Self::database(error),
            MessageError::Seal(error) => error.into(),
            error @ MessageError::Malformed(_) => Self::internal(error),
        }
    }
}

impl From<gantry_schema::credentials::queries::CredentialError> for Error {
    fn from(error: gantry_schema::credentials::queries::CredentialError) -> Self {
        use gantry_schema::credentials::queries::CredentialError;
        match error {
            CredentialError::Database(error) => Self::database(error),
            CredentialError::Seal(error) => error.into(),
            error @ CredentialError::Malformed(_) => Self::internal(error),
        }
    }
}

impl AsDatabase for gantry_schema::credentials::queries::CredentialError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl AsDatabase for gantry_schema::servers::keys::SshKeyError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            _ => None,
        }
    }
}

impl From<gantry_schema::servers::keys::SshKeyError> for Error {
    fn from(error: gantry_schema::servers::keys::SshKeyError) -> Self {
        use gantry_schema::servers::keys::SshKeyError;
        match error {
            SshKeyError::Database(error) => Self::database(error),
            SshKeyError::Seal(error) => error.into(),
            error @ SshKeyError::Generate => Self::internal(error),
        }
    }
}

impl From<gantry_schema::modules::queries::GivenError> for Error {
    fn from(error: gantry_schema::modules::queries::GivenError) -> Self {
        use gantry_schema::modules::queries::GivenError;
        match error {
            GivenError::Database(error) => Self::database(error),
            GivenError::Seal(error) => error.into(),
            error @ GivenError::Malformed(_) => Self::internal(error),
        }
    }
}

impl From<gantry_jobs::messages::SendError> for Error {
    fn from(error: gantry_jobs::messages::SendError) -> Self {
        use gantry_jobs::messages::SendError;
        match error {
            SendError::Message(error) => error.into(),
            SendError::Request(error) => error.into(),
        }
    }
}

impl From<gantry_schema::licenses::queries::IssuerError> for Error {
    fn from(error: gantry_schema::licenses::queries::IssuerError) -> Self {
        match error {
            gantry_schema::licenses::queries::IssuerError::Database(error) => Self::database(error),
            other => Self::internal(other),
        }
    }
}

impl From<gantry_schema::idempotency::Error> for Error {
    fn from(error: gantry_schema::idempotency::Error) -> Self {
        match error {
            gantry_schema::idempotency::Error::Database(error) => Self::database(error),
            gantry_schema::idempotency::Error::Seal(error) => error.into(),
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        let detail = error.to_string();
        match error {
            RequestError::PayloadTooLarge { .. } => Self::new(Code::PayloadTooLarge, detail).at("payload"),
            RequestError::Payload(cause) => Self::internal(cause),
            RequestError::TooMany { .. } => Self::new(Code::TooManyJobs, detail).at("jobs"),
            RequestError::TooManyDeliveries { .. } => Self::new(Code::TooManyDeliveries, detail).at("events"),
            RequestError::TooFarAhead => Self::field("run_at", detail),
            RequestError::ExpiresBeforeRun => Self::field("expires_at", detail),
            RequestError::Priority(_) => Self::field("priority", detail),
            RequestError::Enqueue(EnqueueError::UnknownPredecessor(_)) => {
                Self::new(Code::UnknownPredecessor, format!("{detail}; ask for it first, or leave it out")).at("after")
            }
            RequestError::Enqueue(EnqueueError::Database(error)) => Self::database(error),
        }
    }
}

impl From<EnqueueError> for Error {
    fn from(error: EnqueueError) -> Self {
        RequestError::from(error).into()
    }
}

impl From<KindError> for Error {
    fn from(error: KindError) -> Self {
        let detail = error.to_string();
        match error {
            KindError::Unknown(_) => {
                Self::new(Code::UnknownKind, format!("{detail}; GET /job-kinds lists those there are")).at("kind")
            }
            KindError::Payload { .. } => {
                Self::new(Code::InvalidPayload, format!("{detail}; GET /job-kinds says what it is for")).at("payload")
            }
            KindError::Request(error) => error.into(),
        }
    }
}

impl From<CronError> for Error {
    fn from(error: CronError) -> Self {
        let code = if error.field() == "time_zone" { Code::UnknownTimeZone } else { Code::InvalidCron };
        Self::new(code, error.to_string()).at(error.field())
    }
}

impl From<ScheduleError> for Error {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Cron(error) => error.into(),
            ScheduleError::Kind(error) => error.into(),
            ScheduleError::Internal(kind) => Self::not_public(&kind),
            ScheduleError::Database(error) => Self::database(error),
        }
    }
}

impl Error {
    /// The kind of job is asked for by the platform only.
    #[must_use]
    pub fn not_public(kind: &str) -> Self {
        Self::new(
            Code::KindNotPublic,
            format!("jobs of kind {kind} are asked for by the platform only; GET /job-kinds lists the others"),
        )
        .at("kind")
    }
}

/// Through poem as it is, so that the answer can name the request.
impl From<Error> for poem::Error {
    fn from(error: Error) -> Self {
        let status = error.code.status();
        Self::new(error, status)
    }
}

/// What poem and poem-openapi refuse by themselves, in our words.
pub fn from_poem(error: &poem::Error) -> Option<Error> {
    use poem::error::{MethodNotAllowedError, NotFoundError, ReadBodyError};
    use poem_openapi::error::{ParseParamError, ParsePathError};

    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        return Some(Error::parameter(error.name, readable(&error.reason)));
    }
    if let Some(wrong) = error.downcast_ref::<ParsePathError>() {
        let operation = error.data::<OperationId>().map_or("", |operation| operation.0);
        let name = routes::path_parameter(operation, wrong.name).unwrap_or(wrong.name);
        return Some(Error::parameter(name, readable(&wrong.reason)));
    }
    if error.is::<NotFoundError>() {
        return Some(Error::new(Code::UnknownRoute, "no operation has this path; /openapi.json lists them all"));
    }
    if error.is::<MethodNotAllowedError>() {
        return Some(Error::new(
            Code::MethodNotAllowed,
            "no operation has this path and this method; /openapi.json lists them all",
        ));
    }
    if error.is::<ReadBodyError>() {
        return Some(Error::new(Code::MalformedJson, "the body ended before it was complete; send it again"));
    }
    match error.status() {
        status if status.is_client_error() => Some(Error::new(
            Code::InvalidParameter,
            format!("the request cannot be understood: {error}; /openapi.json says how it should look"),
        )),
        _ => None,
    }
}

/// poem-openapi's messages are wrapped in the Rust names of types.
fn readable(reason: &str) -> &str {
    let reason = reason.split(" (occurred while parsing").next().unwrap_or(reason);
    if reason.starts_with("Expect a valid enumeration value") {
        return "this is none of the words allowed here; /openapi.json lists them";
    }
    reason.strip_prefix("failed to parse \"").and_then(|rest| rest.split_once("\": ")).map_or(reason, |(_, rest)| rest)
}

/// A refused request, as RFC 9457 describes it.
#[derive(Debug, Clone, Object)]
#[oai(example)]
pub struct Problem {
    /// Names the kind of problem; the same as `code`.
    pub r#type: String,
    /// The same for every problem with this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong in this case, and what to do about it.
    pub detail: String,
    /// What went wrong, as a word that never changes. Programs compare with this.
    pub code: String,
    /// The path of the request.
    pub instance: String,
    /// The id of the request, also in the header `X-Request-Id`.
    pub request_id: String,
    /// Of `forbidden`: the rule that refused: `scope`, `role`, `platform_only`, `above`, `support`, `escalation`,
    /// `organization_suspended`, …; `POST /permissions/explain` tells them all.
    #[oai(skip_serializing_if_is_none)]
    pub reason: Option<String>,
    /// The field of the body, or the parameter, that is at fault.
    #[oai(skip_serializing_if_is_none)]
    pub field: Option<String>,
    /// Of `insufficient_user_authentication`: the proof may be so many seconds old.
    #[oai(skip_serializing_if_is_none)]
    pub max_age: Option<i64>,
    /// What is wrong with each item of a bulk request; the first hundred.
    #[oai(skip_serializing_if_is_none)]
    pub errors: Option<Vec<ItemProblem>>,
    /// The limits that are used up, as the header `RateLimit` names them.
    #[oai(rename = "violated-policies", skip_serializing_if_is_none)]
    pub violated_policies: Option<Vec<String>>,
}

example!(Problem, {
    "type": "urn:gantry:problem:invalid_jobs",
    "title": "Some of the jobs cannot be asked for; none was stored",
    "status": 422,
    "detail": "1 of the jobs cannot be asked for, see errors; put them right or leave them out, and send all again",
    "code": "invalid_jobs",
    "instance": "/jobs/bulk",
    "request_id": "req_019bc0f45a3b7cc1a4f2d1f0c0ffee00",
    "field": "jobs[3]",
    "errors": [{
        "index": 3,
        "code": "unknown_kind",
        "field": "kind",
        "detail": "there is no kind of job called \"no.such\"; GET /job-kinds lists those there are",
    }],
});

/// What is wrong with one item of a bulk request.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
pub struct ItemProblem {
    /// Its place in the request, from 0.
    pub index: u64,
    /// What is wrong, as a word that never changes.
    pub code: String,
    /// The field of the item that is at fault.
    #[oai(skip_serializing_if_is_none)]
    pub field: Option<String>,
    /// What is wrong, and what to do about it.
    pub detail: String,
}

/// Documents the problem as every operation's answer to what it cannot do.
impl ApiResponse for Error {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Refused: a problem document (RFC 9457), whatever is wrong. Compare `code`, show `detail`.",
                status: None,
                status_range: None,
                content: vec![MetaMediaType { content_type: PROBLEM_JSON, schema: Problem::schema_ref() }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_word_of_its_own() {
        let mut words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(
            words.iter().all(|word| word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit()))
        );
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn what_only_the_log_may_say_is_not_in_the_answer() {
        let error = Error::from(sqlx::Error::Protocol("password=hunter2".into()));
        let document = error.problem("req_1", "/jobs").to_json_string();
        assert!(!document.contains("hunter2"), "{document}");
        assert_eq!(error.code(), Code::Internal);
        assert!(error.source().is_some());
    }
}
