//! Hashing passwords off the async threads, and few at a time: each takes 19 MiB and a core for tens of milliseconds, so
//! more of them than there are cores would make all of them late.

use std::fmt;
use std::sync::{Arc, OnceLock};

use gantry_schema::people::hashing::{HashError, Hasher};
use tokio::sync::Semaphore;

use crate::error::{Code, Error};
use crate::load::overloaded;

/// Requests that wait for their turn, for each that has it; more are refused at once.
const WAITING: usize = 16;

/// Keeps passwords. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    hasher: Arc<OnceLock<Hasher>>,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("turns", &self.turns).finish_non_exhaustive()
    }
}

impl Default for Passwords {
    fn default() -> Self {
        let turns = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            hasher: Arc::default(),
            turns: Arc::new(Semaphore::new(turns)),
            places: Arc::new(Semaphore::new(turns * (WAITING + 1))),
        }
    }
}

impl Passwords {
    /// With this hasher.
    pub(crate) fn kept_by(hasher: Hasher) -> Self {
        Self { hasher: Arc::new(OnceLock::from(hasher)), ..Self::default() }
    }

    /// Does what takes long, when it is its turn.
    ///
    /// # Errors
    /// When too many wait, or what is done fails.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hasher) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Error> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| overloaded("passwords"))?;
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let hasher = Arc::clone(&self.hasher);
        let done = tokio::task::spawn_blocking(move || {
            // Held until it is done, also when nobody waits for it any more.
            let _held = (place, turn);
            if let Some(hasher) = hasher.get() {
                return work(hasher);
            }
            let made = Hasher::new(None, &mut rand::rng())?;
            work(hasher.get_or_init(|| made))
        });
        let lost = |error: tokio::task::JoinError| {
            Error::new(Code::Internal, "it was noted; tell us the request_id if it happens again").because(error)
        };
        Ok(done.await.map_err(lost)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_than_can_wait_are_refused_at_once_and_the_others_get_their_turn() {
        let hasher = Hasher::costing((8, 1, 1), None, &mut rand::rng()).unwrap();
        let passwords = Passwords {
            turns: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(2)),
            ..Passwords::kept_by(hasher)
        };
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let passwords = passwords.clone();
            async move {
                passwords
                    .run(move |_| {
                        begun.recv().ok();
                        Ok(1)
                    })
                    .await
            }
        });
        let second = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(|_| Ok(2)).await }
        });
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.run(|_| Ok(3)).await.unwrap_err().code(), Code::Overloaded);
        begin.send(()).unwrap();
        assert_eq!((first.await.unwrap().unwrap(), second.await.unwrap().unwrap()), (1, 2));
        assert_eq!(passwords.run(|_| Ok(4)).await.unwrap(), 4);
    }
}
