use std::collections::BTreeMap;
use std::time::Duration;

use gantry_jobs::servers::ProvisionServer;
use gantry_providers::clouds::{Template, sandbox};
use gantry_providers::ssh::{self, SshError};
use gantry_providers::terraform::Trouble;
use gantry_schema::credentials::Cloud;
use gantry_schema::licenses::{Limit, licensed};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::servers::plans::{self, Cost, Summary};
use gantry_schema::servers::queries::{self as servers, Check, Place as Where};
use gantry_schema::servers::{Problem, RunKind, RunState, ServerState, needs_approval, runs, watch};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, TenantTx, notices};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::time::Instant;

use super::setback::Setback;
use super::teller::Teller;
use super::work::{Place, Work, settle, summary};
use super::{checks, tell};
use crate::{Context, Done, Failure, Run};

/// How long a run waits before it asks again whether it is its turn.
const TURN: Duration = Duration::from_secs(2);

impl Run for ProvisionServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let work = match Work::take(cx, self.run, self.stack).await {
            Ok(Some(work)) => work,
            Ok(None) => return Ok(Done::Quietly),
            Err(Setback::Failure(failure)) => return Err(failure),
            Err(Setback::Problem(problem, said)) => {
                return Err(Failure::cancel(format!("{}: {said}", problem.as_str())));
            }
        };
        let teller = Teller::start(cx);
        let done = match provision(cx, &work, &teller).await {
            Ok(done) => Ok(done),
            Err(setback) => settle(cx, &work, &teller, setback).await.and_then(Err),
        };
        teller.end().await;
        done
    }
}

async fn provision(cx: &Context, work: &Work, teller: &Teller) -> Result<Done, Setback> {
    let template = work.template(cx)?;
    let place = work.place(cx, &template).await?;
    place.workspace.init(teller.events(), cx.stopped()).await?;
    let begun = match work.run.state {
        RunState::Approved => false,
        RunState::Applying | RunState::Verifying => true,
        _ => {
            if let Some(done) = plan(cx, work, &template, &place, teller).await? {
                return Ok(done);
            }
            false
        }
    };
    if work.run.state != RunState::Verifying {
        teller.stage("applying");
        if let Err(setback) = apply(cx, work, &place, teller, begun).await {
            return Err(undone(cx, work, &place, teller, setback).await);
        }
    }
    verify(cx, work, &template, &place, teller).await
}

/// Works out what there is to do. Answers the end of the job, where somebody has to say first that it may be done.
async fn plan(
    cx: &Context,
    work: &Work,
    template: &Template,
    place: &Place,
    teller: &Teller,
) -> Result<Option<Done>, Setback> {
    let mut tx = cx.begin().await?;
    wait_for_room(cx, &mut tx, work).await?;
    teller.stage("planning");
    if !runs::advance(&mut tx, work.run.id, RunState::Planning).await? {
        return Ok(Some(cx.complete(tx).await?));
    }
    tx.commit().await?;
    let planned = place.workspace.plan(false, teller.events(), cx.stopped()).await?;
    let summary = summary(&planned);
    let mut tx = cx.begin().await?;
    let cost = Cost { monthly: template.monthly_cost, currency: template.currency };
    plans::keep(&mut tx, cx.sealing_keys(), work.run.id, &planned.bytes, &summary, cost).await?;
    servers::set_cost(&mut tx, work.server.id, cost.monthly, cost.currency).await?;
    if work.run.kind == RunKind::Mend {
        return compared(cx, tx, work, &summary).await.map(Some);
    }
    let unapproved = settings::get(&mut tx, Setting::ServersUnapprovedCost).await?.value.as_i64();
    if needs_approval(cost.monthly, unapproved) {
        teller.say(format!("it waits for an approval: {} {} a month", cost.monthly, cost.currency));
        if runs::advance(&mut tx, work.run.id, RunState::AwaitingApproval).await? {
            servers::set_state(&mut tx, work.server.id, ServerState::AwaitingApproval).await?;
        }
        let result = json!({ "run": work.run.id, "state": RunState::AwaitingApproval.as_str() });
        return Ok(Some(cx.complete_with(tx, &result).await?));
    }
    tx.commit().await?;
    Ok(None)
}

/// Only so many servers are made at once as the license allows; others wait for their turn.
async fn wait_for_room(cx: &Context, tx: &mut TenantTx, work: &Work) -> Result<(), Failure> {
    let anchors = cx.trust().anchors(cx.db()).await?;
    let Some(license) = licensed(tx, &anchors).await? else { return Ok(()) };
    let evaluation = license.evaluate(tx.now(), None, &BTreeMap::new());
    let most = evaluation.limits.get(Limit::ConcurrentProvisioning.as_str()).copied().flatten();
    match most {
        Some(most) if !runs::has_room(tx, work.run.id, most).await? => {
            let why = format!("the license lets {most} servers be made at once, and as many are");
            Err(Failure::Snooze(TURN, why))
        }
        _ => Ok(()),
    }
}

/// Says what differs. Somebody has to say that it is put right.
async fn compared(cx: &Context, mut tx: TenantTx, work: &Work, summary: &Summary) -> Result<Done, Setback> {
    let (server, run) = (&work.server, work.run.id);
    let differs = !summary.changes.is_empty();
    watch::compared(&mut tx, server.id, differs.then_some(summary)).await?;
    if !differs {
        notices::settle(&mut tx, &[PlatformEvent::ServerDrifted], &server.id.to_string()).await?;
        runs::advance(&mut tx, run, RunState::Succeeded).await?;
        return Ok(cx.complete(tx).await?);
    }
    if runs::advance(&mut tx, run, RunState::AwaitingApproval).await? {
        let changes: Vec<String> =
            summary.changes.iter().map(|change| format!("{} {}", change.action, change.address)).collect();
        let facts = json!({ "server_id": server.id, "name": server.name, "run_id": run, "changes": changes });
        notices::write(&mut tx, PlatformEvent::ServerDrifted, &server.id.to_string(), &facts).await?;
        let more = json!({ "run_id": run, "changes": changes });
        tell(cx, &mut tx, PlatformEvent::ServerDrifted, server, more).await?;
    }
    let result = json!({ "run": run, "state": RunState::AwaitingApproval.as_str() });
    Ok(cx.complete_with(tx, &result).await?)
}

/// Carries out what was planned. Where that was begun before, what is left of it is worked out anew, and carried out if it is
/// nothing else.
async fn apply(cx: &Context, work: &Work, place: &Place, teller: &Teller, begun: bool) -> Result<(), Setback> {
    let mut tx = cx.begin().await?;
    wait_for_room(cx, &mut tx, work).await?;
    if !runs::advance(&mut tx, work.run.id, RunState::Applying).await? {
        return Err(Failure::cancel("the run was cancelled").into());
    }
    servers::set_state(&mut tx, work.server.id, ServerState::Provisioning).await?;
    let approved = runs::find(&mut tx, work.run.id).await?.and_then(|run| run.plan).unwrap_or_default();
    let bytes = plans::open(&mut tx, cx.sealing_keys(), work.run.id).await?;
    tx.commit().await?;
    let bytes = bytes.ok_or_else(|| Failure::cancel("what was planned is gone"))?;
    if begun {
        return carry_on(cx, place, teller, &approved).await;
    }
    match place.workspace.apply(&bytes, teller.events(), cx.stopped()).await {
        Err(Trouble::Failed { said, .. }) if said.contains("Saved plan is stale") => {
            carry_on(cx, place, teller, &approved).await
        }
        applied => Ok(applied?),
    }
}

async fn carry_on(cx: &Context, place: &Place, teller: &Teller, approved: &Summary) -> Result<(), Setback> {
    teller.say("it was begun before: what is left is worked out anew");
    let planned = place.workspace.plan(false, teller.events(), cx.stopped()).await?;
    let rest = summary(&planned);
    if !rest.is_rest_of(approved) {
        let said = "what is left to do is something else than what was planned; ask for the server again".to_owned();
        return Err(Setback::Problem(Problem::PlanFailed, said));
    }
    if rest.changes.is_empty() {
        return Ok(());
    }
    Ok(place.workspace.apply(&planned.bytes, teller.events(), cx.stopped()).await?)
}

/// Removes what was half made. Answers why it is not all made.
async fn undone(cx: &Context, work: &Work, place: &Place, teller: &Teller, setback: Setback) -> Setback {
    let Setback::Problem(problem, said) = setback else { return setback };
    // Whoever uses it does not lose it because something about it could not be changed.
    if work.server.ready_at.is_some() {
        return Setback::Problem(problem, said);
    }
    if cx.is_stopped() {
        // Whoever goes on comes to the same, and removes it.
        return Setback::Failure(Failure::retry(said));
    }
    teller.stage("removing what was half made");
    let removed = async {
        let planned = place.workspace.plan(true, teller.events(), cx.stopped()).await?;
        place.workspace.apply(&planned.bytes, teller.events(), cx.stopped()).await?;
        left(cx, work, teller)
    };
    match removed.await {
        Ok(()) => Setback::Problem(problem, said),
        Err(Setback::Failure(failure)) => Setback::Failure(failure),
        Err(Setback::Problem(_, why)) => {
            Setback::Problem(problem, format!("{said}; and what was made could not all be removed: {why}"))
        }
    }
}

/// Removes what Terraform has lost sight of.
pub(super) fn left(cx: &Context, work: &Work, teller: &Teller) -> Result<(), Setback> {
    if work.server.cloud == Cloud::Sandbox {
        let cleared = sandbox::clear_away(&cx.providers().terraform, &work.label()).map_err(Failure::retry)?;
        for what in cleared {
            teller.say(format!("{what} was left over, and is removed"));
        }
    }
    Ok(())
}

/// Looks at what was made.
async fn verify(
    cx: &Context,
    work: &Work,
    template: &Template,
    place: &Place,
    teller: &Teller,
) -> Result<Done, Setback> {
    teller.stage("verifying");
    let mut outputs = place.workspace.outputs().await?;
    let mut output = |name: &str| outputs.remove(name).unwrap_or_default();
    let at = Where {
        address: output("address"),
        port: output("port").parse().unwrap_or_default(),
        username: output("user"),
        host_key: output("host_key"),
    };
    if at.address.is_empty() || at.port == 0 || at.username.is_empty() || at.host_key.is_empty() {
        let said = "what was made does not say where it is reached".to_owned();
        return Err(Setback::Problem(Problem::ApplyFailed, said));
    }
    let mut tx = cx.begin().await?;
    servers::set_place(&mut tx, work.server.id, &at).await?;
    runs::advance(&mut tx, work.run.id, RunState::Verifying).await?;
    tx.commit().await?;
    let begun = Instant::now();
    let found = look(cx, work, template, &at).await?;
    let by_ssh = begun.elapsed();
    let wrong: Vec<&Check> = found.iter().filter(|check| !check.passed).collect();
    let mut tx = cx.begin().await?;
    servers::checked(&mut tx, work.server.id, &found, wrong.is_empty()).await?;
    if !wrong.is_empty() {
        tx.commit().await?;
        let said: Vec<String> = wrong.iter().map(|check| format!("{}: {}", check.name, check.found)).collect();
        return Err(Setback::Problem(Problem::ChecksFailed, said.join("; ")));
    }
    runs::advance(&mut tx, work.run.id, RunState::Succeeded).await?;
    tx.record("server.ready").on(&work.server.id).called(&work.server.name);
    let said = [PlatformEvent::ServerDrifted, PlatformEvent::ServerUnreachable];
    notices::settle(&mut tx, &said, &work.server.id.to_string()).await?;
    let more = json!({ "address": at.address, "port": at.port });
    tell(cx, &mut tx, PlatformEvent::ServerReady, &work.server, more).await?;
    teller.say("ready");
    let result = json!({ "server": work.server.id, "address": at.address, "port": at.port,
                         "seconds_in_terraform": place.workspace.spent().as_secs_f64(),
                         "seconds_by_ssh": by_ssh.as_secs_f64() });
    Ok(cx.complete_with(tx, &result).await?)
}

/// Gets in as soon as it lets us, and asks.
async fn look(cx: &Context, work: &Work, template: &Template, at: &Where) -> Result<Vec<Check>, Setback> {
    let place = ssh::Place { address: &at.address, port: at.port, username: &at.username, host_key: &at.host_key };
    let end = Instant::now() + template.patience;
    let mut wait = Duration::from_millis(100);
    loop {
        let looked = async {
            let session = ssh::connect(place, work.ssh_key.seed.expose_secret(), Duration::from_secs(15)).await?;
            let said = session.run(checks::ASK, 64 * 1024, Duration::from_secs(30)).await?;
            session.leave().await;
            Ok::<_, SshError>(said)
        };
        let error = match looked.await {
            Ok(said) => return Ok(checks::judge(&said.text, template.needs_docker, cx.now())),
            Err(error) => error,
        };
        if !error.may_pass() || Instant::now() + wait >= end {
            let problem = match &error {
                SshError::HostKey { .. } => Problem::HostKeyMismatch,
                SshError::Refused(_) => Problem::SshRefused,
                SshError::Unreachable { .. } | SshError::Key(_) | SshError::Command(_) => Problem::SshUnreachable,
            };
            return Err(Setback::Problem(problem, error.to_string()));
        }
        tokio::select! {
            () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
        }
    }
}
