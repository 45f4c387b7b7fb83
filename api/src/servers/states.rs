//! The states that Terraform keeps of servers: what is kept of them, going back to an old one, and the lock. What a state says
//! is never answered: it may have passwords and keys in it.

use chrono::DateTime;
use gantry_schema::digest::hex;
use gantry_schema::organizations::needed::{ManageServers, ReadServers};
use gantry_schema::servers::runs as run_rows;
use gantry_schema::servers::states::{self as rows, Lock, StateError, Version};
use gantry_schema::{Order, RunId, ServerId, StackId, TenantTx, Window, servers};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Object, OpenApi};

use crate::app::App;
use crate::caller::May;
use crate::error::{Code, Error};
use crate::example::{self, example};
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on states and their locks.
#[derive(Debug, Clone, Copy)]
pub struct ServerStates;

/// A version of the state that Terraform keeps of a server. What it says is not shown: it may have secrets in it.
#[derive(Debug, Object)]
#[oai(example)]
struct ServerStateVersion {
    /// Its number: each version has another, and the newest the highest.
    version: i64,
    /// Terraform's own number of it, which never goes back.
    serial: i64,
    /// What it belongs to: the same for all states of a server.
    lineage: String,
    /// Bytes.
    size: i32,
    /// Its digest, in hexadecimal digits.
    sha256: String,
    /// What wrote it; absent: somebody went back to an old one.
    #[oai(skip_serializing_if_is_none)]
    run_id: Option<RunId>,
    /// The version whose content it has again; absent: Terraform wrote it.
    #[oai(skip_serializing_if_is_none)]
    restored_from: Option<i64>,
    /// When it was written.
    created_at: Moment,
}

example!(ServerStateVersion, {
    "version": 3,
    "serial": 3,
    "lineage": "9f8d2f0c-6f0b-2b52-0a3e-0a8f0f6f2c11",
    "size": 4096,
    "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "run_id": "run_01h455vb4pex5vsknk084sn02q",
    "created_at": "2026-01-15T12:00:03Z",
});

impl From<Version> for ServerStateVersion {
    fn from(row: Version) -> Self {
        Self {
            version: row.version,
            serial: row.serial,
            lineage: row.lineage,
            size: row.size,
            sha256: hex(&row.sha256),
            run_id: row.run,
            restored_from: row.restored_from,
            created_at: row.created_at.into(),
        }
    }
}

/// Who holds the state of a server, as Terraform says it.
#[derive(Debug, Default, Object)]
#[oai(example)]
struct ServerLock {
    /// Whether anybody does.
    held: bool,
    /// The id of the lock.
    #[oai(skip_serializing_if_is_none)]
    id: Option<String>,
    /// What its holder does.
    #[oai(skip_serializing_if_is_none)]
    operation: Option<String>,
    /// Who he is.
    #[oai(skip_serializing_if_is_none)]
    who: Option<String>,
    /// Since when.
    #[oai(skip_serializing_if_is_none)]
    since: Option<Moment>,
}

example!(ServerLock, {
    "held": true,
    "id": "6d2b7c1e-1f0a-6f4e-1d2c-3b4a5c6d7e8f",
    "operation": "OperationTypeApply",
    "who": "root@worker-1",
    "since": "2026-01-15T12:00:01Z",
});

/// Bytes that are told of what a holder says of himself.
const LONGEST: usize = 200;

impl From<Option<Lock>> for ServerLock {
    fn from(lock: Option<Lock>) -> Self {
        let Some(Lock { id, info }) = lock else { return Self::default() };
        let said = |name: &str| {
            let mut text = info[name].as_str().filter(|text| !text.is_empty())?.to_owned();
            text.truncate(text.floor_char_boundary(LONGEST));
            Some(text)
        };
        let since = info["Created"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Self {
            held: true,
            id: Some(id),
            operation: said("Operation"),
            who: said("Who"),
            since: since.map(|since| since.to_utc().into()),
        }
    }
}

#[OpenApi(prefix_path = "/servers", tag = "Tag::Servers")]
impl ServerStates {
    /// List the states that are kept of a server
    ///
    /// Newest first unless told otherwise: as many as the setting `servers.state_versions` says. What they say is not shown,
    /// because it may have secrets in it.
    #[oai(path = "/:server/states", method = "get", operation_id = "listServerStates")]
    async fn list(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The server.
        server: Path<ServerId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<ServerStateVersion>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let server = super::find(&mut tx, server.0).await?;
        let found = rows::versions(&mut tx, server.stack, window).await?;
        Ok(paging.page(organization, found, |version| Place::id(version.id), Into::into))
    }

    /// Go back to an old state of a server
    ///
    /// What it says is written as a new version, with a serial above all before. Nothing is changed at the cloud: `POST
    /// /servers/{id}/compare` then says what differs from what is there.
    ///
    /// Refused as `not_found` when that version is not kept, as `wrong_state` when the server is gone, something is being done with
    /// it or waits to be approved, the state is locked, or what is kept of it was changed or belongs to something else.
    #[oai(path = "/:server/states/:version/restore", method = "post", operation_id = "restoreServerState")]
    async fn restore(
        &self,
        caller: May<ManageServers>,
        app: Data<&App>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
        /// The number of the version.
        #[oai(example = "first_version", validator(minimum(value = "1")))]
        version: Path<i64>,
    ) -> Result<Answered<Json<ServerStateVersion>>, Error> {
        let (organization, id, version) = (caller.organization(), server.0, version.0);
        let restore = once.run(&caller, organization, async |tx| {
            servers::queries::lock(tx, id).await?;
            let server = super::find(tx, id).await?;
            if server.state == servers::ServerState::Destroyed {
                return Err(Error::new(Code::WrongState, "the server is gone, and its states with it"));
            }
            super::not_under_way(tx, &server).await?;
            if let Some(lock) = rows::held(tx, server.stack).await? {
                let detail = format!("the state is locked by {}; see GET /servers/{id}/lock", lock.id);
                return Err(Error::new(Code::WrongState, detail));
            }
            let before = newest(tx, server.stack).await?.map(ServerStateVersion::from);
            if !rows::restore(tx, &app.sealing, server.stack, version).await.map_err(refused)? {
                return Err(Error::not_found(format!("version {version}")));
            }
            let after = newest(tx, server.stack).await?.map(ServerStateVersion::from);
            let after = after.ok_or_else(|| Error::not_found(format!("version {version}")))?;
            tx.audit()
                .on(&id)
                .called(&server.name)
                .became(before.and_then(|before| before.to_json()).as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        restore.await
    }

    /// Get the lock on the state of a server
    ///
    /// Terraform holds it while it works. A lock that somebody left who was overtaken since does not count.
    #[oai(path = "/:server/lock", method = "get", operation_id = "getServerLock")]
    async fn lock(
        &self,
        caller: May<ReadServers>,
        app: Data<&App>,
        /// The server.
        server: Path<ServerId>,
    ) -> Result<Json<ServerLock>, Error> {
        let mut tx = app.db.tenant(caller.organization()).await?;
        let server = super::find(&mut tx, server.0).await?;
        Ok(Json(rows::held(&mut tx, server.stack).await?.into()))
    }

    /// Break the lock on the state of a server
    ///
    /// As `terraform force-unlock` does it, by the id of the lock. Whoever held it writes no more. What is done next with the
    /// server needs no lock to be broken: it takes over by itself.
    ///
    /// Refused as `wrong_state` when it is not held by that lock, or a run works with it: cancel that first.
    #[oai(path = "/:server/lock", method = "delete", operation_id = "breakServerLock")]
    async fn unlock(
        &self,
        caller: May<ManageServers>,
        once: Once,
        /// The server.
        server: Path<ServerId>,
        /// The id of the lock.
        #[oai(example = "example_lock")]
        id: Query<Word>,
    ) -> Result<Answered<Json<ServerLock>>, Error> {
        let (organization, server, lock) = (caller.organization(), server.0, id.0);
        let unlock = once.run(&caller, organization, async |tx| {
            servers::queries::lock(tx, server).await?;
            let server = super::find(tx, server).await?;
            if run_rows::is_worked_on(tx, server.stack).await? {
                return Err(Error::new(Code::WrongState, "a run works with it; cancel that, or wait for its end"));
            }
            let before = ServerLock::from(rows::held(tx, server.stack).await?);
            if !rows::force_unlock(tx, server.stack, lock.as_str()).await? {
                let detail = "it is not held by this lock; GET /servers/{id}/lock says by which";
                return Err(Error::new(Code::WrongState, detail));
            }
            let after = ServerLock::default();
            tx.audit().called(&server.name).became(before.to_json().as_ref(), after.to_json().as_ref());
            Ok(Json(after))
        });
        unlock.await
    }
}

fn first_version() -> i64 {
    1
}

fn example_lock() -> Word {
    example::read("6d2b7c1e-1f0a-6f4e-1d2c-3b4a5c6d7e8f".into())
}

async fn newest(tx: &mut TenantTx, stack: StackId) -> Result<Option<Version>, Error> {
    Ok(rows::versions(tx, stack, Window::new(Order::Descending, 1)).await?.pop())
}

fn refused(error: StateError) -> Error {
    match error {
        StateError::Damaged | StateError::Seal(_) => {
            Error::new(Code::WrongState, "what is kept of that version is not what was written; choose another one")
        }
        StateError::Refused(why) => Error::new(Code::WrongState, format!("it cannot follow what is kept: {why}")),
        StateError::Locked(_) | StateError::Overtaken => {
            Error::new(Code::WrongState, "somebody else works with it; try again when he is done")
        }
        StateError::Database(error) => error.into(),
    }
}
