use std::collections::{BTreeMap, BTreeSet};

use gantry_jobs::servers::{FindOrphans, WatchOrphans};
use gantry_jobs::{Job as _, webhooks};
use gantry_providers::clouds::account::{Mark, Marked, Thing};
use gantry_providers::clouds::sandbox;
use gantry_schema::credentials::accounts::Standing;
use gantry_schema::credentials::orphans::{self as rows, Orphan};
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::organizations::settings::{self, Setting};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{CloudCredentialId, JobTx as _, ServerId, TenantTx, installation, notices};
use serde_json::json;
use uuid::Uuid;

use super::clouds;
use super::provision::clear;
use super::setback::Setback;
use super::teller::Teller;
use crate::{Context, Done, Failure, Run};

/// Accounts that are asked for at once.
const AT_ONCE: i64 = 500;

/// How often as many are asked for, at most.
const PAGES: usize = 1_000;

/// Things that an event names.
const NAMED: usize = 20;

impl Run for WatchOrphans {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let (mut after, mut asked) = (CloudCredentialId::from_uuid(Uuid::nil()), 0);
        for _ in 0..PAGES {
            let accounts = rows::accounts(cx.ledger(), after, AT_ONCE).await?;
            let Some((_, last)) = accounts.last() else { break };
            after = *last;
            for (organization, credential) in accounts {
                let mut tx = super::watch::begin(cx, organization).await?;
                FindOrphans { credential, remove: false }.request().enqueue(&mut tx, &cx.by()).await?;
                tx.commit().await?;
                asked += 1;
            }
        }
        Ok(if asked == 0 { Done::Quietly } else { Done::With(json!({ "accounts": asked })) })
    }
}

impl Run for FindOrphans {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let teller = Teller::start(cx);
        let done = find(cx, self, &teller).await.map_err(|setback| setback.into_failure(cx.is_last_attempt()));
        teller.end().await;
        done
    }
}

/// An account that is looked through.
struct Place {
    cloud: Cloud,
    credential: Credential,
    regions: Vec<String>,
    installation: String,
    organization: String,
}

async fn find(cx: &Context, job: &FindOrphans, teller: &Teller) -> Result<Done, Setback> {
    let mut tx = cx.begin().await?;
    let known = credentials::find(&mut tx, job.credential).await?.filter(|known| known.standing == Standing::Valid);
    let opened = credentials::open(&mut tx, cx.sealing_keys(), job.credential).await?;
    // It was removed in the meantime, or opens nothing.
    let (Some(known), Some(credential)) = (known, opened) else { return Ok(cx.complete(tx).await?) };
    let place = Place {
        cloud: known.cloud,
        credential,
        regions: rows::regions(&mut tx, known.cloud).await?,
        installation: installation::id(&mut tx).await?.to_string(),
        organization: cx.organization().to_string(),
    };
    let unasked = settings::get(&mut tx, Setting::ServersRemoveOrphans).await?.value.as_bool().unwrap_or_default();
    tx.commit().await?;

    teller.stage("looking for what was left behind");
    let found = left_behind(cx, &place).await?;
    let mut tx = cx.begin().await?;
    let new = rows::keep(&mut tx, job.credential, &found).await?.unwrap_or_default();
    tx.commit().await?;
    let remaining = if (job.remove || unasked) && !found.is_empty() {
        remove(cx, &place, &found, teller).await?;
        left_behind(cx, &place).await?
    } else {
        found.clone()
    };
    let removed = found.len().saturating_sub(remaining.len());
    let mut tx = cx.begin().await?;
    rows::keep(&mut tx, job.credential, &remaining).await?;
    let event = PlatformEvent::CloudCredentialOrphansFound;
    if remaining.is_empty() {
        notices::settle(&mut tx, &[event], &job.credential.to_string()).await?;
    }
    if removed > 0 {
        tx.record("cloud_orphan.remove").on(&job.credential).called(&known.name);
    }
    if new > 0 {
        let things: Vec<String> = found.iter().take(NAMED).map(|it| named(it).to_string()).collect();
        let facts = json!({ "credential_id": known.id, "name": known.name, "found": found.len(), "removed": removed,
                            "things": things });
        if !remaining.is_empty() {
            notices::write(&mut tx, event, &job.credential.to_string(), &facts).await?;
        }
        webhooks::emit(&mut tx, event.name(), facts, &cx.by()).await.map_err(Failure::from)?;
    }
    let result = json!({ "found": found.len(), "new": new, "removed": removed });
    Ok(cx.complete_with(tx, &result).await?)
}

fn named(orphan: &Orphan) -> Thing {
    let Orphan { kind, id, name, region, .. } = orphan.clone();
    Thing { kind, id, name, region }
}

/// What is there of ours and belongs to no server. The cloud is asked first: what it has was on record before.
async fn left_behind(cx: &Context, place: &Place) -> Result<Vec<Orphan>, Setback> {
    let marked = marked(cx, place).await?;
    let parsed = marked.iter().filter_map(|it| it.server.parse::<ServerId>().ok());
    let servers: BTreeSet<ServerId> = parsed.collect();
    let mut tx: TenantTx = cx.begin().await?;
    let record = rows::record(&mut tx, &servers.into_iter().collect::<Vec<_>>()).await?;
    let now = tx.now();
    tx.commit().await?;
    let is_left = |it: &Marked| {
        let server = it.server.parse::<ServerId>();
        server.is_ok_and(|id| rows::is_left_behind(id, it.by_label, record.get(&id).copied(), now))
    };
    let orphan = |Marked { thing, server, .. }: Marked| {
        let Thing { kind, id, name, region } = thing;
        Orphan { kind, id, name, region, server, found_at: now }
    };
    Ok(marked.into_iter().filter(is_left).map(orphan).take(rows::MOST).collect())
}

async fn marked(cx: &Context, place: &Place) -> Result<Vec<Marked>, Setback> {
    let mark = Mark { installation: &place.installation, organization: &place.organization };
    let Some(account) = clouds::account(cx, &place.credential)? else {
        return Ok(sandbox::marked(&cx.providers().terraform, mark).map_err(Failure::retry)?);
    };
    // The others have one list of everything.
    let regions: Vec<&str> = match place.cloud {
        Cloud::Aws | Cloud::Gcp => place.regions.iter().map(String::as_str).collect(),
        _ => vec![""],
    };
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for region in regions {
        for marked in account.marked(region, mark).await? {
            // What belongs to no region is found in each.
            if seen.insert((marked.thing.kind.clone(), marked.thing.id.clone())) {
                all.push(marked);
            }
        }
    }
    Ok(all)
}

/// Removes what was left behind, server by server: what holds something goes before it.
async fn remove(cx: &Context, place: &Place, orphans: &[Orphan], teller: &Teller) -> Result<(), Setback> {
    let mut of_servers: BTreeMap<(&str, &str), BTreeSet<(&str, &str)>> = BTreeMap::new();
    for it in orphans {
        of_servers.entry((&it.server, &it.region)).or_default().insert((&it.kind, &it.id));
    }
    let account = clouds::account(cx, &place.credential)?;
    for ((server, region), things) in of_servers {
        if let Some(account) = &account {
            let is_wanted = |thing: &Thing| things.contains(&(thing.kind.as_str(), thing.id.as_str()));
            clear(cx, &**account, region, server, is_wanted, teller).await?;
        } else {
            for what in sandbox::clear_away(&cx.providers().terraform, server).map_err(Failure::retry)? {
                teller.say(format!("{what} was left over, and is removed"));
            }
        }
    }
    Ok(())
}
