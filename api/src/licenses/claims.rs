//! Licenses that are kept for somebody under a code, as people type it.

use gantry_schema::licenses::claiming;
use gantry_schema::licenses::code::{ClaimCode, InvalidCode};
use gantry_schema::licenses::evaluate::Status;
use gantry_schema::licenses::queries;
use gantry_schema::organizations::needed::{ClaimLicenses, IssueLicenses, ReadOrganizations};
use gantry_schema::{LicenseClaimId, LicenseId, OrganizationId};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use super::give::{Issuer, Wanted, may_replace, put_in_force, read_chain, take_turn};
use super::{License, NewLicense};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on licenses that wait for whoever has their code.
#[derive(Debug, Clone, Copy)]
pub struct LicenseClaims;

/// A license that waits for whoever has its code, or waited.
#[derive(Debug, Object)]
#[oai(example)]
struct LicenseClaim {
    /// Its id.
    id: LicenseClaimId,
    /// Whose license it is to be.
    organization_id: OrganizationId,
    /// The license.
    license_id: LicenseId,
    /// The name of its tier.
    tier: String,
    /// When it was kept.
    created_at: Moment,
    /// By whom: `person:usr_…`, `api_key:key_…`.
    created_by: String,
    /// Until when its code is good.
    expires_at: Moment,
    /// When somebody put it in force; absent: nobody did.
    #[oai(skip_serializing_if_is_none)]
    claimed_at: Option<Moment>,
    /// Who did.
    #[oai(skip_serializing_if_is_none)]
    claimed_by: Option<String>,
    /// When it was withdrawn.
    #[oai(skip_serializing_if_is_none)]
    withdrawn_at: Option<Moment>,
    /// What is typed to put it in force. It is told this once, and to nobody again.
    #[oai(skip_serializing_if_is_none)]
    code: Option<String>,
}

example!(LicenseClaim, {
    "id": "lcl_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "license_id": "lic_01h455vb4pex5vsknk084sn02q",
    "tier": "professional",
    "created_at": "2026-01-15T12:00:00Z",
    "created_by": "api_key:key_01h455vb4pex5vsknk084sn02q",
    "expires_at": "2026-02-14T12:00:00Z",
    "code": "7C3M-0Q9R-1ZK8-WT5A-H",
});

impl From<claiming::Claim> for LicenseClaim {
    fn from(row: claiming::Claim) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            license_id: row.license,
            tier: row.tier,
            created_at: row.created_at.into(),
            created_by: row.created_by,
            expires_at: row.expires_at.into(),
            claimed_at: row.claimed_at.map(Into::into),
            claimed_by: row.claimed_by,
            withdrawn_at: row.withdrawn_at.map(Into::into),
            code: None,
        }
    }
}

/// A license is kept.
#[derive(ApiResponse)]
enum Kept {
    /// It waits for whoever types its code.
    #[oai(status = 201)]
    Kept(Json<LicenseClaim>),
}

/// A license does not wait any more.
#[derive(ApiResponse)]
enum Withdrawn {
    /// Its code is good for nothing.
    #[oai(status = 204)]
    Withdrawn,
}

/// A code, as somebody types it.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewLicenseClaim {
    /// 16 letters and digits and a last symbol, in groups or not; in upper or lower case.
    #[oai(validator(max_length = 100))]
    code: String,
}

example!(NewLicenseClaim, { "code": "7C3M-0Q9R-1ZK8-WT5A-H" });

#[OpenApi(tag = "Tag::Licenses")]
impl LicenseClaims {
    /// Keep a license under a code
    ///
    /// As [giving one](#operation/issueLicense), but it comes into force when somebody of the organization types the code that is
    /// answered here, and nowhere again, within 30 days. A license that is given, or kept, later supersedes it.
    ///
    /// Refused as `wrong_state` when the organization has a license that somebody else gave, as `too_many` when 20 codes stand.
    #[oai(path = "/organizations/:organization/license/claims", method = "post", operation_id = "createLicenseClaim")]
    async fn create(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        body: Body<NewLicense>,
    ) -> Result<Answered<Kept>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let issuer = Issuer::of(&app, caller.organization()).await?;
        let anchors = app.trust.anchors(&app.db).await?;
        once.run(&caller, organization, async |tx| {
            take_turn(tx, [organization]).await?;
            issuer.may_give(tx, &anchors).await?;
            if claiming::standing(tx).await? >= claiming::MAX_STANDING {
                let detail = format!("at most {} codes stand at a time; withdraw some", claiming::MAX_STANDING);
                return Err(Error::new(Code::TooMany, detail));
            }
            let wanted = Wanted::read(tx, body.0, issuer.above()).await?;
            let key = wanted.signed(tx, &issuer, &app).await?;
            let chain = read_chain(tx, &anchors, &key, "tier")?;
            let code = ClaimCode::generate(&mut rand::rng());
            let by = caller.by().to_string();
            let kept = claiming::keep(tx, code, &chain, &key, issuer.organization(), &by).await?;
            tx.audit()
                .on(&kept.id)
                .set("license_id", kept.license)
                .set("tier", &kept.tier)
                .set("number", kept.number)
                .set("expires_at", kept.expires_at);
            Ok(Kept::Kept(Json(LicenseClaim { code: Some(code.to_string()), ..kept.into() })))
        })
        .await
    }

    /// List licenses that wait
    ///
    /// For whoever has their codes, newest first unless told otherwise, whatever became of them.
    #[oai(path = "/organizations/:organization/license/claims", method = "get", operation_id = "listLicenseClaims")]
    async fn list(
        &self,
        caller: May<ReadOrganizations>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<LicenseClaim>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = claiming::page(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), LicenseClaim::from))
    }

    /// Withdraw a license that waits
    ///
    /// Its code is good for nothing from now on. One that was put in force stays.
    ///
    /// Refused as `wrong_state` when it does not wait any more, or somebody else gave it.
    #[oai(
        path = "/organizations/:organization/license/claims/:claim",
        method = "delete",
        operation_id = "withdrawLicenseClaim"
    )]
    async fn withdraw(
        &self,
        caller: May<IssueLicenses>,
        app: Data<&App>,
        once: Once,
        /// The organization.
        organization: Path<OrganizationId>,
        /// What waits.
        claim: Path<LicenseClaimId>,
    ) -> Result<Answered<Withdrawn>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        once.run(&caller, organization, async |tx| {
            let found = claiming::find(tx, claim.0).await?.ok_or_else(|| Error::not_found(claim.0))?;
            let who = caller.organization();
            if who != OrganizationId::PLATFORM && who != found.issuer {
                return Err(Error::new(Code::WrongState, "somebody else gives this license; ask him"));
            }
            if !claiming::withdraw(tx, found.id).await? {
                return Err(Error::new(Code::WrongState, "it was put in force or withdrawn already"));
            }
            tx.audit().set("license_id", found.license);
            Ok(Withdrawn::Withdrawn)
        })
        .await
    }

    /// Claim a license
    ///
    /// Puts the license in force that waits for the caller's organization under a code. Whoever guesses is made to wait longer and
    /// longer; a typing mistake is told as one, and is no guess.
    ///
    /// Refused as `too_many_requests` when too many codes were wrong, as `wrong_state` when a newer license came meanwhile, or
    /// something was decided about the one in force.
    #[oai(path = "/license/claim", method = "post", operation_id = "claimLicense")]
    async fn claim(
        &self,
        caller: May<ClaimLicenses>,
        app: Data<&App>,
        once: Once,
        body: Body<NewLicenseClaim>,
    ) -> Result<Answered<Json<License>>, Error> {
        let code = body.0.code.parse::<ClaimCode>();
        let code = code.map_err(|error: InvalidCode| Error::field("code", error.to_string()))?;
        let organization = caller.organization();
        let anchors = app.trust.anchors(&app.db).await?;
        let attempt = app.attempts().begin("license_claim", once.address(), &organization.to_string()).await?;
        let answer = once
            .run(&caller, organization, async |tx| {
                take_turn(tx, [organization]).await?;
                let found = claiming::claim(tx, code, &caller.by().to_string()).await?;
                let (claim, key) = found.ok_or_else(no_such)?;
                if let Some(before) = queries::lock(tx).await?.filter(|before| before.status != Status::Active)
                    && claim.created_at <= before.decided_at
                {
                    let detail =
                        "the license in force was suspended or revoked since; ask whoever gives it for another code";
                    return Err(Error::new(Code::WrongState, detail));
                }
                may_replace(tx, &anchors, claim.issuer).await?;
                let license = put_in_force(tx, &anchors, &caller, &key, "code").await?;
                tx.audit().set("license_claim_id", claim.id);
                Ok(Json(license))
            })
            .await;
        match &answer {
            Err(error) if error.code() == Code::InvalidField => drop(attempt.failed().await),
            _ => attempt.succeeded().await,
        }
        let answer = answer?;
        app.standings.forget(None);
        Ok(answer)
    }
}

fn no_such() -> Error {
    let detail = "no license of your organization waits under this code; it was used, it is over, or it is another \
                  organization's: ask whoever gave it to you for a new one";
    Error::field("code", detail)
}
