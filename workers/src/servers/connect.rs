use std::time::Duration;

use gantry_jobs::servers::ConnectServer;
use gantry_providers::ssh::SshError;
use gantry_schema::notices;
use gantry_schema::servers::queries::{self as servers, Check, Place};
use gantry_schema::servers::{RunState, ServerState, runs};
use gantry_schema::webhooks::event_types::PlatformEvent;
use serde_json::json;
use tokio::time::Instant;

use super::setback::Setback;
use super::teller::Teller;
use super::work::{Work, settle};
use super::{install, reach, registration, tell};
use crate::{Context, Done, Failure, Run};

/// How often a machine that does not answer is tried: it is there already, and one connection may be lost on the way.
const TRIES: u32 = 3;

impl Run for ConnectServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let work = match Work::take(cx, self.run, self.stack).await {
            Ok(Some(work)) => work,
            Ok(None) => return Ok(Done::Quietly),
            Err(Setback::Failure(failure)) => return Err(failure),
            Err(Setback::Problem(problem, said) | Setback::Passing(problem, said, _)) => {
                return Err(Failure::cancel(format!("{}: {said}", problem.as_str())));
            }
        };
        let teller = Teller::start(cx);
        let done = match connect(cx, &work, &teller).await {
            Ok(done) => Ok(done),
            Err(setback) => settle(cx, &work, &teller, setback).await.and_then(Err),
        };
        teller.end().await;
        done
    }
}

async fn connect(cx: &Context, work: &Work, teller: &Teller) -> Result<Done, Setback> {
    teller.stage("connecting");
    let mut tx = cx.begin().await?;
    if !runs::advance(&mut tx, work.run.id, RunState::Verifying).await? {
        return Ok(cx.complete(tx).await?);
    }
    tx.commit().await?;
    let at = work.server.place.as_ref().ok_or_else(|| Failure::cancel("the machine has no address"))?;
    let begun = Instant::now();
    let mut found = asked(cx, work, at).await?;
    if work.server.install && install::is_needed(&found) {
        found = install::docker(cx, work, teller, at).await?;
    }
    let result = json!({ "server": work.server.id, "address": at.address, "port": at.port,
                         "seconds_by_ssh": begun.elapsed().as_secs_f64() });
    registration::register(cx, work, teller, at, &found, &result).await
}

/// What the machine says of itself. Whoever shows another key, or lets nobody in, is not asked again: too many who try to get
/// in are shut out by many machines.
async fn asked(cx: &Context, work: &Work, at: &Place) -> Result<Vec<Check>, Setback> {
    let mut tries = 0;
    loop {
        tries += 1;
        let asking = reach::ask(cx, &work.server, at, &work.ssh_key, true);
        let error = tokio::select! {
            asked = asking => match asked {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
            () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
        };
        let may_pass = matches!(error, SshError::Unreachable { .. } | SshError::Command(_));
        if !may_pass || tries == TRIES {
            return Err(error.into());
        }
        tokio::select! {
            () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
            () = tokio::time::sleep(Duration::from_secs(u64::from(tries))) => {}
        }
    }
}

/// A machine that was connected is looked after no more. It is not contacted, and nothing on it is changed.
pub(super) async fn forget(cx: &Context, work: &Work, teller: &Teller) -> Result<Done, Setback> {
    teller.stage("forgetting");
    let mut tx = cx.begin().await?;
    runs::cancel_others(&mut tx, work.run.stack, work.run.id).await?;
    servers::destroyed(&mut tx, work.server.id).await?;
    runs::advance(&mut tx, work.run.id, RunState::Succeeded).await?;
    tx.record("server.forgotten").on(&work.server.id).called(&work.server.name);
    notices::settle(&mut tx, &[PlatformEvent::ServerUnreachable], &work.server.id.to_string()).await?;
    tell(cx, &mut tx, PlatformEvent::ServerDestroyed, &work.server, json!({})).await?;
    let said = "nothing on the machine was changed; the platform's public key is still in its authorized_keys";
    teller.say(said);
    let result = json!({ "server": work.server.id, "state": ServerState::Destroyed.as_str(), "detail": said });
    Ok(cx.complete_with(tx, &result).await?)
}
