//! How often somebody may ask. Requests are counted in Redis, for all processes together, by the generic cell rate
//! algorithm; a few of a busy caller's are counted ahead, so that most ask nobody.
//!
//! How exact it is: never is more let through than the limit. A process takes at most a two-hundredth of a limit ahead,
//! for at most a second; below 200 requests a minute that is nothing, and what the headers say is what is. Above, what other
//! processes have taken ahead is not said to be left.
//!
//! While Redis is away each process counts by itself, within the same limits, and says nothing of it; only attempts to
//! prove who one is are not taken then ([`Attempts`]).

mod attempts;
mod charge;
mod fields;
mod lease;
mod local;
mod script;
mod subject;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use gantry_schema::OrganizationId;
use gantry_schema::limits::{Allowance, Rate, Rule};
use gantry_schema::usage::Credential;
use poem::Request;
use poem::http::HeaderMap;
use uuid::Uuid;

pub use attempts::{Attempt, Attempts, Seen};
pub(crate) use charge::Charge;
pub(crate) use lease::Limiter;
use subject::{Counted, Counts, Owner, Plan, Refused, Subject};

use crate::app::App;
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::licenses;
use crate::standing::Standing;

/// What became known of a request while it was let in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visit(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: OnceLock<Counts>,
    limited: OnceLock<()>,
    caller: OnceLock<(OrganizationId, Credential)>,
    standing: OnceLock<Arc<Standing>>,
}

impl Visit {
    fn note(&self, outcome: &Result<Counts, Box<Refused>>) {
        let counts = match outcome {
            Ok(counts) => counts,
            Err(refused) => {
                self.0.limited.get_or_init(|| ());
                &refused.counts
            }
        };
        self.0.counts.get_or_init(|| *counts);
    }

    /// Whose request it is, once that is known.
    pub(crate) fn caller(&self) -> Option<(OrganizationId, Credential)> {
        self.0.caller.get().copied()
    }

    /// Says in the headers what is left.
    pub(crate) fn decorate(&self, headers: &mut HeaderMap, now: i64) {
        if let Some(counts) = self.0.counts.get() {
            fields::write(headers, counts, now);
        }
        let standing = self.0.standing.get();
        if let Some((standing, license)) = standing.and_then(|it| Some((it, it.license.as_ref()?))) {
            licenses::show(headers, license, &standing.licensed_use, now);
        }
    }
}

/// Counts a request of somebody who is known, by a key or as a person.
///
/// # Errors
/// When there were too many.
pub(crate) async fn admit(
    request: &Request,
    app: &App,
    organization: OrganizationId,
    credential: Credential,
) -> Result<(), Error> {
    let visit = request.data::<Visit>().cloned().unwrap_or_default();
    visit.0.caller.get_or_init(|| (organization, credential));
    let standing = app.standings.of(&app.db, organization).await?;
    visit.0.standing.get_or_init(|| Arc::clone(&standing));
    if standing.allowance.given.bypass {
        return Ok(());
    }
    let charge = request.data::<Charge>().copied().unwrap_or_default();
    let address = request.data::<RequestInfo>().and_then(|info| info.address);
    let (subject, plan) = of_organization(&standing.allowance, charge, organization, credential.id, address);
    let outcome = app.limiter.take(subject, plan, charge.cost.into()).await;
    visit.note(&outcome);
    outcome.map_err(|refused| too_many(&refused))?;
    if charge.metered { app.usage.admit(organization, &standing, app.db.now()) } else { Ok(()) }
}

fn of_organization(
    allowance: &Allowance,
    charge: Charge,
    organization: OrganizationId,
    key: Uuid,
    address: Option<IpAddr>,
) -> (Subject, Plan) {
    let class = charge.class;
    let (of_key, of_address) = (allowance.of_key(class), allowance.of_address(class));
    let subject = Subject {
        owner: Owner::Organization(organization),
        counted: Counted::Class(class),
        key: of_key.map(|_| key),
        address: of_address.and(address).map(prefix),
    };
    let plan = Plan { whole: allowance.rate(class), key: of_key, address: of_address.filter(|_| address.is_some()) };
    (subject, plan)
}

/// Counts a request of somebody who does not say who he is, by his address.
///
/// # Errors
/// When there were too many.
pub(crate) async fn admit_stranger(app: &App, visit: &Visit, address: Option<IpAddr>) -> Result<(), Error> {
    count_address(app, visit, address, Counted::Anonymous).await
}

/// Counts a request that was refused before anybody looked who sent it, so that its answer says what is left as well.
pub(crate) async fn count_late(app: &App, visit: &Visit, address: Option<IpAddr>) {
    if visit.0.counts.get().is_none() && visit.0.caller.get().is_none() {
        // It is answered already.
        drop(count_address(app, visit, address, Counted::Anonymous).await);
    }
}

/// Counts a credential that was none, by the address it came from.
///
/// # Errors
/// When there were too many.
pub(crate) async fn count_wrong_credential(app: &App, request: &Request) -> Result<(), Error> {
    let visit = request.data::<Visit>().cloned().unwrap_or_default();
    let address = request.data::<RequestInfo>().and_then(|info| info.address);
    count_address(app, &visit, address, Counted::Credentials).await
}

/// Refuses to look a credential up that nobody knows, from where too many came that were none.
///
/// # Errors
/// When it does.
pub(crate) fn refuse_guesses(app: &App, request: &Request) -> Result<(), Error> {
    let Some(address) = request.data::<RequestInfo>().and_then(|info| info.address) else { return Ok(()) };
    let subject = Subject::of_address(prefix(address), Counted::Credentials);
    app.limiter.is_empty(subject).map_or(Ok(()), |refused| {
        if let Some(visit) = request.data::<Visit>() {
            visit.note(&Err(Box::new(refused)));
        }
        Err(too_many(&refused))
    })
}

async fn count_address(app: &App, visit: &Visit, address: Option<IpAddr>, counted: Counted) -> Result<(), Error> {
    let Some(address) = address else { return Ok(()) };
    let rate = rate(&app.standings.rules(&app.db).await?, counted.rule());
    let plan = Plan { whole: rate, key: None, address: None };
    let outcome = app.limiter.take(Subject::of_address(prefix(address), counted), plan, 1).await;
    visit.note(&outcome);
    outcome.map(drop).map_err(|refused| too_many(&refused))
}

/// The rate of a rule; one that is gone lets nothing through but now and then.
fn rate(rules: &[Rule], name: &str) -> Rate {
    rules
        .iter()
        .find(|rule| rule.name == name)
        .map_or(Rate::per_minute(1, 1), |rule| Rate::per_minute(rule.number, rule.burst))
}

fn too_many(refused: &Refused) -> Error {
    let violated: Vec<&str> = refused.violated().collect();
    Error::new(
        Code::TooManyRequests,
        format!(
            "the limit {} is used up; wait as long as Retry-After says, and see RateLimit for what is left",
            violated.join(" and ")
        ),
    )
    .after(refused.wait)
    .violating(&violated)
}

/// What is counted as one address: somebody who has a network of version 6 has more addresses than one can count.
pub(crate) fn prefix(address: IpAddr) -> IpAddr {
    network(address, 32, 64)
}

/// The beginning of an address, of so many bits in version 4 and in version 6.
pub(crate) fn network(address: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - v4).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_version_6_is_counted_by_its_network() {
        let prefixed = |text: &str| prefix(text.parse().unwrap()).to_string();
        assert_eq!(prefixed("203.0.113.9"), "203.0.113.9");
        assert_eq!(prefixed("::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(prefixed("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        let networked = |text: &str| network(text.parse().unwrap(), 24, 48).to_string();
        assert_eq!(
            (networked("203.0.113.9"), networked("2001:db8:1:2::9")),
            ("203.0.113.0".into(), "2001:db8:1::".into())
        );
        assert_eq!(network("203.0.113.9".parse().unwrap(), 0, 0).to_string(), "0.0.0.0");
    }
}
