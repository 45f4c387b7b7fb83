//! How much is done at the same time. What comes beyond is refused at once with 503 and `Retry-After`, before it
//! takes any memory; health is always answered.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use poem::http::header;
use poem::{Body, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error};

/// Bodies are counted in these.
const KIB: usize = 1024;

/// How much is done at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that are being worked on.
    pub requests: NonZeroU32,
    /// Requests that wait for a job or stream news.
    pub waiting: NonZeroU32,
    /// MiB of bodies of requests that are being worked on.
    pub body_mib: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { requests: number(512), waiting: number(10_000), body_mib: number(128) }
    }
}

/// What a request takes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Nothing worth counting: health.
    None,
    /// A connection to the database, and work.
    Work,
    /// A place to wait in.
    Waiting,
}

/// What is being done at this moment.
#[derive(Debug)]
pub(crate) struct Load {
    requests: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// In KiB.
    bodies: Arc<Semaphore>,
}

impl Load {
    pub(crate) fn within(limits: Limits) -> Self {
        let places = |count: NonZeroU32| Arc::new(Semaphore::new(count.get() as usize));
        let kib = (limits.body_mib.get() as usize).saturating_mul(KIB).min(Semaphore::MAX_PERMITS);
        Self {
            requests: places(limits.requests),
            waiting: places(limits.waiting),
            bodies: Arc::new(Semaphore::new(kib)),
        }
    }

    /// Lets a request in.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(crate) fn admit(&self, weight: Weight) -> Result<Admitted, Error> {
        let (places, what) = match weight {
            Weight::None => return Ok(Admitted(None)),
            Weight::Work => (&self.requests, "requests"),
            Weight::Waiting => (&self.waiting, "waiting"),
        };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => Ok(Admitted(Some(place))),
            Err(_) => Err(overloaded(what)),
        }
    }

    /// Where the body of one request is accounted for.
    pub(crate) fn room(&self) -> BodyRoom {
        BodyRoom { bodies: Arc::clone(&self.bodies), held: Arc::default() }
    }
}

pub(crate) fn overloaded(what: &'static str) -> Error {
    metrics::counter!("gantry_api_shed_total", "what" => what).increment(1);
    Error::new(
        Code::Overloaded,
        "more is asked for at the moment than can be done; nothing was done of this, try again in a second",
    )
}

/// A request that was let in, until it is answered.
#[derive(Debug)]
pub(crate) struct Admitted(Option<OwnedSemaphorePermit>);

impl Admitted {
    /// Ends with the answer; with a stream, when that ends.
    pub(crate) fn until_sent(self, mut response: Response) -> Response {
        let streams = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|of| of.as_bytes().starts_with(b"text/event-stream"));
        if streams && self.0.is_some() {
            let body = response.take_body().into_bytes_stream();
            response.set_body(Body::from_bytes_stream(body.map(move |part| {
                let _: &Self = &self;
                part
            })));
        }
        response
    }
}

/// Accounts for the body of one request until that was answered.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom {
    bodies: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl BodyRoom {
    /// Takes room for so many bytes.
    ///
    /// # Errors
    /// When there is none at the moment.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Error> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bodies).try_acquire_many_owned(kib).map_err(|_| overloaded("bodies"))?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(room);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Load {
        let one = NonZeroU32::MIN;
        Load::within(Limits { requests: one, waiting: one, body_mib: one })
    }

    #[test]
    fn what_works_and_what_waits_have_places_of_their_own() {
        let load = small();
        let working = load.admit(Weight::Work).unwrap();
        let waiting = load.admit(Weight::Waiting).unwrap();
        for weight in [Weight::Work, Weight::Waiting] {
            assert_eq!(load.admit(weight).unwrap_err().code(), Code::Overloaded);
        }
        assert!(load.admit(Weight::None).is_ok(), "health is answered whatever happens");
        drop((working, waiting));
        assert!(load.admit(Weight::Work).is_ok() && load.admit(Weight::Waiting).is_ok());
    }

    #[test]
    fn bodies_have_room_until_their_request_is_answered() {
        let load = small();
        let (first, second) = (load.room(), load.room());
        first.take(1_000 * KIB).unwrap();
        assert_eq!(second.take(25 * KIB).unwrap_err().code(), Code::Overloaded);
        second.take(24 * KIB).unwrap();
        drop(first);
        load.room().take(1_000 * KIB).unwrap();
        assert!(load.room().take(usize::MAX).is_err());
    }

    #[tokio::test]
    async fn a_stream_keeps_its_place_until_it_ends() {
        let load = small();
        let stream = || Response::builder().content_type("text/event-stream").body("data: 1\n\n");
        let sent = load.admit(Weight::Waiting).unwrap().until_sent(stream());
        assert!(load.admit(Weight::Waiting).is_err());
        assert_eq!(sent.into_body().into_string().await.unwrap(), "data: 1\n\n");
        assert!(load.admit(Weight::Waiting).is_ok());
    }
}
