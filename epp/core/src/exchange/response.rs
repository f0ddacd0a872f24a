//! The response on its way out: times, sizes, usage and the model name the client asked for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use llmd_epp_api::InferenceRequest;
use llmd_openai::{BodyKind, Rename, ResponseMode, ResponseReader};

use crate::parsers::Claim;
use crate::request_metrics::Completed;

/// State of one response.
pub(super) struct Response {
    /// An event stream, or the request asked for one.
    pub(super) streaming: bool,
    /// Time the transport spent on streamed chunks.
    pub(super) spent: Duration,
    /// How the request's body is read.
    pub(super) body: Option<BodyKind>,
    /// The response is nobody's business.
    pub(super) is_skipped: bool,
    is_read: bool,
    /// No chunk of the current endpoint has arrived.
    is_endpoint_new: bool,
    rename: Option<Rename>,
    reader: Option<ResponseReader>,
    head: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    bytes: u64,
    /// The body is not shown.
    is_unseen: bool,
}

/// Which chunk arrived.
pub(super) struct Arrival {
    /// The first one that the current endpoint sent.
    pub(super) is_first_of_endpoint: bool,
    /// Its distance to the one before, if there is one and the response is streamed.
    pub(super) gap: Option<Duration>,
}

impl Response {
    pub(super) fn new(request: &InferenceRequest, claim: Option<Claim>) -> Self {
        let body = claim.and_then(|claim| claim.body);
        let is_read = body.is_some() && claim.is_some_and(|claim| !claim.skips_response);
        Self {
            streaming: request.facts.stream,
            spent: Duration::ZERO,
            body,
            is_skipped: claim.is_some_and(|claim| claim.skips_response),
            is_read,
            is_endpoint_new: true,
            rename: Rename::new(&request.target_model, &request.incoming_model),
            reader: None,
            head: None,
            first: None,
            last: None,
            bytes: 0,
            is_unseen: false,
        }
    }

    /// The body will not be shown. Returns whether nothing of it was until now.
    pub(super) fn unseen(&mut self) -> bool {
        self.is_unseen = true;
        std::mem::take(&mut self.is_endpoint_new)
    }

    pub(super) fn on_headers(&mut self, now: Instant, content_type: Option<&str>) {
        self.head = Some(now);
        let is_events = content_type.is_some_and(|value| contains_ignore_case(value, "text/event-stream"));
        self.streaming |= is_events;
        if let (true, Some(kind), None) = (self.is_read, self.body, &self.reader) {
            let mode = if is_events {
                ResponseMode::Sse
            } else {
                ResponseMode::Json
            };
            self.reader = Some(ResponseReader::new(mode, kind, self.rename.take()));
        }
    }

    pub(super) fn arrived(&mut self, now: Instant, bytes: usize) -> Arrival {
        self.bytes += bytes as u64;
        let last = self.last.replace(now);
        self.first.get_or_insert(now);
        Arrival {
            is_first_of_endpoint: std::mem::take(&mut self.is_endpoint_new),
            gap: last
                .filter(|_| self.streaming)
                .map(|last| now.saturating_duration_since(last)),
        }
    }

    /// Another endpoint goes on.
    pub(super) fn moved(&mut self) {
        self.is_endpoint_new = true;
        if let Some(reader) = &mut self.reader {
            reader.discard_partial();
        }
    }

    pub(super) fn push(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        match &mut self.reader {
            Some(reader) => reader.push(chunk, end, out),
            None if chunk.is_empty() => {}
            None => out.push(chunk),
        }
    }

    pub(super) fn completed(&self, opened: Instant, now: Instant) -> Completed {
        Completed {
            duration: now.saturating_duration_since(opened),
            ttft: self.first.map(|first| first.saturating_duration_since(opened)),
            streaming: self.streaming,
            bytes: (!self.is_unseen).then_some(self.bytes),
            usage: self
                .reader
                .as_ref()
                .map(ResponseReader::usage)
                .unwrap_or_default(),
        }
    }

    /// Upstream's `response_processing_duration_seconds`.
    pub(super) fn processing(&self, now: Instant) -> Duration {
        match self.head {
            Some(head) if !self.streaming => now.saturating_duration_since(head),
            _ => self.spent,
        }
    }
}

fn contains_ignore_case(haystack: &str, needle: &str) -> bool {
    haystack
        .as_bytes()
        .windows(needle.len())
        .any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}
