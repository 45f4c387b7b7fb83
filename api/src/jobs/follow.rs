//! Following a job as it happens: server-sent events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use gantry_schema::jobs::log::{self, Line};
use gantry_schema::jobs::{self, State};
use gantry_schema::{JobId, OrganizationId};
use poem::web::sse::Event;
use poem_openapi::payload::EventStream;
use poem_openapi::types::{Any, ToJSON as _};
use poem_openapi::{Enum, Object};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::answer::JobState;
use super::feed::Seen;
use crate::app::App;
use crate::error::Error;
use crate::example::example;
use crate::field::{Moment, Wrong, text_type};

/// A stream ends after this, so that a key that was revoked does not see for ever. Clients connect again.
const LONGEST: Duration = Duration::from_mins(15);

/// Proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Lines read at once.
pub(super) const LINES: u16 = 500;

/// News of a job.
#[derive(Debug, Clone, Object)]
#[oai(rename = "JobNews", example)]
pub struct News {
    /// What kind of news; also the name of the event.
    pub event: NewsKind,
    /// Where the job is in its life.
    #[oai(skip_serializing_if_is_none)]
    pub state: Option<JobState>,
    /// In which attempt.
    pub attempt: i32,
    /// How far it is, in its handler's words.
    #[oai(skip_serializing_if_is_none)]
    pub progress: Option<Any<Value>>,
    /// A line's number in its attempt.
    #[oai(skip_serializing_if_is_none)]
    pub line: Option<i32>,
    /// When the line was written.
    #[oai(skip_serializing_if_is_none)]
    pub at: Option<Moment>,
    /// What the line says.
    #[oai(skip_serializing_if_is_none)]
    pub message: Option<String>,
    #[oai(skip)]
    place: Place,
}

example!(News, { "event": "progress", "attempt": 1, "progress": { "steps": 2 } });

/// What kind of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
#[oai(rename = "JobNewsKind")]
pub enum NewsKind {
    /// The job's state or attempt changed.
    State,
    /// The handler said how far it is.
    Progress,
    /// The handler wrote a line.
    Log,
}

impl NewsKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Progress => "progress",
            Self::Log => "log",
        }
    }
}

/// The last line a client has: attempt and number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) attempt: i32,
    pub(super) line: i32,
}

impl Place {
    /// The place of a line.
    pub(super) const fn of(line: &Line) -> Self {
        Self { attempt: line.attempt, line: line.line }
    }
}

impl FromStr for Place {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let parts = text.split_once('-').and_then(|(attempt, line)| Some((attempt.parse().ok()?, line.parse().ok()?)));
        parts
            .map(|(attempt, line)| Self { attempt, line })
            .ok_or_else(|| Wrong("this is no event id of this stream; send the last one received, or none".into()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.attempt, self.line)
    }
}

text_type!(Place, "event-id", |schema| {
    schema.example = Some("1-17".into());
});

/// Follows a job from a place on.
///
/// # Errors
/// When there is no such job.
pub(super) async fn follow(
    app: &App,
    organization: OrganizationId,
    job: JobId,
    place: Place,
) -> Result<EventStream<BoxStream<'static, News>>, Error> {
    super::together::look(app, organization, job).await?;
    let follower = Follower {
        feed: app.job_feeds.of(app, organization, job, place),
        app: app.clone(),
        organization,
        job,
        place,
        told: None,
        progress: None,
        deadline: Instant::now() + LONGEST,
        ended: false,
    };
    let batches = stream::unfold(follower, |mut follower| async move {
        let batch = follower.next().await?;
        Some((stream::iter(batch), follower))
    });
    let to_event =
        |news: News| Event::message(news.to_json_string()).event_type(news.event.as_str()).id(news.place.to_string());
    Ok(EventStream::new(batches.flatten().boxed()).keep_alive(KEEP_ALIVE).to_event(to_event))
}

struct Follower {
    app: App,
    organization: OrganizationId,
    job: JobId,
    feed: watch::Receiver<Option<Arc<Seen>>>,
    place: Place,
    /// The state and attempt last told.
    told: Option<(State, i32)>,
    /// The job whose progress was last told.
    progress: Option<Arc<jobs::Job>>,
    deadline: Instant,
    ended: bool,
}

impl Follower {
    /// Waits for news; none: the stream is over.
    async fn next(&mut self) -> Option<Vec<News>> {
        let mut over = false;
        while !self.ended {
            let seen = self.feed.borrow_and_update().clone();
            let (mut behind, looked) = (false, seen.is_some());
            if let Some(seen) = seen {
                let missed = match seen.after(self.place) {
                    Some(lines) => Some(lines),
                    // Boxed: few need it, and all would carry its size.
                    None => Box::pin(self.catch_up()).await,
                };
                // Where the ledger does not answer, what is missing is asked for with the next news.
                if let Some(lines) = missed {
                    behind = lines.len() == usize::from(LINES);
                    let more = behind || seen.more;
                    let batch = news(&seen.job, &lines, &mut self.place, &mut self.told, &mut self.progress, more);
                    self.ended = seen.job.state.is_final() && !more;
                    if !batch.is_empty() {
                        return Some(batch);
                    }
                }
            }
            // The first look is under way, and ends soon.
            let stops = looked && self.app.is_stopping();
            if self.ended || over || stops || Instant::now() >= self.deadline {
                return None;
            }
            if behind {
                continue;
            }
            tokio::select! {
                // Whoever feeds ends with the job; what it saw last is still to be told.
                changed = self.feed.changed() => over = changed.is_err(),
                () = self.app.stopping(), if looked => {}
                () = tokio::time::sleep_until(self.deadline) => {}
            }
        }
        None
    }

    /// The lines that were written before the feed's.
    async fn catch_up(&self) -> Option<Vec<Arc<Line>>> {
        let lines = async {
            let mut tx = self.app.db.tenant(self.organization).await?;
            log::after(&mut tx, self.job, self.place.attempt, self.place.line, LINES.into()).await
        };
        match lines.await {
            Ok(lines) => Some(lines.into_iter().map(Arc::new).collect()),
            Err(error) => {
                warn!(job.id = %self.job, "Following a job, the ledger did not answer: {error}");
                None
            }
        }
    }
}

/// What a client does not know yet. Where more lines follow, the end waits for them.
fn news(
    job: &Arc<jobs::Job>,
    lines: &[Arc<Line>],
    place: &mut Place,
    told: &mut Option<(State, i32)>,
    progress: &mut Option<Arc<jobs::Job>>,
    more: bool,
) -> Vec<News> {
    let empty = News {
        event: NewsKind::Log,
        state: None,
        attempt: job.attempt,
        progress: None,
        line: None,
        at: None,
        message: None,
        place: *place,
    };
    let mut batch = Vec::new();
    let state = Some((job.state, job.attempt));
    let state_news =
        |place: Place| News { event: NewsKind::State, state: Some(job.state.into()), place, ..empty.clone() };
    if *told != state && !job.state.is_final() {
        batch.push(state_news(*place));
        *told = state;
    }
    for line in lines {
        *place = Place::of(line);
        batch.push(News {
            attempt: line.attempt,
            line: Some(line.line),
            at: Some(line.at.into()),
            message: Some(line.message.clone()),
            place: *place,
            ..empty.clone()
        });
    }
    if job.progress.is_some() && progress.as_ref().is_none_or(|told| told.progress != job.progress) {
        *progress = Some(Arc::clone(job));
        let progress = job.progress.clone().map(Any);
        batch.push(News { event: NewsKind::Progress, progress, place: *place, ..empty.clone() });
    }
    if *told != state && !more {
        batch.push(state_news(*place));
        *told = state;
    }
    batch
}
