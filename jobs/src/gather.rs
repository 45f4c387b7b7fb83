//! One statement for many: what an organization's requests, or its jobs, want of the database at the same moment is done
//! together, because a statement for thirty costs little more than one for one, and a commit no more at all.
//!
//! Nobody waits for company, unless nobody is in a hurry. A lone question goes at once; what is asked while it is answered
//! goes with the next ones. Statements are one organization's, in its scope: what organizations ask is never mixed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_schema::OrganizationId;
use tokio::sync::oneshot;

/// Questions of an organization that wait for the next statement; what does not fit goes its own way.
const MAX_WAITING: usize = 5_000;

/// What can be asked together.
pub trait Together: Send + Sync + 'static {
    /// What one asks.
    type Question: Send + 'static;
    /// What it is told.
    type Answer: Send + 'static;

    /// Questions answered together at most.
    const AT_ONCE: usize;

    /// How long questions wait for company, where the answer is in no hurry.
    const LINGER: Duration = Duration::ZERO;

    /// Answers an organization's questions, in their order.
    fn answer(
        &self,
        organization: OrganizationId,
        questions: Vec<Self::Question>,
    ) -> impl Future<Output = Vec<Self::Answer>> + Send;
}

/// Gathers questions. Cheap to clone.
pub struct Gather<T: Together>(Arc<Inner<T>>);

struct Inner<T: Together> {
    together: T,
    /// An organization is here while somebody answers its questions.
    organizations: Mutex<HashMap<OrganizationId, VecDeque<Waiting<T>>>>,
}

struct Waiting<T: Together> {
    question: T::Question,
    answer: oneshot::Sender<T::Answer>,
}

/// Why a question has no answer.
#[derive(Debug)]
pub enum Unanswered<Q> {
    /// Too many wait; here it is again.
    Crowded(Q),
    /// Answering it, or one beside it, panicked.
    Lost,
}

impl<T: Together> Clone for Gather<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Together> std::fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").field("organizations", &self.organizations().len()).finish_non_exhaustive()
    }
}

impl<T: Together> Gather<T> {
    /// Nobody has asked yet.
    pub fn new(together: T) -> Self {
        Self(Arc::new(Inner { together, organizations: Mutex::default() }))
    }

    /// Asks, and waits for the answer. Whoever stops waiting before the statement begins has asked nothing.
    ///
    /// # Errors
    /// When the question was not answered.
    pub async fn ask(
        &self,
        organization: OrganizationId,
        question: T::Question,
    ) -> Result<T::Answer, Unanswered<T::Question>> {
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { question, answer: sender };
        match self.organizations().entry(organization) {
            Entry::Occupied(others) if others.get().len() >= MAX_WAITING => {
                return Err(Unanswered::Crowded(waiting.question));
            }
            Entry::Occupied(mut others) => others.get_mut().push_back(waiting),
            Entry::Vacant(nobody) => {
                nobody.insert(VecDeque::from([waiting]));
                let turn = Turn { gather: self.clone(), organization };
                tokio::spawn(turn.answer_all());
            }
        }
        answer.await.map_err(|_lost| Unanswered::Lost)
    }

    fn organizations(&self) -> MutexGuard<'_, HashMap<OrganizationId, VecDeque<Waiting<T>>>> {
        self.0.organizations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answering of an organization's questions, until there are none.
struct Turn<T: Together> {
    gather: Gather<T>,
    organization: OrganizationId,
}

impl<T: Together> Turn<T> {
    async fn answer_all(self) {
        loop {
            // What is ready to ask already comes along.
            tokio::task::yield_now().await;
            if !T::LINGER.is_zero() {
                tokio::time::sleep(T::LINGER).await;
            }
            let Some(batch) = self.next_batch() else { return };
            let (questions, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.question, waiting.answer)).unzip();
            if questions.is_empty() {
                continue;
            }
            let answered = self.gather.0.together.answer(self.organization, questions).await;
            for (sender, answer) in answers.into_iter().zip(answered) {
                // Whoever stopped waiting does not want to know.
                drop(sender.send(answer));
            }
        }
    }

    /// Those who still wait; none: the turn is over.
    fn next_batch(&self) -> Option<Vec<Waiting<T>>> {
        let mut organizations = self.gather.organizations();
        let waiting = organizations.get_mut(&self.organization)?;
        if waiting.is_empty() {
            organizations.remove(&self.organization);
            return None;
        }
        let count = waiting.len().min(T::AT_ONCE);
        Some(waiting.drain(..count).filter(|waiting| !waiting.answer.is_closed()).collect())
    }
}

/// After a panic nobody else would answer those who wait: they are told so, and the next one begins anew.
impl<T: Together> Drop for Turn<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.gather.organizations().remove(&self.organization));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    /// Tells each question how many were asked with it, once it may.
    struct Count {
        may: Arc<Semaphore>,
    }

    impl Together for Count {
        type Question = u32;
        type Answer = (OrganizationId, u32, usize);

        const AT_ONCE: usize = 500;

        async fn answer(&self, organization: OrganizationId, questions: Vec<u32>) -> Vec<Self::Answer> {
            self.may.acquire().await.unwrap().forget();
            assert!(!questions.contains(&13), "a panic that the test wants");
            let count = questions.len();
            questions.into_iter().map(|question| (organization, question, count)).collect()
        }
    }

    fn gather(permits: usize) -> (Gather<Count>, Arc<Semaphore>) {
        let may = Arc::new(Semaphore::new(permits));
        (Gather::new(Count { may: Arc::clone(&may) }), may)
    }

    fn organization(number: u128) -> OrganizationId {
        OrganizationId::from_uuid(uuid::Uuid::from_u128(number))
    }

    async fn answered(gather: &Gather<Count>, asks: u128, question: u32) -> (OrganizationId, u32, usize) {
        gather.ask(organization(asks), question).await.expect("an answer")
    }

    #[tokio::test]
    async fn what_is_asked_while_a_statement_runs_goes_with_the_next_one_in_order() {
        let (gather, may) = gather(0);
        let mut first = Box::pin(answered(&gather, 1, 0));
        assert!(first.as_mut().now_or_never().is_none());
        // The first one goes alone.
        while !gather.organizations()[&organization(1)].is_empty() {
            tokio::task::yield_now().await;
        }
        let others = futures::future::join_all((1..=3).map(|question| answered(&gather, 1, question)));
        let mut others = Box::pin(others);
        assert!(others.as_mut().now_or_never().is_none());
        may.add_permits(2);
        assert_eq!(first.await, (organization(1), 0, 1));
        let expected: Vec<_> = (1..=3).map(|question| (organization(1), question, 3)).collect();
        assert_eq!(others.await, expected);
        // Nothing is kept of who asked.
        while !gather.organizations().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn organizations_are_never_in_one_statement_and_do_not_wait_for_each_other() {
        let (gather, may) = gather(0);
        let mut both = Box::pin(futures::future::join(answered(&gather, 1, 1), answered(&gather, 2, 2)));
        assert!(both.as_mut().now_or_never().is_none());
        may.add_permits(2);
        assert_eq!(both.await, ((organization(1), 1, 1), (organization(2), 2, 1)));
    }

    #[tokio::test]
    async fn who_stops_waiting_before_the_statement_has_asked_nothing() {
        let (gather, may) = gather(1);
        let mut gone = Box::pin(answered(&gather, 1, 1));
        assert!(gone.as_mut().now_or_never().is_none());
        let stays = answered(&gather, 1, 2);
        drop(gone);
        assert_eq!(stays.await, (organization(1), 2, 1));
        assert_eq!(may.available_permits(), 0, "one statement was enough");
    }

    #[tokio::test]
    async fn more_than_can_wait_get_their_question_back() {
        let (gather, may) = gather(0);
        let full = u32::try_from(MAX_WAITING).unwrap();
        let mut asked: Vec<_> = (100..100 + full).map(|question| Box::pin(answered(&gather, 1, question))).collect();
        for waiting in &mut asked {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert!(matches!(gather.ask(organization(1), 7).await, Err(Unanswered::Crowded(7))));
        may.add_permits(MAX_WAITING / Count::AT_ONCE);
        for (waiting, question) in asked.into_iter().zip(100..) {
            assert_eq!(waiting.await, (organization(1), question, Count::AT_ONCE), "batches are bounded");
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_to_who_waits_and_the_next_one_is_answered() {
        let (gather, _may) = gather(9);
        let both = futures::future::join(gather.ask(organization(1), 13), gather.ask(organization(1), 1)).await;
        assert!(matches!(both, (Err(Unanswered::Lost), Err(Unanswered::Lost))));
        assert_eq!(answered(&gather, 1, 2).await, (organization(1), 2, 1));
    }
}
