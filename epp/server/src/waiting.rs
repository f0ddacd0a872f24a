//! Requests that come while the pool has no endpoint at all: they wait, first come, first served.
//!
//! ```text
//!  place() ──▶ Place ── turn() ──▶ scheduled ── drop ──▶ the next one's turn
//!                 ▲ an endpoint comes, the time is over, or the picker ends
//! ```
//!
//! One at a time has its turn, and gives it on when it is scheduled: so the order holds on any number of threads.
//! Their number, their bytes and their time are bounded. Upstream's name for the time is `noEndpointRequestTTL`; it has
//! it behind the feature gate `flowControl`, without which a request is refused at once, as here without a time.

mod metrics;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use llmd_epp_api::{ErrorCode, InferenceRequest, RejectReason, Rejection};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use metrics::WaitingMetrics;
use metrics::{Outcome, Waiter};

/// How long and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `--no-endpoint-request-ttl`: longest wait; above 0.
    pub ttl: Duration,
    /// `--no-endpoint-max-requests`.
    pub max_requests: usize,
    /// `--no-endpoint-max-bytes`: of their bodies together.
    pub max_bytes: usize,
}

/// Where requests wait for an endpoint.
pub struct WaitingRoom {
    options: Options,
    metrics: WaitingMetrics,
    /// Nobody needs to wait: there is an endpoint, and nobody is before.
    is_open: AtomicBool,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    has_endpoints: bool,
    next: u64,
    bytes: usize,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl WaitingRoom {
    /// An empty one, without an endpoint; `stop` ends the waiting of all.
    pub fn new(options: Options, metrics: WaitingMetrics, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            options,
            metrics,
            is_open: AtomicBool::new(false),
            state: Mutex::default(),
            stop,
        })
    }

    /// There is another set of endpoints, which can be seen already.
    pub fn endpoints_changed(&self, has_endpoints: bool) {
        let mut state = self.state();
        state.has_endpoints = has_endpoints;
        self.go_on(&state);
    }

    /// Whether a request need not ask for a place.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Takes a place for a request, or none where it need not wait.
    ///
    /// # Errors
    /// There are too many already.
    pub(crate) fn place(self: &Arc<Self>, request: &InferenceRequest) -> Result<Option<Place>, Rejection> {
        let mut state = self.state();
        if state.has_endpoints && state.waiting.is_empty() {
            return Ok(None);
        }
        let waiter = self.metrics.waiter(request);
        let bytes = state.bytes.saturating_add(request.size_bytes);
        if state.waiting.len() >= self.options.max_requests || bytes > self.options.max_bytes {
            self.metrics.refused(&waiter);
            let text = "no endpoints available: request rejected pre-queue: queue at capacity";
            return Err(refusal(text, RejectReason::NoEndpoints));
        }
        let number = state.next;
        let bell = Arc::new(Notify::new());
        state.next += 1;
        state.bytes = bytes;
        state.waiting.insert(number, Arc::clone(&bell));
        self.go_on(&state);
        drop(state);
        self.metrics.came(&waiter);
        Ok(Some(Place {
            room: Arc::clone(self),
            number,
            bell,
            since: Instant::now(),
            waiter,
            outcome: Outcome::ClientGone,
        }))
    }

    fn has_turn(&self, number: u64) -> bool {
        let state = self.state();
        let first = state.waiting.first_key_value();
        state.has_endpoints && first.is_some_and(|(first, _)| *first == number)
    }

    /// Wakes whose turn it is; the caller has just changed the state.
    fn go_on(&self, state: &State) {
        self.is_open
            .store(state.has_endpoints && state.waiting.is_empty(), Ordering::Release);
        if let (true, Some((_, bell))) = (state.has_endpoints, state.waiting.first_key_value()) {
            bell.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for WaitingRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitingRoom")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// One request's place; dropping it lets the next one go on.
pub(crate) struct Place {
    room: Arc<WaitingRoom>,
    number: u64,
    bell: Arc<Notify>,
    since: Instant,
    waiter: Waiter,
    outcome: Outcome,
}

impl Place {
    /// Waits until the request may be scheduled; nobody else may before the place is dropped.
    ///
    /// # Errors
    /// Its time is over, or the picker ends.
    pub(crate) async fn turn(&mut self) -> Result<(), Rejection> {
        let end = self.since + self.room.options.ttl;
        loop {
            if self.room.has_turn(self.number) {
                self.outcome = Outcome::Dispatched;
                return Ok(());
            }
            tokio::select! {
                () = self.bell.notified() => {}
                () = self.room.stop.cancelled() => {
                    self.outcome = Outcome::Ended;
                    let text = "flow controller shutting down: request evicted from queue: flow controller is not running";
                    return Err(refusal(text, RejectReason::ShuttingDown));
                }
                () = tokio::time::sleep_until(end) => {
                    self.outcome = Outcome::TimedOut;
                    let text = "request timed out in queue and no endpoints are available: request evicted from queue: \
                                request TTL expired";
                    return Err(refusal(text, RejectReason::NoEndpoints));
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.state();
        state.waiting.remove(&self.number);
        state.bytes = state.bytes.saturating_sub(self.waiter.bytes);
        self.room.go_on(&state);
        drop(state);
        let waited = self.since.elapsed();
        self.room.metrics.left(&self.waiter, self.outcome, waited);
    }
}

fn refusal(text: &str, reason: RejectReason) -> Rejection {
    Rejection::new(ErrorCode::ServiceUnavailable, text).because(reason)
}

#[cfg(test)]
mod tests;
