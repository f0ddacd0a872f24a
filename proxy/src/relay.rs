//! The answer on its way to the client: shown to the flight chunk by chunk, never buffered whole.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode, request, response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::body::WholeBody;
use crate::events::WholeEvents;
use crate::exchange::{Resumed, Shared, resume, within};
use crate::pool::Sender;
use crate::reply::error_json;
use crate::route::{Flight, Outcome, Route, Tracked};

/// An answer whose head and first chunk are here.
pub(crate) struct Started {
    pub(crate) head: response::Parts,
    pub(crate) first: Option<Frame<Bytes>>,
    pub(crate) body: Incoming,
    /// The connection itself, where the target left HTTP.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) sender: Sender,
    pub(crate) target: SocketAddr,
}

impl Started {
    /// Whether the answer is a stream of server-sent events.
    pub(crate) fn is_event_stream(&self) -> bool {
        self.head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("text/event-stream"))
    }
}

/// Why the connection to the client is cut: a shorter body must not look like a whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the target broke off its answer: {0}")]
    Target(#[from] hyper::Error),
    #[error("the target paused its answer for too long")]
    Idle,
    #[error("the request took too long in all")]
    Total,
}

/// Body of a response: one of our own, or a target's.
pub(crate) enum Relay<R: Route> {
    Whole(WholeBody),
    Target(Box<FromTarget<R>>),
}

pub(crate) struct FromTarget<R: Route> {
    source: Source<R>,
    /// As it was sent, for a target that continues the answer.
    request: Option<request::Parts>,
    shared: Arc<Shared<R>>,
    /// Chunks ready for the client; bounded by what the flight makes of one chunk.
    ready: VecDeque<Bytes>,
    scratch: Vec<Bytes>,
    /// The end of the answer, where it has one behind its body (gRPC's status).
    trailers: Option<HeaderMap>,
    /// Keeps events whole; `None` when the answer is no event stream.
    events: Option<WholeEvents>,
    idle: Pin<Box<Sleep>>,
    last_chunk: Instant,
    /// When the answer must be over.
    until: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// Where the next chunk comes from.
enum Source<R: Route> {
    Target(Box<Reading<R>>),
    /// A target died; another one is asked for the rest.
    Resuming(Pin<Box<dyn Future<Output = Continued<R>> + Send>>),
    /// Nothing follows.
    Ended,
}

/// What a finished search for somebody who continues the answer gives back.
type Continued<R> = (Tracked<<R as Route>::Flight>, request::Parts, Resumed);

struct Reading<R: Route> {
    body: Incoming,
    sender: Sender,
    target: SocketAddr,
    tracked: Tracked<R::Flight>,
}

impl<R: Route> From<Bytes> for Relay<R> {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes.into())
    }
}

impl<R: Route> Relay<R> {
    pub(crate) fn respond(
        mut started: Started,
        request: request::Parts,
        mut tracked: Tracked<R::Flight>,
        shared: Arc<Shared<R>>,
        permit: OwnedSemaphorePermit,
        until: Option<Instant>,
    ) -> Response<Self> {
        tracked.flight().on_response_head(&mut started.head);
        let event_stream = started.is_event_stream();
        if event_stream {
            // An error event may have to be added, so the length must stay open.
            started.head.headers.remove(CONTENT_LENGTH);
        }
        let last_chunk = Instant::now();
        let idle = last_chunk + shared.limits.response_idle;
        let idle = Box::pin(tokio::time::sleep_until(
            until.map_or(idle, |until| until.min(idle)),
        ));
        let mut relay = FromTarget {
            source: Source::Ended,
            request: Some(request).filter(|_| event_stream),
            shared,
            ready: VecDeque::new(),
            scratch: Vec::new(),
            trailers: None,
            events: event_stream.then(WholeEvents::default),
            idle,
            last_chunk,
            until,
            _permit: permit,
        };
        let head = relay.read(started, tracked);
        Response::from_parts(head, Self::Target(Box::new(relay)))
    }
}

impl<R: Route> FromTarget<R> {
    /// Goes on with an answer that has begun; returns its head.
    fn read(&mut self, started: Started, tracked: Tracked<R::Flight>) -> response::Parts {
        let Started {
            head,
            first,
            body,
            sender,
            target,
            upgrade: _,
        } = started;
        let reading = Box::new(Reading {
            body,
            sender,
            target,
            tracked,
        });
        self.last_chunk = Instant::now();
        match first.map(Frame::into_data) {
            Some(Ok(chunk)) => self.take(reading, chunk),
            Some(Err(trailers)) => {
                self.trailers = trailers.into_trailers().ok();
                self.complete(*reading);
            }
            None => self.complete(*reading),
        }
        head
    }

    fn accept(&mut self, flight: &mut R::Flight, chunk: Bytes, end: bool) {
        flight.on_response_chunk(chunk, end, &mut self.scratch);
        for piece in self.scratch.drain(..).filter(|piece| !piece.is_empty()) {
            match &mut self.events {
                Some(events) => events.push(&piece, &mut self.ready),
                None => self.ready.push_back(piece),
            }
        }
        if let Some(events) = self.events.as_mut().filter(|_| end) {
            events.finish(&mut self.ready);
        }
    }

    fn take(&mut self, mut reading: Box<Reading<R>>, chunk: Bytes) {
        self.accept(reading.tracked.flight(), chunk, false);
        // With a known length hyper asks no further after the last byte: the end is now.
        if reading.body.is_end_stream() {
            self.complete(*reading);
        } else {
            self.source = Source::Target(reading);
        }
    }

    fn complete(&mut self, reading: Reading<R>) {
        let Reading {
            sender,
            target,
            mut tracked,
            ..
        } = reading;
        self.accept(tracked.flight(), Bytes::new(), true);
        tracked.end(Outcome::Complete);
        self.shared.pool.put(target, sender);
    }

    /// The answer broke off. An event stream is continued by another target or ends with an error
    /// event that clients raise; for any other body the returned error makes hyper cut the connection.
    fn fail(&mut self, reading: Reading<R>, error: RelayError) -> Result<(), RelayError> {
        let Reading {
            target, mut tracked, ..
        } = reading;
        tracing::warn!(%target, %error, "answer broke off");
        let (Some(events), Some(mut request)) = (self.events.as_mut(), self.request.take()) else {
            tracked.end(Outcome::TargetFailed);
            return Err(error);
        };
        events.discard();
        if matches!(error, RelayError::Total) {
            tracked.end(Outcome::TargetFailed);
            self.end_with_error(StatusCode::GATEWAY_TIMEOUT, &error.to_string());
            return Ok(());
        }
        let (shared, until) = (Arc::clone(&self.shared), self.until);
        self.source = Source::Resuming(Box::pin(async move {
            let resuming = resume(&shared, &mut tracked, &mut request, target);
            let resumed = within(until, resuming).await.unwrap_or(Resumed::Lost);
            (tracked, request, resumed)
        }));
        Ok(())
    }

    fn resumed(&mut self, mut tracked: Tracked<R::Flight>, request: request::Parts, resumed: Resumed) {
        match resumed {
            Resumed::Started(started) => {
                self.request = Some(request);
                self.read(*started, tracked);
            }
            Resumed::Complete(rest) => {
                self.accept(tracked.flight(), rest, true);
                tracked.end(Outcome::Complete);
            }
            Resumed::Lost => {
                tracked.end(Outcome::TargetFailed);
                let message = "the answer broke off: its target failed and no other one could continue it";
                self.end_with_error(StatusCode::BAD_GATEWAY, message);
            }
        }
    }

    /// The last event of a stream that did not end well.
    fn end_with_error(&mut self, status: StatusCode, message: &str) {
        let error = error_json(status, message);
        self.ready
            .push_back([b"data: ", &error[..], b"\n\n"].concat().into());
    }

    /// Waits for the deadline that comes first.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<RelayError> {
        // The timer is moved only when it fires: moving it for each chunk would cost a lock.
        while self.idle.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.until.is_some_and(|until| now >= until) {
                return Poll::Ready(RelayError::Total);
            }
            let idle = self.last_chunk + self.shared.limits.response_idle;
            if now >= idle {
                return Poll::Ready(RelayError::Idle);
            }
            let next = self.until.map_or(idle, |until| until.min(idle));
            self.idle.as_mut().reset(next);
        }
        Poll::Pending
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let mut reading = match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Ended => {
                    let trailers = self.trailers.take();
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Source::Target(reading) => reading,
                Source::Resuming(mut resuming) => {
                    let Poll::Ready((tracked, request, resumed)) = resuming.as_mut().poll(cx) else {
                        self.source = Source::Resuming(resuming);
                        return Poll::Pending;
                    };
                    self.resumed(tracked, request, resumed);
                    continue;
                }
            };
            let failed = match Pin::new(&mut reading.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.last_chunk = Instant::now();
                    match frame.into_data() {
                        Ok(chunk) => self.take(reading, chunk),
                        // The end of the body follows. HTTP/1.1 clients get them only if they are told before.
                        Err(trailers) => {
                            self.trailers = trailers.into_trailers().ok();
                            self.source = Source::Target(reading);
                        }
                    }
                    continue;
                }
                Poll::Ready(None) => {
                    self.complete(*reading);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => RelayError::Target(error),
                Poll::Pending => match self.poll_deadline(cx) {
                    Poll::Pending => {
                        self.source = Source::Target(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(error) => error,
                },
            };
            if let Err(error) = self.fail(*reading, failed) {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl<R: Route> Body for Relay<R> {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Target(relay) => relay.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Target(relay) => {
                matches!(relay.source, Source::Ended) && relay.ready.is_empty() && relay.trailers.is_none()
            }
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Target(_) => http_body::SizeHint::default(),
        }
    }
}
