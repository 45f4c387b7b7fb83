//! One look at a job for all who follow it: a thousand clients of one deployment cost the ledger what one does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_jobs::signals::Watch;
use gantry_schema::jobs::Job;
use gantry_schema::jobs::control;
use gantry_schema::jobs::log::{self, Line};
use gantry_schema::{JobId, OrganizationId};
use tokio::sync::watch;
use tracing::warn;

use super::follow::{LINES, Place};
use crate::app::App;

/// Lines that are kept for those who were not listening a moment ago.
const KEPT: usize = 200;

/// What was seen of a job.
#[derive(Debug)]
pub(super) struct Seen {
    /// The job.
    pub(super) job: Arc<Job>,
    /// More lines follow than were read.
    pub(super) more: bool,
    /// The last lines, in order.
    lines: Vec<Arc<Line>>,
    /// All lines after this are there.
    from: Place,
}

impl Seen {
    /// The lines after a place; none: there were some before those that are kept.
    pub(super) fn after(&self, place: Place) -> Option<Vec<Arc<Line>>> {
        let first = self.lines.partition_point(|line| Place::of(line) <= place);
        (self.from <= place).then(|| self.lines[first..].to_vec())
    }

    /// What is seen now, with the lines of before as far as they are kept.
    fn then(&self, job: Job, new: Vec<Line>, more: bool) -> Self {
        let mut lines = self.lines.clone();
        lines.extend(new.into_iter().map(Arc::new));
        let over = lines.len().saturating_sub(KEPT);
        let from = lines.drain(..over).next_back().map_or(self.from, |line| Place::of(&line));
        Self { job: Arc::new(job), more, lines, from }
    }

    fn end(&self) -> Place {
        self.lines.last().map_or(self.from, |line| Place::of(line))
    }

    fn is_news_after(&self, before: &Self) -> bool {
        let told = |seen: &Self| (seen.job.state, seen.job.attempt, seen.more, seen.end());
        told(self) != told(before) || self.job.progress != before.job.progress
    }
}

type Sender = watch::Sender<Option<Arc<Seen>>>;

type Followed = HashMap<(OrganizationId, JobId), Arc<Sender>>;

/// The jobs that are followed in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFeeds(Arc<Mutex<Followed>>);

impl JobFeeds {
    /// What is seen of a job from now on. Whoever follows it first says from where on its lines are read.
    pub(super) fn of(
        &self,
        app: &App,
        organization: OrganizationId,
        job: JobId,
        place: Place,
    ) -> watch::Receiver<Option<Arc<Seen>>> {
        match self.lock().entry((organization, job)) {
            Entry::Occupied(feed) => feed.get().subscribe(),
            Entry::Vacant(nobody) => {
                let (sender, receiver) = watch::channel(None);
                let sender = Arc::clone(nobody.insert(Arc::new(sender)));
                let feed = Feed { feeds: self.clone(), organization, job, sender };
                tokio::spawn(feed.run(app.clone(), app.signals.watch(job), place));
                receiver
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Feed {
    feeds: JobFeeds,
    organization: OrganizationId,
    job: JobId,
    sender: Arc<Sender>,
}

impl Feed {
    /// Looks whenever there is news, until the job ended or nobody follows it.
    async fn run(self, app: App, watch: Watch, from: Place) {
        let mut before: Option<Arc<Seen>> = None;
        while !self.is_left() {
            let notified = watch.notified();
            let place = before.as_ref().map_or(from, |seen| seen.end());
            match self.look(&app, place).await {
                Ok(None) => return,
                Ok(Some((job, lines))) => {
                    let (ended, more) = (job.state.is_final(), lines.len() == usize::from(LINES));
                    let seen = match &before {
                        Some(before) => before.then(job, lines, more),
                        None => {
                            Seen { job: Arc::new(job), more, lines: lines.into_iter().map(Arc::new).collect(), from }
                        }
                    };
                    if before.as_ref().is_none_or(|before| seen.is_news_after(before)) {
                        let seen = before.insert(Arc::new(seen));
                        self.sender.send_replace(Some(Arc::clone(seen)));
                    }
                    if more {
                        continue;
                    }
                    if ended {
                        return;
                    }
                }
                // Weathered: clients keep their streams.
                Err(error) => warn!(job.id = %self.job, "Following a job, the ledger did not answer: {error}"),
            }
            if app.is_stopping() {
                return;
            }
            tokio::select! {
                () = watch.changed(notified) => {}
                () = self.sender.closed() => {}
                () = app.stopping() => {}
            }
        }
    }

    async fn look(&self, app: &App, place: Place) -> Result<Option<(Job, Vec<Line>)>, sqlx::Error> {
        let mut tx = app.db.tenant(self.organization).await?;
        // The job first: lines that are written in between belong to news still to come.
        let Some(found) = control::find(&mut tx, self.job).await? else { return Ok(None) };
        let lines = log::after(&mut tx, self.job, place.attempt, place.line, LINES.into()).await?;
        Ok(Some((found, lines)))
    }

    /// Nobody follows any more; nobody can begin to in between, for then the feed is not found.
    fn is_left(&self) -> bool {
        let mut feeds = self.feeds.lock();
        let left = self.sender.receiver_count() == 0;
        if left {
            feeds.remove(&(self.organization, self.job));
        }
        left
    }
}

/// However it ends, whoever follows the job next begins anew.
impl Drop for Feed {
    fn drop(&mut self) {
        let mut feeds = self.feeds.lock();
        if let Entry::Occupied(feed) = feeds.entry((self.organization, self.job))
            && Arc::ptr_eq(feed.get(), &self.sender)
        {
            feed.remove();
        }
    }
}
