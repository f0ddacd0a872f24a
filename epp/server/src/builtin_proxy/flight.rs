//! One proxied request: drives its exchange and moves it to another endpoint when one fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, request, response};
use llmd_epp_api::{Endpoint, Rejection, ResponseHead};
use llmd_epp_core::{Exchange, Hints, Routed, Termination};
use llmd_openai::sse::is_event_stream;
use llmd_openai::{header, splice_model};
use llmd_process::traces;
use llmd_proxy::{Flight, LocalReply, Outcome, Plan, Resumption};

use tracing::Span;

use super::continuation::{Continuation, Continuations, Next, is_continued_by};
use crate::datalayer::DataLayer;
use crate::spans;
use crate::waiting::{Place, WaitingRoom};

/// Seconds after which a shed client may come back.
const RETRY_AFTER: u32 = 1;

/// State of one request.
pub(super) struct RequestFlight {
    exchange: Exchange,
    /// `gateway.request`, for the life of the request.
    span: Option<Span>,
    layer: DataLayer,
    request_id: Arc<str>,
    /// The `Authorization` header holds a key of this proxy, which is none of the engine's business.
    hides_key: bool,
    renames_model: bool,
    endpoint: Option<Arc<Endpoint>>,
    /// Headers that plugins set for the pick before; another pick may not have them.
    set_headers: Vec<Arc<str>>,
    failed: Vec<Arc<Endpoint>>,
    continuations: Option<Continuations>,
    /// Where the request waits while the pool is empty.
    waiting: Option<Arc<WaitingRoom>>,
    /// What a request for the rest of the answer is made of, while there may be one.
    continuation: Option<Continuation>,
}

impl RequestFlight {
    pub(super) fn new(
        exchange: Exchange,
        span: Option<Span>,
        layer: DataLayer,
        request_id: Arc<str>,
        hides_key: bool,
        continuations: Option<Continuations>,
        waiting: Option<Arc<WaitingRoom>>,
    ) -> Self {
        Self {
            exchange,
            span,
            layer,
            request_id,
            hides_key,
            renames_model: false,
            endpoint: None,
            set_headers: Vec::new(),
            failed: Vec::new(),
            continuations,
            waiting,
            continuation: None,
        }
    }

    /// Asks for the tokens of the prompt, where somebody is configured to be asked.
    async fn render(&mut self, body: &[Bytes]) -> Result<(), Rejection> {
        if let Some(rendering) = self.exchange.render(body)? {
            let tokens = rendering.await;
            self.exchange.rendered(tokens);
        }
        Ok(())
    }

    /// Waits until the pool has an endpoint, and until those that came before are scheduled.
    async fn wait(&mut self) -> Result<Option<Place>, Rejection> {
        let Some(room) = self.waiting.as_ref().filter(|room| !room.is_open()) else {
            return Ok(None);
        };
        if self.exchange.request().is_none() {
            self.exchange.take_in()?;
        }
        let place = match self.exchange.request() {
            Some(request) => room.place(request),
            None => Ok(None),
        };
        let waited = match place {
            Ok(Some(mut place)) => place.turn().await.map(|()| Some(place)),
            other => other,
        };
        waited.map_err(|refusal| self.exchange.rejected(refusal))
    }

    /// Waits for others, where a plugin puts requests together.
    async fn gather(&mut self) -> Result<(), Rejection> {
        if let Some(due) = self.exchange.gather(Instant::now(), &self.layer.routable())? {
            tokio::time::sleep_until(due.into()).await;
        }
        Ok(())
    }

    /// The endpoint that had the request is gone.
    fn leave_endpoint(&mut self, now: Instant) -> Option<()> {
        let endpoint = self.endpoint.take()?;
        tracing::debug!(endpoint = %endpoint.name(), request_id = %self.request_id, "endpoint failed");
        self.layer.report_unreachable(endpoint.name(), now);
        self.failed.push(endpoint);
        Some(())
    }

    /// Picks an endpoint that takes a begun answer back.
    fn continuing_endpoint(&mut self, now: Instant, head: &mut request::Parts) -> Option<SocketAddr> {
        loop {
            let routed = self
                .exchange
                .reroute(now, &self.layer.routable(), &Hints::default(), &self.failed);
            let routed = routed.ok()?;
            let endpoint = routed.endpoints.first()?;
            if is_continued_by(endpoint) {
                return self.follow(&routed, head);
            }
            self.failed.push(Arc::clone(endpoint));
        }
    }

    /// Takes over a pick and sets the headers that belong to it.
    fn follow(&mut self, routed: &Routed, head: &mut request::Parts) -> Option<SocketAddr> {
        let endpoint = routed.endpoints.first()?;
        for name in self.set_headers.drain(..) {
            head.headers.remove(&*name);
        }
        for name in &routed.remove_headers {
            head.headers.remove(&**name);
        }
        // A plugin may lead to another address than the endpoint's own; a list is ours to walk.
        let (target, address) = match routed.destination.parse() {
            Ok(address) => (&routed.destination, address),
            Err(_) => (endpoint.target(), endpoint.socket_addr()),
        };
        set(&mut head.headers, header::DESTINATION, target);
        for change in &routed.set_headers {
            set(&mut head.headers, &change.name, &change.value);
            self.set_headers.push(Arc::clone(&change.name));
        }
        self.endpoint = Some(Arc::clone(endpoint));
        Some(address)
    }
}

/// Sets a header; one that HTTP cannot carry is left out, as a proxy would do.
fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

impl Flight for RequestFlight {
    fn on_request_chunk(&mut self, chunk: &Bytes) -> Result<(), LocalReply> {
        self.exchange
            .on_request_chunk(chunk)
            .map_err(|rejection| reply(&rejection))
    }

    async fn plan(&mut self, head: &mut request::Parts, body: Vec<Bytes>) -> Result<Plan, LocalReply> {
        self.render(&body).await.map_err(|rejection| reply(&rejection))?;
        // As Envoy's, a request without a body does not wait.
        let place = if body.is_empty() {
            Ok(None)
        } else {
            self.wait().await
        };
        let place = place.map_err(|rejection| reply(&rejection))?;
        let place = if self.exchange.gathers() {
            // Those behind it wait together with it, not one after the other.
            drop(place);
            self.gather().await.map_err(|rejection| reply(&rejection))?;
            None
        } else {
            place
        };
        let orchestration = self.span.as_ref().map(spans::orchestration);
        let routed = {
            let _entered = orchestration.as_ref().and_then(spans::entered_if_sampled);
            self.exchange
                .on_request_end(Instant::now(), &self.layer.routable(), &Hints::default())
        };
        // The next one's turn.
        drop(place);
        let routed = routed.map_err(|rejection| reply(&rejection))?;
        if let (Some(span), Some(request)) = (&orchestration, self.exchange.request()) {
            spans::tell(span, request);
        }
        drop(orchestration);
        for (name, value) in self.span.iter().flat_map(traces::headers_of) {
            set(&mut head.headers, &name, &value);
        }
        if self.hides_key {
            head.headers.remove(AUTHORIZATION);
        }
        set(&mut head.headers, header::REQUEST_ID, &self.request_id);
        let body = routed.decoded_body.clone().map_or(body, |decoded| vec![decoded]);
        let body = match &routed.model_splice {
            Some((span, model)) => splice_model(&body, *span, model),
            None => body,
        };
        self.renames_model = routed.model_splice.is_some();
        let message = "results must be greater than zero";
        let target = self
            .follow(&routed, head)
            .ok_or_else(|| LocalReply::error(StatusCode::INTERNAL_SERVER_ERROR, message))?;
        if let Some(shared) = &self.continuations
            && self
                .exchange
                .request()
                .is_some_and(|request| request.facts.stream)
        {
            self.continuation = Continuation::keep(shared, self.exchange.body_kind(), &body);
        }
        Ok(Plan { target, body })
    }

    async fn replan(&mut self, _failed: SocketAddr, head: &mut request::Parts) -> Option<SocketAddr> {
        let now = Instant::now();
        self.leave_endpoint(now)?;
        let routed = self
            .exchange
            .reroute(now, &self.layer.routable(), &Hints::default(), &self.failed)
            .ok()?;
        self.follow(&routed, head)
    }

    async fn resume(&mut self, _failed: SocketAddr, head: &mut request::Parts) -> Option<Resumption> {
        let shared = self.continuations.clone()?;
        let now = Instant::now();
        self.leave_endpoint(now)?;
        let Some(continuation) = &mut self.continuation else {
            shared.count("impossible");
            return None;
        };
        match continuation.next() {
            Next::Impossible(why) => {
                tracing::info!(request_id = %self.request_id, why, "a broken stream cannot be continued");
                shared.count("impossible");
                None
            }
            Next::Complete(rest) => {
                shared.count("completed");
                Some(Resumption::Complete(rest))
            }
            Next::Ask(body) => {
                let Some(target) = self.continuing_endpoint(now, head) else {
                    shared.count("no_endpoint");
                    return None;
                };
                shared.count("continued");
                let body = vec![body.into()];
                Some(Resumption::Send(Plan { target, body }))
            }
        }
    }

    fn on_response_head(&mut self, head: &mut response::Parts) {
        if let Some(endpoint) = &self.endpoint {
            if head.status.is_server_error() {
                self.layer.report_failed(endpoint.name(), Instant::now());
            } else {
                self.layer.report_answered(endpoint.name());
            }
        }
        let content_type = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let served = self
            .endpoint
            .as_ref()
            .map(|endpoint| Arc::clone(endpoint.target()));
        let changes = self.exchange.on_response_headers(
            Instant::now(),
            &ResponseHead {
                status: head.status.as_u16(),
                content_type,
                served: served.as_deref(),
                header: &|name| head.headers.get(name).and_then(|value| value.to_str().ok()),
            },
        );
        let is_plain_stream = head.status == StatusCode::OK
            && content_type.is_some_and(is_event_stream)
            && !head.headers.contains_key(CONTENT_ENCODING);
        if !is_plain_stream {
            self.continuation = None;
        }
        if self.continuation.is_none() {
            self.exchange.settle();
        }
        if self.renames_model {
            // The model's own name comes back in place of the engine's: the length changes.
            head.headers.remove(CONTENT_LENGTH);
        }
        for change in changes {
            set(&mut head.headers, &change.name, &change.value);
        }
    }

    fn on_response_chunk(&mut self, chunk: Bytes, end: bool, out: &mut Vec<Bytes>) {
        let chunk = match &mut self.continuation {
            Some(continuation) => continuation.pass(chunk, end),
            None => chunk,
        };
        self.exchange.on_response_chunk(Instant::now(), chunk, end, out);
    }

    fn on_end(&mut self, outcome: Outcome) {
        let cause = match outcome {
            Outcome::Complete => Termination::Complete,
            Outcome::ClientGone => Termination::ClientDisconnect,
            Outcome::TargetFailed | Outcome::Rejected => Termination::Error,
        };
        self.exchange.finish(Instant::now(), cause);
    }
}

/// A rejection as a client of the OpenAI API expects errors.
fn reply(rejection: &Rejection) -> LocalReply {
    let status =
        StatusCode::from_u16(rejection.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = LocalReply::error(status, &rejection.message);
    if let Some(reason) = rejection.reason {
        let name = HeaderName::from_static(header::REQUEST_DROPPED_REASON);
        reply = reply.with_header(name, HeaderValue::from_static(reason.as_str()));
    }
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        reply = reply.retry_after(RETRY_AFTER);
    }
    reply
}
