//! The feed as server-sent events. However many clients follow an organization's events, they are read once, and
//! written as JSON once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use gantry_schema::OrganizationId;
use gantry_schema::webhooks::events::{self, Filter, Place};
use poem::web::sse::Event as Message;
use poem_openapi::payload::EventStream;
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ToJSON, Type};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tracing::warn;

use super::{After, Event};
use crate::app::App;
use crate::error::Error;

/// A stream ends after this, so that a key that was revoked does not see for ever. Clients connect again.
const LONGEST: Duration = Duration::from_mins(15);

/// Proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events read at once.
const BATCH: i64 = 200;

/// Batches a client may be behind before it reads for itself.
const BEHIND: usize = 16;

/// What a stream tells.
pub(crate) type Told = BoxStream<'static, Arc<Line>>;

/// An event as it is sent, with where it stands.
#[derive(Debug)]
pub(crate) struct Line {
    place: Place,
    r#type: String,
    channels: Vec<String>,
    json: String,
}

impl Line {
    fn of(placed: events::Placed) -> Self {
        let (r#type, channels) = (placed.event.r#type.clone(), placed.event.channels.clone());
        Self { place: placed.place, r#type, channels, json: Event::from(placed.event).to_json_string() }
    }

    /// As the database decides it.
    fn is_wanted(&self, filter: &Filter) -> bool {
        let wants = |pattern: &String| {
            *pattern == self.r#type
                || pattern.strip_suffix('*').is_some_and(|beginning| self.r#type.starts_with(beginning))
        };
        (filter.types.is_empty() || filter.types.iter().any(wants))
            && filter.channel.as_ref().is_none_or(|channel| self.channels.contains(channel))
    }
}

/// In the document, an event.
impl Type for Line {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        Event::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        Event::schema_ref()
    }

    fn register(registry: &mut Registry) {
        Event::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for Line {
    fn to_json(&self) -> Option<Value> {
        serde_json::from_str(&self.json).ok()
    }
}

/// The feeds that somebody follows, one reader for each organization.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Mutex<HashMap<OrganizationId, Weak<Feed>>>);

/// An organization's feed from when somebody began to follow it.
#[derive(Debug)]
struct Feed {
    batches: broadcast::Sender<Arc<[Arc<Line>]>>,
    /// Everything up to here was sent; what comes after is sent to whoever listens by then.
    head: Mutex<Place>,
}

impl Feed {
    /// Listens from now on. What came up to the place is to be read by the listener itself.
    fn listen(&self) -> (broadcast::Receiver<Arc<[Arc<Line>]>>, Place) {
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        (self.batches.subscribe(), *head)
    }

    fn send(&self, lines: Vec<Arc<Line>>) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = lines.last() {
            *head = last.place;
        }
        // Nobody may listen at the moment.
        drop(self.batches.send(lines.into()));
    }
}

/// The organization's feed, with its reader running.
async fn feed(app: &App, organization: OrganizationId) -> Result<Arc<Feed>, Error> {
    let known = |feeds: &HashMap<OrganizationId, Weak<Feed>>| feeds.get(&organization).and_then(Weak::upgrade);
    if let Some(feed) = known(&app.feeds.0.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(feed);
    }
    let mut tx = app.db.tenant(organization).await?;
    let head = events::end_of_feed(&mut tx).await?;
    tx.rollback().await?;
    let mut feeds = app.feeds.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(feed) = known(&feeds) {
        return Ok(feed);
    }
    feeds.retain(|_, feed| feed.strong_count() > 0);
    let feed = Arc::new(Feed { batches: broadcast::Sender::new(BEHIND), head: Mutex::new(head) });
    feeds.insert(organization, Arc::downgrade(&feed));
    tokio::spawn(read_on(app.clone(), organization, Arc::downgrade(&feed), head));
    Ok(feed)
}

/// Reads an organization's feed for everybody who follows it, until nobody does.
async fn read_on(app: App, organization: OrganizationId, feed: Weak<Feed>, mut place: Place) {
    let watch = app.signals.watch_events(organization);
    while feed.strong_count() > 0 && !app.is_stopping() {
        let notified = watch.notified();
        match read(&app, organization, place).await {
            Ok(lines) if lines.is_empty() => watch.changed(notified).await,
            Ok(lines) => {
                place = lines.last().map_or(place, |line| line.place);
                let Some(feed) = feed.upgrade() else { return };
                feed.send(lines);
            }
            Err(error) => {
                warn!("Following events, the ledger did not answer: {error}");
                watch.changed(notified).await;
            }
        }
    }
}

async fn read(app: &App, organization: OrganizationId, after: Place) -> Result<Vec<Arc<Line>>, sqlx::Error> {
    let mut tx = app.db.tenant(organization).await?;
    let found = events::feed(&mut tx, &Filter::default(), after, BATCH).await?.events;
    tx.rollback().await?;
    Ok(found.into_iter().map(|placed| Arc::new(Line::of(placed))).collect())
}

/// Follows the feed from a place on, or from now.
///
/// # Errors
/// When the place is none.
pub(super) async fn follow(
    app: &App,
    organization: OrganizationId,
    filter: Filter,
    after: Option<After>,
) -> Result<EventStream<Told>, Error> {
    let feed = feed(app, organization).await?;
    let (batches, head) = feed.listen();
    let place = match after {
        None => head,
        Some(after) => {
            let mut tx = app.db.tenant(organization).await?;
            after.place(&mut tx).await?
        }
    };
    let follower =
        Follower { app: app.clone(), organization, filter, feed, batches, head, place, ends: Instant::now() + LONGEST };
    let batches = stream::unfold(follower, |mut follower| async move {
        let lines = follower.next().await?;
        Some((stream::iter(lines), follower))
    });
    let to_event =
        |line: Arc<Line>| Message::message(line.json.as_str()).event_type("event").id(line.place.event.to_string());
    Ok(EventStream::new(batches.flatten().boxed()).keep_alive(KEEP_ALIVE).to_event(to_event))
}

struct Follower {
    app: App,
    organization: OrganizationId,
    filter: Filter,
    feed: Arc<Feed>,
    batches: broadcast::Receiver<Arc<[Arc<Line>]>>,
    /// What comes up to here is read by the follower itself; what comes after, it hears.
    head: Place,
    /// Everything up to here was told.
    place: Place,
    ends: Instant,
}

impl Follower {
    /// Waits for what is to be told; none: the stream is over.
    async fn next(&mut self) -> Option<Vec<Arc<Line>>> {
        loop {
            let lines = if self.place < self.head {
                match read(&self.app, self.organization, self.place).await {
                    Ok(lines) if lines.is_empty() => {
                        self.place = self.head;
                        continue;
                    }
                    Ok(lines) => lines,
                    Err(error) => {
                        warn!("Following events, the ledger did not answer: {error}");
                        // The client connects again, and continues where it is.
                        return None;
                    }
                }
            } else {
                tokio::select! {
                    heard = self.batches.recv() => match heard {
                        Ok(lines) => lines.to_vec(),
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            (self.batches, self.head) = self.feed.listen();
                            continue;
                        }
                        Err(broadcast::error::RecvError::Closed) => return None,
                    },
                    () = tokio::time::sleep_until(self.ends) => return None,
                    () = self.app.stopping() => return None,
                }
            };
            let place = self.place;
            self.place = lines.last().map_or(place, |line| line.place.max(place));
            let wanted: Vec<Arc<Line>> =
                lines.into_iter().filter(|line| line.place > place && line.is_wanted(&self.filter)).collect();
            if !wanted.is_empty() {
                return Some(wanted);
            }
        }
    }
}
