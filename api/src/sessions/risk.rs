//! Whether a sign-in looks wrong, and what is done about it: what the policies of his organization say, the strictest of
//! them.

use std::net::IpAddr;

use gantry_jobs::{By, webhooks};
use gantry_schema::defence::sign_ins::{self, SignIn};
use gantry_schema::defence::{Detection, MostSessions, Response, Spot, Tried, impossible, suspect};
use gantry_schema::digest::sha256;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, PersonId, memberships};
use serde_json::json;
use tracing::error;

use super::device::describe;
use crate::app::App;
use crate::error::{Code, Error};
use crate::rate::Seen;

/// What a sign-in looks like.
#[derive(Debug)]
pub(super) struct Risk {
    /// What looks wrong.
    pub(super) found: Vec<Detection>,
    /// What is done about it.
    pub(super) response: Response,
    /// What is kept of it, if it comes to a session.
    pub(super) sign_in: SignIn,
    /// For which organization, whose policies were asked.
    organization: Option<OrganizationId>,
    /// How many of his sessions go on in it.
    pub(super) sessions: Option<MostSessions>,
}

/// Somebody who is about to be signed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) person: PersonId,
    /// For which organization; `None`: the one he acted for last.
    pub(super) organization: Option<OrganizationId>,
    pub(super) address: Option<IpAddr>,
    pub(super) user_agent: Option<&'a str>,
    /// What was tried in vain lately, where he says he comes from.
    pub(super) seen: Seen,
}

/// Looks at a sign-in.
pub(super) async fn assess(app: &App, arrival: Arrival<'_>) -> Result<Risk, Error> {
    let Arrival { person, organization, address, user_agent, seen } = arrival;
    let now = app.db.now();
    let place = address.and_then(|address| app.places.find(address));
    let sign_in = SignIn {
        occurred_at: now,
        device: sha256(&[b"gantry device", describe(user_agent).as_bytes()]),
        country: place.as_ref().and_then(|place| place.country),
        spot: place.and_then(|place| place.spot).map(|(latitude, longitude, radius_km)| Spot {
            latitude,
            longitude,
            radius_km,
            at: now,
        }),
    };
    let mut tx = app.db.person(person).await?;
    let before = sign_ins::latest(&mut tx, person).await?;
    let organization = match organization {
        Some(organization) => Some(organization),
        None => memberships::latest(&mut tx, person).await?,
    };
    drop(tx);
    let standing = app.standings.of(&app.db, organization.unwrap_or(OrganizationId::PLATFORM)).await?;
    let found: Vec<Detection> = detected(&before, &sign_in, seen).collect();
    let response = found.iter().map(|each| standing.defence.response(*each)).max().unwrap_or(Response::Off);
    let sessions = organization.and_then(|_| standing.defence.sessions());
    Ok(Risk { found, response, sign_in, organization, sessions })
}

fn detected(before: &[SignIn], this: &SignIn, seen: Seen) -> impl Iterator<Item = Detection> {
    // The first device of all is no news.
    let new_device = !before.is_empty() && before.iter().all(|known| known.device != this.device);
    let last_spot = before.iter().find_map(|known| known.spot);
    let travel = last_spot.zip(this.spot).and_then(|(from, to)| impossible(&from, &to)).is_some();
    let tried = Tried {
        accounts_of_address: seen.accounts_of_address,
        accounts_of_network: seen.accounts_of_network,
        networks_of_account: seen.networks_of_account,
    };
    let guessed = suspect(tried, seen.known_network).is_some();
    [
        (new_device, Detection::NewDevice),
        (travel, Detection::ImpossibleTravel),
        (guessed, Detection::CredentialStuffing),
    ]
    .into_iter()
    .filter_map(|(is_so, detection)| is_so.then_some(detection))
}

impl Risk {
    /// Lets a sign-in go on that is not refused; of one that is, the organization is told.
    pub(super) async fn admit(&self, app: &App, arrival: Arrival<'_>) -> Result<(), Error> {
        if self.response < Response::Refuse {
            return Ok(());
        }
        self.tell(app, arrival).await;
        let detail = "everything about this sign-in is right, and it looks so unlike those before that the organization has it \
                      refused; sign in from where and with what you usually do, or ask one of its owners";
        Err(Error::new(Code::SignInRefused, detail).reason(self.found.last().map_or("?", |found| found.as_str())))
    }

    /// Tells the organization, where its policies want that. Whoever signs in does not wait for whether it could be told.
    pub(super) async fn tell(&self, app: &App, arrival: Arrival<'_>) {
        let Some(organization) = self.organization.filter(|_| self.response > Response::Off) else { return };
        let facts = json!({
            "person_id": arrival.person,
            "found": self.found.iter().map(|found| found.as_str()).collect::<Vec<_>>(),
            "response": self.response.as_str(),
            "device": describe(arrival.user_agent),
            "address": arrival.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            "country": self.sign_in.country.map_or_else(|| "unknown".to_owned(), |country| country.to_string()),
        });
        let told = async {
            let mut tx = app.db.tenant(organization).await?;
            let by = By::platform("defence");
            webhooks::emit(&mut tx, PlatformEvent::SignInSuspicious.name(), facts, &by).await?;
            Ok::<_, Error>(tx.commit().await?)
        };
        if let Err(error) = told.await {
            error!(%organization, "A sign-in that looks wrong could not be told of: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    fn sign_in(device: u8, minutes: i64, spot: Option<(f64, f64)>) -> SignIn {
        let at = DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let spot = spot.map(|(latitude, longitude)| Spot { latitude, longitude, radius_km: 10.0, at });
        SignIn { occurred_at: at, device: [device; 32], country: None, spot }
    }

    #[test]
    fn what_is_new_what_cannot_be_and_what_is_guessed_is_found() {
        let (vienna, sydney) = (Some((48.2, 16.4)), Some((-33.9, 151.2)));
        let found = |before: &[SignIn], this: &SignIn, seen| detected(before, this, seen).collect::<Vec<_>>();
        let calm = Seen::default();
        assert_eq!(found(&[], &sign_in(1, 0, vienna), calm), [], "the first one");
        let before = [sign_in(1, 0, vienna)];
        assert_eq!(found(&before, &sign_in(1, 60, vienna), calm), []);
        assert_eq!(found(&before, &sign_in(2, 60, vienna), calm), [Detection::NewDevice]);
        assert_eq!(found(&before, &sign_in(1, 60, sydney), calm), [Detection::ImpossibleTravel]);
        assert_eq!(found(&before, &sign_in(1, 60, None), calm), [], "nobody knows where he is");
        let stormy = Seen { accounts_of_address: 50, ..calm };
        assert_eq!(found(&before, &sign_in(1, 60, vienna), stormy), [Detection::CredentialStuffing]);
        assert_eq!(found(&before, &sign_in(1, 60, vienna), Seen { known_network: true, ..stormy }), []);
    }
}
