//! What would be different if the license were: which operations, kinds of jobs and resources.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use gantry_jobs::{Policy, catalogue};
use gantry_schema::licenses::claims::{Claims, Delegation};
use gantry_schema::licenses::evaluate::{Access, Evaluation, Status};
use gantry_schema::licenses::features::{Feature, Limit};
use gantry_schema::licenses::queries;
use gantry_schema::licenses::standing::{Licensed, licensed};
use gantry_schema::organizations::{Permission, Permissions};
use gantry_schema::{JobTx as _, OrganizationId, TenantTx};
use poem_openapi::{Enum, Object};
use serde::Deserialize;

use super::give::{Above, Wanted};
use super::{NewLicense, needs};
use crate::app::App;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::routes;

/// Operations that add something that licenses limit: the database refuses what is too much by whichever of them it comes.
const ADDING: &[(&str, Limit)] = &[
    ("createOrganization", Limit::ChildOrganizations),
    ("moveOrganization", Limit::ChildOrganizations),
    ("restoreOrganization", Limit::ChildOrganizations),
    ("acceptInvitation", Limit::Users),
    ("signUpByInvitation", Limit::Users),
    ("createCloudCredential", Limit::CloudAccounts),
    ("createServer", Limit::Servers),
];

/// What is to be supposed.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub(super) struct NewLicenseSimulation {
    /// Of an organization below; left out: of the caller's.
    pub(super) organization_id: Option<OrganizationId>,
    /// Another license; left out: the one that counts.
    license: Option<NewLicense>,
    /// What is decided about it; left out: what was.
    decision: Option<SimulatedDecision>,
    /// At which moment; left out: now.
    at: Option<Moment>,
}

example!(NewLicenseSimulation, {
    "license": { "tier": "starter", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" },
    "at": "2026-12-24T12:00:00Z",
});

/// What is decided about a license.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum SimulatedDecision {
    /// It is in force.
    Active,
    /// It is suspended.
    Suspended,
    /// It is revoked.
    Revoked,
}

/// What would be different. Nothing of it is stored.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct LicenseSimulation {
    /// The license now.
    before: SimulatedLicense,
    /// As supposed.
    after: SimulatedLicense,
    /// Features that would allow something else.
    features: Vec<SimulatedFeature>,
    /// Operations that would be allowed, or refused, where they are not now.
    operations: Vec<SimulatedChange>,
    /// Kinds of jobs that would start, or not, where they do not now.
    jobs: Vec<SimulatedChange>,
    /// What is limited, where the limit or what may be added would differ, or more is there than there might be.
    resources: Vec<SimulatedResource>,
}

example!(LicenseSimulation, {
    "before": { "state": "valid", "tier": "enterprise" },
    "after": { "state": "warning", "tier": "starter", "ends_at": "2027-01-15T12:00:00Z" },
    "features": [{ "name": "reselling", "before": "full", "after": "none" }],
    "operations": [{ "name": "issueLicense", "allowed": false }],
    "jobs": [],
    "resources": [{ "name": "users", "used": 7, "most_after": 3, "grows_before": true, "grows_after": false, "exceeded": true }],
});

/// A license in short.
#[derive(Debug, Object)]
struct SimulatedLicense {
    /// As in `GET /license`.
    state: String,
    /// The name of its tier.
    #[oai(skip_serializing_if_is_none)]
    tier: Option<String>,
    /// When it ends; absent: never.
    #[oai(skip_serializing_if_is_none)]
    ends_at: Option<Moment>,
}

/// What a feature allows.
#[derive(Debug, Object)]
struct SimulatedFeature {
    /// Its name.
    name: String,
    /// What it allows now: `full`, `change`, `read` or `none`.
    before: String,
    /// What it would.
    after: String,
}

/// Something that would be allowed, or would be no more.
#[derive(Debug, Object)]
struct SimulatedChange {
    /// The operation, or the kind of job.
    name: String,
    /// It would be.
    allowed: bool,
}

/// Something that is limited.
#[derive(Debug, Object)]
struct SimulatedResource {
    /// Of what.
    name: String,
    /// How many there are.
    used: u64,
    /// How many there may be; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    most_before: Option<u64>,
    /// How many there might be; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    most_after: Option<u64>,
    /// One may be added.
    grows_before: bool,
    /// One might be.
    grows_after: bool,
    /// There are more than there might be: they stay, and none is added.
    exceeded: bool,
}

/// A license at a moment, with what is there; without one everything is allowed.
struct Supposed<'a> {
    license: Option<&'a Licensed>,
    evaluation: Option<Evaluation>,
    permissions: Permissions,
    usage: &'a BTreeMap<String, u64>,
}

impl<'a> Supposed<'a> {
    fn new(license: Option<&'a Licensed>, at: DateTime<Utc>, usage: &'a BTreeMap<String, u64>) -> Self {
        let evaluation = license.map(|license| license.evaluate(at, None, usage));
        let permissions = license.map_or_else(Permissions::all, |license| license.allows(at, None));
        Self { license, evaluation, permissions, usage }
    }

    fn shown(&self) -> SimulatedLicense {
        SimulatedLicense {
            state: self.evaluation.as_ref().map_or("unlicensed", |evaluation| evaluation.state.as_str()).to_owned(),
            tier: self.license.and_then(Licensed::own).map(|claims| claims.tier.clone()),
            ends_at: self.evaluation.as_ref().and_then(|evaluation| evaluation.ends_at).map(Moment),
        }
    }

    fn access(&self, feature: &str) -> Access {
        self.evaluation.as_ref().map_or(Access::Full, |evaluation| evaluation.access(feature))
    }

    fn most(&self, limit: &str) -> Option<u64> {
        self.evaluation.as_ref().and_then(|evaluation| evaluation.limits.get(limit).copied().flatten())
    }

    fn used(&self, limit: &str) -> u64 {
        self.usage.get(limit).copied().unwrap_or(0)
    }

    /// Whether one more may be added.
    fn grows(&self, limit: Limit) -> bool {
        let Some(evaluation) = &self.evaluation else { return true };
        let room = self.most(limit.as_str()).is_none_or(|most| self.used(limit.as_str()) < most);
        room && evaluation.grows(limit.feature().map(Feature::as_str))
    }

    fn exceeded(&self, limit: &str) -> bool {
        self.most(limit).is_some_and(|most| self.used(limit) > most)
    }

    fn lets(&self, operation: &str, needed: &[Permission]) -> bool {
        let adding = ADDING.iter().filter(|(name, _)| *name == operation);
        needed.iter().all(|permission| self.permissions.contain(*permission))
            && adding.into_iter().all(|(_, limit)| self.grows(*limit))
            && needs(operation).is_none_or(|(feature, least)| self.access(feature.as_str()) >= least)
    }

    /// Whether a job starts, as workers look at it.
    fn starts(&self, policy: &Policy) -> bool {
        let Some(evaluation) = &self.evaluation else { return true };
        let least = if policy.adds.is_some() { Access::Full } else { Access::Change };
        let has = policy.needs.is_none_or(|feature| self.access(feature.as_str()) >= least);
        has && policy.adds.is_none_or(|limit| {
            evaluation.grows(limit.feature().map(Feature::as_str)) && !self.exceeded(limit.as_str())
        })
    }
}

/// What would be different.
pub(super) async fn simulate(
    app: &App,
    organization: OrganizationId,
    new: NewLicenseSimulation,
) -> Result<LicenseSimulation, Error> {
    let anchors = app.trust.anchors(&app.db).await?;
    let mut tx = app.db.tenant(organization).await?;
    let (now, own) = (tx.now(), licensed(&mut tx, &anchors).await?);
    let usage = queries::usage(&mut tx, organization).await?;
    let (at, decision) = (new.at.map_or(now, |at| at.0), new.decision);
    let mut supposed = match new.license {
        Some(license) => Some(instead(&mut tx, own.as_ref(), license).await?),
        None => own.clone(),
    };
    if let Some(decision) = decision {
        let Some(license) = supposed.take() else {
            let detail = "the organization has no license about which something could be decided; suppose one";
            return Err(Error::new(Code::WrongState, detail));
        };
        supposed = Some(license.decided(match decision {
            SimulatedDecision::Active => Status::Active,
            SimulatedDecision::Suspended => Status::Suspended,
            SimulatedDecision::Revoked => Status::Revoked,
        }));
    }
    Ok(compare(&Supposed::new(own.as_ref(), now, &usage), &Supposed::new(supposed.as_ref(), at, &usage)))
}

/// What is different with another license, at this moment.
pub(super) fn differing(
    before: Option<&Licensed>,
    after: Option<&Licensed>,
    now: DateTime<Utc>,
    usage: &BTreeMap<String, u64>,
) -> LicenseSimulation {
    compare(&Supposed::new(before, now, usage), &Supposed::new(after, now, usage))
}

/// The license as it would be if it were given now, by whoever gave the one that counts.
async fn instead(tx: &mut TenantTx, own: Option<&Licensed>, new: NewLicense) -> Result<Licensed, Error> {
    let above = own.and_then(|own| {
        let claims = own.above()?;
        Some(Above { key: String::new(), claims: claims.clone(), cld: claims.cld.clone()? })
    });
    let wanted = Wanted::read(tx, new, above.as_ref()).await?;
    let issuer =
        own.and_then(Licensed::own).map_or_else(|| OrganizationId::PLATFORM.to_string(), |own| own.iss.clone());
    let number = queries::highest(tx).await?.unsigned_abs() + 1;
    let resold: Option<Delegation> = None;
    let claims: Claims = wanted.claims(tx, issuer, above.as_ref(), number, resold);
    if let Some(above) = &above {
        above.allows(&claims)?;
    }
    Ok(match own {
        Some(own) if own.stored.organization == tx.organization() => own.instead(claims),
        _ => Licensed::of_claims(claims, tx.now()),
    })
}

fn compare(before: &Supposed<'_>, after: &Supposed<'_>) -> LicenseSimulation {
    let of = |supposed: &Supposed<'_>| {
        supposed.evaluation.iter().flat_map(|evaluation| evaluation.features.keys().cloned()).collect::<Vec<_>>()
    };
    let known = Feature::ALL.iter().map(|feature| feature.as_str().to_owned());
    let names: BTreeSet<String> = of(before).into_iter().chain(of(after)).chain(known).collect();
    let feature = |name: String| {
        let (was, is) = (before.access(&name), after.access(&name));
        let shown = |access: Access| access.as_str().to_owned();
        (was != is).then(|| SimulatedFeature { name, before: shown(was), after: shown(is) })
    };
    let change =
        |name: &str, was: bool, is: bool| (was != is).then(|| SimulatedChange { name: name.to_owned(), allowed: is });
    let operation = |(id, needed): (&'static str, &'static [Permission])| {
        change(id, before.lets(id, needed), after.lets(id, needed))
    };
    let job = |kind: catalogue::Kind| change(kind.name, before.starts(&kind.policy), after.starts(&kind.policy));
    let resource = |limit: &Limit| {
        let name = limit.as_str();
        let (most_before, most_after) = (before.most(name), after.most(name));
        let (grows_before, grows_after) = (before.grows(*limit), after.grows(*limit));
        let exceeded = after.exceeded(name);
        let differs = most_before != most_after || grows_before != grows_after || exceeded;
        differs.then(|| SimulatedResource {
            name: name.to_owned(),
            used: after.used(name),
            most_before,
            most_after,
            grows_before,
            grows_after,
            exceeded,
        })
    };
    LicenseSimulation {
        before: before.shown(),
        after: after.shown(),
        features: names.into_iter().filter_map(feature).collect(),
        operations: routes::needing().filter_map(operation).collect(),
        jobs: catalogue::kinds().into_iter().filter_map(job).collect(),
        resources: Limit::ALL.iter().filter_map(resource).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_adds_something_is_an_operation() {
        for (operation, _) in ADDING {
            assert!(routes::ids().any(|id| id == *operation), "{operation}");
        }
    }
}
