//! Ends HTTP/2 streams whose client opens no window: the connection is fine, so its byte stream shows nothing.
//!
//! hyper asks an answer for its next chunk only when there is room for it, so the answer itself cannot notice.
//! The task that drives it does: it runs inside this executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio::time::MissedTickBehavior;

tokio::task_local! {
    static STREAM: Arc<Progress>;
}

/// Whether an answer waits for its client.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start`, plus one, to the chunk that was handed over last; 0 while the next one was asked for.
    handed_over: AtomicU64,
}

impl Progress {
    /// That of the stream whose task this is; `None` with HTTP/1.
    pub(crate) fn current() -> Option<Arc<Self>> {
        STREAM.try_with(Arc::clone).ok()
    }

    /// The client's side asks for a chunk.
    pub(crate) fn asked(&self) {
        self.handed_over.store(0, Relaxed);
    }

    /// A chunk is on its way to the client.
    pub(crate) fn handed_over(&self) {
        let now = self.start.elapsed().as_millis() as u64;
        self.handed_over.store(now + 1, Relaxed);
    }

    /// Returns when a chunk has waited for longer than `longest`.
    async fn stalled(&self, longest: Duration) {
        let mut looks = tokio::time::interval((longest / 2).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let since = self.handed_over.load(Relaxed);
            let pause = self.start.elapsed().saturating_sub(Duration::from_millis(since));
            if since > 0 && pause >= longest {
                return;
            }
        }
    }
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor {
    /// Longest time for which a chunk may wait for its client.
    pub(crate) stall: Duration,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let stall = self.stall;
        let progress = Arc::new(Progress {
            start: Instant::now(),
            handed_over: AtomicU64::new(0),
        });
        tokio::spawn(STREAM.scope(Arc::clone(&progress), async move {
            tokio::select! {
                _ = stream => {}
                // Dropping the stream resets it.
                () = progress.stalled(stall) => tracing::debug!("a client took no byte of an HTTP/2 stream"),
            }
        }));
    }
}
