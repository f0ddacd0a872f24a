//! One ext-proc stream that only listens: what this picker would have chosen, beside who served.
//!
//! ```text
//!  Envoy ─▶ the picker in service ─▶ x-gateway-destination-endpoint ─▶ engine
//!    └─ the same messages, observability_mode ─▶ Shadow: pick, compare, follow what was served
//! ```
//!
//! After the comparison the request's load and its prefix are booked where it really went, so that the
//! next pick is made from the state that the picker in service had.

use std::sync::Arc;
use std::time::Instant;

use llmd_epp_api::{Endpoint, Headers, Rejection, ResponseHead, Snapshot};
use llmd_epp_core::{Exchange, Hints, Termination};
use llmd_openai::header;
use tonic::Status;

use super::ExtProc;
use super::conversation::{read_headers, value_of};
use super::proto::{Event, HttpHeaders, ProcessingRequest};
use super::served;
use super::shadow_metrics::{ShadowMetrics, Verdict};

/// State of one stream.
pub(super) struct Shadow {
    shared: Arc<ExtProc>,
    metrics: Arc<ShadowMetrics>,
    exchange: Option<Exchange>,
    request_id: Arc<str>,
    snapshot: Arc<Snapshot>,
    /// What the picker in service told Envoy.
    told: Option<String>,
    decided: Option<Result<Arc<Endpoint>, Rejection>>,
    is_judged: bool,
    is_begun: bool,
    /// Set once nothing more is received: how the stream ends.
    pub(super) end: Option<Result<(), Status>>,
}

impl Shadow {
    pub(super) fn new(shared: Arc<ExtProc>, metrics: Arc<ShadowMetrics>) -> Self {
        Self {
            shared,
            metrics,
            exchange: None,
            request_id: "".into(),
            snapshot: Arc::default(),
            told: None,
            decided: None,
            is_judged: false,
            is_begun: false,
            end: None,
        }
    }

    /// Handles one message received at `now`.
    pub(super) fn on_message(&mut self, now: Instant, message: ProcessingRequest) {
        if !std::mem::replace(&mut self.is_begun, true) && !message.observability_mode {
            // It would wait for answers for ever.
            let text = "this picker was started with --shadow and answers nothing: set observability_mode of the ext_proc filter to true";
            self.end = Some(Err(Status::failed_precondition(text)));
            return;
        }
        let served = match &message.event {
            Some(Event::ResponseHeaders(_)) => served::endpoint(&message),
            _ => None,
        };
        match message.event {
            Some(Event::RequestHeaders(head)) => self.on_request_headers(now, &head),
            Some(Event::RequestBody(body)) => {
                let taken = self
                    .exchange
                    .as_mut()
                    .map(|exchange| exchange.on_request_chunk(&body.body));
                match taken {
                    Some(Err(rejection)) => self.decided = Some(Err(rejection)),
                    _ if body.end_of_stream => self.decide(now),
                    _ => {}
                }
            }
            Some(Event::RequestTrailers(_)) => self.decide(now),
            Some(Event::ResponseHeaders(head)) => {
                self.on_response_headers(now, &head, served);
            }
            Some(Event::ResponseBody(body)) => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.on_response_chunk(now, body.body, body.end_of_stream, &mut Vec::new());
                }
                if body.end_of_stream {
                    self.close(now, Termination::Complete);
                }
            }
            Some(Event::ResponseTrailers(_)) => self.close(now, Termination::Complete),
            None => {}
        }
    }

    /// The stream is over.
    pub(super) fn close(&mut self, now: Instant, cause: Termination) {
        if self.decided.is_some() && !self.is_judged {
            self.judge(None);
        }
        if let Some(mut exchange) = self.exchange.take() {
            exchange.finish(now, cause);
        }
    }

    fn on_request_headers(&mut self, now: Instant, head: &HttpHeaders) {
        let mut headers = Headers::default();
        for (name, value) in read_headers(head).iter() {
            // It is what we compare with, and must not lead our own plugins.
            if name == header::DESTINATION {
                self.told = std::str::from_utf8(value).ok().map(str::to_owned);
            } else {
                headers.push(name, value);
            }
        }
        self.request_id = headers.get(header::REQUEST_ID).unwrap_or_default().into();
        let request_id = Arc::clone(&self.request_id);
        self.exchange = Some(self.shared.epp.open(now, headers, request_id));
        if head.end_of_stream {
            self.decide(now);
        }
    }

    /// The request is complete: picks as if it were ours.
    fn decide(&mut self, now: Instant) {
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        if self.decided.is_some() {
            return;
        }
        self.snapshot = (self.shared.snapshots)();
        let routed = exchange.on_request_end(now, &self.snapshot, &Hints::default());
        self.decided = routed.map(|routed| routed.endpoints.first().cloned()).transpose();
        if let Some(told) = self.told.clone() {
            self.follow(now, first_of(&told));
        }
    }

    fn on_response_headers(&mut self, now: Instant, head: &HttpHeaders, served: Option<String>) {
        let served = served.or_else(|| self.told.clone());
        let served = served.as_deref().map(first_of);
        self.judge(served);
        if let Some(served) = served {
            self.follow(now, served);
        }
        let Some(exchange) = &mut self.exchange else {
            return;
        };
        exchange.settle();
        let status = value_of(head, ":status").and_then(|status| status.parse().ok());
        exchange.on_response_headers(
            now,
            &ResponseHead {
                status: status.unwrap_or(200),
                content_type: value_of(head, "content-type"),
                served,
                header: &|name| value_of(head, name),
            },
        );
        if head.end_of_stream {
            self.close(now, Termination::Complete);
        }
    }

    /// Books the request where it went, unless that is where we would have sent it.
    fn follow(&mut self, now: Instant, served: &str) {
        let is_other = |endpoint: &&Arc<Endpoint>| &**endpoint.target() != served;
        let others: Vec<Arc<Endpoint>> = self.snapshot.endpoints.iter().filter(is_other).cloned().collect();
        let is_known = others.len() < self.snapshot.len();
        if let (true, Some(exchange)) = (is_known, &mut self.exchange) {
            // Filters may have something against that endpoint; then nothing is booked for it.
            let _ = exchange.reroute(now, &self.snapshot, &Hints::default(), &others);
        }
    }

    fn judge(&mut self, served: Option<&str>) {
        if std::mem::replace(&mut self.is_judged, true) {
            return;
        }
        let is_ours = served.is_some_and(|served| {
            let mut endpoints = self.snapshot.endpoints.iter();
            endpoints.any(|endpoint| &**endpoint.target() == served)
        });
        let (verdict, pick) = match &self.decided {
            None => (Verdict::Unserved, ""),
            Some(Err(rejection)) => (Verdict::Rejected, rejection.code.as_str()),
            Some(Ok(pick)) if Some(&**pick.target()) == served => (Verdict::Agreed, &**pick.target()),
            Some(Ok(pick)) if is_ours => (Verdict::Differed, &**pick.target()),
            Some(Ok(pick)) if served.is_some() => (Verdict::Unknown, &**pick.target()),
            Some(Ok(pick)) => (Verdict::Unserved, &**pick.target()),
        };
        self.metrics.count(verdict);
        let served = served.unwrap_or_default();
        tracing::info!(request_id = %self.request_id, pick, served, result = verdict.as_str(), "shadow");
    }
}

/// The best of an ordered list.
fn first_of(list: &str) -> &str {
    list.split(',').next().unwrap_or(list).trim()
}
