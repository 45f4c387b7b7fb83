//! Which organization a request is about: the one its key or token is of, unless `X-Organization-Id` names one below it;
//! and the host name it came by has to be that one's, or of one above it. Whatever does not fit is refused.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::By;
use gantry_schema::access::{self, Reach};
use gantry_schema::id::InvalidId;
use gantry_schema::organizations::hosts;
use gantry_schema::{OrganizationId, SupportId};
use poem::Request;

use crate::app::App;
use crate::client;
use crate::error::{Code, Error};

/// The header that names the organization to act in.
pub(crate) const ORGANIZATION: &str = "X-Organization-Id";

/// Where a request acts, and how it gets there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub organization: OrganizationId,
    pub reach: Reach,
    /// The support by which it does.
    pub support: Option<SupportId>,
}

/// The organization that a request names.
///
/// # Errors
/// When it names it wrongly or twice.
pub(crate) fn wanted(request: &Request) -> Result<Option<OrganizationId>, Error> {
    let mut values = request.headers().get_all(ORGANIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::parameter(ORGANIZATION, "there are two of them; send the header once"));
    }
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|error: InvalidId| Error::parameter(ORGANIZATION, error.to_string()))
}

/// Where a request of somebody of `home` acts.
///
/// # Errors
/// When what it names is not below, or it came by another's host name.
pub(crate) async fn of(request: &Request, app: &App, home: OrganizationId, by: &By) -> Result<Scope, Error> {
    let scope = match wanted(request)? {
        Some(wanted) if wanted != home => {
            let mut tx = app.db.tenant(home).await?;
            let reached = access::reach(&mut tx, wanted, &by.to_string()).await?;
            let reached = reached.ok_or_else(|| Error::not_found(wanted).at(ORGANIZATION))?;
            Scope { organization: wanted, reach: reached.reach, support: reached.support }
        }
        _ => Scope { organization: home, reach: Reach::Inside, support: None },
    };
    check_host(request, app, scope.organization).await?;
    Ok(scope)
}

/// Whose the host name is that a request came by.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn of_host(request: &Request, app: &App) -> Result<Option<OrganizationId>, Error> {
    match below_base(request, app) {
        Some(host) => Ok(hosts::whose(&mut app.db.presented_host(&host).await?).await?),
        None => Ok(None),
    }
}

/// The host name that a request came by, if it is one that organizations may have.
fn below_base(request: &Request, app: &App) -> Option<String> {
    let base = app.base_domain()?;
    // The dot is a border: evilcloud.example is not below cloud.example.
    client::hosts::named(request)
        .filter(|host| host.strip_suffix(base).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')))
}

/// How long it is believed whose a host name is.
const BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// Host names, each with an organization that was reached by it, that are remembered.
const REMEMBERED: usize = 10_000;

/// Whether organizations may be reached by host names, as it was found a moment ago.
#[derive(Debug, Default)]
pub(crate) struct KnownHosts(Mutex<ByHost>);

/// By host name and the organization that was asked for by it.
type ByHost = HashMap<(String, OrganizationId), (Fits, DateTime<Utc>)>;

/// Whether an organization is reached by a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fits {
    Yes,
    /// It is another's.
    No,
    /// It is nobody's.
    Nobodys,
}

impl KnownHosts {
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    fn get(&self, host: &str, organization: OrganizationId, now: DateTime<Utc>) -> Option<Fits> {
        let (fits, at) = *self.lock().get(&(host.to_owned(), organization))?;
        (TimeDelta::zero()..BELIEVED).contains(&(now - at)).then_some(fits)
    }

    fn put(&self, host: String, organization: OrganizationId, fits: Fits, now: DateTime<Utc>) {
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, at)| now - *at < BELIEVED);
        }
        if known.len() < REMEMBERED {
            known.insert((host, organization), (fits, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByHost> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a request that came by the host name of an organization and is not for it or one below it.
async fn check_host(request: &Request, app: &App, organization: OrganizationId) -> Result<(), Error> {
    let Some(host) = below_base(request, app) else { return Ok(()) };
    let now = app.db.now();
    let fits = if let Some(fits) = app.known_hosts.get(&host, organization, now) {
        fits
    } else {
        let fits = look_up(app, &host, organization).await?;
        app.known_hosts.put(host, organization, fits, now);
        fits
    };
    match fits {
        Fits::Yes => Ok(()),
        Fits::No => Err(Error::new(
            Code::Forbidden,
            "this host name is another organization's; use the one of yours, or the URL of the API itself",
        )
        .at("Host")
        .reason("wrong_host")),
        Fits::Nobodys => {
            Err(Error::new(Code::UnknownHost, "no organization has this host name; use the URL you were given")
                .at("Host"))
        }
    }
}

async fn look_up(app: &App, host: &str, organization: OrganizationId) -> Result<Fits, Error> {
    let Some(of) = hosts::whose(&mut app.db.presented_host(host).await?).await? else { return Ok(Fits::Nobodys) };
    let mut tx = app.db.tenant(organization).await?;
    Ok(if hosts::is_at_or_below(&mut tx, of).await? { Fits::Yes } else { Fits::No })
}
