use std::sync::Arc;

use chrono::SecondsFormat;
use gantry_jobs::licenses::WatchLicenses;
use gantry_jobs::messages::{self, SendError};
use gantry_jobs::webhooks;
use gantry_schema::audit::{Actor, Author};
use gantry_schema::licenses::alerts::{self, Alert};
use gantry_schema::licenses::{Anchors, Licensed, history, licensed, queries};
use gantry_schema::memberships::members;
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::{Content, Recipient, templates};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{JobTx as _, OrganizationId, TenantTx, notices, organizations};
use serde_json::{Value, json};
use tracing::warn;

use super::Licensees;
use crate::{Context, Done, Failure, Run};

/// People who are told, at most.
const TOLD: i64 = 100;

impl Run for WatchLicenses {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let anchors = cx.trust().anchors(cx.db()).await?;
        let (mut licensees, mut count) = (Licensees::default(), 0);
        while let Some(organization) = licensees.next(cx).await? {
            count += of_organization(cx, &anchors, organization).await?;
        }
        Ok(if count == 0 { Done::Quietly } else { Done::With(json!({ "told": count })) })
    }
}

/// Tells an organization what is to be told of its own license, and notes what it used. Answers how many things were told.
async fn of_organization(cx: &Context, anchors: &Anchors, organization: OrganizationId) -> Result<usize, Failure> {
    let author = Author::new(Actor::system());
    let mut tx = cx.db().tenant(organization).await?.by(Arc::new(author));
    let own = licensed(&mut tx, anchors).await?.filter(|found| found.stored.organization == organization);
    // An organization that is deleted has nobody to tell.
    let (Some(own), Some(named)) = (own, organizations::find(&mut tx, organization).await?) else { return Ok(0) };
    queries::saw(&mut tx).await?;
    let usage = queries::usage(&mut tx, organization).await?;
    let evaluation = own.evaluate(tx.now(), None, &usage);
    history::note(&mut tx, own.stored.id, &usage, &evaluation.limits).await?;
    let told = queries::told(&mut tx, own.stored.id).await?;
    let news = alerts::news(&evaluation, &usage, &told);
    for alert in &news.tell {
        tell(cx, &mut tx, &own, &named.name, alert).await?;
    }
    queries::note_told(&mut tx, own.stored.id, &news.note).await?;
    tx.commit().await?;
    Ok(news.tell.len())
}

async fn tell(cx: &Context, tx: &mut TenantTx, own: &Licensed, name: &str, alert: &Alert) -> Result<(), Failure> {
    let (organization, license) = (tx.organization(), own.stored.id);
    let mut facts: Value = json!({ "organization_id": organization, "license_id": license });
    let brand = messages::brand(tx).await?;
    let (event, subject, content) = match alert {
        Alert::Ends { days, at } => {
            facts["ends_at"] = at.to_rfc3339_opts(SecondsFormat::Secs, true).into();
            facts["days"] = (*days).into();
            let at = at.format("%Y-%m-%d %H:%M UTC").to_string();
            (PlatformEvent::LicenseExpiring, license.to_string(), templates::license_ends(&brand, name, *days, &at))
        }
        Alert::Used { limit, percent, used, most } => {
            facts["limit"] = limit.as_str().into();
            facts["percent"] = (*percent).into();
            facts["used"] = (*used).into();
            facts["most"] = (*most).into();
            let content = templates::license_used(&brand, name, limit, *percent, *used, *most);
            (PlatformEvent::LicenseThreshold, format!("{license} {limit}"), content)
        }
    };
    notices::write(tx, event, &subject, &facts).await?;
    webhooks::emit(tx, event.name(), facts, &cx.by()).await?;
    write_to_people(cx, tx, &content, event.name(), &license.to_string()).await
}

/// Those who can do something about it.
async fn write_to_people(
    cx: &Context,
    tx: &mut TenantTx,
    content: &Content,
    kind: &str,
    reference: &str,
) -> Result<(), Failure> {
    for address in members::addresses_of_owners(tx, TOLD).await? {
        let Ok(email) = address.parse() else {
            warn!("A member's address cannot be written to");
            continue;
        };
        let (to, reference) = (Recipient::Mail(email), Some(reference.to_owned()));
        let new = NewMessage { kind, to: &to, content, reference, expires_at: None };
        messages::send(tx, cx.sealing_keys(), &new, &cx.by()).await.map_err(|error| match error {
            SendError::Request(error) => error.into(),
            SendError::Message(error) => Failure::retry(error),
        })?;
    }
    Ok(())
}
