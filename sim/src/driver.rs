//! Runs the engine in real time: one task, one timer, counters that response bodies follow.
//!
//! Other engines ask it for held blocks by name ([`EngineHandle::claim`]); a claim for a request still under way is
//! answered when that ends.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::engine::{BlockId, Counters, Engine, EngineRequest, Event, FinishReason, RequestId};
use crate::metrics::Metrics;

/// Requests that may wait for the driver to look; beyond that, handlers wait.
const QUEUE: usize = 1024;

/// Time for the driver to look at an order.
const ANSWER: Duration = Duration::from_secs(10);

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
    held: OnceLock<HeldBlocks>,
}

/// Blocks that a finished request left for another engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBlocks {
    /// Number of the request.
    pub id: RequestId,
    /// The blocks, in order of the prompt.
    pub blocks: Vec<BlockId>,
    /// Tokens in them.
    pub tokens: usize,
}

impl Progress {
    fn new(choices: usize) -> Self {
        Self {
            choices: (0..choices).map(|_| Choice::default()).collect(),
            waker: AtomicWaker::new(),
            gone: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            held: OnceLock::new(),
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

    /// What the request left for another engine; known once it has finished.
    pub fn held(&self) -> Option<&HeldBlocks> {
        self.held.get()
    }

    /// Whether the engine is gone before the end.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn is_done(&self) -> bool {
        let mut choices = self.choices.iter();
        choices.all(|choice| choice.done.load(Ordering::Acquire))
    }

    /// Waits until all choices have ended; false if the engine is gone.
    pub async fn finished(&self) -> bool {
        poll_fn(|context| {
            self.waker.register(context.waker());
            let failed = self.failed();
            if self.is_done() {
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

/// The client's hold on a request: dropping it ends the request.
#[derive(Debug)]
pub struct Ticket {
    progress: Arc<Progress>,
    left: Arc<Notify>,
}

impl Ticket {
    /// The progress of the request.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.progress.gone.store(true, Ordering::Release);
        if !self.progress.is_done() {
            // The driver may have nothing else to do for long: a transfer, a fixed latency.
            self.left.notify_one();
        }
    }
}

struct Submission {
    requests: Vec<EngineRequest>,
    progress: Arc<Progress>,
    arrival: Instant,
    /// Dropped when the first token of the first choice is there: what it imported has been read.
    imported: Option<oneshot::Sender<()>>,
}

enum Order {
    Submit(Submission),
    /// Asks for held blocks, which then stay for the time given.
    Claim {
        key: Arc<str>,
        stay: Duration,
        /// Whether to wait for a request that is still to leave them.
        waits: bool,
        reply: oneshot::Sender<HeldBlocks>,
    },
    /// Whether blocks are held for other engines.
    Holds {
        reply: oneshot::Sender<bool>,
    },
    /// How many of these blocks, from the first on, are in the cache.
    Cached {
        hashes: Vec<u64>,
        reply: oneshot::Sender<usize>,
    },
    Extend {
        id: RequestId,
        stay: Duration,
    },
    Release {
        id: RequestId,
    },
}

/// Hands requests to the driver.
#[derive(Clone)]
pub struct EngineHandle {
    orders: mpsc::Sender<Order>,
    left: Arc<Notify>,
}

impl EngineHandle {
    /// Submits the choices of one response; `None` when the engine is gone. `imported` is sent to when what the
    /// first choice takes from elsewhere has been read, and dropped if that never happens.
    pub async fn submit(
        &self,
        requests: Vec<EngineRequest>,
        imported: Option<oneshot::Sender<()>>,
    ) -> Option<Ticket> {
        let progress = Arc::new(Progress::new(requests.len()));
        let ticket = Ticket {
            progress: progress.clone(),
            left: self.left.clone(),
        };
        let submission = Submission {
            requests,
            progress,
            arrival: Instant::now(),
            imported,
        };
        self.orders.send(Order::Submit(submission)).await.ok()?;
        Some(ticket)
    }

    /// The blocks held under `key`, which then stay for `stay` more; waits up to `patience` for a request that is
    /// still to leave them.
    pub async fn claim(
        &self,
        key: Arc<str>,
        stay: Duration,
        patience: Option<Duration>,
    ) -> Option<HeldBlocks> {
        let (reply, claimed) = oneshot::channel();
        let waits = patience.is_some();
        let order = Order::Claim {
            key,
            stay,
            waits,
            reply,
        };
        self.orders.send(order).await.ok()?;
        let patience = patience.unwrap_or(ANSWER);
        tokio::time::timeout(patience, claimed).await.ok()?.ok()
    }

    /// Whether blocks are held for other engines; an engine that is gone holds none.
    pub async fn holds(&self) -> bool {
        let (reply, holds) = oneshot::channel();
        if self.orders.send(Order::Holds { reply }).await.is_err() {
            return false;
        }
        matches!(tokio::time::timeout(ANSWER, holds).await, Ok(Ok(true)))
    }

    /// How many blocks of a prompt, named by their chained hashes, are in the cache from the first on.
    pub async fn cached(&self, hashes: Vec<u64>) -> Option<usize> {
        let (reply, cached) = oneshot::channel();
        self.orders.send(Order::Cached { hashes, reply }).await.ok()?;
        tokio::time::timeout(ANSWER, cached).await.ok()?.ok()
    }

    /// Keeps held blocks for `stay` more.
    pub async fn extend(&self, id: RequestId, stay: Duration) {
        // An engine that is gone holds nothing.
        let _ = self.orders.send(Order::Extend { id, stay }).await;
    }

    /// Frees held blocks.
    pub async fn release(&self, id: RequestId) {
        let _ = self.orders.send(Order::Release { id }).await;
    }
}

/// The task's state.
pub struct Driver {
    engine: Engine,
    orders: mpsc::Receiver<Order>,
    /// A client went away.
    left: Arc<Notify>,
    active: FxHashMap<RequestId, (Arc<Progress>, usize)>,
    /// Requests whose blocks are held, by the name others ask with.
    held: FxHashMap<Arc<str>, HeldBlocks>,
    claims: FxHashMap<Arc<str>, (Duration, oneshot::Sender<HeldBlocks>)>,
    imports: FxHashMap<RequestId, oneshot::Sender<()>>,
    events: Vec<Event>,
    abandoned: Vec<RequestId>,
    counted: Counters,
    metrics: Arc<Metrics>,
    epoch: Instant,
}

impl Driver {
    /// A driver and the handle to it; it ends when all handles are gone and no request is left.
    pub fn new(engine: Engine, metrics: Arc<Metrics>) -> (Self, EngineHandle) {
        let (sender, orders) = mpsc::channel(QUEUE);
        let left = Arc::new(Notify::new());
        let driver = Self {
            engine,
            orders,
            left: left.clone(),
            active: FxHashMap::default(),
            held: FxHashMap::default(),
            claims: FxHashMap::default(),
            imports: FxHashMap::default(),
            events: Vec::new(),
            abandoned: Vec::new(),
            counted: Counters::default(),
            metrics,
            epoch: Instant::now(),
        };
        (driver, EngineHandle { orders: sender, left })
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
                order = self.orders.recv() => match order {
                    Some(order) => {
                        self.carry_out(order);
                        while let Ok(more) = self.orders.try_recv() {
                            self.carry_out(more);
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
                () = self.left.notified() => {}
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Submit(submission) => self.submit(submission),
            Order::Claim {
                key,
                stay,
                waits,
                reply,
            } => match self.held.remove(&key) {
                Some(held) => self.hand_out(held, stay, reply),
                None if !waits => {}
                None => {
                    // Who asks before the blocks are there waits; those who gave up make room.
                    self.claims.retain(|_, (_, waiting)| !waiting.is_closed());
                    self.claims.insert(key, (stay, reply));
                }
            },
            Order::Holds { reply } => {
                let _ = reply.send(self.engine.holds());
            }
            Order::Cached { hashes, reply } => {
                // Who does not wait any more needs no answer.
                let _ = reply.send(self.engine.cached(&hashes));
            }
            Order::Extend { id, stay } => {
                self.engine.extend_hold(id, self.epoch.elapsed() + stay);
            }
            Order::Release { id } => {
                self.engine.release_hold(id);
            }
        }
    }

    fn hand_out(&mut self, held: HeldBlocks, stay: Duration, reply: oneshot::Sender<HeldBlocks>) {
        let id = held.id;
        let stays = self.engine.extend_hold(id, self.epoch.elapsed() + stay);
        if stays && reply.send(held).is_err() {
            self.engine.release_hold(id);
        }
    }

    fn submit(&mut self, mut submission: Submission) {
        let arrival = submission.arrival.saturating_duration_since(self.epoch);
        for (choice, request) in submission.requests.into_iter().enumerate() {
            let cap = request.output.len();
            match self.engine.submit(arrival, request) {
                Ok(id) => {
                    self.metrics.submitted(cap);
                    if let Some(imported) = submission.imported.take() {
                        self.imports.insert(id, imported);
                    }
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
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.metrics.observe(&event);
            match event {
                Event::Step { .. } => {}
                Event::Held {
                    id,
                    key,
                    blocks,
                    tokens,
                } => {
                    let held = HeldBlocks { id, blocks, tokens };
                    if let Some((progress, _)) = self.active.get(&id) {
                        // Only one choice of a response holds blocks.
                        let _ = progress.held.set(held.clone());
                    }
                    match self.claims.remove(&key) {
                        Some((stay, reply)) if !reply.is_closed() => self.hand_out(held, stay, reply),
                        _ => {
                            self.held.insert(key, held);
                        }
                    }
                }
                Event::Expired { id } => self.held.retain(|_, held| held.id != id),
                Event::FirstToken {
                    id, cached_tokens, ..
                } => {
                    if let Some(imported) = self.imports.remove(&id) {
                        // A reader that has gone frees the blocks by its leaving.
                        let _ = imported.send(());
                    }
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
                    self.imports.remove(&id);
                    if let Some((progress, choice)) = self.active.remove(&id) {
                        let done = summary.finish != FinishReason::Abort;
                        progress.choices[choice].done.store(done, Ordering::Release);
                        progress.failed.fetch_or(!done, Ordering::AcqRel);
                        progress.waker.wake();
                    }
                }
            }
        }
        self.events = events;
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
