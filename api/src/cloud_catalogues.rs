//! What there is to be had at clouds, as it was last read with an organization's credential.

use gantry_jobs::Job as _;
use gantry_jobs::credentials::CheckCredential;
use gantry_schema::CloudCredentialId;
use gantry_schema::credentials::{accounts, queries as credentials};
use gantry_schema::organizations::needed::{ManageCredentials, ReadCredentials};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::Error;
use crate::example::example;
use crate::field::{Moment, Word};
use crate::jobs::{Asked, Prefer, Receipt, asked};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on what there is to be had at clouds.
#[derive(Debug, Clone, Copy)]
pub struct CloudCatalogues;

/// What there is to be had.
#[derive(Debug, Object)]
#[oai(example)]
struct CloudCatalogue {
    /// When that was read; absent: it was not yet, there, and `POST /cloud-credentials/{id}/check` reads it.
    #[oai(skip_serializing_if_is_none)]
    read_at: Option<Moment>,
    /// Of all prices; ISO 4217, and empty where nothing was read. Taxes are not in them.
    currency: String,
    /// Where.
    regions: Vec<CloudRegion>,
    /// How large servers can be. Empty where they are asked for region by region, and none was.
    sizes: Vec<CloudSize>,
    /// With what they can begin.
    images: Vec<CloudImage>,
}

example!(CloudCatalogue, {
    "read_at": "2026-01-15T12:00:00Z",
    "currency": "USD",
    "regions": [{ "id": "sandbox-1", "name": "sandbox-1", "available": true }],
    "sizes": [{
        "id": "small",
        "cores": 1,
        "memory_mib": 1024,
        "disk_gib": 20,
        "architecture": "x86",
        "deprecated": false,
        "offers": [{ "region": "sandbox-1", "available": true, "hourly": "0.006849315", "monthly": "5.00" }],
    }],
    "images": [{ "id": "debian-12", "name": "debian-12" }],
});

/// A place where servers are.
#[derive(Debug, Object, Deserialize)]
struct CloudRegion {
    /// The cloud's word for it.
    id: String,
    /// Where that is.
    name: String,
    /// Whether this account can have something there.
    available: bool,
}

/// A size of servers.
#[derive(Debug, Object, Deserialize)]
struct CloudSize {
    /// The cloud's word for it.
    id: String,
    /// Processors.
    cores: u32,
    /// Memory.
    memory_mib: u64,
    /// The disk that belongs to it; 0: it has what is asked for.
    disk_gib: u32,
    /// `x86` or `arm`.
    architecture: String,
    /// Whether it is on its way out.
    deprecated: bool,
    /// Where it is to be had, and for how much.
    offers: Vec<CloudOffer>,
}

/// What a region has of a size.
#[derive(Debug, Object, Deserialize)]
struct CloudOffer {
    /// Where.
    region: String,
    /// Whether there is any at the moment.
    available: bool,
    /// For an hour, as a decimal; absent: the cloud does not say.
    #[oai(skip_serializing_if_is_none)]
    hourly: Option<String>,
    /// For a month, as a decimal; absent: the cloud does not say.
    #[oai(skip_serializing_if_is_none)]
    monthly: Option<String>,
}

/// What a server begins with.
#[derive(Debug, Object, Deserialize)]
struct CloudImage {
    /// The cloud's word for it.
    id: String,
    /// In words.
    name: String,
    /// The processors that can run it; absent: any.
    #[oai(skip_serializing_if_is_none)]
    architecture: Option<String>,
}

/// The same, as it is kept.
#[derive(Debug, Default, Deserialize)]
struct Kept {
    currency: String,
    regions: Vec<CloudRegion>,
    sizes: Vec<CloudSize>,
    images: Vec<CloudImage>,
}

/// A credential to check.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct CloudCredentialCheck {
    /// Where, for clouds that say what there is region by region: AWS, Google Cloud and Azure.
    region: Option<Word>,
}

example!(CloudCredentialCheck, {});

#[OpenApi(prefix_path = "/cloud-credentials", tag = "Tag::CloudCredentials")]
impl CloudCatalogues {
    /// Check a cloud credential
    ///
    /// A job asks the cloud whose account it opens, what that permits, and what there is to be had. It is done when a credential is
    /// added or replaced, and once a day. With the header `Prefer: wait=10` the answer comes when the job ended.
    #[oai(path = "/:credential/check", method = "post", operation_id = "checkCloudCredential")]
    async fn check(
        &self,
        caller: May<ManageCredentials>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The credential.
        credential: Path<CloudCredentialId>,
        body: Body<CloudCredentialCheck>,
    ) -> Result<Answered<Asked<Receipt>>, Error> {
        let (organization, id, by) = (caller.organization(), credential.0, caller.by());
        let region = body.0.region.map(Into::into);
        let check = once.run(&caller, organization, async |tx| {
            let known = credentials::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?;
            let job = CheckCredential { credential: id, region }.request().enqueue(tx, by).await?;
            tx.audit().called(&known.name);
            Ok(asked(job))
        });
        prefer.wait(&app, organization, check.await?).await
    }

    /// Get what there is to be had at a cloud
    ///
    /// As it was last read with the credential, and when that was: regions, sizes with their prices, and images.
    #[oai(path = "/:credential/catalogue", method = "get", operation_id = "getCloudCatalogue")]
    async fn get(
        &self,
        caller: May<ReadCredentials>,
        app: Data<&App>,
        /// The credential.
        credential: Path<CloudCredentialId>,
        /// Where, for clouds that say what there is region by region.
        region: Query<Option<Word>>,
    ) -> Result<Json<CloudCatalogue>, Error> {
        let id = credential.0;
        let region = region.0.map(String::from).unwrap_or_default();
        let mut tx = app.db.tenant(caller.organization()).await?;
        credentials::find(&mut tx, id).await?.ok_or_else(|| Error::not_found(id))?;
        let (kept, read_at) = match accounts::catalogue(&mut tx, id, &region).await? {
            Some((kept, read_at)) => (serde_json::from_value(kept).map_err(Error::internal)?, Some(read_at.into())),
            None => (Kept::default(), None),
        };
        let Kept { currency, regions, sizes, images } = kept;
        Ok(Json(CloudCatalogue { read_at, currency, regions, sizes, images }))
    }
}
