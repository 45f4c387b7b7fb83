use gantry_jobs::request;
use gantry_jobs::webhooks::{DeliverWebhook, ReplayEvents};
use gantry_schema::EventId;
use gantry_schema::jobs::{control, log};
use gantry_schema::webhooks::{endpoints, events};
use serde_json::{Value, json};

use crate::{Context, Done, Failure, Run};

/// Deliveries asked for in one transaction.
const BATCH: i64 = 1_000;

impl Run for ReplayEvents {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        // How far an earlier attempt got: its deliveries are not asked for again.
        let progress = control::find(&mut tx, cx.job()).await?.and_then(|job| job.progress).unwrap_or_default();
        let mut after: Option<EventId> = progress["after"].as_str().and_then(|id| id.parse().ok());
        let mut deliveries = progress["deliveries"].as_u64().unwrap_or(0);
        loop {
            let wants = endpoints::find(&mut tx, self.endpoint).await?.is_some_and(|endpoint| endpoint.enabled);
            if !wants {
                return cx.complete_with(tx, &skipped(deliveries)).await;
            }
            let found =
                events::wanted_between(&mut tx, self.endpoint, self.from, self.to, self.missed, after, BATCH).await?;
            let Some(last) = found.last().copied() else {
                return cx.complete_with(tx, &json!({ "deliveries": deliveries })).await;
            };
            let again: Vec<DeliverWebhook> =
                found.iter().map(|event| DeliverWebhook { event: *event, endpoint: self.endpoint }).collect();
            request::enqueue_all(&mut tx, &again, &cx.by()).await?;
            deliveries += again.len() as u64;
            after = Some(last);
            let progress = json!({ "after": last, "deliveries": deliveries });
            if !log::set_progress(&mut tx, cx.job(), cx.attempt(), &progress).await? {
                tx.rollback().await?;
                return Err(Failure::Lost);
            }
            tx.commit().await?;
            tx = cx.begin().await?;
        }
    }
}

fn skipped(deliveries: u64) -> Value {
    json!({ "deliveries": deliveries, "skipped": "the endpoint is gone or disabled" })
}
