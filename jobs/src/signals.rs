//! Signals to whoever waits for a job (it ended, it got further, it wrote a line) or follows an organization's events.
//!
//! Signals go through Redis' publish/subscribe and may be lost; they only say that looking is worthwhile.
//! Who waits therefore also looks by himself now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use gantry_schema::{JobId, OrganizationId};
use redis::aio::ConnectionManager;
use tokio::sync::Notify;
use tracing::{debug, warn};
use uuid::Uuid;

/// The channel of ended jobs in a namespace: each message is the 16-byte ids of a batch.
#[must_use]
pub fn ended_channel(namespace: &str) -> String {
    format!("{namespace}:ended")
}

/// The channel of jobs with news (progress, a log line): 16-byte ids as well.
#[must_use]
pub fn news_channel(namespace: &str) -> String {
    format!("{namespace}:news")
}

/// The channel of organizations with new events: 16-byte ids as well.
#[must_use]
pub fn events_channel(namespace: &str) -> String {
    format!("{namespace}:events")
}

/// Tells whoever follows the organization's events. Losing it is harmless.
///
/// # Errors
/// When Redis does not answer.
pub async fn publish_events(
    redis: &mut ConnectionManager,
    channel: &str,
    organization: OrganizationId,
) -> redis::RedisResult<()> {
    redis::cmd("PUBLISH").arg(channel).arg(&organization.uuid().as_bytes()[..]).exec_async(redis).await
}

/// Tells whoever listens. Losing it is harmless.
///
/// # Errors
/// When Redis does not answer.
pub async fn publish(redis: &mut ConnectionManager, channel: &str, jobs: &[JobId]) -> redis::RedisResult<()> {
    let mut ids = Vec::with_capacity(jobs.len() * 16);
    for job in jobs {
        ids.extend_from_slice(job.uuid().as_bytes());
    }
    redis::cmd("PUBLISH").arg(channel).arg(ids).exec_async(redis).await
}

/// How long a waiter trusts the signals before it looks by itself.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One subscription per process, shared by everybody in it who waits. Ids of jobs and of organizations are never the
/// same.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    waiting: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
}

/// An interest in one job, or in the events of one organization; it ends when dropped.
#[derive(Debug)]
pub struct Watch {
    id: Uuid,
    notify: Arc<Notify>,
    signals: Signals,
}

impl Signals {
    /// Subscribes, and keeps subscribing when the connection is lost.
    #[must_use]
    pub fn subscribe(url: &str, namespace: &str) -> Self {
        let signals = Self::default();
        let (listener, url, channels) =
            (signals.clone(), url.to_owned(), [ended_channel, news_channel, events_channel].map(|of| of(namespace)));
        tokio::spawn(async move {
            loop {
                if let Err(error) = listener.listen(&url, &channels).await {
                    warn!("Lost the subscription to job signals, waiters look by themselves meanwhile: {error}");
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        });
        signals
    }

    async fn listen(&self, url: &str, channels: &[String; 3]) -> redis::RedisResult<()> {
        let mut subscription = redis::Client::open(url)?.get_async_pubsub().await?;
        for channel in channels {
            subscription.subscribe(channel).await?;
        }
        debug!("Subscribed to job signals");
        let mut messages = subscription.into_on_message();
        while let Some(message) = messages.next().await {
            self.wake(message.get_payload_bytes());
        }
        Ok(())
    }

    fn wake(&self, ids: &[u8]) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for id in ids.chunks_exact(16) {
            let Ok(id) = Uuid::from_slice(id) else { continue };
            if let Some(notify) = waiting.get(&id) {
                notify.notify_waiters();
            }
        }
    }

    /// Begins to watch a job. Watch first, then look, then wait: so nothing is missed in between.
    #[must_use]
    pub fn watch(&self, job: JobId) -> Watch {
        self.watch_id(job.uuid())
    }

    /// Begins to watch the events of an organization.
    #[must_use]
    pub fn watch_events(&self, organization: OrganizationId) -> Watch {
        self.watch_id(organization.uuid())
    }

    /// Tells whoever follows the organization's events in this process.
    pub fn wake_events(&self, organization: OrganizationId) {
        self.wake(organization.uuid().as_bytes());
    }

    fn watch_id(&self, id: Uuid) -> Watch {
        let notify = Arc::clone(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        Watch { id, notify, signals: self.clone() }
    }
}

impl Watch {
    /// Waits for a signal about the job, or until it is time to look anyway.
    pub async fn changed(&self, notified: tokio::sync::futures::Notified<'_>) {
        let _ = tokio::time::timeout(LOOK_AGAIN, notified).await;
    }

    /// To be taken before looking at the job, and awaited with [`Self::changed`] after.
    pub fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut waiting = self.signals.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Two handles are the map's and this one: nobody else watches the job.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u128) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn ids(jobs: &[JobId]) -> Vec<u8> {
        jobs.iter().flat_map(|job| job.uuid().as_bytes().to_vec()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_watches_a_job_is_woken_by_its_signal_and_nobody_else() {
        let signals = Signals::default();
        let (one, same, other) = (signals.watch(job(1)), signals.watch(job(1)), signals.watch(job(2)));
        let (first, second, third) = (one.notified(), same.notified(), other.notified());
        // Ids nobody waits for, and half an id, do no harm.
        let mut message = ids(&[job(7), job(1)]);
        message.extend([1, 2, 3]);
        signals.wake(&message);
        let begun = tokio::time::Instant::now();
        first.await;
        second.await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(tokio::time::timeout(Duration::from_secs(10), third).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_signal_costs_a_second() {
        let signals = Signals::default();
        let watch = signals.watch(job(1));
        let begun = tokio::time::Instant::now();
        watch.changed(watch.notified()).await;
        assert_eq!(begun.elapsed(), LOOK_AGAIN);
    }

    #[test]
    fn an_interest_ends_with_its_last_watch() {
        let signals = Signals::default();
        let (one, same) = (signals.watch(job(1)), signals.watch(job(1)));
        drop(one);
        assert_eq!(signals.waiting.lock().unwrap().len(), 1);
        drop(same);
        assert!(signals.waiting.lock().unwrap().is_empty());
    }
}
