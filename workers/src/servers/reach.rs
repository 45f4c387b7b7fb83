//! Getting into servers: those that were made where the cloud says they are, and those that were connected where the guard
//! lets the platform look.

use std::time::Duration;

use gantry_providers::ssh::{self, Session, SshError};
use gantry_schema::servers::ServerKind;
use gantry_schema::servers::keys::SshKey;
use gantry_schema::servers::queries::{Check, Place, Server};
use secrecy::ExposeSecret as _;

use super::checks;
use crate::Context;

/// How long getting in may take.
const WITHIN: Duration = Duration::from_secs(15);

/// Gets in.
pub(super) async fn enter(cx: &Context, server: &Server, at: &Place, key: &SshKey) -> Result<Session, SshError> {
    let place = ssh::Place { address: &at.address, port: at.port, username: &at.username, host_key: &at.host_key };
    let seed = key.seed.expose_secret();
    match server.kind {
        ServerKind::Made => ssh::connect(place, seed, WITHIN).await,
        ServerKind::Connected => cx.providers().machines.connect(place, seed, WITHIN).await,
    }
}

/// What a server says of itself, judged.
pub(super) async fn ask(
    cx: &Context,
    server: &Server,
    at: &Place,
    key: &SshKey,
    needs_docker: bool,
) -> Result<Vec<Check>, SshError> {
    let session = enter(cx, server, at, key).await?;
    let said = session.run(checks::ASK, 64 * 1024, Duration::from_secs(30)).await?;
    session.leave().await;
    Ok(checks::judge(&said.text, needs_docker, cx.now()))
}
