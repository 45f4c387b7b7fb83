//! Taking in what issuers revoked where nothing is connected.

use gantry_jobs::webhooks;
use gantry_schema::audit::Draft;
use gantry_schema::licenses::evaluate::Status;
use gantry_schema::licenses::keys::KeyId;
use gantry_schema::licenses::listed::{self, Concerned, Listed};
use gantry_schema::licenses::revocations::Revocations;
use gantry_schema::licenses::{Anchors, queries, standing};
use gantry_schema::organizations::needed::OperatePlatform;
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{LicenseId, OrganizationId, TenantTx, turn};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;
use serde_json::json;

use super::give::REVOCATIONS;
use crate::app::App;
use crate::body::Body;
use crate::caller::{Caller, May};
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on lists of what issuers revoked.
#[derive(Debug, Clone, Copy)]
pub struct LicenseRevocations;

/// A list that an issuer signed.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewLicenseRevocations {
    /// The list, `v4.public.…`, as `gantry-api license revoke-list` prints it.
    #[oai(validator(max_length = 262144))]
    list: String,
}

example!(NewLicenseRevocations, { "list": "v4.public.eyJ2ZXIiOjEsImVwbyI6N30.eyJraWQiOiJrNC5waWQuIn0" });

/// The newest list of an issuer's key.
#[derive(Debug, Object)]
#[oai(example)]
struct LicenseRevocationList {
    /// The name of the key that signed it.
    key_id: String,
    /// Counts the lists of the key.
    number: i64,
    /// When it was made.
    made_at: Moment,
    /// When it was imported.
    imported_at: Moment,
    /// Licenses that lists of the key ever named.
    licenses: i64,
}

example!(LicenseRevocationList, {
    "key_id": "k4.pid.9ShR3xc8-qVJ_di0tc9nx0IDIqbatdeM2mqLFBJsKRHs",
    "number": 7,
    "made_at": "2026-01-15T12:00:00Z",
    "imported_at": "2026-01-16T12:00:00Z",
    "licenses": 3,
});

/// What a list changed.
#[derive(Debug, Object)]
#[oai(example)]
struct ImportedLicenseRevocations {
    /// The name of the key that signed it.
    key_id: String,
    /// Its number.
    number: i64,
    /// Licenses that were not known to be revoked.
    added: usize,
    /// Organizations whose licenses in force are among those, or were made of one of them.
    organizations: Vec<OrganizationId>,
}

example!(ImportedLicenseRevocations, {
    "key_id": "k4.pid.9ShR3xc8-qVJ_di0tc9nx0IDIqbatdeM2mqLFBJsKRHs",
    "number": 7,
    "added": 1,
    "organizations": ["org_01h455vb4pex5vsknk084sn02q"],
});

impl From<Listed> for LicenseRevocationList {
    fn from(row: Listed) -> Self {
        Self {
            key_id: row.key_id,
            number: row.epoch,
            made_at: row.made_at.into(),
            imported_at: row.imported_at.into(),
            licenses: row.licenses,
        }
    }
}

#[OpenApi(tag = "Tag::Licenses")]
impl LicenseRevocations {
    /// Import what an issuer revoked
    ///
    /// A list that was signed with a key that is believed here, with a higher number than those before of that key. Licenses that it
    /// names, and those made of them, are revoked in every process within a second, and are not installed any more. What
    /// lists before it named stays revoked. Needs a key of the platform.
    ///
    /// Refused as `wrong_state` when a list with as high a number was imported before.
    #[oai(path = "/license-revocations", method = "post", operation_id = "importLicenseRevocations")]
    async fn import(
        &self,
        caller: May<OperatePlatform>,
        app: Data<&App>,
        once: Once,
        body: Body<NewLicenseRevocations>,
    ) -> Result<Answered<Json<ImportedLicenseRevocations>>, Error> {
        let anchors = app.trust.anchors(&app.db).await?;
        let text = body.0.list.trim().to_owned();
        let (list, key) =
            Revocations::verify(&text, &anchors).map_err(|error| Error::field("list", error.to_string()))?;
        let number = i64::try_from(list.epo)
            .map_err(|_| Error::field("list", "the number of the list is out of bounds; ask for another one"))?;
        if list.iat > app.db.now() + chrono::Duration::hours(1) {
            return Err(Error::field(
                "list",
                "the list is of a moment ahead; look at the clock, or ask for another one",
            ));
        }
        let answer = once
            .run(&caller, OrganizationId::PLATFORM, async |tx| {
                turn::take(tx, REVOCATIONS).await?;
                if listed::epoch(tx, &key).await?.is_some_and(|known| known >= number) {
                    let detail = "a list of this key with as high a number was imported before; ask for a newer one";
                    return Err(Error::new(Code::WrongState, detail));
                }
                let added = listed::take(tx, &key, &list, &text).await?;
                // All that it names: a license may have been installed since the list that named it first.
                let named: Vec<LicenseId> = list.rev.iter().copied().collect();
                let organizations = die(tx, &anchors, &caller, &named, &key).await?;
                tx.audit().set("key_id", key.as_str()).set("number", number).set("licenses", named.len());
                let key_id = key.to_string();
                Ok(Json(ImportedLicenseRevocations { key_id, number, added: added.len(), organizations }))
            })
            .await?;
        app.standings.forget(None);
        Ok(answer)
    }

    /// List what issuers revoked
    ///
    /// The newest list of each of their keys. Needs a key of the platform.
    #[oai(path = "/license-revocations", method = "get", operation_id = "listLicenseRevocations")]
    async fn list(
        &self,
        _caller: May<OperatePlatform>,
        app: Data<&App>,
    ) -> Result<Json<Vec<LicenseRevocationList>>, Error> {
        let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
        Ok(Json(listed::lists(&mut tx).await?.into_iter().map(LicenseRevocationList::from).collect()))
    }
}

/// Ends what a list names, wherever it is in force, and lets the others know that there is news. Answers where something ended.
async fn die(
    tx: &mut TenantTx,
    anchors: &Anchors,
    caller: &Caller,
    named: &[LicenseId],
    key: &KeyId,
) -> Result<Vec<OrganizationId>, Error> {
    let concerned = listed::concerned(tx, named, key).await?;
    for Concerned { organization, revoked } in &concerned {
        let stepped = tx.step_into(*organization).await?;
        if *revoked {
            let own = queries::lock(tx).await?;
            if let Some(own) = own.filter(|own| own.status != Status::Revoked && named.contains(&own.id)) {
                queries::decide(tx, Status::Revoked, Some("Its issuer revoked it."), OrganizationId::PLATFORM).await?;
                let facts = json!({ "organization_id": organization, "license_id": own.id });
                webhooks::emit(tx, PlatformEvent::LicenseRevoked.name(), facts, caller.by()).await?;
                *tx.audit() = Draft::new("license.revoke");
                tx.audit().on(&own.id).set("key_id", key.as_str());
            }
        }
        standing::count(tx, anchors).await?;
        tx.step_back(stepped).await?;
    }
    Ok(concerned.into_iter().filter(|one| one.revoked).map(|one| one.organization).collect())
}
