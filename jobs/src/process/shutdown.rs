//! The signal to stop: the first one asks, the second one insists.

use std::io;

use futures::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// The status of a process that a second signal ended, as shells have it for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Listens from now on, and resolves at the first SIGTERM or SIGINT, with its name. A second one ends the process at
/// once, with status 130: what it was doing is then found by the rescuer.
pub fn requested() -> io::Result<impl Future<Output = &'static str> + Send + use<>> {
    let (terminate, interrupt) =
        (signals(SignalKind::terminate(), "SIGTERM")?, signals(SignalKind::interrupt(), "SIGINT")?);
    Ok(first_of(stream::select(terminate, interrupt), end))
}

fn signals(kind: SignalKind, name: &'static str) -> io::Result<impl Stream<Item = &'static str> + Send + Unpin> {
    let signals = signal(kind)?;
    let next = move |mut signals: Signal| async move {
        signals.recv().await?;
        Some((name, signals))
    };
    Ok(Box::pin(stream::unfold(signals, next)))
}

fn first_of<S, I>(mut signals: S, insist: I) -> impl Future<Output = &'static str> + Send + use<S, I>
where
    S: Stream<Item = &'static str> + Send + Unpin + 'static,
    I: FnOnce() + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    // A task of its own, so that the second signal is heard whatever becomes of the future.
    tokio::spawn(async move {
        let Some(name) = signals.next().await else { return std::future::pending().await };
        info!("Stopping on {name}; a second signal stops at once");
        // Whoever asked may have stopped for another reason.
        let _ = tell.send(name);
        if let Some(name) = signals.next().await {
            warn!("Stopping at once on a second signal, {name}");
            insist();
        }
    });
    async move {
        match told.await {
            Ok(name) => name,
            Err(_) => std::future::pending().await, // the runtime is going down
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the operator asked twice: not to wait is what is wanted")]
fn end() {
    std::process::exit(INTERRUPTED);
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::channel::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_insists() {
        let (signals, received) = mpsc::unbounded();
        let (insist, mut insisted) = oneshot::channel();
        let mut asked = Box::pin(first_of(received, move || insist.send(()).unwrap()));
        assert!(asked.as_mut().now_or_never().is_none());

        signals.unbounded_send("SIGTERM").unwrap();
        assert_eq!(asked.await, "SIGTERM");
        assert!(insisted.try_recv().is_err());

        signals.unbounded_send("SIGINT").unwrap();
        insisted.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_asked_without_a_signal() {
        assert!(requested().unwrap().now_or_never().is_none());
    }
}
