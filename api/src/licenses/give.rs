//! Giving licenses: by the platform, and by organizations that resell, within what they have themselves.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Duration, Utc};
use gantry_jobs::webhooks;
use gantry_schema::licenses::chain::{self, Anchors, Chain, Wider};
use gantry_schema::licenses::claims::{ANY_INSTANCE, Claims, Delegation, Kind, VERSION};
use gantry_schema::licenses::domain::DomainRule;
use gantry_schema::licenses::evaluate::{Access, Status};
use gantry_schema::licenses::features::Feature;
use gantry_schema::licenses::queries::{self, Stored, Tier as TierRow};
use gantry_schema::licenses::standing::{self, Licensed, licensed};
use gantry_schema::licenses::{Mode, SecretKey};
use gantry_schema::licenses::{claiming, listed};
use gantry_schema::organizations::needed::IssueLicenses;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, OrganizationId, TenantTx, turn};
use poem_openapi::payload::Json;
use serde_json::{Value, json};

use super::{License, LicenseType, NewLicense, names, no_more_than_a_list_has, read_limits, view};
use crate::app::App;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::once::{Answered, Once};

/// Licenses one below the other that can be made of one, at most.
const MAX_DEPTH: u8 = 7;

/// Whoever gives licenses.
pub(super) struct Issuer {
    organization: OrganizationId,
    key: SecretKey,
    /// What it gives is a part of this; `None`: it is the platform.
    above: Option<Above>,
}

/// The license of whoever resells.
pub(super) struct Above {
    pub(super) key: String,
    pub(super) claims: Claims,
    pub(super) cld: Delegation,
}

impl Above {
    /// Whether a license can be made of it.
    pub(super) fn allows(&self, own: &Claims) -> Result<(), Error> {
        chain::narrower(&self.claims, own).map_err(|wider| {
            Error::field(field_of(&wider), format!("the license above does not allow that: {wider}; ask for less"))
        })
    }
}

impl Issuer {
    /// The organization, if it may give licenses.
    pub(super) async fn of(app: &App, organization: OrganizationId) -> Result<Self, Error> {
        let anchors = app.trust.anchors(&app.db).await?;
        let mut tx = app.db.tenant(organization).await?;
        let key = queries::issuer(&mut tx, &app.sealing).await?;
        if organization == OrganizationId::PLATFORM {
            tx.commit().await?;
            return Ok(Self { organization, key, above: None });
        }
        let cannot = |why: &'static str| Error::new(Code::Forbidden, why).reason("license");
        let own = licensed(&mut tx, &anchors).await?.filter(|found| found.stored.organization == organization);
        let none =
            "your organization has no license of its own with the feature reselling; ask whoever gives you yours";
        let own = own.ok_or_else(|| cannot(none))?;
        if own.evaluate(tx.now(), None, &BTreeMap::new()).access(Feature::Reselling.as_str()) != Access::Full {
            return Err(cannot("your license does not let you give licenses now; GET /license says why"));
        }
        let claims = own.own().cloned().ok_or_else(|| cannot(none))?;
        let cld = claims.cld.clone().ok_or_else(|| cannot(none))?;
        if cld.key != key.public() || cld.depth == 0 {
            return Err(cannot(
                "your license may not be passed on with this platform's key; ask for it to be given again",
            ));
        }
        Ok(Self { organization, key, above: Some(Above { key: own.stored.key, claims, cld }) })
    }

    /// What it gives parts of.
    pub(super) const fn above(&self) -> Option<&Above> {
        self.above.as_ref()
    }

    /// Which organization it is.
    pub(super) const fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// What it signs with.
    pub(super) const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Whether the license in force of the transaction's organization is the issuer's to replace.
    pub(super) async fn may_give(&self, tx: &mut TenantTx, anchors: &Anchors) -> Result<(), Error> {
        if self.above.is_some() && tx.organization() == self.organization {
            let detail = "an organization does not license itself; ask whoever stands above it";
            return Err(Error::new(Code::WrongState, detail));
        }
        may_replace(tx, anchors, self.organization).await
    }
}

/// Lets an organization give another license in place of the one in force of the transaction's: one that it gave itself, and
/// about which nobody above it has decided.
pub(super) async fn may_replace(tx: &mut TenantTx, anchors: &Anchors, issuer: OrganizationId) -> Result<(), Error> {
    if issuer == OrganizationId::PLATFORM {
        return Ok(());
    }
    let own = licensed(tx, anchors).await?.filter(|found| found.stored.organization == tx.organization());
    let Some(own) = own else { return Ok(()) };
    given_by(&own, issuer)?;
    may_lift(tx, &own.stored, issuer).await
}

/// Lets whoever gave a license decide about it.
pub(super) fn given_by(own: &Licensed, issuer: OrganizationId) -> Result<(), Error> {
    if own.own().is_some_and(|claims| claims.iss == issuer.to_string()) {
        return Ok(());
    }
    let detail = "the organization has a license that somebody else gave; ask whoever that was";
    Err(Error::new(Code::WrongState, detail))
}

/// Lets an organization lift what was decided about a license: what it decided itself, or one below it.
async fn may_lift(tx: &mut TenantTx, stored: &Stored, who: OrganizationId) -> Result<(), Error> {
    let Some(by) = stored.decided_by.filter(|_| stored.status != Status::Active) else { return Ok(()) };
    if queries::is_at_or_above(tx, who, by).await? {
        return Ok(());
    }
    let detail =
        "the license was suspended or revoked by somebody above you; ask him, or somebody above him, to lift that";
    Err(Error::new(Code::WrongState, detail))
}

/// The number of the organization's next license: higher than those of all that were, or wait for whoever has their codes.
pub(super) async fn next_number(tx: &mut TenantTx) -> Result<u64, Error> {
    Ok(queries::highest(tx).await?.max(claiming::highest(tx).await?).unsigned_abs() + 1)
}

/// What a license is to have.
pub(super) struct Wanted {
    tier: TierRow,
    kind: Kind,
    expires_at: Option<DateTime<Utc>>,
    grace: u64,
    features: BTreeSet<String>,
    limits: BTreeMap<String, Option<u64>>,
    domains: Vec<DomainRule>,
    resale_depth: Option<u8>,
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
    /// What was asked for, completed with what the tier has, and with what is above.
    pub(super) async fn read(tx: &mut TenantTx, new: NewLicense, above: Option<&Above>) -> Result<Self, Error> {
        let tiers = queries::tiers(tx).await?;
        let tier = tiers.into_iter().find(|tier| tier.name == new.tier.as_str()).ok_or_else(|| {
            Error::field("tier", format!("there is no tier {}; GET /license-tiers lists them", new.tier.as_str()))
        })?;
        let (now, expires_at) = (tx.now(), new.expires_at.map(|moment| moment.0));
        if expires_at.is_some_and(|at| at <= now) {
            return Err(Error::field("expires_at", "the license would have ended already; write a moment ahead"));
        }
        let expires_at = expires_at.or_else(|| above.and_then(|above| above.claims.exp));
        if new.r#type == LicenseType::Trial && expires_at.is_none_or(|at| at - now > Duration::days(366)) {
            return Err(Error::field("expires_at", "a trial ends within a year; write when"));
        }
        let grace = match new.grace_days {
            Some(days) => u64::try_from(days).ok().filter(|days| *days <= 365).map(|days| days * 86_400),
            None => Some(above.map_or(7 * 86_400, |above| above.claims.grace.min(7 * 86_400))),
        };
        let grace =
            grace.ok_or_else(|| Error::field("grace_days", "a grace is 0 to 365 days; write a number between them"))?;
        let depth = new.resale_depth.map(|depth| u8::try_from(depth).ok().filter(|it| (1..=MAX_DEPTH).contains(it)));
        if depth == Some(None) {
            return Err(Error::field(
                "resale_depth",
                "licenses are passed on 1 to 7 times; write a number between them",
            ));
        }
        let mut limits = tier.limits.clone();
        if let Some(above) = above {
            lower(&mut limits, &above.claims.lim);
            lower(&mut limits, &above.cld.lim);
        }
        limits.extend(read_limits(new.limits.unwrap_or_default())?);
        let of_tier = tier.features.iter().filter(|name| above.is_none_or(|above| above.claims.feat.contains(*name)));
        let features = match new.features {
            Some(features) => names("features", features)?,
            None => of_tier.cloned().collect(),
        };
        let domains = match new.domains {
            Some(domains) => read_domains(&domains)?,
            None => above.map(|above| above.cld.dom.clone()).unwrap_or_default(),
        };
        Ok(Self {
            kind: new.r#type.into(),
            expires_at,
            grace,
            features,
            limits,
            domains,
            tier,
            resale_depth: depth.flatten(),
        })
    }

    /// The license, signed, for the transaction's organization.
    pub(super) async fn signed(&self, tx: &mut TenantTx, issuer: &Issuer, app: &App) -> Result<String, Error> {
        let number = next_number(tx).await?;
        let above = issuer.above.as_ref();
        let resold = if self.features.contains(Feature::Reselling.as_str()) {
            let most = above.map_or(MAX_DEPTH, |above| above.cld.depth - 1);
            let (key, depth) = (queries::issuer(tx, &app.sealing).await?.public(), self.resale_depth.unwrap_or(most));
            Some(Delegation { key, depth, lim: BTreeMap::new(), dom: Vec::new() })
        } else {
            None
        };
        let claims = self.claims(tx, issuer.organization.to_string(), above, number, resold);
        if let Some(above) = above {
            above.allows(&claims)?;
        }
        chain::issue(above.map(|above| above.key.as_str()), &claims, &issuer.key)
            .map_err(|error| Error::field("tier", format!("{error}; change what the license is to have")))
    }

    /// What it says.
    pub(super) fn claims(
        &self,
        tx: &TenantTx,
        issuer: String,
        above: Option<&Above>,
        number: u64,
        resold: Option<Delegation>,
    ) -> Claims {
        let now = tx.now();
        let mut early: BTreeSet<String> = NO_GRACE.iter().map(ToString::to_string).collect();
        let mut modes: BTreeMap<String, Mode> = BTreeMap::new();
        if let Some(above) = above {
            early.extend(above.claims.gra.iter().cloned());
            modes.extend(above.claims.deg.iter().map(|(name, mode)| (name.clone(), *mode)));
        }
        early.retain(|name| self.features.contains(name));
        modes.retain(|name, _| self.features.contains(name));
        Claims {
            ver: VERSION,
            jti: tx.ids().mint(),
            iss: issuer,
            sub: tx.organization(),
            aud: above.map_or_else(|| ANY_INSTANCE.to_owned(), |above| above.claims.aud.clone()),
            iat: now,
            nbf: now,
            exp: self.expires_at,
            typ: self.kind,
            tier: self.tier.name.clone(),
            feat: self.features.clone(),
            lim: self.limits.clone(),
            dom: self.domains.clone(),
            grace: self.grace,
            deg: modes,
            gra: early,
            seq: number,
            par: above.map(|above| above.claims.jti),
            cld: resold,
            off: above.and_then(|above| above.claims.off),
            epo: 0,
        }
    }
}

/// Where a license may be used.
pub(super) fn read_domains(domains: &[String]) -> Result<Vec<DomainRule>, Error> {
    let domain = |(index, text): (usize, &String)| {
        text.parse::<DomainRule>().map_err(|error| Error::field(format!("domains[{index}]"), error.to_string()))
    };
    no_more_than_a_list_has("domains", domains)?;
    domains.iter().enumerate().map(domain).collect()
}

/// What is revoked by lists, of all organizations.
pub(super) const REVOCATIONS: &str = "license revocations";

/// Lets nobody else give licenses to these organizations, and no list of revoked ones come in, until the transaction ends.
pub(super) async fn take_turn(
    tx: &mut TenantTx,
    organizations: impl IntoIterator<Item = OrganizationId>,
) -> Result<(), Error> {
    turn::share_of(tx, OrganizationId::PLATFORM, REVOCATIONS).await?;
    for organization in organizations.into_iter().collect::<BTreeSet<_>>() {
        turn::take_of(tx, organization, "license").await?;
    }
    Ok(())
}

/// What is left out is no more than what is above.
fn lower(limits: &mut BTreeMap<String, Option<u64>>, above: &BTreeMap<String, Option<u64>>) {
    for (name, most) in above {
        let own = limits.entry(name.clone()).or_insert(None);
        *own = [*own, *most].into_iter().flatten().min();
    }
}

/// The field that asks for more than there is.
pub(super) fn field_of(wider: &Wider) -> &'static str {
    match wider {
        Wider::Feature(_) => "features",
        Wider::Limit(_) => "limits",
        Wider::End => "expires_at",
        Wider::Grace => "grace_days",
        Wider::Place => "domains",
        Wider::Depth => "resale_depth",
        Wider::NotDelegated | Wider::Parent | Wider::Subject | Wider::Begin | Wider::Degrade(_) | Wider::Offline => {
            "tier"
        }
    }
}

/// Reads a key for the transaction's organization; what is wrong is said of the field.
pub(super) fn read_chain(tx: &TenantTx, anchors: &Anchors, key: &str, field: &'static str) -> Result<Chain, Error> {
    let chain = Chain::verify(key, anchors).map_err(|error| Error::field(field, error.to_string()))?;
    let own = chain.own();
    if own.sub != tx.organization() {
        let detail = format!("the license is for {}, not for {}; install it there", own.sub, tx.organization());
        return Err(Error::field(field, detail));
    }
    if i64::try_from(own.seq).map_or(true, |number| number > i64::MAX / 2) {
        return Err(Error::field(field, "the number of the license is out of bounds; ask for another one"));
    }
    Ok(chain)
}

/// Puts a key in force for the transaction's organization, if it is believed and for it.
pub(super) async fn put_in_force(
    tx: &mut TenantTx,
    anchors: &Anchors,
    caller: &Caller,
    key: &str,
    field: &'static str,
) -> Result<License, Error> {
    let chain = read_chain(tx, anchors, key, field)?;
    let own = chain.own();
    if let Some(revoked) = listed::named(tx, &chain).await? {
        let detail = format!("the license {revoked} was revoked by its issuer; ask for another one");
        return Err(Error::field(field, detail));
    }
    let (news, known) = (chain.links().first().map_or(0, |top| top.epo), listed::epoch(tx, chain.anchor()).await?);
    if known.map_or(0, i64::unsigned_abs) < news {
        let detail =
            format!("its issuer has revoked others since; import his list of number {news} or a later one first");
        return Err(Error::new(Code::WrongState, detail));
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
    let licensed = standing::count(tx, anchors).await?;
    view(tx, licensed).await
}

/// Decides about the license of an organization below.
pub(super) async fn decide(
    app: &App,
    caller: &May<IssueLicenses>,
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
            let who = caller.organization();
            if who != OrganizationId::PLATFORM {
                let own = licensed(tx, anchors).await?.filter(|found| found.stored.id == before.id);
                let own = own.ok_or_else(|| wrong("the organization has no license of its own; give it one first"))?;
                given_by(&own, who)?;
                if organization == who {
                    return Err(wrong("an organization does not decide about its own license; ask whoever gave it"));
                }
            }
            if before.status == Status::Revoked && status != Status::Revoked {
                return Err(wrong("the license was revoked, which is for good; give another one"));
            }
            if before.status != status {
                // What somebody above decided stays his, whatever is added to it.
                let lifted = may_lift(tx, &before, who).await;
                let by = match (lifted, status) {
                    (Err(refused), Status::Active) => return Err(refused),
                    (Err(_), _) => before.decided_by.unwrap_or(who),
                    (Ok(()), _) => who,
                };
                queries::decide(tx, status, reason.as_deref(), by).await?;
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
            let licensed = standing::count(tx, anchors).await?;
            view(tx, licensed).await.map(Json)
        })
        .await?;
    app.standings.forget(None);
    Ok(answer)
}
