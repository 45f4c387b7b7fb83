//! Machines that are there already, connected: the platform gets in, looks at them, and looks after them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use gantry_schema::SshKeyId;
use gantry_schema::organizations::needed::ManageServers;
use gantry_schema::servers::connected::{self, NewMachine};
use gantry_schema::servers::openssh::PublicKey;
use gantry_schema::servers::queries::Place;
use gantry_schema::servers::{RunKind, keys};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::types::{Example, ToJSON as _};
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;
use url::Host;

use super::runs::ServerRun;
use super::{HostLabel, Server, asked, find, labels, ssh_key};
use crate::app::App;
use crate::body::Body;
use crate::caller::May;
use crate::error::{Code, Error, OnConstraint as _};
use crate::example::example;
use crate::field::{Wrong, text_type};
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations on machines that are there already.
#[derive(Debug, Clone, Copy)]
pub struct ConnectedServers;

/// Where a machine is: an address or a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MachineAddress(String);

impl FromStr for MachineAddress {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong("this is no address and no host name; write such as 203.0.113.7 or db.example.com".into());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().to_string()));
        }
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(plain)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        match Host::parse(text) {
            Ok(Host::Domain(name)) if name.len() <= 253 && name.split('.').all(label) => Ok(Self(name)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for MachineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(MachineAddress, "machine-address", |schema| {
    schema.min_length = Some(1);
    schema.max_length = Some(253);
    schema.example = Some("db.example.com".into());
});

/// As whom one gets in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UserName(String);

impl FromStr for UserName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if first && text.len() <= 32 && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Wrong("this is no name of a user of a machine; write 1 to 32 of letters, digits, _, . and -".into()))
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(UserName, "user-name", |schema| {
    schema.pattern = Some("^[A-Za-z_][A-Za-z0-9_.-]{0,31}$".into());
    schema.example = Some("deploy".into());
});

/// A machine to connect.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct NewConnection {
    /// What it is called here, as a host name; no other server of the organization has it.
    name: HostLabel,
    /// Where it is. At an address inside the operator's network only where he allows that.
    address: MachineAddress,
    /// The port of its SSH server; left out: 22.
    #[oai(validator(minimum(value = "1")))]
    port: Option<u16>,
    /// As whom the platform gets in. Root, or somebody who may become root by `sudo -n`, where something is to be installed.
    username: UserName,
    /// The host key that is believed, and no other: the machine's `/etc/ssh/ssh_host_ed25519_key.pub`, read at its console or
    /// over a connection that is trusted already, or a line of `ssh-keyscan -t ed25519` from a network that is.
    #[oai(validator(min_length = 1, max_length = 4096))]
    host_key: String,
    /// With what the platform gets in; left out: with the organization's default key, which is made if there is none.
    ssh_key_id: Option<SshKeyId>,
    /// The organization's own words for it: up to 20, each with up to 40 characters and a text of up to 100.
    labels: Option<BTreeMap<String, String>>,
    /// Whether what is missing on it is installed: Docker, from its distribution. Left out: nothing on it is changed.
    install: Option<bool>,
}

example!(NewConnection, {
    "name": "db-1",
    "address": "db.example.com",
    "port": 22,
    "username": "deploy",
    "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea root@db",
    "ssh_key_id": "ssk_01h455vb4pex5vsknk084sn02q",
    "labels": { "team": "shop" },
    "install": false,
});

impl NewConnection {
    fn place(&self) -> Result<Place, Error> {
        let host_key = PublicKey::parse_of_host(&self.host_key).map_err(|wrong| {
            let detail = format!("{wrong}. Its host key is in /etc/ssh/ssh_host_ed25519_key.pub on the machine");
            Error::field("host_key", detail)
        })?;
        let port = self.port.unwrap_or(22);
        if port == 0 {
            return Err(Error::field("port", "nobody listens on port 0; write from 1 to 65535"));
        }
        Ok(Place {
            address: self.address.to_string(),
            port,
            username: self.username.to_string(),
            host_key: host_key.bare(),
        })
    }
}

/// A machine that is being connected.
#[derive(Debug, Object)]
#[oai(example)]
struct ConnectedServer {
    /// What is known of it.
    server: Server,
    /// What connects it. `GET /jobs/{id}/events` follows its job.
    run: ServerRun,
    /// The public key that has to be in `~/.ssh/authorized_keys` of the machine's user. Where it was not yet, put it there and
    /// `POST /servers/{id}/retry`.
    public_key: String,
}

impl Example for ConnectedServer {
    fn example() -> Self {
        Self {
            server: Server::example(),
            run: ServerRun::example(),
            public_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0v8hBPnhsq4z3vSaDTc7kW1cbH7lN5y9ZGbM2CtPqM".to_owned(),
        }
    }
}

/// It is connected.
#[derive(ApiResponse)]
enum Connecting {
    /// A job connects it.
    #[oai(status = 202)]
    Connecting(
        Json<ConnectedServer>,
        /// Where the server is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/servers", tag = "Tag::Servers")]
impl ConnectedServers {
    /// Connect a machine that is there already
    ///
    /// Without Terraform and a cloud: a job gets in by SSH, only where the host key is the one that is given, and looks at the
    /// machine as at one that was made; then it is `ready`, and looked after in the same way. What is missing is installed where
    /// that is asked for. `problem` says why it is not ready; `POST /servers/{id}/retry` tries again, `DELETE /servers/{id}` only
    /// forgets it.
    ///
    /// Refused as `name_taken` when there is a server of that name, as `license_limit` when the license allows no more, as
    /// `license_state` when it is not in force.
    #[oai(path = "/connect", method = "post", operation_id = "connectServer")]
    async fn connect(
        &self,
        caller: May<ManageServers>,
        app: Data<&App>,
        once: Once,
        body: Body<NewConnection>,
    ) -> Result<Answered<Connecting>, Error> {
        let (organization, by, body) = (caller.organization(), caller.by(), body.0);
        let place = body.place()?;
        let labels = labels(body.labels.unwrap_or_default())?;
        let (name, install) = (body.name.to_string(), body.install.unwrap_or_default());
        let connect = once.run(&caller, organization, async |tx| {
            let key = ssh_key(tx, &app, body.ssh_key_id).await?;
            let known = keys::find(tx, key).await?.ok_or_else(|| Error::not_found(key).at("ssh_key_id"))?;
            let new = NewMachine { name: &name, place: &place, labels: &labels, install };
            let id = connected::insert(tx, &new, key).await.on_constraint("servers_name_key", || {
                Error::new(Code::NameTaken, "there is a server of this name; choose another").at("name")
            })?;
            let server = find(tx, id).await?;
            let run = asked(tx, &server, RunKind::Connect, by, None).await?;
            let server = Server::from(server);
            tx.audit().on(&id).called(&name).became(None, server.to_json().as_ref());
            let answer = ConnectedServer { server, run, public_key: known.public_key };
            Ok(Connecting::Connecting(Json(answer), format!("/servers/{id}")))
        });
        connect.await
    }
}
