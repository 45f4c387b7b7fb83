//! Making servers, looking after them and removing them. What is said and done for every run is in [`work`]; each kind is a
//! file.

mod checks;
pub(crate) mod clouds;
mod connect;
mod destroy;
mod estimate;
mod install;
mod look;
mod orphans;
mod provision;
mod reach;
mod registration;
pub(crate) mod setback;
mod store;
mod teller;
mod update;
mod watch;
mod work;

use gantry_jobs::webhooks;
use gantry_schema::TenantTx;
use gantry_schema::servers::Problem;
use gantry_schema::servers::queries::Server;
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::{Value, json};

use crate::{Context, Failure};

/// Tells programs what became of a server; `more` is what the event has besides which one it is.
async fn tell(
    cx: &Context,
    tx: &mut TenantTx,
    event: PlatformEvent,
    server: &Server,
    mut more: Value,
) -> Result<(), Failure> {
    more["server_id"] = json!(server.id);
    more["name"] = json!(server.name);
    webhooks::emit(tx, event.name(), more, &cx.by()).await?;
    Ok(())
}

/// Tells programs why a server came to nothing.
async fn tell_failed(
    cx: &Context,
    tx: &mut TenantTx,
    server: &Server,
    problem: Problem,
    said: &str,
) -> Result<(), Failure> {
    let more = json!({ "code": problem.as_str(), "detail": said, "remedy": problem.remedy() });
    tell(cx, tx, PlatformEvent::ServerFailed, server, more).await
}
