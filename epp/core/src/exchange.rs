//! One request and its response, whatever carries them: the state machine that the ext-proc server
//! and the built-in proxy drive.
//!
//! ```text
//!  open ─▶ on_request_chunk* ─▶ on_request_end ─▶ Routed ─▶ (reroute*) ─▶ on_response_headers
//!                                                    └▶ on_response_chunk* ─▶ finish (or Drop)
//! ```
//!
//! Synchronous and without a clock of its own. Load that was reserved is given back exactly once, on
//! [`Exchange::finish`] or, on any other way out, when the exchange is dropped.

mod activity;
mod intake;
mod names;
mod parse;
mod rendering;
mod response;
mod routed;
mod select;
mod subset;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
pub use llmd_epp_api::Termination;
use llmd_epp_api::{
    Endpoint, ErrorCode, Headers, InferenceRequest, Metadata, RejectReason, Rejection, ResponseEnd,
    ResponseHead, Snapshot, TypedName,
};
use llmd_openai::{BodyKind, Limits, header};

use crate::parsers::Parsers;
use crate::request_metrics::{RequestLabels, RequestMetrics, RequestRecorder};
use crate::traffic::TrafficRules;
pub use activity::Activity;
use activity::{Counts, Open};
use intake::Intake;
pub use rendering::{Render, RenderAsk, Rendering};
use response::Response;
pub use routed::Routed;
pub use select::{HeaderChange, Held, Select, Selection};
pub use subset::Subset;

/// Fairness id of requests that name none.
const DEFAULT_FLOW: &str = "default-flow";

/// How requests are taken in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Longest body and deepest nesting of a request; more is refused with 413 or 400.
    pub limits: Limits,
    /// `--disable-endpoint-subset-filter`: subset hints do not restrict the pick.
    pub ignore_subset: bool,
}

/// The Endpoint Picker without its transport: shared by every request.
pub struct Epp {
    pipeline: ArcSwap<Pipeline>,
    metrics: RequestMetrics,
    options: Options,
    traffic: ArcSwap<TrafficRules>,
    counts: Arc<Counts>,
    render: OnceLock<Arc<dyn Render>>,
}

/// What a configuration decides. A request keeps the one that it was opened with.
struct Pipeline {
    scheduler: Arc<dyn Select>,
    parsers: Parsers,
}

impl Epp {
    /// Puts the parts together.
    pub fn new(
        scheduler: Arc<dyn Select>,
        parsers: Parsers,
        metrics: RequestMetrics,
        options: Options,
    ) -> Self {
        Self {
            pipeline: ArcSwap::from_pointee(Pipeline { scheduler, parsers }),
            metrics,
            options,
            traffic: ArcSwap::default(),
            counts: Arc::default(),
            render: OnceLock::new(),
        }
    }

    /// Takes over priorities and rewrites; requests that are parsed already keep theirs.
    pub fn set_traffic_rules(&self, rules: TrafficRules) {
        self.metrics.keep_models(rules.model_names());
        self.traffic.store(Arc::new(rules));
    }

    /// Who asks engines for tokens; the first call counts. Nobody is asked before.
    pub fn set_render(&self, render: Arc<dyn Render>) {
        let _ = self.render.set(render);
    }

    /// Another configuration from now on; requests that are open go on with theirs, and give back the
    /// load where they booked it.
    pub fn set_pipeline(&self, scheduler: Arc<dyn Select>, parsers: Parsers) {
        self.pipeline.store(Arc::new(Pipeline { scheduler, parsers }));
    }

    /// Whether every parser can serve a pool of this application protocol.
    pub fn supports(&self, protocol: &str) -> bool {
        self.pipeline.load().parsers.support(protocol)
    }

    /// What plugins hold, by instance; `None` for one that does not show it.
    pub fn plugin_state(&self) -> Vec<(TypedName, Option<serde_json::Value>)> {
        self.pipeline.load().scheduler.state()
    }

    /// How many exchanges there are, and were.
    pub fn activity(&self) -> Activity {
        self.counts.read()
    }

    /// A request's headers arrived. `headers` hold `:path` and `:method` where the transport has them;
    /// `request_id` is `x-request-id` or one the shell made.
    pub fn open(self: &Arc<Self>, now: Instant, headers: Headers, request_id: Arc<str>) -> Exchange {
        let pipeline = self.pipeline.load_full();
        Exchange {
            intake: Some(Intake::new(&pipeline.parsers, &headers, self.options.limits)),
            pipeline,
            epp: Arc::clone(self),
            opened: now,
            decoded: None,
            state: State::Receiving { headers, request_id },
            routed: None,
            is_failure_counted: false,
            is_finished: false,
            _open: self.counts.open(),
        }
    }
}

impl std::fmt::Debug for Epp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epp")
            .field("parsers", &self.pipeline.load().parsers)
            .finish_non_exhaustive()
    }
}

/// What the transport knows beside the request itself.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// The endpoints the proxy allows; `None` allows the whole pool.
    pub subset: Option<Subset>,
}

/// One request on its way.
pub struct Exchange {
    epp: Arc<Epp>,
    pipeline: Arc<Pipeline>,
    opened: Instant,
    intake: Option<Intake>,
    /// What a compressed body says.
    decoded: Option<Bytes>,
    state: State,
    routed: Option<Running>,
    is_failure_counted: bool,
    is_finished: bool,
    _open: Open,
}

enum State {
    Receiving {
        headers: Headers,
        request_id: Arc<str>,
    },
    /// Parsed. The request itself is kept as long as it may have to be routed again.
    Parsed {
        request: Option<Box<InferenceRequest>>,
        labels: Arc<RequestRecorder>,
    },
}

/// What exists from the pick to the end.
struct Running {
    held: Box<dyn Held>,
    recorder: Arc<RequestRecorder>,
    response: Response,
}

impl Exchange {
    /// Whether the body has to arrive before the request can be routed.
    pub fn reads_request_body(&self) -> bool {
        self.intake.as_ref().is_some_and(Intake::reads_body)
    }

    /// A chunk of the request body arrived; it is scanned and not kept.
    pub fn on_request_chunk(&mut self, chunk: &[u8]) -> Result<(), Rejection> {
        let Some(intake) = &mut self.intake else {
            return Ok(());
        };
        intake.push(chunk).map_err(|rejection| self.rejected(rejection))
    }

    /// The request is complete: parses, schedules and reserves. A request without any body byte is
    /// scheduled without a model unless its method promises a body its parser needs.
    pub fn on_request_end(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        hints: &Hints,
    ) -> Result<Routed, Rejection> {
        // It may have been taken in before, to wait.
        if self.intake.is_some() || self.routed.is_some() {
            self.take_in()?;
        }
        let outcome = self.select(now, snapshot, hints, &[]);
        let routed = outcome.map_err(|rejection| self.rejected(rejection))?;
        self.epp
            .metrics
            .request_processed(now.saturating_duration_since(self.opened));
        Ok(routed)
    }

    /// The chosen endpoint failed: picks again without `exclude`. The reservation moves; when nothing is
    /// left the old one stays until the end. A response that has begun goes on with the next chunk, its
    /// times and counts kept; what had arrived of an unfinished event is forgotten.
    pub fn reroute(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        hints: &Hints,
        exclude: &[Arc<Endpoint>],
    ) -> Result<Routed, Rejection> {
        if self.routed.is_none() {
            return Err(Rejection::new(
                ErrorCode::Internal,
                "the request was never routed",
            ));
        }
        self.select(now, snapshot, hints, exclude)
    }

    /// No [`Self::reroute`] will follow: frees the parsed request and its prompt.
    pub fn settle(&mut self) {
        self.decoded = None;
        if let State::Parsed { request, .. } = &mut self.state {
            *request = None;
        }
    }

    /// The parsed request, until [`Self::settle`].
    pub fn request(&self) -> Option<&InferenceRequest> {
        match &self.state {
            State::Parsed { request, .. } => request.as_deref(),
            State::Receiving { .. } => None,
        }
    }

    /// Scores of the endpoints the primary profile rated, for `--emit-endpoint-scores`.
    pub fn scores(&self) -> Vec<(Arc<str>, f64)> {
        self.routed
            .as_ref()
            .map(|running| running.held.scores())
            .unwrap_or_default()
    }

    /// The response's head arrived. Returns headers that plugins set for the client.
    pub fn on_response_headers(&mut self, now: Instant, head: &ResponseHead<'_>) -> Vec<HeaderChange> {
        if head.status != 200 {
            self.count_failure(ErrorCode::ModelServerError);
        }
        let Some(running) = &mut self.routed else {
            return Vec::new();
        };
        running.response.on_headers(now, head.content_type);
        running.held.on_headers(head)
    }

    /// A chunk of the response arrived; what goes to the client is appended to `out`. `end` says that
    /// no more follows (`chunk` may be empty then).
    pub fn on_response_chunk(&mut self, now: Instant, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        let Some(Running {
            held,
            recorder,
            response,
        }) = &mut self.routed
        else {
            if !chunk.is_empty() {
                out.push(chunk);
            }
            return;
        };
        if !chunk.is_empty() {
            let arrival = response.arrived(now, chunk.len());
            if arrival.is_first_of_endpoint {
                held.on_first_chunk(now);
            }
            held.on_chunk(now, chunk.len());
            if let Some(gap) = arrival.gap {
                recorder.inter_token(gap);
            }
        }
        response.push(chunk, end, out);
    }

    /// The transport shows nothing of the response but its head. What waits for the first byte happens now; the
    /// response's size, its tokens and the times of its chunks stay unknown, and its model keeps its name.
    pub fn on_unseen_response(&mut self, now: Instant) {
        if let Some(running) = &mut self.routed
            && running.response.unseen()
        {
            running.held.on_first_chunk(now);
        }
    }

    /// How the request's body is read; `None` before it was routed and for bodies nobody reads.
    pub fn body_kind(&self) -> Option<BodyKind> {
        self.routed.as_ref()?.response.body
    }

    /// Whether nobody looks at the response: the transport lets it pass, and the exchange may end.
    pub fn skips_response(&self) -> bool {
        self.routed
            .as_ref()
            .is_some_and(|running| running.response.is_skipped)
    }

    /// Whether the response streams tokens: an event stream, or the request asked for one.
    pub fn is_streaming(&self) -> bool {
        self.routed
            .as_ref()
            .is_some_and(|running| running.response.streaming)
    }

    /// The transport spent `spent` on response messages. Only streamed responses count it; for others
    /// the time from head to end is recorded, as upstream does.
    pub fn spent_on_response(&mut self, spent: Duration) {
        if let Some(running) = &mut self.routed {
            running.response.spent += spent;
        }
    }

    /// The exchange is over. The first call counts, later ones do nothing. Returns metadata that plugins
    /// have for the proxy.
    pub fn finish(&mut self, now: Instant, cause: Termination) -> Vec<Metadata> {
        if std::mem::replace(&mut self.is_finished, true) {
            return Vec::new();
        }
        if cause == Termination::Error {
            self.count_failure(ErrorCode::Unknown);
        }
        let Some(Running {
            mut held,
            recorder,
            response,
        }) = self.routed.take()
        else {
            return Vec::new();
        };
        recorder.left();
        if cause != Termination::Complete {
            held.on_aborted(now, cause);
            return Vec::new();
        }
        let completed = response.completed(self.opened, now);
        recorder.completed(&completed);
        self.epp.metrics.response_processed(response.processing(now));
        let end = ResponseEnd {
            usage: completed.usage,
        };
        held.on_complete(now, &end)
    }

    /// Whether an endpoint was chosen and the exchange is not over.
    pub fn is_running(&self) -> bool {
        self.routed.is_some()
    }

    fn select(
        &mut self,
        now: Instant,
        snapshot: &Snapshot,
        hints: &Hints,
        exclude: &[Arc<Endpoint>],
    ) -> Result<Routed, Rejection> {
        let State::Parsed {
            request: Some(request),
            labels,
        } = &self.state
        else {
            return Err(Rejection::new(
                ErrorCode::Internal,
                "the request cannot be routed any more",
            ));
        };
        if self.is_finished {
            return Err(Rejection::new(ErrorCode::Internal, "the exchange is over"));
        }
        let subset = hints.subset.as_ref().filter(|_| !self.epp.options.ignore_subset);
        let candidates = subset::candidates(snapshot, subset, exclude);
        let is_empty = candidates.as_ref().map_or(snapshot.is_empty(), Vec::is_empty);
        if is_empty {
            let message = "failed to find endpoint candidates for serving the request";
            return Err(
                Rejection::new(ErrorCode::ServiceUnavailable, message).because(RejectReason::NoEndpoints)
            );
        }
        let selection = self
            .pipeline
            .scheduler
            .select(now, request, snapshot, candidates.as_deref())?;
        let routed = Routed::of(request, &selection, self.decoded.as_ref())?;
        if let Some(running) = &mut self.routed {
            running.held = selection.held;
            running.response.moved();
            return Ok(routed);
        }
        labels.routed(request.size_bytes);
        let claim = self.pipeline.parsers.resolve(path_of(&request.headers));
        self.routed = Some(Running {
            held: selection.held,
            recorder: Arc::clone(labels),
            response: Response::new(request, claim),
        });
        Ok(routed)
    }

    /// Counts a request that is refused, by the transport too.
    pub fn rejected(&mut self, rejection: Rejection) -> Rejection {
        self.count_failure(rejection.code);
        rejection
    }

    fn count_failure(&mut self, code: ErrorCode) {
        if std::mem::replace(&mut self.is_failure_counted, true) {
            return;
        }
        match &self.state {
            State::Parsed { labels, .. } => labels.failed(code.as_str()),
            State::Receiving { .. } => {
                let unknown = RequestLabels {
                    model: "",
                    target: "",
                    fairness_id: "",
                    priority: 0,
                };
                self.epp.metrics.of(&unknown).failed(code.as_str());
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Without `finish` nobody knows when or how it ended: only give back what is held.
        if let Some(running) = self.routed.take() {
            running.recorder.left();
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("is_running", &self.is_running())
            .field("is_finished", &self.is_finished)
            .finish_non_exhaustive()
    }
}

/// The path a parser is looked up by: `:path`, else `x-original-path`, else `x-forwarded-path`; the
/// query is cut.
fn path_of(headers: &Headers) -> &str {
    let path = [":path", header::ORIGINAL_PATH, header::FORWARDED_PATH]
        .into_iter()
        .find_map(|name| headers.get(name))
        .unwrap_or(crate::parsers::DEFAULT_PATH);
    path.split('?').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
