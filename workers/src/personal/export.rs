use std::collections::BTreeSet;

use gantry_jobs::personal::ExportPerson;
use gantry_schema::audit::queries::{self as record, ReadError};
use gantry_schema::defence::sign_ins;
use gantry_schema::factors::{self, recovery};
use gantry_schema::memberships::invitations;
use gantry_schema::messages::queries::{self as messages, MessageError};
use gantry_schema::oauth::grants;
use gantry_schema::people::{self, Person, State};
use gantry_schema::personal::erasing;
use gantry_schema::personal::exports::{self, ExportError, MOST_BYTES};
use gantry_schema::{
    Order, OrganizationId, PersonId, TenantTx, Window, api_keys, memberships, organizations, sessions, usage,
};
use serde_json::{Value, json};

use super::signed;
use crate::{Context, Done, Failure, Run};

/// Things of one kind in one place; nobody has as many.
const MOST: i64 = 1_000;

/// Entries of the record that are read at once, and all that a copy holds.
const AT_ONCE: i64 = 500;
const MOST_ENTRIES: usize = 20_000;

impl Run for ExportPerson {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.db().person(self.person).await?;
        let found = people::find(&mut tx, self.person).await?;
        let person = found.filter(|person| person.state != State::Erased);
        let asked = exports::latest(&mut tx, self.person).await?;
        drop(tx);
        // He asked for another one, or is gone.
        let (Some(person), Some(_)) = (person, asked.filter(|asked| asked.id == self.export && asked.made.is_none()))
        else {
            return cx.complete(cx.begin().await?).await;
        };
        let content = copy(cx, &person).await?;
        let at = cx.now();
        let receipt = signed(cx, exports::statement(self.export, self.person, &content, at)).await?;
        let mut tx = cx.db().tenant_for(OrganizationId::PLATFORM, self.person).await?;
        exports::keep(&mut tx, cx.sealing_keys(), self.export, &content, &receipt, at).await.map_err(unsealed)?;
        cx.complete_with(tx, &json!({ "bytes": content.len() })).await
    }
}

/// Everything that is known of him, as JSON.
async fn copy(cx: &Context, person: &Person) -> Result<Vec<u8>, Failure> {
    let id = person.id;
    let mut tx = cx.db().person(id).await?;
    let places = erasing::organizations(&mut tx, id).await?;
    let addresses = erasing::addresses(&mut tx, person).await?;
    let mut whole = json!({
        "format": "gantry personal export 1",
        "made_at": cx.now(),
        "person": {
            "id": id,
            "email": person.email,
            "email_verified_at": person.email_verified_at,
            "name": person.name,
            "locale": person.locale,
            "state": person.state.as_str(),
            "created_at": person.created_at,
        },
    });
    let grants = grants::of_person(&mut tx, MOST).await?.into_iter().map(|granted| {
        json!({
            "id": granted.id,
            "organization_id": granted.organization,
            "application": granted.client_name,
            "scopes": granted.scopes.words(),
            "created_at": granted.created_at,
            "updated_at": granted.updated_at,
        })
    });
    whole["applications"] = grants.collect();
    let memberships = memberships::of_person(&mut tx, None, MOST).await?;
    whole["memberships"] = memberships
        .iter()
        .map(|member| {
            json!({
                "organization_id": member.organization,
                "role": member.role.as_str(),
                "state": member.state.as_str(),
                "created_at": member.created_at,
            })
        })
        .collect();
    let invited = invitations::to_person(&mut tx, id, MOST).await?.into_iter().map(|invited| {
        json!({
            "id": invited.id,
            "organization_id": invited.organization,
            "email": invited.email,
            "role": invited.role,
            "created_at": invited.created_at,
            "accepted_at": invited.accepted_at,
            "revoked_at": invited.revoked_at,
        })
    });
    whole["invitations"] = invited.collect();
    whole["sessions"] = sessions::kept(&mut tx, id, MOST).await?.into_iter().map(session).collect();
    let sign_ins = sign_ins::latest(&mut tx, id).await?.into_iter().map(|sign_in| {
        json!({
            "occurred_at": sign_in.occurred_at,
            "country": sign_in.country.map(|country| country.to_string()),
            "latitude": sign_in.spot.map(|spot| spot.latitude),
            "longitude": sign_in.spot.map(|spot| spot.longitude),
        })
    });
    whole["sign_ins"] = sign_ins.collect();
    // What they prove is not told: who has the copy is not to be him.
    let enrolled = factors::list(&mut tx, id).await?.into_iter().map(|factor| {
        json!({
            "id": factor.id,
            "kind": factor.kind.as_str(),
            "name": factor.name,
            "address": factor.address,
            "created_at": factor.created_at,
            "confirmed_at": factor.confirmed_at,
            "last_used_at": factor.last_used_at,
        })
    });
    whole["second_factors"] = enrolled.collect();
    whole["recovery_codes_left"] = recovery::left(&mut tx, id).await?.map_or(0, |left| left.count).into();
    drop(tx);
    let (mut there, mut left) = (Vec::new(), MOST_ENTRIES);
    for organization in places {
        let mut tx = cx.db().tenant_for(organization, id).await?;
        there.push(of_organization(cx, &mut tx, id, &addresses, &mut left).await?);
        tx.rollback().await?;
    }
    whole["organizations"] = there.into();
    whole["complete"] = (left > 0).into();
    let content = serde_json::to_vec_pretty(&whole).map_err(Failure::cancel)?;
    if content.len() > MOST_BYTES {
        return Err(Failure::cancel("more is known of him than a copy can hold"));
    }
    Ok(content)
}

fn session(kept: sessions::Kept) -> Value {
    json!({
        "id": kept.id,
        "organization_id": kept.organization,
        "kind": kept.kind,
        "methods": kept.methods,
        "address": kept.address,
        "user_agent": kept.user_agent,
        "created_at": kept.created_at,
        "last_used_at": kept.last_used_at,
        "ended_at": kept.ended_at,
        "ended_because": kept.ended_because,
    })
}

/// What lies in one organization of him.
async fn of_organization(
    cx: &Context,
    tx: &mut TenantTx,
    person: PersonId,
    addresses: &BTreeSet<String>,
    left: &mut usize,
) -> Result<Value, Failure> {
    let id = tx.organization();
    let name = organizations::find(tx, id).await?.map(|found| found.name);
    let keys = api_keys::of_person(tx, person, MOST).await?.into_iter().map(|key| {
        json!({
            "id": key.id,
            "name": key.name,
            "created_at": key.created_at,
            "last_used_at": key.last_used_at,
            "last_used_from": key.last_used_from,
            "revoked_at": key.revoked_at,
        })
    });
    let keys: Vec<Value> = keys.collect();
    let called = usage::of_person(tx, person, MOST).await?.into_iter();
    let called: Vec<Value> = called
        .map(|called| json!({ "month": called.starts_at, "operation": called.operation, "calls": called.calls }))
        .collect();
    let messages = messages_to(cx, tx, addresses).await?;
    let record = recorded(cx, tx, person, left).await?;
    Ok(json!({
        "organization_id": id,
        "name": name,
        "api_keys": keys,
        "api_use": called,
        "messages": messages,
        "record": record,
    }))
}

/// What was written to him: what it was about, not what it said, which opens accounts.
async fn messages_to(cx: &Context, tx: &mut TenantTx, addresses: &BTreeSet<String>) -> Result<Vec<Value>, Failure> {
    let (mut found, mut window) = (Vec::new(), Window::new(Order::Ascending, AT_ONCE));
    loop {
        let page = messages::list(tx, cx.sealing_keys(), None, window).await.map_err(|trouble| match trouble {
            MessageError::Database(trouble) => trouble.into(),
            other => Failure::cancel(other),
        })?;
        let Some(last) = page.last().map(|message| message.id) else { return Ok(found) };
        let his = page.into_iter().filter(|message| addresses.contains(&message.recipient));
        found.extend(his.map(|message| {
            json!({
                "id": message.id,
                "kind": message.kind,
                "channel": message.channel.as_str(),
                "recipient": message.recipient,
                "state": message.state.as_str(),
                "created_at": message.created_at,
            })
        }));
        window = Window::new(Order::Ascending, AT_ONCE).after(last);
    }
}

/// What was recorded of him, as much of it as there is room for.
async fn recorded(cx: &Context, tx: &mut TenantTx, person: PersonId, left: &mut usize) -> Result<Vec<Value>, Failure> {
    let (mut found, mut after) = (Vec::new(), None);
    while *left > 0 {
        let limit = AT_ONCE.min(i64::try_from(*left).unwrap_or(AT_ONCE));
        let page = record::of_person(tx, cx.sealing_keys(), person.uuid(), after, limit).await.map_err(unreadable)?;
        let Some(last) = page.last().map(|entry| entry.id) else { break };
        *left = left.saturating_sub(page.len());
        found.extend(page.into_iter().map(|entry| {
            let record = entry.record;
            json!({
                "id": entry.id,
                "occurred_at": entry.occurred_at,
                "actor": entry.actor,
                "action": entry.action,
                "outcome": record.outcome.as_str(),
                "target": record.target.map(|target| target.id),
                "address": record.actor.about.address,
                "user_agent": record.actor.about.user_agent,
                "changes": record.changes,
            })
        }));
        after = Some(last);
    }
    Ok(found)
}

fn unreadable(trouble: ReadError) -> Failure {
    match trouble {
        ReadError::Database(trouble) => trouble.into(),
        other => Failure::cancel(other),
    }
}

fn unsealed(trouble: ExportError) -> Failure {
    match trouble {
        ExportError::Database(trouble) => trouble.into(),
        other @ ExportError::Seal(_) => Failure::cancel(other),
    }
}
