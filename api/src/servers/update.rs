//! Changing a server that is there.

use std::collections::BTreeMap;

use gantry_schema::ServerId;
use gantry_schema::organizations::needed::ManageServers;
use gantry_schema::servers::change::Wanted;
use gantry_schema::servers::queries as rows;
use gantry_schema::servers::{self, RunKind};
use poem_openapi::param::Path;
use poem_openapi::types::ToJSON as _;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use super::offered::{self, CloudWord};
use super::options::ServerOptionsChange;
use super::{Begun, Server, asked, find, labels, made_here, not_under_way};
use crate::body::Body;
use crate::caller::May;
use crate::conditional::IfMatch;
use crate::error::{Code, Error};
use crate::example::example;
use crate::once::{Answered, Once};
use crate::tag::Tag;

/// The operations that change servers.
#[derive(Debug, Clone, Copy)]
pub struct ServerChanges;

/// What a server is to be like; what is left out stays as it is.
#[derive(Debug, Default, Object, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[oai(deny_unknown_fields, example)]
struct ServerChange {
    /// How large it is. Where another machine has to take its place for that, somebody has to approve it.
    size: Option<CloudWord>,
    /// The organization's own words for it, all of them: up to 20, each with up to 40 characters and a text of up to 100.
    labels: Option<BTreeMap<String, String>>,
    /// What else is wanted of it.
    options: Option<ServerOptionsChange>,
}

example!(ServerChange, { "size": "medium", "labels": { "team": "shop" }, "options": { "ssh_sources": ["203.0.113.0/24"] } });

#[OpenApi(prefix_path = "/servers", tag = "Tag::Servers")]
impl ServerChanges {
    /// Change a server
    ///
    /// What is left out stays as it is. A job plans it with Terraform, carries it out, and looks at the server. Where the server or a
    /// volume is removed or replaced for it, the run waits to be approved, whatever that costs, and its plan says so; else where it
    /// costs more than now and more than the setting `servers.unapproved_cost`. A server is never removed because it could not be
    /// changed.
    ///
    /// The `ETag` of a server says nothing of when the platform was last in: `If-Match` refuses only what really was changed.
    ///
    /// Refused as `wrong_state` when it is not ready, or something is being done with it; as `not_made_here` when it was connected.
    #[oai(path = "/:server", method = "patch", operation_id = "updateServer")]
    async fn update(
        &self,
        caller: May<ManageServers>,
        once: Once,
        if_match: IfMatch,
        /// The server.
        server: Path<ServerId>,
        body: Body<ServerChange>,
    ) -> Result<Answered<Begun>, Error> {
        let (organization, id, by) = (caller.organization(), server.0, caller.by());
        let ServerChange { size, labels: new_labels, options } = body.0;
        let new_labels = new_labels.map(labels).transpose()?;
        let update = once.run(&caller, organization, async |tx| {
            rows::lock(tx, id).await?;
            let server = find(tx, id).await?;
            let before = Server::from(server.clone());
            if_match.check_tag(&before.etag())?;
            made_here(&server, "nobody planned it, and there is nothing to change about it")?;
            if server.state != servers::ServerState::Ready {
                return Err(Error::new(Code::WrongState, "it is not ready; wait until it is"));
            }
            if size.is_some() && server.module.is_some() {
                return Err(Error::field("size", "its module says so; leave it out"));
            }
            not_under_way(tx, &server).await?;
            let kept = server.options.clone();
            let wanted = Wanted {
                size: size.as_ref().map_or(server.size.clone(), ToString::to_string),
                labels: new_labels.clone().unwrap_or_else(|| server.labels.clone()),
                options: options.map_or(Ok(kept.clone()), |change| change.of(kept))?,
            };
            if let Some(credential) = server.credential {
                let offered =
                    offered::Wanted { region: &server.region, size: size.as_ref().map(CloudWord::as_str), image: None };
                offered::check(tx, credential, offered).await?;
            }
            let run = asked(tx, &server, RunKind::Update, by, Some(&wanted)).await?;
            let after = rows::Server { size: wanted.size, labels: wanted.labels, options: wanted.options, ..server };
            tx.audit().called(&before.name).became(before.to_json().as_ref(), Server::from(after).to_json().as_ref());
            Ok(Begun::Begun(poem_openapi::payload::Json(run)))
        });
        update.await
    }
}
