use std::sync::Arc;

use chrono::Duration;
use gantry_jobs::Job as _;
use gantry_jobs::credentials::CheckCredential;
use gantry_jobs::servers::{LookAtServer, ProvisionServer, WatchServers};
use gantry_schema::audit::{Actor, Author};
use gantry_schema::credentials::accounts;
use gantry_schema::servers::watch::{self, COMPARED_EVERY};
use gantry_schema::servers::{Problem, RunKind, ServerState, queries as servers, runs};
use gantry_schema::{CloudCredentialId, JobTx as _, OrganizationId, RunId, ServerId, TenantTx};
use serde_json::json;

use super::tell_failed;
use crate::{Context, Done, Failure, Run};

/// What is asked for at once, of each.
const MOST: i64 = 1_000;

/// Where a look that was asked for came to nothing, another one is asked for.
const ASKED_AGAIN: Duration = Duration::minutes(5);

impl Run for WatchServers {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let due = watch::due(cx.ledger(), MOST).await?;
        for (organization, server) in &due.look {
            look(cx, *organization, *server).await?;
        }
        for (organization, server) in &due.compare {
            compare(cx, *organization, *server).await?;
        }
        let checked = accounts::due(cx.ledger(), MOST).await?;
        for (organization, credential) in &checked {
            check(cx, *organization, *credential).await?;
        }
        for (organization, run) in &due.stranded {
            end(cx, *organization, *run).await?;
        }
        let [looks, compared, ended] = [due.look.len(), due.compare.len(), due.stranded.len()];
        let checked = checked.len();
        let nothing = looks + compared + ended + checked == 0;
        Ok(if nothing {
            Done::Quietly
        } else {
            Done::With(json!({ "looks": looks, "compared": compared, "ended": ended, "checked": checked }))
        })
    }
}

pub(super) async fn begin(cx: &Context, organization: OrganizationId) -> Result<TenantTx, Failure> {
    if cx.is_stopped() {
        return Err(Failure::retry("stopped in between; what was done is done"));
    }
    Ok(cx.db().tenant(organization).await?.by(Arc::new(Author::new(Actor::system()))))
}

async fn look(cx: &Context, organization: OrganizationId, server: ServerId) -> Result<(), Failure> {
    let mut tx = begin(cx, organization).await?;
    let at = tx.now() + ASKED_AGAIN;
    if watch::put_off(&mut tx, server, at).await? {
        LookAtServer { server }.request().enqueue(&mut tx, &cx.by()).await?;
    }
    Ok(tx.commit().await?)
}

async fn compare(cx: &Context, organization: OrganizationId, id: ServerId) -> Result<(), Failure> {
    let mut tx = begin(cx, organization).await?;
    let at = tx.now() + COMPARED_EVERY;
    let found = servers::find(&mut tx, id).await?.filter(|server| server.state == ServerState::Ready);
    if watch::put_off_comparing(&mut tx, id, at).await?
        && let Some(server) = found
        && server.credential.is_some()
        && !runs::under_way(&mut tx, server.stack).await?
    {
        let run = runs::insert(&mut tx, server.stack, RunKind::Mend, "platform").await?;
        let job = ProvisionServer { run, stack: server.stack }.request().enqueue(&mut tx, &cx.by()).await?;
        runs::set_job(&mut tx, run, job.id).await?;
    }
    Ok(tx.commit().await?)
}

async fn check(cx: &Context, organization: OrganizationId, credential: CloudCredentialId) -> Result<(), Failure> {
    let mut tx = begin(cx, organization).await?;
    let at = tx.now() + accounts::CHECKED_EVERY;
    if accounts::put_off(&mut tx, credential, at).await? {
        CheckCredential { credential, region: None }.request().enqueue(&mut tx, &cx.by()).await?;
    }
    Ok(tx.commit().await?)
}

/// Ends a run whose job has ended without it: nobody goes on with it.
async fn end(cx: &Context, organization: OrganizationId, id: RunId) -> Result<(), Failure> {
    let mut tx = begin(cx, organization).await?;
    let Some(run) = runs::find(&mut tx, id).await? else { return Ok(()) };
    let said = match run.job {
        Some(job) => format!("its job ended before it did; GET /jobs/{job} says why"),
        None => "it has no job".to_owned(),
    };
    if runs::failed(&mut tx, id, Problem::GaveUp, &said).await?
        && run.kind.may_spoil(run.state)
        && let Some(server) = servers::find(&mut tx, run.server).await?
    {
        servers::failed(&mut tx, server.id, Problem::GaveUp, &said).await?;
        tell_failed(cx, &mut tx, &server, Problem::GaveUp, &said).await?;
    }
    Ok(tx.commit().await?)
}
