//! Something of everything, made by the operations that make things from the document's own examples of what they take.

use std::collections::{BTreeMap, BTreeSet};

use gantry_schema::audit::archives::{self, Archive};
use gantry_schema::credentials::{Cloud, Credential, queries as credentials};
use gantry_schema::messages::queries::{self, NewMessage};
use gantry_schema::messages::{Content, Recipient};
use gantry_schema::servers::queries::{self as servers, NewServer};
use gantry_schema::servers::{Options, RunKind, keys, plans, runs, states};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{AuditArchiveId, JobTx as _, RunId, ServerId, TenantTx, notices};
use serde_json::{Value, json};

use super::ask::Api;
use super::operation::{OWN, Operation, Things, all, ids, prefix_of};
use super::{Callers, OF_ISSUERS, skipped};
use crate::record::seal;
use crate::support::Platform;

/// What comes about by the way, and is found in a list.
const COME_ABOUT: &[&str] = &["aud"];

/// What makes nothing that was not there, and needs what is made to be as it was made.
const LATER: &[&str] = &["transferLicense"];

/// The digest in the examples of a confirmation and of an approval.
const EXAMPLE_DIGEST: &str = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";

fn bytes(digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes().as_chunks::<2>().0.iter();
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Something of every kind that ids in paths name, and the operations that made it.
pub async fn furnish(platform: &Platform, api: &Api, callers: &Callers) -> (Things, BTreeSet<&'static str>) {
    let named = all().into_iter().filter(|operation| !skipped(*operation)).flat_map(Operation::ids_in_path);
    let (come_about, wanted): (BTreeSet<String>, BTreeSet<String>) =
        named.partition(|prefix| COME_ABOUT.contains(&prefix.as_str()));
    let (mut things, mut asked) = (told(platform, callers).await, BTreeSet::new());
    things.insert(OWN.to_owned(), callers.actor.organization.to_string());
    things.insert("usr".to_owned(), callers.member.to_string());
    let is_known = |things: &Things, prefix: &String| things.contains_key(prefix);
    while !wanted.iter().all(|prefix| is_known(&things, prefix)) {
        let makes = |operation: &Operation| {
            ["POST", "PUT"].contains(&operation.method().as_str())
                && !skipped(*operation)
                && !OF_ISSUERS.contains(&operation.id)
                && !LATER.contains(&operation.id)
                && !asked.contains(operation.id)
                && operation.ids_in_path().iter().all(|prefix| is_known(&things, prefix))
        };
        let mut making: Vec<Operation> = all().into_iter().filter(makes).collect();
        // What needs nothing first; what takes nothing makes nothing.
        making.sort_by_key(|operation| (operation.body_schema().is_none(), operation.ids_in_path().len()));
        let Some(operation) = making.first() else {
            let missing: Vec<&String> = wanted.iter().filter(|prefix| !is_known(&things, prefix)).collect();
            panic!("nothing in the document makes what begins with {missing:?}");
        };
        asked.insert(operation.id);
        let ask = operation.ask(&things);
        let answer = api.send(&ask, Some(callers.of(*operation))).await;
        if answer.text.contains("name_taken") {
            // Names of hosts are of the whole installation, and the other has this one.
            continue;
        }
        assert!(answer.status.is_success(), "{} does not accept its example: {}", operation.id, answer.text);
        // What is no JSON names nothing that could be asked for.
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        // What it made comes before what it names.
        let made = answer.header("Location").rsplit('/').next().map(str::to_owned);
        for id in made.into_iter().chain(ids(&body).into_iter().map(str::to_owned)) {
            if let Some(prefix) = prefix_of(&id).filter(|_| id != things[OWN]) {
                things.entry(prefix.to_owned()).or_insert(id);
            }
        }
    }
    list(api, callers, &come_about, &mut things).await;
    (things, asked)
}

/// Where workers have to have come so far that an operation is possible.
pub async fn come_so_far(platform: &Platform, operation: Operation) {
    let (server, run) = match operation.id {
        "approveServerRun" | "cancelServerRun" => ("provisioning", "awaiting_approval"),
        "compareServer" | "updateServer" | "restoreServerState" | "breakServerLock" => ("ready", "succeeded"),
        "retryServer" => ("failed", "failed"),
        _ => return,
    };
    let of_servers = "update servers set state = $1 where destroyed_at is null";
    sqlx::query(of_servers).bind(server).execute(&platform.pool).await.unwrap();
    // The lock of the example.
    let lock = (operation.id == "breakServerLock").then_some("6d2b7c1e-1f0a-6f4e-1d2c-3b4a5c6d7e8f");
    let of_stacks = "update stacks set lock_id = $1, lock_fence = fence";
    sqlx::query(of_stacks).bind(lock).execute(&platform.pool).await.unwrap();
    let of_runs = "update runs set state = $1, plan_sha256 = $2, finished_at = case when $1 <> 'awaiting_approval' then now() end";
    sqlx::query(of_runs).bind(run).bind(bytes(EXAMPLE_DIGEST)).execute(&platform.pool).await.unwrap();
}

/// What no operation makes, because the platform tells it by itself.
async fn told(platform: &Platform, callers: &Callers) -> Things {
    let mut tx = platform.app.db.tenant(callers.actor.organization).await.unwrap();
    let facts = json!({ "url": "https://receiver.example/", "reason": "gone" });
    let notice = notices::write(&mut tx, PlatformEvent::EndpointDisabled, "an endpoint", &facts).await.unwrap();
    let to = Recipient::Mail("ada@example.com".parse().unwrap());
    let content = Content { text: "a text".to_owned(), ..Content::default() };
    let new = NewMessage { kind: "walk", to: &to, content: &content, reference: None, expires_at: None };
    let message = queries::insert(&mut tx, &platform.app.sealing, &new).await.unwrap();
    let (server, run) = planned(&mut tx, platform).await;
    // Somebody took a copy of the record, whose digest is the one of the example.
    let archive: AuditArchiveId = tx.ids().mint();
    let sha256 = bytes(EXAMPLE_DIGEST);
    let made = Archive { id: archive, first: 1, through: 1, sha256, made_at: tx.now(), confirmed_at: None };
    archives::insert(&mut tx, &made).await.unwrap();
    tx.record("a.furnishing");
    tx.commit().await.unwrap();
    seal(platform).await;
    Things::from([
        ("ntc".to_owned(), notice.to_string()),
        ("msg".to_owned(), message.to_string()),
        ("aua".to_owned(), archive.to_string()),
        ("srv".to_owned(), server.to_string()),
        ("run".to_owned(), run.to_string()),
    ])
}

/// A server whose plan waits for an approval: no worker is here to get it so far.
async fn planned(tx: &mut TenantTx, platform: &Platform) -> (ServerId, RunId) {
    let sealing = &platform.app.sealing;
    let credential = Credential::Sandbox { token: "sandbox-of-the-walk".to_owned() };
    let credential = credentials::insert(tx, sealing, "of the walk", &credential).await.unwrap();
    let new = NewServer {
        name: "planned",
        cloud: Cloud::Sandbox,
        credential,
        region: "sandbox-1",
        size: "small",
        image: "debian-12",
        labels: &BTreeMap::new(),
        options: &Options::default(),
    };
    let ssh_key = keys::ensure(tx, sealing).await.unwrap();
    let server = servers::insert(tx, &new, ssh_key).await.unwrap();
    let stack = servers::find(tx, server).await.unwrap().unwrap().stack;
    let run = runs::insert(tx, stack, RunKind::Provision, "walk").await.unwrap();
    let cost = plans::Cost { monthly: 500, currency: "USD" };
    plans::keep(tx, sealing, run, b"a plan", &plans::Summary::default(), cost).await.unwrap();
    plans::keep_text(tx, sealing, run, "a plan in words").await.unwrap();
    let fence = states::take_over(tx, stack).await.unwrap();
    let writer = states::Writer { stack, fence, run, lock: None };
    states::write(tx, sealing, writer, br#"{"version": 4, "serial": 1, "lineage": "a"}"#).await.unwrap();
    (server, run)
}

/// Finds things in lists of them.
async fn list(api: &Api, callers: &Callers, wanted: &BTreeSet<String>, things: &mut Things) {
    let lists = |operation: &Operation| {
        operation.id.starts_with("list") && !skipped(*operation) && operation.ids_in_path().is_empty()
    };
    for operation in all().into_iter().filter(lists) {
        let answer = api.send(&operation.ask(things), Some(callers.of(operation))).await;
        let Ok(page) = serde_json::from_str::<Value>(&answer.text) else { continue };
        let items = page["items"].as_array().cloned().unwrap_or_default();
        for id in items.iter().filter_map(|item| item["id"].as_str()) {
            if let Some(prefix) = prefix_of(id).filter(|prefix| wanted.contains(*prefix)) {
                things.entry(prefix.to_owned()).or_insert_with(|| id.to_owned());
            }
        }
    }
    assert!(wanted.iter().all(|prefix| things.contains_key(prefix)), "no list has what begins with {wanted:?}");
}
