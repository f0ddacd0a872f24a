//! Threads for ext-proc connections: a connection and its streams stay on one.
//!
//! Envoy opens one connection per worker of its own and carries all requests over these few. A stream is woken by its
//! connection, and the connection by its streams, several times per request: across the threads of one runtime each
//! of these wakes another processor up, and the message's bytes move to its cache.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

/// One runtime per processor, each with one thread. Dropping it stops them without waiting.
pub struct StreamThreads {
    runtimes: Vec<Runtime>,
    next: AtomicUsize,
}

impl StreamThreads {
    /// Starts a thread for each processor.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let start = |_| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("ext-proc")
                .enable_all()
                .build()
        };
        Ok(Self {
            runtimes: (0..processors).map(start).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Where the next connection goes: each thread in turn.
    pub fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let runtime = self.runtimes.get(turn.checked_rem(self.runtimes.len())?)?;
        Some(runtime.handle())
    }
}

impl Drop for StreamThreads {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..) {
            // Waiting is not allowed on a thread of another runtime.
            runtime.shutdown_background();
        }
    }
}
