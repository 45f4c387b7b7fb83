//! Refused permissions in the record. A caller that is refused all the time must not fill it: within a minute the first
//! refusal of each operation is an entry of its own, for a few operations; how many followed is another one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::request::RequestError;
use gantry_jobs::{By, webhooks};
use gantry_schema::audit::{Actor, Author, Draft, Outcome};
use gantry_schema::webhooks::event_types::PlatformEvent;
use gantry_schema::{Db, OrganizationId};
use poem::Response;
use serde_json::json;
use tracing::error;

use super::about::About;
use crate::caller::Caller;

/// How long refusals of a caller are counted together.
const TOGETHER: TimeDelta = TimeDelta::minutes(1);

/// Operations of which the first refusal is an entry of its own.
const OPERATIONS: usize = 10;

/// Callers that are counted at once. Refusals of others are counted for all of them, in the platform's record.
const CALLERS: usize = 10_000;

/// Refusals of the last minute, by caller.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    callers: HashMap<(OrganizationId, String), Window>,
    others: u64,
}

#[derive(Debug)]
struct Window {
    since: DateTime<Utc>,
    author: Arc<Author>,
    operations: HashMap<&'static str, u64>,
    /// Of operations that are not counted apart.
    others: u64,
}

/// What a refused request comes to.
enum Noted {
    /// An entry, and the entry about the minute before.
    First(Option<Box<Leftover>>),
    /// A number.
    Counted,
}

/// Refusals that no entry is about yet.
struct Leftover {
    organization: OrganizationId,
    author: Arc<Author>,
    draft: Draft,
}

impl Window {
    fn leftover(self, organization: OrganizationId) -> Option<Leftover> {
        let repeated: Vec<(&str, u64)> = self
            .operations
            .into_iter()
            .filter(|(_, count)| *count > 1)
            .map(|(word, count)| (word, count - 1))
            .collect();
        let count: u64 = repeated.iter().map(|(_, count)| count).sum::<u64>() + self.others;
        if count == 0 {
            return None;
        }
        let mut draft = Draft::new("refusals.repeated");
        draft.ended(
            Outcome::Denied,
            format!("{count} more requests were refused since {}", self.since.format("%H:%M:%S")),
        );
        for (word, count) in repeated {
            draft.set(word, count);
        }
        if self.others > 0 {
            draft.set("other operations", self.others);
        }
        // It is about many requests.
        let author = Author { request: None, trace: None, permission: None, ..Author::clone(&self.author) };
        Some(Leftover { organization, author: Arc::new(author), draft })
    }
}

impl Refusals {
    /// Notes that a request was answered like this.
    pub(crate) async fn note(&self, db: &Db, about: &About, response: &Response) {
        // Who is not known was not refused a permission, but asked who he is.
        let Some(caller) = about.caller() else { return };
        let (organization, author) = (caller.home(), about.author(caller));
        let Noted::First(before) = self.count(organization, &author, about.action(), db.now()) else { return };
        if let Some(before) = before {
            record(db, *before).await;
        }
        let mut draft = about.draft();
        let reason = response.data::<Reason>();
        draft.ended(Outcome::Denied, reason.map_or("forbidden", |reason| reason.detail.as_str()));
        record(db, Leftover { organization, author, draft }).await;
        if reason.is_some_and(|reason| reason.barred) {
            tell_of_barred(db, about, caller).await;
        }
    }

    fn count(
        &self,
        organization: OrganizationId,
        author: &Arc<Author>,
        operation: &'static str,
        now: DateTime<Utc>,
    ) -> Noted {
        let mut counted = self.lock();
        let key = (organization, author.actor.id.clone());
        let known = counted.callers.get(&key).is_some_and(|window| now - window.since < TOGETHER);
        if known && let Some(window) = counted.callers.get_mut(&key) {
            if let Some(count) = window.operations.get_mut(operation) {
                *count += 1;
            } else if window.operations.len() < OPERATIONS {
                window.operations.insert(operation, 1);
                return Noted::First(None);
            } else {
                window.others += 1;
            }
            return Noted::Counted;
        }
        if !counted.callers.contains_key(&key) && counted.callers.len() >= CALLERS {
            counted.others += 1;
            return Noted::Counted;
        }
        let operations = HashMap::from([(operation, 1)]);
        let window = Window { since: now, author: Arc::clone(author), operations, others: 0 };
        let before = counted.callers.insert(key, window);
        Noted::First(before.and_then(|before| before.leftover(organization)).map(Box::new))
    }

    /// Writes down what was counted in minutes that are over, or all of it.
    pub(crate) async fn flush(&self, db: &Db, all: bool) {
        let now = db.now();
        let mut over = Vec::new();
        {
            let mut counted = self.lock();
            let ended = counted.callers.iter().filter(|(_, window)| all || now - window.since >= TOGETHER);
            let ended: Vec<_> = ended.map(|(key, _)| key.clone()).collect();
            for key in ended {
                over.extend(counted.callers.remove(&key).and_then(|window| window.leftover(key.0)));
            }
            if counted.others > 0 {
                let mut draft = Draft::new("refusals.repeated");
                draft.ended(Outcome::Denied, format!("{} requests of other callers were refused", counted.others));
                counted.others = 0;
                let author = Arc::new(Author::new(Actor::system()));
                over.push(Leftover { organization: OrganizationId::PLATFORM, author, draft });
            }
        }
        for leftover in over {
            record(db, leftover).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request is refused, told to whoever records it.
#[derive(Debug, Clone)]
pub(crate) struct Reason {
    pub detail: String,
    /// He asks from where nobody may.
    pub barred: bool,
}

/// Writes what was counted down every minute, until the API stops.
pub async fn flush_every_minute(app: crate::App) {
    let mut every = tokio::time::interval(Duration::from_mins(1));
    loop {
        let stopping = app.stopping();
        tokio::select! {
            _ = every.tick() => app.refusals.flush(&app.db, false).await,
            () = stopping => return app.refusals.flush(&app.db, true).await,
        }
    }
}

/// Tells the organization that somebody was not let through from where he asked, as often as that is an entry of its own.
async fn tell_of_barred(db: &Db, about: &About, caller: &Caller) {
    let told = async {
        let mut tx = db.tenant(caller.home()).await?;
        let facts = json!({
            "actor": caller.by().to_string(),
            "address": about.address().map(|address| address.to_string()).unwrap_or_else(|| "unknown".to_owned()),
            "action": about.action(),
        });
        webhooks::emit(&mut tx, PlatformEvent::AccessRefused.name(), facts, &By::platform("defence")).await?;
        Ok::<_, RequestError>(tx.commit().await?)
    };
    if let Err(error) = told.await {
        error!(organization.id = %caller.home(), "Nobody was told of a refusal: {error}");
    }
}

/// A refusal is one whether or not it can be recorded.
async fn record(db: &Db, Leftover { organization, author, draft }: Leftover) {
    let written = async {
        let mut tx = db.tenant(organization).await?.by(author);
        *tx.audit() = draft;
        tx.commit().await
    };
    if let Err(error) = written.await {
        error!(organization.id = %organization, "A refusal was not recorded: {error}");
    }
}
