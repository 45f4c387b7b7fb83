//! Our backend for apalis: it hands out what the fetchers have claimed, and nothing more.

use std::convert::Infallible;
use std::task::{Context, Poll};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tower::layer::util::Identity;

use gantry_schema::jobs::claim::Claimed;

use super::pool::HandBack;
use crate::execute::Stopper;

/// A claimed job on its way to its handler, in the slot it was claimed for.
#[derive(Debug)]
pub(super) struct Work {
    pub job: Claimed,
    pub stopper: Stopper,
    pub slot: OwnedSemaphorePermit,
}

/// The claimed jobs of one queue.
#[derive(Debug)]
pub(super) struct LedgerBackend {
    claimed: mpsc::Receiver<Work>,
    hand_back: HandBack,
}

impl LedgerBackend {
    pub(super) const fn new(claimed: mpsc::Receiver<Work>, hand_back: HandBack) -> Self {
        Self { claimed, hand_back }
    }
}

impl Backend for LedgerBackend {
    type Task = Task<Work>;
    type Error = Infallible;

    fn poll_ready(&mut self, _cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        _worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<Work>, Infallible>>> {
        self.claimed.poll_recv(cx).map(|work| work.map(|work| Ok(Task::new(work))))
    }

    /// What was claimed and not begun goes back; a claim that is just arriving finds the channel closed.
    fn poll_close(&mut self, cx: &mut Context<'_>, _worker: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.claimed.close();
        while let Poll::Ready(Some(work)) = self.claimed.poll_recv(cx) {
            self.hand_back.take(work);
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for LedgerBackend {
    type Args = Work;
    type Id = TaskId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _worker: &mut WorkerContext) -> Identity {
        Identity::new()
    }
}
