//! What was left behind at clouds: what this installation made for servers that are gone.

use gantry_jobs::Job as _;
use gantry_jobs::servers::FindOrphans;
use gantry_schema::CloudCredentialId;
use gantry_schema::credentials::{orphans, queries as credentials};
use gantry_schema::organizations::needed::{ManageCredentials, ReadCredentials};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::app::App;
use crate::caller::May;
use crate::error::Error;
use crate::example::example;
use crate::field::Moment;
use crate::jobs::{Asked, Prefer, Receipt, asked};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on what was left behind at clouds.
#[derive(Debug, Clone, Copy)]
pub struct CloudOrphans;

/// What was left behind at an account.
#[derive(Debug, Object)]
#[oai(example, rename = "CloudOrphans")]
struct Found {
    /// When that was last looked at; absent: it was not yet.
    #[oai(skip_serializing_if_is_none)]
    looked_at: Option<Moment>,
    /// What was there then, up to 1000.
    orphans: Vec<CloudOrphan>,
}

example!(Found, {
    "looked_at": "2026-01-15T01:23:00Z",
    "orphans": [{
        "kind": "volumes",
        "id": "4711",
        "name": "gantry-srv-01h455vb4pex5vsknk084sn02q",
        "region": "fsn1",
        "server": "srv_01h455vb4pex5vsknk084sn02q",
        "found_at": "2026-01-14T01:23:00Z",
    }],
});

/// Something that this installation made, and that belongs to no server any more.
#[derive(Debug, Object)]
struct CloudOrphan {
    /// What it is, in the cloud's word.
    kind: String,
    /// By what the cloud knows it.
    id: String,
    /// By what people know it; empty where it has no name.
    name: String,
    /// Where it is; empty where the cloud does not say.
    region: String,
    /// The server it was made for, by its label.
    server: String,
    /// When it was first seen.
    found_at: Moment,
}

#[OpenApi(prefix_path = "/cloud-credentials", tag = "Tag::CloudCredentials")]
impl CloudOrphans {
    /// List what was left behind at a cloud
    ///
    /// Once a day everything that carries the labels of this installation and organization is compared with the servers there are.
    /// What belongs to none of them, or to one that is gone for an hour, is here.
    #[oai(path = "/:credential/orphans", method = "get", operation_id = "getCloudOrphans")]
    async fn get(
        &self,
        caller: May<ReadCredentials>,
        app: Data<&App>,
        /// The credential.
        credential: Path<CloudCredentialId>,
    ) -> Result<Json<Found>, Error> {
        let id = credential.0;
        let mut tx = app.db.tenant(caller.organization()).await?;
        credentials::find(&mut tx, id).await?.ok_or_else(|| Error::not_found(id))?;
        let (looked_at, found) = orphans::list(&mut tx, id).await?;
        let orphan = |it: orphans::Orphan| CloudOrphan {
            kind: it.kind,
            id: it.id,
            name: it.name,
            region: it.region,
            server: it.server,
            found_at: it.found_at.into(),
        };
        Ok(Json(Found { looked_at: looked_at.map(Into::into), orphans: found.into_iter().map(orphan).collect() }))
    }

    /// Remove what was left behind at a cloud
    ///
    /// A job looks anew, and removes what it finds: nothing but what carries the labels of this installation and organization, and
    /// belongs to no server. Its `result` has `found` and `removed`. With the header `Prefer: wait=10` the answer comes when the job
    /// ended.
    #[oai(path = "/:credential/orphans/remove", method = "post", operation_id = "removeCloudOrphans")]
    async fn remove(
        &self,
        caller: May<ManageCredentials>,
        app: Data<&App>,
        once: Once,
        prefer: Prefer,
        /// The credential.
        credential: Path<CloudCredentialId>,
    ) -> Result<Answered<Asked<Receipt>>, Error> {
        let (organization, id, by) = (caller.organization(), credential.0, caller.by());
        let remove = once.run(&caller, organization, async |tx| {
            let known = credentials::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?;
            let job = FindOrphans { credential: id, remove: true }.request().enqueue(tx, by).await?;
            tx.audit().called(&known.name);
            Ok(asked(job))
        });
        prefer.wait(&app, organization, remove.await?).await
    }
}
