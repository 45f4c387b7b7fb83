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
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::By;
use gantry_schema::api_keys::{self, ApiKey, Token};
use gantry_schema::organizations::{self, Needed, Permission, Permissions};
use gantry_schema::{ApiKeyId, Db, OrganizationId};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::app::App;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::rate;

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
}

/// What a caller may do, and where. It is made when the request is read, by whatever way the caller is known.
#[derive(Debug, Clone, Copy)]
struct Authority {
    organization: OrganizationId,
    permissions: Permissions,
}

impl Caller {
    /// Lets what needs this permission go on.
    ///
    /// # Errors
    /// When the caller does not have it.
    pub fn may(&self, permission: Permission) -> Result<(), Error> {
        let Authority { organization, permissions } = self.authority;
        if !permissions.contain(permission) {
            let Who::ApiKey(key) = &self.who;
            return Err(Error::new(
                Code::Forbidden,
                format!(
                    "this needs the scope {permission}, which the API key {}… does not have; use or make one that has it",
                    key.hint
                ),
            ));
        }
        if permission == Permission::OperatePlatform && organization != OrganizationId::PLATFORM {
            return Err(Error::new(
                Code::Forbidden,
                "this concerns every organization, so it needs an API key of the platform's own organization",
            ));
        }
        Ok(())
    }

    /// Whether the caller itself has this permission, so that it can pass it on.
    #[must_use]
    pub const fn has(&self, permission: Permission) -> bool {
        self.authority.permissions.contain(permission)
    }

    /// The key it presented.
    #[must_use]
    pub fn api_key(&self) -> ApiKeyId {
        let Who::ApiKey(key) = &self.who;
        key.id
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
    permission: PhantomData<fn() -> P>,
}

impl<P: Needed> May<P> {
    /// The caller's organization, in which it has the permission.
    #[must_use]
    pub const fn organization(&self) -> OrganizationId {
        self.caller.authority.organization
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

/// What the document calls the way to authenticate.
pub(crate) const SCHEME: &str = "ApiKey";

impl<'a> ApiExtractor<'a> for Caller {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(
            SCHEME,
            MetaSecurityScheme {
                ty: "http",
                description: Some("An API key: `Authorization: Bearer gk_…`. Its scopes say what it allows."),
                name: None,
                key_in: None,
                scheme: Some("bearer"),
                bearer_format: Some("gk_ and 43 characters"),
                flows: None,
                openid_connect_url: None,
            },
        );
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
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
        vec![SCHEME, P::PERMISSION.as_str()]
    }

    async fn from_request(request: &'a Request, _: &mut RequestBody, _: ExtractParamOptions<()>) -> poem::Result<Self> {
        let caller = authenticate(request).await?;
        caller.may(P::PERMISSION)?;
        Ok(Self { caller, permission: PhantomData })
    }
}

async fn authenticate(request: &Request) -> Result<Caller, Error> {
    let app = request.data::<App>().ok_or_else(|| Error::new(Code::Internal, "the server was put together wrongly"))?;
    let token = presented(request)?;
    if !app.keys.knows(&token) {
        rate::refuse_guesses(app, request)?;
    }
    let Some(key) = app.keys.verify(&app.db, &token).await? else {
        rate::count_wrong_credential(app, request).await?;
        let detail = "there is no such API key, or it expired or was revoked; make a new one";
        return Err(Error::new(Code::Unauthenticated, detail).at("Authorization"));
    };
    rate::admit(request, app, key.organization, key.id).await?;
    let traceparent = request.data::<RequestInfo>().map(|info| info.traceparent.clone());
    let by = By::api_key(key.id).traced(traceparent);
    let authority = Authority { organization: key.organization, permissions: key.scopes.iter().copied().collect() };
    Ok(Caller { who: Who::ApiKey(key), authority, by })
}

fn presented(request: &Request) -> Result<Token, Error> {
    let refused = |detail: String| Error::new(Code::Unauthenticated, detail).at("Authorization");
    let value = request
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| refused("send the header `Authorization: Bearer gk_…` with an API key".into()))?;
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused("the header is to be `Authorization: Bearer gk_…`".into()));
    }
    Token::parse(token.trim()).map_err(|error| refused(error.to_string()))
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
