//! The feed: what happened, in an order in which nothing appears behind a reader.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gantry_schema::webhooks::events::{self, Filter, Place};
use gantry_schema::{EventId, OrganizationId, TenantTx};
use tokio::time::Instant;

use super::Event;
use crate::app::App;
use crate::error::Error;
use crate::field::{Wrong, text_type};

/// Where a reader of the feed continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// With the oldest event that is kept.
    Beginning,
    /// With what came after this event.
    Event(EventId),
}

impl FromStr for After {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "beginning" {
            return Ok(Self::Beginning);
        }
        text.parse().map(Self::Event).map_err(|_| {
            Wrong(
                "write the id of the last event you have, such as evt_01h455vb4pex5vsknk084sn02q, or beginning".into(),
            )
        })
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::Event(event) => event.fmt(f),
        }
    }
}

text_type!(After, "feed-place", |schema| {
    schema.pattern = Some("^(beginning|evt_[0-7][0-9a-hjkmnp-tv-z]{25})$".into());
    schema.example = Some("beginning".into());
});

impl After {
    /// Where that is.
    ///
    /// # Errors
    /// When the event is not, or no longer, in the feed.
    pub(super) async fn place(self, tx: &mut TenantTx) -> Result<Place, Error> {
        match self {
            Self::Beginning => Ok(Place::BEGINNING),
            Self::Event(event) => events::place(tx, event).await?.ok_or_else(|| {
                let detail = format!("{event} is not in the feed, or no longer: events are kept for 30 days");
                Error::parameter("after", format!("{detail}; continue from a later one, or from the beginning"))
            }),
        }
    }
}

/// How often one request looks at the feed for what it wants, before it says how far it came.
const LOOKS: usize = 50;

/// A page of the feed, and how far it was looked at; waits for something to be in it as long as `patience` lasts.
///
/// # Errors
/// When the place is none.
pub(super) async fn read(
    app: &App,
    organization: OrganizationId,
    filter: &Filter,
    after: After,
    limit: usize,
    patience: Duration,
) -> Result<(Vec<Event>, Option<EventId>), Error> {
    let (deadline, limit) = (Instant::now() + patience, i64::try_from(limit).unwrap_or(i64::MAX));
    let watch = app.signals.watch_events(organization);
    let mut tx = app.db.tenant(organization).await?;
    let beginning = after.place(&mut tx).await?;
    let (mut place, mut looks) = (beginning, 0);
    loop {
        let notified = watch.notified();
        let look = events::feed(&mut tx, filter, place, limit).await?;
        (place, looks) = (look.place, looks + 1);
        let gives_up = if look.is_end { Instant::now() >= deadline || app.is_stopping() } else { looks == LOOKS };
        if !look.events.is_empty() || gives_up {
            let found = look.events.into_iter().map(|placed| placed.event.into()).collect();
            return Ok((found, (place != beginning).then_some(place.event)));
        }
        if !look.is_end {
            continue;
        }
        // What was looked at is not counted while it is waited for more.
        looks = 0;
        drop(tx);
        tokio::select! {
            () = watch.changed(notified) => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = app.stopping() => {}
        }
        tx = app.db.tenant(organization).await?;
    }
}
