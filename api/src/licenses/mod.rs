//! Licenses: what organizations may use, and how many of it there may be.

mod claims;
mod give;
mod records;
mod revocations;
mod simulate;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat};
use gantry_schema::licenses::claims::Kind;
use gantry_schema::licenses::evaluate::{Access, Evaluation, Status};
use gantry_schema::licenses::features::{Feature, Limit, is_name};
use gantry_schema::licenses::queries::{self, Tier as TierRow};
use gantry_schema::licenses::standing::{Licensed, licensed};
use gantry_schema::organizations::needed::{IssueLicenses, OperatePlatform, ReadOrganizations};
use gantry_schema::{JobTx as _, LicenseId, OrganizationId, TenantTx};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::dry_run::DryRun;
use crate::error::Error;
use crate::example::{self, example};
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::tag::Tag;
use give::{Issuer, Wanted, decide, put_in_force, take_turn};
use simulate::{LicenseSimulation, NewLicenseSimulation, simulate};
use transfer::{LicenseTransfer, NewLicenseTransfer, Transfer};

pub use claims::LicenseClaims;
pub use records::LicenseRecords;
pub use revocations::LicenseRevocations;

/// The operations on licenses.
#[derive(Debug, Clone, Copy)]
pub struct Licenses;

/// What an organization may use at the moment.
#[derive(Debug, Object)]
#[oai(example)]
struct License {
    /// `unlicensed`: there is none, and everything may be used; `valid`, `warning` (it ends soon), `grace` (it has ended, and
    /// goes on for a while), `expired`, `not_yet_valid`, `suspended`, `revoked`, `wrong_instance`, `rollback`,
    /// `bad_signature`.
    state: String,
    /// Its id.
    #[oai(skip_serializing_if_is_none)]
    id: Option<LicenseId>,
    /// Whose it is: one above has a license for all below it that have none.
    #[oai(skip_serializing_if_is_none)]
    organization_id: Option<OrganizationId>,
    /// The name of its tier.
    #[oai(skip_serializing_if_is_none)]
    tier: Option<String>,
    /// For how long it was given.
    #[oai(skip_serializing_if_is_none)]
    r#type: Option<LicenseType>,
    /// Counts the organization's licenses; the highest is in force.
    #[oai(skip_serializing_if_is_none)]
    number: Option<i64>,
    /// Why it was suspended.
    #[oai(skip_serializing_if_is_none)]
    reason: Option<String>,
    /// What each of its features allows.
    features: Vec<LicensedFeature>,
    /// How many there may be of something, in the organization and below it.
    limits: Vec<LicenseLimit>,
    /// When it ends, or ended; absent: never.
    #[oai(skip_serializing_if_is_none)]
    ends_at: Option<Moment>,
    /// Whole days until then; negative: since.
    #[oai(skip_serializing_if_is_none)]
    days_remaining: Option<i64>,
    /// When the state or a feature changes next by itself.
    #[oai(skip_serializing_if_is_none)]
    next_change_at: Option<Moment>,
    /// The key, which anybody verifies without asking anybody; of the organization's own license.
    #[oai(skip_serializing_if_is_none)]
    key: Option<String>,
    /// Nothing was stored.
    #[oai(skip_serializing_if_is_none)]
    dry_run: Option<bool>,
}

example!(License, {
    "state": "valid",
    "id": "lic_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "tier": "professional",
    "type": "subscription",
    "number": 2,
    "features": [{ "name": "api_access", "access": "full" }],
    "limits": [{ "name": "users", "used": 7, "most": 10, "remaining": 3, "percent": 70.0, "exceeded": false }],
    "ends_at": "2027-01-15T12:00:00Z",
    "days_remaining": 365,
    "next_change_at": "2026-12-16T12:00:00Z",
});

/// A feature of a license.
#[derive(Debug, Object)]
struct LicensedFeature {
    /// Its name.
    name: String,
    /// `full`; `change`: what is there is changed, and nothing is added; `read`: what is there is looked at; what is not listed
    /// is not licensed. What runs goes on running in any case.
    access: String,
}

/// How many there may be of something.
#[derive(Debug, Object)]
struct LicenseLimit {
    /// Of what.
    name: String,
    /// How many there are.
    used: u64,
    /// How many there may be; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    most: Option<u64>,
    /// How many more; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    remaining: Option<u64>,
    /// How much of it is used.
    #[oai(skip_serializing_if_is_none)]
    percent: Option<f64>,
    /// There are more than there may be: what is there stays, and nothing is added.
    exceeded: bool,
}

/// For how long a license is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum LicenseType {
    /// To try it out.
    Trial,
    /// As long as it is paid for.
    Subscription,
    /// For good.
    Perpetual,
}

/// A license to give.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewLicense {
    /// The name of its tier; `GET /license-tiers` lists them.
    tier: Word,
    /// For how long it is given.
    r#type: LicenseType,
    /// Until when; left out: for good. A trial ends within a year.
    expires_at: Option<Moment>,
    /// For how many days it goes on after that, 0 to 365; left out: 7.
    #[oai(validator(minimum(value = "0"), maximum(value = "365")))]
    grace_days: Option<i32>,
    /// Its features; left out: the tier's.
    #[oai(validator(max_items = 200))]
    features: Option<Vec<Word>>,
    /// Limits that are other than the tier's.
    #[oai(validator(max_items = 200))]
    limits: Option<Vec<NewLicenseLimit>>,
    /// Host names where it may be used, `shop.example.com` or `*.example.com`; left out: anywhere.
    #[oai(validator(max_items = 200))]
    domains: Option<Vec<String>>,
    /// With the feature `reselling`: how many organizations, one below the other, may get a license out of this one, 1 to 7; left
    /// out: as many as can be.
    #[oai(validator(minimum(value = "1"), maximum(value = "7")))]
    resale_depth: Option<i32>,
}

example!(NewLicense, { "tier": "enterprise", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" });

/// How many there may be of something.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct NewLicenseLimit {
    /// Of what.
    name: Word,
    /// How many; left out: any number.
    most: Option<u32>,
}

/// A key that was signed elsewhere.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct LicenseKey {
    /// The key, `v4.public.…`.
    #[oai(validator(max_length = 65536))]
    key: String,
}

example!(LicenseKey, { "key": "v4.public.eyJ2ZXIiOjEsImp0aSI6ImxpY18wMWg0NTV2YjRwZXg1dnNrbmswODRzbjAycSJ9.eyJraWQiOiJrNC5waWQuIn0" });

/// Why.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct LicenseDecision {
    /// What is said of it, in 1 to 500 characters; the organization's people are told.
    #[oai(validator(min_length = 1, max_length = 500))]
    reason: String,
}

example!(LicenseDecision, { "reason": "The invoice of March is open." });

/// What a license of a tier has, unless whoever gives it says otherwise.
#[derive(Debug, Object)]
#[oai(example)]
struct LicenseTier {
    /// Its name.
    name: String,
    /// Its features.
    features: Vec<String>,
    /// How many there may be of something; what is not listed: any number.
    limits: Vec<TierLimit>,
    /// Its place, from the smallest.
    place: i16,
}

example!(LicenseTier, {
    "name": "starter",
    "features": ["api_access", "server_provisioning"],
    "limits": [{ "name": "users", "most": 3 }],
    "place": 1,
});

/// How many there may be of something.
#[derive(Debug, Object)]
struct TierLimit {
    /// Of what.
    name: String,
    /// How many; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    most: Option<u64>,
}

/// What a tier is to have.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewLicenseTier {
    /// Its features.
    #[oai(validator(max_items = 200))]
    features: Vec<Word>,
    /// How many there may be of something; what is not listed: any number.
    #[oai(validator(max_items = 200))]
    limits: Vec<NewLicenseLimit>,
    /// Its place, from the smallest.
    place: i16,
}

example!(NewLicenseTier, {
    "features": ["api_access", "server_provisioning"],
    "limits": [{ "name": "users", "most": 3 }],
    "place": 4,
});

impl From<TierRow> for LicenseTier {
    fn from(tier: TierRow) -> Self {
        let limits = tier.limits.into_iter().map(|(name, most)| TierLimit { name, most }).collect();
        Self { name: tier.name, features: tier.features, limits, place: tier.place }
    }
}

impl From<LicenseType> for Kind {
    fn from(kind: LicenseType) -> Self {
        match kind {
            LicenseType::Trial => Self::Trial,
            LicenseType::Subscription => Self::Subscription,
            LicenseType::Perpetual => Self::Perpetual,
        }
    }
}

impl From<Kind> for LicenseType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Trial => Self::Trial,
            Kind::Subscription => Self::Subscription,
            Kind::Perpetual => Self::Perpetual,
        }
    }
}

#[OpenApi(tag = "Tag::Licenses")]
impl Licenses {
    /// See the license
    ///
    /// Of the caller's organization: its own, or that of the nearest above. Every answer says in `X-License-Tier`,
    /// `X-License-Status`, `X-License-Expires` and `X-License-Days-Remaining` what it is, and of each limit in `X-Usage-Users` and the
    /// like how many percent were used some seconds ago.
    #[oai(path = "/license", method = "get", operation_id = "getLicense")]
    async fn own(&self, caller: May<ReadOrganizations>, app: Data<&App>) -> Result<Json<License>, Error> {
        read(&app, caller.organization()).await.map(Json)
    }

    /// See an organization's license
    ///
    /// Of the caller's organization, or of one below it.
    #[oai(path = "/organizations/:organization/license", method = "get", operation_id = "getOrganizationLicense")]
    async fn of(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Json<License>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        read(&app, organization).await.map(Json)
    }

    /// Give a license
    ///
    /// To an organization below and all below it that have none of their own, in place of the one before: to renew, upgrade and
    /// downgrade is the same. In force in every process within a second. What is there stays when there may be less: limits
    /// that are exceeded only keep more from being added, and `dry_run` says which they would be.
    ///
    /// An organization whose own license has the feature `reselling` gives what is within that: no other features, no higher
    /// limits, no later end. What is left out is as its own license has it at most. When its own allows less one day, so do
    /// those that it gave.
    ///
    /// Refused as `wrong_state` when the organization has a license that somebody else gave, or that somebody above suspended or
    /// revoked.
    #[oai(path = "/organizations/:organization/license", method = "post", operation_id = "issueLicense")]
    async fn issue(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewLicense>,
    ) -> Result<Answered<Json<License>>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let issuer = Issuer::of(&app, caller.organization()).await?;
        let anchors = app.trust.anchors(&app.db).await?;
        let answer = dry_run
            .run(once, &caller, organization, async |tx| {
                take_turn(tx, [organization]).await?;
                issuer.may_give(tx, &anchors).await?;
                let wanted = Wanted::read(tx, body.0, issuer.above()).await?;
                let key = wanted.signed(tx, &issuer, &app).await?;
                let mut made = put_in_force(tx, &anchors, &caller, &key, "tier").await?;
                made.dry_run = dry_run.shown();
                Ok(Json(made))
            })
            .await?;
        app.standings.forget(None);
        Ok(answer)
    }

    /// Install a license key
    ///
    /// One that was signed elsewhere, with a key that is believed here: for this organization, with a higher number than any it
    /// had. Needs a key of the platform.
    ///
    /// Refused as `wrong_state` when a license with as high a number was there before, or its issuer has revoked others since the
    /// newest list that was imported.
    #[oai(path = "/organizations/:organization/license/install", method = "post", operation_id = "installLicense")]
    async fn install(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<LicenseKey>,
    ) -> Result<Answered<Json<License>>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let key = body.0.key;
        let anchors = app.trust.anchors(&app.db).await?;
        let answer = once
            .run(&caller, organization, async |tx| {
                take_turn(tx, [organization]).await?;
                put_in_force(tx, &anchors, &caller, key.trim(), "key").await.map(Json)
            })
            .await?;
        app.standings.forget(None);
        Ok(answer)
    }

    /// Transfer a license
    ///
    /// To another organization below, or to other host names: it ends where it was, for good, and begins where it is to be, in one
    /// moment, with its time going on or beginning anew. What is there stays at the one and the other; `dry_run` says what
    /// could not be done any more where it was.
    ///
    /// Refused as `wrong_state` when there is none of its own, somebody else gave it, it was suspended or revoked, or the
    /// organization that is to get it has one in force.
    #[oai(path = "/organizations/:organization/license/transfer", method = "post", operation_id = "transferLicense")]
    async fn transfer(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        /// The organization that has it.
        organization: Path<OrganizationId>,
        body: Body<NewLicenseTransfer>,
    ) -> Result<Answered<Json<LicenseTransfer>>, Error> {
        let from = caller.may_for(&app.db, Some(organization.0)).await?;
        let to = match body.0.organization_id {
            Some(to) => caller.may_for(&app.db, Some(to)).await.map_err(|error| error.at("organization_id"))?,
            None => from,
        };
        let reason = said_reason(body.0.reason.clone())?;
        let issuer = Issuer::of(&app, caller.organization()).await?;
        let anchors = app.trust.anchors(&app.db).await?;
        let transfer = Transfer { app: &app, caller: &caller, issuer: &issuer, anchors: &anchors, to, reason: &reason };
        let answer = dry_run
            .run(once, &caller, from, async |tx| {
                let mut made = transfer.make(tx, body.0).await?;
                made.dry_run = dry_run.shown();
                Ok(Json(made))
            })
            .await?;
        app.standings.forget(None);
        if !dry_run.is_wanted() && to != from {
            app.tell_events(to);
        }
        Ok(answer)
    }

    /// Suspend a license
    ///
    /// Nothing is added any more, in every process within a second; what is there stays, and what runs goes on.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own, it was revoked, or somebody else gave it.
    #[oai(path = "/organizations/:organization/license/suspend", method = "post", operation_id = "suspendLicense")]
    async fn suspend(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<LicenseDecision>,
    ) -> Result<Answered<Json<License>>, Error> {
        let reason = said(body.0)?;
        decide(&app, &caller, once, organization.0, Status::Suspended, Some(reason)).await
    }

    /// Reinstate a license
    ///
    /// One that was suspended goes on. What somebody above suspended, only he or somebody above him reinstates.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own, it was revoked, or somebody else gave it or
    /// suspended it.
    #[oai(path = "/organizations/:organization/license/reinstate", method = "post", operation_id = "reinstateLicense")]
    async fn reinstate(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Json<License>>, Error> {
        decide(&app, &caller, once, organization.0, Status::Active, None).await
    }

    /// Revoke a license
    ///
    /// For good, in every process within a second: only another license takes its place. What is there stays, and what runs goes
    /// on. Revoking it again changes nothing.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own, or somebody else gave it.
    #[oai(path = "/organizations/:organization/license", method = "delete", operation_id = "revokeLicense")]
    async fn revoke(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Json<License>>, Error> {
        decide(&app, &caller, once, organization.0, Status::Revoked, None).await
    }

    /// Suppose another license
    ///
    /// Which operations, jobs and resources another tier, limit, decision or moment would affect: of the caller's organization, or
    /// of one below it. Nothing is changed.
    ///
    /// Refused as `wrong_state` when something is to be decided about a license and there is none.
    #[oai(path = "/licenses/simulate", method = "post", operation_id = "simulateLicense")]
    async fn simulate(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        body: Body<NewLicenseSimulation>,
    ) -> Result<Json<LicenseSimulation>, Error> {
        let organization = caller.may_for(&app.db, body.0.organization_id).await?;
        simulate(&app, organization, body.0).await.map(Json)
    }

    /// List license tiers
    ///
    /// From the smallest.
    #[oai(path = "/license-tiers", method = "get", operation_id = "listLicenseTiers")]
    async fn tiers(&self, caller: May<ReadOrganizations>, app: Data<&App>) -> Result<Json<Vec<LicenseTier>>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(queries::tiers(&mut tx).await?.into_iter().map(LicenseTier::from).collect()))
    }

    /// Set a license tier
    ///
    /// Makes it, or changes it for licenses that are given from now on. Needs a key of the platform.
    #[oai(path = "/license-tiers/:tier", method = "put", operation_id = "setLicenseTier")]
    async fn set_tier(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        /// The tier's name: a letter, then up to 49 letters, digits and `_`.
        #[oai(example = "example_tier")]
        tier: Path<Word>,
        body: Body<NewLicenseTier>,
    ) -> Result<Answered<Json<LicenseTier>>, Error> {
        let NewLicenseTier { features, limits, place } = body.0;
        if !is_name(tier.as_str()) {
            let detail = "a tier's name is a letter, then up to 49 letters, digits and _; choose another";
            return Err(Error::parameter("tier", detail));
        }
        let tier = TierRow {
            name: tier.0.into(),
            features: names("features", features)?.into_iter().collect(),
            limits: read_limits(limits)?,
            place,
        };
        once.run(&caller, caller.organization(), async |tx| {
            queries::set_tier(tx, &tier).await?;
            Ok(Json(LicenseTier::from(tier)))
        })
        .await
    }
}

/// Operations that need a feature of the license of whoever asks, beside what their permission needs: one line each. What adds
/// something needs all of it.
pub(crate) const NEEDING: &[(&str, Feature, Access)] = &[
    ("addOrganizationHost", Feature::DomainManagement, Access::Full),
    ("askForJobs", Feature::BulkOperations, Access::Full),
    ("postEvents", Feature::BulkOperations, Access::Full),
    ("exportAuditEntries", Feature::AuditLogging, Access::Read),
    ("takeAuditArchive", Feature::AuditLogging, Access::Read),
    ("setAuditPolicy", Feature::AuditLogging, Access::Change),
];

/// What an operation needs of the license beside its permission, and what that has to allow.
pub(crate) fn needs(operation: &str) -> Option<(Feature, Access)> {
    NEEDING.iter().find(|(id, ..)| *id == operation).map(|(_, feature, least)| (*feature, *least))
}

fn example_tier() -> Word {
    example::read("gold".into())
}

/// Things that one list has.
const MAX_ITEMS: usize = 200;

fn no_more_than_a_list_has<T>(field: &str, items: &[T]) -> Result<(), Error> {
    if items.len() > MAX_ITEMS {
        return Err(Error::field(field, format!("at most {MAX_ITEMS} can be listed; write each once")));
    }
    Ok(())
}

fn names(field: &str, words: Vec<Word>) -> Result<BTreeSet<String>, Error> {
    no_more_than_a_list_has(field, &words)?;
    for (index, word) in words.iter().enumerate() {
        if !is_name(word.as_str()) {
            let detail = "a name is a letter, then up to 49 letters, digits and _; write another";
            return Err(Error::field(format!("{field}[{index}]"), detail));
        }
    }
    Ok(words.into_iter().map(String::from).collect())
}

fn read_limits(limits: Vec<NewLicenseLimit>) -> Result<BTreeMap<String, Option<u64>>, Error> {
    no_more_than_a_list_has("limits", &limits)?;
    let mut read = BTreeMap::new();
    for (index, limit) in limits.into_iter().enumerate() {
        let name = String::from(limit.name);
        if !is_name(&name) {
            let detail = "a name is a letter, then up to 49 letters, digits and _; write another";
            return Err(Error::field(format!("limits[{index}].name"), detail));
        }
        read.insert(name, limit.most.map(u64::from));
    }
    Ok(read)
}

fn said(decision: LicenseDecision) -> Result<String, Error> {
    said_reason(decision.reason)
}

fn said_reason(reason: String) -> Result<String, Error> {
    if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
        return Err(Error::field("reason", "say why, in 1 to 500 characters; its people are told"));
    }
    Ok(reason)
}

async fn read(app: &App, organization: OrganizationId) -> Result<License, Error> {
    let anchors = app.trust.anchors(&app.db).await?;
    let mut tx = app.db.tenant(organization).await?;
    let found = licensed(&mut tx, &anchors).await?;
    view(&mut tx, found).await
}

async fn view(tx: &mut TenantTx, licensed: Option<Licensed>) -> Result<License, Error> {
    let (own, now) = (tx.organization(), tx.now());
    // What one above has is counted there, which one below does not learn.
    let usage = queries::usage(tx, own).await?;
    let Some(licensed) = licensed else {
        return Ok(License {
            state: "unlicensed".to_owned(),
            id: None,
            organization_id: None,
            tier: None,
            r#type: None,
            number: None,
            reason: None,
            features: Vec::new(),
            limits: Vec::new(),
            ends_at: None,
            days_remaining: None,
            next_change_at: None,
            key: None,
            dry_run: None,
        });
    };
    let evaluation: Evaluation = licensed.evaluate(now, None, &usage);
    let of_limit = |(name, most): (&String, &Option<u64>)| {
        let used = usage.get(name).copied().unwrap_or(0);
        LicenseLimit {
            used,
            remaining: most.map(|most| most.saturating_sub(used)),
            percent: most.filter(|most| *most > 0).map(|most| (used * 10_000 / most) as f64 / 100.0),
            exceeded: most.is_some_and(|most| used > most),
            most: *most,
            name: name.clone(),
        }
    };
    let feature =
        |(name, access): (&String, &Access)| LicensedFeature { name: name.clone(), access: access.as_str().to_owned() };
    let claims = licensed.own();
    Ok(License {
        state: evaluation.state.as_str().to_owned(),
        id: Some(licensed.stored.id),
        organization_id: Some(licensed.stored.organization),
        tier: claims.map(|claims| claims.tier.clone()),
        r#type: claims.map(|claims| claims.typ.into()),
        number: Some(licensed.stored.number),
        reason: licensed.stored.reason.clone(),
        features: evaluation.features.iter().map(feature).collect(),
        limits: evaluation.limits.iter().map(of_limit).collect(),
        ends_at: evaluation.ends_at.map(Moment),
        days_remaining: evaluation.days_remaining(),
        next_change_at: evaluation.next_change.map(Moment),
        key: (licensed.stored.organization == own).then_some(licensed.stored.key),
        dry_run: None,
    })
}

/// Says in headers what the license of whoever asks is, and how much of it is used.
pub(crate) fn show(headers: &mut HeaderMap, license: &Licensed, used: &BTreeMap<String, u64>, now: i64) {
    let evaluation = license.evaluate(DateTime::from_timestamp(now, 0).unwrap_or_default(), None, used);
    let said = [
        ("x-license-tier", license.own().map(|claims| claims.tier.clone())),
        ("x-license-status", Some(evaluation.state.as_str().to_owned())),
        ("x-license-expires", evaluation.ends_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("x-license-days-remaining", evaluation.days_remaining().map(|days| days.to_string())),
    ];
    let mut say = |name: HeaderName, value: String| {
        // Made of characters that headers may have.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    for (name, value) in said {
        if let Some(value) = value {
            say(HeaderName::from_static(name), value);
        }
    }
    for (limit, name) in Limit::ALL.iter().zip(USAGE_HEADERS) {
        let most = evaluation.limits.get(limit.as_str()).copied().flatten().filter(|most| *most > 0);
        if let Some(most) = most {
            let used = used.get(limit.as_str()).copied().unwrap_or(0);
            say(HeaderName::from_static(name), format!("{}%", u128::from(used) * 100 / u128::from(most)));
        }
    }
}

/// What each limit is called in headers.
const USAGE_HEADERS: [&str; Limit::ALL.len()] = [
    "x-usage-servers",
    "x-usage-applications",
    "x-usage-domains",
    "x-usage-users",
    "x-usage-cloud-accounts",
    "x-usage-concurrent-provisioning",
    "x-usage-child-organizations",
    "x-usage-deployments-per-month",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_feature_is_an_operation() {
        for (operation, ..) in NEEDING {
            assert!(crate::routes::ids().any(|id| id == *operation), "{operation}");
        }
    }

    #[test]
    fn every_limit_has_its_header() {
        for (limit, name) in Limit::ALL.iter().zip(USAGE_HEADERS) {
            assert_eq!(format!("x-usage-{}", limit.as_str().replace('_', "-")), name);
        }
    }
}
