//! Who is asking, and what he may do.
//!
//! An operation says in its signature which permission it needs, `caller: May<ReadJobs>`, and gets the organization from
//! it and from nowhere else: one that forgets to ask for permission has nothing to pass to a query, and does not compile.
//! The document says of each operation what its type says. What an operation needs besides, depending on what the
//! request wants, it asks with [`Caller::may`] and says in its description. An operation about the caller himself takes
//! a plain `caller: Caller`: whoever is known may use it, and no organization is had from it.
//!
//! ```compile_fail
//! # use gantry_api::caller::Caller;
//! # use gantry_schema::OrganizationId;
//! fn organization(caller: &Caller) -> OrganizationId {
//!     caller.organization()
//! }
//! ```

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::By;
use gantry_schema::api_keys::{self, ApiKey, Token};
use gantry_schema::audit::Actor;
use gantry_schema::memberships;
use gantry_schema::organizations::{self, Needed, Permission, Permissions};
use gantry_schema::sessions::Known;
use gantry_schema::token::AccessToken;
use gantry_schema::{Db, OrganizationId, PersonId, SessionId};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use uuid::Uuid;

use crate::app::App;
use crate::audit::about::About;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::rate;
use crate::sessions::cookie;

/// The header that names the organization to act for.
pub(crate) const ORGANIZATION: &str = "X-Organization-Id";

/// For how long what somebody proved of himself is believed where it matters most.
pub(crate) const FRESH: TimeDelta = TimeDelta::minutes(10);

/// Who is asking.
#[derive(Debug, Clone)]
pub struct Caller {
    who: Who,
    authority: Authority,
    by: By,
}

/// By what a caller is known.
#[derive(Debug, Clone)]
enum Who {
    /// An API key that works.
    ApiKey(Arc<ApiKey>),
    /// A session that goes on.
    Person(Arc<Known>),
}

/// What a caller may do, and where. It is made when the request is read, by whatever way the caller is known.
#[derive(Debug, Clone, Copy)]
struct Authority {
    /// `None`: somebody who is a member of nothing.
    organization: Option<OrganizationId>,
    permissions: Permissions,
}

impl Caller {
    /// Lets what needs this permission go on.
    ///
    /// # Errors
    /// When the caller does not have it.
    pub fn may(&self, permission: Permission) -> Result<(), Error> {
        self.in_which(permission).map(drop)
    }

    /// The organization in which the caller has the permission.
    fn in_which(&self, permission: Permission) -> Result<OrganizationId, Error> {
        let Authority { organization, permissions } = self.authority;
        let Some(organization) = organization else {
            return Err(Error::new(
                Code::Forbidden,
                "you are a member of no organization, or act for none; accept an invitation, or switch to one of yours",
            ));
        };
        if !permissions.contain(permission) {
            let detail = match &self.who {
                Who::ApiKey(key) => format!(
                    "this needs the scope {permission}, which the API key {}… does not have; use or make one that has it",
                    key.hint
                ),
                Who::Person(known) => format!(
                    "this needs the permission {permission}, which the role {} in {organization} does not have; ask one \
                     of its owners",
                    known.role.map_or("you have", |role| role.as_str())
                ),
            };
            return Err(Error::new(Code::Forbidden, detail));
        }
        if permission == Permission::OperatePlatform && organization != OrganizationId::PLATFORM {
            return Err(Error::new(
                Code::Forbidden,
                "this concerns every organization, so it needs an API key, or a member, of the platform's own organization",
            ));
        }
        Ok(organization)
    }

    /// Whether the caller itself has this permission, so that it can pass it on.
    #[must_use]
    pub const fn has(&self, permission: Permission) -> bool {
        self.authority.permissions.contain(permission)
    }

    /// Lets go on whoever proved who he is within the last minutes. A program that calls by a key cannot prove more than
    /// the key.
    ///
    /// # Errors
    /// When it was longer ago (RFC 9470).
    pub fn proven_lately(&self, now: DateTime<Utc>) -> Result<(), Error> {
        match &self.who {
            Who::Person(known) if now - known.authenticated_at > FRESH => Err(Error::prove_anew(FRESH)),
            Who::Person(_) | Who::ApiKey(_) => Ok(()),
        }
    }

    /// Whose requests are told apart by their `Idempotency-Key`: the key's or the person's.
    #[must_use]
    pub fn sender(&self) -> Uuid {
        match &self.who {
            Who::ApiKey(key) => key.id.uuid(),
            Who::Person(known) => known.person.uuid(),
        }
    }

    /// Who it is, as the record names it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::ApiKey(key) => Actor::api_key(key.id).of(key.organization).called(&key.name),
            Who::Person(known) => Actor::person(known.person),
        }
    }

    /// What gives it the right to do something, as the record names it.
    #[must_use]
    pub fn source_of_authority(&self) -> String {
        match &self.who {
            Who::ApiKey(key) => format!("api_key:{}", key.id),
            Who::Person(known) => known.role.map_or_else(|| "person".to_owned(), |role| format!("role:{role}")),
        }
    }

    /// Where a refusal is recorded.
    pub(crate) fn home(&self) -> OrganizationId {
        self.authority.organization.unwrap_or(OrganizationId::PLATFORM)
    }

    /// On whose behalf jobs are asked for.
    #[must_use]
    pub const fn by(&self) -> &By {
        &self.by
    }
}

/// A caller who has the permission that an operation needs.
#[derive(Debug, Clone)]
pub struct May<P> {
    caller: Caller,
    organization: OrganizationId,
    permission: PhantomData<fn() -> P>,
}

impl<P: Needed> May<P> {
    /// The caller's organization, in which it has the permission.
    #[must_use]
    pub const fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// The organization, if the caller acts inside it.
    ///
    /// # Errors
    /// When it acts above it, or there is no such organization.
    pub async fn inside(&self, db: &Db, wanted: OrganizationId) -> Result<OrganizationId, Error> {
        let own = self.organization();
        if wanted == own {
            return Ok(own);
        }
        let mut tx = db.tenant(own).await?;
        organizations::find(&mut tx, wanted).await?.ok_or_else(|| Error::not_found(wanted))?;
        Err(Error::new(
            Code::Forbidden,
            "whoever stands above an organization sees it, and acts inside it only with a role there",
        ))
    }

    /// The organization to act for: the caller's, or one below it.
    ///
    /// # Errors
    /// When there is no such organization.
    pub async fn may_for(&self, db: &Db, wanted: Option<OrganizationId>) -> Result<OrganizationId, Error> {
        let own = self.organization();
        match wanted {
            Some(wanted) if wanted != own => {
                let mut tx = db.tenant(own).await?;
                let found = organizations::find(&mut tx, wanted).await?.ok_or_else(|| Error::not_found(wanted))?;
                Ok(found.id)
            }
            _ => Ok(own),
        }
    }
}

impl<P> Deref for May<P> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// Somebody who signed in, about himself. An API key is nobody.
#[derive(Debug, Clone)]
pub struct Me {
    caller: Caller,
    known: Arc<Known>,
    csrf_token: Option<String>,
    address: Option<IpAddr>,
    about: About,
}

impl Me {
    /// Who.
    #[must_use]
    pub fn person(&self) -> PersonId {
        self.known.person
    }

    /// By which session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.known.session
    }

    /// For which organization, and as what.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// From where.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// What the record says of his request.
    pub(crate) const fn about(&self) -> &About {
        &self.about
    }

    /// Of a browser: what its requests have to carry.
    pub(crate) fn csrf_token(&self) -> Option<String> {
        self.csrf_token.clone()
    }
}

impl Deref for Me {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// What the document calls the ways to authenticate.
const API_KEY: &str = "ApiKey";
const ACCESS_TOKEN: &str = "AccessToken";
const COOKIE: &str = "SessionCookie";

fn bearer(description: &'static str, format: &'static str) -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some(description),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some(format),
        flows: None,
        openid_connect_url: None,
    }
}

fn register_session(registry: &mut Registry) {
    let access = "A session of a program: `Authorization: Bearer gsa_…`, of `POST /sessions`. What it allows is what the \
         person may do in the organization he acts for: the session's, or that of `X-Organization-Id`.";
    registry.create_security_scheme(ACCESS_TOKEN, bearer(access, "gsa_ and 43 characters"));
    registry.create_security_scheme(
        COOKIE,
        MetaSecurityScheme {
            ty: "apiKey",
            description: Some(
                "A session of a browser: a cookie, of `POST /sessions`. What changes something carries `X-CSRF-Token` too.",
            ),
            name: Some(cookie::NAME),
            key_in: Some("cookie"),
            scheme: None,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let key = "An API key: `Authorization: Bearer gk_…`. Its scopes say what it allows.";
        registry.create_security_scheme(API_KEY, bearer(key, "gk_ and 43 characters"));
        register_session(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![API_KEY, ACCESS_TOKEN, COOKIE]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        Ok(authenticate(request).await?)
    }
}

impl<'a, P: Needed> ApiExtractor<'a> for May<P> {
    const TYPES: &'static [ApiExtractorType] = <Caller as ApiExtractor>::TYPES;

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Caller as ApiExtractor>::register(registry);
    }

    /// The permission goes with them, for poem-openapi has no other way from a type to the scopes of an operation.
    /// [`crate::parameters::Described`] puts it where it belongs.
    fn security_schemes() -> Vec<&'static str> {
        let mut schemes = <Caller as ApiExtractor>::security_schemes();
        schemes.push(P::PERMISSION.as_str());
        schemes
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let caller = authenticate(request).await?;
        let organization = caller.in_which(P::PERMISSION)?;
        Ok(Self { caller, organization, permission: PhantomData })
    }
}

impl<'a> ApiExtractor<'a> for Me {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_session(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![ACCESS_TOKEN, COOKIE]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let caller = authenticate(request).await?;
        let Who::Person(known) = &caller.who else {
            let detail = "this is about the person who asks, and an API key is none; sign in with POST /sessions";
            return Err(Error::new(Code::Forbidden, detail).into());
        };
        let known = Arc::clone(known);
        let csrf_token = match presented(request)? {
            Presented::Cookie(token) => Some(cookie::csrf_token(&token)),
            Presented::Access(_) | Presented::ApiKey(_) => None,
        };
        let address = request.data::<RequestInfo>().and_then(|info| info.address);
        Ok(Self { caller, known, csrf_token, address, about: About::find(request)? })
    }
}

async fn authenticate(request: &Request) -> Result<Caller, Error> {
    let caller = identify(request).await?;
    if let Some(about) = request.data::<About>() {
        about.is_from(&caller);
    }
    Ok(caller)
}

async fn identify(request: &Request) -> Result<Caller, Error> {
    let app = request.data::<App>().ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
    let info = request.data::<RequestInfo>();
    let traceparent = info.map(|info| info.traceparent.clone());
    let wanted = wanted(request)?;
    let hash = match presented(request)? {
        Presented::ApiKey(token) => {
            if !app.keys.knows(&token) {
                rate::refuse_guesses(app, request)?;
            }
            let Some(key) = app.keys.verify(&app.db, &token).await? else {
                rate::count_wrong_credential(app, request).await?;
                let detail = "there is no such API key, or it expired or was revoked; make a new one";
                return Err(refused(detail).at("Authorization"));
            };
            rate::admit(request, app, key.organization, key.id.uuid()).await?;
            if wanted.is_some_and(|wanted| wanted != key.organization) {
                return Err(Error::not_found(ORGANIZATION).at(ORGANIZATION));
            }
            let by = By::api_key(key.id).traced(traceparent);
            let permissions = key.scopes.iter().copied().collect();
            let authority = Authority { organization: Some(key.organization), permissions };
            return Ok(Caller { who: Who::ApiKey(key), authority, by });
        }
        Presented::Access(token) => token.hash(),
        Presented::Cookie(token) => {
            cookie::check(app, request, &token)?;
            token.hash()
        }
    };
    let address = info.and_then(|info| info.address).map(|address| address.to_string());
    if !app.sessions.knows(hash, wanted, app.db.now()) {
        rate::refuse_guesses(app, request)?;
    }
    let Some(known) = app.sessions.verify(&app.db, hash, wanted, address.as_deref()).await? else {
        rate::count_wrong_credential(app, request).await?;
        return Err(refused("the session has ended; sign in again").at("Authorization"));
    };
    // Who acts for no organization is counted by the platform's own allowance, each by himself.
    let organization = known.organization.unwrap_or(OrganizationId::PLATFORM);
    rate::admit(request, app, organization, known.person.uuid()).await?;
    if let Some(wanted) = wanted.filter(|_| known.organization.is_none()) {
        return Err(Error::not_found(wanted).at(ORGANIZATION));
    }
    let permissions = match (known.organization, known.role) {
        (Some(organization), Some(role)) => memberships::permissions_of(role, organization).into_iter().collect(),
        _ => Permissions::default(),
    };
    let by = By::person(known.person).traced(traceparent);
    let authority = Authority { organization: known.organization, permissions };
    Ok(Caller { who: Who::Person(known), authority, by })
}

/// What a request is known by.
enum Presented {
    ApiKey(Token),
    Access(AccessToken),
    Cookie(gantry_schema::token::CookieToken),
}

fn refused(detail: impl Into<String>) -> Error {
    Error::new(Code::Unauthenticated, detail)
}

fn presented(request: &Request) -> Result<Presented, Error> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return cookie::presented(request.headers()).map(Presented::Cookie).ok_or_else(|| {
            refused("send the header `Authorization: Bearer gk_…` with an API key, or sign in with POST /sessions")
                .at("Authorization")
        });
    };
    let refused = |detail: String| refused(detail).at("Authorization");
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused("the header is to be `Authorization: Bearer gk_…`".into()));
    }
    let token = token.trim();
    if token.starts_with("gsa_") {
        return AccessToken::parse(token).map(Presented::Access).map_err(|error| refused(error.to_string()));
    }
    Token::parse(token).map(Presented::ApiKey).map_err(|error| refused(error.to_string()))
}

/// The organization that a request names.
fn wanted(request: &Request) -> Result<Option<OrganizationId>, Error> {
    let mut values = request.headers().get_all(ORGANIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::parameter(ORGANIZATION, "there are two of them; send the header once"));
    }
    let text = value.to_str().unwrap_or_default();
    text.parse()
        .map(Some)
        .map_err(|error: gantry_schema::id::InvalidId| Error::parameter(ORGANIZATION, error.to_string()))
}

/// How long a verified key is believed without looking: a revoked key stops working within this.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Verified keys that are remembered.
const REMEMBERED: usize = 10_000;

/// Keys that were verified a moment ago, by hash, so that a busy caller costs one lookup per second.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<HashMap<[u8; 32], Verified>>);

#[derive(Debug, Clone)]
struct Verified {
    key: Arc<ApiKey>,
    at: DateTime<Utc>,
}

impl Verified {
    fn is_believed(&self, now: DateTime<Utc>) -> bool {
        let age = now - self.at;
        (TimeDelta::zero()..BELIEVED).contains(&age) && self.key.expires_at.is_none_or(|expires_at| expires_at > now)
    }
}

impl Keys {
    async fn verify(&self, db: &Db, token: &Token) -> Result<Option<Arc<ApiKey>>, Error> {
        let (hash, now) = (token.hash(), db.now());
        if let Some(verified) = self.lock().get(&hash).filter(|verified| verified.is_believed(now)) {
            return Ok(Some(Arc::clone(&verified.key)));
        }
        let found = api_keys::authenticate(&mut db.credential(hash).await?).await?.map(Arc::new);
        let mut known = self.lock();
        match &found {
            Some(key) => {
                if known.len() >= REMEMBERED {
                    known.retain(|_, verified| verified.is_believed(now));
                }
                if known.len() < REMEMBERED {
                    known.insert(hash, Verified { key: Arc::clone(key), at: now });
                }
            }
            None => drop(known.remove(&hash)),
        }
        Ok(found)
    }

    /// Whether it was a key a while ago.
    fn knows(&self, token: &Token) -> bool {
        self.lock().contains_key(&token.hash())
    }

    /// Looks at every key again.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Verified>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
