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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::By;
use gantry_schema::access::{self, Behind, Reach, Reason, Subject};
use gantry_schema::api_keys::{self, ApiKey, Token};
use gantry_schema::audit::{Actor, ActorKind};
use gantry_schema::defence::Effective;
use gantry_schema::oauth::authorizations::Opened;
use gantry_schema::oauth::scope::Scopes;
use gantry_schema::organizations::{self, Needed, Permission, Permissions};
use gantry_schema::sessions::Known;
use gantry_schema::token::AccessToken;
use gantry_schema::usage::Credential;
use gantry_schema::{Db, OrganizationId, PersonId, SessionId, SupportId};
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use tracing::debug;
use uuid::Uuid;

use crate::app::App;
use crate::audit::about::About;
use crate::client::hosts;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::sessions::cookie;
use crate::{rate, scope};

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
    /// An application's access token, of an authorization that goes on.
    Application(Arc<Opened>),
}

/// What a caller may do, and where. It is made when the request is read, by whatever way the caller is known.
#[derive(Debug, Clone)]
struct Authority {
    /// Of somebody who is a member of nothing it is held that he may nothing, nowhere.
    subject: Subject,
    nowhere: bool,
    permissions: Permissions,
    /// What was said of the organization he is of, if it is held.
    told: Option<Arc<str>>,
    /// By which support he acts where he does.
    support: Option<SupportId>,
}

impl Authority {
    fn of(subject: Subject, told: Option<Arc<str>>, support: Option<SupportId>) -> Self {
        Self { subject, nowhere: false, permissions: subject.may(), told, support }
    }

    /// Of somebody whose organization wants more proof of him than he has given, or not.
    fn unproven(self, unproven: bool) -> Self {
        let subject = Subject { unproven, ..self.subject };
        Self { subject, permissions: subject.may(), ..self }
    }

    /// Of somebody who is a member of nothing, or acts for nothing.
    fn nowhere() -> Self {
        let subject = Subject {
            organization: OrganizationId::PLATFORM,
            reach: Reach::Inside,
            hold: None,
            barred: None,
            unproven: false,
            scopes: Some(Permissions::default()),
            behind: Behind::Left,
            license: Permissions::all(),
        };
        Self { nowhere: true, ..Self::of(subject, None, None) }
    }
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
        if self.authority.nowhere {
            return Err(Error::new(
                Code::Forbidden,
                "you are a member of no organization, or act for none; accept an invitation, or switch to one of yours",
            )
            .reason("no_organization"));
        }
        match self.authority.subject.decide(permission) {
            Ok(()) => Ok(self.authority.subject.organization),
            Err(rule) => Err(self.refused(permission, rule)),
        }
    }

    /// Why the caller does not have the permission.
    fn refused(&self, permission: Permission, rule: Reason) -> Error {
        let organization = self.authority.subject.organization;
        let detail = match (rule, &self.who) {
            (Reason::OrganizationSuspended, _) => match &self.authority.told {
                Some(told) => format!("the organization is suspended: {told}; ask whoever runs the platform"),
                None => "an organization above yours is suspended; ask whoever runs the platform".to_owned(),
            },
            (Reason::OrganizationDeleted, _) => {
                "the organization was deleted, and can only be restored; ask whoever runs the platform".to_owned()
            }
            (Reason::LockedDown, _) => "the organization, or one above it, is locked down: nothing is done for anybody of it until \
                                        it is unlocked"
                .to_owned(),
            (Reason::SourceAddress, _) => {
                "the organization may be asked only from its networks, and you ask from elsewhere".to_owned()
            }
            (Reason::SourceCountry, _) => {
                "the organization may be asked only from some countries, and you ask from another, or from nobody knows where"
                    .to_owned()
            }
            (Reason::SecondFactor, _) => "the organization, or one above it, wants everybody to have a second factor: enrol one with \
                                          POST /me/factors/totp or a passkey, or prove yourself with the one you have"
                .to_owned(),
            (Reason::OwnerLeft, _) => {
                "whoever made the key is no member any more, so it allows nothing; make a new one".to_owned()
            }
            (Reason::MembershipSuspended, _) => {
                "the membership of whoever made the key is suspended; ask one of the owners".to_owned()
            }
            (Reason::PlatformOnly, _) => {
                "this concerns every organization, so it needs an API key, or a member, of the platform's own organization"
                    .to_owned()
            }
            (Reason::Scope, Who::ApiKey(key)) => format!(
                "this needs the scope {permission}, which the API key {}… does not have; use or make one that has it",
                key.hint
            ),
            (Reason::Role, Who::ApiKey(key)) => format!(
                "this needs the permission {permission}, which the role of whoever made the API key {}… does not have now",
                key.hint
            ),
            (Reason::Scope | Reason::Role, Who::Person(known)) => format!(
                "this needs the permission {permission}, which the role {} in {organization} does not have; ask one of its \
                 owners",
                known.role.map_or("you have", |role| role.as_str())
            ),
            (Reason::Scope | Reason::Role, Who::Application(opened)) => format!(
                "this needs the scope {permission}, which the application {} does not have here, or whose person may not do \
                 it himself; ask him for it",
                opened.client_name
            ),
            (Reason::Above, _) => FROM_ABOVE.to_owned(),
            (Reason::License, _) => format!(
                "the license of {organization} does not allow {permission} now; GET /license says what it allows, and until when"
            ),
            (Reason::Support, _) => format!(
                "the support you were given in {organization} does not cover {permission}; take one that does, with POST \
                 /organizations/{organization}/support"
            ),
        };
        let code = match rule {
            Reason::LockedDown => Code::LockedDown,
            Reason::SourceAddress | Reason::SourceCountry => Code::SourceNotAllowed,
            Reason::SecondFactor => Code::SecondFactorRequired,
            _ => Code::Forbidden,
        };
        Error::new(code, detail).reason(rule.as_str())
    }

    /// Whether it is no person, or one who proved himself with a second factor as these policies want it.
    pub(crate) fn is_proven_for(&self, policies: &Effective) -> bool {
        match &self.who {
            Who::Person(known) => policies.accepts(&known.factors),
            Who::ApiKey(_) | Who::Application(_) => true,
        }
    }

    /// What is known of the caller, as the rules look at it.
    pub(crate) const fn subject(&self) -> &Subject {
        &self.authority.subject
    }

    /// The person that it is, or that is behind it; `None`: the organization itself.
    #[must_use]
    pub fn person(&self) -> Option<PersonId> {
        match &self.who {
            Who::ApiKey(key) => key.owner,
            Who::Person(known) => Some(known.person),
            Who::Application(opened) => opened.person,
        }
    }

    /// The support by which it acts where it does.
    #[must_use]
    pub const fn support(&self) -> Option<SupportId> {
        self.authority.support
    }

    /// Whether the caller itself has this permission, so that it can pass it on.
    #[must_use]
    pub const fn has(&self, permission: Permission) -> bool {
        self.authority.permissions.contain(permission)
    }

    /// Whether it acts in the organization it is of.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.authority.subject.reach == Reach::Inside
    }

    /// All that the caller may do where it acts.
    #[must_use]
    pub const fn permissions(&self) -> Permissions {
        self.authority.permissions
    }

    /// Lets go on whoever proved who he is within the last minutes. A program that calls by a key cannot prove more than
    /// the key.
    ///
    /// # Errors
    /// When it was longer ago (RFC 9470).
    pub fn proven_lately(&self, now: DateTime<Utc>) -> Result<(), Error> {
        match &self.who {
            Who::Person(known) if now - known.authenticated_at > FRESH => Err(Error::prove_anew(FRESH)),
            // The application asks him again with max_age (RFC 9470).
            Who::Application(opened) if opened.authenticated_at.is_some_and(|at| now - at > FRESH) => {
                Err(Error::prove_anew(FRESH))
            }
            Who::Person(_) | Who::ApiKey(_) | Who::Application(_) => Ok(()),
        }
    }

    /// Whose requests are told apart by their `Idempotency-Key`: the key's or the person's.
    #[must_use]
    pub fn sender(&self) -> Uuid {
        match &self.who {
            Who::ApiKey(key) => key.id.uuid(),
            Who::Person(known) => known.person.uuid(),
            Who::Application(opened) => opened.id.uuid(),
        }
    }

    /// Who it is, as the record names it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::ApiKey(key) => {
                let actor = Actor::api_key(key.id).of(key.organization).called(&key.name);
                // What he calls it, and from where it is used, is his.
                match key.owner {
                    Some(owner) => actor.identifying(owner.uuid()),
                    None => actor,
                }
            }
            Who::Person(known) => Actor::person(known.person),
            Who::Application(opened) => {
                let actor = Actor::new(ActorKind::Application, opened.client).called(&opened.client_name);
                match opened.person {
                    Some(person) => actor.on_behalf_of(person),
                    None => actor,
                }
            }
        }
    }

    /// What gives it the right to do something, as the record names it.
    #[must_use]
    pub fn source_of_authority(&self) -> String {
        if let Some(support) = self.authority.support {
            return format!("support:{support}");
        }
        match &self.who {
            Who::ApiKey(key) => format!("api_key:{}", key.id),
            Who::Person(known) => known.role.map_or_else(|| "person".to_owned(), |role| format!("role:{role}")),
            Who::Application(opened) => format!("oauth_authorization:{}", opened.id),
        }
    }

    /// Where a refusal is recorded.
    pub(crate) const fn home(&self) -> OrganizationId {
        self.authority.subject.organization
    }

    /// On whose behalf jobs are asked for.
    #[must_use]
    pub const fn by(&self) -> &By {
        &self.by
    }
}

/// What whoever stands above an organization is told who wants to act in it.
const FROM_ABOVE: &str = "whoever stands above an organization reads, and acts inside it only with a role there or with support; \
                          take it with POST /organizations/{organization}/support";

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

    /// The organization, if the caller acts inside it: its own; one below it that nobody is a member of yet; or one below it
    /// in which it was given support that covers this.
    ///
    /// # Errors
    /// When it only stands above it, or there is no such organization.
    pub async fn inside(&self, db: &Db, wanted: OrganizationId) -> Result<OrganizationId, Error> {
        let own = self.organization();
        if wanted == own {
            return Ok(own);
        }
        let mut tx = db.tenant(own).await?;
        let reached = access::reach(&mut tx, wanted, &self.by.to_string()).await?;
        let reached = reached.ok_or_else(|| Error::not_found(wanted))?;
        // Who stands above sets it up, whatever its license is.
        let there = Subject {
            organization: wanted,
            reach: reached.reach,
            license: Permissions::all(),
            ..self.authority.subject
        };
        match there.decide(P::PERMISSION) {
            Ok(()) => Ok(wanted),
            Err(rule @ Reason::Support) => Err(self.refused(P::PERMISSION, rule)),
            Err(rule) => Err(Error::new(Code::Forbidden, FROM_ABOVE).reason(rule.as_str())),
        }
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

/// A person who signed in and has the permission that an operation needs: what is for people to decide, no key does.
#[derive(Debug, Clone)]
pub struct InPerson<P> {
    may: May<P>,
    person: PersonId,
    about: About,
}

impl<P> InPerson<P> {
    /// Who.
    pub(crate) const fn id(&self) -> PersonId {
        self.person
    }

    /// What the record says of his request.
    pub(crate) const fn about(&self) -> &About {
        &self.about
    }
}

impl<P> Deref for InPerson<P> {
    type Target = May<P>;

    fn deref(&self) -> &May<P> {
        &self.may
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
         person may do in the organization he acts for: the session's, or that of `X-Organization-Id`. Or an application's, a \
         JWT that it got by OAuth 2.0 as `/.well-known/oauth-authorization-server` says: its scopes, as far as its person may \
         do that himself.";
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
        registry.create_security_scheme(API_KEY, bearer(key, "gk_ and 49 characters"));
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

impl<'a, P: Needed> ApiExtractor<'a> for InPerson<P> {
    const TYPES: &'static [ApiExtractorType] = <Caller as ApiExtractor>::TYPES;

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_session(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![ACCESS_TOKEN, COOKIE, P::PERMISSION.as_str()]
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let may = <May<P> as ApiExtractor>::from_request(request, body, options).await?;
        let Who::Person(known) = &may.caller.who else {
            let detail = "this is for people to decide, and neither an API key nor an application is one; sign in with POST \
                          /sessions";
            return Err(Error::new(Code::Forbidden, detail).into());
        };
        let person = known.person;
        Ok(Self { may, person, about: About::find(request)? })
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
            let detail = "this is about the person who asks, and neither an API key nor an application is one; sign in with \
                 POST /sessions";
            return Err(Error::new(Code::Forbidden, detail).into());
        };
        let known = Arc::clone(known);
        let csrf_token = match presented(request)? {
            Presented::Cookie(token) => Some(cookie::csrf_token(&token)),
            Presented::Access(_) | Presented::ApiKey(_) | Presented::Application(_) => None,
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
    let wanted = scope::wanted(request)?;
    let hash = match presented(request)? {
        Presented::ApiKey(token) => {
            if !app.keys.knows(&token) {
                rate::refuse_guesses(app, request)?;
            }
            let address = info.and_then(|info| info.address);
            let Some(key) = app.keys.verify(&app.db, &token, address).await? else {
                rate::count_wrong_credential(app, request).await?;
                let detail = "there is no such API key, or it expired or was revoked; make a new one";
                return Err(refused(detail).at("Authorization"));
            };
            rate::admit(request, app, key.organization, Credential::api_key(key.id)).await?;
            let by = By::api_key(key.id).traced(traceparent);
            if !key.may_come_from(address) {
                let detail =
                    format!("the API key {}… is not to be used from here; use it from one of its networks", key.hint);
                return Err(Error::new(Code::Forbidden, detail).reason("source_network"));
            }
            let scopes = Some(key.scopes.iter().copied().collect());
            let authority = authority(request, app, key.organization, &by, scopes, key.behind).await?;
            return Ok(Caller { who: Who::ApiKey(key), authority, by });
        }
        Presented::Application(token) => {
            return authenticate_application(app, request, &token, wanted, traceparent).await;
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
    let Some(mut known) = app.sessions.verify(&app.db, hash, wanted, address.as_deref()).await? else {
        rate::count_wrong_credential(app, request).await?;
        return Err(refused("the session has ended; sign in again").at("Authorization"));
    };
    if known.organization.is_none() && wanted.is_none() {
        // Neither the session nor the request names one, so the host name does.
        let of_host = scope::of_host(request, app).await?;
        if let Some(of_host) = of_host
            && let Some(there) = app.sessions.verify(&app.db, hash, Some(of_host), address.as_deref()).await?
        {
            known = there;
        }
    }
    // Who acts for no organization is counted by the platform's own allowance, each by himself.
    let organization = known.organization.unwrap_or(OrganizationId::PLATFORM);
    rate::admit(request, app, organization, Credential::person(known.person)).await?;
    if app.standings.of(&app.db, organization).await?.sessions_from.is_some_and(|from| known.created_at < from) {
        return Err(
            refused("the organization was locked down, which ended the session; sign in again").at("Authorization")
        );
    }
    let by = By::person(known.person).traced(traceparent);
    let authority = match (known.organization, wanted) {
        (Some(home), _) => {
            let mut authority = authority(request, app, home, &by, None, Behind::Member(known.may)).await?;
            let standing = app.standings.of(&app.db, home).await?;
            if !standing.defence.accepts(&known.factors) {
                let needed_from = standing.defence.second_factor_from(known.member_since);
                authority = authority.unproven(needed_from.is_some_and(|from| app.db.now() >= from));
            }
            authority
        }
        (None, Some(wanted)) => return Err(Error::not_found(wanted).at(scope::ORGANIZATION)),
        (None, None) => Authority::nowhere(),
    };
    Ok(Caller { who: Who::Person(known), authority, by })
}

/// What somebody of `home` may do, where the request wants to do it.
async fn authority(
    request: &Request,
    app: &App,
    home: OrganizationId,
    by: &By,
    scopes: Option<Permissions>,
    behind: Behind,
) -> Result<Authority, Error> {
    let standing = app.standings.of(&app.db, home).await?;
    let (hold, told) = match &standing.hold {
        Some(held) => (Some(held.hold), held.told.clone()),
        None => (None, None),
    };
    let scope = scope::of(request, app, home, by).await?;
    // The license is that of the organization in which it is done.
    let there = match scope.organization {
        organization if organization == home => Arc::clone(&standing),
        organization => app.standings.of(&app.db, organization).await?,
    };
    let operation = request.data::<About>().and_then(About::operation);
    let license = there.licensed(app.db.now(), hosts::named(request).as_deref(), operation);
    let barred = app.bars(&standing.defence, request.data::<RequestInfo>().and_then(|info| info.address));
    let (organization, reach) = (scope.organization, scope.reach);
    let subject = Subject { organization, reach, hold, barred, unproven: false, scopes, behind, license };
    Ok(Authority::of(subject, told, scope.support))
}

/// An application with an access token: what it was given, as far as its person may still do it himself. It acts for one
/// organization, the one in which it was let.
async fn authenticate_application(
    app: &App,
    request: &Request,
    token: &str,
    wanted: Option<OrganizationId>,
    traceparent: Option<String>,
) -> Result<Caller, Error> {
    rate::refuse_guesses(app, request)?;
    let verified = app.signing.keys(app).await?.verify_access(token, app.public_url(), app.db.now());
    let opened = match &verified {
        Ok(claims) => app.grantees.open(&app.db, claims).await?,
        Err(_) => None,
    };
    let (Ok(claims), Some(opened)) = (&verified, opened) else {
        rate::count_wrong_credential(app, request).await?;
        let why = verified.err().map_or_else(|| "it was taken back".to_owned(), |error| error.to_string());
        return Err(refused(format!("the access token does not work: {why}; get another one")).at("Authorization"));
    };
    let organization = opened.organization;
    rate::admit(request, app, organization, Credential::application(opened.client)).await?;
    if wanted.is_some_and(|wanted| wanted != organization) {
        return Err(Error::not_found(scope::ORGANIZATION).at(scope::ORGANIZATION));
    }
    let given = Scopes::from_words(&claims.scope).permissions().and(opened.scopes.permissions());
    let by = opened.person.map_or_else(|| By::oauth_client(opened.client), By::person).traced(traceparent);
    let authority = authority(request, app, organization, &by, Some(given), opened.behind).await?;
    Ok(Caller { who: Who::Application(opened), authority, by })
}

/// What a request is known by.
enum Presented {
    Application(String),
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
    if token.starts_with("eyJ") {
        // The beginning of every signed token: `{"` in base64.
        return Ok(Presented::Application(token.to_owned()));
    }
    if token.starts_with("gsa_") {
        return AccessToken::parse(token).map(Presented::Access).map_err(|error| refused(error.to_string()));
    }
    Token::parse(token).map(Presented::ApiKey).map_err(|error| refused(error.to_string()))
}

async fn note_use(db: &Db, key: &ApiKey, address: Option<IpAddr>) -> Result<(), sqlx::Error> {
    let mut tx = db.tenant(key.organization).await?;
    api_keys::touch(&mut tx, key.id, address).await?;
    tx.commit().await
}

/// How long a verified key is believed without looking: a revoked key stops working within this.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Verified keys that are remembered.
const REMEMBERED: usize = 10_000;

/// Keys that were verified a moment ago, by hash, so that a busy caller costs one lookup per second. What is revoked or
/// changed is forgotten when the database tells of it, in every process.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: Mutex<HashMap<[u8; 32], Verified>>,
    /// How often something was forgotten: what was read before may be old.
    epoch: AtomicU64,
}

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
    async fn verify(&self, db: &Db, token: &Token, address: Option<IpAddr>) -> Result<Option<Arc<ApiKey>>, Error> {
        let (hash, now) = (token.hash(), db.now());
        if let Some(verified) = self.lock().get(&hash).filter(|verified| verified.is_believed(now)) {
            return Ok(Some(Arc::clone(&verified.key)));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = api_keys::authenticate(&mut db.credential(hash).await?).await?.map(Arc::new);
        if let Some(key) = found.as_ref().filter(|key| key.may_come_from(address))
            && key.last_used_at.is_none_or(|last| now - last >= api_keys::NOTED)
            && let Err(error) = note_use(db, key, address).await
        {
            debug!("When a key was used last could not be noted: {error}");
        }
        let mut known = self.lock();
        match &found {
            Some(key) => {
                if known.len() >= REMEMBERED {
                    known.retain(|_, verified| verified.is_believed(now));
                }
                if known.len() < REMEMBERED && self.epoch.load(Ordering::Acquire) == epoch {
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

    /// Looks at the keys of an organization again, or at every key.
    pub(crate) fn forget(&self, organization: Option<OrganizationId>) {
        let mut known = self.lock();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        match organization {
            Some(organization) => known.retain(|_, verified| verified.key.organization != organization),
            None => known.clear(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Verified>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
