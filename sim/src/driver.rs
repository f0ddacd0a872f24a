//! Runs the engine in real time: one task, one timer, counters that response bodies follow.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::{Counters, Engine, EngineRequest, Event, FinishReason, RequestId};
use crate::metrics::Metrics;

/// Requests that may wait for the driver to look; beyond that, handlers wait.
const QUEUE: usize = 1024;

#[derive(Debug, Default)]
struct Choice {
    generated: AtomicUsize,
    cached: AtomicUsize,
    done: AtomicBool,
}

/// What the engine has done for one response. Counters, not a queue: a slow client costs no memory.
#[derive(Debug)]
pub struct Progress {
    choices: Box<[Choice]>,
    waker: AtomicWaker,
    gone: AtomicBool,
    failed: AtomicBool,
}

impl Progress {
    fn new(choices: usize) -> Self {
        Self {
            choices: (0..choices).map(|_| Choice::default()).collect(),
            waker: AtomicWaker::new(),
            gone: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Woken whenever something changes.
    pub fn waker(&self) -> &AtomicWaker {
        &self.waker
    }

    /// Tokens of a choice so far.
    pub fn generated(&self, choice: usize) -> usize {
        self.choices[choice].generated.load(Ordering::Acquire)
    }

    /// Cached prompt tokens of a choice, known from its first token on.
    pub fn cached(&self, choice: usize) -> usize {
        self.choices[choice].cached.load(Ordering::Acquire)
    }

    /// Whether the engine is gone before the end.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Waits until all choices have ended; false if the engine is gone.
    pub async fn finished(&self) -> bool {
        poll_fn(|context| {
            self.waker.register(context.waker());
            let failed = self.failed();
            if self
                .choices
                .iter()
                .all(|choice| choice.done.load(Ordering::Acquire))
            {
                Poll::Ready(true)
            } else if failed {
                Poll::Ready(false)
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// The client's hold on a request: dropping it ends the request at the next step.
#[derive(Debug)]
pub struct Ticket(Arc<Progress>);

impl Ticket {
    /// The progress of the request.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
    }
}

struct Submission {
    requests: Vec<EngineRequest>,
    progress: Arc<Progress>,
    arrival: Instant,
}

/// Hands requests to the driver.
#[derive(Clone)]
pub struct EngineHandle {
    submissions: mpsc::Sender<Submission>,
}

impl EngineHandle {
    /// Submits the choices of one response; `None` when the engine is gone.
    pub async fn submit(&self, requests: Vec<EngineRequest>) -> Option<Ticket> {
        let progress = Arc::new(Progress::new(requests.len()));
        let ticket = Ticket(progress.clone());
        self.submissions
            .send(Submission {
                requests,
                progress,
                arrival: Instant::now(),
            })
            .await
            .ok()?;
        Some(ticket)
    }
}

/// The task's state.
pub struct Driver {
    engine: Engine,
    submissions: mpsc::Receiver<Submission>,
    active: FxHashMap<RequestId, (Arc<Progress>, usize)>,
    events: Vec<Event>,
    abandoned: Vec<RequestId>,
    counted: Counters,
    metrics: Arc<Metrics>,
    epoch: Instant,
}

impl Driver {
    /// A driver and the handle to it; it ends when all handles are gone and no request is left.
    pub fn new(engine: Engine, metrics: Arc<Metrics>) -> (Self, EngineHandle) {
        let (sender, submissions) = mpsc::channel(QUEUE);
        let driver = Self {
            engine,
            submissions,
            active: FxHashMap::default(),
            events: Vec::new(),
            abandoned: Vec::new(),
            counted: Counters::default(),
            metrics,
            epoch: Instant::now(),
        };
        (driver, EngineHandle { submissions: sender })
    }

    /// Runs until all handles are gone.
    pub async fn run(mut self) {
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        loop {
            self.turn();
            let next = self.engine.next().map(|next| self.epoch + next);
            if let Some(next) = next {
                timer.as_mut().reset(next);
            }
            tokio::select! {
                biased;
                submission = self.submissions.recv() => match submission {
                    Some(submission) => {
                        self.submit(submission);
                        while let Ok(more) = self.submissions.try_recv() {
                            self.submit(more);
                        }
                    }
                    None if self.active.is_empty() => return,
                    // Bodies may outlive the last handle: no submission can come, the timer is left.
                    None => match next {
                        Some(_) => timer.as_mut().await,
                        None => return,
                    },
                },
                () = timer.as_mut(), if next.is_some() => {}
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let arrival = submission.arrival.saturating_duration_since(self.epoch);
        for (choice, request) in submission.requests.into_iter().enumerate() {
            let cap = request.output.len();
            match self.engine.submit(arrival, request) {
                Ok(id) => {
                    self.metrics.submitted(cap);
                    self.active.insert(id, (submission.progress.clone(), choice));
                }
                Err(error) => {
                    // The API checks lengths against the same sizes, so this is a defect, not a client's fault.
                    tracing::error!(%error, "the engine refused a request that the API had admitted");
                    submission.progress.failed.store(true, Ordering::Release);
                    submission.progress.waker.wake();
                }
            }
        }
    }

    fn turn(&mut self) {
        let now = self.epoch.elapsed();
        let gone = self
            .active
            .iter()
            .filter(|(_, (progress, _))| progress.gone.load(Ordering::Acquire));
        self.abandoned.extend(gone.map(|(id, _)| *id));
        for id in self.abandoned.drain(..) {
            self.engine.abort(now, id, &mut self.events);
        }
        self.engine.poll(now, &mut self.events);
        for event in self.events.drain(..) {
            self.metrics.observe(&event);
            match event {
                Event::Step { .. } => {}
                Event::FirstToken {
                    id, cached_tokens, ..
                } => {
                    if let Some((progress, choice)) = self.active.get(&id) {
                        progress.choices[*choice]
                            .cached
                            .store(cached_tokens, Ordering::Release);
                        progress.choices[*choice].generated.fetch_add(1, Ordering::AcqRel);
                        progress.waker.wake();
                    }
                }
                Event::Token { id, .. } => {
                    if let Some((progress, choice)) = self.active.get(&id) {
                        progress.choices[*choice].generated.fetch_add(1, Ordering::AcqRel);
                        progress.waker.wake();
                    }
                }
                Event::Finished { id, summary } => {
                    if let Some((progress, choice)) = self.active.remove(&id) {
                        let done = summary.finish != FinishReason::Abort;
                        progress.choices[choice].done.store(done, Ordering::Release);
                        progress.failed.fetch_or(!done, Ordering::AcqRel);
                        progress.waker.wake();
                    }
                }
            }
        }
        self.metrics.update(&self.engine, &mut self.counted);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for (progress, _) in self.active.values() {
            progress.failed.store(true, Ordering::Release);
            progress.waker.wake();
        }
    }
}
