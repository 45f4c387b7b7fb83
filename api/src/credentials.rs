//! What opens an organization's accounts at clouds.

use gantry_jobs::credentials::CheckCredential;
use gantry_jobs::{By, Job as _};
use gantry_schema::credentials::accounts::Standing;
use gantry_schema::credentials::queries::{self as rows, Known};
use gantry_schema::credentials::{Cloud, Credential as Opened};
use gantry_schema::organizations::needed::{ManageCredentials, ReadCredentials};
use gantry_schema::{CloudCredentialId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::{Moment, Name, Secret};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Oldest;
use crate::tag::Tag;

/// The operations on cloud credentials.
#[derive(Debug, Clone, Copy)]
pub struct CloudCredentials;

/// Where servers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Deserialize)]
#[oai(rename = "Cloud", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub(crate) enum CloudName {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Microsoft Azure.
    Azure,
    /// DigitalOcean.
    Digitalocean,
    /// Hetzner Cloud.
    Hetzner,
    /// The platform's own, which costs nothing and is no use but to try things.
    Sandbox,
}

impl From<Cloud> for CloudName {
    fn from(cloud: Cloud) -> Self {
        match cloud {
            Cloud::Aws => Self::Aws,
            Cloud::Gcp => Self::Gcp,
            Cloud::Azure => Self::Azure,
            Cloud::Digitalocean => Self::Digitalocean,
            Cloud::Hetzner => Self::Hetzner,
            Cloud::Sandbox => Self::Sandbox,
        }
    }
}

impl From<CloudName> for Cloud {
    fn from(cloud: CloudName) -> Self {
        match cloud {
            CloudName::Aws => Self::Aws,
            CloudName::Gcp => Self::Gcp,
            CloudName::Azure => Self::Azure,
            CloudName::Digitalocean => Self::Digitalocean,
            CloudName::Hetzner => Self::Hetzner,
            CloudName::Sandbox => Self::Sandbox,
        }
    }
}

/// What may be known of a credential.
#[derive(Debug, Object)]
#[oai(example)]
struct CloudCredential {
    /// Its id.
    id: CloudCredentialId,
    /// What people call it.
    name: String,
    /// Of which cloud it is.
    cloud: CloudName,
    /// By what people recognise it: the id of a key or a subscription, the address of a service account, the last characters of
    /// a token.
    hint: String,
    /// Servers that were made with it, and are there.
    servers: i64,
    /// What the cloud said of it when it was last asked.
    state: CloudCredentialState,
    /// By what the cloud knows the account, where it says so.
    #[oai(skip_serializing_if_is_none)]
    account: Option<String>,
    /// What is needed of the account, each with whether it is permitted, as far as the cloud says so.
    permissions: Vec<CloudPermission>,
    /// Why the cloud does not take it.
    #[oai(skip_serializing_if_is_none)]
    problem: Option<String>,
    /// When the cloud was last asked.
    #[oai(skip_serializing_if_is_none)]
    checked_at: Option<Moment>,
    /// When it was added.
    created_at: Moment,
    /// When another last took its place under the same id.
    #[oai(skip_serializing_if_is_none)]
    rotated_at: Option<Moment>,
}

example!(CloudCredential, {
    "id": "crd_01h455vb4pex5vsknk084sn02q",
    "name": "Trying things",
    "cloud": "sandbox",
    "hint": "…-one",
    "servers": 1,
    "state": "valid",
    "account": "sandbox",
    "permissions": [],
    "checked_at": "2026-01-15T12:00:01Z",
    "created_at": "2026-01-15T12:00:00Z",
});

/// What a cloud said of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum CloudCredentialState {
    /// It was not asked yet.
    Unchecked,
    /// It takes it.
    Valid,
    /// It does not take it.
    Refused,
}

impl From<Standing> for CloudCredentialState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Unchecked => Self::Unchecked,
            Standing::Valid => Self::Valid,
            Standing::Refused => Self::Refused,
        }
    }
}

/// Something that has to be permitted.
#[derive(Debug, Object)]
struct CloudPermission {
    /// The cloud's own name for it.
    name: String,
    /// Whether it is; absent: the cloud does not say.
    #[oai(skip_serializing_if_is_none)]
    held: Option<bool>,
}

/// A lasting key of a user of AWS.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct AwsCredential {
    /// `AKIA…`
    access_key_id: String,
    /// Its secret: 40 characters.
    secret_access_key: Secret,
}

/// A key of a service account of Google Cloud.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct GcpCredential {
    /// The key file, JSON, as one text.
    service_account: Secret,
}

/// A client secret of an application of Azure.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct AzureCredential {
    /// The directory.
    tenant_id: String,
    /// The application.
    client_id: String,
    /// The value of its secret.
    client_secret: Secret,
    /// What is billed.
    subscription_id: String,
}

/// A personal access token of DigitalOcean.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct DigitaloceanCredential {
    /// `dop_v1_…`
    token: Secret,
}

/// A token of a project of Hetzner Cloud.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct HetznerCredential {
    /// 64 characters.
    token: Secret,
}

/// A token of the sandbox.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct SandboxCredential {
    /// 8 to 100 visible characters, whichever you like.
    token: Secret,
}

/// What opens an account: exactly one of these. Kept sealed, and never shown again.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
struct CloudSecret {
    /// Amazon Web Services.
    aws: Option<AwsCredential>,
    /// Google Cloud.
    gcp: Option<GcpCredential>,
    /// Microsoft Azure.
    azure: Option<AzureCredential>,
    /// DigitalOcean.
    digitalocean: Option<DigitaloceanCredential>,
    /// Hetzner Cloud.
    hetzner: Option<HetznerCredential>,
    /// The sandbox.
    sandbox: Option<SandboxCredential>,
}

impl CloudSecret {
    /// The one that is there, if it can be one of its cloud.
    fn read(self) -> Result<Opened, Error> {
        let text = |secret: &Secret| secret.expose().to_owned();
        let one = |token: &Secret| secret_text(token);
        let given = [
            self.aws.map(|it| Opened::Aws {
                access_key_id: it.access_key_id,
                secret_access_key: text(&it.secret_access_key),
            }),
            self.gcp.map(|it| Opened::Gcp { service_account: text(&it.service_account) }),
            self.azure.map(|it| Opened::Azure {
                tenant_id: it.tenant_id,
                client_id: it.client_id,
                client_secret: text(&it.client_secret),
                subscription_id: it.subscription_id,
            }),
            self.digitalocean.map(|it| Opened::Digitalocean { token: one(&it.token) }),
            self.hetzner.map(|it| Opened::Hetzner { token: one(&it.token) }),
            self.sandbox.map(|it| Opened::Sandbox { token: one(&it.token) }),
        ];
        let mut given = given.into_iter().flatten();
        let (Some(credential), None) = (given.next(), given.next()) else {
            let detail = "write exactly one of aws, gcp, azure, digitalocean, hetzner and sandbox";
            return Err(Error::field("credential", detail));
        };
        credential.check().map_err(|wrong| {
            Error::field(format!("credential.{}.{}", credential.cloud(), wrong.field), wrong.reason)
        })?;
        Ok(credential)
    }
}

/// People copy a line break along.
fn secret_text(secret: &Secret) -> String {
    secret.expose().trim().to_owned()
}

/// A credential to add.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewCloudCredential {
    /// What people call it: 1 to 200 characters.
    name: Name,
    /// What opens the account.
    credential: CloudSecret,
}

example!(NewCloudCredential, {
    "name": "Trying things",
    "credential": { "sandbox": { "token": "sandbox-my-first-one" } },
});

/// What takes the place of a credential.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct CloudCredentialRotation {
    /// What opens the account from now on; of the same cloud.
    credential: CloudSecret,
}

example!(CloudCredentialRotation, { "credential": { "sandbox": { "token": "sandbox-my-second-one" } } });

/// A credential was added.
#[derive(ApiResponse)]
enum Created {
    /// Servers can be made with it.
    #[oai(status = 201)]
    Created(
        Json<CloudCredential>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

/// A credential was removed.
#[derive(ApiResponse)]
enum Removed {
    /// Nothing of it is kept.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/cloud-credentials", tag = "Tag::CloudCredentials")]
impl CloudCredentials {
    /// List cloud credentials
    ///
    /// Without their secrets.
    #[oai(path = "/", method = "get", operation_id = "listCloudCredentials")]
    async fn list(
        &self,
        caller: May<ReadCredentials>,
        app: Data<&App>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<CloudCredential>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), CloudCredential::from))
    }

    /// Add a cloud credential
    ///
    /// Kept sealed; nothing shows it again. Whether it looks like one of its cloud is checked at once, and a job asks the cloud.
    ///
    /// Refused as `name_taken` when there is one of that name, as `too_many` when there are 100, as `license_limit` when the
    /// license allows no more, as `license_state` when it is not in force.
    #[oai(path = "/", method = "post", operation_id = "createCloudCredential")]
    async fn create(
        &self,
        caller: May<ManageCredentials>,
        app: Data<&App>,
        once: Once,
        body: Body<NewCloudCredential>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let NewCloudCredential { name, credential } = body.0;
        let credential = credential.read()?;
        let by = caller.by();
        let create = once.run(&caller, organization, async |tx| {
            if rows::count(tx).await? >= rows::MOST {
                return Err(Error::new(
                    Code::TooMany,
                    "there are 100 credentials, as many as there may be; remove one",
                ));
            }
            let made = rows::insert(tx, &app.sealing, name.as_str(), &credential).await;
            let id = made.on_constraint("cloud_credentials_name_key", || {
                Error::new(Code::NameTaken, "there is a credential of this name; choose another").at("name")
            })?;
            let made = find(tx, id).await?;
            check(tx, id, by).await?;
            tx.audit().on(&id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Created::Created(Json(made), format!("/cloud-credentials/{id}")))
        });
        create.await
    }

    /// Get a cloud credential
    ///
    /// Without its secret.
    #[oai(path = "/:credential", method = "get", operation_id = "getCloudCredential")]
    async fn get(
        &self,
        caller: May<ReadCredentials>,
        app: Data<&App>,
        /// The credential.
        credential: Path<CloudCredentialId>,
    ) -> Result<Json<CloudCredential>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(find(&mut tx, credential.0).await?))
    }

    /// Replace a cloud credential
    ///
    /// Another of the same cloud takes its place under the same id, for all servers that were made with it, from the next run on.
    #[oai(path = "/:credential/rotate", method = "post", operation_id = "rotateCloudCredential")]
    async fn rotate(
        &self,
        caller: May<ManageCredentials>,
        app: Data<&App>,
        once: Once,
        /// The credential.
        credential: Path<CloudCredentialId>,
        body: Body<CloudCredentialRotation>,
    ) -> Result<Answered<Json<CloudCredential>>, Error> {
        let (organization, id) = (caller.organization(), credential.0);
        let (credential, by) = (body.0.credential.read()?, caller.by());
        let rotate = once.run(&caller, organization, async |tx| {
            let before = find(tx, id).await?;
            if Cloud::from(before.cloud) != credential.cloud() {
                let detail = "it is of another cloud than the one it is to replace; add it as a credential of its own";
                return Err(Error::field("credential", detail));
            }
            rows::replace(tx, &app.sealing, id, &credential).await?;
            let after = find(tx, id).await?;
            check(tx, id, by).await?;
            tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        rotate.await
    }

    /// Remove a cloud credential
    ///
    /// Refused as `in_use` while servers are there that were made with it.
    #[oai(path = "/:credential", method = "delete", operation_id = "removeCloudCredential")]
    async fn remove(
        &self,
        caller: May<ManageCredentials>,
        once: Once,
        /// The credential.
        credential: Path<CloudCredentialId>,
    ) -> Result<Answered<Removed>, Error> {
        let (organization, id) = (caller.organization(), credential.0);
        let remove = once.run(&caller, organization, async |tx| {
            let removed = rows::remove(tx, id).await.on_constraint("stacks_credential_fkey", || {
                Error::new(Code::InUse, "servers are there that were made with it; destroy them first")
            })?;
            if removed { Ok(Removed::Removed) } else { Err(Error::not_found(id)) }
        });
        remove.await
    }
}

/// Has the cloud asked about it.
async fn check(tx: &mut TenantTx, credential: CloudCredentialId, by: &By) -> Result<(), Error> {
    CheckCredential { credential, region: None }.request().enqueue(tx, by).await?;
    Ok(())
}

async fn find(tx: &mut TenantTx, id: CloudCredentialId) -> Result<CloudCredential, Error> {
    Ok(rows::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?.into())
}

impl From<Known> for CloudCredential {
    fn from(known: Known) -> Self {
        Self {
            id: known.id,
            name: known.name,
            cloud: known.cloud.into(),
            hint: known.hint,
            servers: known.servers,
            state: known.standing.into(),
            account: known.account,
            permissions: known
                .permitted
                .into_iter()
                .map(|it| CloudPermission { name: it.name, held: it.held })
                .collect(),
            problem: known.problem,
            checked_at: known.checked_at.map(Into::into),
            created_at: known.created_at.into(),
            rotated_at: known.rotated_at.map(Into::into),
        }
    }
}
