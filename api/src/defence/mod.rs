//! From where an organization may be asked, and what is done about sign-ins that look wrong. What holds above holds
//! below; a request is let through by all policies on the way up or by none.
//!
//! A policy is about the keys, people and applications *of* an organization, wherever they act; whoever stands above is
//! held by his own. What people do about themselves, signing out or acting for another of their organizations, is let
//! through from anywhere.

pub(crate) mod places;

use std::net::IpAddr;

use chrono::TimeDelta;
use gantry_jobs::webhooks;
use gantry_schema::defence::policies::{self, Stored};
use gantry_schema::defence::{Bar, Country, Effective, MostSessions, Policy, Response, SecondFactor, USUAL_KINDS};
use gantry_schema::factors::Kind;
use gantry_schema::organizations::needed::{ManageDefence, ReadDefence};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, TenantTx, turn};
use poem::Request;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use crate::api_keys::read_networks;
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, IfNoneMatch, Tagged};
use crate::edge::RequestInfo;
use crate::error::{Code, Error};
use crate::example::example;
use crate::factors::Kind as FactorKind;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::tag::Tag;
pub use places::{Places, PlacesError};

/// The operations on policies.
#[derive(Debug, Clone, Copy)]
pub struct Defence;

/// Days in which people enrol a second factor, where nobody said how many.
const GRACE_DAYS: i64 = 14;

/// Countries in a list.
const MAX_COUNTRIES: usize = 260;

impl App {
    /// Why whoever asks from there is not let through.
    pub(crate) fn bars(&self, policies: &Effective, address: Option<IpAddr>) -> Option<Bar> {
        let country =
            address.filter(|_| policies.restricts_countries()).and_then(|address| self.places.country(address));
        policies.bars(address, country)
    }
}

/// What is done about something that looks wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case", rename = "DefenceResponse")]
enum Answer {
    /// Nothing.
    Off,
    /// People are told, by a notice and an event.
    Notice,
    /// People are told, and whoever it was has to prove anew who he is before he does what matters.
    StepUp,
    /// People are told, and it is refused.
    Refuse,
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Off => Self::Off,
            Answer::Notice => Self::Notice,
            Answer::StepUp => Self::StepUp,
            Answer::Refuse => Self::Refuse,
        }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        match response {
            Response::Off => Self::Off,
            Response::Notice => Self::Notice,
            Response::StepUp => Self::StepUp,
            Response::Refuse => Self::Refuse,
        }
    }
}

/// What an organization has set.
#[derive(Debug, Object)]
#[oai(rename = "DefencePolicy")]
struct Set {
    /// Who has: the organization, or one above it.
    organization_id: OrganizationId,
    /// From which networks it may be asked; none: from anywhere.
    networks: Vec<String>,
    /// From which countries; none: from all that are not denied.
    countries_allowed: Vec<String>,
    /// From which countries not.
    countries_denied: Vec<String>,
    /// Where countries are restricted, addresses of which nobody knows where they are are refused.
    refuses_unknown: bool,
    /// What is done when a person signs in with a program that he did not sign in with before.
    new_device: Answer,
    /// What is done when he cannot have come so far since he last signed in.
    impossible_travel: Answer,
    /// What is done when he signs in from where passwords are being tried.
    credential_stuffing: Answer,
    /// Since when people need a second factor; left out: they need none.
    #[oai(skip_serializing_if_is_none)]
    second_factor_since: Option<Moment>,
    /// The days they have to enrol one, from then on or from when they become members.
    second_factor_grace_days: i64,
    /// What counts as one.
    second_factor_kinds: Vec<FactorKind>,
    /// How many sessions of a person go on in the organization at the same time; left out: as many as anywhere.
    #[oai(skip_serializing_if_is_none)]
    most_sessions: Option<i64>,
    /// With one more, nobody is let in; otherwise the longest unused one ends.
    refuses_more_sessions: bool,
}

impl Set {
    fn of(organization_id: OrganizationId, policy: &Policy) -> Self {
        let words = |countries: &[Country]| countries.iter().map(ToString::to_string).collect();
        Self {
            organization_id,
            networks: policy.networks.iter().map(ToString::to_string).collect(),
            countries_allowed: words(&policy.countries_allowed),
            countries_denied: words(&policy.countries_denied),
            refuses_unknown: policy.refuses_unknown,
            new_device: policy.new_device.into(),
            impossible_travel: policy.impossible_travel.into(),
            credential_stuffing: policy.credential_stuffing.into(),
            second_factor_since: policy.second_factor.map(|needed| needed.since.into()),
            second_factor_grace_days: policy.second_factor.map_or(0, |needed| needed.grace.num_days()),
            second_factor_kinds: policy.factor_kinds.iter().copied().map(FactorKind::from).collect(),
            most_sessions: policy.sessions.map(|sessions| sessions.most),
            refuses_more_sessions: policy.sessions.is_some_and(|sessions| sessions.refuses),
        }
    }
}

/// From where an organization may be asked.
#[derive(Debug, Object)]
#[oai(rename = "DefencePolicies", example)]
struct Policies {
    /// The organization.
    organization_id: OrganizationId,
    /// The installation knows in which countries addresses are.
    knows_countries: bool,
    /// What it has set itself and what those above it have, its own first: whoever asks has to be let through by each, and of
    /// what is done the strictest is.
    policies: Vec<Set>,
}

example!(Policies, {
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "knows_countries": true,
    "policies": [{
        "organization_id": "org_01h455vb4pex5vsknk084sn02q",
        "networks": ["203.0.113.0/24"],
        "countries_allowed": ["AT", "DE"],
        "countries_denied": [],
        "refuses_unknown": false,
        "new_device": "notice",
        "impossible_travel": "step_up",
        "credential_stuffing": "step_up",
        "second_factor_since": "2026-01-15T12:00:00Z",
        "second_factor_grace_days": 14,
        "second_factor_kinds": ["totp", "passkey", "sms"],
        "most_sessions": 5,
        "refuses_more_sessions": false,
    }],
});

/// What is to be set.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewDefencePolicy {
    /// From which networks it may be asked: addresses and networks, such as `203.0.113.0/24`; left out: from anywhere.
    #[oai(validator(max_items = 200))]
    networks: Option<Vec<String>>,
    /// From which countries, in two letters of ISO 3166-1; left out: from all that are not denied.
    #[oai(validator(max_items = 260))]
    countries_allowed: Option<Vec<String>>,
    /// From which countries not.
    #[oai(validator(max_items = 260))]
    countries_denied: Option<Vec<String>>,
    /// Where countries are restricted, addresses of which nobody knows where they are are refused. Left out: no.
    refuses_unknown: Option<bool>,
    /// What is done about a new device; left out: people are told.
    new_device: Option<Answer>,
    /// What is done about impossible travel; left out: whoever it was proves himself anew.
    impossible_travel: Option<Answer>,
    /// What is done about guesses; left out: whoever it was proves himself anew.
    credential_stuffing: Option<Answer>,
    /// Whether people need a second factor; left out: no.
    second_factor_required: Option<bool>,
    /// The days they have to enrol one; left out: 14.
    #[oai(validator(minimum(value = "0"), maximum(value = "90")))]
    second_factor_grace_days: Option<i64>,
    /// What counts as one; left out: `totp`, `passkey` and `sms`. Only `passkey` withstands whoever lures people to a page of his.
    #[oai(validator(min_items = 1, max_items = 4))]
    second_factor_kinds: Option<Vec<FactorKind>>,
    /// How many sessions of a person go on in the organization at the same time; left out: as many as anywhere, which is 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    most_sessions: Option<i64>,
    /// With one more, nobody is let in. Left out: the longest unused one ends.
    refuses_more_sessions: Option<bool>,
    /// Also where the caller himself could not ask from where he does any more. Left out: no.
    force: Option<bool>,
}

example!(NewDefencePolicy, { "networks": [], "new_device": "step_up", "impossible_travel": "refuse" });

#[OpenApi(prefix_path = "/organizations", tag = "Tag::Defence")]
impl Defence {
    /// See from where an organization may be asked
    ///
    /// And what is done about sign-ins that look wrong: what it has set itself, and what those above it have.
    #[oai(path = "/:organization/defence", method = "get", operation_id = "getDefence")]
    async fn get(
        &self,
        caller: May<ReadDefence>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
    ) -> Result<Tagged<Policies>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut tx = app.db.tenant(organization).await?;
        Ok(if_none_match.answer(shown(&app, &mut tx).await?))
    }

    /// Set from where an organization may be asked
    ///
    /// By its keys, people and applications, and by those of all organizations below it; and what is done about sign-ins that
    /// look wrong. In force in every process of the API within a second. Addresses are those of connections, or what
    /// proxies say that the installation trusts. What is not let through is refused as `source_not_allowed`.
    ///
    /// Where a second factor is required, people without one do nothing for the organization when their days are over but enrol one:
    /// they are refused as `second_factor_required`.
    ///
    /// Refused as `would_lock_out` when the caller himself could not ask any more, from where he does or without a second factor,
    /// unless it is forced; as `precondition_required` without `If-Match`.
    #[oai(path = "/:organization/defence", method = "put", operation_id = "setDefence")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn set(
        &self,
        caller: May<ManageDefence>,
        app: Data<&App>,
        request: &Request,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewDefencePolicy>,
    ) -> Result<Answered<Tagged<Policies>>, Error> {
        let (own, id) = (caller.organization(), caller.inside(&app.db, organization.0).await?);
        let force = body.0.force.unwrap_or(false);
        let policy = read(&app, body.0)?;
        let address = request.data::<RequestInfo>().and_then(|info| info.address);
        let set = once.run(&caller, id, async |tx| {
            turn::take(tx, "defence").await?;
            let before = shown(&app, tx).await?;
            policies::set(tx, &policy).await?;
            if own == id && !force {
                let effective = policies::effective(tx).await?;
                if app.bars(&effective, address).is_some() {
                    return Err(Error::new(
                        Code::WouldLockOut,
                        "you could not ask from where you do any more; add it, or send force if that is what you want",
                    ));
                }
                let proven = caller.is_proven_for(&effective);
                if !proven && effective.second_factor_from(None).is_some_and(|from| from <= app.db.now()) {
                    return Err(Error::new(
                        Code::WouldLockOut,
                        "you have not proven yourself with a second factor, and could do nothing any more; enrol one first, give \
                         days to do so, or send force if that is what you want",
                    ));
                }
            }
            webhooks::emit(tx, PlatformEvent::DefenceChanged.name(), json!({ "organization_id": id }), caller.by())
                .await?;
            let after = shown(&app, tx).await?;
            if_match.demand(&before, &after)?;
            Ok(Tagged::of(after))
        });
        let answer = set.await?;
        app.standings.forget(None);
        Ok(answer)
    }
}

async fn shown(app: &App, tx: &mut TenantTx) -> Result<Policies, Error> {
    let stored = policies::on_the_way_up(tx).await?;
    let set = |Stored { organization, policy, .. }: &Stored| Set::of(*organization, policy);
    Ok(Policies {
        organization_id: tx.organization(),
        knows_countries: app.places.are_known(),
        policies: stored.iter().map(set).collect(),
    })
}

fn read(app: &App, new: NewDefencePolicy) -> Result<Policy, Error> {
    let default = Policy::default();
    let or = |answer: Option<Answer>, default| answer.map_or(default, Response::from);
    let policy = Policy {
        networks: read_networks("networks", &new.networks.unwrap_or_default(), 200)?,
        countries_allowed: read_countries("countries_allowed", &new.countries_allowed.unwrap_or_default())?,
        countries_denied: read_countries("countries_denied", &new.countries_denied.unwrap_or_default())?,
        refuses_unknown: new.refuses_unknown.unwrap_or(false),
        new_device: or(new.new_device, default.new_device),
        impossible_travel: or(new.impossible_travel, default.impossible_travel),
        credential_stuffing: or(new.credential_stuffing, default.credential_stuffing),
        second_factor: new.second_factor_required.unwrap_or(false).then(|| SecondFactor {
            since: app.db.now(),
            grace: TimeDelta::days(new.second_factor_grace_days.unwrap_or(GRACE_DAYS)),
        }),
        factor_kinds: read_kinds(new.second_factor_kinds)?,
        sessions: read_sessions(new.most_sessions, new.refuses_more_sessions)?,
    };
    if policy.restricts_countries() && !app.places.are_known() {
        let field = if policy.countries_allowed.is_empty() { "countries_denied" } else { "countries_allowed" };
        return Err(Error::field(
            field,
            "this installation does not know in which countries addresses are: leave it out, or have GANTRY_GEO_DATABASE set",
        ));
    }
    Ok(policy)
}

/// What counts as a second factor, each kind once.
fn read_kinds(wanted: Option<Vec<FactorKind>>) -> Result<Vec<Kind>, Error> {
    let Some(wanted) = wanted else { return Ok(USUAL_KINDS.to_vec()) };
    if wanted.is_empty() || wanted.len() > Kind::ALL.len() {
        return Err(Error::field("second_factor_kinds", "name 1 to 4 kinds, or leave it out"));
    }
    let wanted: Vec<Kind> = wanted.into_iter().map(Kind::from).collect();
    Ok(Kind::ALL.into_iter().filter(|kind| wanted.contains(kind)).collect())
}

fn read_sessions(most: Option<i64>, refuses: Option<bool>) -> Result<Option<MostSessions>, Error> {
    let refuses = refuses.unwrap_or(false);
    match most {
        Some(most) if (1..=100).contains(&most) => Ok(Some(MostSessions { most, refuses })),
        Some(_) => Err(Error::field("most_sessions", "a person has 1 to 100 sessions; write a number between them")),
        None if refuses => Err(Error::field("most_sessions", "say how many go on before more are refused")),
        None => Ok(None),
    }
}

fn read_countries(field: &str, words: &[String]) -> Result<Vec<Country>, Error> {
    if words.len() > MAX_COUNTRIES {
        return Err(Error::field(field, format!("at most {MAX_COUNTRIES} countries can be listed")));
    }
    let read = |(index, word): (usize, &String)| {
        word.parse().map_err(|error| Error::field(format!("{field}[{index}]"), format!("{error}")))
    };
    words.iter().enumerate().map(read).collect::<Result<Vec<Country>, Error>>()
}
