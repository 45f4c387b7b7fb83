//! How much organizations may ask for: tiers, what one organization was given, and what is counted before anybody is known.

use gantry_schema::limits::Tier as TierRow;
use gantry_schema::limits::{self, Allowance as AllowanceRow, Class, FIRST_TIER, Given, Rate, Rule as RuleRow};
use gantry_schema::organizations::needed::{OperatePlatform, ReadUsage};
use gantry_schema::{OrganizationId, TenantTx, turn};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::conditional::{IfMatch, IfNoneMatch, Put, Tagged};
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::{self, example};
use crate::field::Word;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on limits.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits;

/// The most requests a minute that can be counted.
const MOST: u32 = 6_000_000;

/// How much an organization may ask for.
#[derive(Debug, Object)]
#[oai(example)]
struct Allowance {
    /// The name of its tier.
    tier: String,
    /// Its own number of reads a minute; absent: the tier's.
    #[oai(skip_serializing_if_is_none)]
    per_minute: Option<u32>,
    /// Nothing is counted for it.
    bypass: bool,
    /// Its limits, by what a request is counted as.
    limits: Vec<Limit>,
    /// Calls in a calendar month, UTC; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    monthly_calls: Option<u64>,
    /// Bytes of bodies, of requests and answers, in a calendar month, UTC; absent: no limit.
    #[oai(skip_serializing_if_is_none)]
    monthly_bytes: Option<u64>,
}

example!(Allowance, {
    "tier": "professional",
    "bypass": false,
    "limits": [
        { "class": "read", "per_minute": 500, "burst": 500 },
        { "class": "write", "per_minute": 500, "burst": 500, "key_per_minute": 250 },
        { "class": "deploy", "per_minute": 500, "burst": 500 },
    ],
    "monthly_calls": 1_000_000,
});

/// A limit of an organization.
#[derive(Debug, Object)]
#[oai(rename = "RateLimitOfClass")]
struct Limit {
    /// What a request is counted as: `read` when it changes nothing, `write`, or `deploy` when it sets something going outside.
    class: String,
    /// Requests a minute of the whole organization; some operations count as several.
    per_minute: u32,
    /// How many may come at once after a rest.
    burst: u64,
    /// Requests a minute of one API key; absent: as many as the organization.
    #[oai(skip_serializing_if_is_none)]
    key_per_minute: Option<u32>,
    /// Requests a minute from one address; absent: as many as the organization.
    #[oai(skip_serializing_if_is_none)]
    address_per_minute: Option<u32>,
}

/// What an organization is to have.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewAllowance {
    /// The name of its tier.
    tier: Word,
    /// Its own number of reads a minute, 1 to 6 000 000; the other classes keep their proportion. Left out: the tier's.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    per_minute: Option<u32>,
    /// Nothing is counted for it. Left out: no.
    bypass: Option<bool>,
    /// Calls in a calendar month, UTC; left out: no limit.
    monthly_calls: Option<u64>,
    /// Bytes of bodies in a calendar month, UTC; left out: no limit.
    monthly_bytes: Option<u64>,
}

example!(NewAllowance, { "tier": "professional", "per_minute": 800, "monthly_calls": 1_000_000 });

/// A tier.
#[derive(Debug, Object)]
#[oai(rename = "RateTier", example)]
struct Tier {
    /// Its name.
    name: String,
    /// Reads a minute.
    read_per_minute: u32,
    /// Changes a minute.
    write_per_minute: u32,
    /// Deployments and the like a minute.
    deploy_per_minute: u32,
    /// How much of a minute's may come at once after a rest, in percent.
    burst_percent: u16,
    /// How much of the organization's one API key may use, in percent.
    key_percent: u16,
    /// How much of the organization's may come from one address, in percent.
    address_percent: u16,
}

example!(Tier, {
    "name": "professional",
    "read_per_minute": 500,
    "write_per_minute": 500,
    "deploy_per_minute": 500,
    "burst_percent": 100,
    "key_percent": 50,
    "address_percent": 100,
});

/// What a tier is to be.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
#[oai(rename = "NewRateTier")]
struct NewTier {
    /// Reads a minute, 1 to 6 000 000.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    read_per_minute: u32,
    /// Changes a minute, 1 to 6 000 000.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    write_per_minute: u32,
    /// Deployments and the like a minute, 1 to 6 000 000.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    deploy_per_minute: u32,
    /// How much of a minute's may come at once after a rest, in percent, 1 to 100; left out: 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    burst_percent: Option<u16>,
    /// How much of the organization's one API key may use, in percent, 1 to 100; left out: 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    key_percent: Option<u16>,
    /// How much of the organization's may come from one address, in percent, 1 to 100; left out: 100.
    #[oai(validator(minimum(value = "1"), maximum(value = "100")))]
    address_percent: Option<u16>,
}

example!(NewTier, { "read_per_minute": 500, "write_per_minute": 500, "deploy_per_minute": 500, "key_percent": 50 });

/// A limit of what is counted before anybody is known, by address or by account.
#[derive(Debug, Object)]
#[oai(rename = "RateRule", example)]
struct Rule {
    /// What is counted: `anonymous` requests and `credentials` that are none, of one address; `attempts_by_address` and
    /// `attempts_by_account` to prove who one is.
    name: String,
    /// How many a minute.
    per_minute: u32,
    /// How many may come at once after a rest.
    burst: u32,
}

example!(Rule, { "name": "anonymous", "per_minute": 300, "burst": 300 });

/// What such a limit is to be.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
#[oai(rename = "NewRateRule")]
struct NewRule {
    /// How many a minute, 1 to 6 000 000.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    per_minute: u32,
    /// How many may come at once after a rest, 1 to 6 000 000; left out: as many as in a minute.
    #[oai(validator(minimum(value = "1"), maximum(value = "6000000")))]
    burst: Option<u32>,
}

example!(NewRule, { "per_minute": 300, "burst": 100 });

/// A tier was removed.
#[derive(ApiResponse)]
enum Removed {
    /// It is gone.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(tag = "Tag::RateLimits")]
impl RateLimits {
    /// See the limits
    ///
    /// How often the caller's organization may ask. What is left is said with every answer, in `RateLimit-Policy` and
    /// `RateLimit`.
    #[oai(path = "/rate-limits", method = "get", operation_id = "getRateLimits")]
    async fn own(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
    ) -> Result<Tagged<Allowance>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(if_none_match.answer(limits::allowance(&mut tx).await?.into()))
    }

    /// See an organization's limits
    ///
    /// Of the caller's organization, or of one below it.
    #[oai(
        path = "/organizations/:organization/rate-limits",
        method = "get",
        operation_id = "getOrganizationRateLimits"
    )]
    async fn of(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The organization.
        organization: Path<OrganizationId>,
    ) -> Result<Tagged<Allowance>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut tx = app.db.tenant(organization).await?;
        Ok(if_none_match.answer(limits::allowance(&mut tx).await?.into()))
    }

    /// Give an organization limits
    ///
    /// Instead of those it has: a tier, its own number, or none at all, and how much it may ask for in a month. In force in
    /// every process of the API within a second. Needs a key of the platform.
    ///
    /// Refused as `precondition_required` without `If-Match`.
    #[oai(
        path = "/organizations/:organization/rate-limits",
        method = "put",
        operation_id = "setOrganizationRateLimits"
    )]
    async fn give(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewAllowance>,
    ) -> Result<Answered<Tagged<Allowance>>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let NewAllowance { tier, per_minute, bypass, monthly_calls, monthly_bytes } = body.0;
        let number = per_minute.map(|number| countable("per_minute", number)).transpose()?;
        for (field, number) in [("monthly_calls", monthly_calls), ("monthly_bytes", monthly_bytes)] {
            if number.is_some_and(|number| number == 0 || i64::try_from(number).is_err()) {
                return Err(Error::field(field, format!("{field} is at least 1; leave it out for no limit")));
            }
        }
        let tier = String::from(tier);
        let unknown = format!("there is no tier {tier}; GET /rate-tiers lists them");
        let given = Given { tier, number, bypass: bypass.unwrap_or(false), monthly_calls, monthly_bytes };
        let answer = once
            .run(&caller, organization, async |tx| {
                turn::take(tx, "rate limits").await?;
                let before = limits::allowance(tx).await?;
                limits::give(tx, &given)
                    .await
                    .on_constraint("organization_limits_tier_fkey", || Error::field("tier", unknown))?;
                let after = limits::allowance(tx).await?.into();
                if_match.demand(&before.into(), &after)?;
                Ok(Tagged::of(after))
            })
            .await?;
        app.standings.forget(Some(organization));
        Ok(answer)
    }

    /// List tiers
    ///
    /// From the smallest. Needs a key of the platform.
    #[oai(path = "/rate-tiers", method = "get", operation_id = "listRateTiers")]
    async fn tiers(&self, caller: May<OperatePlatform>, app: Data<&App>) -> Result<Json<Vec<Tier>>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(limits::tiers(&mut tx).await?.into_iter().map(Tier::from).collect()))
    }

    /// Get a tier
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is none of this name.
    #[oai(path = "/rate-tiers/:tier", method = "get", operation_id = "getRateTier")]
    async fn tier(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// The tier's name.
        #[oai(example = "example_tier")]
        tier: Path<Word>,
    ) -> Result<Tagged<Tier>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let found = find_tier(&mut tx, tier.as_str()).await?;
        Ok(if_none_match.answer(found.ok_or_else(|| unknown("tier", tier.as_str()))?))
    }

    /// Set a tier
    ///
    /// Makes it, or changes it for all organizations that have it, in every process of the API within a second. Needs a key
    /// of the platform.
    ///
    /// Refused as `precondition_required` when it is there, and there is no `If-Match`.
    #[oai(path = "/rate-tiers/:tier", method = "put", operation_id = "setRateTier")]
    async fn set_tier(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// The tier's name: a letter, then up to 49 letters, digits and `_`.
        #[oai(example = "example_tier")]
        tier: Path<Word>,
        body: Body<NewTier>,
    ) -> Result<Answered<Put<Tier>>, Error> {
        let new = body.0;
        let tier = TierRow {
            name: tier_name(tier.0)?,
            read: countable("read_per_minute", new.read_per_minute)?,
            write: countable("write_per_minute", new.write_per_minute)?,
            deploy: countable("deploy_per_minute", new.deploy_per_minute)?,
            burst_percent: percent("burst_percent", new.burst_percent)?,
            key_percent: percent("key_percent", new.key_percent)?,
            address_percent: percent("address_percent", new.address_percent)?,
        };
        let set = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("tier {}", tier.name)).await?;
            let before = find_tier(tx, &tier.name).await?;
            limits::set_tier(tx, &tier).await?;
            if_match.put(before.as_ref(), tier.into())
        });
        let answer = set.await?;
        app.standings.forget(None);
        Ok(answer)
    }

    /// Remove a tier
    ///
    /// One that no organization has. Needs a key of the platform.
    ///
    /// Refused as `wrong_state` when organizations have it, or when it is the one of those that were given none, as
    /// `not_found` when there is none of this name.
    #[oai(path = "/rate-tiers/:tier", method = "delete", operation_id = "removeRateTier")]
    async fn remove_tier(
        &self,
        caller: May<OperatePlatform>,
        once: Once,
        if_match: IfMatch,
        /// The tier's name.
        #[oai(example = "example_tier")]
        tier: Path<Word>,
    ) -> Result<Answered<Removed>, Error> {
        let name = tier.as_str();
        let in_use = || {
            let detail = format!("organizations have the tier {name}; give them another one first");
            Error::new(Code::WrongState, detail).at("tier")
        };
        if name == FIRST_TIER {
            return Err(in_use());
        }
        once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("tier {name}")).await?;
            if_match.check(&find_tier(tx, name).await?.ok_or_else(|| unknown("tier", name))?)?;
            limits::remove_tier(tx, name).await.on_constraint("organization_limits_tier_fkey", in_use)?;
            Ok(Removed::Removed)
        })
        .await
    }

    /// List limits of strangers
    ///
    /// What is counted before anybody is known. Needs a key of the platform.
    #[oai(path = "/rate-rules", method = "get", operation_id = "listRateRules")]
    async fn rules(&self, caller: May<OperatePlatform>, app: Data<&App>) -> Result<Json<Vec<Rule>>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(limits::rules(&mut tx).await?.into_iter().map(Rule::from).collect()))
    }

    /// Get a limit of strangers
    ///
    /// Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is none of this name.
    #[oai(path = "/rate-rules/:rule", method = "get", operation_id = "getRateRule")]
    async fn rule(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        if_none_match: IfNoneMatch,
        /// What is counted.
        #[oai(example = "example_rule")]
        rule: Path<Word>,
    ) -> Result<Tagged<Rule>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(if_none_match.answer(find_rule(&mut tx, rule.as_str()).await?))
    }

    /// Set a limit of strangers
    ///
    /// Changes one of those there are, in every process of the API within a second. Needs a key of the platform.
    ///
    /// Refused as `not_found` when there is none of this name, and as `precondition_required` without `If-Match`.
    #[oai(path = "/rate-rules/:rule", method = "put", operation_id = "setRateRule")]
    async fn set_rule(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        if_match: IfMatch,
        /// What is counted.
        #[oai(example = "example_rule")]
        rule: Path<Word>,
        body: Body<NewRule>,
    ) -> Result<Answered<Tagged<Rule>>, Error> {
        let number = countable("per_minute", body.0.per_minute)?;
        let burst = countable("burst", body.0.burst.unwrap_or(number))?;
        let rule = RuleRow { name: rule.0.into(), number, burst };
        let set = once.run(&caller, caller.organization(), async |tx| {
            turn::take(tx, &format!("rule {}", rule.name)).await?;
            let before = find_rule(tx, &rule.name).await?;
            limits::set_rule(tx, &rule).await?;
            let after = rule.into();
            if_match.demand(&before, &after)?;
            Ok(Tagged::of(after))
        });
        let answer = set.await?;
        app.standings.forget(None);
        Ok(answer)
    }
}

fn example_tier() -> Word {
    example::read("gold".into())
}

fn example_rule() -> Word {
    example::read("anonymous".into())
}

async fn find_tier(tx: &mut TenantTx, name: &str) -> Result<Option<Tier>, Error> {
    Ok(limits::tiers(tx).await?.into_iter().find(|tier| tier.name == name).map(Tier::from))
}

async fn find_rule(tx: &mut TenantTx, name: &str) -> Result<Rule, Error> {
    let found = limits::rules(tx).await?.into_iter().find(|rule| rule.name == name);
    Ok(found.ok_or_else(|| unknown("rule", name))?.into())
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no {what} {name}; GET /rate-{what}s lists them")).at(what)
}

fn countable(field: &str, number: u32) -> Result<u32, Error> {
    if !(1..=MOST).contains(&number) {
        return Err(Error::field(field, format!("{field} is 1 to {MOST}; write a number between them")));
    }
    Ok(number)
}

fn percent(field: &str, percent: Option<u16>) -> Result<u16, Error> {
    let percent = percent.unwrap_or(100);
    if !(1..=100).contains(&percent) {
        return Err(Error::field(field, format!("{field} is 1 to 100; write a number between them")));
    }
    Ok(percent)
}

fn tier_name(name: Word) -> Result<String, Error> {
    let name = String::from(name);
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if name.len() > 50 || !begins || !name.bytes().all(allowed) {
        return Err(Error::parameter(
            "tier",
            "a tier's name is a letter, then up to 49 of a-z, 0-9 and _; choose another",
        ));
    }
    Ok(name)
}

impl From<AllowanceRow> for Allowance {
    fn from(row: AllowanceRow) -> Self {
        let limit = |class: Class| Limit {
            class: class.as_str().to_owned(),
            per_minute: row.number(class),
            burst: row.rate(class).capacity(),
            key_per_minute: row.of_key(class).map(Rate::number),
            address_per_minute: row.of_address(class).map(Rate::number),
        };
        Self {
            limits: Class::ALL.into_iter().map(limit).collect(),
            tier: row.given.tier,
            per_minute: row.given.number,
            bypass: row.given.bypass,
            monthly_calls: row.given.monthly_calls,
            monthly_bytes: row.given.monthly_bytes,
        }
    }
}

impl From<TierRow> for Tier {
    fn from(row: TierRow) -> Self {
        Self {
            name: row.name,
            read_per_minute: row.read,
            write_per_minute: row.write,
            deploy_per_minute: row.deploy,
            burst_percent: row.burst_percent,
            key_percent: row.key_percent,
            address_percent: row.address_percent,
        }
    }
}

impl From<RuleRow> for Rule {
    fn from(row: RuleRow) -> Self {
        Self { name: row.name, per_minute: row.number, burst: row.burst }
    }
}
