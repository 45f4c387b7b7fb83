//! Doing together what several jobs of one organization want from the database at the same time: one transaction for
//! all of them instead of one each. Nothing waits for company: a lone job goes at once, and what arrives while it is
//! served goes next, together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gantry_schema::OrganizationId;
use tokio::sync::oneshot;

use crate::Failure;

/// Served in one transaction at most.
const MAX_BATCH: usize = 256;

/// What jobs of each organization wait for.
#[derive(Debug)]
pub(crate) struct Gather<T, R>(Mutex<HashMap<OrganizationId, Vec<Asked<T, R>>>>);

#[derive(Debug)]
struct Asked<T, R> {
    what: T,
    answer: oneshot::Sender<Result<R, Arc<sqlx::Error>>>,
}

/// What was done together did not work.
#[derive(Debug, Clone, thiserror::Error)]
enum Together {
    #[error("working together with other jobs")]
    Database(#[source] Arc<sqlx::Error>),
    #[error("the work was given up together with other jobs")]
    Dropped,
}

impl<T, R> Default for Gather<T, R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static, R: Send + 'static> Gather<T, R> {
    /// Has something done, together with whatever others of the organization ask for meanwhile. `run` answers each in
    /// their order.
    ///
    /// # Errors
    /// When the database refuses or went away: for everybody who was served together.
    pub(crate) async fn ask<F>(
        self: &Arc<Self>,
        organization: OrganizationId,
        what: T,
        run: impl Fn(Vec<T>) -> F + Send + Sync + 'static,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<Vec<R>, sqlx::Error>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        let leads = {
            let mut waiting = self.lock();
            let others = waiting.get_mut(&organization);
            let asked = Asked { what, answer };
            match others {
                Some(others) => {
                    others.push(asked);
                    false
                }
                None => waiting.insert(organization, vec![asked]).is_none(),
            }
        };
        if leads {
            let serving = Serving { gather: Arc::clone(self), organization };
            tokio::spawn(async move { serving.all(run).await });
        }
        match answered.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::retry(Together::Database(error))),
            Err(_dropped) => Err(Failure::retry(Together::Dropped)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OrganizationId, Vec<Asked<T, R>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that serves an organization. However it ends, nobody is left waiting for it.
struct Serving<T: Send + 'static, R: Send + 'static> {
    gather: Arc<Gather<T, R>>,
    organization: OrganizationId,
}

impl<T: Send + 'static, R: Send + 'static> Serving<T, R> {
    async fn all<F>(self, run: impl Fn(Vec<T>) -> F + Send + Sync)
    where
        F: Future<Output = Result<Vec<R>, sqlx::Error>> + Send,
    {
        loop {
            let batch = {
                let mut waiting = self.gather.lock();
                let Some(asked) = waiting.get_mut(&self.organization).filter(|asked| !asked.is_empty()) else {
                    waiting.remove(&self.organization);
                    return;
                };
                let count = asked.len().min(MAX_BATCH);
                asked.drain(..count).collect::<Vec<_>>()
            };
            let (what, answers): (Vec<T>, Vec<_>) = batch.into_iter().map(|asked| (asked.what, asked.answer)).unzip();
            match run(what).await {
                Ok(results) => {
                    for (answer, result) in answers.into_iter().zip(results) {
                        // Who no longer waits does not mind.
                        drop(answer.send(Ok(result)));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for answer in answers {
                        drop(answer.send(Err(Arc::clone(&error))));
                    }
                }
            }
        }
    }
}

impl<T: Send + 'static, R: Send + 'static> Drop for Serving<T, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gather.lock().remove(&self.organization);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const ONE: OrganizationId = OrganizationId::PLATFORM;

    #[tokio::test]
    async fn what_is_asked_for_meanwhile_is_done_together_and_everybody_gets_his_own_answer() {
        let (gather, batches) = (Arc::new(Gather::<u32, u32>::default()), Arc::new(AtomicUsize::new(0)));
        let ask = |number: u32| {
            let (gather, batches) = (Arc::clone(&gather), Arc::clone(&batches));
            async move {
                let run = move |numbers: Vec<u32>| {
                    batches.fetch_add(1, Ordering::Relaxed);
                    async move { Ok(numbers.into_iter().map(|number| number * 2).collect()) }
                };
                gather.ask(ONE, number, run).await.unwrap()
            }
        };
        let answers = futures::future::join_all((0..100).map(ask)).await;
        assert_eq!(answers, (0..100).map(|number| number * 2).collect::<Vec<_>>());
        assert_eq!(batches.load(Ordering::Relaxed), 1, "all were asked for before the first was served");
        assert!(gather.lock().is_empty());
    }

    #[tokio::test]
    async fn a_failure_and_a_panic_are_told_to_everybody_and_leave_nobody_waiting() {
        let gather = Arc::new(Gather::<(), ()>::default());
        let fails = |_: Vec<()>| async { Err(sqlx::Error::PoolTimedOut) };
        let (first, second) = tokio::join!(gather.ask(ONE, (), fails), gather.ask(ONE, (), fails));
        assert!(first.is_err() && second.is_err());
        let panics = |_: Vec<()>| async { panic!("the story wants it so") };
        assert!(gather.ask(ONE, (), panics).await.is_err());
        assert!(gather.lock().is_empty());
    }
}
