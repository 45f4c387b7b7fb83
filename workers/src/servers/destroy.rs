use gantry_jobs::servers::DestroyServer;
use gantry_schema::notices;
use gantry_schema::servers::plans::{self, Cost};
use gantry_schema::servers::queries as servers;
use gantry_schema::servers::{Problem, RunState, ServerKind, ServerState, runs};
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::json;

use super::connect;
use super::provision::left;
use super::setback::Setback;
use super::tell;
use super::teller::Teller;
use super::work::{Work, settle, summary};
use crate::{Context, Done, Failure, Run};

impl Run for DestroyServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let work = match Work::take(cx, self.run, self.stack).await {
            Ok(Some(work)) => work,
            Ok(None) => return Ok(Done::Quietly),
            Err(setback) => return Err(setback.into_failure(cx.is_last_attempt())),
        };
        let teller = Teller::start(cx);
        let done = match destroy(cx, &work, &teller).await {
            Ok(done) => Ok(done),
            Err(Setback::Problem(Problem::ApplyFailed, said)) => {
                settle(cx, &work, &teller, Setback::Problem(Problem::DestroyFailed, said)).await.and_then(Err)
            }
            Err(setback) => settle(cx, &work, &teller, setback).await.and_then(Err),
        };
        teller.end().await;
        done
    }
}

async fn destroy(cx: &Context, work: &Work, teller: &Teller) -> Result<Done, Setback> {
    if work.server.kind == ServerKind::Connected {
        return connect::forget(cx, work, teller).await;
    }
    teller.stage("destroying");
    let mut tx = cx.begin().await?;
    runs::cancel_others(&mut tx, work.run.stack, work.run.id).await?;
    runs::advance(&mut tx, work.run.id, RunState::Applying).await?;
    servers::set_state(&mut tx, work.server.id, ServerState::Destroying).await?;
    tx.commit().await?;
    // What could not be asked for was not made.
    let template = match work.template(cx).await {
        Ok(template) => template,
        Err(Setback::Problem(..)) => work.nothing(),
        Err(setback) => return Err(setback),
    };
    let place = work.place(cx, teller, &template).await?;
    place.init(cx, &template, teller).await?;
    let planned = place.workspace.plan(true, teller.events(), cx.stopped()).await?;
    let cost = Cost { monthly: 0, currency: template.currency };
    let mut tx = cx.begin().await?;
    plans::keep(&mut tx, cx.sealing_keys(), work.run.id, &planned.bytes, &summary(&planned), cost).await?;
    plans::keep_text(&mut tx, cx.sealing_keys(), work.run.id, &planned.text).await?;
    tx.commit().await?;
    place.workspace.apply(&planned.bytes, teller.events(), cx.stopped()).await?;
    left(cx, work, teller).await?;
    let mut tx = cx.begin().await?;
    servers::destroyed(&mut tx, work.server.id).await?;
    runs::advance(&mut tx, work.run.id, RunState::Succeeded).await?;
    tx.record("server.destroyed").on(&work.server.id).called(&work.server.name);
    let said = [PlatformEvent::ServerDrifted, PlatformEvent::ServerUnreachable];
    notices::settle(&mut tx, &said, &work.server.id.to_string()).await?;
    tell(cx, &mut tx, PlatformEvent::ServerDestroyed, &work.server, json!({})).await?;
    let result = json!({ "server": work.server.id, "state": ServerState::Destroyed.as_str() });
    Ok(cx.complete_with(tx, &result).await?)
}
