//! Threads of the data layer's own.
//!
//! A scrape takes some hundred microseconds of a processor with cold caches. On the threads that serve
//! requests it would sit before them in a worker's queue: with eight engines at 50 ms that was half of
//! what the picker adds to a request.

use std::num::NonZeroUsize;

use tokio::runtime::{Builder, Handle, Runtime};

/// Processors for each thread of the data layer.
const PROCESSORS_PER_THREAD: usize = 4;
/// Enough for several thousand engines at 50 ms.
const MOST_THREADS: usize = 4;

/// A small runtime for scrapes. Dropping it stops them without waiting.
pub struct ScrapeThreads {
    handle: Handle,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

impl ScrapeThreads {
    /// Starts the threads: one for four processors, at most four.
    pub fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads((processors / PROCESSORS_PER_THREAD).clamp(1, MOST_THREADS))
            .thread_name("scrape")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where the data layer spawns its tasks.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for ScrapeThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed on a thread that serves requests.
            runtime.shutdown_background();
        }
    }
}
