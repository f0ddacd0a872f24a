//! One ext-proc stream without its transport: messages in, answers out, in the order Envoy demands.

mod bodies;
mod turn;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use llmd_epp_api::{Endpoint, ErrorCode, Headers, RejectReason, Rejection, ResponseHead};
use llmd_epp_core::exchange::Subset;
use llmd_epp_core::{Exchange, Hints, Termination};
use llmd_openai::{header, splice_model};
use llmd_process::traces;
use prost_types::value::Kind;
use tonic::Status;
use tracing::Span;

use crate::body_budget::BodyLease;
use crate::spans;

use super::ExtProc;
use super::answers::{self, Direction};
use super::proto::{Event, HttpBody, HttpHeaders, Metadata, ProcessingRequest, ProcessingResponse};
use super::{metadata, served};
use bodies::Bodies;
use turn::Turn;

const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";

/// How far the request has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestPhase {
    /// Nothing was received.
    Idle,
    /// The head is held back until the body is complete.
    Body,
    /// Routed on its head alone; the body passes through.
    PassThrough,
    /// Complete; further body messages are Envoy's duplicates.
    Complete,
}

/// State of one stream.
pub(super) struct Conversation {
    shared: Arc<ExtProc>,
    exchange: Option<Exchange>,
    /// `gateway.request`, for the life of the stream.
    span: Option<Span>,
    phase: RequestPhase,
    sent: Bodies,
    /// The response's head is here, and nothing more will come but the end of the stream.
    is_response_unseen: bool,
    new_request_id: Option<Arc<str>>,
    hints: Hints,
    /// Where the request may have gone, in order of preference.
    endpoints: Vec<Arc<Endpoint>>,
    /// The endpoint that Envoy says has served the request.
    served: Option<String>,
    body: Vec<Bytes>,
    lease: BodyLease,
    body_len: usize,
    /// The request waits until the pool has an endpoint, or for others.
    turn: Option<Turn>,
    is_response_complete: bool,
    scratch: Vec<Bytes>,
    /// Answers ready to be sent.
    pub(super) answers: VecDeque<ProcessingResponse>,
    /// Set once no more is received: how the stream ends after the last answer.
    pub(super) end: Option<Result<(), Status>>,
}

impl Conversation {
    pub(super) fn new(shared: Arc<ExtProc>) -> Self {
        Self {
            lease: BodyLease::new(Arc::clone(&shared.bodies)),
            shared,
            exchange: None,
            span: None,
            phase: RequestPhase::Idle,
            sent: Bodies::default(),
            is_response_unseen: false,
            new_request_id: None,
            hints: Hints::default(),
            endpoints: Vec::new(),
            served: None,
            body: Vec::new(),
            body_len: 0,
            turn: None,
            is_response_complete: false,
            scratch: Vec::new(),
            answers: VecDeque::new(),
            end: None,
        }
    }

    /// Handles one message received at `now`.
    pub(super) fn on_message(&mut self, now: Instant, message: ProcessingRequest) {
        match message.protocol_config.as_ref().map(Bodies::of) {
            Some(Ok(sent)) => self.sent = sent,
            Some(Err(status)) => return self.misconfigured(status),
            None => {}
        }
        if let Some(subset) = message.metadata_context.as_ref().and_then(subset_hint) {
            self.hints.subset = Some(subset);
        }
        if let Some(Event::ResponseHeaders(_)) = &message.event {
            self.served = served::endpoint(&message);
        }
        let outcome = match message.event {
            Some(Event::RequestHeaders(head)) => self.on_request_headers(now, &head),
            Some(Event::RequestBody(body)) => self.on_request_body(now, body),
            Some(Event::RequestTrailers(_)) => self.on_request_trailers(now),
            Some(Event::ResponseHeaders(head)) => {
                self.on_response_headers(now, &head);
                Ok(())
            }
            Some(Event::ResponseBody(body)) => {
                self.on_response_body(now, body);
                Ok(())
            }
            Some(Event::ResponseTrailers(_)) => {
                self.on_response_trailers(now);
                Ok(())
            }
            None => Ok(()),
        };
        if let Err(rejection) = outcome {
            self.reject(now, &rejection);
        }
    }

    /// The stream is over: nobody will send or receive any more.
    pub(super) fn close(&mut self, now: Instant, cause: Termination) -> Vec<llmd_epp_api::Metadata> {
        let cause = match cause {
            // Whether the client had all of it, nobody tells.
            Termination::ClientDisconnect if self.is_response_unseen => Termination::Complete,
            cause => cause,
        };
        if self.turn.take().is_some() || self.phase == RequestPhase::Body {
            // The response is over before the request: its head is not answered any more, so neither is its body.
            self.phase = RequestPhase::Complete;
        }
        let exchange = self.exchange.take();
        exchange.map_or_else(Vec::new, |mut exchange| exchange.finish(now, cause))
    }

    /// Envoy keeps to itself why a stream ended: the log says it, once.
    fn misconfigured(&mut self, status: Status) {
        self.shared
            .warned
            .call_once(|| tracing::warn!(reason = status.message(), "requests fail"));
        self.end = Some(Err(status));
    }

    fn reject(&mut self, now: Instant, rejection: &Rejection) {
        self.close(now, Termination::Error);
        self.body = Vec::new();
        self.lease.release();
        self.end = Some(match rejection.code {
            ErrorCode::Unknown | ErrorCode::ModelServerError => {
                Err(Status::unknown(rejection.message.clone()))
            }
            _ => {
                self.answers.push_back(answers::immediate(rejection));
                Ok(())
            }
        });
    }

    // === request ===

    fn on_request_headers(&mut self, now: Instant, head: &HttpHeaders) -> Result<(), Rejection> {
        if self.phase != RequestPhase::Idle {
            self.end = Some(Err(Status::invalid_argument("request headers were sent twice")));
            return Ok(());
        }
        let headers = read_headers(head);
        let is_upgrade = headers
            .get("upgrade")
            .is_some_and(|protocol| !protocol.eq_ignore_ascii_case("h2c"));
        let request_id = match headers.get(header::REQUEST_ID) {
            Some(id) if !id.is_empty() => id.into(),
            _ => {
                let id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
                self.new_request_id = Some(Arc::clone(&id));
                id
            }
        };
        if self.shared.tracing {
            self.span = Some(spans::request(&headers));
        }
        let exchange = self.shared.epp.open(now, headers, request_id);
        let is_read = exchange.reads_request_body();
        self.exchange = Some(exchange);
        if head.end_of_stream {
            self.phase = RequestPhase::Complete;
            return self.answer_headers(now);
        }
        if is_upgrade {
            // Envoy holds an upgraded connection's data back until the head is answered
            // (envoyproxy/envoy #47161).
            self.phase = RequestPhase::PassThrough;
            return self.route_when_ready(now, false);
        }
        if !is_read {
            // Nothing of the body is needed: it passes by, or is not even sent.
            self.phase = RequestPhase::PassThrough;
            return self.route_when_ready(now, false);
        }
        if !self.sent.request {
            let text = "ext_proc processing_mode.request_body_mode is NONE, and the parser of this path reads bodies: \
                        set it to FULL_DUPLEX_STREAMED, or configure passthrough-parser alone";
            self.misconfigured(Status::failed_precondition(text));
            return Ok(());
        }
        self.phase = RequestPhase::Body;
        Ok(())
    }

    fn on_request_body(&mut self, now: Instant, chunk: HttpBody) -> Result<(), Rejection> {
        let HttpBody { body, end_of_stream } = chunk;
        self.shared.received.request(body.len());
        match self.phase {
            RequestPhase::Idle => {
                self.end = Some(Err(Status::invalid_argument(
                    "a request body came before its headers",
                )));
                Ok(())
            }
            RequestPhase::Complete => Ok(()),
            RequestPhase::PassThrough => {
                match &mut self.turn {
                    // Envoy wants the head's answer first.
                    Some(turn) => {
                        turn.ends_body = end_of_stream;
                        self.keep(body)?;
                    }
                    None => answers::body(Direction::Request, [body], end_of_stream, &mut self.answers),
                }
                if end_of_stream {
                    self.phase = RequestPhase::Complete;
                    self.leave_response(now);
                }
                Ok(())
            }
            RequestPhase::Body => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.on_request_chunk(&body)?;
                }
                self.body_len += body.len();
                self.keep(body)?;
                if end_of_stream {
                    self.phase = RequestPhase::Complete;
                    self.route_when_ready(now, true)?;
                }
                Ok(())
            }
        }
    }

    fn keep(&mut self, body: Bytes) -> Result<(), Rejection> {
        if !self.lease.grow(body.len()) {
            return Err(self.out_of_memory());
        }
        if !body.is_empty() {
            self.body.push(body);
        }
        Ok(())
    }

    fn on_request_trailers(&mut self, now: Instant) -> Result<(), Rejection> {
        let was = std::mem::replace(&mut self.phase, RequestPhase::Complete);
        if was == RequestPhase::Body {
            self.route_when_ready(now, false)?;
        }
        if let Some(turn) = &mut self.turn {
            turn.trailers_follow();
            return Ok(());
        }
        self.answers.push_back(answers::trailers(Direction::Request));
        Ok(())
    }

    fn out_of_memory(&self) -> Rejection {
        let limit = self.shared.bodies.limit();
        let text = format!("request bodies in flight would exceed {limit} bytes, retry later");
        Rejection::new(ErrorCode::ResourceExhausted, text).because(RejectReason::Saturated)
    }

    /// Schedules when there is nothing to wait for, then answers the head and what there is of the body. `end`: the
    /// last body answer ends the body.
    fn route_when_ready(&mut self, now: Instant, end: bool) -> Result<(), Rejection> {
        self.turn = self.wait(now, end)?;
        if self.turn.is_some() {
            return Ok(());
        }
        self.route_request(now, end)
    }

    fn route_request(&mut self, now: Instant, end: bool) -> Result<(), Rejection> {
        self.answer_headers(now)?;
        let body = std::mem::take(&mut self.body);
        answers::body(Direction::Request, body, end, &mut self.answers);
        self.lease.release();
        if end {
            self.leave_response(now);
        }
        Ok(())
    }

    /// Lets Envoy go on alone after a routed request whose response nobody reads.
    fn leave_response(&mut self, now: Instant) {
        if self.turn.is_none() && self.exchange.as_ref().is_some_and(Exchange::skips_response) {
            self.close(now, Termination::Complete);
            self.end = Some(Ok(()));
        }
    }

    fn answer_headers(&mut self, now: Instant) -> Result<(), Rejection> {
        let Some(exchange) = &mut self.exchange else {
            return Ok(());
        };
        let snapshot = (self.shared.snapshots)();
        let orchestration = self.span.as_ref().map(spans::orchestration);
        let routed = {
            let _entered = orchestration.as_ref().and_then(spans::entered_if_sampled);
            exchange.on_request_end(now, &snapshot, &self.hints)
        }?;
        if let (Some(span), Some(request)) = (&orchestration, exchange.request()) {
            spans::tell(span, request);
        }
        drop(orchestration);
        exchange.settle();
        if let Some(decoded) = &routed.decoded_body {
            self.body = vec![decoded.clone()];
        }
        if let Some((span, model)) = &routed.model_splice {
            self.body = splice_model(&self.body, *span, model);
            self.body_len = self.body.iter().map(Bytes::len).sum();
        }
        let scores = self.shared.emit_endpoint_scores.then(|| exchange.scores());
        let mut new_headers: Vec<(String, String)> = Vec::new();
        if let Some(id) = &self.new_request_id {
            new_headers.push((header::REQUEST_ID.to_owned(), id.to_string()));
        }
        new_headers.extend(self.span.iter().flat_map(traces::headers_of));
        let answer = answers::request_headers(&routed, self.body_len, new_headers, scores);
        self.answers.push_back(answer);
        self.endpoints = routed.endpoints;
        Ok(())
    }

    // === response ===

    fn on_response_headers(&mut self, now: Instant, head: &HttpHeaders) {
        let status = value_of(head, ":status").or_else(|| value_of(head, "status"));
        let status = status.and_then(|status| status.parse().ok()).unwrap_or(200);
        let served = std::mem::take(&mut self.served);
        self.report(now, status, served.as_deref());
        let changes = self.exchange.as_mut().map_or_else(Vec::new, |exchange| {
            exchange.on_response_headers(
                now,
                &ResponseHead {
                    status,
                    content_type: value_of(head, "content-type"),
                    served: served.as_deref(),
                    header: &|name| value_of(head, name),
                },
            )
        });
        self.answers.push_back(answers::response_headers(&changes));
        if head.end_of_stream {
            self.complete_response(now);
        } else if !self.sent.response {
            self.is_response_unseen = true;
            if let Some(exchange) = &mut self.exchange {
                exchange.on_unseen_response(now);
            }
        }
    }

    /// Tells how the endpoint answered that served the request: the first of the list, or the one that Envoy names.
    fn report(&mut self, now: Instant, status: u16, served: Option<&str>) {
        let endpoints = std::mem::take(&mut self.endpoints);
        let Some(first) = endpoints.first() else {
            return;
        };
        let tell = |endpoint: &Endpoint, is_well| (self.shared.answers)(endpoint.name(), is_well, now);
        match served.filter(|served| **served != **first.target()) {
            None => tell(first, status < 500),
            // Envoy went on to another one: the first could not be reached.
            Some(served) => {
                tell(first, false);
                let snapshot = (self.shared.snapshots)();
                if let Some(endpoint) = snapshot.endpoints.iter().find(|one| **one.target() == *served) {
                    tell(endpoint, status < 500);
                }
            }
        }
    }

    fn on_response_body(&mut self, now: Instant, chunk: HttpBody) {
        if self.is_response_complete {
            return;
        }
        let HttpBody { body, end_of_stream } = chunk;
        self.pass_response_chunk(now, body, end_of_stream);
        answers::body(
            Direction::Response,
            self.scratch.drain(..),
            end_of_stream,
            &mut self.answers,
        );
        if end_of_stream {
            self.complete_response(now);
        }
    }

    fn on_response_trailers(&mut self, now: Instant) {
        if !self.is_response_complete {
            self.pass_response_chunk(now, Bytes::new(), true);
            answers::body(
                Direction::Response,
                self.scratch.drain(..),
                false,
                &mut self.answers,
            );
            self.complete_response(now);
        }
        self.answers.push_back(answers::trailers(Direction::Response));
    }

    fn pass_response_chunk(&mut self, now: Instant, chunk: Bytes, end: bool) {
        match &mut self.exchange {
            Some(exchange) => {
                exchange.on_response_chunk(now, chunk, end, &mut self.scratch);
                if exchange.is_streaming() {
                    exchange.spent_on_response(now.elapsed());
                }
            }
            None => self.scratch.push(chunk),
        }
    }

    fn complete_response(&mut self, now: Instant) {
        self.is_response_complete = true;
        let reported = self.close(now, Termination::Complete);
        if let (false, Some(last)) = (reported.is_empty(), self.answers.back_mut()) {
            last.dynamic_metadata = Some(metadata::of_plugins(&reported));
        }
    }
}

pub(super) fn read_headers(head: &HttpHeaders) -> Headers {
    let mut headers = Headers::default();
    for header in head.headers.iter().flat_map(|map| &map.headers) {
        if let Ok(name) = std::str::from_utf8(&header.key) {
            headers.push(name, header.bytes());
        }
    }
    headers
}

/// The first value of `name`, where nothing else of the head is wanted.
pub(super) fn value_of<'a>(head: &'a HttpHeaders, name: &str) -> Option<&'a str> {
    let mut headers = head.headers.iter().flat_map(|map| &map.headers);
    let header = headers.find(|header| header.key.eq_ignore_ascii_case(name.as_bytes()))?;
    std::str::from_utf8(header.bytes()).ok()
}

/// The subset hint, if the proxy sent one; entries that are no strings are skipped.
fn subset_hint(metadata: &Metadata) -> Option<Subset> {
    let hint = metadata
        .filter_metadata
        .get(SUBSET_NAMESPACE)?
        .fields
        .get(header::DESTINATION_SUBSET)?;
    let Some(Kind::ListValue(list)) = &hint.kind else {
        return None;
    };
    let entries = list.values.iter().filter_map(|value| match &value.kind {
        Some(Kind::StringValue(entry)) => Some(entry.as_str()),
        _ => None,
    });
    Some(Subset::from_entries(entries))
}
