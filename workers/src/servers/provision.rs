use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_jobs::servers::ProvisionServer;
use gantry_providers::clouds::account::Thing;
use gantry_providers::clouds::{Account, Template, cloud_init, sandbox};
use gantry_providers::ssh::{Session, SshError};
use gantry_providers::terraform::Trouble;
use gantry_schema::credentials::Cloud;
use gantry_schema::licenses::{Limit, licensed};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::servers::plans::{self, Cost, Summary};
use gantry_schema::servers::queries::{self as servers, Check, Place as Where};
use gantry_schema::servers::state::resources;
use gantry_schema::servers::{OnFailure, Problem, RunKind, RunState, ServerState, needs_approval, runs, states, watch};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, TenantTx, notices};
use serde_json::json;
use tokio::time::Instant;

use super::setback::Setback;
use super::teller::Teller;
use super::work::{Place, Work, settle, summary};
use super::{install, reach, registration, tell, update};
use crate::modules::{judge_place, judge_plan};
use crate::{Context, Done, Failure, Run};

/// How long a run waits before it asks again whether it is its turn.
const TURN: Duration = Duration::from_secs(2);

impl Run for ProvisionServer {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let work = match Work::take(cx, self.run, self.stack).await {
            Ok(Some(work)) => work,
            Ok(None) => return Ok(Done::Quietly),
            Err(setback) => return Err(setback.into_failure(cx.is_last_attempt())),
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
    let template = work.template(cx).await?;
    let place = work.place(cx, teller, &template).await?;
    place.init(cx, &template, teller).await?;
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
    if template.module.is_some() {
        judge_plan(&planned)?;
    }
    let summary = summary(&planned);
    let mut tx = cx.begin().await?;
    let known = Cost { monthly: template.monthly_cost, currency: template.currency };
    let cost = template.module.is_none().then_some(known);
    plans::keep(&mut tx, cx.sealing_keys(), work.run.id, &planned.bytes, &summary, cost).await?;
    plans::keep_text(&mut tx, cx.sealing_keys(), work.run.id, &planned.text).await?;
    match work.run.kind {
        RunKind::Mend => return compared(cx, tx, work, &summary).await.map(Some),
        RunKind::Update if summary.changes.is_empty() => return update::noted(cx, tx, work, cost).await.map(Some),
        // What it costs as long as it is not changed stays what it is.
        RunKind::Update => {}
        _ => servers::set_cost(&mut tx, work.server.id, cost).await?,
    }
    if let Some(why) = waits(&mut tx, work, &summary, cost).await? {
        teller.say(format!("it waits for an approval: {why}"));
        // What is there goes on as it is.
        if runs::advance(&mut tx, work.run.id, RunState::AwaitingApproval).await? && work.run.kind != RunKind::Update {
            servers::set_state(&mut tx, work.server.id, ServerState::AwaitingApproval).await?;
        }
        let result = json!({ "run": work.run.id, "state": RunState::AwaitingApproval.as_str() });
        return Ok(Some(cx.complete_with(tx, &result).await?));
    }
    tx.commit().await?;
    Ok(None)
}

/// Why somebody has to say first that it may be done; `None`: nobody has to.
async fn waits(
    tx: &mut TenantTx,
    work: &Work,
    plan: &Summary,
    cost: Option<Cost<'_>>,
) -> Result<Option<String>, sqlx::Error> {
    let is_update = work.run.kind == RunKind::Update;
    if let Some(lost) = update::loses(plan).filter(|_| is_update) {
        return Ok(Some(lost.to_owned()));
    }
    let Some(Cost { monthly, currency }) = cost else {
        let unapproved = settings::get(tx, Setting::ServersUnapprovedModules).await?.value.as_bool();
        return Ok((unapproved != Some(true)).then(|| "nobody knows what a module makes costs".to_owned()));
    };
    let unapproved = settings::get(tx, Setting::ServersUnapprovedCost).await?.value.as_i64();
    let costs_more = !is_update || work.server.monthly_cost.is_none_or(|now| monthly > now);
    Ok((costs_more && needs_approval(monthly, unapproved)).then(|| format!("{monthly} {currency} a month")))
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
    let planned = runs::find(&mut tx, work.run.id).await?;
    if let Some(run) = planned.as_ref().filter(|run| run.kind == RunKind::Update) {
        update::begun(&mut tx, run).await?;
    }
    let approved = planned.and_then(|run| run.plan).unwrap_or_default();
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
    let setback = setback.weighed(cx.is_last_attempt());
    let Setback::Problem(problem, said) = setback else { return setback };
    // Whoever uses it does not lose it because something about it could not be changed.
    if work.server.ready_at.is_some() {
        return Setback::Problem(problem, said);
    }
    if work.server.on_failure == OnFailure::Keep {
        return match kept(cx, work).await {
            Ok(what) => Setback::Problem(problem, format!("{said}; {what}")),
            Err(setback) => setback,
        };
    }
    if cx.is_stopped() {
        // Whoever goes on comes to the same, and removes it.
        return Setback::Failure(Failure::retry(said));
    }
    teller.stage("removing what was half made");
    let removed = async {
        let planned = place.workspace.plan(true, teller.events(), cx.stopped()).await?;
        place.workspace.apply(&planned.bytes, teller.events(), cx.stopped()).await?;
        left(cx, work, teller).await
    };
    match removed.await.map_err(|setback| setback.weighed(cx.is_last_attempt())) {
        Ok(()) => Setback::Problem(problem, said),
        Err(Setback::Failure(failure)) => Setback::Failure(failure),
        Err(Setback::Problem(_, why) | Setback::Passing(_, why, _)) => {
            Setback::Problem(problem, format!("{said}; and what was made could not all be removed: {why}"))
        }
    }
}

/// What there is of what was half made, by the state that Terraform wrote.
async fn kept(cx: &Context, work: &Work) -> Result<String, Setback> {
    let mut tx = cx.begin().await?;
    let state = states::current(&mut tx, cx.sealing_keys(), work.run.stack).await.map_err(Failure::retry)?;
    tx.commit().await?;
    let there = state.map(|state| resources(&state)).unwrap_or_default();
    Ok(if there.is_empty() {
        "nothing was made by then".to_owned()
    } else {
        format!("what was made by then is kept: {}", there.join(", "))
    })
}

/// Rounds in which what Terraform has lost sight of is removed: one thing may hold another for a while.
const ROUNDS: u32 = 10;

/// Removes what Terraform has lost sight of, going by the cloud's own list.
pub(super) async fn left(cx: &Context, work: &Work, teller: &Teller) -> Result<(), Setback> {
    if work.server.cloud == Some(Cloud::Sandbox) {
        let cleared = sandbox::clear_away(&cx.providers().terraform, &work.label()).map_err(Failure::retry)?;
        for what in cleared {
            teller.say(format!("{what} was left over, and is removed"));
        }
        return Ok(());
    }
    let (_, account) = work.account(cx)?;
    clear(cx, &*account, &work.server.region, &work.label(), |_| true, teller).await
}

/// Removes what carries the label of a server, as far as it is wanted, going by the cloud's own list.
pub(super) async fn clear(
    cx: &Context,
    account: &dyn Account,
    region: &str,
    label: &str,
    is_wanted: impl Fn(&Thing) -> bool + Send + Sync,
    teller: &Teller,
) -> Result<(), Setback> {
    let mut told = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut things = account.tagged(region, label).await?;
        things.retain(&is_wanted);
        if things.is_empty() {
            return Ok(());
        }
        for thing in &things {
            if told.insert(thing.to_string()) {
                teller.say(format!("{thing} was left over, and is removed"));
            }
            match account.remove(thing).await {
                Ok(_) => {}
                // Something else holds it still.
                Err(error) if error.is_transient() => teller.say(format!("{thing} cannot be removed yet: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        tokio::select! {
            () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
            () = tokio::time::sleep(Duration::from_secs(u64::from(round) * 2)) => {}
        }
    }
    Err(Failure::retry(format!("{} things of it are left at the cloud", told.len())).into())
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
    let mut at = Where {
        address: output("address"),
        port: output("port").parse().unwrap_or_default(),
        username: output("user"),
        host_key: output("host_key"),
    };
    if at.address.is_empty() || at.port == 0 || at.username.is_empty() || at.host_key.is_empty() {
        let said = "what was made does not say where it is reached".to_owned();
        return Err(Setback::Problem(Problem::ApplyFailed, said));
    }
    let mut first = None;
    if template.module.is_some() {
        judge_place(cx, work.server.cloud, &at.address)?;
    }
    if template.first_key {
        let makes = |plan: &Summary| plan.add > 0;
        let is_new = work.server.ready_at.is_none() || work.run.plan.as_ref().is_some_and(makes);
        let host_key = at.host_key.clone();
        if let Some(known) = &work.server.place {
            at.host_key.clone_from(&known.host_key);
        }
        first = Some(FirstKey { host_key, is_new });
    }
    let mut tx = cx.begin().await?;
    servers::set_place(&mut tx, work.server.id, &at).await?;
    runs::advance(&mut tx, work.run.id, RunState::Verifying).await?;
    tx.commit().await?;
    let begun = Instant::now();
    let found = look(cx, work, teller, template, &mut at, first).await?;
    let result = json!({ "server": work.server.id, "address": at.address, "port": at.port,
                         "seconds_in_terraform": place.workspace.spent().as_secs_f64(),
                         "seconds_by_ssh": begun.elapsed().as_secs_f64() });
    registration::register(cx, work, teller, &at, &found, &result).await
}

/// How often a machine is told to use its own host key.
const FIRST_CONTACTS: u32 = 5;

/// A host key that was in a machine's user data: it is good for the first contact only.
struct FirstKey {
    host_key: String,
    /// What answers there may be a machine that was just made.
    is_new: bool,
}

/// Gets in as soon as it lets us, and asks.
async fn look(
    cx: &Context,
    work: &Work,
    teller: &Teller,
    template: &Template,
    at: &mut Where,
    first: Option<FirstKey>,
) -> Result<Vec<Check>, Setback> {
    let end = Instant::now() + template.patience;
    let (mut wait, mut contacts) = (Duration::from_millis(100), 0);
    loop {
        let error = match &first {
            Some(first) if at.host_key == first.host_key => match own_key(cx, work, at).await {
                Ok(session) => {
                    take_own_key(cx, work, at, session).await?;
                    continue;
                }
                Err(error) => error,
            },
            _ => match reach::ask(cx, &work.server, at, &work.ssh_key, template.needs_docker).await {
                // It is installed when the machine begins, which may have gone wrong.
                Ok(found) if install::is_needed(&found) => {
                    return install::docker(cx, work, teller, at).await;
                }
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
        };
        // Its own key was written down, and it was not told yet to use it; or another machine took its place.
        if let (SshError::HostKey { .. }, Some(first)) = (&error, &first)
            && first.is_new
            && at.host_key != first.host_key
            && contacts < FIRST_CONTACTS
        {
            contacts += 1;
            at.host_key.clone_from(&first.host_key);
            continue;
        }
        if !error.may_pass() || Instant::now() + wait >= end {
            return Err(error.into());
        }
        tokio::select! {
            () = cx.stopped() => return Err(Failure::retry("it was told to stop").into()),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
        }
    }
}

/// Has a machine make a host key of its own. Answers its public half, and whoever is in.
async fn own_key(cx: &Context, work: &Work, at: &Where) -> Result<(Session, String), SshError> {
    let session = reach::enter(cx, &work.server, at, &work.ssh_key).await?;
    let said = session.run(cloud_init::PREPARE, 4 * 1024, Duration::from_mins(1)).await?;
    let own = said.text.lines().find(|line| line.starts_with("ssh-ed25519 "));
    let own = own.ok_or_else(|| SshError::Command(format!("it says no host key: {}", said.text.trim())))?;
    let own = own.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok((session, own))
}

/// The machine's own host key is believed from now on, and used by it.
async fn take_own_key(
    cx: &Context,
    work: &Work,
    at: &mut Where,
    (session, own): (Session, String),
) -> Result<(), Setback> {
    at.host_key = own;
    let mut tx = cx.begin().await?;
    servers::set_place(&mut tx, work.server.id, at).await?;
    tx.commit().await?;
    // It ends the connection by it, or not; what it shows from then on tells.
    drop(session.run(cloud_init::TAKE, 4 * 1024, Duration::from_mins(1)).await);
    session.leave().await;
    Ok(())
}
