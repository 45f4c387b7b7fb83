//! With what the platform gets into servers.

use gantry_schema::organizations::needed::{ManageServers, ReadServers};
use gantry_schema::servers::keys::{self as rows, Known};
use gantry_schema::servers::openssh::{self, PublicKey};
use gantry_schema::{SshKeyId, TenantTx};
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{ApiResponse, Object, OpenApi};
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

/// The operations on SSH keys.
#[derive(Debug, Clone, Copy)]
pub struct SshKeys;

/// A key with which the platform gets in. Its private half is sealed, and never shown.
#[derive(Debug, Object)]
#[oai(example)]
struct SshKey {
    /// Its id.
    id: SshKeyId,
    /// What people call it.
    name: String,
    /// Its public half, as `authorized_keys` has it.
    public_key: String,
    /// By what people recognise it.
    fingerprint: String,
    /// It gets into servers for which no other is chosen.
    default: bool,
    /// Servers it gets into.
    servers: i64,
    /// When it was added.
    created_at: Moment,
}

example!(SshKey, {
    "id": "ssk_01h455vb4pex5vsknk084sn02q",
    "name": "Default",
    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
    "fingerprint": "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8",
    "default": true,
    "servers": 1,
    "created_at": "2026-01-15T12:00:00Z",
});

/// A key to add.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewSshKey {
    /// What people call it: 1 to 200 characters. No other key of the organization has it.
    name: Name,
    /// The private key file of OpenSSH, as one text: an Ed25519 key without a passphrase. Left out: one is made.
    private_key: Option<Secret>,
}

example!(NewSshKey, { "name": "Machines at home" });

/// A key was added.
#[derive(ApiResponse)]
enum Created {
    /// The platform can get in with it.
    #[oai(status = 201)]
    Created(
        Json<SshKey>,
        /// Where it is.
        #[oai(header = "Location")]
        String,
    ),
}

/// A key was removed.
#[derive(ApiResponse)]
enum Removed {
    /// Nothing of it is kept.
    #[oai(status = 204)]
    Removed,
}

#[OpenApi(prefix_path = "/ssh-keys", tag = "Tag::SshKeys")]
impl SshKeys {
    /// List SSH keys
    ///
    /// Their public halves: what has to be in `authorized_keys` of a machine that is to be connected.
    #[oai(path = "/", method = "get", operation_id = "listSshKeys")]
    async fn list(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        paging: Paging<Oldest>,
    ) -> Result<Paged<SshKey>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), SshKey::from))
    }

    /// Add an SSH key
    ///
    /// One that is brought along, or a new one. The organization's first is its default.
    ///
    /// Refused as `name_taken` when there is one of that name, as `too_many` when there are 50.
    #[oai(path = "/", method = "post", operation_id = "createSshKey")]
    async fn create(
        &self,
        caller: May<ManageServers>,
        app: Data<&App>,
        once: Once,
        body: Body<NewSshKey>,
    ) -> Result<Answered<Created>, Error> {
        let organization = caller.organization();
        let NewSshKey { name, private_key } = body.0;
        let seed = private_key.map(|key| openssh::seed(key.expose())).transpose();
        let seed = seed.map_err(|wrong| Error::field("private_key", wrong.to_string()))?;
        let create = once.run(&caller, organization, async |tx| {
            if rows::count(tx).await? >= rows::MOST {
                return Err(Error::new(Code::TooMany, "there are 50 SSH keys, as many as there may be; remove one"));
            }
            let made = rows::insert(tx, &app.sealing, name.as_str(), seed.as_ref()).await;
            let id = made.on_constraint("ssh_keys_name_key", || {
                Error::new(Code::NameTaken, "there is a key of this name; choose another").at("name")
            })?;
            let made = find(tx, id).await?;
            tx.audit().on(&id).called(&made.name).became(None, made.to_json().as_ref());
            Ok(Created::Created(Json(made), format!("/ssh-keys/{id}")))
        });
        create.await
    }

    /// Get an SSH key
    #[oai(path = "/:key", method = "get", operation_id = "getSshKey")]
    async fn get(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The key.
        key: Path<SshKeyId>,
    ) -> Result<Json<SshKey>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        Ok(Json(find(&mut tx, key.0).await?))
    }

    /// Make an SSH key the default
    ///
    /// It gets into servers for which no other is chosen, from now on. Those that are there are reached as before.
    #[oai(path = "/:key/default", method = "post", operation_id = "setDefaultSshKey")]
    async fn set_default(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The key.
        key: Path<SshKeyId>,
    ) -> Result<Answered<Json<SshKey>>, Error> {
        let (organization, id) = (caller.organization(), key.0);
        let set = once.run(&caller, organization, async |tx| {
            let before = find(tx, id).await?;
            rows::set_default(tx, id).await?;
            let after = find(tx, id).await?;
            tx.audit().called(&after.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        set.await
    }

    /// Remove an SSH key
    ///
    /// Refused as `in_use` while the platform gets into servers with it, and while it is the default and there are others.
    #[oai(path = "/:key", method = "delete", operation_id = "removeSshKey")]
    async fn remove(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The key.
        key: Path<SshKeyId>,
    ) -> Result<Answered<Removed>, Error> {
        let (organization, id) = (caller.organization(), key.0);
        let remove = once.run(&caller, organization, async |tx| {
            let known = find(tx, id).await?;
            let removed = rows::remove(tx, id).await.on_constraint("stacks_ssh_key_fkey", || {
                Error::new(Code::InUse, "the platform gets into servers with it; destroy or forget them first")
            })?;
            if !removed {
                let detail = "it is the organization's default; make another the default first";
                return Err(Error::new(Code::InUse, detail));
            }
            tx.audit().called(&known.name);
            Ok(Removed::Removed)
        });
        remove.await
    }
}

async fn find(tx: &mut TenantTx, id: SshKeyId) -> Result<SshKey, Error> {
    Ok(rows::find(tx, id).await?.ok_or_else(|| Error::not_found(id))?.into())
}

impl From<Known> for SshKey {
    fn from(known: Known) -> Self {
        Self {
            id: known.id,
            name: known.name,
            fingerprint: PublicKey::parse(&known.public_key).map(|key| key.fingerprint()).unwrap_or_default(),
            public_key: known.public_key,
            default: known.is_default,
            servers: known.servers,
            created_at: known.created_at.into(),
        }
    }
}
