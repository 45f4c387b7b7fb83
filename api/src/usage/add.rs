//! Adding what was counted to the tables, and telling of months that are nearly used up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use gantry_jobs::request::RequestError;
use gantry_jobs::{By, webhooks};
use gantry_schema::usage::{self as rows, Metric, MonthUse, crossed, next_month};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{OrganizationId, notices};
use serde_json::json;
use tracing::{error, warn};

use crate::App;

/// How often.
const EVERY: Duration = Duration::from_secs(5);

/// Adds what was counted to the tables every few seconds, until the API stops. What is counted while it stops is added
/// by whoever calls [`App::add_up_usage`] last.
pub async fn add_up(app: App) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => app.add_up_usage().await,
            () = app.stopping() => return,
        }
    }
}

impl App {
    /// Adds what was counted to the tables. What cannot be added now is added the next time.
    pub async fn add_up_usage(&self) {
        let _turn = self.usage.turn.lock().await;
        let taken = self.usage.take();
        if taken.is_empty() {
            return;
        }
        match rows::add(&self.db, &taken.rows(), &taken.months).await {
            Ok(months) => {
                self.usage.added(&months);
                for (organization, used) in months {
                    self.tell_of_month(organization, &used).await;
                }
            }
            Err(error) => {
                warn!("What was called could not be added up, it will be: {error}");
                self.usage.put_back(taken);
            }
        }
    }

    /// Tells, once each, which thresholds of a month were crossed.
    async fn tell_of_month(&self, organization: OrganizationId, used: &MonthUse) {
        let given = match self.standings.of(&self.db, organization).await {
            Ok(standing) => standing.allowance.given.clone(),
            Err(error) => return warn!(organization.id = %organization, "Its limits could not be read: {error}"),
        };
        for metric in Metric::ALL.into_iter().filter(|_| !given.bypass) {
            let Some(limit) = metric.limit(&given) else { continue };
            for threshold in crossed(used.of(metric), limit, used.told(metric)) {
                let told =
                    self.tell_threshold(organization, used.starts_at, metric, threshold, [used.of(metric), limit]);
                if let Err(error) = told.await {
                    error!(organization.id = %organization, "Nobody was told of {threshold} percent: {error}");
                }
            }
        }
    }

    async fn tell_threshold(
        &self,
        organization: OrganizationId,
        month: DateTime<Utc>,
        metric: Metric,
        threshold: u8,
        [used, limit]: [u64; 2],
    ) -> Result<(), RequestError> {
        let mut tx = self.db.tenant(organization).await?;
        if rows::tell(&mut tx, month, metric, threshold).await? {
            let what = metric.as_str();
            let facts = json!({
                "metric": what,
                "percent": threshold,
                "used": used,
                "limit": limit,
                "month": month,
                "resets_at": next_month(month),
            });
            let event = PlatformEvent::ApiUsageThreshold;
            let subject = format!("{what} of {}", month.format("%Y-%m"));
            notices::write(&mut tx, event, &subject, &facts).await?;
            webhooks::emit(&mut tx, event.name(), facts, &By::platform("usage")).await?;
        }
        tx.commit().await?;
        self.tell_events(organization);
        Ok(())
    }
}
