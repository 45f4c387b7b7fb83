//! Licenses: what organizations may use, and how many of it there may be.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, SecondsFormat, Utc};
use gantry_jobs::webhooks;
use gantry_schema::licenses::chain::{self, Anchors, Chain};
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Kind, VERSION};
use gantry_schema::licenses::domain::DomainRule;
use gantry_schema::licenses::evaluate::{Evaluation, Status};
use gantry_schema::licenses::features::{Feature, is_name};
use gantry_schema::licenses::queries::{self, Stored, Tier as TierRow};
use gantry_schema::licenses::standing::{Licensed, licensed};
use gantry_schema::organizations::needed::{OperatePlatform, ReadOrganizations};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, LicenseId, OrganizationId, TenantTx, turn};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Enum, Object, OpenApi};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::dry_run::DryRun;
use crate::error::{Code, Error};
use crate::example::{self, example};
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::tag::Tag;

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
    /// `X-License-Status`, `X-License-Expires` and `X-License-Days-Remaining` what it is.
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
    /// To the organization and all below it that have none of their own, in place of the one before: to renew, upgrade and
    /// downgrade is the same. In force in every process within a second. What is there stays when there may be less: limits
    /// that are exceeded only keep more from being added, and `dry_run` says which they would be. Needs a key of the platform.
    #[oai(path = "/organizations/:organization/license", method = "post", operation_id = "issueLicense")]
    async fn issue(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        dry_run: DryRun,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewLicense>,
    ) -> Result<Answered<Json<License>>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut platform = app.db.tenant(OrganizationId::PLATFORM).await?;
        let key = queries::issuer(&mut platform, &app.sealing).await?;
        let tiers = queries::tiers(&mut platform).await?;
        platform.commit().await?;
        let anchors = app.trust.anchors(&app.db).await?;
        let wanted = Wanted::read(body.0, &tiers, &app)?;
        let answer = dry_run
            .run(once, &caller, organization, async |tx| {
                turn::take(tx, "license").await?;
                let number = queries::highest(tx).await? + 1;
                let claims = wanted.claims(tx, number.unsigned_abs());
                let key = chain::issue(None, &claims, &key)
                    .map_err(|error| Error::field("tier", format!("{error}; change what the license is to have")))?;
                let mut made = put_in_force(tx, &anchors, &caller, &key).await?;
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
    /// Refused as `wrong_state` when a license with as high a number was there before.
    #[oai(path = "/organizations/:organization/license", method = "put", operation_id = "installLicense")]
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
                turn::take(tx, "license").await?;
                put_in_force(tx, &anchors, &caller, key.trim()).await.map(Json)
            })
            .await?;
        app.standings.forget(None);
        Ok(answer)
    }

    /// Suspend a license
    ///
    /// Nothing is added any more, in every process within a second; what is there stays, and what runs goes on. Needs a key of
    /// the platform.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own, or it was revoked.
    #[oai(path = "/organizations/:organization/license/suspend", method = "post", operation_id = "suspendLicense")]
    async fn suspend(
        &self,
        caller: May<OperatePlatform>,
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
    /// One that was suspended goes on. Needs a key of the platform.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own, or it was revoked.
    #[oai(path = "/organizations/:organization/license/reinstate", method = "post", operation_id = "reinstateLicense")]
    async fn reinstate(
        &self,
        caller: May<OperatePlatform>,
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
    /// on. Revoking it again changes nothing. Needs a key of the platform.
    ///
    /// Refused as `wrong_state` when the organization has no license of its own.
    #[oai(path = "/organizations/:organization/license", method = "delete", operation_id = "revokeLicense")]
    async fn revoke(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Json<License>>, Error> {
        decide(&app, &caller, once, organization.0, Status::Revoked, None).await
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
    let reason = decision.reason;
    if !(1..=500).contains(&reason.chars().count()) || reason.trim().is_empty() || reason.contains('\0') {
        return Err(Error::field("reason", "say why, in 1 to 500 characters; its people are told"));
    }
    Ok(reason)
}

/// What a license is to have.
struct Wanted {
    tier: TierRow,
    kind: Kind,
    expires_at: Option<DateTime<Utc>>,
    grace: u64,
    features: BTreeSet<String>,
    limits: BTreeMap<String, Option<u64>>,
    domains: Vec<DomainRule>,
}

/// Features that grow no more as soon as a license has ended.
const NO_GRACE: [Feature; 5] = [
    Feature::ServerProvisioning,
    Feature::InfrastructureProvisioning,
    Feature::PaymentProcessing,
    Feature::DomainManagement,
    Feature::BulkOperations,
];

impl Wanted {
    fn read(new: NewLicense, tiers: &[TierRow], app: &App) -> Result<Self, Error> {
        let tier = tiers.iter().find(|tier| tier.name == new.tier.as_str()).cloned().ok_or_else(|| {
            Error::field("tier", format!("there is no tier {}; GET /license-tiers lists them", new.tier.as_str()))
        })?;
        let (now, expires_at) = (app.db.now(), new.expires_at.map(|moment| moment.0));
        if expires_at.is_some_and(|at| at <= now) {
            return Err(Error::field("expires_at", "the license would have ended already; write a moment ahead"));
        }
        if new.r#type == LicenseType::Trial && expires_at.is_none_or(|at| at - now > Duration::days(366)) {
            return Err(Error::field("expires_at", "a trial ends within a year; write when"));
        }
        let grace = u64::try_from(new.grace_days.unwrap_or(7)).ok().filter(|days| *days <= 365);
        let grace =
            grace.ok_or_else(|| Error::field("grace_days", "a grace is 0 to 365 days; write a number between them"))?;
        let mut limits = tier.limits.clone();
        limits.extend(read_limits(new.limits.unwrap_or_default())?);
        let features = match new.features {
            Some(features) => names("features", features)?,
            None => tier.features.iter().cloned().collect(),
        };
        let domain = |(index, text): (usize, &String)| {
            text.parse::<DomainRule>().map_err(|error| Error::field(format!("domains[{index}]"), error.to_string()))
        };
        let domains = new.domains.unwrap_or_default();
        no_more_than_a_list_has("domains", &domains)?;
        let domains = domains.iter().enumerate().map(domain).collect::<Result<_, _>>()?;
        Ok(Self { kind: new.r#type.into(), expires_at, grace: grace * 86_400, features, limits, domains, tier })
    }

    fn claims(&self, tx: &TenantTx, number: u64) -> Claims {
        let now = tx.now();
        Claims {
            ver: VERSION,
            jti: tx.ids().mint(),
            iss: OrganizationId::PLATFORM.to_string(),
            sub: tx.organization(),
            aud: ANY_INSTANCE.to_owned(),
            iat: now,
            nbf: now,
            exp: self.expires_at,
            typ: self.kind,
            tier: self.tier.name.clone(),
            feat: self.features.clone(),
            lim: self.limits.clone(),
            dom: self.domains.clone(),
            grace: self.grace,
            deg: BTreeMap::new(),
            gra: NO_GRACE
                .iter()
                .map(|feature| feature.to_string())
                .filter(|name| self.features.contains(name))
                .collect(),
            seq: number,
            par: None,
            cld: None,
            off: None,
            epo: 0,
        }
    }
}

/// Puts a key in force for the transaction's organization, if it is believed and for it.
async fn put_in_force(tx: &mut TenantTx, anchors: &Anchors, caller: &Caller, key: &str) -> Result<License, Error> {
    let chain = Chain::verify(key, anchors).map_err(|error| Error::field("key", error.to_string()))?;
    let own = chain.own();
    if own.sub != tx.organization() {
        let detail = format!("the license is for {}, not for {}; install it there", own.sub, tx.organization());
        return Err(Error::field("key", detail));
    }
    if i64::try_from(own.seq).is_ok_and(|number| number > i64::MAX / 2) {
        return Err(Error::field("key", "the number of the license is out of bounds; ask for another one"));
    }
    if queries::highest(tx).await? >= i64::try_from(own.seq).unwrap_or(i64::MAX) {
        let detail = "a license with as high a number was there before; ask for a newer one";
        return Err(Error::new(Code::WrongState, detail));
    }
    queries::put_in_force(tx, &chain, key).await?;
    let facts = json!({
        "organization_id": own.sub, "license_id": own.jti, "tier": own.tier, "number": own.seq,
    });
    webhooks::emit(tx, PlatformEvent::LicenseIssued.name(), facts, caller.by()).await?;
    tx.audit().set("license_id", own.jti).set("tier", &own.tier).set("number", own.seq).set("expires_at", own.exp);
    let licensed = count(tx, anchors).await?;
    view(tx, licensed).await
}

/// The license that counts, with what it means for what is added from now on.
async fn count(tx: &mut TenantTx, anchors: &Anchors) -> Result<Option<Licensed>, Error> {
    let found = licensed(tx, anchors).await?;
    if let Some(own) = found.as_ref().filter(|found| found.stored.organization == tx.organization()) {
        let counters = own.counters(tx.now());
        queries::count_by(tx, &counters).await?;
    }
    Ok(found)
}

async fn decide(
    app: &App,
    caller: &May<OperatePlatform>,
    once: Once,
    organization: OrganizationId,
    status: Status,
    reason: Option<String>,
) -> Result<Answered<Json<License>>, Error> {
    let organization = caller.may_for(&app.db, Some(organization)).await?;
    let anchors = &app.trust.anchors(&app.db).await?;
    let answer = once
        .run(caller, organization, async |tx| {
            let wrong = |detail: &'static str| Error::new(Code::WrongState, detail);
            let before: Stored = queries::lock(tx)
                .await?
                .ok_or_else(|| wrong("the organization has no license of its own; give it one first"))?;
            if before.status == Status::Revoked && status != Status::Revoked {
                return Err(wrong("the license was revoked, which is for good; give another one"));
            }
            if before.status != status {
                queries::decide(tx, status, reason.as_deref()).await?;
                let mut facts: Value = json!({ "organization_id": organization, "license_id": before.id });
                if let Some(reason) = &reason {
                    facts["reason"] = reason.as_str().into();
                }
                let event = match status {
                    Status::Suspended => PlatformEvent::LicenseSuspended,
                    Status::Revoked | Status::Replaced => PlatformEvent::LicenseRevoked,
                    Status::Active => PlatformEvent::LicenseReinstated,
                };
                webhooks::emit(tx, event.name(), facts, caller.by()).await?;
            }
            tx.audit().set("license_id", before.id).set("reason", &reason);
            let licensed = count(tx, anchors).await?;
            view(tx, licensed).await.map(Json)
        })
        .await?;
    app.standings.forget(None);
    Ok(answer)
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
    let feature = |(name, access): (&String, &gantry_schema::licenses::Access)| LicensedFeature {
        name: name.clone(),
        access: access.as_str().to_owned(),
    };
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

/// Says in headers what the license of whoever asks is.
pub(crate) fn show(headers: &mut HeaderMap, license: &Licensed, now: i64) {
    let evaluation = license.evaluate(DateTime::from_timestamp(now, 0).unwrap_or_default(), None, &BTreeMap::new());
    let said = [
        ("x-license-tier", license.own().map(|claims| claims.tier.clone())),
        ("x-license-status", Some(evaluation.state.as_str().to_owned())),
        ("x-license-expires", evaluation.ends_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))),
        ("x-license-days-remaining", evaluation.days_remaining().map(|days| days.to_string())),
    ];
    for (name, value) in said {
        // Made of characters that headers may have.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
