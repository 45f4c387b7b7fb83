//! Giving a license to another organization, or for other host names, in place of where it is.

use std::collections::BTreeMap;

use gantry_jobs::webhooks;
use gantry_schema::audit::Draft;
use gantry_schema::licenses::chain::{self, Wider};
use gantry_schema::licenses::claims::{Claims, Delegation};
use gantry_schema::licenses::domain::DomainRule;
use gantry_schema::licenses::evaluate::Status;
use gantry_schema::licenses::standing::{self, licensed};
use gantry_schema::licenses::{Anchors, Licensed, queries};
use gantry_schema::organizations::needed::IssueLicenses;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, OrganizationId, TenantTx};
use poem_openapi::{Enum, Object};
use serde::Deserialize;
use serde_json::json;

use super::License;
use super::give::{Issuer, given_by, next_number, put_in_force, read_domains, take_turn};
use super::simulate::{LicenseSimulation, differing};
use crate::app::App;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;

/// Whose license it is to be, and where.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
pub(super) struct NewLicenseTransfer {
    /// The organization that gets it; left out: the same, for other host names.
    pub(super) organization_id: Option<OrganizationId>,
    /// Host names where it may be used from now on, as in `POST /organizations/{organization}/license`; left out: as before.
    #[oai(validator(max_items = 200))]
    domains: Option<Vec<String>>,
    /// Whether its time goes on, or begins anew.
    expiry: TransferExpiry,
    /// Why, in 1 to 500 characters; the people of the organization that had it are told.
    #[oai(validator(min_length = 1, max_length = 500))]
    pub(super) reason: String,
}

example!(NewLicenseTransfer, {
    "domains": ["shop.example.com"], "expiry": "keep", "reason": "The shop moved to another host name.",
});

/// What becomes of the time of a license.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum TransferExpiry {
    /// It ends when it would have ended.
    Keep,
    /// It has all of its time again, from now on.
    Reset,
}

/// A license that is somewhere else.
#[derive(Debug, Object)]
#[oai(example)]
pub(super) struct LicenseTransfer {
    /// The license, where it is now.
    license: License,
    /// What is different where it was.
    giver: LicenseSimulation,
    /// Nothing was stored.
    #[oai(skip_serializing_if_is_none)]
    pub(super) dry_run: Option<bool>,
}

example!(LicenseTransfer, {
    "license": {
        "state": "valid",
        "id": "lic_01h455vb4pex5vsknk084sn02q",
        "organization_id": "org_01h455vb4pex5vsknk084sn02q",
        "tier": "professional",
        "type": "subscription",
        "number": 2,
        "features": [{ "name": "api_access", "access": "full" }],
        "limits": [],
        "ends_at": "2027-01-15T12:00:00Z",
        "days_remaining": 365,
    },
    "giver": {
        "before": { "state": "valid", "tier": "professional", "ends_at": "2027-01-15T12:00:00Z" },
        "after": { "state": "revoked", "tier": "professional", "ends_at": "2027-01-15T12:00:00Z" },
        "features": [{ "name": "api_access", "before": "full", "after": "read" }],
        "operations": [{ "name": "createApiKey", "allowed": false }],
        "jobs": [],
        "resources": [],
    },
});

fn wrong(detail: &'static str) -> Error {
    Error::new(Code::WrongState, detail)
}

/// What a transfer is about.
pub(super) struct Transfer<'a> {
    pub(super) app: &'a App,
    pub(super) caller: &'a May<IssueLicenses>,
    pub(super) issuer: &'a Issuer,
    pub(super) anchors: &'a Anchors,
    /// The organization that gets it.
    pub(super) to: OrganizationId,
    pub(super) reason: &'a str,
}

impl Transfer<'_> {
    /// Ends the license of the transaction's organization, and gives it where it is to be.
    pub(super) async fn make(&self, tx: &mut TenantTx, new: NewLicenseTransfer) -> Result<LicenseTransfer, Error> {
        let from = tx.organization();
        let domains = new.domains.as_deref().map(read_domains).transpose()?;
        take_turn(tx, [from, self.to]).await?;
        let found = self.to_give(tx).await?;
        let own = found.own().cloned().ok_or_else(|| wrong("the license is not believed here; give another one"))?;
        let now = tx.now();
        let expires_at = match new.expiry {
            TransferExpiry::Keep => own.exp,
            TransferExpiry::Reset => own.exp.map(|exp| now + (exp - own.nbf)),
        };
        if expires_at.is_some_and(|at| at <= now) {
            return Err(Error::field("expiry", "the license has ended; reset its time, or give another one"));
        }
        let domains = domains.unwrap_or_else(|| own.dom.clone());
        let usage = queries::usage(tx, from).await?;
        self.tell_giver(tx, &own).await?;
        let license = if self.to == from {
            self.give(tx, own, expires_at.map(Moment), domains).await?
        } else {
            queries::decide(tx, Status::Revoked, Some(self.reason), self.issuer.organization()).await?;
            standing::count(tx, self.anchors).await?;
            let stepped = tx.step_into(self.to).await?;
            *tx.audit() = Draft::new("license.receive");
            tx.audit().on(&self.to);
            self.may_receive(tx).await?;
            let license = self.give(tx, own, expires_at.map(Moment), domains).await?;
            tx.step_back(stepped).await?;
            license
        };
        let after = licensed(tx, self.anchors).await?;
        tx.audit().set("to", self.to).set("reason", self.reason).set("license_id", license.id);
        Ok(LicenseTransfer { giver: differing(Some(&found), after.as_ref(), now, &usage), license, dry_run: None })
    }

    /// The license that is given away.
    async fn to_give(&self, tx: &mut TenantTx) -> Result<Licensed, Error> {
        let none = "the organization has no license of its own; there is none to transfer";
        queries::lock(tx).await?.ok_or_else(|| wrong(none))?;
        let found = licensed(tx, self.anchors).await?.filter(|found| found.stored.organization == tx.organization());
        let found = found.ok_or_else(|| wrong(none))?;
        given_by(&found, self.issuer.organization())?;
        self.issuer.may_give(tx, self.anchors).await?;
        if found.stored.status != Status::Active || !found.stored.revoked.is_empty() {
            return Err(wrong("the license was suspended or revoked; reinstate it first, or give another one"));
        }
        Ok(found)
    }

    /// Whether the transaction's organization may get one.
    async fn may_receive(&self, tx: &mut TenantTx) -> Result<(), Error> {
        self.issuer.may_give(tx, self.anchors).await?;
        let has = licensed(tx, self.anchors).await?.filter(|found| found.stored.organization == tx.organization());
        let counts = |has: &Licensed| {
            has.stored.status == Status::Suspended || has.evaluate(tx.now(), None, &BTreeMap::new()).state.grows()
        };
        if has.as_ref().is_some_and(counts) {
            return Err(wrong("the organization that gets it has a license of its own in force; revoke that first"));
        }
        Ok(())
    }

    /// Tells the organization that had it.
    async fn tell_giver(&self, tx: &mut TenantTx, own: &Claims) -> Result<(), Error> {
        let facts = json!({ "organization_id": own.sub, "license_id": own.jti, "reason": self.reason });
        webhooks::emit(tx, PlatformEvent::LicenseTransferred.name(), facts, self.by().by()).await?;
        Ok(())
    }

    fn by(&self) -> &Caller {
        self.caller
    }

    /// Puts it in force for the transaction's organization.
    async fn give(
        &self,
        tx: &mut TenantTx,
        own: Claims,
        expires_at: Option<Moment>,
        domains: Vec<DomainRule>,
    ) -> Result<License, Error> {
        let (seq, now) = (next_number(tx).await?, tx.now());
        let cld = match own.cld {
            Some(cld) => Some(Delegation { key: queries::issuer(tx, &self.app.sealing).await?.public(), ..cld }),
            None => None,
        };
        let above = self.issuer.above();
        let claims = Claims {
            jti: tx.ids().mint(),
            sub: tx.organization(),
            iat: now,
            nbf: now,
            exp: expires_at.map(|at| at.0),
            dom: domains,
            par: above.map(|above| above.claims.jti),
            seq,
            cld,
            ..own
        };
        if let Some(above) = above {
            chain::narrower(&above.claims, &claims).map_err(|wider| {
                let field = match wider {
                    Wider::End => "expiry",
                    Wider::Place => "domains",
                    _ => "organization_id",
                };
                Error::field(field, format!("the license above does not allow that: {wider}; give a narrower one"))
            })?;
        }
        let key = chain::issue(above.map(|above| above.key.as_str()), &claims, self.issuer.key())
            .map_err(|error| Error::field("domains", error.to_string()))?;
        put_in_force(tx, self.anchors, self.by(), &key, "organization_id").await
    }
}
