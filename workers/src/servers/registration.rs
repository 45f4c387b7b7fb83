//! What comes of a look at a server that was made or connected: it is ready, or what is wrong with it.

use gantry_schema::notices;
use gantry_schema::servers::queries::{self as servers, Check, Place};
use gantry_schema::servers::{Problem, RunState, runs};
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::{Value, json};

use super::setback::Setback;
use super::tell;
use super::teller::Teller;
use super::work::Work;
use crate::{Context, Done};

/// Writes down what was found. Only where all of it is as it has to be is the server ready, and the job ends with `result`.
pub(super) async fn register(
    cx: &Context,
    work: &Work,
    teller: &Teller,
    at: &Place,
    found: &[Check],
    result: &Value,
) -> Result<Done, Setback> {
    // What could not be installed and is there all the same is no problem.
    let wrong: Vec<&Check> = found.iter().filter(|check| !check.passed && check.name != "install").collect();
    let mut tx = cx.begin().await?;
    servers::checked(&mut tx, work.server.id, found, wrong.is_empty()).await?;
    if !wrong.is_empty() {
        tx.commit().await?;
        let said: Vec<String> = found
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.found))
            .collect();
        return Err(Setback::Problem(Problem::ChecksFailed, said.join("; ")));
    }
    runs::advance(&mut tx, work.run.id, RunState::Succeeded).await?;
    tx.record("server.ready").on(&work.server.id).called(&work.server.name);
    let said = [PlatformEvent::ServerDrifted, PlatformEvent::ServerUnreachable];
    notices::settle(&mut tx, &said, &work.server.id.to_string()).await?;
    let more = json!({ "address": at.address, "port": at.port });
    tell(cx, &mut tx, PlatformEvent::ServerReady, &work.server, more).await?;
    teller.say("ready");
    Ok(cx.complete_with(tx, result).await?)
}
