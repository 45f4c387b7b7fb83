//! A pool serves one queue: slots, fetchers that claim jobs into them, and an apalis worker that runs them.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use apalis_core::error::BoxDynError;
use apalis_core::task::Task;
use apalis_core::worker::Worker;
use apalis_core::worker::builder::WorkerBuilder;
use apalis_core::worker::ext::parallelize::{ParallelizeExt as _, ParallelizeLayer};
use apalis_core::worker::lifecycle::LifecycleFuture;
use futures::future::BoxFuture;
use gantry_jobs::Queue;
use gantry_schema::jobs::settle::Next;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tower::Service;
use tower::layer::util::{Identity, Stack};

use super::backend::{LedgerBackend, Work};
use super::settler::Settler;
use super::{Parts, fetch};
use crate::Runtime;
use crate::execute::{self, Settlement};

/// Fetchers of one queue: while one waits for its claim, the other pops.
const FETCHERS: usize = 2;

type Attempt = LifecycleFuture<BoxFuture<'static, Result<(), Infallible>>>;
type Spawner = fn(Attempt) -> JoinHandle<Result<(), BoxDynError>>;

/// The apalis worker of a queue.
pub(super) type QueueWorker = Worker<Work, LedgerBackend, Executor, Stack<ParallelizeLayer<Spawner>, Identity>>;

/// Builds the worker of a queue and starts its fetchers, which end when `parts.stop` does.
pub(super) fn worker(parts: &Parts, queue: Queue, slots: usize) -> QueueWorker {
    let (sender, claimed) = mpsc::channel(slots);
    let free = Arc::new(Semaphore::new(slots));
    let hand_back = HandBack { runtime: parts.runtime.clone(), settler: parts.settler.clone() };
    for _ in 0..FETCHERS {
        tokio::spawn(fetch::fetch(parts.clone(), queue, Arc::clone(&free), sender.clone(), hand_back.clone()));
    }
    metrics::gauge!("gantry_worker_slots", "queue" => queue.as_str()).set(slots as f64);
    WorkerBuilder::new(format!("{}-{queue}", parts.runtime.worker).as_str())
        .backend(LedgerBackend::new(claimed, hand_back))
        .parallelize(tokio::spawn as Spawner)
        .build(Executor { parts: parts.clone() })
}

/// Returns claimed jobs that were never begun to their queue; the attempt does not count.
#[derive(Debug, Clone)]
pub(super) struct HandBack {
    runtime: Runtime,
    settler: Settler,
}

impl HandBack {
    pub(super) fn take(&self, work: Work) {
        let settlement =
            execute::set_back(&self.runtime, &work.job, Next::Return, "returned", "handed back unstarted".to_owned());
        self.settler.settle_later(settlement);
    }
}

/// The innermost service: runs the attempt and reports its outcome. It never fails, for a worker must not
/// end with a job.
#[derive(Clone)]
pub(super) struct Executor {
    parts: Parts,
}

impl Service<Task<Work>> for Executor {
    type Response = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Work>) -> Self::Future {
        let Parts { runtime, settler, .. } = self.parts.clone();
        Box::pin(async move {
            let Work { job, stopper, slot } = task.args;
            let settlement: Settlement = execute::execute(&runtime, job, stopper).await;
            drop(slot);
            settler.settle(settlement).await;
            Ok(())
        })
    }
}
